"""A server of a paced engine in a process of its own, and a client that costs little beside it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def served(core: int | None, **environment: str) -> Iterator[tuple[psutil.Process, int]]:
    """A server of a paced engine: its process and port."""
    command = [sys.executable, str(Path(__file__).parent / "paced.py")]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | environment
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        port = int(json.loads(child.stdout.readline())["url"].rpartition(":")[2].removesuffix("/v1"))
        process = psutil.Process(child.pid)
        if core is not None:
            process.cpu_affinity([core])
        yield process, port
    finally:
        child.stdin.close()
        child.wait(30)


def request(tokens: int) -> bytes:
    """A chat completion that streams, as a client sends it."""
    content = "You are the harbour master's assistant. Which ship came in first today, and what did she carry?"
    body = {"model": "default", "messages": [{"role": "user", "content": content}], "stream": True}
    raw = json.dumps(body | {"max_tokens": tokens, "temperature": 0.7}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
    )
    return head.encode() + b"\r\n\r\n" + raw


class Stream(asyncio.Protocol):
    """One connection, one request at a time. `heard(count)`: so many more events have come; `ended` at the end."""

    def __init__(self) -> None:
        self.free = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, body: bytes, heard: Callable[[int], None]) -> asyncio.Future[None]:
        self.free, self._heard, self._tail = False, heard, b""
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(body)
        return self._ended

    def data_received(self, data: bytes) -> None:
        seen = data.count(b'"content":" word"')
        if seen:
            self._heard(seen)
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"0\r\n\r\n":
            self.free = True
            self._ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.free:
            self._ended.set_exception(error or ConnectionError("the server hung up"))

    def close(self) -> None:
        self._transport.close()


async def connect(port: int) -> Stream:
    _, protocol = await asyncio.get_running_loop().create_connection(Stream, "127.0.0.1", port)
    return protocol


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
