"""Clients that do not read what they were answered do not keep it in memory for ever; those that read slowly get it."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest
import uvicorn
from live import LocalServer
from uvicorn.server import ServerState

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.app import create_app
from semantic_parrot.server.service import Settings
from semantic_parrot.server.slow import impatient

from .conftest import Watched
from .test_slow_clients import ASK, connect, hasty, head

__all__ = ["hasty"]


def test_who_does_not_read_its_stream_is_hung_up_on(hasty):
    """The engine, which would go on with its answer once the gate opens, is told to stop."""
    hasty.engine._gate = asyncio.Event()
    hasty.engine._answers = lambda _: "word" * 4_000_000 + " end"
    body = json.dumps({**ASK, "stream": True}).encode()
    with connect(hasty, head(len(body)) + body):
        assert hasty.engine.left.acquire(timeout=20)
    assert hasty.engine.cancelled == 1


def test_who_does_not_read_the_last_of_its_answer_is_hung_up_on():
    """It is too little for the transport to say that it is full, and the connection is to be closed after it."""
    engine = Watched()
    engine.say("x" * 60_000)
    body = json.dumps(ASK).encode()
    sent = head(len(body)).replace(b"Host: x", b"Host: x\r\nConnection: close") + body
    server = LocalServer(Runtime([engine]), Settings(slow=0.2))
    server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with server, connect(server, sent):
        assert engine.left.acquire(timeout=20)
        for _ in range(200):
            if not server._server.server_state.connections:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the connection is held for ever")


class Wire(asyncio.Transport):
    """A transport whose client has `left` to read, and a loop whose time passes when the test says."""

    def __init__(self):
        super().__init__()
        self.left, self.aborted, self.later = 100, False, []

    def get_write_buffer_size(self):
        return self.left

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    def call_later(self, seconds, work, *about):
        self.later.append((work, about))

    def pass_time(self):
        work, about = self.later.pop()
        work(*about)


async def test_who_reads_its_answer_slowly_is_waited_for():
    wire = Wire()
    protocol = impatient(60)(uvicorn.Config(create_app(Runtime([]))), ServerState(), {}, _loop=wire)
    protocol.connection_made(wire)
    protocol.pause_writing()
    for left in (99, 1):
        wire.left = left
        wire.pass_time()
        assert not wire.aborted
    wire.pass_time()
    assert wire.aborted
