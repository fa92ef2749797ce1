"""The simulator: the same seed gives the same report, all calls end, nothing beats its bound, and the model adds up."""

import json

import pytest

from semantic_parrot.core.simulator import Costs, Simulation, simulate
from semantic_parrot.core.simulator.engine import Cache
from semantic_parrot.core.simulator.report import as_text, jain
from semantic_parrot.core.simulator.workloads import WORKLOADS, SimCall, SimProgram, Var, load, text


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_every_call_ends_and_none_before_its_bound(workload):
    found = simulate(workload, engines=3, seed=4, calls=150)
    assert found["calls"] >= 150
    assert found == simulate(workload, engines=3, seed=4, calls=150)
    assert found != simulate(workload, engines=3, seed=5, calls=150)
    assert sum(app["programs"] for app in found["apps"].values()) == found["programs"]
    assert sum(engine["calls"] for engine in found["engines"]) == found["calls"]
    for app in found["apps"].values():
        assert app["over_bound"]["mean"] >= 0.99
    assert 0 < found["jain"] <= 1
    assert json.loads(as_text(found, machine=True)) == found
    assert "critical-path bound" in as_text(found, machine=False)


def run(programs, engines=1, **policy):
    costs = Costs(base=0.01, each=0.001, token=0.0, prefill=0.0001, chunk=500)
    simulation = Simulation(iter(programs), engines, 10_000, costs, **policy)
    simulation.run()
    return simulation


def test_one_call_takes_what_the_model_says():
    (outcome,) = run([SimProgram(1.0, "app", (SimCall("a", (text("a", 1000),), 101),))]).outcomes
    # Two chunks of prefill, each in a step, then 100 more tokens.
    assert outcome.took == pytest.approx(2 * (0.01 + 0.05) + 100 * 0.011, rel=1e-3)


def test_a_chain_is_as_long_as_its_links_and_a_pause_counts():
    one = SimCall("a", (text("a", 500),), 11)
    two = SimCall("b", (text("b", 489), Var("a")), 11, after=2.0)
    (outcome,) = run([SimProgram(0.0, "app", (one, two))]).outcomes
    assert outcome.took == pytest.approx(2 * (0.06 + 0.11) + 2.0, rel=1e-2)
    assert outcome.bound <= outcome.took


def test_a_batch_shares_its_steps():
    programs = [SimProgram(0.0, "app", (SimCall(f"v{i}", (text(f"v{i}", 8),), 1001),)) for i in range(10)]
    for outcome in run(programs).outcomes:
        assert outcome.took == pytest.approx(1000 * (0.01 + 10 * 0.001), rel=0.05)


def test_the_cache_counts_a_prefix_once_and_evicts_the_oldest():
    cache = Cache(100)
    assert cache.touch((1, 2), (40.0, 60.0)) == 0
    assert cache.touch((1, 3), (40.0, 70.0)) == 40
    assert cache.touch((1, 2), (40.0, 60.0)) == 60
    assert cache.touch((9,), (90.0,)) == 0  # fills nearly all
    assert cache.touch((1, 3), (40.0, 70.0)) == 0


def test_sharing_is_worth_something_and_can_be_turned_off():
    busy = {"engines": 3, "seed": 1, "calls": 400}
    on, off = simulate("W4", **busy), simulate("W4", **busy, disable=frozenset({"prefix-placement"}))
    assert on["prompt_tokens_reused"] >= off["prompt_tokens_reused"]


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
