"""Ranks: who goes first, who is preempted for whom, and that nothing is lost by it."""

from __future__ import annotations

import pytest
from machine import Machine, answer

from semantic_parrot.core.engine.kv import BLOCK_SIZE
from semantic_parrot.core.engine.waiting import PATIENCE


def prompt(n, length=40):
    return [n] * length


def order(m, *sequences):
    """The ids of `sequences` in the order in which they end."""
    m.drain()
    return [id for id in m.ended if id in {s.id for s in sequences}]


def test_the_lower_rank_is_admitted_first_and_within_one_who_came_first():
    m = Machine(64, max_batch=1)
    m.submit(prompt(9), 5)
    m.step()
    ranks = [2, 1, 0, 2, 1, 0]
    waiting = [m.submit(prompt(n), 3, rank) for n, rank in enumerate(ranks)]
    expected = [waiting[i].id for i in (2, 5, 1, 4, 0, 3)]
    assert order(m, *waiting) == expected


def test_within_a_rank_priority_goes_first_and_then_the_latest_start():
    m = Machine(64, max_batch=1)
    m.submit(prompt(9), 5)
    m.step()
    asked = [(0, 0, 9.0), (0, 0, -1.0), (1, 5, -9.0), (0, 2, 50.0), (0, 0, 0.0), (1, 0, -99.0), (1, 5, -10.0)]
    waiting = [m.submit(prompt(n), 3, rank, priority=p, slack=slack) for n, (rank, p, slack) in enumerate(asked)]
    expected = [waiting[i].id for i in (3, 1, 4, 0, 6, 2, 5)]
    assert order(m, *waiting) == expected


def test_the_latest_start_counts_from_the_arrival():
    m = Machine(64, max_batch=1, dt=1.0)
    m.submit(prompt(9), 9)
    m.step()
    first = m.submit(prompt(1), 3, slack=6.0)
    m.step(4)
    late, soon = m.submit(prompt(2), 3, slack=3.0), m.submit(prompt(3), 3, slack=1.0)
    assert order(m, first, late, soon) == [soon.id, first.id, late.id]


def test_prefill_goes_by_the_latest_start_and_the_one_passed_over_keeps_what_it_has():
    m = Machine(64, chunk=32)
    early = m.submit(prompt(1, 300), 2)
    m.step()
    urgent = m.submit(prompt(2, 64), 2, slack=-1.0)
    m.step(2)
    assert (early.computed, urgent.pending) == (32, 1)
    m.step()
    assert early.computed > 32
    assert m.preempted[-1] == []


def test_a_prefill_that_later_ones_pass_for_long_goes_on():
    m = Machine(64, chunk=16, max_batch=4, dt=1.0)
    slow = m.submit(prompt(99, 300), 2)
    m.step()
    since, n = m.now, 0
    while slow.pending > 1:
        if len(m.live) < 3:
            m.submit([n % 90, *prompt(98, 31)], 2, slack=-1000.0)
            n += 1
        m.step()
    assert PATIENCE <= m.now - since <= PATIENCE + 25
    assert n > PATIENCE / 3


def test_what_waits_while_its_like_pass_it_for_long_goes_next():
    m = Machine(64, max_batch=1, dt=1.0)
    m.submit(prompt(99), 4)
    m.step()
    slow, n = m.submit(prompt(98), 4), 0
    since = m.now
    while slow.id in m.live:
        if m.planner.waiting and len(m.live) < 3:
            m.submit(prompt(n % 90), 4, slack=-1000.0)
            n += 1
        m.step()
    assert PATIENCE <= m.now - since <= PATIENCE + 20


def test_of_one_rank_what_was_preempted_comes_back_before_what_never_ran():
    m = Machine(64, max_batch=1)
    begun = m.submit(prompt(1), 9, 2, slack=50.0)
    m.step(3)
    m.submit(prompt(2), 3, 0)
    m.step()
    assert m.preempted[-1] == [begun]
    other = m.submit(prompt(3), 3, 2, priority=1, slack=-50.0)
    assert order(m, begun, other) == [begun.id, other.id]


def test_for_want_of_a_place_the_highest_rank_goes_and_of_these_the_last_admitted():
    m = Machine(64, max_batch=4)
    running = [m.submit(prompt(n), 50, rank) for n, rank in enumerate([2, 2, 1, 1])]
    m.step(8)
    assert [s in m.planner.running for s in running] == [True] * 4
    gone = []
    for n in range(4):
        m.submit(prompt(10 + n, 8), 50, 0)
        m.step()
        gone += m.preempted[-1]
    assert gone == [running[1], running[0], running[3], running[2]]
    m.submit(prompt(20), 3, 0)
    m.step(3)
    assert m.planner.waiting  # a peer takes nobody's place
    assert m.preempted[-1] == []
    m.drain()
    for s in running:
        assert m.ended[s.id] == answer(s.tokens[: s.prompt], 50)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_nobody_goes_for_a_peer_or_for_one_behind(rank):
    m = Machine(64, max_batch=2)
    running = [m.submit(prompt(n), 30, rank) for n in range(2)]
    m.step(4)
    m.submit(prompt(5), 3, rank)
    m.submit(prompt(6), 3, 2)
    m.step(4)
    assert list(m.planner.running) == running


def test_for_want_of_blocks_no_more_go_than_must():
    m = Machine(20)
    running = [m.submit(prompt(n, 50), 30, 2) for n in range(4)]  # 4 blocks each
    m.step(8)
    assert len(m.planner.running) == 4
    m.submit(prompt(7, 70), 4, 0)  # 5 blocks, of which 4 are free; and one for each that runs on, to grow
    m.step()
    assert m.preempted[-1] == [running[3]]
    m.drain()


def test_what_can_not_fit_in_any_case_drives_nobody_out():
    m = Machine(20, chunk=64)
    peer = m.submit(prompt(1, 100), 60, 0)  # 7 blocks that no rank may take
    others = [m.submit(prompt(n, 60), 20, 2) for n in (2, 3)]
    m.step(6)
    large = m.submit(prompt(4, 14 * BLOCK_SIZE), 10, 0)
    while peer.id in m.live:
        m.step()
        assert not m.preempted[-1]
    m.drain()
    assert m.ended[large.id] == answer(prompt(4, 14 * BLOCK_SIZE), 10)
    assert all(m.ended[s.id] == answer(s.tokens[: s.prompt], 20) for s in others)


@pytest.mark.parametrize("after", [1, 2, 9])
def test_it_resumes_without_computing_what_is_resident(after):
    m = Machine(64, max_batch=1, chunk=32)
    slow = m.submit(prompt(1, 70), 20, 2)
    m.step(after)  # in mid-prefill, or in its answer
    quick = m.submit(prompt(2, 8), 4, 0)
    m.step()
    assert m.preempted[-1] == [slow]
    assert slow.blocks == []
    m.drain()
    assert m.ended[slow.id] == answer(prompt(1, 70), 20)
    assert m.ended[quick.id] == answer(prompt(2, 8), 4)
    once = 70 + 19 + 8 + 3
    assert m.rows <= once + 1  # the last token, for its logits


@pytest.mark.parametrize("ranks", [(0, 0, 2), (2, 2, 2, 2), (0, 1, 2, 2)])
def test_what_was_preempted_comes_back_when_there_is_room_for_all_to_grow(ranks):
    m = Machine(14)
    live = [m.submit(prompt(n, 40), 60, rank) for n, rank in enumerate(ranks)]
    m.drain()
    count = 0
    for step, gone in enumerate(m.preempted):
        count += len(gone)
        recent = [s for started in m.started[max(0, step - 8) : step] for s in started]
        assert not set(gone) & set(recent)
    assert 1 <= count <= 3 * len(live)
    for s in live:
        assert m.ended[s.id] == answer(s.tokens[: s.prompt], 60)


def test_a_latency_call_takes_the_place_of_the_prefill_that_it_would_follow():
    shared = [3] * 200
    m = Machine(64, chunk=32)
    slow = m.submit([*shared, 1, 1], 6, 2)
    m.step(2)
    quick = m.submit([*shared, 2, 2], 6, 0)
    m.step()
    assert m.preempted[-1] == [slow]
    assert quick.cached == 64
    while quick.id in m.live:
        m.step()
    m.drain()
    assert slow.id in m.ended
    assert m.rows <= 200 + 2 * (2 + 6) + 2 * BLOCK_SIZE  # the prefix once


def test_prefill_goes_by_rank_too():
    m = Machine(64, chunk=32)
    m.submit(prompt(1, 300), 2, 2)
    m.step()
    quick = m.submit(prompt(2, 64), 2, 0)
    m.step(2)
    assert quick.pending == 1


def test_what_is_passed_over_for_long_goes_next():
    m = Machine(64, max_batch=1, dt=1.0)
    m.submit(prompt(99), 4, 0)
    m.step()
    slow = m.submit(prompt(98), 4, 2)
    since = m.now
    n = 0
    while slow.id in m.live:
        if m.planner.waiting and len(m.live) < 3:
            m.submit(prompt(n % 90), 4, 0)  # there is always one that goes first
            n += 1
        m.step()
        if slow in m.planner.running:
            assert not m.preempted[-1]
    assert PATIENCE <= m.now - since <= PATIENCE + 20
    m.drain()
