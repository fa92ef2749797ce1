"""A response as it is made: OpenAI's events in their order. The last one carries the whole response, which is also the
answer to a request that does not stream: both are made in the same way."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.logprobs import TokenLogprob, chat_logprobs
from semantic_parrot.core.tools import CallDelta
from semantic_parrot.server.responses.resource import Resource

Event = dict[str, Any]


class Events:
    """`start`, then `delta` for each, then `finish` or `fail`. One item of the output is open at a time."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._output: list[dict[str, Any]] = []
        self._open = False
        self._number = 0
        self._told: list[TokenLogprob] = []  # of tokens that have become no text yet

    def start(self) -> Iterator[Event]:
        for kind in ("created", "in_progress"):
            yield self._event(kind, response=self._resource.state("in_progress", ()))

    def delta(self, delta: Delta) -> Iterator[Event]:
        self._told += delta.logprobs
        if delta.text:
            yield from self._text(delta.text)
        for call in delta.calls:
            self._told.clear()  # a call's tokens have no place to be told in
            yield from self._call(call)

    def finish(self, done: Done) -> Iterator[Event]:
        status = "incomplete" if done.reason == "length" else "completed"
        if not self._output or (self._told and self._open and self._is("message")):
            yield from self._text("")
        yield from self._close(status)
        ended = int(time.time()) if status == "completed" else None
        yield self._event(status, response=self._resource.state(status, self._output, done=done, ended=ended))

    def fail(self, error: ParrotError) -> Iterator[Event]:
        yield from self._close("incomplete")
        yield self._event("failed", response=self._resource.state("failed", self._output, error=error))

    def _event(self, kind: str, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return {"type": f"response.{kind}", "sequence_number": number, **fields}

    def _of_item(self, kind: str, **fields: Any) -> Event:
        place = {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}
        return self._event(kind, **place, **fields)

    def _is(self, kind: str) -> bool:
        return bool(self._output[-1]["type"] == kind)

    def _add(self, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._close("completed")
        self._output.append(item)
        self._open = True
        yield self._event("output_item.added", output_index=len(self._output) - 1, item={**item})

    def _text(self, text: str) -> Iterator[Event]:
        if not (self._open and self._is("message")):
            fixed = {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
            yield from self._add({"id": _id("msg"), **fixed})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._of_item("content_part.added", content_index=0, part={**part, "logprobs": []})
            self._output[-1]["content"] = [part]
        told = chat_logprobs(self._told)["content"]
        self._told.clear()
        (part,) = self._output[-1]["content"]
        part["text"] += text
        part["logprobs"] += told
        yield self._of_item("output_text.delta", content_index=0, delta=text, logprobs=told)

    def _call(self, call: CallDelta) -> Iterator[Event]:
        if call.id is not None:
            fixed = {"type": "function_call", "status": "in_progress", "arguments": ""}
            yield from self._add({"id": _id("fc"), "call_id": call.id, "name": call.name, **fixed})
        if call.arguments:
            self._output[-1]["arguments"] += call.arguments
            yield self._of_item("function_call_arguments.delta", delta=call.arguments)

    def _close(self, status: str) -> Iterator[Event]:
        """The open item is done."""
        if not self._open:
            return
        item, self._open = self._output[-1], False
        item["status"] = status
        if item["type"] == "message":
            (part,) = item["content"]
            said = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._of_item("output_text.done", content_index=0, **said)
            yield self._of_item("content_part.done", content_index=0, part=part)
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield self._of_item("function_call_arguments.done", **said)
        yield self._event("output_item.done", output_index=len(self._output) - 1, item=item)


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
