"""Durable runs over a server's end: whatever moment it comes at, the run goes on as if it had not."""

from __future__ import annotations

import asyncio

import pytest
from durable import (
    BACKGROUND,
    RICH,
    Paced,
    body,
    call,
    drawn,
    fail,
    finished,
    known,
    started,
    text,
    text_of,
    told,
    until,
)
from journals import Recorded, full, write
from scripted import ScriptedEngine, answer

from semantic_parrot.core.errors import (
    InvalidRequest,
    JournalUnavailable,
    NotFound,
    Unsupported,
)
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.program import parse_program


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
