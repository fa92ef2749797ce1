"""The running graph: random DAGs settle whole, and bad ones leave it as it was."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.core.errors import (
    CyclicProgram,
    DanglingReference,
    DuplicateProducer,
    EngineFailed,
    InvalidRequest,
    NotFound,
)
from semantic_parrot.core.graph import Graph
from semantic_parrot.core.program import Call
from semantic_parrot.core.wire import template


def call(name, *reads):
    return Call(id=f"call_{name}", output=name, request={"prompt": template("p", *((r,) for r in reads))})


@st.composite
def dags(draw):
    """Lists of calls; call i reads some of the calls before it and the input, and the list is shuffled."""
    n = draw(st.integers(1, 12))
    reads = [draw(st.sets(st.sampled_from(["in", *(f"v{j}" for j in range(i))]))) for i in range(n)]
    return draw(st.permutations([call(f"v{i}", *sorted(r)) for i, r in enumerate(reads)]))


@given(dags())
def test_every_call_becomes_ready_once_and_after_its_inputs(calls):
    graph = Graph()
    joined = graph.join(calls, {"in": "text"}, "run")
    todo, seen = list(joined.ready), []
    while todo:
        node = todo.pop()
        assert all(graph.variables[name].value is not None for name in node.reads)
        seen.append(node.id)
        todo += graph.resolve(node.output, "value").ready
    assert sorted(seen) == sorted(c.id for c in calls)


@given(dags(), st.data())
def test_a_failure_takes_exactly_what_is_downstream(calls, data):
    graph = Graph()
    todo = list(graph.join(calls, {"in": "text"}, "run").ready)
    victim = data.draw(st.sampled_from(sorted(c.output for c in calls)))
    aborted = []
    while todo:
        node = todo.pop()
        if node.output == victim:
            aborted = graph.fail(victim, EngineFailed("gone")).aborted
        else:
            todo += graph.resolve(node.output, "value").ready
    downstream = {victim}
    for _ in calls:
        downstream |= {c.output for c in calls if downstream & set(c.inputs())}
    assert sorted(a.node.output for a in aborted) == sorted(downstream - {victim})
    for name, variable in graph.variables.items():
        assert (variable.error is not None) == (name in downstream)
        assert variable.settled


def test_a_cycle_is_named():
    with pytest.raises(CyclicProgram, match=r"'call_[abc]'") as caught:
        Graph().join([call("a", "c"), call("b", "a"), call("c", "b"), call("d", "c")], {}, "run")
    path = caught.value.message.split(": ")[1].split(" (")[0].split(" -> ")
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    assert [("a", "b"), ("b", "c"), ("c", "a")].count((path[0], path[1])) == 1


def test_a_call_that_reads_itself_is_a_cycle():
    with pytest.raises(CyclicProgram, match="a -> a"):
        Graph().join([call("a", "a")], {}, "run")


@pytest.mark.parametrize(
    ("calls", "inputs", "error", "words"),
    [
        ([call("a", "b")], {}, DanglingReference, "'call_a' reads the unknown variable 'b'"),
        ([call("a"), Call(id="twin", output="a", request={})], {}, DuplicateProducer, "'call_a' and 'twin'"),
        ([call("a")], {"a": "text"}, DuplicateProducer, "'a'"),
        ([call("old")], {}, DuplicateProducer, "'old'"),
        ([call("a")], {"old": "text"}, DuplicateProducer, "'old'"),
    ],
)
def test_a_bad_program_leaves_the_graph_as_it_was(calls, inputs, error, words):
    graph = Graph()
    graph.join([call("old", "in")], {"in": None}, "run")
    before = copy.deepcopy(sorted(graph.variables))
    consumers = len(graph.variables["in"].consumers)
    with pytest.raises(error, match=words):
        graph.join(calls, inputs, "run")
    assert sorted(graph.variables) == before
    assert len(graph.variables["in"].consumers) == consumers


def test_a_later_program_reads_what_was_there_before():
    graph = Graph()
    (first,) = graph.join([call("a")], {}, 1).ready
    assert graph.join([call("b", "a")], {}, 2).ready == []
    (ready,) = graph.resolve("a", "text").ready
    assert (ready.output, ready.owner, first.owner) == ("b", 2, 1)
    assert [n.output for n in graph.join([call("c", "a")], {}, 3).ready] == ["c"]


def test_a_later_program_that_reads_a_failure_is_aborted_as_it_joins():
    graph = Graph()
    graph.join([call("a")], {}, 1)
    graph.fail("a", EngineFailed("gone"))
    joined = graph.join([call("b", "a"), call("c", "b")], {}, 2)
    assert joined.ready == []
    assert [a.node.output for a in joined.aborted] == ["b", "c"]
    assert "gone" in joined.aborted[0].error.message


def test_single_assignment():
    graph = Graph()
    graph.join([call("a")], {"in": None}, "run")
    graph.settable("in")
    graph.resolve("in", "")
    for name, error in (("in", InvalidRequest), ("a", InvalidRequest), ("nobody", NotFound)):
        with pytest.raises(error):
            graph.settable(name)
    with pytest.raises(InvalidRequest):
        graph.resolve("in", "again")


def test_a_long_chain_fails_without_recursion():
    graph = Graph()
    calls = [call(f"v{i}", f"v{i - 1}" if i else "in") for i in range(5000)]
    graph.join(calls, {"in": None}, "run")
    gone = graph.fail("in", EngineFailed("gone")).aborted
    assert len(gone) == 5000
    assert len(gone[-1].error.message) < 100
