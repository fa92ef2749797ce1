"""The journal in PostgreSQL: as in SQLite, and what only a server of its own can do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from postgres import Cluster, cluster
from programs import request
from scripted import ScriptedEngine

from semantic_parrot.core.errors import JournalUnavailable
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.journal.values import JournalError, Retention
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime


@pytest.fixture(scope="module")
def postgres() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def url(postgres: Cluster) -> str:
    """Of a database of its own."""
    engine = sa.create_engine(
        postgres.url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS parrot WITH (FORCE)")
        connection.exec_driver_sql("CREATE DATABASE parrot")
    engine.dispose()
    return postgres.url.removesuffix("postgres") + "parrot"


def body(*prompts):
    calls = [{"id": f"c{i}", "output": f"o{i}", "request": request(prompt)} for i, prompt in enumerate(prompts)]
    return {"calls": calls, "parrot": {"lifetime": "background"}, "deltas": "all"}


async def started(url, engine=None, **options):
    runtime = Runtime([engine or ScriptedEngine()], journal=Journal(url, Retention(runs=2)), **options)
    await runtime.start()
    return runtime


async def told(run):
    return [event async for event in run.events()]


async def test_a_run_goes_on_in_another_server_and_is_kept(url):
    gate = asyncio.Event()
    runtime = await started(url, ScriptedEngine(gate=gate))
    sent = body("one \u2028 \x00 \U0001f99c", "two")
    run, _ = await runtime.accept(parse_program(sent), sent, "ann", "key")
    await asyncio.wait_for(heard(run, 5), 20)
    before = [event async for event in first(run, 5)]
    await runtime.close()
    runtime = await started(url, grace=0.0)
    again = await runtime.find(run.id, "ann")
    events = await told(again)
    assert events[:5] == before
    assert (again.status, again.result()["errors"]) == ("finished", {})
    same, new = await runtime.accept(parse_program(sent), sent, "ann", "key")
    assert (same.id, new) == (run.id, False)
    await runtime.close()
    runtime = await started(url)
    assert await told(await runtime.find(run.id, "ann")) == events
    for i in range(3):
        other, _ = await runtime.accept(parse_program(body(f"more {i}")), body(f"more {i}"), "ann")
        await other.wait()
    assert await runtime._durable.journal.prune() == 2
    assert [row.id for row in await runtime._durable.journal.listing("ann", 10)][-1] == other.id
    await runtime.close()


async def first(run, count):
    async for number, event in run.events():
        yield number, event
        if number == count:
            return


async def heard(run, count):
    async for _ in first(run, count):
        pass


async def test_it_is_one_servers(url, monkeypatch):
    monkeypatch.setattr("semantic_parrot.core.journal.postgres.PATIENCE", "100ms")
    runtime = await started(url)
    with pytest.raises(JournalError, match="in use by another server"):
        await Journal(url).open()
    await runtime.close()
    other = Journal(url)
    await other.open()
    await other.close()


async def test_a_run_outlasts_its_database(postgres, url, caplog):
    gate = asyncio.Event()
    runtime = await started(url, ScriptedEngine(gate=gate))
    sent = body("one", "two")
    run, _ = await runtime.accept(parse_program(sent), sent)
    await asyncio.wait_for(heard(run, 5), 20)
    postgres.stop()
    try:
        gate.set()  # what the run tells now can't be written
        with pytest.raises(JournalUnavailable):
            await runtime.accept(parse_program(sent), sent)
        assert not run._log.complete
    finally:
        postgres.start()
    await asyncio.wait_for(run.wait(), 60)
    events = await told(run)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert run.status == "finished"
    assert "can't be written" in caplog.text
    assert "is written again" in caplog.text
    await runtime.close()
    # What a second server reads is what the first has told.
    runtime = await started(url)
    assert await told(await runtime.find(run.id)) == events
    await runtime.close()
