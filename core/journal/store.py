"""The database under a journal: one connection, which one thread uses."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.pool import StaticPool

from semantic_parrot.core.journal import postgres, sqlite
from semantic_parrot.core.journal.tables import TooNew, migrate
from semantic_parrot.core.journal.values import JournalError

log = logging.getLogger(__name__)

MEMORY = "sqlite:///:memory:"


class Store:
    """`url`: SQLAlchemy's, for SQLite or PostgreSQL. Used by one thread alone, the one that opens it."""

    def __init__(self, url: str) -> None:
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise JournalError(f"{url!r} is no database URL") from None
        self.dialect = self._url.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise JournalError(f"the journal is in SQLite or PostgreSQL, not in {self.dialect!r}")
        if self.dialect == "postgresql" and self._url.drivername == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._connection: sa.Connection | None = None
        self._lock: sqlite.FileLock | None = None

    @property
    def name(self) -> str:
        """For people: no password in it."""
        return self._url.render_as_string(hide_password=True)

    @property
    def _path(self) -> Path | None:
        """Of a journal in a file."""
        name = self._url.database
        return Path(name) if self.dialect == "sqlite" and name and name != ":memory:" else None

    def open(self) -> None:
        """Raises JournalError: it is locked, damaged, too new or can't be had."""
        try:
            self._open()
        except (sa.exc.DBAPIError, OSError, ModuleNotFoundError, TooNew) as error:
            self.close()
            raise JournalError(f"the journal {self.name}: {_line(error)}") from None

    def _open(self) -> None:
        path = self._path
        if path is not None:
            self._take(path)
        self._connection = self._engine().connect()
        with self.transaction() as connection:
            migrate(connection)

    def _take(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock = sqlite.FileLock(Path(f"{path}.lock"))
        except BlockingIOError:
            raise JournalError(f"the journal {path} is in use by another server") from None
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # prompts are nobody else's to read
        found = sqlite.examine(path)
        if found.lost:
            log.error("the journal %s: its last %d transactions are damaged, and left out", path, found.lost)
        if found.fault is not None:
            aside = _set_aside(path)
            log.error("the journal %s is damaged (%s): kept as %s, and begun anew", path, found.fault, aside.name)

    def _engine(self) -> sa.Engine:
        # One connection, held for good: in memory it is the database, elsewhere it holds the lock.
        options: dict[str, Any] = {"poolclass": StaticPool} if self._url.database == ":memory:" else {"pool_size": 1}
        engine = sa.create_engine(self._url, **options)
        configure = sqlite.configure if self.dialect == "sqlite" else postgres.configure
        sa.event.listen(engine, "connect", lambda connection, _: configure(connection))
        return engine

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Raises what SQLAlchemy does; then nothing of it is there, unless the connection broke in the last moment."""
        assert self._connection is not None
        with self._connection.begin():
            yield self._connection

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that does nothing where the row is there: a commit whose answer was lost is tried again."""
        kind = sqlite_insert if self.dialect == "sqlite" else postgresql_insert
        return kind(table).on_conflict_do_nothing()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection.engine.dispose()
            self._connection = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
    return aside


def _line(error: BaseException) -> str:
    """What went wrong, without SQLAlchemy's statement and link."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()) or type(cause).__name__
