"""A server that lies about its runs: the real application, with the events of POST /v1/runs tampered with."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

from lc_shapes import formatted_answer
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core.runtime import Runtime


class HostileServer(LocalServer):
    """Each call is, by chance and `seed`, aborted, answered with garbage under a wrong key, or answered truly. With
    `hang_up`, a stream also breaks off before an event with that chance. `faults` counts what was done."""

    def __init__(self, seed: int = 0, hang_up: float = 0.0) -> None:
        super().__init__(Runtime([ScriptedEngine(answers=formatted_answer)], disable={"single-flight"}))
        self.hang_up = hang_up
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self._app = self._server.config.app
        self._server.config.app = self._tampered
        self._server.config.interface = "asgi3"

    async def _tampered(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/runs":
            await self._app(scope, receive, send)
            return
        fates: dict[str, str] = {}

        async def tamper(message: Any) -> None:
            body = message.get("body", b"")
            if b"data: " not in body:
                await send(message)
                return
            for block in body.removesuffix(b"\n\n").split(b"\n\n"):  # the server sends several events at once
                if self.random.random() < self.hang_up:
                    self.faults["hang up"] += 1
                    raise ConnectionAbortedError("hostile")
                await send({**message, "body": self._event(block + b"\n\n", fates)})

        await self._app(scope, receive, tamper)

    def _event(self, block: bytes, fates: dict[str, str]) -> bytes:
        event = json.loads(block.decode().partition("data: ")[2])
        if not event["type"].startswith("call."):
            return block
        fate = fates.setdefault(event["id"], self.random.choice(["true", "abort", "garbage"]))
        if fate == "abort":
            self.faults["abort"] += 1
            event = {"type": "call.aborted", "id": event["id"], "reason": "hostile"}
        elif fate == "garbage" and event["type"] == "call.finished":
            self.faults["garbage"] += 1
            event["content_key"] = "0" * 64
            choice = event["response"]["choices"][0]
            if "message" in choice:
                choice["message"]["content"] = "GARBAGE"
            else:
                choice["text"] = "GARBAGE"
        return f"data: {json.dumps(event)}\n\n".encode()
