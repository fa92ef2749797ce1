"""Idempotency keys, quotas and deadlines of durable runs: they hold over a server's end."""

from __future__ import annotations

import asyncio

import pytest
from durable import BACKGROUND, body, call, started, text_of, told
from journals import Recorded, write
from scripted import ScriptedEngine

from semantic_parrot.core.errors import IdempotencyKeyReused
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.program import parse_program


async def test_a_key_stands_for_one_run_of_one_tenant_over_restarts(tmp_path):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    one, other = body(call("a", "A")), body(call("a", "B"))
    runtime = await started(Journal(url))

    async def accept(sent, tenant="ann", key="k"):
        return await runtime.accept(parse_program(sent), sent, tenant, key)

    first, *others = await asyncio.gather(*(accept(one) for _ in range(3)))
    assert [new for _, new in (first, *others)].count(True) == 1
    assert {run.id for run, _ in (first, *others)} == {first[0].id}
    bobs, new = await accept(one, tenant="bob")
    assert new
    await bobs.wait()
    with pytest.raises(IdempotencyKeyReused):
        await accept(other)
    await first[0].wait()
    for _ in range(2):
        await runtime.close()
        engine = ScriptedEngine()
        runtime = await started(Journal(url), engine)
        again, new = await accept(dict(reversed(one.items())))  # the order of JSON's keys says nothing
        assert (again.id, new, again.status) == (first[0].id, False, "finished")
        assert engine.seen == []
        with pytest.raises(IdempotencyKeyReused):
            await accept(other)
    await runtime.close()


async def test_a_cancelled_run_gives_its_key_back(tmp_path):
    runtime = await started(Journal(), ScriptedEngine(gate=asyncio.Event()))
    one = body(call("a", "A"))
    first, _ = await runtime.accept(parse_program(one), one, "", "k")
    first.cancel()
    second, new = await runtime.accept(parse_program(one), one, "", "k")
    assert new
    assert second.id != first.id
    third, new = await runtime.accept(parse_program(one), one, "", "k")
    assert (third.id, new) == (second.id, False)
    second.cancel()
    await runtime.close()


async def test_a_foreground_run_with_a_key_is_cancelled_unless_its_client_comes_back(tmp_path):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    journal = Recorded(url)
    runtime = await started(journal, ScriptedEngine(gate=asyncio.Event()))
    one = {**body(call("a", "A")), "parrot": {}}
    run, _ = await runtime.accept(parse_program(one), one, "", "k")
    await runtime.close()
    crashed = write(tmp_path / "crashed.db", journal.steps[:1])
    for back in (True, False):
        path = tmp_path / f"{back}.db"
        path.write_bytes((tmp_path / "crashed.db").read_bytes())
        gate = asyncio.Event()
        grace = 60.0 if back else 0.05
        runtime = await started(Journal(f"sqlite:///{path}"), ScriptedEngine(gate=gate), grace=grace)
        again, new = await runtime.accept(parse_program(one), one, "", "k")
        assert (again.id, new) == (run.id, False)
        if back:
            again.audience.attach()
            again.audience._abandon()  # as when the grace is over
            gate.set()
        await again.wait()
        assert again.status == ("finished" if back else "cancelled")
        await runtime.close()
    assert crashed


@pytest.mark.parametrize("tokens", [4, 7, 12, 17])
async def test_a_runs_own_quota_goes_on_over_a_restart(tmp_path, tokens):
    """At whatever moment it comes: a quota that was used up before is not there again."""
    three = body(
        call("a", "A"), call("b", "B ", ("a",)), call("c", "C ", ("b",)), outputs=["a", "b", "c"], deltas="all"
    )
    three["parrot"] = {**BACKGROUND, "quota": {"tokens": tokens}}
    journal = Recorded(f"sqlite:///{tmp_path / 'whole.db'}")
    runtime = await started(journal)
    run, _ = await runtime.accept(parse_program(three), three)
    whole = await told(run)
    await runtime.close()
    assert run.status == "failed"
    assert "quota_exceeded" in [error["code"] for error in run.errors().values()]
    for cut in range(1, len(journal.steps) + 1):
        runtime = await started(Journal(write(tmp_path / f"{cut}.db", journal.steps[:cut])))
        again = await runtime.find(run.id)
        events, result = await told(again), again.result()
        await runtime.close()
        assert [(number, event.type, event.id) for number, event in events] == [
            (number, event.type, event.id) for number, event in whole
        ]
        assert text_of(events) == text_of(whole)
        for what in ("status", "outputs", "errors", "usage"):
            assert result[what] == run.result()[what]


async def test_a_deadline_goes_on_over_a_restart_and_spares_what_is_there(tmp_path):
    journal = Recorded(f"sqlite:///{tmp_path / 'whole.db'}")
    runtime = await started(journal)
    two = body(call("a", "A"), call("b", "B ", ("a",)), outputs=["a", "b"])
    two["parrot"] = {**BACKGROUND, "deadline_ms": 60_000}
    run, _ = await runtime.accept(parse_program(two), two)
    await run.wait()
    await runtime.close()
    steps = journal.steps[: next(i for i, step in enumerate(journal.steps) if "call.finished" in str(step)) + 1]
    url = write(tmp_path / "cut.db", steps)
    late = Journal(url)
    await late.open()
    await late._ask(lambda connection: connection.exec_driver_sql("UPDATE parrot_runs SET created = created - 120"))
    await late.close()
    engine = ScriptedEngine()
    runtime = await started(Journal(url), engine)
    again = await runtime.find(run.id)
    await again.wait()
    assert again.status == "failed"
    assert set(again.result()["outputs"]) == {"a"}
    assert again.result()["errors"]["b"]["code"] == "deadline_exceeded"
    assert engine.seen == []
    await runtime.close()
