"""Whether calls wait for an engine whose process is down, and how soon another one is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semantic_parrot.core.engines.protocol import ModelLoadError

#: Seconds before another try, by how many in a row have failed.
BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0, 30.0)
#: Refusals in a row after which nobody waits for the next try.
HOPELESS = 6
#: Seconds after which nobody waits for an engine that is still down.
PATIENCE = 300.0


class Lost(ModelLoadError):
    """The process was lost while it loaded, which may be nothing that the model or the options can help."""


class Hope:
    """A process that says why it can't load the model will say so again, and is not waited for after some times; one
    that was lost meanwhile is, for a while. `late`: called when that is over. Owned by the event loop."""

    def __init__(self, late: Callable[[], None]) -> None:
        self._told = late
        self._late = False
        self._failures = self._refusals = 0  # in a row
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lost(self) -> bool:
        return self._late or self._refusals >= HOPELESS

    @property
    def pause(self) -> float:
        """Seconds until the next try."""
        return BACKOFF[min(self._failures, len(BACKOFF) - 1)]

    def down(self) -> None:
        """From now on it is waited for."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._end)

    def failed(self, error: ModelLoadError) -> None:
        self._failures += 1
        self._refusals += not isinstance(error, Lost)

    def over(self) -> None:
        """It is up, or not wanted any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._late = None, False
        self._failures = self._refusals = 0

    def _end(self) -> None:
        self._late = True
        self._told()
