"""What a run is billed for, whoever shared its calls, and where its quota stops it."""

import asyncio

import pytest
from scripted import ScriptedEngine, text_of

from semantic_parrot.core.errors import EngineFailed, InvalidRequest
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.usage import Price
from semantic_parrot.core.wire import template

PRICES = {"default": Price(prompt=3.0, cached=1.0, completion=10.0)}


def program(calls, *, model="default", **more):
    """`calls`: output -> parts of its prompt; each answer has three tokens, each word is one."""
    listed = []
    for output, parts in calls.items():
        message = {"role": "user", "content": template(*parts)}
        request = {"model": model, "temperature": 0, "messages": [message]}
        listed.append({"id": f"call_{output}", "output": output, "request": request})
    return parse_program({"calls": listed, **more})


async def started(engines, **options):
    runtime = Runtime(engines, grace=0.05, **options)
    await runtime.start()
    return runtime


def used(run):
    usage = run.result()["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"], usage["calls"]


def shared(run):
    usage = run.result()["usage"]
    return usage["shared_calls"], usage["shared_tokens"]


async def until(condition):
    """Give the loop turns until `condition` holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


async def test_usage_is_the_sum_of_the_calls():
    runtime = await started([ScriptedEngine()], prices=PRICES)
    run = runtime.submit(program({"a": ("one two",), "b": ("then ", ("a",))}))
    *_, (_, end) = [pair async for pair in run.events()]
    responses = [call["response"]["usage"] for call in run.result()["calls"].values()]
    prompt, completion = (sum(r[f"{kind}_tokens"] for r in responses) for kind in ("prompt", "completion"))
    assert (prompt, completion) == (3 + 5, 6)  # "user: one two", "user: then w w w"
    assert run.result()["usage"] == end.usage.model_dump() == {
        "prompt_tokens": prompt, "cached_tokens": 0, "completion_tokens": completion,
        "total_tokens": prompt + completion, "calls": 2, "shared_calls": 0, "shared_tokens": 0,
        "cost": pytest.approx((3.0 * prompt + 10.0 * completion) / 1e6),
    }  # fmt: skip
    await runtime.close()


async def test_usage_grows_while_the_run_is_under_way_and_stays_when_it_is_cancelled():
    engine = ScriptedEngine(gate=asyncio.Event())
    runtime = await started([engine])
    run = runtime.submit(program({"a": ("A",), "b": ("B ", ("a",))}))
    assert used(run) == (0, 0, 0)
    await until(lambda: used(run) == (2, 1, 1))
    run.cancel()
    await engine.until(running=0)
    assert used(run) == (2, 1, 1)
    assert run.result()["usage"]["cost"] is None  # there is no price
    await runtime.close()


async def test_a_call_that_fails_is_billed_for_what_it_took():
    class Dies(ScriptedEngine):
        async def generate(self, *request):
            async for item in super().generate(*request):
                yield item
                raise EngineFailed("lost")

    runtime = await started([Dies()])
    run = runtime.submit(program({"a": ("A",)}))
    await run.wait()
    assert used(run) == (2, 1, 1)
    await runtime.close()


async def test_of_calls_that_share_an_execution_one_pays():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = await started([engine])
    runs = [runtime.submit(program({"a": ("A",), "b": ("A",)}))]
    await engine.until(running=1)
    runs.append(runtime.submit(program({"x": ("A",)})))
    await until(lambda: shared(runs[1]) == (1, 3))
    gate.set()
    await asyncio.gather(*(run.wait() for run in runs))
    assert [used(run) for run in runs] == [(2, 3, 1), (0, 0, 0)]
    assert [shared(run) for run in runs] == [(1, 5), (1, 5)]
    await runtime.close()


async def test_when_the_one_who_pays_leaves_the_next_one_pays_the_rest():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = await started([engine])
    first = runtime.submit(program({"a": ("A",)}))
    await engine.until(running=1)
    second = runtime.submit(program({"a": ("A",)}))
    await until(lambda: shared(second) == (1, 3))
    first.cancel()
    gate.set()
    await second.wait()
    assert [used(first), used(second)] == [(2, 1, 1), (0, 2, 0)]
    assert shared(second) == (1, 3)
    await runtime.close()


async def test_a_run_that_passes_its_quota_stops_and_keeps_what_is_finished():
    engine = ScriptedEngine(window=1)
    runtime = await started([engine], disable={"single-flight"})  # so that the engine waits for its reader
    calls = {"a": ("A",), "b": ("B ", ("a",)), "c": ("C ", ("b",))}
    run = runtime.submit(program(calls, outputs=["a", "c"], parrot={"quota": {"tokens": 11}}))
    await run.wait()  # a: 2 + 3; b: a prompt of 5 + 2 more pass the quota
    assert run.status == "failed"
    assert list(run.outputs()) == ["a"]
    assert {name: error["code"] for name, error in run.errors().items()} == {
        "b": "quota_exceeded", "c": "dependency_failed"
    }  # fmt: skip
    assert "quota of 11 tokens" in run.errors()["b"]["message"]
    await engine.until(running=0)
    assert (engine.cancelled, used(run)) == (1, (7, 5, 2))
    await runtime.close()


async def test_a_run_that_has_all_it_wants_has_finished_though_its_quota_is_used_up():
    engine = ScriptedEngine(window=1)
    runtime = await started([engine])
    run = runtime.submit(program({"a": ("A",), "b": (("a",),)}, outputs=["a"], parrot={"quota": {"tokens": 10}}))
    await run.wait()
    assert (run.status, list(run.outputs()), run.errors()["b"]["code"]) == ("finished", ["a"], "quota_exceeded")
    await runtime.close()


@pytest.mark.parametrize("quota", [{"tokens": 11}, {"cost": 70 / 1e6}])
async def test_a_quota_that_is_just_enough_changes_nothing(quota):
    runtime = await started([ScriptedEngine()], prices={"scripted": Price(2.0, 2.0, 10.0)})
    calls = {"a": ("A",), "b": ("A two",)}  # 2 + 3 and 3 + 3
    run = runtime.submit(program(calls, parrot={"quota": quota}))
    await run.wait()
    assert (run.status, used(run)) == ("finished", (5, 6, 2))
    await runtime.close()


@pytest.mark.parametrize("quota", [{"tokens": 20}, {"cost": 20 * 3 / 1e6}])
async def test_a_prompt_that_alone_passes_the_quota_reaches_no_engine(quota):
    engine = ScriptedEngine()
    runtime = await started([engine], prices={"default": Price(3.0, 3.0, 3.0)})
    calls = {"a": ("A",), "long": ("word " * 30,), "after": (("long",),)}
    run = runtime.submit(program(calls, parrot={"quota": quota}))
    told = [event async for _, event in run.events()]
    (failed,) = [e for e in told if e.type == "call.failed"]
    assert (failed.id, failed.status, failed.body["error"]["code"]) == ("call_long", 402, "quota_exceeded")
    assert "the prompt has 30 tokens" in failed.body["error"]["message"]
    assert [text_of(r) for r in engine.seen] == ["user: A"]
    assert list(run.result()["calls"]["call_a"]["response"]["usage"].values())[:2] == [2, 3]
    await runtime.close()


async def test_prompts_under_way_count_before_an_engine_has_seen_them():
    runtime = await started([ScriptedEngine(window=1)])
    run = runtime.submit(program({f"v{i}": (f"{i} " * 10,) for i in range(3)}, parrot={"quota": {"tokens": 29}}))
    await run.wait()
    assert list(run.errors()) == ["v2"]
    assert "0 tokens are used, 20 more by prompts that are under way" in run.errors()["v2"]["message"]
    assert used(run) == (22, 6, 2)
    await runtime.close()


async def test_what_is_shared_uses_up_no_quota():
    gate = asyncio.Event()
    engine = ScriptedEngine(gate=gate)
    runtime = await started([engine])
    first = runtime.submit(program({"a": ("A",)}))
    await engine.until(running=1)
    second = runtime.submit(program({"a": ("A",), "b": ("B",)}, parrot={"quota": {"tokens": 6}}))
    await until(lambda: shared(second) == (1, 3))
    gate.set()
    await asyncio.gather(first.wait(), second.wait())
    assert (second.status, used(second)) == ("finished", (2, 3, 1))
    await runtime.close()


@pytest.mark.parametrize(
    ("quota", "place"),
    [
        ({"tokens": 0}, "parrot.quota.tokens"),
        ({"tokens": -5}, "parrot.quota.tokens"),
        ({"tokens": 1.5}, "parrot.quota.tokens"),
        ({"cost": 0}, "parrot.quota.cost"),
        ({"cost": -1.0}, "parrot.quota.cost"),
        ({"cost": "1"}, "parrot.quota.cost"),
        ({"seconds": 1}, "parrot.quota.seconds"),
        ({}, "parrot.quota"),
    ],
)
def test_a_quota_of_nothing_is_refused(quota, place):
    with pytest.raises(InvalidRequest) as caught:
        program({"a": ("A",)}, parrot={"quota": quota})
    assert caught.value.where == place
    assert place in caught.value.message


async def test_a_quota_of_cost_needs_prices():
    engine, other = ScriptedEngine(), ScriptedEngine(("other",))
    runtime = await started([engine, other], prices=PRICES)
    with pytest.raises(InvalidRequest, match="no price is configured for the model 'other'") as caught:
        runtime.submit(program({"a": ("A",)}, model="other", parrot={"quota": {"cost": 1}}))
    assert (caught.value.where, engine.seen) == ("parrot.quota.cost", [])
    await runtime.submit(program({"a": ("A",)}, model="scripted", parrot={"quota": {"cost": 1}})).wait()
    await runtime.close()


async def test_prices_of_a_model_that_is_not_here_are_refused():
    engine = ScriptedEngine()
    with pytest.raises(ValueError, match="'nobody'; there is: default, scripted"):
        await Runtime([engine], prices={"nobody": PRICES["default"]}).start()
    assert not engine.healthy
