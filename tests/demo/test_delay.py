"""The delay proxy: every byte arrives, in order, no sooner than it may, and an end is passed on."""

import gc
import socket
import threading
import time

import pytest

from semantic_parrot.server.demo.delay import delayed


@pytest.fixture
def echo():
    """A server that sends back what it gets, until the client has no more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    thread.join(10)
    listener.close()


def through(url, sent):
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        begun = time.monotonic()
        writer = threading.Thread(target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR)))
        writer.start()
        got, first = b"", None
        while data := connection.recv(1 << 16):
            first = first or time.monotonic() - begun
            got += data
        writer.join()
    return got, first


def test_bytes_pass_whole_and_late(echo):
    sent = bytes(range(256)) * 4000
    with delayed(echo, 0.05) as url:
        assert url != echo
        got, first = through(url, sent)
    assert got == sent
    assert first >= 0.05


def test_a_network_that_is_not_even_keeps_the_order(echo):
    sent = bytes(range(256)) * 4000
    with delayed(echo, 0.04, jitter=0.5, seed=1) as url:
        got, first = through(url, sent)
    assert got == sent
    assert first >= 0.02


def test_no_delay_is_no_proxy(echo):
    with delayed(echo, 0) as url:
        assert url == echo
    assert through(echo, b"x")[0] == b"x"


def test_a_server_that_is_gone_is_a_closed_connection():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with delayed(f"http://127.0.0.1:{port}/v1", 0.01) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            assert connection.recv(1) == b""


def test_its_end_closes_what_has_just_come():
    """Whether accepted, being linked or linked: a connection that is left open warns when it is collected."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        for _ in range(10):
            with delayed(f"http://127.0.0.1:{server.getsockname()[1]}/v1", 0.01) as url:
                port = int(url.removesuffix("/v1").rpartition(":")[2])
                clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(8)]
            for client in clients:
                client.close()
        for _ in range(3):
            gc.collect()
