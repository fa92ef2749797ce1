"""Which engine is chosen among many, and which prefixes they are taken to hold."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import PrefixChange
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.scheduling import Decider, Policy, Task, residency
from semantic_parrot.core.scheduling.board import Board
from semantic_parrot.core.scheduling.residency import Residency

NAMES = tuple(length << 32 | name for length, name in ((200, 1), (400, 2), (400, 3), (4000, 4), (8000, 5)))


def task_of(objective, group, prefixes, prompt, output):
    names = tuple(sorted(prefixes))
    held = tuple((name >> 32) / 4 for name in names)
    return Task(objective=objective, group=group, prefixes=names, held=held, prompt=prompt, output=output)


TASKS = st.builds(
    task_of,
    st.sampled_from(["latency", "throughput", "deadline"]),
    st.sampled_from([None, "g"]),
    st.sets(st.sampled_from(NAMES), max_size=4),
    st.integers(1, 2000) | st.floats(1, 2000),
    st.integers(1, 50) | st.floats(1, 500),
)


def submit(decider, tasks, now=0.0):
    for task in tasks:
        decider.submit(task, now)
    return decider.dispatch(now)


def finish(decider, placement, now):
    decider.filled(placement, now)
    decider.release(placement, now)


@st.composite
def fleets(draw):
    """A fleet of up to 24 engines that has seen some work: different costs, loads, caps and prefixes; and tasks."""
    n = draw(st.integers(1, 24))
    windows = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    disabled = draw(st.sampled_from([frozenset(), frozenset({"batch-cap"}), frozenset({"prefix-placement"})]))
    decider = Decider(windows, Policy(disabled=disabled), draw(st.sets(st.integers(0, n - 1))))
    running, now = [], 0.0
    for task, ends, cached, speed in draw(
        st.lists(st.tuples(TASKS, st.integers(0, 3), st.integers(0, 1000), st.integers(1, 9)), max_size=60)
    ):
        now += 0.1
        running += submit(decider, [task], now)
        for placement in [running.pop(0) for _ in range(min(ends, len(running)))]:
            finish(decider, placement, now)
            decider.measured(placement, (1000, cached, 20), 0.03 * speed, 0.02 * speed)
    for index in draw(st.sets(st.integers(0, n - 1), max_size=3)):
        decider.fleet.set_up(index, False)
    return decider.fleet


@settings(max_examples=150)
@given(
    fleets(),
    st.lists(TASKS, min_size=1, max_size=5),
    st.sets(st.integers(0, 23), max_size=4),
    st.none() | st.tuples(st.integers(0, 0), st.floats(0, 3000)),
    st.floats(0, 50),
    st.integers(-1, 30),
)
def test_the_board_finds_the_engine_that_the_definition_does(fleet, tasks, lost, filled, queued, near):
    """Over all engines one by one, in plain arithmetic: the same to the last bit, ties included."""

    def held(task, index):
        names = [t for p, t in zip(task.prefixes, task.held, strict=True) if p in fleet.residency.names(index)]
        most = names[-1] if names and fleet.policy.on("prefix-placement") else 0.0
        return min(max(most, task.filled[1] if task.filled and task.filled[0] == index else 0.0), task.prompt)

    lost, banned = (set(range(len(fleet.engines))) & some for some in (lost, {0, 5}))
    board = Board(len(fleet.engines))
    for engine in fleet.engines:
        board.put(engine, first=engine.up and engine.takes(0), roomy=engine.up and engine.takes(1))
    for task in tasks:
        task.lost, task.filled = tuple(lost), filled
        for rank, full, without in itertools.product((0, 2), (False, True), (set(), banned)):
            room = {e.index for e in fleet.engines if e.up and (full or e.takes(rank))} - without
            room = room - lost or room
            spares = queued if fleet._capped else None
            costs = {
                i: fleet.engines[i].cost(task.prompt, held(task, i), task.output, rank, task.solo, spares) for i in room
            }
            least = min(costs.values(), default=None)
            equal = [i for i in sorted(room) if costs[i] == least]
            wanted = None if least is None else near if near in equal else equal[0]
            for fleet._board, fleet._few in ((None, 0), (board, 0)):
                found = fleet.best(task, rank, queued, without=without, near=near, full=full)
                assert (found and found[0].index) == wanted
                if found is not None:
                    assert found[1] == held(task, wanted) * found[0].trust


class Believed:
    """What a residency is: pairs of engine and name in the order of their last use, no more than `each` an engine."""

    def __init__(self, each):
        self.each, self.pairs = each, {}

    def hold(self, index, names, now):
        for name in names:
            self.pairs.pop((index, name), None)
            self.pairs[index, name] = now
        own = [pair for pair in self.pairs if pair[0] == index]
        self.lose(index, [name for _, name in own[: max(0, len(own) - self.each)]])

    def lose(self, index, names):
        for name in names:
            self.pairs.pop((index, name), None)

    def lose_before(self, index, when):
        self.lose(index, [name for (i, name), last in self.pairs.items() if i == index and last < when])

    def forget(self, index):
        self.lose(index, [name for i, name in self.pairs if i == index])


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["hold", "hold", "hold", "lose", "lose_before", "forget"]),
        st.integers(0, 3),
        st.lists(st.sampled_from(NAMES), max_size=5),
        st.integers(0, 60),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(CHANGES, st.integers(1, 6), st.sets(st.sampled_from(NAMES), max_size=5), st.floats(1, 3000))
def test_the_index_is_what_it_is_defined_to_be(changes, each, asked, most):
    found, wanted = Residency(4), Believed(each)
    found.each = each
    for now, (what, index, names, when) in enumerate(changes):
        more = {"hold": (names, float(now)), "lose": (names,), "lose_before": (float(when),), "forget": ()}[what]
        getattr(found, what)(index, *more)
        getattr(wanted, what)(index, *more)
    board, names = Board(4), tuple(sorted(asked))
    tokens = tuple((name >> 32) / 4 for name in names)
    board.credit(Task(prefixes=names, held=tokens, prompt=most), found)
    for index in range(4):
        own = [name for i, name in wanted.pairs if i == index]
        assert list(found.names(index)) == own
        longest = next((t for name, t in zip(names[::-1], tokens[::-1], strict=True) if name in own), 0.0)
        assert found.longest(index, names, tokens) == longest
        assert board._held[index] == min(longest, most)
        assert found.last_used(index, names) == max((wanted.pairs.get((index, n), 0.0) for n in names), default=0.0)
    holders = {name: sorted(i for i, other in wanted.pairs if other == name) for _, name in wanted.pairs}
    assert {name: list(found._holders[name]) for name in found._holders} == holders


def test_all_engines_together_hold_no_more_than_the_limit(monkeypatch):
    monkeypatch.setattr(residency, "ALL", 4000)
    index = Residency(100)
    for i in range(20_000):
        index.hold(i % 100, (1000 << 32 | i,), float(i))
    assert sum(len(index.names(i)) for i in range(100)) == 4000
    assert set(index.names(7)) == {1000 << 32 | i for i in range(20_000) if i % 100 == 7 and i >= 16_000}
    assert len(index._holders) == 4000


def test_an_engine_without_costs_of_its_own_gets_those_of_the_others_soon_in_a_large_fleet():
    decider = Decider([64] * 100)
    (placement,) = submit(decider, [Task(prompt=100, output=20)])
    for _ in range(40):
        decider.fleet.learn(placement, (100, 0, 20), 0.001, 19 * 0.001)
    costs = decider.fleet.costs
    fills = [engine.fill for engine in decider.fleet.engines[1:]]
    assert max(fills) < 2 * 1.05 * costs.prefill
    assert max(fills) < 0.0001


class Telling(ScriptedEngine):
    """Tells what it holds when the test says so."""

    def watch_prefixes(self, told):
        self.told = told


async def test_calls_go_where_an_engine_tells_that_their_prefix_is():
    engines = [Telling(name=f"e{i}") for i in range(3)]
    runtime = Runtime(engines)
    await runtime.start()
    prompt = "What the app says to everybody, which is long enough to matter. " * 40

    async def engine_of(text):
        body = {
            "model": "default",
            "messages": [{"role": "user", "content": [{"type": "text", "text": t} for t in text]}],
        }
        run = runtime.submit(parse_program({"calls": [{"id": "a", "output": "a", "request": body}]}))
        await run.wait()
        return run.result()["calls"]["a"]["schedule"]["engine"]

    assert await engine_of([prompt, "One"]) == "e0"
    marks = engines[0].directed[-1].marks
    assert [mark.share for mark in marks] == [pytest.approx(1 - 3 / len("\0user\0" + prompt + "One")), 1.0]
    named = marks[0].name
    assert await engine_of([prompt, "Two"]) == "e0"  # it is believed to be there
    engines[0].told(PrefixChange((), (named,)))
    engines[2].told(PrefixChange((named,), ()))
    assert await engine_of([prompt, "Three"]) == "e2"
    assert engines[2].directed[-1].marks[0].name == named
    engines[2].healthy = False
    assert await engine_of([prompt, "Four"]) == "e0"
    await runtime.close()
