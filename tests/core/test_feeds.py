"""What an engine is told of the calls that follow from the one that it runs."""

from __future__ import annotations

from scripted import ScriptedEngine, text_of

from semantic_parrot.core.feeds import MOST
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import template


async def feeds(calls):
    """Of each call, by its output: the outputs of those that it was said to feed."""
    listed = []
    for output, reads in calls.items():
        parts = [f"<{output}>", *((name,) for name in reads)]
        request = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}]}
        listed.append({"id": output, "output": output, "request": request})
    engine = ScriptedEngine()
    runtime = Runtime([engine], grace=0.05)
    await runtime.start()
    run = runtime.submit(parse_program({"calls": listed}))
    await run.wait()
    await runtime.close()
    assert run.status == "finished"
    told = zip(engine.seen, engine.directed, strict=True)
    scope = f"{run.session.id}/"
    assert all(name.startswith(scope) for directions in engine.directed for name in directions.feeds)
    found = {text_of(request): {name.removeprefix(scope) for name in d.feeds} for request, d in told}
    return {output: next(said for text, said in found.items() if f"<{output}>" in text) for output in calls}


async def test_a_call_feeds_those_that_wait_for_nothing_but_what_runs():
    calls = {"design": (), "a": ("design",), "b": ("design",), "review": ("design", "a"), "end": ("a", "b", "review")}
    assert await feeds(calls) == {
        "design": {"a", "b"},
        "a": {"review"},  # the end waits for it, too
        "b": set(),
        "review": {"end"},
        "end": set(),
    }


async def test_siblings_feed_the_same_call_unless_they_are_many():
    for count, said in ((MOST, {"end"}), (MOST + 1, set())):
        parts = {f"part{i}": () for i in range(count)}
        told = await feeds({**parts, "end": tuple(parts)})
        assert all(told[part] == said for part in parts)


async def test_a_wide_fan_out_is_not_named():
    told = await feeds({"first": (), **{f"part{i}": ("first",) for i in range(MOST + 1)}})
    assert told["first"] == set()
