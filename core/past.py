"""What a run has told before its server was started again.

It goes on as if it had never stopped: the program is run anew, calls that had ended take their ends from here, and what
was told already is not told twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.errors import Interrupted, ParrotError, from_code
from semantic_parrot.core.events import CallFailed, CallFinished, Event, VariableDelta


@dataclass(slots=True)
class Echo:
    """The answer of a call that was under way, from its beginning: what was told of it before is heard again, and
    not told. `text` and `tokens` (with log-probabilities) are still to be heard."""

    text: str = ""
    tokens: int = 0

    def add(self, event: VariableDelta) -> None:
        told = event.logprobs or {}
        self.text += event.text
        self.tokens += len(told.get("content") or told.get("tokens") or ())

    def hear(self, delta: Delta) -> Delta | None:
        """What is new in `delta`. Raises Interrupted when it is another answer: the old one can't go on."""
        if not self.text and not self.tokens:
            return delta
        text, tokens = min(len(self.text), len(delta.text)), min(self.tokens, len(delta.logprobs))
        if delta.text[:text] != self.text[:text]:
            raise _interrupted()
        self.text, self.tokens = self.text[text:], self.tokens - tokens
        new = replace(delta, text=delta.text[text:], logprobs=delta.logprobs[tokens:])
        return new if new.text or new.logprobs else None

    def end(self) -> None:
        """The answer is over. Raises Interrupted if it was longer."""
        if self.text:
            raise _interrupted()


def _interrupted() -> Interrupted:
    return Interrupted("the server was started again while it answered, and another try began with another text")


class Past:
    """`events`: all that was told, from number 1 on."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = tuple(events)
        self._told: set[tuple[str, str]] = set()
        self.ends: dict[str, CallFinished | CallFailed] = {}
        self._echoes: dict[str, Echo] = {}
        for event in events:
            if isinstance(event, VariableDelta):
                self._echoes.setdefault(event.id, Echo()).add(event)
                continue
            self._told.add((event.type, event.id))
            if isinstance(event, CallFinished | CallFailed):
                self.ends[event.id] = event
                self._echoes.pop(event.id, None)

    def told(self, event: Event) -> bool:
        """Whether `event` is known: all but deltas are told once."""
        return (event.type, event.id) in self._told

    def end(self, call: str) -> CallFinished | CallFailed | None:
        """How the call ended, if it did."""
        return self.ends.get(call)

    def echo(self, call: str) -> Echo:
        return self._echoes.pop(call, None) or Echo()


def done_of(end: CallFinished) -> Done:
    """The answer that the call ended with, as far as its response tells."""
    choice, usage = end.response["choices"][0], end.response["usage"]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    used = Usage(usage["prompt_tokens"], cached, usage["completion_tokens"])
    return Done(text or "", choice["finish_reason"], used, timings=end.timings)


def error_of(end: CallFailed) -> ParrotError:
    error: dict[str, Any] = end.body["error"]
    return from_code(error["code"], error["message"], error["param"])
