"""What is asked of the journal, each in a transaction that is the caller's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from semantic_parrot.core import events
from semantic_parrot.core.journal.tables import EVENTS, KEYS, RUNS
from semantic_parrot.core.journal.values import Key, Listed, Retention, Stored

#: Runs that one transaction forgets: those who write wait meanwhile.
PRUNED_AT_ONCE = 500

#: An INSERT of what may be there already.
Insert = Callable[[sa.Table], Any]

_HEAD = (RUNS.c.id, RUNS.c.tenant, RUNS.c.created, RUNS.c.status, RUNS.c.ended)


def accept(connection: sa.Connection, insert: Insert, row: dict[str, Any], key: Key | None) -> None:
    """A key goes to the run that asks for it last: whoever does has made sure that it is free."""
    connection.execute(insert(RUNS), row)
    if key is not None:
        connection.execute(KEYS.delete().where(KEYS.c.tenant == row["tenant"], KEYS.c.text == key.text))
        held = {"tenant": row["tenant"], "text": key.text, "digest": key.digest, "run": row["id"]}
        connection.execute(KEYS.insert(), held)


def end(connection: sa.Connection, run: str, status: str, now: float) -> None:
    connection.execute(RUNS.update().where(RUNS.c.id == run).values(status=status, ended=now))


def unfinished(connection: sa.Connection) -> list[Stored]:
    return _stored(connection, RUNS.c.status.is_(None))


def find(connection: sa.Connection, run: str, tenant: str) -> Stored | None:
    return next(iter(_stored(connection, (RUNS.c.id == run) & (RUNS.c.tenant == tenant))), None)


def _stored(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[Stored]:
    runs = connection.execute(sa.select(*_HEAD, RUNS.c.body).where(which).order_by(RUNS.c.created, RUNS.c.id)).all()
    told: dict[str, list[events.Event]] = {run.id: [] for run in runs}
    rows = sa.select(EVENTS.c.run, EVENTS.c.number, EVENTS.c.data).join(RUNS, RUNS.c.id == EVENTS.c.run)
    for name, _, data in connection.execute(rows.where(which).order_by(EVENTS.c.run, EVENTS.c.number)):
        told[name].append(events.parse(data))
    return [Stored(Listed(*run[:5]), json.loads(run.body), tuple(told[run.id])) for run in runs]


def held(connection: sa.Connection, tenant: str, key: str) -> tuple[str, str] | None:
    row = connection.execute(
        sa.select(KEYS.c.run, KEYS.c.digest).where(KEYS.c.tenant == tenant, KEYS.c.text == key)
    ).one_or_none()
    return None if row is None else (row.run, row.digest)


def listing(connection: sa.Connection, tenant: str, most: int) -> list[Listed]:
    newest = sa.select(*_HEAD).where(RUNS.c.tenant == tenant).order_by(RUNS.c.created.desc(), RUNS.c.id).limit(most)
    return [Listed(*row) for row in connection.execute(newest)][::-1]


def prune(connection: sa.Connection, retention: Retention, now: float) -> int:
    """How many runs were forgotten: at most PRUNED_AT_ONCE."""
    ended = sa.select(RUNS.c.id).where(RUNS.c.ended.is_not(None))
    gone: set[str] = set()
    if retention.days is not None:
        past = ended.where(RUNS.c.ended < now - retention.days * 86_400).limit(PRUNED_AT_ONCE)
        gone |= set(connection.scalars(past))
    if retention.runs is not None:
        surplus = ended.order_by(RUNS.c.ended.desc(), RUNS.c.id).offset(retention.runs).limit(PRUNED_AT_ONCE)
        gone |= set(connection.scalars(surplus))
    chosen = sorted(gone)[:PRUNED_AT_ONCE]
    erase(connection, chosen)
    return len(chosen)


def erase(connection: sa.Connection, runs: Sequence[str]) -> None:
    """All that there is of `runs`, their idempotency keys too."""
    for column in (EVENTS.c.run, KEYS.c.run, RUNS.c.id):
        connection.execute(column.table.delete().where(column.in_(runs)))
