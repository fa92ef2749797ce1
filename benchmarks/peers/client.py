"""Streamed completions over HTTP/1.1, many at once. Built to cost little beside the engine on the same cores: while
they run, what comes is stored with its time; it is read afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import h11

from peers.process import PeerFailed

PATIENCE = 180.0  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Answer:
    """`chunks`: when each piece of text came (time.perf_counter()). `tokens`, `prompt`: as the server counts them, if
    it does."""

    text: str
    sent: float
    chunks: tuple[float, ...]
    tokens: int | None
    prompt: int | None


async def together(port: int, route: str, bodies: list[dict[str, Any]]) -> list[Answer]:
    """All requests at once. Raises PeerFailed."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*(_one(port, route, body) for body in bodies))
    except TimeoutError:
        raise PeerFailed(f"no answer in {PATIENCE:.0f} s") from None
    except OSError as error:
        raise PeerFailed(f"its connection broke: {error}") from None


async def _one(port: int, route: str, body: dict[str, Any]) -> Answer:
    payload = json.dumps(body).encode()
    head = f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        sent = time.perf_counter()
        writer.write(head.encode() + payload)
        arrived: list[tuple[float, bytes]] = []
        while data := await reader.read(1 << 16):
            arrived.append((time.perf_counter(), data))
    finally:
        writer.close()
    return read(sent, arrived)


def read(sent: float, arrived: list[tuple[float, bytes]]) -> Answer:
    """The answer in what came over the connection. Raises PeerFailed."""
    times: list[float] = []
    text, usage = "", {}
    for at, event in _events(arrived):
        if event == b"[DONE]":
            continue
        try:
            found = json.loads(event)
        except ValueError:
            raise PeerFailed(f"it sent an event that is no JSON: {event[:100]!r}") from None
        if "error" in found:
            raise PeerFailed(f"it answered with an error: {str(found['error'])[:200]}")
        usage = found.get("usage") or usage
        for choice in found.get("choices", ()):
            piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            if piece:
                text += piece
                times.append(at)
    if not times:
        raise PeerFailed("it answered no text")
    return Answer(text, sent, tuple(times), usage.get("completion_tokens"), usage.get("prompt_tokens"))


def _events(arrived: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """(when its end came, data) of each server-sent event."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="POST", target="/", headers=[("Host", "here"), ("Connection", "close")]))
    http.send(h11.EndOfMessage())
    found: list[tuple[float, bytes]] = []
    status, said, rest = 0, b"", b""
    try:
        for at, data in [*arrived, (time.perf_counter(), b"")]:
            http.receive_data(data)
            while (event := http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    said = (said + bytes(event.data))[:200]
                    *lines, rest = (rest + bytes(event.data)).split(b"\n")
                    found += [(at, line.strip()[5:].strip()) for line in lines if line.startswith(b"data:")]
                elif isinstance(event, h11.EndOfMessage) and status == 200:
                    return found
                else:
                    raise PeerFailed(f"it answered with status {status}: {said.decode(errors='replace')}")
    except h11.RemoteProtocolError as error:
        raise PeerFailed(f"its connection ended early or is no HTTP: {error}") from None
    raise AssertionError("h11 ends with a message or an error")
