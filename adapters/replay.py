"""An answer as the bytes of the HTTP response that an eager call would have got: JSON, or chunks as they come."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from semantic_parrot.adapters.answers import Answer, Failed, Finished, Lost


class AnswerLost(Exception):
    """The answer was lost; `text` is the part of it that had been passed on, with the logprobs of `told` tokens."""

    def __init__(self, text: str, told: int, reason: str) -> None:
        super().__init__(reason)
        self.text = text
        self.told = told


NOTHING: Mapping[str, Any] = {}


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _block(value: Any) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def _text(choice: Mapping[str, Any]) -> str:
    """Of a chat completion, or of a completion."""
    text: str | None = choice["message"].get("content") if "message" in choice else choice["text"]
    return text or ""


class StreamReplay:
    """A streamed completion: `advance` gives what has come since the last time, until `done`."""

    def __init__(self, answer: Answer, request: Mapping[str, Any]) -> None:
        self.answer = answer
        self.done = False
        self.seen = 0
        self._opened = False
        self._text = ""
        self._told = 0  # tokens whose logprobs were passed on
        self._choices = range(request.get("n") or 1)
        self._usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._chat = "prompt" not in request
        kind, prefix = ("chat.completion.chunk", "chatcmpl") if self._chat else ("text_completion", "cmpl")
        self._base = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": request.get("model"),
        }

    def advance(self) -> bytes:
        """Every block there is by now. Raises AnswerLost if no more will come."""
        # The outcome first: deltas are complete once there is one.
        outcome = self.answer.outcome
        new = self.answer.deltas[self.seen :]
        text = self._text + "".join(piece.text for piece in new)
        if isinstance(outcome, Lost):
            raise AnswerLost(self._text, self._told, outcome.reason)
        if isinstance(outcome, Finished) and not _text(outcome.response["choices"][0]).startswith(text):
            raise AnswerLost(self._text, self._told, "the text that was streamed is not the text of the answer")
        self.seen += len(new)
        self._text = text
        self._told += sum(len(piece.logprobs["content"]) for piece in new if piece.logprobs)
        blocks = [self._delta(0, {"content": piece.text}, logprobs=piece.logprobs) for piece in new]
        match outcome:
            case Failed():
                self.done = True
                blocks += [_block(outcome.body), b"data: [DONE]\n\n"]
            case Finished():
                self.done = True
                blocks += self._end(outcome.response)
        if blocks and self._chat and not self._opened:
            self._opened = True
            blocks = [*(self._delta(i, {"role": "assistant", "content": ""}) for i in self._choices), *blocks]
        return b"".join(blocks)

    def _delta(self, index: int, delta: dict[str, Any], made: Mapping[str, Any] = NOTHING, **choice: Any) -> bytes:
        said = {"delta": delta} if self._chat else {"text": delta.get("content", "")}
        fixed = {"index": index, **said, "logprobs": None, "finish_reason": None}
        return _block({**self._base, "choices": [{**fixed, **choice}], **made})

    def _end(self, response: Mapping[str, Any]) -> list[bytes]:
        """What is left of each choice: all of it, but for the first."""
        blocks: list[bytes] = []
        for choice in response["choices"]:
            text, told = (self._text, self._told) if choice["index"] == 0 else ("", 0)
            blocks += self._rest(choice, len(text), told)
        for choice in response["choices"]:
            last = choice is response["choices"][-1] and "parrot" in response
            made = {"parrot": response["parrot"]} if last else NOTHING
            blocks.append(self._delta(choice["index"], {}, made, finish_reason=choice.get("finish_reason")))
        if self._usage:
            blocks.append(_block({**self._base, "choices": [], "usage": response.get("usage")}))
        return [*blocks, b"data: [DONE]\n\n"]

    def _rest(self, choice: Mapping[str, Any], shown: int, told: int) -> list[bytes]:
        index, message = choice["index"], choice.get("message", NOTHING)
        logprobs = choice.get("logprobs")
        left = (logprobs or {}).get("content", ())[told:]
        blocks = []
        if len(_text(choice)) > shown or left:
            more = {**logprobs, "content": left} if logprobs and left else None
            blocks.append(self._delta(index, {"content": _text(choice)[shown:]}, logprobs=more))
        for i, call in enumerate(message.get("tool_calls") or ()):
            blocks.append(self._delta(index, {"tool_calls": [{"index": i, **call}]}))
        for name in ("refusal", "reasoning_content"):
            if message.get(name):
                blocks.append(self._delta(index, {name: message[name]}))
        return blocks
