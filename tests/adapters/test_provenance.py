"""Values that come back in a later prompt: recognised, named to the server, and drawn in its report."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda
from lc_shapes import P, step
from live import LocalServer
from scripted import ScriptedEngine, answer

from semantic_parrot.adapters.carrying import EVENTS, JSON, _whole, heard, told
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.langchain import ChatParrot, ParrotLLM, disabled
from semantic_parrot.adapters.openai_http import http
from semantic_parrot.adapters.provenance import LONGEST, NAMED, REMEMBERED, SEARCHED, SHORTEST, Origins
from semantic_parrot.core.program import Call, Program, Source
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import template

HERE, LONG = "here", "what the first call said of it all"


def remembering(*values, place=HERE):
    origins = Origins()
    for i, value in enumerate(values):
        origins.remember(place, value, "run", f"c{i}")
    return origins


def calls(found):
    return [source.call for source in found]


def chat(*contents):
    return {"messages": [{"role": "user", "content": content} for content in contents]}


@pytest.mark.parametrize(
    "request_",
    [
        chat(LONG),
        chat(f"Translate: {LONG}!"),
        chat("x", template("Of ", ("v",), f": {LONG} ", ("w",))),
        chat([{"type": "text", "text": f"{LONG}\n"}]),
        {"prompt": f"{LONG} - in short:"},
    ],
)
def test_a_value_is_recognised_wherever_it_stands(request_):
    assert calls(remembering("another value, of a later call", LONG).sources(HERE, request_)) == ["c1"]


def test_what_is_short_elsewhere_or_no_text_is_not():
    origins = remembering("x" * (SHORTEST - 1), None, ["a"], "y" * (LONGEST + 1))
    assert origins.sources(HERE, chat("x" * (SHORTEST - 1), "x" * 50, "y" * (LONGEST + 1))) == []
    assert remembering(LONG).sources("there", chat(LONG, f"a {LONG}")) == []
    assert remembering(LONG).sources(HERE, {"model": LONG, "stop": [LONG], "messages": None}) == []


@given(st.lists(st.text(min_size=30, max_size=40, alphabet="ab "), max_size=SEARCHED), st.text(alphabet="ab "))
def test_all_that_stand_in_a_prompt_are_found_and_no_others(values, around):
    prompt = around + "".join(values[:3])
    found = calls(remembering(*values).sources(HERE, chat(prompt)))
    last = {value.strip(): f"c{i}" for i, value in enumerate(values)}
    stand = [call for value, call in last.items() if len(value) >= SHORTEST and value in prompt]
    assert set(found) <= set(stand)
    assert len(found) == min(len(set(stand)), NAMED) or prompt.strip() in last


def test_memory_is_bounded_and_the_newest_stay():
    values = [f"value number {i} of a great many" for i in range(REMEMBERED + 10)]
    origins = remembering(*values)
    assert len(origins._values) == REMEMBERED
    assert origins.sources(HERE, chat(values[0])) == []
    assert calls(origins.sources(HERE, chat(values[10]))) == ["c10"]  # whole: as long as it is remembered
    assert origins.sources(HERE, chat(f"of {values[10]}")) == []  # inside a text: only the newest
    assert calls(origins.sources(HERE, chat(f"of {values[-SEARCHED]}"))) == [f"c{len(values) - SEARCHED}"]
    assert len(origins.sources(HERE, chat(" ".join(values)))) == NAMED


def test_a_program_without_any_is_sent_as_it_is():
    program = Program(calls=[Call(id="a", output="a", request=chat(LONG))])
    assert Origins().told(HERE, program) is program
    assert remembering("a value that is not there").told(HERE, program) is program
    assert remembering(LONG).told(HERE, program).parrot.sources == {"a": [Source(run="run", call="c0")]}


@pytest.fixture
def verbose():
    engine = ScriptedEngine(answers=lambda request: f"{answer(request)} and so on, at length")
    with LocalServer(Runtime([engine], disable={"single-flight"})) as running:
        yield running


def latest(server):
    return httpx.get(f"{server.url}/runs/latest/report").json()


SHAPES = {
    "a function between": lambda llm: (
        step("A {x}", llm) | step("B {y}", llm) | shouted() | step("C {z}", llm) | P("D {w}") | llm
    ),
    "two chains": lambda llm: two_chains(step("A {x}", llm) | P("B {y}") | llm, step("C {z}", llm) | P("D {w}") | llm),
}


def shouted():
    return RunnableLambda(lambda text: {"z": f"Of this: {text.strip()}."})


def two_chains(first, second):
    return RunnableLambda(lambda given: second.invoke({"z": f"Of this: {first.invoke(given).content}"}))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_report_draws_what_the_app_carried_over(verbose, shape):
    llm = ChatParrot(base_url=verbose.url, temperature=0, max_retries=0)
    chain, before = SHAPES[shape](llm), verbose.requests()
    lowered = chain.invoke({"x": "1"})
    assert verbose.requests() - before == 2
    (first, second) = httpx.get(f"{verbose.url}/runs").json()["data"]
    report = latest(verbose)
    assert report["id"] == second["id"]
    carried = {call["id"]: call["outside"] for call in report["calls"]}
    assert carried == {"text0": [{"run": first["id"], "call": "text1"}], "text1": []}
    with disabled():
        assert chain.invoke({"x": "1"}).content == lowered.content


def test_the_same_input_again_is_no_source(verbose):
    llm = ChatParrot(base_url=verbose.url, temperature=0, max_retries=0)
    chain = step("A {x}", llm) | P("B {y}") | llm
    for _ in range(2):
        chain.invoke({"x": "a text of the app, of some length, twice"})
    assert [call["outside"] for call in latest(verbose)["calls"]] == [[], []]


# Calls that go out by themselves.


def opaque():
    """What no lowering reads: between two models it costs a round trip."""
    return RunnableLambda(lambda message: "Of this: " + str(getattr(message, "content", message)).strip() + ".")


def alone(server):
    """The ids of the calls that came alone so far, in their order."""
    return list(server.runtime.singles._kept)


def outside(server, id):
    return [call["outside"] for call in httpx.get(f"{server.url}/runs/{id}/report").json()["calls"]]


async def through(chain, way, text):
    match way:
        case "invoke":
            return chain.invoke(text).content
        case "ainvoke":
            return (await chain.ainvoke(text)).content
        case "stream":
            return "".join(piece.content for piece in chain.stream(text))
    return "".join([piece.content async for piece in chain.astream(text)])


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("model", ["chain", "calls"])
async def test_each_of_three_models_with_functions_between_cites_the_one_before(verbose, way, model):
    llm = ChatParrot(base_url=verbose.url, temperature=0, max_retries=0)
    before, text = verbose.requests(), "a question of the app"
    if model == "chain":
        text = await through(llm | opaque() | llm | opaque() | llm, way, text)
    else:
        for _ in range(3):
            text = opaque().invoke(await through(llm, way, text))
    assert verbose.requests() - before == 3
    ids = alone(verbose)
    cited = [[[{"run": id, "call": id}]] for id in ids]
    assert [outside(verbose, id) for id in ids] == [[[]], *cited[:2]]
    await llm.aclose()


def test_a_program_cites_a_call_that_came_alone_and_is_cited_by_one(verbose):
    llm = ChatParrot(base_url=verbose.url, temperature=0, max_retries=0)
    chain = llm | opaque() | step("A {x}", llm) | P("B {y}") | llm | opaque() | llm
    before = verbose.requests()
    lowered = chain.invoke("a question of the app")
    assert verbose.requests() - before == 3
    first, last = alone(verbose)
    [run] = httpx.get(f"{verbose.url}/runs").json()["data"]
    assert outside(verbose, run["id"]) == [[{"run": first, "call": first}], []]
    assert outside(verbose, last) == [[{"run": run["id"], "call": "text1"}]]
    with disabled():
        assert chain.invoke("a question of the app").content == lowered.content
    assert [outside(verbose, id) for id in alone(verbose)[2:]] == [[[]]] * 4


def test_nodes_of_a_graph_cite_each_other(verbose):
    graph = pytest.importorskip("langgraph.graph")
    llm = ChatParrot(base_url=verbose.url, temperature=0, max_retries=0)
    made = graph.StateGraph(dict)
    for name, after in (("write", graph.START), ("review", "write")):
        made.add_node(name, lambda state: {"text": llm.invoke(f"Now: {state['text']}").content})
        made.add_edge(after, name)
    made.compile().invoke({"text": "a question of the app"})
    first, second = alone(verbose)
    assert outside(verbose, second) == [[{"run": first, "call": first}]]


def test_completions_and_what_the_app_says_itself(verbose):
    llm = ParrotLLM(base_url=verbose.url, temperature=0, max_retries=0)
    text = llm.invoke("a question of the app")
    assert "".join(llm.stream(f"Of this: {text}")).strip()
    said = {"parrot": {"sources": [], "priority": 1}}
    llm.bind(extra_body=said).invoke(f"Once more: {text}")
    llm.bind(extra_body={"parrot": {"priority": 1}}).invoke(f"Again: {text}")
    first, second, third, fourth = alone(verbose)
    cited = [[{"run": first, "call": first}]]
    assert [outside(verbose, id) for id in (second, third, fourth)] == [cited, [[]], cited]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", JSON), (b"[]", JSON), (b"{", JSON), (b"[" * 100_000, JSON), (b"\xff", JSON),
        (b"data: [DONE]\n\n", EVENTS),
        (b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "half of"}}]}\n\n' * 2, EVENTS),
        (b'data: {"choices": 3}\n\ndata: [DONE]\n\n', EVENTS), (b"data: 1\n\ndata: [DONE]\n\n", EVENTS),
        (b'data: {"choices": [{"index": 0, "delta": {"content": 7}}]}\n\ndata: [DONE]\n\n', EVENTS),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_nothing(body, kind):
    assert not _whole(body, kind)


@pytest.mark.parametrize("ours", [True, False])
def test_only_parrot_servers_are_told_beside_what_was_stated(ours):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": LONG}}
    answer = {"id": "chatcmpl-x", "choices": [choice], **({"parrot": {"engine": "e"}} if ours else {})}
    endpoint, bodies = Endpoint(f"http://there/{ours}"), []
    for text in ("x", LONG):
        asked = http.Request("POST", "http://there/chat/completions", json={**chat(text), "parrot": {"priority": 1}})
        sent = told(endpoint, asked)
        bodies.append(json.loads(sent.content))
        came = http.ByteStream(json.dumps(answer).encode())
        response = heard(endpoint, sent, http.Response(200, headers={"content-type": JSON}, stream=came))
        assert json.loads(response.read()) == answer
    cited = {"sources": [{"call": "chatcmpl-x"}]} if ours else {}
    assert bodies == [{**chat(text), "parrot": {"priority": 1, **more}} for text, more in (("x", {}), (LONG, cited))]
    assert int(sent.headers["content-length"]) == len(sent.content)
