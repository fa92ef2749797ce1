"""Clients that take their time do not keep anything for ever."""

from __future__ import annotations

import asyncio
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


def test_who_does_not_read_its_stream_is_hung_up_on(hasty):
    """The engine, which would go on with its answer once the gate opens, is told to stop."""
    hasty.engine._gate = asyncio.Event()
    hasty.engine._answers = lambda _: "word" * 4_000_000 + " end"
    body = json.dumps({**ASK, "stream": True}).encode()
    with connect(hasty, head(len(body)) + body):
        assert hasty.engine.left.acquire(timeout=20)
    assert hasty.engine.cancelled == 1


def test_who_takes_its_time_between_requests_and_for_an_answer_is_not(hasty):
    body = json.dumps(ASK).encode()
    with connect(hasty, head(len(body)) + body[:5]) as sock:
        sock.sendall(body[5:])
        assert b"HTTP/1.1 200" in sock.recv(4096)
