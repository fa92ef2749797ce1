"""Who reads a run along, and what becomes of it once nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semantic_parrot.core.program import Lifetime


class Audience:
    """`gone` is told once the last reader has left: at once for a prefetch run, after `grace` seconds for a foreground
    one, unless somebody came back; never of a run that has `ended`, or of a background one. Owned by the event loop."""

    def __init__(self, lifetime: Lifetime, grace: float, ended: Callable[[], bool], gone: Callable[[], None]) -> None:
        self._lifetime = lifetime
        self._grace = grace
        self._ended = ended
        self._gone = gone
        self._readers = 0

    def attach(self) -> None:
        """A client reads along."""
        self._readers += 1

    def detach(self) -> None:
        """A client has gone."""
        self._readers -= 1
        if self._readers or self._ended() or self._lifetime == "background":
            return
        if self._lifetime == "prefetch":
            self._gone()
        else:
            asyncio.get_running_loop().call_later(self._grace, self._abandon)

    def _abandon(self) -> None:
        if not self._readers:
            self._gone()
