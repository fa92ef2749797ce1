"""Answers that are on their way: what the server said so far of each call of a submitted program.

The courier's thread writes, the app's threads and event loops read and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from semantic_parrot.adapters.plan import PlannedCall


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of the answer's first choice, with the `logprobs` of its tokens as a chunk carries them."""

    text: str
    logprobs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The server executed the request `key` names; `response` is the OpenAI response body."""

    key: str
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The server executed the request `key` names, and an eager call would have got `status` and `body`."""

    key: str
    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """There will be no answer. Whoever waits for it makes the call itself."""

    reason: str


Outcome = Finished | Failed | Lost


@dataclass(slots=True, eq=False)
class Answer:
    """`id`: of the call in the run. `key`: the request that the server executes, once that is known; `confirmed`: it
    said so itself. `taken`: claimed, which happens once; `abandoned`: the taker stopped reading."""

    id: str
    call: PlannedCall
    key: str | None
    taken: bool = False
    abandoned: bool = False
    confirmed: bool = False
    deltas: list[Piece] = field(default_factory=list)
    outcome: Outcome | None = None
    on_abandon: Callable[[], None] | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = field(default_factory=list)

    # The courier's side.

    def confirm(self, key: str) -> None:
        """The server has the call's inputs and executes the request `key`."""
        if self.key not in (None, key):
            self.settle(Lost("the server executes another request than the one that was sent"))
            return
        with self._changed:
            self.key = key
            self.confirmed = True
            self._tell()

    def add(self, text: str, logprobs: dict[str, Any] | None = None) -> None:
        with self._changed:
            self.deltas.append(Piece(text, logprobs))
            self._tell()

    def settle(self, outcome: Outcome) -> None:
        """The last word; later ones are ignored."""
        with self._changed:
            if self.outcome is None:
                if not isinstance(outcome, Lost) and outcome.key != self.key:
                    outcome = Lost("the server answered another request than the one it announced")
                self.outcome = outcome
                self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the waiter's loop has been closed
                loop.call_soon_threadsafe(_wake, future)

    # The app's side.

    def abandon(self) -> None:
        """The taker reads no further. With garbage collection this may come long after its scope was closed."""
        self.abandoned = True
        if self.on_abandon is not None:
            self.on_abandon()

    def ready(self, seen: int | None) -> bool:
        """Whether there is an outcome, or (unless `seen` is None) more than `seen` deltas of a confirmed request."""
        return self.outcome is not None or (seen is not None and self.confirmed and len(self.deltas) > seen)

    def wait(self, seen: int | None, seconds: float | None) -> bool:
        """Until `ready(seen)`; False after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ready(seen), seconds)

    async def wait_async(self, seen: int | None, seconds: float | None) -> bool:
        """The same for an event loop."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with self._changed:
                        if self.ready(seen):
                            return True
                        future = loop.create_future()
                        self._waiting.append((loop, future))
                    await future
        except TimeoutError:
            return False


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
