"""The simulator: the same seed gives the same report, all calls end, nothing beats its bound, and the model adds up."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic_parrot.core.simulator import Costs, Simulation, simulate
from semantic_parrot.core.simulator.bounds import parallel, shortest_first
from semantic_parrot.core.simulator.cache import Cache
from semantic_parrot.core.simulator.costs import costs as costs_of
from semantic_parrot.core.simulator.engine import BOUND, Sequence, SimEngine
from semantic_parrot.core.simulator.load import load
from semantic_parrot.core.simulator.report import as_text, jain
from semantic_parrot.core.simulator.workloads import WORKLOADS, SimCall, SimProgram, Var, text


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_every_call_ends_and_none_before_its_bound(workload):
    found = simulate(workload, engines=3, seed=4, calls=150)
    assert found["calls"] >= 150
    assert found == simulate(workload, engines=3, seed=4, calls=150)
    assert found != simulate(workload, engines=3, seed=5, calls=150)
    assert sum(app["programs"] for app in found["apps"].values()) == found["programs"]
    assert sum(engine["calls"] for engine in found["engines"]) == found["calls"]
    for app in found["apps"].values():
        assert app["over_bound"]["p50"] >= 0.99
        assert app["over_path"]["mean"] >= app["over_bound"]["mean"] - 1e-9
    assert found["mean_over_bound"] >= found["floor"] - 0.01 >= 0.99
    assert 0 < found["jain_speed"] <= 1
    assert json.loads(as_text(found, machine=True)) == found
    assert "times the critical path" in as_text(found, machine=False)


COSTS = Costs(base=0.01, each=0.001, token=0.0, prefill=0.0001, chunk=500)


def run(programs, engines=1, costs=COSTS, **policy):
    simulation = Simulation(iter(programs), engines, 10_000, costs, **policy)
    simulation.run()
    return simulation.measures.apps


def call(name, prompt, output, **more):
    return SimProgram(0.0, "app", (SimCall(name, (text(name, prompt),), output),), **more)


def test_one_call_takes_what_the_model_says():
    app = run([call("a", 1000, 101)])["app"]
    # Two chunks of prefill, each in a step, then 100 more tokens.
    assert app.took[0] == pytest.approx(2 * (0.01 + 0.05) + 100 * 0.011, rel=1e-3)
    assert app.took[0] == pytest.approx(app.path[0], rel=1e-3)


def sharing(name):
    return SimProgram(0.0, "app", (SimCall(name, (text("all", 900), text(name, 100)), 101),))


def test_who_does_not_fit_into_memory_waits_and_what_is_shared_is_held_once():
    bounded = replace(COSTS, kv=2000)
    apart = run([call("a", 1000, 101), call("b", 1000, 101)], costs=bounded)["app"]
    assert list(apart.took) == pytest.approx([1.22, 2.44], rel=1e-3)
    assert max(run([sharing("a"), sharing("b")], costs=bounded)["app"].took) < 1.6
    alone = run([call("a", 3000, 101)], costs=bounded)["app"]
    assert len(alone.took) == 1  # it is tried all the same


@pytest.mark.parametrize(("tree", "step"), [(0, 0.031), (1, 0.022)])
def test_tree_attention_reads_what_is_shared_once(tree, step):
    costs = Costs(base=0.01, each=0.0, token=1e-5, prefill=0.0, chunk=500, tree=tree)
    app = run([sharing("a"), sharing("b")], costs=costs)["app"]
    assert max(app.took) == pytest.approx(100 * step, rel=0.03)


def test_a_context_makes_steps_longer_as_it_grows():
    costs = Costs(base=0.01, each=0.0, token=1e-5, prefill=0.0, chunk=500)
    app = run([call("a", 500, 101)], costs=costs)["app"]
    assert app.took[0] == pytest.approx(0.01 + sum(0.01 + 1e-5 * (500 + i) for i in range(100)), rel=1e-3)


def test_a_chain_is_as_long_as_its_links_and_a_pause_counts():
    one = SimCall("a", (text("a", 500),), 11)
    two = SimCall("b", (text("b", 489), Var("a")), 11, after=2.0)
    app = run([SimProgram(0.0, "app", (one, two))])["app"]
    assert app.took[0] == pytest.approx(2 * (0.06 + 0.11) + 2.0, rel=1e-2)
    assert app.took[0] == pytest.approx(app.bound[0], rel=1e-2)


def test_a_batch_shares_its_steps():
    for took in run([call(f"v{i}", 8, 1001) for i in range(10)])["app"].took:
        assert took == pytest.approx(1000 * (0.01 + 10 * 0.001), rel=0.05)


def engine(**costs):
    return SimEngine(Costs(base=0.01, each=0.001, token=0.0, prefill=0.0001, chunk=500, **costs), Cache(1e6))


def events(engine, sequences):
    """(when, what, id) of all that happens; `sequences` come at their `admitted`."""
    log, coming = [], sorted(sequences, key=lambda s: s.admitted)
    while True:
        when = engine.next()
        if coming and coming[0].admitted <= when:
            engine.admit(coming[0], coming.pop(0).admitted)
            continue
        if when == float("inf"):
            return log
        engine.advance(when)
        for what, s in zip(("filled", "ended"), engine.due(), strict=True):
            if s is not None:
                log.append((when, what, s.id))


def ends(log):
    return {id: when for when, what, id in log if what == "ended"}


def test_a_capping_call_keeps_its_step_and_the_paused_resume():
    batch = [Sequence(i, 10, 1001, 0.0, rank=2) for i in range(8)]
    chat = Sequence(9, 10, 101, 5.0, rank=0, cap=3)
    log = events(engine(), [*batch, chat])
    filled = next(when for when, what, id in log if (what, id) == ("filled", 9))
    assert ends(log)[9] - filled == pytest.approx(100 * (0.01 + 3 * 0.001), rel=0.01)
    assert len(ends(log)) == 9
    tokens, alone = 8 * 1000, ends(events(engine(), [Sequence(i, 10, 1001, 0.0, rank=2) for i in range(8)]))
    assert max(ends(log).values()) > max(alone.values())
    assert tokens == sum(s.output - 1 for s in batch)
    uncapped = events(engine(), [*(Sequence(i, 10, 1001, 0.0, rank=2) for i in range(8)), Sequence(9, 10, 101, 5.0)])
    assert ends(log)[9] < ends(uncapped)[9]


def test_prefill_that_gives_way_is_slow_beside_a_capping_call():
    def step(cap):
        log = events(engine(), [Sequence(1, 10, 1001, 0.0, cap=cap), Sequence(2, 5000, 2, 1.0, rank=2)])
        return next(when for when, what, id in log if (what, id) == ("filled", 2)) - 1.0

    assert step(None) == pytest.approx(5000 / 500 * (0.011 + 0.05), rel=0.01)
    assert step(8) == pytest.approx(5000 / 56 * (0.011 + 0.0056), rel=0.01)  # 8 rows for each of 7 free places


def test_a_lower_rank_goes_first_and_preempts_where_the_batch_is_full():
    full = [Sequence(i, 10, 1001, 0.0, rank=2) for i in range(4)]
    late = [Sequence(5, 10, 11, 1.0, rank=2), Sequence(6, 10, 11, 1.0, rank=0)]
    log = events(engine(window=4), [*full, *late])
    assert ends(log)[6] == pytest.approx(1.0 + 11 * 0.014, abs=0.03)
    assert ends(log)[5] > 5.0


def test_of_one_rank_the_least_order_is_filled_first_but_what_is_passed_over_waits_no_longer_than_patience():
    full = [Sequence(i, 500, 2, 0.0, order=(0, float(-i))) for i in range(4)]
    log = events(engine(), full)
    assert [id for _, what, id in log if what == "filled"] == [3, 2, 1, 0]
    stream = [Sequence(i, 2000, 2, 0.1 * i, order=(0, float(-i))) for i in range(1, 400)]  # more than it can fill
    slow = Sequence(0, 500, 2, 0.05, order=(0, 1.0))
    filled = {id: when for when, what, id in events(engine(), [*stream, slow]) if what == "filled"}
    assert BOUND < filled[0] < BOUND + 1.5


def test_cold_siblings_fill_their_prefix_once():
    shared = [Sequence(i, 1000, 2, 0.0, names=(1, 10 + i), ends=(900.0, 1000.0)) for i in range(8)]
    events(engine(), shared)
    assert [s.cached for s in shared] == [0] + [900] * 7


def test_the_cache_counts_a_prefix_once_and_evicts_the_oldest():
    cache = Cache(100)

    def touch(names, ends):
        found = cache.hit(names, ends)
        cache.put(names, ends)
        return found

    assert touch((1, 2), (40.0, 60.0)) == 0
    assert touch((1, 3), (40.0, 70.0)) == 40
    assert touch((1, 2), (40.0, 60.0)) == 60
    assert touch((9,), (90.0,)) == 0  # fills nearly all
    assert touch((1, 3), (40.0, 70.0)) == 0


def test_what_is_needed_again_is_evicted_last_and_what_is_done_first():
    cache = Cache(100)

    def ran(name, next_use):
        cache.put((name,), (30.0,), owner=name)
        cache.keep(name, next_use)

    def there():
        return {name for name in range(9) if cache.hit((name,), (30.0,))}

    ran(1, 50.0)
    ran(2, 10.0)
    ran(3, None)
    cache.put((4,), (30.0,), owner=4)
    assert there() == {1, 2, 4}  # 3 was done
    ran(5, 20.0)
    assert there() == {2, 4, 5}  # 4 runs, and of the others 1 has the farthest next use
    cache.release((4,))
    ran(6, 90.0)
    assert there() == {2, 5, 6}


def brute(calls, engines, base):
    """The best assignment of (steps, work): an engine takes base seconds a step of its longest, and its work."""
    best = float("inf")
    for places in itertools.product(range(engines), repeat=len(calls)):
        took = 0.0
        for e in range(engines):
            mine = [call for call, place in zip(calls, places, strict=True) if place == e]
            took = max(took, base * max((s for s, _ in mine), default=0) + sum(w for _, w in mine))
        best = min(best, took)
    return best


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(0.01, 2)), min_size=1, max_size=6),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.01, 0.1]),
)
def test_no_assignment_beats_the_bound_of_parallel_calls(calls, engines, base):
    assert parallel(calls, engines, base) <= brute(calls, engines, base) * (1 + 1e-6)


def test_the_bound_of_equal_calls_is_what_an_even_batch_takes():
    assert parallel([(100.0, 0.5)] * 8, 4, 0.01) == pytest.approx(1.0 + 2 * 0.5, rel=1e-3)


def test_shortest_remaining_first():
    assert shortest_first([(0.0, 4.0), (1.0, 1.0)]) == pytest.approx((5.0 + 1.0) / 2)
    assert shortest_first([(0.0, 1.0), (5.0, 1.0)]) == pytest.approx(1.0)
    assert shortest_first([]) == 0.0


def test_placement_by_prefix_is_worth_something_where_the_cache_is_small():
    few = {"engines": 4, "seed": 1, "calls": 400, "at_load": 0.5, "cache": 9000}
    on, off = simulate("W4", **few), simulate("W4", **few, disable=frozenset({"prefix-placement"}))
    assert on["prompt_tokens_reused"] > off["prompt_tokens_reused"] + 0.1
    assert on["mean_over_bound"] < off["mean_over_bound"]


def test_costs_by_name_and_file(tmp_path):
    file = tmp_path / "costs.json"
    file.write_text(json.dumps({"base": 0.5, "window": 3}))
    assert (costs_of(str(file)).base, costs_of(str(file)).window, costs_of("gpu").window) == (0.5, 3, 256)
    for body in ('{"bass": 1}', '{"base": -1}', '{"base": "fast"}', "[1]", "{", '{"window": 0}'):
        file.write_text(body)
        with pytest.raises(ValueError, match="no costs"):
            costs_of(str(file))
    with pytest.raises(ValueError, match="no costs 'fast'"):
        costs_of("fast")


def test_a_load_is_of_what_the_engines_can_do():
    half, over = (simulate("W2", engines=4, calls=600, at_load=load) for load in (0.5, 2.0))
    assert half["load"] == pytest.approx(0.5)
    assert half["rate"] == pytest.approx(over["rate"] / 4)
    assert max(engine["busy"] for engine in half["engines"]) < 0.9
    # Nobody does more than can be done: at twice the load it takes twice the time of the arrivals.
    assert over["simulated"] > 0.9 * half["simulated"] / 2


def test_a_file_of_programs(tmp_path):
    line = {
        "at": 0.5, "stated": {"b": "latency"}, "deadline_ms": 500,
        "calls": [{"output": "a", "parts": ["Say ", {"text": 100, "of": "doc"}], "tokens": 5},
                  {"output": "b", "parts": ["Again ", {"var": "a"}], "tokens": 7}],
    }  # fmt: skip
    file = tmp_path / "programs.jsonl"
    file.write_text(json.dumps(line) + "\n")
    (program,) = load(str(file), 0)
    assert (program.at, program.deadline, len(program.calls[0].pieces[1])) == (0.5, 0.5, 100)
    assert simulate(str(file))["calls"] == 2
    file.write_text('{"at": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        simulate(str(file))
    with pytest.raises(ValueError, match="no workload"):
        simulate("W99")


def test_jain():
    assert jain([1, 1, 1]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
