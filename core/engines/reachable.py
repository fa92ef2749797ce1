"""Whether a remote engine is there: a circuit breaker, and its keeper, who asks until it is there again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from semantic_parrot.core.errors import EngineFailed

log = logging.getLogger(__name__)

#: Between two looks at an engine, up or down, and for one to be answered.
LOOK_SECONDS, PROBE_SECONDS = 5.0, 10.0
#: Requests in a row that fail, though the engine answers when it is asked, until it is left alone for a while.
FAILURES = 5
#: Seconds of rest, where a server that has too much to do does not say how long; and at most.
REST, LONGEST_REST = 1.0, 60.0


class Unfit(EngineFailed):
    """It answers, and waiting will not make it serve what was configured."""


def describe(error: Exception) -> str:
    """Some of httpx's errors have no text."""
    return str(error) or type(error).__name__


class Reachable:
    """`up`, or `trouble` says why not. `probe` raises EngineFailed. `watchers` are called when either changes."""

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._probe = probe
        self._look = asyncio.Event()
        self._failures = 0
        self._keeper: asyncio.Task[None] | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._rested = asyncio.Event()
        self._rested.set()
        self.up = False
        self.trouble = "it has not been started"
        self.watchers: list[Callable[[], None]] = []

    @property
    def coming(self) -> bool:
        return not self.up and self._keeper is not None

    def start(self, trouble: str = "") -> None:
        """It was just seen to be there, or to be in `trouble`."""
        self._set(trouble)
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self._name}")

    async def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        self._set("it is closed")

    def worked(self) -> None:
        self._failures = 0

    def failed(self, why: str) -> None:
        """A request failed: it may be gone, which is looked into at once."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._set(f"{self._failures} requests in a row failed, the last one so: {why}")
        self._look.set()

    def rest(self, seconds: str | None) -> None:
        """It has too much to do: nothing is sent for so many `seconds` (as in Retry-After)."""
        try:
            wait = min(max(float(seconds or REST), 0.05), LONGEST_REST)
        except ValueError:  # a date
            wait = REST
        self._rested.clear()
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(wait, self._rested.set)

    async def rested(self) -> None:
        await self._rested.wait()

    def _set(self, trouble: str) -> None:
        if (not trouble) == self.up and trouble == self.trouble:
            return
        changed = (not trouble) != self.up
        self.up, self.trouble = not trouble, trouble
        if changed:
            if trouble:
                log.error("engine %s is down: %s", self._name, trouble)
            else:
                log.info("engine %s is up", self._name)
            for told in self.watchers:
                told()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look.wait()
            self._look.clear()
            if self._failures >= FAILURES:  # it answers when asked, and fails when used: another try after a while
                await asyncio.sleep(LOOK_SECONDS)
                self._failures = FAILURES - 1
            try:
                await self._probe()
            except EngineFailed as error:
                self._set(error.message)
            except Exception:
                log.exception("looking at engine %s", self._name)
                self._set("looking at it failed")
            else:
                self._set("")
