"""An answer as the bytes of the HTTP response that an eager call would have got: JSON, or chunks as they come."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from semantic_parrot.adapters.answers import Answer, Failed, Finished, Lost


class AnswerLost(Exception):
    """The answer was lost; `text` is the part of it that had been passed on."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(reason)
        self.text = text


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _block(value: Any) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def _text(response: Mapping[str, Any]) -> str:
    return response["choices"][0]["message"].get("content") or ""


class StreamReplay:
    """A streamed chat completion: `advance` gives what has come since the last time, until `done`."""

    def __init__(self, answer: Answer, request: Mapping[str, Any]) -> None:
        self.answer = answer
        self.done = False
        self.seen = 0
        self._opened = False
        self._text = ""
        self._usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._base = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": request.get("model"),
        }

    def advance(self) -> bytes:
        """Every block there is by now. Raises AnswerLost if no more will come."""
        # The outcome first: deltas are complete once there is one.
        outcome = self.answer.outcome
        new = self.answer.deltas[self.seen :]
        if isinstance(outcome, Lost):
            raise AnswerLost(self._text, outcome.reason)
        if isinstance(outcome, Finished) and not _text(outcome.response).startswith(self._text + "".join(new)):
            raise AnswerLost(self._text, "the text that was streamed is not the text of the answer")
        self.seen += len(new)
        self._text += "".join(new)
        blocks = [self._delta({"content": text}) for text in new]
        match outcome:
            case Failed():
                self.done = True
                blocks += [_block(outcome.body), b"data: [DONE]\n\n"]
            case Finished():
                self.done = True
                blocks += self._end(outcome.response)
        if blocks and not self._opened:
            self._opened = True
            blocks.insert(0, self._delta({"role": "assistant", "content": ""}))
        return b"".join(blocks)

    def _delta(self, delta: dict[str, Any], **choice: Any) -> bytes:
        index = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return _block({**self._base, "choices": [{**index, **choice}]})

    def _end(self, response: Mapping[str, Any]) -> list[bytes]:
        choice = response["choices"][0]
        message = choice["message"]
        text = _text(response)
        blocks = []
        if text != self._text or choice.get("logprobs"):
            blocks.append(self._delta({"content": text[len(self._text) :]}, logprobs=choice.get("logprobs")))
        for i, call in enumerate(message.get("tool_calls") or ()):
            blocks.append(self._delta({"tool_calls": [{"index": i, **call}]}))
        if message.get("refusal"):
            blocks.append(self._delta({"refusal": message["refusal"]}))
        blocks.append(self._delta({}, finish_reason=choice.get("finish_reason")))
        if self._usage:
            blocks.append(_block({**self._base, "choices": [], "usage": response.get("usage")}))
        return [*blocks, b"data: [DONE]\n\n"]
