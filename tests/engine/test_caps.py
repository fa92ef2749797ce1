"""Caps: who decodes while a latency call keeps its pace, who pauses, and for how long at the most."""

from __future__ import annotations

import pytest
from machine import Machine, answer

from semantic_parrot.core.engine.capping import PLACE_ROWS
from semantic_parrot.core.engine.waiting import PATIENCE


def running(*ranks, dt=0.0, count=60, blocks=200):
    """A machine in which sequences of these ranks decode."""
    m = Machine(blocks, chunk=512, max_batch=16, dt=dt)
    live = [m.submit([n] * 20, count, rank) for n, rank in enumerate(ranks)]
    m.step(2)
    return m, live


def decodes(batch):
    return [w.sequence for w in batch.work if w.rows == 1]


@pytest.mark.parametrize("cap", [1, 2, 3, 5, 9])
def test_the_first_few_decode_and_the_others_keep_what_they_have(cap):
    m, live = running(2, 1, 2, 2, 1)
    chat = m.submit([9] * 20, 8, 0, cap=cap)
    m.step()  # its prefill
    had = [[*s.blocks] for s in live]
    expected = [chat, live[1], live[4], live[0], live[2], live[3]][:cap]
    while chat.id in m.live:
        batch = m.step()
        assert set(decodes(batch)) == set(expected)
    for s, blocks in zip(live, had, strict=True):
        assert s.blocks[: len(blocks)] == blocks
    assert set(decodes(m.step())) == set(live)
    m.drain()
    assert not any(m.preempted)
    for s in live:
        assert m.ended[s.id] == answer(s.tokens[: s.prompt], 60)


def test_peers_never_pause_and_only_what_ranks_behind_the_one_who_caps_does():
    m, live = running(0, 0, 0, 1, 2)
    middle = m.submit([8] * 20, 8, 1, cap=1)
    m.step()
    assert set(decodes(m.step())) == {*live[:3], live[3], middle}
    chat = m.submit([9] * 20, 8, 0, cap=2)
    m.step()
    assert set(decodes(m.step())) == {*live[:3], chat}


def test_prefill_of_others_is_what_the_cap_leaves():
    m, live = running(2)
    chat = m.submit([9] * 20, 30, 0, cap=4)
    m.step()
    slow = m.submit([7] * 400, 2, 2)
    peer = m.submit([8] * 400, 2, 0)
    rows = {w.sequence: w.rows for w in m.step().work}
    assert rows == {chat: 1, live[0]: 1, peer: 400, slow: 2 * PLACE_ROWS}
    rows = {w.sequence: w.rows for w in m.step().work}
    assert rows == {chat: 1, live[0]: 1, peer: 1, slow: PLACE_ROWS}
    m.drain()


def test_a_prefill_ahead_leaves_the_cap_alone_too():
    m, _ = running()
    m.submit([9] * 20, 30, 0, cap=2)
    m.step()
    m.ahead(900, [7] * 100)
    assert sorted(w.rows for w in m.step().work) == [1, PLACE_ROWS]
    m.drain()


def test_memory_that_is_wanted_is_taken_from_those_that_pause():
    m, live = running(2, 2, 2, blocks=12)
    chat = m.submit([9] * 20, 100, 0, cap=1)
    while chat.id in m.live:
        m.step()
    assert [s for gone in m.preempted for s in gone] == [live[2], live[1], live[0]][: sum(map(len, m.preempted))]
    assert any(m.preempted)
    m.drain()
    for s in live:
        assert m.ended[s.id] == answer(s.tokens[: s.prompt], 60)


def test_nobody_pauses_for_ever_and_one_at_a_time_goes_on():
    m, live = running(2, 2, 2, dt=1.0, count=30)
    since = m.now
    chats = []
    while any(s.id in m.live for s in live):
        if not chats or chats[-1].id not in m.live:
            chats.append(
                m.submit([9 + len(chats)] * 4, 20, 0, cap=1)
            )  # one after the other: there is always one that caps
        decoded = decodes(m.step())
        assert len(decoded) <= 2 or chats[-1] not in decoded  # it does not cap before its first token
        assert m.now - since < PATIENCE + (len(live) + 1) * 30
    assert m.now - since > PATIENCE


def test_the_longest_held_up_goes_on_first_and_the_next_when_it_has_ended():
    m, (first,) = running(2, dt=1.0, count=60)
    m.submit([9] * 20, 400, 0, cap=1)
    m.step(10)
    second = m.submit([5] * 20, 60, 2)
    while not second.overdue:
        assert second.held_for(m.now) < PATIENCE or first.overdue
        m.step()
    assert first.id in m.ended
    assert second.held_for(m.now) > PATIENCE
    m.drain()


def test_a_prefill_that_gets_no_rows_is_held_up_for_so_long_only():
    m, _ = running(dt=1.0)
    m.submit([9] * 20, 400, 0, cap=1)
    m.step()
    slow = [m.submit([n] * 400, 2, 2) for n in (5, 6, 7)]
    m.step(3 * int(PATIENCE + 2))
    assert all(s.id in m.ended for s in slow)
