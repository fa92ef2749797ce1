"""What is answered before the body has come can be read by a client that is still sending it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket

import httpx
import openai
import pytest
import uvicorn
from live import LocalServer
from uvicorn.server import ServerState

from semantic_parrot.adapters.http_connection import HttpConnections
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tenants import LimitsSection, TenantSection, Terms
from semantic_parrot.server import protocol
from semantic_parrot.server.app import create_app
from semantic_parrot.server.service import Settings
from semantic_parrot.server.slow import impatient
from semantic_parrot.server.tenants.limits import Limits

from .conftest import Watched

SIZE = 16_000_000
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server():
    """Its bodies may have a megabyte."""
    with LocalServer(Runtime([Watched()]), Settings(max_body=1_000_000)) as server:
        yield server


def send(server, path, *, chunked=False, close=False, method="POST"):
    """The answer to a body of SIZE bytes, all of which is sent before anything is read, in a connection that the
    client wants to be closed, or not."""
    host, port = server.base.removeprefix("http://").split(":")
    length = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % SIZE
    piece = b"x" * 1_000_000
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + length)
        sock.sendall(b"Connection: close\r\n\r\n" if close else b"\r\n")
        for _ in range(SIZE // len(piece)):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            sock.sendall(b"0\r\n\r\n")
        answer = b""
        while b'"code"' not in answer:
            more = sock.recv(65536)
            assert more, answer
            answer += more
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", CHAT, 413),
        ("POST", "/v1/runs", 413),
        ("DELETE", "/v1/runs/run_x", 413),
        ("POST", f"{CHAT}?x=1", 400),
        ("POST", "/nowhere", 404),
        ("POST", "/v1/models", 405),
    ],
)
def test_who_sends_all_first_reads_the_refusal(server, method, path, status, chunked, close):
    assert send(server, path, chunked=chunked, close=close, method=method) == status


def test_openais_client_reads_it(server):
    with openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        for _ in range(3):
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(model="default", messages=[{"role": "user", "content": "x" * SIZE}])
            assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


@pytest.mark.parametrize(("method", "path"), [("POST", "/runs"), ("DELETE", "/runs/run_x")])
async def test_the_courier_reads_it_and_goes_on(server, method, path):
    """As Parrot's own client sends programs."""
    connections = HttpConnections(server.url, {}, {})
    for _ in range(3):
        status, body = await connections.request(method, path, b"x" * SIZE, headers={})
        assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
        status, body = await connections.request("GET", "/runs/run_x", b"", headers={})
        assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")
    connections.close()


def test_a_refusal_keeps_the_connection_if_little_is_to_come():
    """Who is told to come again does so on the connection that it has; one that sends much has to make a new one."""
    terms = Terms(LimitsSection(), TenantSection(requests_per_minute=1))
    runtime = Runtime([Watched()], terms=terms)
    limits = Limits(terms, lambda tenant: runtime.calls.queue(tenant))
    with LocalServer(runtime, limits=limits) as server, httpx.Client(base_url=server.base, timeout=60) as http:
        ask = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}
        assert http.post(CHAT, json=ask).status_code == 200
        for size, kept in ((100_000, True), (SIZE, False)):
            refusal = http.post(CHAT, content=b"x" * size)
            assert (refusal.status_code, refusal.headers.get("connection") == "close") == (429, not kept)
        assert send(server, CHAT, chunked=True) == 429


def test_who_is_refused_and_goes_on_sending_is_left(monkeypatch):
    """So many bytes are thrown away, and no more."""
    monkeypatch.setattr(protocol, "LINGER_BYTES", 1_000_000)
    with (
        LocalServer(Runtime([Watched()]), Settings(max_body=10)) as server,
        pytest.raises(ConnectionError),
    ):
        send(server, CHAT)


class Reset(asyncio.Transport):
    """Of a client that has reset its connection, which nobody has noticed yet."""

    closed = False

    def is_closing(self):
        return self.closed

    def get_write_buffer_size(self):
        return 0

    def write_eof(self):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def close(self):
        self.closed = True


async def test_a_connection_that_its_client_has_reset_is_closed_at_once():
    transport = Reset()
    connection = impatient(60)(uvicorn.Config(create_app(Runtime([]))), ServerState(), {})
    connection.connection_made(transport)
    connection.data_received(b"POST /v1/chat/comp")
    connection.transport.close()
    assert transport.closed
    connection.connection_lost(None)
