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
    """`start`, then `delta` for each, then `finish` or `fail`. Text ends where a call begins; calls are open until the
    end, since some engines go on with one beside the next."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._output: list[dict[str, Any]] = []
        self._open: dict[int | None, int] = {}  # where in it: calls by their index, the message as None
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
        if not self._output or (self._told and None in self._open):
            yield from self._text("")
        yield from self._close_all(status)
        ended = int(time.time()) if status == "completed" else None
        yield self._event(status, response=self._resource.state(status, self._output, done=done, ended=ended))

    def fail(self, error: ParrotError) -> Iterator[Event]:
        yield from self._close_all("incomplete")
        yield self._event("failed", response=self._resource.state("failed", self._output, error=error))

    def _event(self, kind: str, **fields: Any) -> Event:
        number, self._number = self._number, self._number + 1
        return {"type": f"response.{kind}", "sequence_number": number, **fields}

    def _of_item(self, at: int, kind: str, **fields: Any) -> Event:
        return self._event(kind, item_id=self._output[at]["id"], output_index=at, **fields)

    def _add(self, key: int | None, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._close(None, "completed")
        self._open[key] = len(self._output)
        self._output.append(item)
        yield self._event("output_item.added", output_index=self._open[key], item={**item})

    def _text(self, text: str) -> Iterator[Event]:
        if None not in self._open:
            fixed = {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
            yield from self._add(None, {"id": _id("msg"), **fixed})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._of_item(self._open[None], "content_part.added", content_index=0, part={**part, "logprobs": []})
            self._output[-1]["content"] = [part]
        at = self._open[None]
        told = chat_logprobs(self._told)["content"]
        self._told.clear()
        (part,) = self._output[at]["content"]
        part["text"] += text
        part["logprobs"] += told
        yield self._of_item(at, "output_text.delta", content_index=0, delta=text, logprobs=told)

    def _call(self, call: CallDelta) -> Iterator[Event]:
        if call.id is not None:
            fixed = {"type": "function_call", "status": "in_progress", "arguments": ""}
            yield from self._add(call.index, {"id": _id("fc"), "call_id": call.id, "name": call.name, **fixed})
        if call.arguments:
            at = self._open[call.index]
            self._output[at]["arguments"] += call.arguments
            yield self._of_item(at, "function_call_arguments.delta", delta=call.arguments)

    def _close_all(self, status: str) -> Iterator[Event]:
        """`status`: of the last item; what it had before it is whole."""
        for key, at in tuple(self._open.items()):
            yield from self._close(key, status if at == len(self._output) - 1 else "completed")

    def _close(self, key: int | None, status: str) -> Iterator[Event]:
        """The item is done, if it is open."""
        at = self._open.pop(key, None)
        if at is None:
            return
        item = self._output[at]
        item["status"] = status
        if item["type"] == "message":
            (part,) = item["content"]
            said = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._of_item(at, "output_text.done", content_index=0, **said)
            yield self._of_item(at, "content_part.done", content_index=0, part=part)
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield self._of_item(at, "function_call_arguments.done", **said)
        yield self._event("output_item.done", output_index=at, item=item)


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
