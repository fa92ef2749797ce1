"""Bounds of simulated programs: no schedule beats them, and where all calls are alike they are what it takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic_parrot.core.scheduling import OPTIMISATIONS
from semantic_parrot.core.simulator import Costs, Simulation
from semantic_parrot.core.simulator.bounds import Cost, program_bound
from semantic_parrot.core.simulator.paths import Path, Tokens, cover, together
from semantic_parrot.core.simulator.report import floor, over_bound
from semantic_parrot.core.simulator.workloads import SimCall, SimProgram, Var, text


@st.composite
def programs(draw):
    n = draw(st.integers(1, 14))
    calls = []
    for i in range(n):
        reads = draw(st.sets(st.integers(max(0, i - 5), i - 1), max_size=3)) if i else set()
        size, tokens = draw(st.sampled_from([1, 40, 900])), draw(st.sampled_from([1, 2, 30, 200]))
        pieces = (text("shared", 300), *(Var(f"v{r}") for r in sorted(reads)), text(draw(st.sampled_from("ab")), size))
        calls.append(SimCall(f"v{i}", pieces, tokens, draw(st.sampled_from([0.0, 0.0, 1.5])) if reads else 0.0))
    return calls


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 4.0]), programs()), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from(["cheap", "dear", "long"]),
    st.sampled_from([frozenset(), OPTIMISATIONS]),
)
def test_nothing_ends_before_its_bound(asked, engines, kind, disabled):
    costs = {
        "cheap": Costs(base=0.01, each=0.0001, token=0.0, prefill=0.00002),
        "dear": Costs(base=0.005, each=0.01, token=0.0, prefill=0.001, chunk=64),
        "long": Costs(base=0.01, each=0.001, token=1e-5, prefill=0.0001, chunk=128, window=3),
    }[kind]
    at, listed = 0.0, []
    for i, (gap, calls) in enumerate(asked):
        at += gap
        listed.append(SimProgram(at, f"app{i}", tuple(calls), stated={calls[-1].output: "throughput"} if i % 2 else {}))
    simulation = Simulation(iter(listed), engines, 1 << 20, costs, disabled=disabled)
    simulation.run()
    for app in simulation.measures.apps.values():
        assert app.took[0] >= app.bound[0] * (1 - 1e-3)
        assert app.bound[0] >= app.path[0]
    assert over_bound(simulation.measures) >= floor(simulation) * (1 - 1e-3)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0.1, 9), st.sets(st.integers(0, 11), max_size=3)), min_size=1, max_size=12))
def test_paths_go_through_every_call_and_are_the_longest_there(asked):
    took = [seconds for seconds, _ in asked]
    producers = [sorted(p for p in reads if p < i) for i, (_, reads) in enumerate(asked)]

    def whole(done):  # every path that ends with these calls
        return [path for p in producers[done[0]] for path in whole([p, *done])] or [done]

    read = {p for own in producers for p in own}
    every = [path for i in range(len(took)) if i not in read for path in whole([i])]
    longest = [max(sum(took[c] for c in path) for path in every if i in path) for i in range(len(took))]
    heads, tails = [0.0] * len(took), [0.0] * len(took)
    for i in range(len(took)):
        heads[i] = max((heads[p] + took[p] for p in producers[i]), default=0.0)
    for i in reversed(range(len(took))):
        for p in producers[i]:
            tails[p] = max(tails[p], took[i] + tails[i])
    paths = cover(took, [0.0] * len(took), heads, tails, producers)
    assert sorted(paths, key=lambda path: -path.seconds) == paths
    for path in paths:
        assert sorted(path.calls) in every
        assert sum(took[c] for c in path.calls) == pytest.approx(path.seconds)
    for i, most in enumerate(longest):
        assert max(path.seconds for path in paths if i in path.calls) == pytest.approx(most)


def test_of_files_alike_the_bound_is_what_an_even_batch_takes():
    """Twelve chains of three calls on four engines: three share each step, all the time."""
    costs = Costs(base=0.01, each=0.002, token=0.0, prefill=0.0)
    calls = []
    for _ in range(12):
        for link in range(3):
            own = Cost(0.0, 100 * costs.each, 100, Tokens.of(100, costs.each, 0.0))
            calls.append((own, [len(calls) - 1] if link else []))
    found = program_bound(calls, 4, costs)
    assert found.path == pytest.approx(300 * 0.012)
    assert found.bound == pytest.approx(300 * (0.01 + 3 * 0.002), rel=1e-3)


def test_tokens_that_cost_more_and_more_have_at_most_that_root():
    tokens = Tokens.of(50, 0.01, 0.0004)
    each = [0.01 + 0.0004 * (i + 0.5) for i in range(50)]
    assert tokens.marginal == pytest.approx(sum(each))
    assert 0.95 * sum(c**0.5 for c in each) < tokens.root <= sum(c**0.5 for c in each)


def test_one_path_alone_waits_for_nobody():
    paths = [Path(2.0, [0])]
    assert together(paths, {0: Tokens.of(100, 0.001, 0.0)}, lambda _: 100.0, 1.0) == pytest.approx(2.0)


def test_chains_side_by_side_share_steps_and_not_their_work():
    call = Cost(0.0, 0.3, 20, Tokens())
    chains = [(call, []), (call, []), (call, [0]), (call, [1])]
    costs = Costs(base=0.01)
    assert program_bound(chains, 1, costs).bound == pytest.approx(4 * 0.3 + 0.01 * 2 * 20)
    assert program_bound(chains, 2, costs).bound == pytest.approx(2 * (0.3 + 0.01 * 20))
