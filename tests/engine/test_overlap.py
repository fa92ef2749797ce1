"""A step that is launched before the tokens of the one before it are read: the same answers, and rows for nothing only
where an answer ended unforeseen."""

from __future__ import annotations

import pytest
import torch
from cramped import Cramped, intact, no_device_memory
from machine import Machine, answer

from semantic_parrot.core.engine.planner import FOLLOWING
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.request import ModelRequest

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


def tell(b, requests, cancelled=3, after=9):
    """Whatever can be told of `requests`, one of which is cancelled after some steps; later ones come meanwhile."""
    first, later = requests[:-2], requests[-2:]
    ids = [b.submit(r) for r in first]
    for n in range(100):
        b.step()
        if n == after:
            b.loop.cancel(ids[cancelled])
            ids += [b.submit(r) for r in later]
        if not b.loop.busy:
            break
    b.drain()
    intact(b)
    done = {id: (d.text, d.reason, d.usage) for id, d in b.done.items()}
    return done, {id: b.logits(id)[: done[id][2].completion] for id in done}, b.logprobs


@pytest.mark.parametrize("plain", [True, False])
def test_the_same_answers(tiny, bench, ask, plain):
    requests = [
        ask(LINE + "One", 60),
        ask(LINE + "Two", 24, temperature=0.8, top_p=0.9, seed=4),
        ask(LINE + "Three", 40, temperature=1.0, seed=5, stop=("e",)),
        ask("Four", 40),
        ask("Five", 1),
        ask(LINE * 2 + "Six", 20, temperature=0.7, min_p=0.1, seed=6),
        ask("Seven", 2),
    ]
    if not plain:  # with what only the host knows
        requests[1] = ask(LINE + "Two", 24, repetition_penalty=1.3)
        requests[5] = ask(LINE + "Six", 12, logprobs=2)
        requests[6] = ModelRequest(
            "m", None, "Seven", ask("", 8).sampling, grammar=Grammar("regex", "[a-z ]{3,8}", "x")
        )
    found = []
    for overlap in (False, True):
        b = bench(tiny("llama"), deterministic=True, overlap=overlap, chunk=48, max_batch=4)
        launched: list[object] = []
        inner = b.loop._planner.follow

        def follow(latest, inner=inner, launched=launched):
            launched.append(inner(latest))
            return launched[-1]

        b.loop._planner.follow = follow
        found.append(tell(b, requests))
        assert bool([batch for batch in launched if batch is not None]) is overlap
    (done, logits, logprobs), (other, others, otherprobs) = found
    assert done == other
    assert len(done) == 6
    assert logprobs == otherprobs
    for id in done:
        assert torch.equal(logits[id], others[id])


def test_a_row_that_was_not_needed_is_forgotten(tiny, bench, ask):
    free = bench(tiny("llama"), deterministic=True)
    whole = free.run(ask(LINE, 40))[0]
    generated = free.tokens(1)[whole.usage.prompt :]
    b = bench(tiny("llama"), deterministic=True, overlap=True)
    b.loop._eos = frozenset({generated[10]})
    done = b.run(ask(LINE, 40, ignore_eos=False), ask("Two", 40))
    at = generated.index(generated[10])
    assert (done[0].reason, done[0].usage.completion) == ("stop", at + 1)
    assert (1, whole.usage.prompt + at + 1) in b.recorded.logits  # a token past the end was computed
    assert done[1].text == free.run(ask("Two", 40))[0].text
    intact(b)


@pytest.mark.parametrize("lacking", [3, 4])
def test_where_memory_does_not_suffice_for_a_step_that_follows(tiny, bench, ask, lacking):
    expected = bench(tiny("llama"), deterministic=True).run(*(ask(f"Number {n}", 12) for n in range(4)))
    b = bench(tiny("llama"), deterministic=True, overlap=True)
    cramped = Cramped(b, lambda batch: batch.latest is not None and len(batch.work) >= lacking, no_device_memory)
    done = b.run(*(ask(f"Number {n}", 12) for n in range(4)))
    assert cramped.failures
    assert [d.text for d in done] == [d.text for d in expected]
    intact(b)


def test_one_request_without_memory_fails_alone(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True, overlap=True)
    ids = [b.submit(ask(f"Number {n}", 12)) for n in range(3)]
    Cramped(b, lambda batch: any(w.sequence.id == 2 and w.sequence.computed > 12 for w in batch.work), no_device_memory)
    b.drain()
    assert set(b.failed) == {2}
    assert b.failed[2].code == "out_of_memory"
    assert set(b.done) == {ids[0], ids[2]}
    intact(b)


def test_logits_that_are_no_numbers(tiny, bench, ask):
    expected = bench(tiny("llama"), deterministic=True).run(ask(LINE, 12), ask("Two", 12))
    b = bench(tiny("llama"), deterministic=True, overlap=True)
    inner, poisoned = b.recorded.runner.run, []

    def poison(batch):
        work, logits = inner(batch)
        if batch.latest is not None and not poisoned:
            poisoned.append(work)
            logits = logits * torch.nan
        return work, logits

    b.recorded.runner.run = poison
    assert [d.text for d in b.run(ask(LINE, 12), ask("Two", 12))] == [d.text for d in expected]
    assert poisoned
    intact(b)


# The planner.


def test_steps_of_decode_follow_until_the_clock_is_looked_at():
    m = Machine(40, follow=True)
    long, short = m.submit([1] * 5, 80), m.submit([2] * 5, 20)
    m.drain()
    assert m.ended == {long.id: answer([1] * 5, 80), short.id: answer([2] * 5, 20)}
    planned = len(m.batches) - m.followed
    assert planned == 1 + 80 // FOLLOWING  # who ends as foreseen makes no difference
    assert m.rows == 5 + 79 + 5 + 19


def test_a_request_that_comes_is_planned_at_once_and_one_that_does_not_fit_changes_nothing():
    m = Machine(40, follow=True, max_batch=2)
    m.submit([1] * 5, 80)
    m.step(FOLLOWING + 5)  # so that a step of nothing but decode has been planned
    comes = m.submit([2] * 5, 30)
    m.step(2)  # of which the first was under way
    assert comes in m.planner.running
    waits = m.submit([3] * 5, 30)
    m.step(2)
    followed = m.followed
    m.step(9)
    assert waits in m.planner.waiting
    assert m.followed == followed + 9
    m.drain()
    assert m.ended[waits.id] == answer([3] * 5, 30)


def test_who_decodes_does_not_hold_up_a_prefill():
    m = Machine(40, follow=True, chunk=16)
    first = m.submit([1] * 5, 80)
    m.step(3)
    second = m.submit([2] * 75, 5)
    m.step(1 + 5)  # one step was under way; then 15 rows beside the one that decodes
    assert len(second.tokens) == 76
    assert len(first.tokens) == 5 + 9


def test_what_a_row_for_nothing_wrote_is_cleared_before_the_next_one_reads_there():
    m = Machine(3, follow=True, cache=False)
    m.submit([1] * 14, 2, room=9)  # its third token's row is under way when it ends; it goes to a second block
    m.drain()
    assert m.rows == 14 + 1 + 1
    written = m.batches[-1].work[0].sequence
    assert written.blocks == []
    m.submit([2] * 40, 2)
    m.drain()
    cleared = {block for batch in m.batches for block in batch.clear}
    assert len(cleared) == 1
