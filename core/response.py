"""OpenAI response bodies, whole and in chunks: one place for both the OpenAI routes and `call.finished`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.logprobs import TokenLogprob, chat_logprobs, completion_logprobs
from semantic_parrot.core.request import is_chat


def usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def logprobs(body: Mapping[str, Any], tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a choice, or of a chunk of it."""
    return chat_logprobs(tokens) if is_chat(body) else completion_logprobs(tokens)


def made(done: Done) -> dict[str, Any]:
    """Where and how fast an answer was made, under the name `parrot`: OpenAI's clients pass on what they don't know."""
    times = done.timings
    return {
        "engine": None if done.placed is None else done.placed.engine,
        "cached_tokens": done.usage.cached,
        "queued": times.queued,
        "prefill": times.prefill,
        "decode": times.decode,
    }


def completion(body: Mapping[str, Any], done: Done, *, id: str, created: int) -> dict[str, Any]:
    """The whole response to the rendered request `body`: a chat completion if it has messages, else a completion."""
    chat = is_chat(body)
    choices: list[dict[str, Any]] = []
    for index, chosen in enumerate(done.choices):
        told = None if chosen.logprobs is None else logprobs(body, chosen.logprobs)
        choice = {"index": index, "logprobs": told, "finish_reason": chosen.reason}
        if chat:
            message: dict[str, Any] = {"role": "assistant", "content": chosen.text, "refusal": None}
            if chosen.calls:
                message |= {"content": chosen.text or None, "tool_calls": [call.body() for call in chosen.calls]}
            choice["message"] = message
        else:
            choice["text"] = chosen.text
        choices.append(choice)
    kind = "chat.completion" if chat else "text_completion"
    return {
        "id": id,
        "object": kind,
        "created": created,
        "model": body["model"],
        "choices": choices,
        "usage": usage(done.usage),
        "parrot": made(done),
    }


class Chunks:
    """The bodies of one streamed response, in order: `first` (chat only), `delta`s, `last`, `usage` if asked for."""

    def __init__(self, body: Mapping[str, Any], *, id: str, created: int) -> None:
        self._chat = is_chat(body)
        self._body = body
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._base = {"id": id, "object": kind, "created": created, "model": body["model"]}

    def _chunk(self, index: int, text: str | None, **fields: Any) -> dict[str, Any]:
        role = fields.pop("role", None)
        choice = {"index": index, "logprobs": None, "finish_reason": None, **fields}
        if self._chat:
            named = {"role": role, "content": text}
            choice["delta"] = {key: value for key, value in named.items() if value is not None}
        else:
            choice["text"] = text or ""
        return {**self._base, "choices": [choice]}

    def first(self) -> list[dict[str, Any]]:
        """One for each choice."""
        choices = range(self._body.get("n") or 1)
        return [self._chunk(index, "", role="assistant") for index in choices] if self._chat else []

    def delta(self, delta: Delta) -> dict[str, Any]:
        told = logprobs(self._body, delta.logprobs) if delta.logprobs else None
        chunk = self._chunk(delta.index, None if delta.calls else delta.text, logprobs=told)
        if delta.calls:
            chunk["choices"][0]["delta"]["tool_calls"] = [call.body() for call in delta.calls]
        return chunk

    def last(self, done: Done) -> list[dict[str, Any]]:
        """One for each choice; `parrot` is in the last one."""
        chunks = [self._chunk(i, None, finish_reason=choice.reason) for i, choice in enumerate(done.choices)]
        chunks[-1]["parrot"] = made(done)
        return chunks

    def usage(self, done: Done) -> dict[str, Any]:
        return {**self._base, "choices": [], "usage": usage(done.usage)}
