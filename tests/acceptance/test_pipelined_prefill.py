"""Pipelined prefill on the real engine: it is found, and it changes no token."""

import asyncio
import contextlib

import pytest
from kept import Kept
from tiny_models import make_model

from semantic_parrot.core import ahead
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.wire import template


def request(tokens, *parts):
    messages = [{"role": "user", "content": template(*parts)}]
    return {"model": "m", "temperature": 0, "max_tokens": tokens, "ignore_eos": True, "messages": messages}


CALLS = {
    "long": request(300, "Write down the whole day: "),
    "short": request(40, "A word on the fog, "),
    "title": request(20, "Constant beginning, long enough to fill two blocks: ", ("long",), " Title: "),
    "last": request(20, "Join ", ("short",), " and ", ("title",), " into one. ", ("long",)),
}


@contextlib.asynccontextmanager
async def started(model, count):
    """`count` engines, for several runtimes one after the other."""
    engines = [NativeEngine(model, names=("m",), deterministic=True, name=f"e{i}", threads=1) for i in range(count)]
    await asyncio.gather(*(engine.start() for engine in engines))
    try:
        yield [Kept(engine) for engine in engines]
    finally:
        await asyncio.gather(*(engine.close() for engine in engines))


async def outputs(engines, requests=CALLS, **options):
    """The text and the usage of each call."""
    runtime = Runtime(engines, **options)
    await runtime.start()
    calls = [{"id": name, "output": name, "request": body} for name, body in requests.items()]
    run = runtime.submit(parse_program({"calls": calls, "outputs": list(requests)}))
    await run.wait()
    assert run.status == "finished", run.errors()
    assert [(await engine.stats()).kv_blocks_used for engine in engines] == [0] * len(engines)
    await runtime.close()
    return run.outputs(), {name: call["response"]["usage"] for name, call in run.result()["calls"].items()}


def computed(usage):
    """Prompt tokens that the call itself had to compute."""
    return usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model("llama", tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("count", [1, 2])
async def test_the_same_text_with_most_of_the_prompt_filled_ahead(model, monkeypatch, count):
    monkeypatch.setattr(ahead, "EVERY", 100)
    async with started(model, count) as engines:
        on, usage = await outputs(engines)
        off, plain = await outputs(engines, disable={"prefill-ahead"})
    assert on == off
    assert computed(usage["title"]) < usage["title"]["prompt_tokens"] * 2 / 3
    assert computed(usage["title"]) < computed(plain["title"]) - 16


DAY = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay, day after day. "
SECOND, THIRD = f"Second. {DAY * 8}", f"Third. {DAY * 8}"
DEEP = {
    "first": request(120, "Begin: "),
    "second": request(20, SECOND, ("first",), "!"),
    "third": request(20, THIRD, ("second",), "!"),
}


@pytest.mark.parametrize("count", [1, 2])
async def test_constants_of_later_calls_are_there_when_they_start(model, count):
    """Each computes what its variable adds, and no constant; the answers are those without."""
    async with started(model, count) as engines:
        constants = {"second": await engines[0].tokenize(SECOND), "third": await engines[0].tokenize(THIRD)}
        on, usage = await outputs(engines, DEEP)
        off, plain = await outputs(engines, DEEP, disable={"prefill-ahead"})
    assert on == off
    for name, constant in constants.items():
        assert computed(plain[name]) > len(constant) > 200
        assert computed(usage[name]) <= usage[name]["prompt_tokens"] - len(constant) + 4
