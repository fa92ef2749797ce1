"""Maps and branches: what they become, in which order it is told, and that no program is left hanging."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import ScriptedEngine, answer, text_of

from semantic_parrot.core import instance
from semantic_parrot.core.errors import DanglingReference, DuplicateProducer, EngineFailed, InvalidRequest
from semantic_parrot.core.events import RunUsage
from semantic_parrot.core.graph import Graph
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import render, template


def request(*parts):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}]}


def call(name, *parts):
    return {"id": f"call_{name}", "output": name, "request": request(*parts)}


def said(text):
    """What the engine answers to a prompt."""
    return answer(parse_request(render(request(text), {})))


def mapped(over, result, *calls, id="m", output="all", item="one", bound=10, **body):
    more = {"item": item, "bound": bound, "calls": list(calls), **body}
    return {"id": id, "output": output, "over": over, "result": result, **more}


SUMMARISE = mapped("docs", "s", call("s", ("style",), ": ", ("one",)))
INPUTS = {"docs": ["a", "b", "c"], "style": "short"}


@pytest.fixture
async def engine():
    return ScriptedEngine()


@pytest.fixture
async def runtime(engine):
    runtime = Runtime([engine], grace=0.05)
    await runtime.start()
    yield runtime
    await runtime.close()
    assert engine.running == 0


async def ran(runtime, **program):
    run = runtime.submit(parse_program(program))
    await asyncio.wait_for(run.wait(), 10)
    return run


async def told(run):
    return [(e.type, getattr(e, "id", None)) async for _, e in run.events()]


async def test_a_map_runs_its_body_once_for_each_member(runtime):
    run = await ran(runtime, calls=[call("r", "Merge ", ("all",))], maps=[SUMMARISE], inputs=INPUTS)
    summaries = [said(f"short: {doc}") for doc in INPUTS["docs"]]
    assert run.status == "finished"
    assert run.outputs() == {"r": said(f"Merge {summaries}")}
    assert list(run.result()["calls"]) == [*(f"m[{i}].call_s" for i in range(3)), "call_r"]
    assert runtime.calls.executed == 4


async def test_a_dynamic_list_through_transforms_is_announced_before_its_producer_ends(runtime):
    run = await ran(
        runtime,
        calls=[call("list", "List"), call("merge", ("joined",))],
        transforms=[
            {"id": "t", "op": "split", "of": "list", "output": "words"},
            {"id": "j", "op": "join", "of": "all", "sep": "\n", "output": "joined"},
        ],
        maps=[mapped("words", "s", call("s", ("one",)), bound=3)],
    )
    results = [said(word) for word in said("List").split()]
    assert run.outputs() == {"merge": said("\n".join(results))}
    order = await told(run)
    for i in range(3):
        assert order.index(("call.ready", f"m[{i}].call_s")) < order.index(("call.finished", "call_list"))
    last = max(order.index(("call.finished", f"m[{i}].call_s")) for i in range(3))
    assert order.index(("call.ready", "call_merge")) < last


async def test_an_empty_list_gives_an_empty_list(runtime):
    run = await ran(runtime, maps=[SUMMARISE], inputs={**INPUTS, "docs": []})
    assert (run.status, run.outputs()) == ("finished", {"all": []})


async def test_a_failed_item_fails_the_output_and_nothing_else(runtime, engine):
    engine._fail = lambda r: EngineFailed("lost") if text_of(r).endswith("b") else None
    calls = [call("r", ("all",)), call("other", "x")]
    run = await ran(runtime, calls=calls, maps=[SUMMARISE], inputs=INPUTS)
    errors = run.errors()
    assert set(errors) == {"all[1].s", "all", "r"}
    assert (errors["all[1].s"]["code"], errors["all[1].s"]["call"]) == ("engine_failed", "m[1].call_s")
    assert (errors["all"]["code"], errors["all"]["map"]) == ("dependency_failed", "m")
    assert "'all[1].s' failed: lost" in errors["all"]["message"]
    assert run.outputs() == {"other": said("x")}
    assert {"m[0].call_s", "m[2].call_s"} <= set(run.result()["calls"])
    order = await told(run)
    assert order.index(("call.aborted", "call_r")) < order.index(("call.failed", "m[1].call_s"))


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("a, b", "wrong_type", "expected a list, got a text: 'a, b'"),
        (["x"] * 11, "too_large", "a list of 11, and the bound is 10"),
    ],
)
async def test_what_a_map_can_not_run_over(runtime, value, code, words):
    calls = [call("r", ("all",)), call("other", "x")]
    run = await ran(runtime, calls=calls, maps=[SUMMARISE], inputs={**INPUTS, "docs": value})
    assert run.errors()["all"]["code"] == code
    assert words in run.errors()["all"]["message"]
    assert run.errors()["r"]["code"] == "dependency_failed"
    assert run.outputs() == {"other": said("x")}


async def test_maps_together_stay_within_a_bound(runtime, monkeypatch):
    monkeypatch.setattr(instance, "MAX_GROWTH", 50)
    inner = mapped("many", "one", id="i", output="o")
    outer = mapped("many", "o", maps=[inner], id="m", item="two")
    run = await ran(runtime, maps=[outer], inputs={"many": ["x"] * 10})
    assert run.status == "failed"
    assert "more than 50 nodes" in run.errors()["all"]["message"]
    assert sum(e["code"] == "too_large" for e in run.errors().values()) == 7


async def test_maps_may_stand_in_maps(runtime):
    inner = mapped("row", "s", call("s", ("one",), " of ", ("row",), ("style",)), id="i", output="line")
    outer = mapped("docs", "line", maps=[inner], item="row")
    run = await ran(runtime, maps=[outer], inputs={"docs": [["a", "b"], []], "style": "!"})
    row = str(["a", "b"])
    assert run.outputs() == {"all": [[said(f"a of {row}!"), said(f"b of {row}!")], []]}
    assert list(run.result()["calls"]) == ["m[0].i[0].call_s", "m[0].i[1].call_s"]


async def test_a_body_may_use_names_that_are_taken_outside(runtime):
    run = await ran(
        runtime,
        calls=[call("s", "outer")],
        maps=[mapped("docs", "s", call("s", ("docs",)), item="docs")],
        inputs=INPUTS,
    )
    assert run.outputs() == {"s": said("outer"), "all": [said(doc) for doc in INPUTS["docs"]]}


async def test_a_result_may_come_from_around_the_body(runtime):
    run = await ran(
        runtime, maps=[mapped("docs", "style"), mapped("docs", "one", id="n", output="same")], inputs=INPUTS
    )
    assert run.outputs() == {"all": ["short"] * 3, "same": INPUTS["docs"]}


def branch(on, *arms, default=None, id="b", output="taken"):
    def arm(name):
        return {"result": name, "calls": [call(name, name, " ", ("style",))]}

    bodies = [{"when": when, **arm(name)} for when, name in arms]
    return {"id": id, "output": output, "on": on, "arms": bodies, "default": default and arm(default)}


@pytest.mark.parametrize(("on", "taken"), [("yes", "y"), ("no", "n"), (True, "t"), ("else", "d"), ([1], "d")])
async def test_only_the_arm_that_is_chosen_runs(runtime, engine, on, taken):
    arms = branch("on", ("yes", "y"), ("no", "n"), (True, "t"), default="d")
    run = await ran(runtime, calls=[call("r", ("taken",))], branches=[arms], inputs={"on": on, "style": "s"})
    assert run.outputs() == {"r": said(said(f"{taken} s"))}
    assert [text_of(r) for r in engine.seen] == [f"user: {taken} s", f"user: {said(f'{taken} s')}"]


async def test_no_arm_and_no_default_is_an_error_on_the_output(runtime, engine):
    calls = [call("r", ("taken",)), call("other", "x")]
    run = await ran(runtime, calls=calls, branches=[branch("on", (1, "a"))], inputs={"on": "z" * 99, "style": ""})
    error = run.errors()["taken"]
    assert (error["code"], error["branch"]) == ("no_match", "b")
    assert "z" * 80 in error["message"]
    assert "z" * 81 not in error["message"]
    assert run.outputs() == {"other": said("x")}


async def test_classify_compare_branch(runtime):
    run = await ran(
        runtime,
        calls=[call("class", "Classify"), call("r", ("taken",))],
        transforms=[
            {"id": "c", "op": "compare", "of": "class", "test": "contains", "to": {"value": "w"}, "output": "is"}
        ],
        branches=[branch("is", (True, "a"), (False, "b"))],
        inputs={"style": "s"},
    )
    assert run.outputs() == {"r": said(said("a s"))}
    order = await told(run)
    assert order.index(("call.ready", "b[0].call_a")) < order.index(("call.finished", "call_class"))
    assert order.index(("call.ready", "call_r")) < order.index(("call.finished", "b[0].call_a"))


async def test_a_transform_that_fails_aborts_what_depends_before_its_producer_ends(runtime):
    run = await ran(
        runtime,
        calls=[call("a", "A"), call("b", ("parsed",)), call("c", ("a",)), call("e", ("b",))],
        transforms=[{"id": "p", "op": "json", "of": "a", "output": "parsed"}],
        outputs=["parsed", "c"],
    )
    assert run.status == "failed"
    error = run.errors()["parsed"]
    assert (error["code"], error["transform"], error["param"]) == ("no_match", "p", "parsed")
    assert said("A") in error["message"]
    assert run.outputs() == {"c": said(said("A"))}
    order = await told(run)
    for name in ("b", "e"):
        assert order.index(("call.aborted", f"call_{name}")) < order.index(("call.finished", "call_a"))
    assert order.index(("call.ready", "call_c")) < order.index(("call.finished", "call_a"))


async def test_a_program_without_calls_ends_at_once(runtime):
    run = await ran(runtime, transforms=[{"id": "t", "op": "csv", "of": "x", "output": "y"}], inputs={"x": "a,b"})
    assert run.usage == RunUsage(cost=0.0)
    assert run.result() | {"id": "", "usage": {}} == {
        "id": "", "status": "finished", "outputs": {"y": ["a", "b"]}, "errors": {}, "calls": {}, "usage": {}
    }  # fmt: skip


async def test_null_is_a_value(runtime):
    session = runtime.sessions.open()
    get = {"id": "t", "op": "get", "of": "x", "path": ["a"], "output": "y"}
    body = parse_program({"calls": [call("c", "<", ("y",), ">")], "transforms": [get], "inputs": {"x": None}})
    session.submit(body, body.inputs)
    waiting = asyncio.create_task(session.get("y"))
    await asyncio.sleep(0)
    session.set("x", {"a": None})
    assert await waiting is None
    assert await session.get("y") is None
    assert await session.get("c") == said("<None>")


async def test_deltas_and_objectives_of_a_map_are_those_of_its_calls(runtime):
    run = runtime.submit(
        parse_program({"maps": [SUMMARISE], "calls": [call("x", "X")], "inputs": INPUTS, "deltas": ["m"],
                       "parrot": {"objectives": {"all": "throughput"}}})
    )  # fmt: skip
    deltas = {}
    async for _, event in run.events():
        if event.type == "variable.delta":
            deltas[event.variable] = deltas.get(event.variable, "") + event.text
    assert deltas == {f"all[{i}].s": said(f"short: {doc}") for i, doc in enumerate(INPUTS["docs"])}
    told = {name: call["schedule"]["objective"] for name, call in run.result()["calls"].items()}
    assert told == {**{f"m[{i}].call_s": "throughput" for i in range(len(INPUTS["docs"]))}, "call_x": "latency"}


async def test_cancel_ends_what_a_map_has_become(runtime, engine):
    engine._gate = asyncio.Event()
    run = runtime.submit(parse_program({"calls": [call("r", ("all",))], "maps": [SUMMARISE], "inputs": INPUTS}))
    await engine.until(running=3)
    run.cancel()
    await run.wait()
    errors = {name: error["code"] for name, error in run.errors().items()}
    assert errors == dict.fromkeys(["r", "all", *(f"all[{i}].s" for i in range(3))], "cancelled")
    aborted = [name for kind, name in await told(run) if kind == "call.aborted"]
    assert sorted(aborted) == ["call_r", *(f"m[{i}].call_s" for i in range(3))]
    await engine.until(running=0)


async def test_a_later_program_may_read_what_a_map_has_become(runtime):
    session = runtime.sessions.open()
    options = {"parrot": {"session": session.id}}
    await ran(runtime, maps=[SUMMARISE], inputs=INPUTS, **options)
    run = await ran(runtime, calls=[call("more", ("all[1].s",))], **options)
    assert run.outputs() == {"more": said(said("short: b"))}
    with pytest.raises(DanglingReference):
        runtime.submit(parse_program({"calls": [call("x", ("all[9].s",))], **options}))
    with pytest.raises(DuplicateProducer):
        runtime.submit(parse_program({"maps": [{**SUMMARISE, "id": "again"}], **options}))


@pytest.mark.parametrize("name", ["all[0].s", "]."])
def test_nobody_may_take_the_names_of_instances(name):
    with pytest.raises(InvalidRequest, match="may not contain"):
        parse_program({"calls": [call(name, "x")]})


async def test_a_large_json_input_is_refused_as_it_comes(runtime):
    program = parse_program({"maps": [SUMMARISE], "inputs": {**INPUTS, "docs": [0] * 1_000_001}})
    with pytest.raises(InvalidRequest, match=r"inputs\.docs"):
        runtime.submit(program)


def test_a_long_chain_of_transforms_and_maps_needs_no_stack():
    length = 3000
    links = [{"id": f"t{i}", "op": "strip", "of": f"v{i}", "output": f"v{i + 1}"} for i in range(length)]
    maps = [mapped(f"l{i}", "one", id=f"m{i}", output=f"l{i + 1}", bound=1) for i in range(length)]
    program = parse_program({"transforms": links, "maps": maps})
    for first in ({"v0": "x", "l0": ["x"]}, {"v0": 7, "l0": 7}):
        graph = Graph()
        effects = graph.join(program.nodes(), first, "run")
        assert all(variable.settled for variable in graph.variables.values())
        assert len(effects.aborted) == (0 if first["v0"] == "x" else 2 * (length - 1))


# Random programs: whatever fails, each call is told of once and every variable settles.


@st.composite
def bodies(draw, outer, depth, prefix):
    """(fields of a body, its variables)."""
    fields = {"calls": [], "transforms": [], "maps": [], "branches": []}
    known = list(outer)
    for i in range(draw(st.integers(1, 4))):
        name = f"{prefix}{i}"
        kind = draw(st.sampled_from(["calls", "calls", "transforms", "maps", "branches"][: 5 if depth else 3]))
        read = draw(st.sampled_from(known))
        node = {"id": f"n{name}", "output": name}
        if kind == "calls":
            node["request"] = request(
                draw(st.sampled_from(["ok ", "ok ", "fail "])), (read,), (draw(st.sampled_from(known)),)
            )
        elif kind == "transforms":
            node |= draw(st.sampled_from([
                {"op": "split", "of": read}, {"op": "join", "of": read}, {"op": "json", "of": read},
                {"op": "template", "template": template(("in",), (read,))}, {"op": "get", "of": read, "path": [0]},
            ]))  # fmt: skip
        elif kind == "maps":
            inner, names = draw(bodies([*known, f"{name}i"], depth - 1, f"{name}_"))
            node |= {"over": read, "item": f"{name}i", "bound": draw(st.integers(1, 4)), "result": names[-1], **inner}
        else:
            inner, names = draw(bodies(known, depth - 1, f"{name}_"))
            arm = {"result": names[-1], **inner}
            node |= {"on": read, "arms": [{"when": "w", **arm}], "default": draw(st.sampled_from([None, arm]))}
        fields[kind].append(node)
        known.append(name)
    return fields, known


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(bodies(["in", "words"], 2, "v"), st.booleans())
def test_whatever_fails_every_call_is_told_of_once_and_every_variable_settles(body, announced):
    async def scenario():
        engine = ScriptedEngine(fail=lambda r: EngineFailed("lost") if text_of(r).startswith("user: fail") else None)
        runtime = Runtime([engine], grace=0, disable={"single-flight"})
        await runtime.start()
        session = runtime.sessions.open()
        program = {**body[0], "inputs": {"in": None, "words": ["a", "b"]}, "parrot": {"session": session.id}}
        run = runtime.submit(parse_program(program))
        session.set("in", "w" if announced else ["w"])
        await asyncio.wait_for(run.wait(), 10)
        events = [event async for _, event in run.events()]
        await runtime.close()
        return engine, run, events

    engine, run, events = asyncio.run(scenario())
    graph = run.session.graph
    assert all(variable.settled for variable in graph.variables.values())
    assert events[-1].type == "run.finished"
    calls = [node.id for node in run._nodes.values() if node.spec.kind == "call"]
    ready = [e.id for e in events if e.type == "call.ready"]
    ended = [e.id for e in events if e.type in ("call.finished", "call.failed")]
    aborted = [e.id for e in events if e.type == "call.aborted"]
    assert sorted(ready) == sorted(ended)
    assert sorted(ready + aborted) == sorted(calls)
    assert len(engine.seen) == len(ready)
    # A value needs all that it was made of; an error has a first cause.
    for node in run._nodes.values():
        failed = [name for name in node.reads if graph.variables[name].error is not None]
        if failed:
            assert graph.variables[node.output].error is not None
    assert (run.status == "finished") == (set(run.terms.wanted) <= set(run.outputs()))
