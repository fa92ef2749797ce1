"""Clients that take their time do not keep anything for ever."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest
from live import LocalServer

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.service import Settings

from .conftest import Watched

ASK = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def hasty():
    engine = Watched()
    with LocalServer(Runtime([engine], grace=0.2), Settings(slow=0.2)) as server:
        server.engine = engine
        yield server


def connect(server, sent):
    host, port = server.base.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.settimeout(20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((host, int(port)))
    sock.sendall(sent)
    return sock


def head(length, path="/v1/chat/completions"):
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("body", [b"", b'{"model": '])
def test_a_body_that_does_not_come_whole_is_refused(hasty, body):
    with connect(hasty, head(100) + body) as sock:
        answer = b""
        while b"request_timeout" not in answer:
            answer += sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("sent", [b"", b"GET /v1/mod", b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_who_does_not_say_what_it_wants_is_hung_up_on(hasty, sent):
    with connect(hasty, sent) as sock, contextlib.suppress(ConnectionResetError):
        assert sock.recv(4096) == b""


MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"


def answered(sock, times=1):
    """The answers of the server, whole; their bodies say so."""
    found = b""
    while found.count(b'"object":"list"') < times:
        more = sock.recv(4096)
        assert more, found
        found += more
    return found


@pytest.mark.parametrize("sent", [b"GET /v1/mod", MODELS, b"\r\n", head(10**6)[:-2]])
def test_who_does_not_say_what_it_wants_next_is_hung_up_on(hasty, sent):
    """Half a head on a connection that was kept would hold it for ever: what comes ends the wait for a request."""
    with connect(hasty, MODELS + b"\r\n") as sock, contextlib.suppress(ConnectionResetError):
        assert answered(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(sent)
        assert sock.recv(4096) == b""


def test_who_goes_on_with_what_was_answered_already_is_hung_up_on(hasty):
    """The answer does not need the body, which does not end."""
    with connect(hasty, head(10**6, "/nowhere")) as sock, contextlib.suppress(ConnectionResetError):
        assert b"HTTP/1.1 404 " in sock.recv(4096)
        sock.sendall(b"x")
        assert sock.recv(4096) == b""


def test_a_head_may_come_in_pieces_and_several_at_once():
    with LocalServer(Runtime([Watched()]), Settings(slow=60)) as server, connect(server, b"") as sock:
        for _ in range(2):
            for byte in MODELS + b"\r\n":
                sock.sendall(bytes([byte]))
            answered(sock)
        sock.sendall(2 * (MODELS + b"\r\n"))
        assert answered(sock, 2).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("kept", [False, True])
def test_a_head_that_does_not_end_is_refused(kept):
    with LocalServer(Runtime([Watched()]), Settings(slow=60)) as server, connect(server, b"") as sock:
        if kept:
            sock.sendall(MODELS + b"\r\n")
            answered(sock)
        sock.sendall(MODELS)
        for i in range(1000):
            sock.sendall(f"X-{i}: {'x' * 1000}\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 400 Bad Request")
        assert sock.recv(4096) == b""


def test_trailers_that_do_not_end_are_not_kept():
    """Of a body in pieces, its end: nobody reads them, and they would be in memory as long as they come."""
    sent = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    trailers = b"".join(f"X-{i}: {'x' * 1000}\r\n".encode() for i in range(20_000))
    with (
        LocalServer(Runtime([Watched()]), Settings(slow=60)) as server,
        connect(server, sent) as sock,
        pytest.raises(ConnectionError),
    ):
        sock.sendall(trailers)


def test_who_takes_its_time_between_requests_and_for_an_answer_is_not(hasty):
    body = json.dumps(ASK).encode()
    with connect(hasty, head(len(body)) + body[:5]) as sock:
        sock.sendall(body[5:])
        assert b"HTTP/1.1 200" in sock.recv(4096)
