"""Whatever is asked of the planner, in whatever order: each sequence ends with its own tokens, and holds nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from machine import Machine, answer

from semantic_parrot.core.engine.capping import decoding
from semantic_parrot.core.engines.protocol import Keep

LONGEST = 100  # tokens, prompt and answer

keeps = st.lists(st.builds(Keep, st.floats(0.1, 1.0), st.one_of(st.none(), st.floats(900, 1200))), max_size=3).map(
    lambda found: tuple(sorted(found, key=lambda keep: keep.share))
)
prompts = st.builds(
    lambda stem, length, tail: ([stem] * length + tail)[:60],
    st.integers(0, 1),
    st.sampled_from([0, 5, 16, 33, 48]),
    st.lists(st.integers(0, 2), min_size=1, max_size=8),
)
submits = st.tuples(
    st.just("submit"),
    prompts,
    st.integers(1, 40),
    st.integers(0, 2),
    st.one_of(st.none(), st.integers(1, 3)),
    keeps,
    st.sampled_from([-1, 0, 0, 1]),
    st.sampled_from([-20.0, 0.0, 0.0, 5.0]),
    st.sampled_from([0, 0, 1, 30]),
)
events = st.one_of(
    submits,
    submits,
    st.tuples(st.just("step"), st.integers(1, 30)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("ahead"), prompts),
    st.tuples(st.just("forget")),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(events, min_size=1, max_size=30),
    st.integers(8, 24),
    st.integers(1, 5),
    st.sampled_from([7, 16, 40]),
    st.sampled_from([None, None, 30]),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 10.0]),
    st.sampled_from([0, 3, 40]),
    st.integers(1, 5),
    st.booleans(),
)
def test_right_tokens_and_books(asked, blocks, max_batch, chunk, long_after, cache, dt, slots, per_step, follow):
    m = Machine(
        blocks,
        max_batch=max_batch,
        chunk=chunk,
        long_after=long_after,
        cache=cache,
        dt=dt,
        slots=slots if cache else 0,
        per_step=per_step,
        follow=follow,
    )
    wanted = {}
    for event in asked:
        match event:
            case "submit", prompt, count, rank, cap, keep, priority, slack, room:
                s = m.submit(prompt, count, rank, room, cap=cap, keep=keep, priority=priority, slack=slack)
                wanted[s.id] = answer(prompt, count)
            case "step", times:
                m.step(times)
            case "cancel", pick if m.live:
                s = [*m.live.values()][pick % len(m.live)]
                m.cancel(s)
                wanted[s.id] = []
            case "ahead", prompt:
                m.ahead(1000 + len(prompt) % 3, prompt)
            case ("forget",):
                m.planner.forget_prefixes()
    m.drain(steps=200 + 60 * len(wanted) + 4 * LONGEST * len(wanted))
    assert m.ended == wanted
    assert not m.planner.running
    assert not m.planner.waiting
    m.planner.forget_prefixes()
    assert m.pool.free == m.pool.total


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(1, 4))), min_size=1, max_size=10))
def test_who_decodes_is_what_the_definition_says(asked):
    m = Machine(100, chunk=512, max_batch=10)
    for n, (rank, cap) in enumerate(asked):
        m.submit([n] * 9, 9, rank, cap=cap)
    m.step()
    ordered = sorted(m.planner.running, key=lambda s: s.rank)
    chosen = decoding(ordered, m.now)
    for place, s in enumerate(ordered):
        caps = [o.directions.cap for o in ordered if o.directions.cap is not None and o.rank < s.rank]
        assert (s in chosen) == (place < min(caps, default=99))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(2, 50), st.integers(1, 20)), min_size=2, max_size=12),
    st.integers(9, 16),
    st.sampled_from([0.0, -1000.0]),
)
def test_nobody_starves_behind_a_stream_of_latency_calls(slow, blocks, slack):
    """However long the stream, what it holds up goes on within the patience, one after the other at worst."""
    m = Machine(blocks, max_batch=2, dt=1.0)
    live = [m.submit([n + 3] * length, count, rank) for n, (rank, length, count) in enumerate(slow)]
    steps = 0
    while any(s.id in m.live for s in live):
        if sum(s.directions.cap is not None for s in m.live.values()) < 3:
            m.submit([steps % 3] * 10, 5, 0, cap=1, slack=slack)
        m.step()
        steps += 1
        assert steps <= 60 + 40 * len(live)
    for s in live:
        assert m.ended[s.id] == answer(s.tokens[: s.prompt], s.limit - s.prompt)
