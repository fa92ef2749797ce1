"""What the server keeps of its tenants: the hashes of their keys, what they have used, and the server's own secret.

A SQLite file in the data directory, apart from the journal, which may be in another database or in none. The command
line writes to it while a server reads.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from semantic_parrot.server.tenants.limits import Used

FILE = "tenants.db"

#: Of the tables below. A file that says another one is of another Parrot.
VERSION = 1

METADATA = sa.MetaData()
KEYS = sa.Table(
    "keys",
    METADATA,
    sa.Column("hash", sa.String, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("operator", sa.Boolean, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("revoked", sa.Float),
)
USED = sa.Table(
    "used",
    METADATA,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("period", sa.String, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("cost", sa.Float, nullable=False),
)
SECRETS = sa.Table("secrets", METADATA, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String))


class StoreError(Exception):
    """The file can't be had. The message is one line."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: not the key. Times are Unix time; `revoked` None: it opens. `operator`: it belongs to no
    tenant, and reads what is about the whole server."""

    id: str
    tenant: str
    operator: bool
    created: float
    revoked: float | None = None


class TenantStore:
    """`directory` is made if it is not there. Raises StoreError, here and in every method."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Whoever reads it knows hashes, names and the salt of the caches.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from None
        self._engine = sa.create_engine(f"sqlite:///{self._path}", connect_args={"timeout": 5.0})
        try:
            self._open()
        except StoreError:
            self.close()
            raise
        self._watch = self._engine.connect()

    def _open(self) -> None:
        with self._transaction() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found not in (0, VERSION):
                raise StoreError(f"{self._path}: it has version {found}, this Parrot reads version {VERSION}")
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            METADATA.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with suppress(AttributeError):
            self._watch.close()
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"{self._path}: {getattr(error, 'orig', None) or error}") from None

    # Keys.

    def add(self, key_hash: str, key: Key) -> None:
        row = {
            "hash": key_hash,
            "id": key.id,
            "tenant": key.tenant,
            "operator": key.operator,
            "created": key.created,
            "revoked": key.revoked,
        }
        with self._transaction() as connection:
            connection.execute(sa.insert(KEYS).values(row))

    def keys(self) -> Mapping[str, Key]:
        """All keys by hash, the oldest first; revoked ones too."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(KEYS).order_by(KEYS.c.created, KEYS.c.id)).all()
        return {row.hash: Key(row.id, row.tenant, row.operator, row.created, row.revoked) for row in rows}

    def revoke(self, name: str) -> list[str]:
        """The key of that id, or all keys of that tenant, open nothing from now on; their ids."""
        hit = KEYS.c.revoked.is_(None) & ((KEYS.c.id == name) | (KEYS.c.tenant == name))
        with self._transaction() as connection:
            rows = connection.execute(sa.update(KEYS).where(hit).values(revoked=time.time()).returning(KEYS.c.id))
            return sorted(row.id for row in rows)

    def changes(self) -> int:
        """A number that is another one whenever somebody else has written: some microseconds."""
        try:
            return int(self._watch.exec_driver_sql("PRAGMA data_version").scalar_one())
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"{self._path}: {getattr(error, 'orig', None) or error}") from None
        finally:
            self._watch.rollback()

    # The secret.

    def secret(self) -> bytes:
        """The server's own, made at the first call: 256 bits that never leave this machine."""
        with self._transaction() as connection:
            connection.execute(
                sa.text("INSERT OR IGNORE INTO secrets VALUES ('salt', :value)"), {"value": secrets.token_hex(32)}
            )
            return bytes.fromhex(
                connection.execute(sa.select(SECRETS.c.value).where(SECRETS.c.name == "salt")).scalar_one()
            )

    # What tenants have used.

    def used(self) -> Mapping[str, Used]:
        """By tenant, in the last period in which it used anything."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(USED)).all()
        return {row.tenant: Used(row.period, row.tokens, row.cost) for row in rows}

    def put_used(self, used: Mapping[str, Used]) -> None:
        """`used` replaces what is there of these tenants."""
        rows = [{"tenant": tenant, **asdict(one)} for tenant, one in used.items()]
        if rows:
            with self._transaction() as connection:
                connection.execute(sa.insert(USED).prefix_with("OR REPLACE"), rows)
