"""OpenAI response bodies, whole and in chunks: one place for both the OpenAI routes and `call.finished`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semantic_parrot.core.engines.protocol import Done, Usage
from semantic_parrot.core.request import is_chat


def usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def completion(body: Mapping[str, Any], done: Done, *, id: str, created: int) -> dict[str, Any]:
    """The whole response to the rendered request `body`: a chat completion if it has messages, else a completion."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": done.reason}
    if is_chat(body):
        choice["message"] = {"role": "assistant", "content": done.text, "refusal": None}
    else:
        choice["text"] = done.text
    kind = "chat.completion" if is_chat(body) else "text_completion"
    return {
        "id": id,
        "object": kind,
        "created": created,
        "model": body["model"],
        "choices": [choice],
        "usage": usage(done.usage),
    }


class Chunks:
    """The bodies of one streamed response, in order: `first` (chat only), `delta`s, `last`, `usage` if asked for."""

    def __init__(self, body: Mapping[str, Any], *, id: str, created: int) -> None:
        self._chat = is_chat(body)
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._base = {"id": id, "object": kind, "created": created, "model": body["model"]}

    def _chunk(self, text: str | None, reason: str | None, role: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
        if self._chat:
            named = {"role": role, "content": text}
            choice["delta"] = {key: value for key, value in named.items() if value is not None}
        else:
            choice["text"] = text or ""
        return {**self._base, "choices": [choice]}

    def first(self) -> dict[str, Any] | None:
        return self._chunk("", None, "assistant") if self._chat else None

    def delta(self, text: str) -> dict[str, Any]:
        return self._chunk(text, None)

    def last(self, done: Done) -> dict[str, Any]:
        return self._chunk(None, done.reason)

    def usage(self, done: Done) -> dict[str, Any]:
        return {**self._base, "choices": [], "usage": usage(done.usage)}
