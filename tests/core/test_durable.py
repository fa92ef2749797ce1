"""Durable runs over a server's end: whatever moment it comes at, the run goes on as if it had not."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from journals import Recorded, full, write
from programs import request
from scripted import ScriptedEngine, answer

from semantic_parrot.core.engines.protocol import UNDIRECTED
from semantic_parrot.core.errors import (
    EngineFailed,
    IdempotencyKeyReused,
    InvalidRequest,
    JournalUnavailable,
    NotFound,
    Unsupported,
)
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime

BACKGROUND = {"lifetime": "background"}


def call(output, *parts, **fields):
    return {"id": f"call_{output}", "output": output, "request": request(*parts, **fields)}


def body(*calls, **fields):
    return {"calls": list(calls), "parrot": BACKGROUND, **fields}


#: A chain, a fan-out over a model's own list, a choice, a sampled call, one that fails and one that then never runs.
RICH = body(
    call("list", "List them"),
    call("sampled", "Draw ", ("list",), temperature=1.0),
    call("bad", "FAIL"),
    call("never", "After ", ("bad",)),
    call("end", "Merge ", ("joined",), " and ", ("sampled",), " and ", ("chosen",)),
    transforms=[
        {"id": "split", "op": "split", "of": "list", "output": "items"},
        {"id": "join", "op": "join", "of": "entries", "output": "joined", "sep": ", "},
        {"id": "test", "op": "compare", "test": "contains", "of": "sampled", "to": {"value": "w"}, "output": "flag"},
    ],
    maps=[
        {
            "id": "each",
            "over": "items",
            "item": "item",
            "bound": 5,
            "output": "entries",
            "result": "entry",
            "calls": [call("entry", "Say ", ("item",))],
        }
    ],
    branches=[
        {
            "id": "way",
            "on": "flag",
            "output": "chosen",
            "arms": [{"when": True, "result": "yes", "calls": [call("yes", "Yes ", ("list",))]}],
            "default": {"result": "no", "calls": [call("no", "No")]},
        }
    ],
    outputs=["end", "never"],
    deltas="all",
)


def fail(asked):
    return EngineFailed("a scripted failure") if asked.messages[0].content == "FAIL" else None


def drawn(asked):
    """As `answer`; what is sampled depends on the seed."""
    return answer(asked) + ("" if asked.sampling.temperature == 0 else f" s{asked.sampling.seed}")


class Paced(ScriptedEngine):
    """Each word in a turn of its own."""

    async def generate(self, asked, directions=UNDIRECTED):
        async with aclosing(super().generate(asked, directions)) as items:
            async for item in items:
                await asyncio.sleep(0)
                yield item


async def started(journal, engine=None, **options):
    engine = engine or Paced(fail=fail, answers=drawn)
    runtime = Runtime([engine], journal=journal, **options)
    await runtime.start()
    return runtime


async def until(holds):
    """Turn by turn of the loop: what is waited for happens in another thread, or with no event."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def told(run, after=0):
    return [(number, event) async for number, event in run.events(after)]


def known(events):
    """What a client can tell apart; times are another run's."""
    return [(number, event.model_dump(exclude={"timings", "schedule", "usage"})) for number, event in events]


def finished(events):
    return {event.id: event.content_key for _, event in events if event.type in ("call.finished", "call.failed")}


async def test_a_run_goes_on_from_every_moment_that_its_server_may_end_at(tmp_path):
    journal = Recorded(f"sqlite:///{tmp_path / 'whole.db'}")
    runtime = await started(journal)
    run, new = await runtime.accept(parse_program(RICH), RICH)
    assert new
    whole = await told(run)
    await runtime.close()
    assert run.status == "failed"  # what was wanted of it in vain is known
    assert len(journal.steps) > 10

    for cut in range(1, len(journal.steps) + 1):
        engine = Paced(fail=fail, answers=drawn)
        url = write(tmp_path / f"{cut}.db", journal.steps[:cut])
        runtime = await started(Journal(url), engine)
        again = await runtime.find(run.id)
        before = again.last_event
        events = await told(again)
        await again.settle()
        result = again.result()
        await runtime.close()

        assert known(events)[:before] == known(whole)[:before]
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert finished(events) == finished(whole)
        assert result["outputs"] == run.result()["outputs"]
        assert result["errors"] == run.result()["errors"]
        assert {name: text(events, name) for name in text_of(whole)} == text_of(whole)
        # What had ended did not run again, and all that had not did so once.
        assert len(engine.seen) == len(finished(whole)) - len(finished(events[:before]))
        # Usage is that of all servers together, but for what was cut off in the middle.
        assert result["usage"] == run.result()["usage"]


def text(events, call_id):
    return "".join(event.text for _, event in events if event.type == "variable.delta" and event.id == call_id)


def text_of(events):
    return {event.id: text(events, event.id) for _, event in events if event.type == "variable.delta"}


async def test_an_answer_that_can_not_go_on_is_an_error_that_can_be_tried_again(tmp_path):
    journal = Recorded(f"sqlite:///{tmp_path / 'whole.db'}")
    runtime = await started(journal)
    one = body(call("x", "Say"), deltas="all")
    run, _ = await runtime.accept(parse_program(one), one)
    whole = await told(run)
    await runtime.close()

    def other(asked):
        return answer(asked)[:-1]  # the last word is another one: what was told before it is as it was

    def shorter(asked):
        return answer(asked).split()[0]

    def different(asked):
        return "x" + answer(asked)[1:]

    words = 1  # steps before the first word
    for answers, heard, status in (
        (other, 2, "finished"),
        (other, 3, "failed"),
        (shorter, 2, "failed"),
        (different, 1, "failed"),
    ):
        url = write(tmp_path / f"{answers.__name__}{heard}.db", journal.steps[: words + heard])
        runtime = await started(Journal(url), ScriptedEngine(answers=answers))
        again = await runtime.find(run.id)
        before = again.last_event
        assert before == 2 + heard
        events = await told(again)
        await runtime.close()
        assert again.status == status
        assert known(events)[:before] == known(whole)[:before]
        if status == "failed":
            (failed,) = [event for _, event in events if event.type == "call.failed"]
            assert (failed.status, failed.body["error"]["code"]) == (503, "interrupted")


async def test_nothing_is_told_and_nothing_runs_before_it_is_durable(tmp_path):
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    engine = ScriptedEngine()
    runtime = await started(journal, engine)
    two = body(call("a", "A" * 10_000), call("b", "B ", ("a",)))
    async with full(journal):
        with pytest.raises(JournalUnavailable, match="full"):
            await runtime.accept(parse_program(two), two)
        assert engine.seen == []
        # What is in memory is not refused, and not held up.
        other = runtime.submit(parse_program({**two, "parrot": {}}))
        await other.wait()
        assert other.status == "finished"
    assert [row.id for row in await runtime.listing("", 10)] == [other.id]
    await runtime.close()


async def test_a_run_waits_for_a_full_disk_and_loses_nothing(tmp_path, caplog):
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate, answers=lambda _: "word " * 10_000)
    runtime = await started(journal, engine)
    two = body(call("a", "A"), call("b", "B ", ("a",)), deltas="none")
    run, _ = await runtime.accept(parse_program(two), two)
    await engine.until(running=1)
    async with full(journal):
        gate.set()
        await engine.until(running=0)
        await until(lambda: journal.trouble is not None)
        assert run.last_event == 2  # run.started, call.ready
        assert len(engine.seen) == 1  # its consumer does not run on what may be lost
    await run.wait()
    assert run.status == "finished"
    events = await told(run)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    said = [record for record in caplog.records if "journal" in record.name]
    assert [record.levelname for record in said] == ["ERROR", "WARNING"]
    assert "full" in said[0].message
    assert "is written again" in said[1].message
    await runtime.close()


async def test_a_run_that_has_ended_is_read_from_the_journal(tmp_path):
    runtime = await started(Journal(), grace=0.0)
    run, _ = await runtime.accept(parse_program(RICH), RICH, "ann")
    events, result = await told(run), run.result()
    await until(lambda: run.id not in runtime._runs)
    again = await runtime.find(run.id, "ann")
    assert again is not run
    assert again.result() == result
    assert await told(again) == events
    assert await told(again, 3) == events[3:]
    assert [(row.id, row.status) for row in await runtime.listing("ann", 10)] == [(run.id, "failed")]
    assert await runtime.listing("bob", 10) == []
    with pytest.raises(NotFound):
        await runtime.find(run.id, "bob")
    await runtime.close()


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


async def test_a_run_whose_model_is_gone_ends_with_an_error_that_says_so(tmp_path, caplog):
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    runtime = await started(Journal(url), ScriptedEngine(gate=asyncio.Event()))
    one = body(call("a", "A", model="scripted"))
    run, _ = await runtime.accept(parse_program(one), one)
    await runtime.close()
    runtime = await started(Journal(url), ScriptedEngine(("another",)))
    again = await runtime.find(run.id)
    assert again.status == "failed"
    assert again.result()["errors"]["run"]["code"] == "model_not_found"
    assert run.id in caplog.text
    await runtime.close()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (body(call("a", "A", ("nobody",))), InvalidRequest),
        ({**body(call("a", "A")), "parrot": {**BACKGROUND, "session": "ses_1"}}, InvalidRequest),
    ],
)
async def test_what_is_refused_leaves_no_trace(sent, error):
    runtime = await started(Journal())
    with pytest.raises(error):
        await runtime.accept(parse_program(sent), sent, "", "k")
    assert await runtime.listing("", 10) == []
    assert (await runtime.accept(parse_program(body(call("a", "A"))), {}, "", "k"))[1]
    await runtime.close()


async def test_without_a_journal_there_are_no_durable_runs(runtime):
    one = body(call("a", "A"))
    with pytest.raises(Unsupported):
        await runtime.accept(parse_program(one), one)


async def test_what_is_not_durable_never_touches_the_journal():
    journal = Recorded()
    runtime = await started(journal)
    for lifetime in ("prefetch", "foreground"):
        run = runtime.submit(parse_program({**RICH, "parrot": {"lifetime": lifetime}}))
        await run.wait()
    assert journal.steps == []
    await runtime.close()
