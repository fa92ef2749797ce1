"""Journals as a crash would leave them, and without room.

What was put in one turn of the loop is there whole, or not at all; and then nothing is that came after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.journal.store import Store
from semantic_parrot.core.journal.writer import Entry, Writer


class Recorded(Journal):
    """`steps`: what was put, by turn of the loop."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.steps: list[list[Entry]] = []
        hand_over = self._writer._hand_over

        def recorded() -> None:
            writes = [entry for entry in self._writer._gathered if not entry.apart]
            if writes:
                self.steps.append(writes)
            hand_over()

        self._writer._hand_over = recorded  # type: ignore[method-assign]


def write(path: Path, steps: Sequence[Sequence[Entry]]) -> str:
    """The URL of a journal at `path` that has just these steps."""
    url = f"sqlite:///{path}"
    store = Store(url)
    store.open()
    writer = Writer(store)
    writer._commit([entry for step in steps for entry in step])
    store.close()
    return url


async def _limit(journal: Journal, pages: int) -> None:
    await journal._ask(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())


@asynccontextmanager
async def full(journal: Journal):
    """Inside, the journal has no room left: SQLite's own error, for a real database that may not grow."""

    await _limit(journal, 1)
    yield
    await _limit(journal, 1 << 30)
