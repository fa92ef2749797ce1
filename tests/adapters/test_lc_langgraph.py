"""LangGraph: the chain of each node is a program, whether the node is a function or the chain itself."""

from __future__ import annotations

import asyncio
from typing import TypedDict

import pytest
from lc_recorder import Recorder
from lc_shapes import P, step

from semantic_parrot.adapters.langchain import ChatParrot, disabled

graph = pytest.importorskip("langgraph.graph")


class State(TypedDict):
    x: str
    y: str
    z: str


def functions(llm):
    one, two = step("A {x}", llm) | step("A2 {y}", llm), step("B {y}", llm) | step("B2 {y}", llm)
    return lambda s: {"y": one.invoke({"x": s["x"]})}, lambda s: {"z": two.invoke({"y": s["y"]})}


def chains(llm):
    one, two = step("A {x}", llm) | step("A2 {y}", llm), step("B {y}", llm) | P("B2 {y}") | llm
    return one | (lambda y: {"y": y}), two | (lambda m: {"z": m.content})


def build(nodes):
    builder = graph.StateGraph(State)
    for name, node in zip("ab", nodes, strict=True):
        builder.add_node(name, node)
    for edge in ((graph.START, "a"), ("a", "b"), ("b", graph.END)):
        builder.add_edge(*edge)
    return builder.compile()


async def _astream(app, config):
    return [update async for update in app.astream({"x": "1"}, config, stream_mode="updates")]


async def _events(app, config):
    events = [event async for event in app.astream_events({"x": "1"}, config, version="v2")]
    ended = [(event["name"], event["data"].get("output")) for event in events if event["event"] == "on_chain_end"]
    return ended[-1]


WAYS = {
    "invoke": lambda app, config: app.invoke({"x": "1"}, config),
    "ainvoke": lambda app, config: asyncio.run(app.ainvoke({"x": "1"}, config)),
    "batch": lambda app, config: app.batch([{"x": "1"}, {"x": "2"}], config),
    "abatch": lambda app, config: asyncio.run(app.abatch([{"x": "1"}, {"x": "2"}], config)),
    "astream": lambda app, config: asyncio.run(_astream(app, config)),
    "astream-events": lambda app, config: asyncio.run(_events(app, config)),
    "stream": lambda app, config: list(app.stream({"x": "1"}, config, stream_mode="updates")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("nodes", [functions, chains])
def test_a_graph_of_two_nodes_with_two_calls_each(server, nodes, way):
    app = build(nodes(ChatParrot(base_url=server.url, temperature=0, max_retries=0)))

    def observe():
        recorder, before = Recorder(), server.metrics()
        result = WAYS[way](app, {"callbacks": [recorder]})
        after = server.metrics()
        trips, executed = (
            after[name] - before[name] for name in ("parrot_requests_total", "parrot_calls_executed_total")
        )
        return (result, recorder.tree(), executed), trips

    with disabled():
        eager, many = observe()
    lowered, few = observe()
    assert lowered == eager
    assert few == many / 2
