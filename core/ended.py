"""A run that has ended and that only the journal still knows: it reads as it did when it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from semantic_parrot.core.audience import Audience
from semantic_parrot.core.events import Event, RunFinished, Status
from semantic_parrot.core.journal.values import Stored
from semantic_parrot.core.log import Log
from semantic_parrot.core.past import Past


class EndedRun:
    """As far as it can be read, what a Run is."""

    def __init__(self, stored: Stored) -> None:
        self.id = stored.run.id
        self.tenant = stored.run.tenant
        self.stored = stored
        self.audience = Audience("background", 0.0, lambda: True, lambda: None)
        self._log = Log(stored.events)
        self._past = Past(stored.events)
        end = stored.events[-1]
        assert isinstance(end, RunFinished)
        self._end = end

    @property
    def status(self) -> Status:
        return self._end.status

    @property
    def last_event(self) -> int:
        return len(self._log)

    def result(self) -> dict[str, Any]:
        """The JSON body of GET and POST /v1/runs."""
        calls = {id: end.model_dump(mode="json", exclude={"type", "id"}) for id, end in self._past.ends.items()}
        end = self._end.model_dump(mode="json", exclude={"type"})
        return {
            **{name: end[name] for name in ("id", "status", "outputs", "errors")},
            "calls": calls,
            "usage": end["usage"],
        }

    def events(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """(number, event): those past `after`."""
        return self._log.read(after)

    def events_together(self, after: int = 0) -> AsyncIterator[list[tuple[int, Event]]]:
        """The same, many at a time."""
        return self._log.read_together(after)

    async def wait(self) -> None:
        """It has ended."""

    async def settle(self) -> None:
        """It is durable."""
