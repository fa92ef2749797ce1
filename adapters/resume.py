"""The rest of a stream whose answer was lost halfway: the call is made again, and what was passed on is left out.

Only greedy calls can be resumed so: they generate the same text again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from semantic_parrot.adapters.replay import to_json


class Diverged(Exception):
    """The second answer is another text than the first."""


def can_resume(request: Mapping[str, Any]) -> bool:
    return request.get("temperature") == 0


class Rest:
    """`feed` it the lines of the second stream; it gives back the blocks that continue the first. `sent`: the text of
    its first choice, with the logprobs of `told` tokens; nothing was sent of the others."""

    def __init__(self, sent: str, told: int = 0) -> None:
        self._sent = self._left = sent
        self._told = told
        self._opened = bool(sent or told)

    def feed(self, line: str) -> bytes:
        """Raises Diverged."""
        if not line.startswith("data:"):
            return b""
        data = line[5:].strip()
        if data == "[DONE]":
            if self._left:
                raise Diverged("the call, made again, gave a shorter text")
            return b"data: [DONE]\n\n"
        chunk = json.loads(data)
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            if self._opened:
                delta.pop("role", None)
            if choice.get("index"):
                continue
            self._leave_out(choice)
            said, name = (choice, "text") if "text" in choice else (delta, "content")
            text = said.get(name)
            if text:
                known = min(len(text), len(self._left))
                if text[:known] != self._left[:known]:
                    raise Diverged("the call, made again, gave another text")
                self._left = self._left[known:]
                said[name] = text[known:]
        return b"data: " + to_json(chunk) + b"\n\n"

    def _leave_out(self, choice: dict[str, Any]) -> None:
        """The logprobs of a chunk that were sent already."""
        logprobs = choice.get("logprobs")
        if logprobs and self._told:
            content = logprobs["content"]
            known = min(len(content), self._told)
            self._told -= known
            choice["logprobs"] = {**logprobs, "content": content[known:]} if known < len(content) else None
