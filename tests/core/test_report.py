"""What a run remembers, who shares a prefix, and which call waited for which."""

import asyncio
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedEngine

from semantic_parrot.core.dependencies import Dependencies
from semantic_parrot.core.engines.protocol import Placed, Usage
from semantic_parrot.core.errors import NotFound
from semantic_parrot.core.events import RunUsage, Timings
from semantic_parrot.core.history import History
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.report import report
from semantic_parrot.core.reported import call_report, phases
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.sharing import CALLS, RUNS, Sharing
from semantic_parrot.core.trace import CallTrace, Link, Trace
from semantic_parrot.core.wire import template


def call(name, *reads, ready=None, ended=None, **more):
    return CallTrace(f"call {name}", name, reads, None, "finished", ready=ready, ended=ended, **more)


def test_slack_and_path_go_through_links():
    calls = {
        "a": call("a", "in", ready=0.0, ended=3.0),
        "b": call("b", "in", ready=0.0, ended=1.0),
        "c": call("c", "joined", ready=3.0, ended=5.0),
        "d": call("d", "b", ready=1.0, ended=2.0),
    }
    links = {"joined": Link("transform", "t", ("a", "b"))}
    depends = Dependencies(calls, links, 5.5)
    assert depends.path() == ["a", "c"]
    assert depends.waited == {"c": "a", "d": "b"}
    assert list(depends.needs("c")) == ["a", "b"]
    assert depends.slack == {"c": 0.5, "a": 0.5, "b": 2.5, "d": 3.5}
    assert {name: depends.depth[name] for name in calls} == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_nothing_has_slack_before_the_run_has_ended():
    depends = Dependencies({"a": call("a", ready=0.0, ended=1.0), "b": call("b", "a", ready=1.0)}, {}, None)
    assert depends.slack == {}
    assert depends.path() == ["a"]
    assert depends.waited == {"b": "a"}


@given(st.data())
def test_slack_is_what_a_brute_force_search_finds(data):
    """Times are whole, each call starts when all it reads is there: a call that ends later by d pushes its readers."""
    count = data.draw(st.integers(1, 8))
    reads = [data.draw(st.sets(st.integers(0, i - 1))) if i else set() for i in range(count)]
    took = [data.draw(st.integers(1, 5)) for _ in range(count)]

    def run(late=None, by=0):
        ready, ended = [], []
        for i in range(count):
            ready.append(max((ended[j] for j in reads[i]), default=0))
            ended.append(ready[i] + took[i] + (by if i == late else 0))
        return ready, ended

    ready, ended = run()
    end = max(ended)
    calls = {str(i): call(str(i), *map(str, reads[i]), ready=ready[i], ended=ended[i]) for i in range(count)}
    depends = Dependencies(calls, {}, end)
    for i in range(count):
        slack = depends.slack[str(i)]
        assert max(run(i, slack)[1]) == end
        assert max(run(i, slack + 1)[1]) == end + 1
    path = [int(name) for name in depends.path()]
    assert sum(took[i] for i in path) == end
    assert all(a in reads[b] for a, b in pairwise(path))


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sets(st.integers(0, 4), min_size=1)), max_size=20), st.randoms())
def test_sharing_names_those_who_are_there(joins, random):
    sharing = Sharing()
    there = []
    for i, (run, names) in enumerate(joins):
        sharing.join(run, f"c{i}", sorted(names))
        there.append((run, f"c{i}", sorted(names)))
    by_name = defaultdict(list)
    for run, name, names in there:
        for prefix in names:
            by_name[prefix].append((run, name))
    assert len(sharing) == len(by_name)
    for run, _, names in there:
        found = {prefix: (readers, own) for prefix, readers, own in sharing.find(run, names)}
        assert set(found) == {prefix for prefix in names if len(by_name[prefix]) > 1}
        for prefix, (readers, own) in found.items():
            assert readers.count == readers.present == len(by_name[prefix])
            assert own.calls == [name for other, name in by_name[prefix] if other == run][: CALLS + 1]
            assert {other: own.count for other, own in readers.runs.items()} == {
                other: sum(who == other for who, _ in by_name[prefix]) for other, _ in by_name[prefix]
            }
    random.shuffle(there)
    for run, _, names in there:
        sharing.leave(run, names)
    assert len(sharing) == 0


def test_who_has_left_is_still_named_as_long_as_few_have():
    sharing = Sharing()
    sharing.join("stays", "s", [7])
    for i in range(100):
        sharing.join(f"run{i}", "c", [7, 7])
        sharing.leave(f"run{i}", [7, 7])
    ((_, readers, own),) = sharing.find("stays", [7])
    assert (readers.count, readers.present, own.calls) == (101, 1, ["s"])
    assert len(readers.runs) == RUNS


def test_a_shared_execution_counts_for_what_it_took_part_in():
    own = call("a", ready=2.0, ended=3.0, timings=Timings(queued=1.0, prefill=0.5, decode=0.75))
    assert phases(own) == (0.0, 0.25, 0.75)
    own.placed = Placed("e", "prefix-held", 10.0, 1.0, shared=True, prompt=20.0, output=5.0, room=2, engines=3)
    own.usage = Usage(21, 9, 4)
    found = call_report(own, 9.0)
    assert found["real"] == {"seconds": 1.25, "prompt_tokens": 21, "cached_tokens": 9, "output_tokens": 4}
    assert found["predicted"] == {
        "idle_seconds": None, "seconds": 1.0, "prompt_tokens": 20.0, "cached_tokens": 10.0, "output_tokens": 5.0
    }  # fmt: skip
    assert found["engine"]["single_flight"] is True
    for words in ("an equal call was under way", "hold a part of its prompt", "2 of 3 engines had room"):
        assert words in found["engine"]["explanation"]


def trace(name, calls):
    made = Trace(name)
    made.calls = {str(i): call(str(i), prefixes=(1 << 32,)) for i in range(calls)}
    made.ended("finished", RunUsage())
    return made


async def test_the_history_is_bounded_by_nodes_and_lets_go_of_prefixes():
    history = History(most=1000)
    for i in range(20):
        old = trace(f"run{i}", 249)
        for name in old.calls:
            history.sharing("").join(old.id, name, (1 << 32,))
        history.keep(old)
        await asyncio.sleep(0)  # the second batch of its calls
        assert len(history.sharing("")) == 0
    assert [history.find(f"run{i}") is not None for i in range(20)] == [False] * 16 + [True] * 4
    history.keep(trace("huge", 0))
    assert history.latest("") is history.find("huge")
    (shared,) = history.find("run19").calls["7"].shared
    assert shared[1].count == 249


async def test_a_report_outlives_its_run_and_says_the_same():
    runtime = Runtime([ScriptedEngine()], grace=0)
    await runtime.start()
    body = {"model": "default", "messages": [{"role": "user", "content": template("a shared beginning, " * 3, ("x",))}]}
    calls = [{"id": "a", "output": "y", "request": body}, {"id": "b", "output": "z", "request": body}]
    run = runtime.submit(parse_program({"calls": calls, "inputs": {"x": "1"}}))
    await run.wait()
    before = report(runtime.snapshot(run.id))
    gone = asyncio.Event()
    asyncio.get_running_loop().call_later(0, gone.set)  # after what the end of the run has put there
    await gone.wait()
    with pytest.raises(NotFound):
        runtime.run(run.id)
    assert report(runtime.snapshot(run.id)) == report(runtime.snapshot("latest")) == before
    assert before["calls"][0]["prefixes"][0]["calls"] == ["b"]
    assert len(runtime.history.sharing("")) == 0
    with pytest.raises(NotFound):
        runtime.snapshot("run_0")
    await runtime.close()


async def test_a_snapshot_stands_still_while_its_run_goes_on():
    gate = asyncio.Event()
    runtime = Runtime([engine := ScriptedEngine(gate=gate)])
    await runtime.start()
    body = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
    run = runtime.submit(parse_program({"calls": [{"id": "a", "output": "y", "request": body}]}))
    await engine.until(1)
    taken = runtime.snapshot(run.id)
    before = report(taken)
    gate.set()
    await run.wait()
    assert report(taken) == before
    assert [call["state"] for call in before["calls"]] != ["finished"]
    assert [call["state"] for call in report(runtime.snapshot(run.id))["calls"]] == ["finished"]
    await runtime.close()
