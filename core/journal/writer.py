"""The thread that writes the journal: what has come while it wrote is the next transaction."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import sqlalchemy as sa

from semantic_parrot.core.journal.store import Store
from semantic_parrot.core.journal.tables import EVENTS
from semantic_parrot.core.journal.values import JournalError

log = logging.getLogger(__name__)

#: Seconds between tries when the journal can't be written: the first, and the longest.
FIRST, LONGEST = 0.1, 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """Part of a transaction: `row`, an event, or `work` on the connection. `told` gets what `work` gave, once it is
    durable. With `failed`, it is not tried again when it can't be written, but told so; without, until it can. `apart`:
    it has a transaction to itself, and a failure of it is its own; it needs `failed`."""

    row: dict[str, Any] | None = None
    work: Callable[[sa.Connection], Any] | None = None
    told: Callable[[Any], None] = lambda _: None
    failed: Callable[[str], None] | None = None
    apart: bool = False


class Writer:
    """Owned by the event loop, where `told` and `failed` are called, in the order of the entries. `trouble`: why the
    journal can't be written; None while it can."""

    def __init__(self, store: Store) -> None:
        self.trouble: str | None = None
        self._store = store
        self._queue: SimpleQueue[Sequence[Entry] | None] = SimpleQueue()
        self._gathered: list[Entry] = []
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Raises JournalError."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(opened,), name="parrot-journal", daemon=True)
        self._thread.start()
        await opened

    def put(self, entry: Entry) -> None:
        """What is put in one turn of the loop is in one transaction: a step of a run is there whole or not at all."""
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(entry)

    async def close(self) -> None:
        """Write what is still to be written, if that can be done at once."""
        if self._thread is not None:
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    # In the thread.

    def _main(self, opened: asyncio.Future[None]) -> None:
        try:
            self._store.open()
        except JournalError as error:
            self._call(_answer, opened, error)
            return
        except Exception as error:
            log.exception("the journal %s", self._store.name)
            self._call(_answer, opened, JournalError(f"the journal {self._store.name}: {error}"))
            return
        self._call(_answer, opened, None)
        try:
            self._serve()
        finally:
            self._store.close()

    def _serve(self) -> None:
        """Until there is nothing more to come."""
        more, writes, delay, due = True, list[Entry](), FIRST, 0.0
        while more:
            entries, more = self._take(due - time.monotonic() if writes else None)
            for entry in entries:
                if entry.apart:
                    self._write([entry])
            writes += [entry for entry in entries if not entry.apart]
            if self.trouble is not None:
                writes = self._patient(writes)
            if writes and (time.monotonic() >= due or not more):
                if self._write(writes):
                    writes, delay, due = [], FIRST, 0.0
                else:
                    writes = self._patient(writes)
                    due, delay = time.monotonic() + delay, min(2 * delay, LONGEST)
        if writes:
            log.error("the journal %s: %d entries could not be written at the end", self._store.name, len(writes))

    def _take(self, patience: float | None) -> tuple[list[Entry], bool]:
        """(what has come, at least something unless `patience`, in seconds, is over; whether more can come)."""
        batch: list[Entry] = []
        try:
            entries = self._queue.get(timeout=None if patience is None else max(patience, 0.0))
            while entries is not None:
                batch += entries
                entries = self._queue.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _patient(self, writes: list[Entry]) -> list[Entry]:
        """Those that wait; the others are told."""
        self._call(_fail, [entry for entry in writes if entry.failed is not None], self.trouble)
        return [entry for entry in writes if entry.failed is None]

    def _write(self, batch: Sequence[Entry]) -> bool:
        """Whether it is durable."""
        try:
            results = self._commit(batch)
        except Exception as error:
            message = " ".join(str(getattr(error, "orig", None) or error).split())
            if batch[0].apart:
                self._call(_fail, batch, message)
            else:
                self._stumbled(error, message)
            return False
        if self.trouble is not None and not batch[0].apart:
            log.warning("the journal %s is written again", self._store.name)
            self.trouble = None
        self._call(_tell, batch, results)
        return True

    def _commit(self, batch: Sequence[Entry]) -> list[Any]:
        with self._store.transaction() as connection:
            rows = [entry.row for entry in batch if entry.row is not None]
            if rows:
                connection.execute(self._store.insert(EVENTS), rows)
            return [entry.work and entry.work(connection) for entry in batch]

    def _stumbled(self, error: Exception, message: str) -> None:
        if self.trouble is None:
            known = isinstance(error, sa.exc.DBAPIError)
            log.error(
                "the journal %s can't be written: %s. Durable runs wait, new ones are refused; it is tried again",
                self._store.name,
                message,
                exc_info=None if known else error,
            )
        self.trouble = message

    def _call(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has ended
            log.debug("nobody is left to be told what was written")


def _answer(opened: asyncio.Future[None], error: JournalError | None) -> None:
    if opened.done():  # nobody waits any more
        return
    if error is None:
        opened.set_result(None)
    else:
        opened.set_exception(error)


def _tell(batch: Sequence[Entry], results: Sequence[Any]) -> None:
    for entry, result in zip(batch, results, strict=True):
        entry.told(result)


def _fail(batch: Sequence[Entry], why: str) -> None:
    for entry in batch:
        assert entry.failed is not None
        entry.failed(why)
