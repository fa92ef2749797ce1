"""The stream of chunks that a remote engine answers with, as Delta and Done; its errors, as ours."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from semantic_parrot.core.engines.protocol import Choice, Delta, Done, Usage
from semantic_parrot.core.errors import ContextOverflow, EngineFailed, InvalidRequest, ParrotError
from semantic_parrot.core.events import Timings
from semantic_parrot.core.logprobs import LOWEST, Ranked, TokenLogprob
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.tools import CallDelta, ToolCall

#: Of an answer; what else a server says (abort, error) is no answer.
REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})

#: Most servers say in words alone that a prompt is too long.
_TOO_LONG = re.compile(
    r"context (length|size|window)|exceeds? the (available|maximum)|too many tokens|prompt is too long"
)


async def answer(lines: AsyncIterator[str], request: ModelRequest, began: float) -> AsyncGenerator[Delta | Done, None]:
    """`lines`: of the SSE body. `began`: when the request was sent, as time.perf_counter(). Raises ParrotError: what
    the server said, or EngineFailed if it is no whole answer."""
    made = [_Made(index) for index in range(request.sampling.n)]
    usage, first, chunks = None, 0.0, 0
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        chunk = _object(data)
        usage = _usage(chunk.get("usage")) or usage
        for choice in _list(chunk.get("choices")):
            deltas = _one(made, choice).take(choice)
            if deltas and not first:
                first = time.perf_counter()
            chunks += bool(deltas)
            for delta in deltas:
                yield replace(delta, usage=usage)
    if any(one.reason is None for one in made):
        raise EngineFailed("the engine's stream ended in the middle of an answer")
    ended = time.perf_counter()
    first = first or ended
    if usage is None:  # the server does not count: a chunk has a token at least, a token a few characters
        usage = Usage(_length(request) // 4, 0, chunks)
    head, *others = [one.choice(request) for one in made]
    timings = Timings(prefill=first - began, decode=ended - first)
    yield Done(head.text, head.reason, usage, timings, None, head.logprobs, tuple(others), head.calls)


@dataclass(slots=True)
class _Made:
    """One choice, as far as it has come."""

    index: int
    text: str = ""
    reason: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: defaultdict[int, ToolCall] = field(default_factory=lambda: defaultdict(lambda: ToolCall("", "", "")))

    def take(self, choice: Mapping[str, Any]) -> list[Delta]:
        said = choice.get("delta", choice)
        if not isinstance(said, dict):
            raise _garbage(said)
        text = said.get("content" if "delta" in choice else "text") or ""
        if not isinstance(text, str):
            raise _garbage(text)
        told = tuple(_logprobs(choice.get("logprobs"), len(self.text)))
        self.text += text
        self.logprobs += told
        reason = choice.get("finish_reason")
        if reason is not None and reason not in REASONS:
            raise EngineFailed(f"the engine ended an answer with {reason!r}")
        self.reason = reason or self.reason
        deltas = [Delta(text, index=self.index, logprobs=told)] if text or told else []
        for call in _list(said.get("tool_calls")):
            deltas.append(Delta("", index=self.index, calls=(self._call(call),)))
        return deltas

    def _call(self, said: Mapping[str, Any]) -> CallDelta:
        index, function = said.get("index", len(self.calls)), said.get("function") or {}
        if not isinstance(index, int) or not isinstance(function, dict):
            raise _garbage(said)
        arguments, known = function.get("arguments") or "", index in self.calls
        if not isinstance(arguments, str):  # an object, where a text was due
            arguments = json.dumps(arguments)
        before = self.calls[index]
        id = before.id or str(said.get("id") or f"call_{uuid.uuid4().hex[:24]}")
        name = before.name or str(function.get("name") or "")
        self.calls[index] = ToolCall(id, name, before.arguments + arguments)
        return CallDelta(index, arguments) if known else CallDelta(index, arguments, id, name)

    def choice(self, request: ModelRequest) -> Choice:
        wanted = request.sampling.logprobs is not None
        calls = tuple(call for _, call in sorted(self.calls.items()))
        reason = "tool_calls" if calls and self.reason == "stop" else self.reason or ""
        return Choice(self.text, reason, tuple(self.logprobs) if wanted else None, calls)


def refusal(status: int, body: bytes, engine: str) -> ParrotError:
    """What an HTTP error of the engine means for the call."""
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    error = said.get("error", said) if isinstance(said, dict) else None
    if isinstance(error, dict):
        message, code = str(error.get("message") or error.get("detail") or error), error.get("code")
    else:
        message, code = body[:200].decode(errors="replace") or f"HTTP {status}", None
    if status in (400, 413, 422):
        if code == ContextOverflow.code or _TOO_LONG.search(message.lower()):
            return ContextOverflow(message)
        return InvalidRequest(f"engine {engine} refuses it: {message}")
    return EngineFailed(f"engine {engine} answered {status}: {message}")


def _object(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError:
        raise _garbage(data) from None
    if not isinstance(chunk, dict):
        raise _garbage(data)
    if chunk.get("error"):
        error = chunk["error"]
        status = error.get("code") if isinstance(error, dict) else None
        raise refusal(status if isinstance(status, int) else 500, data.encode(), "that had it")
    return chunk


def _garbage(what: object) -> EngineFailed:
    return EngineFailed(f"the engine answered what is no chunk of an answer: {str(what)[:80]!r}")


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _garbage(value)
    return value


def _one(made: list[_Made], choice: Mapping[str, Any]) -> _Made:
    index = choice.get("index", 0)
    if not isinstance(index, int) or not 0 <= index < len(made):
        raise _garbage(choice)
    return made[index]


def _usage(said: object) -> Usage | None:
    if not isinstance(said, dict):
        return None
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = (said.get("prompt_tokens") or 0, cached or 0, said.get("completion_tokens") or 0)
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise _garbage(said)
    return Usage(*counts)


def _length(request: ModelRequest) -> int:
    messages = request.messages or ()
    return len(request.prompt or "") + sum(len(message.content) for message in messages)


def _logprobs(said: object, offset: int) -> list[TokenLogprob]:
    """Of a chunk, in the shape of chat completions or in that of completions."""
    if not isinstance(said, dict):
        return []
    found: list[TokenLogprob] = []
    for entry in _entries(said):
        try:
            token, top = _ranked(entry), tuple(_ranked(other) for other in entry.get("top_logprobs") or ())
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _garbage(said) from None
        found.append(TokenLogprob(token.token, token.bytes, token.logprob, offset, top))
        offset += len(token.token)
    return found


def _entries(said: Mapping[str, Any]) -> list[Any]:
    if said.get("content") is not None or "tokens" not in said:
        return _list(said.get("content"))
    tops = said.get("top_logprobs") or [None] * len(said["tokens"])
    return [
        {
            "token": token,
            "logprob": logprob,
            "top_logprobs": [{"token": t, "logprob": p} for t, p in (top or {}).items()],
        }
        for token, logprob, top in zip(said["tokens"], said["token_logprobs"], tops, strict=False)
    ]


def _ranked(entry: Mapping[str, Any]) -> Ranked:
    token = str(entry["token"])
    raw = entry.get("bytes")
    logprob = entry["logprob"]
    return Ranked(token, tuple(token.encode() if raw is None else raw), LOWEST if logprob is None else float(logprob))
