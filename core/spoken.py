"""What the calls of a run have said so far, for whoever looks on while they speak."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Spoken:
    """Owned by the event loop. Nobody looks on, as a rule: then a word costs an append."""

    def __init__(self) -> None:
        self._parts: dict[str, list[str]] = {}
        self._watching: set[asyncio.Event] = set()

    def say(self, output: str, text: str) -> None:
        """The call that makes `output` goes on with `text`."""
        self._parts.setdefault(output, []).append(text)
        if self._watching:
            self.changed()

    def over(self, output: str) -> None:
        """The call that makes `output` has ended."""
        self._parts.pop(output, None)

    def so_far(self, output: str) -> str | None:
        """None: nothing yet, or the call has ended."""
        parts = self._parts.get(output)
        return None if parts is None else "".join(parts)

    def changed(self) -> None:
        """Something about the run is not as it was."""
        for watching in self._watching:
            watching.set()

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that each change sets, and whoever waits for it clears."""
        watching = asyncio.Event()
        self._watching.add(watching)
        try:
            yield watching
        finally:
            self._watching.discard(watching)
