"""What is made on other threads before a request is admitted: the tokens of a long text, a compiled grammar. The loop
runs everybody else meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import inf
from typing import Any

from semantic_parrot.core.engine.messages import Failed, Reply
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.request import Message
from semantic_parrot.core.tools import Tools

#: Characters up to which a text is tokenised at once: some 60 ms of work. Of a message, those of its template beside.
SHORT, AROUND = 65_536, 64
#: Seconds that a grammar may take.
COMPILING = 10.0
#: Seconds for which a loop that has nothing else to do waits at most: it hears no commands meanwhile.
WAITING = 0.01

#: What follows, in the loop's thread, with what was made; it may raise a ParrotError.
Then = Callable[[Any], Reply | None]


@dataclass(frozen=True, slots=True)
class _Step:
    """`own`: nobody else waits for its future. `late`: the error at the time `until`."""

    future: Future[Any]
    then: Then
    own: bool
    until: float = inf
    late: ParrotError | None = None


class Preparing:
    """By the id of who waits, one thing at a time. Owned by the loop's thread."""

    def __init__(self) -> None:
        # One thread, so that long texts take one core at most. It begins with the first of them.
        self._tokenizer = ThreadPoolExecutor(1, "tokenizer")
        self._steps: dict[int, _Step] = {}

    @property
    def busy(self) -> bool:
        return bool(self._steps)

    def tokens(
        self, id: int, content: str | Sequence[Message], tools: Tools | None, make: Callable[[], Any], then: Then
    ) -> Reply | None:
        """`then` of what `make` finds in a text: now, or when a thread has it, if the text is long."""
        if _characters(content, tools) <= SHORT:
            return _outcome(id, make, then)
        self._steps[id] = _Step(self._tokenizer.submit(make), then, own=True)
        return None

    def grammar(self, id: int, compiled: Future[Any], then: Then, late: ParrotError) -> None:
        self._steps[id] = _Step(compiled, then, own=False, until=time.monotonic() + COMPILING, late=late)

    def remove(self, id: int) -> bool:
        """Whether it was here."""
        step = self._steps.pop(id, None)
        if step is not None and step.own:
            step.future.cancel()
        return step is not None

    def ready(self) -> list[Reply]:
        """Go on with all that wait no more; what there is to say of them."""
        now, replies = time.monotonic(), list[Reply | None]()
        for id, step in list(self._steps.items()):
            if step.future.done():
                del self._steps[id]  # what follows may be a step of its own
                replies.append(_outcome(id, step.future.result, step.then))
            elif step.late is not None and now > step.until:
                del self._steps[id]
                replies.append(_failed(id, step.late))
        return [reply for reply in replies if reply is not None]

    def wait(self) -> None:
        """Until one is ready, or a moment has passed."""
        wait([step.future for step in self._steps.values()], WAITING, FIRST_COMPLETED)


def _characters(content: str | Sequence[Message], tools: Tools | None) -> int:
    count = 0 if tools is None else sum(len(tool.body) for tool in tools.tools)
    if isinstance(content, str):
        return count + len(content)
    return count + sum(AROUND + len(m.content) + sum(AROUND + len(c.arguments) for c in m.calls) for m in content)


def _outcome(id: int, make: Callable[[], Any], then: Then) -> Reply | None:
    try:
        return then(make())
    except ParrotError as error:
        return _failed(id, error)


def _failed(id: int, error: ParrotError) -> Failed:
    return Failed(id, error.code, error.message, error.where)
