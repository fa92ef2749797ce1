"""Models of two servers in one chain: each server's part is a program of its own, and the answers are eager's."""

from __future__ import annotations

import pytest
from langchain_core.output_parsers import CommaSeparatedListOutputParser
from langchain_core.runnables import RunnablePassthrough
from lc_recorder import WAYS, Recorder, run
from lc_shapes import P, formatted_answer, step
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.adapters.langchain import ChatParrot, disabled, explain
from semantic_parrot.core.runtime import Runtime


@pytest.fixture(scope="module")
def other():
    with LocalServer(Runtime([ScriptedEngine(answers=formatted_answer)], disable={"single-flight"})) as running:
        yield running


def one_after_the_other(here, there):
    return step("A {x}", here) | step("B {y}", here) | step("C {y}", there) | step("D {y}", there)


def side_by_side(here, there):
    arms = {"a": step("A {x}", here) | step("A2 {y}", here), "b": step("B {x}", there) | step("B2 {y}", there)}
    return arms | step("J {a} {b}", here) | step("K {y}", here)


def in_turn(here, there):
    return (
        RunnablePassthrough.assign(a=step("A {x}", here))
        | RunnablePassthrough.assign(b=step("B {a}", there), c=step("C {a}", here))
        | step("D {b} {c}", here)
    )


def mapped_elsewhere(here, there):
    listing = P("[list] {x}") | here | CommaSeparatedListOutputParser()
    return listing | (step("E {i}", there) | step("F {i}", there)).map() | (lambda ts: " ".join(ts)) | here


# Of one run: eager and lowered requests to the one server, and to the other.
CASES = {
    one_after_the_other: ((2, 1), (2, 1)),
    side_by_side: ((4, 2), (2, 1)),
    in_turn: ((3, 2), (1, 1)),
    mapped_elsewhere: ((2, 2), (6, 1)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_each_servers_part_is_a_program(build, way, server, other):
    here, there = (ChatParrot(base_url=s.url, temperature=0, max_retries=0) for s in (server, other))
    chain = build(here, there)
    found = []
    for eager in (True, False):
        recorder, before = Recorder(), [s.metrics() for s in (server, other)]
        if eager:
            with disabled():
                result = run(way, chain, {"x": "1"}, recorder)
        else:
            result = run(way, chain, {"x": "1"}, recorder)
        after = [s.metrics() for s in (server, other)]
        trips, executed = (
            [int(b[name] - a[name]) for a, b in zip(before, after, strict=True)]
            for name in ("parrot_requests_total", "parrot_calls_executed_total")
        )
        found.append((result, recorder.tree(), executed, trips))
    assert not found[0][0].startswith("raised")
    assert found[1][:3] == found[0][:3]
    times = {"batch": 3, "abatch": 3, "batch-exceptions": 2}.get(way, 1)
    assert found[0][3] == [times * eager for eager, _ in CASES[build]]
    if times == 1:
        assert found[1][3] == [lowered for _, lowered in CASES[build]]
    assert sum(found[1][3]) < sum(found[0][3])


def test_explain_says_where_another_servers_answer_is_awaited(server, other):
    here, there = (ChatParrot(base_url=s.url, temperature=0) for s in (server, other))
    explained = explain(one_after_the_other(here, there), {"x": "1"})
    assert [cut.reason for cut in explained.cuts] == ["its prompt needs an answer of another server"]
