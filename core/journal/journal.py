"""What durable runs tell, kept until they are over and for a while after that. No method blocks the event loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from semantic_parrot.core.errors import JournalUnavailable
from semantic_parrot.core.events import Event
from semantic_parrot.core.journal import queries
from semantic_parrot.core.journal.store import MEMORY, Store
from semantic_parrot.core.journal.values import Key, Listed, Retention, Stored
from semantic_parrot.core.journal.writer import Entry, Writer

T = TypeVar("T")


class Journal:
    """Owned by the event loop; the work is done in a thread of its own. `url`: SQLAlchemy's, by default of a database
    in memory, which ends with the server. Raises JournalError for one that is not SQLite's or PostgreSQL's.

    Each method that waits raises JournalUnavailable when the journal can't be written or read.
    """

    def __init__(self, url: str = MEMORY, retention: Retention | None = None) -> None:
        self._store = Store(url)
        self._writer = Writer(self._store)
        self.retention = retention or Retention()

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def trouble(self) -> str | None:
        """Why it can't be written; None while it can."""
        return self._writer.trouble

    async def open(self) -> None:
        """Raises JournalError."""
        await self._writer.open()

    async def close(self) -> None:
        await self._writer.close()

    # A run.

    def accept(self, run: Listed, body: Any, key: Key | None, refused: Callable[[str], None]) -> None:
        """`run` begins; it is there once its first event is. `refused`, with the reason, if it can't be written: then
        nothing of it is."""
        row = {"id": run.id, "tenant": run.tenant, "created": run.created, "body": json.dumps(body)}

        def failed(why: str) -> None:
            # The connection may have broken in the last moment of the commit: whoever was refused has no run.
            self._writer.put(Entry(work=lambda connection: queries.erase(connection, [run.id])))
            refused(why)

        self._writer.put(
            Entry(work=lambda connection: queries.accept(connection, self._store.insert, row, key), failed=failed)
        )

    def append(self, run: str, number: int, event: Event, told: Callable[[], None]) -> None:
        """`told` once the event is durable, and all before it."""
        data = json.dumps(event.model_dump(mode="json"), separators=(",", ":"))
        self._writer.put(Entry(row={"run": run, "number": number, "data": data}, told=lambda _: told()))

    def end(self, run: str, status: str) -> None:
        now = time.time()
        self._writer.put(Entry(work=lambda connection: queries.end(connection, run, status, now)))

    # Looking at it.

    async def unfinished(self) -> list[Stored]:
        """The runs that have not ended, in the order in which they were accepted."""
        return await self._ask(queries.unfinished)

    async def find(self, run: str, tenant: str) -> Stored | None:
        return await self._ask(lambda connection: queries.find(connection, run, tenant))

    async def held(self, tenant: str, key: str) -> tuple[str, str] | None:
        """(run, digest) of what was sent under that idempotency key."""
        return await self._ask(lambda connection: queries.held(connection, tenant, key))

    async def listing(self, tenant: str, most: int) -> list[Listed]:
        """The newest runs, the oldest of them first."""
        return await self._ask(lambda connection: queries.listing(connection, tenant, most))

    async def prune(self) -> int:
        """Forget what has ended long enough ago; how many runs those were."""
        return await self._ask(lambda connection: queries.prune(connection, self.retention, time.time()))

    async def _ask(self, question: Callable[[sa.Connection], T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def told(found: T) -> None:
            if not answer.done():
                answer.set_result(found)

        def failed(why: str) -> None:
            if not answer.done():
                answer.set_exception(JournalUnavailable(f"the journal can't be used: {why}"))

        self._writer.put(Entry(work=question, told=told, failed=failed, apart=True))
        return await answer
