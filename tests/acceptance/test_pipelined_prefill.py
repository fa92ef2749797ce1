"""Pipelined prefill on the real engine: it is found, and it changes no token."""

import pytest
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


async def outputs(model, **options):
    engine = NativeEngine(model, names=("m",), deterministic=True)
    runtime = Runtime([engine], **options)
    await runtime.start()
    calls = [{"id": name, "output": name, "request": body} for name, body in CALLS.items()]
    run = runtime.submit(parse_program({"calls": calls, "outputs": list(CALLS)}))
    await run.wait()
    stats = await engine.stats()
    await runtime.close()
    assert run.status == "finished", run.errors()
    assert stats.kv_blocks_used == 0
    return run.outputs(), {name: call["response"]["usage"] for name, call in run.result()["calls"].items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model("llama", tmp_path_factory.mktemp("model"))


async def test_the_same_text_with_most_of_the_prompt_filled_ahead(model, monkeypatch):
    monkeypatch.setattr(ahead, "EVERY", 100)
    on, usage = await outputs(model)
    off, plain = await outputs(model, disable={"prefill-ahead"})
    assert on == off
    cached, prompt = (usage["title"]["prompt_tokens_details"]["cached_tokens"], usage["title"]["prompt_tokens"])
    assert cached > prompt / 3
    assert cached > plain["title"]["prompt_tokens_details"]["cached_tokens"] + 16
