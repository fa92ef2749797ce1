"""The journal's database: what it refuses, what it survives, what it forgets."""

from __future__ import annotations

import sqlite3

import pytest

from semantic_parrot.core.events import RunFinished, RunStarted
from semantic_parrot.core.journal import tables
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.journal.store import Store
from semantic_parrot.core.journal.values import JournalError, Key, Listed, Retention


def refused(why):
    raise AssertionError(why)


async def kept(journal, name, *, tenant="", created=0.0, ended=False, key=None):
    """A run in the journal, with one event or two."""
    journal.accept(Listed(name, tenant, created, None, None), {"calls": []}, key and Key(key, "digest"), refused)
    journal.append(name, 1, RunStarted(id=name), lambda: None)
    if ended:
        end = RunFinished(id=name, status="finished", outputs={"x": "\u2028 \U0001f99c \x00"}, errors={})
        journal.append(name, 2, end, lambda: None)
        journal.end(name, "finished")
    return await settled(journal, name, tenant)


async def settled(journal, name, tenant=""):
    while (stored := await journal.find(name, tenant)) is None:
        pass
    return stored


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x/y",
        "nonsense",
        "sqlite:////dev/null/x/journal.db",
        "postgresql://127.0.0.1:1/x",
        "sqlite:////proc/x.db",
    ],
)
async def test_one_that_can_not_be_had_is_one_line(url):
    with pytest.raises(JournalError) as caught:
        await Journal(url).open()
    assert len(str(caught.value).splitlines()) == 1
    assert "sqlalche" not in str(caught.value)


async def test_it_is_one_servers(tmp_path):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    first = Journal(url)
    await first.open()
    with pytest.raises(JournalError, match="in use by another server"):
        await Journal(url).open()
    await first.close()
    again = Journal(url)
    await again.open()
    await again.close()


async def test_what_is_in_it_is_for_nobody_else_to_read(tmp_path):
    journal = Journal(f"sqlite:///{tmp_path / 'data' / 'journal.db'}")
    await journal.open()
    await kept(journal, "a")
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir()}
    assert len(modes) == 4  # the database, its log, the log's index, the lock
    assert set(modes.values()) == {0}
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    await journal.close()


async def test_old_runs_and_surplus_ones_are_forgotten_with_all_that_is_theirs(tmp_path):
    journal = Journal(retention=Retention(days=1.0, runs=3))
    await journal.open()
    await kept(journal, "open", created=1.0)
    for i in range(5):
        await kept(journal, f"r{i}", created=10.0 + i, ended=True, key=f"k{i}")
    await journal._ask(
        lambda connection: connection.exec_driver_sql("UPDATE parrot_runs SET ended = created WHERE id = 'r4'")
    )
    assert await journal.prune() == 2  # r4 is old; of the others r0 is one too many
    assert [row.id for row in await journal.listing("", 10)] == ["open", "r1", "r2", "r3"]
    assert await journal.held("", "k0") is None
    assert await journal.held("", "k1") == ("r1", "digest")
    counts = await journal._ask(
        lambda connection: [
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
            for table in ("parrot_runs", "parrot_events", "parrot_keys")
        ]
    )
    assert counts == [4, 7, 3]
    assert await journal.prune() == 0
    await journal.close()


async def test_what_was_told_is_read_as_it_was():
    journal = Journal()
    await journal.open()
    stored = await kept(journal, "a", tenant="ann", ended=True)
    assert stored.events[1].outputs == {"x": "\u2028 \U0001f99c \x00"}
    assert await journal.find("a", "bob") is None
    await journal.close()


def test_an_older_journal_takes_the_steps_that_it_lacks(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'journal.db'}")
    store.open()
    taken = []

    def step(connection):
        connection.exec_driver_sql("ALTER TABLE parrot_runs ADD COLUMN more TEXT")
        taken.append(1)

    for _ in range(2):
        with store.transaction() as connection:
            tables.migrate(connection, version=tables.VERSION + 1, steps={**tables.STEPS, tables.VERSION: step})
    assert taken == [1]
    store.close()
    with pytest.raises(JournalError, match="written by a newer one"):
        Store(f"sqlite:///{tmp_path / 'journal.db'}").open()


def crashed(path, runs):
    """A journal with `runs` runs, each written by a transaction of its own, whose process was killed: the files."""
    source = path / "journal.db"
    store = Store(f"sqlite:///{source}")
    store.open()
    for i in range(runs):
        with store.transaction() as connection:
            row = {"id": f"r{i}", "tenant": "", "created": float(i), "body": "{}"}
            connection.execute(tables.RUNS.insert(), row)
    files = {suffix: (path / f"journal.db{suffix}").read_bytes() for suffix in ("", "-wal")}
    store.close()
    return files


def restored(path, files):
    for suffix, content in files.items():
        (path / f"journal.db{suffix}").write_bytes(content)
    return Journal(f"sqlite:///{path / 'journal.db'}")


@pytest.mark.parametrize("frames", [1, 3])
async def test_a_damaged_tail_is_said_and_costs_what_is_behind_it(tmp_path, caplog, frames):
    files = crashed(tmp_path, 5)
    (tmp_path / "journal.db").unlink()
    log = bytearray(files["-wal"])
    page = int.from_bytes(log[8:12], "big")
    assert (len(log) - 32) % (page + 24) == 0
    log[-frames * (page + 24) + 100] ^= 1
    journal = restored(tmp_path, {**files, "-wal": bytes(log)})
    await journal.open()
    left = len(await journal.listing("", 10))
    assert 0 < left < 5
    assert f"its last {5 - left} transactions are damaged" in caplog.text
    await kept(journal, "new")
    await journal.close()


async def test_a_sound_tail_is_not_said_to_be_damaged(tmp_path, caplog):
    files = crashed(tmp_path, 5)
    journal = restored(tmp_path, files)
    await journal.open()
    assert len(await journal.listing("", 10)) == 5
    await journal.close()
    # A log that was cut off in the middle of a transaction: that one was never told.
    journal = restored(tmp_path, {**files, "-wal": files["-wal"][:-100]})
    await journal.open()
    assert len(await journal.listing("", 10)) == 4
    await journal.close()
    assert caplog.text == ""


async def test_a_damaged_database_is_kept_aside_and_a_new_one_begun(tmp_path, caplog):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    journal = Journal(url)
    await journal.open()
    for i in range(50):
        await kept(journal, f"r{i}", created=float(i))
    await journal.close()
    for content in (b"this is no database at all" * 1000, None):
        path = tmp_path / "journal.db"
        data = bytearray(path.read_bytes()) if content is None else bytearray(content)
        data[4096 * 2 : 4096 * 4] = bytes(range(256)) * 32
        path.write_bytes(data)
        journal = Journal(url)
        await journal.open()
        assert await journal.listing("", 10) == []
        for i in range(50):
            await kept(journal, f"r{i}", created=float(i))
        await journal.close()
        aside = [found for found in tmp_path.iterdir() if "damaged" in found.name]
        assert bytes(data) in [found.read_bytes() for found in aside]
        assert f"kept as {aside[0].name}" in caplog.text or len(aside) > 1
        for found in aside:
            found.unlink()


def test_an_accepted_commit_is_on_the_disk():
    store = Store("sqlite:///:memory:")
    store.open()
    with store.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert isinstance(connection.connection.driver_connection, sqlite3.Connection)
    store.close()
