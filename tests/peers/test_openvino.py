"""OpenVINO GenAI in a process of ours: the conformance tests, and what our own engine answers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from importlib.util import find_spec

import peer_demo as demo
import pytest
import pytest_asyncio
from live import LiveServer

from engines.check import difference, reference
from peers.home import home
from peers.openvino import OpenVino
from peers.peer import Setup
from semantic_parrot.core.engines.conformance import EngineConformance
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.openvino import OpenVinoEngine
from semantic_parrot.core.engines.protocol import Delta
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling


@pytest.fixture(scope="session")
def exported(checkpoint):
    """The model as OpenVINO reads it, made by the tools of `make peers`."""
    peer, setup = OpenVino(home()), Setup(checkpoint, "float32", 1)
    why = peer.missing()
    if find_spec("openvino_genai") is None:
        why = "not installed: pip install 'semantic-parrot[openvino]'"
    if why is not None:
        (pytest.fail if os.environ.get("PARROT_PEERS_REQUIRED") else pytest.skip)(f"openvino: {why}")
    return peer.convert(setup)


def sentence(words, seed, count=40):
    return " ".join(random.Random(seed).choices(words, k=count))


def engine_of(path, **options):
    return OpenVinoEngine(path, names=("tiny", "default"), threads=1, kv_tokens=16384, **options)


def ask(prompt, max_tokens=16, **sampling):
    return ModelRequest("tiny", None, prompt, Sampling(max_tokens=max_tokens, **{"temperature": 0.0, **sampling}))


async def done(engine, request):
    return [item async for item in engine.generate(request)][-1]


class TestOpenVino(EngineConformance):
    told = False
    equal = False  # in company, prompts are summed in another order

    @classmethod
    def make(cls, request):
        return engine_of(request.getfixturevalue("exported"))

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def own(cls, checkpoint):
        engine = NativeEngine(checkpoint, names=("tiny",), deterministic=True, threads=1, kv_tokens=16384)
        await engine.start()
        yield engine
        await engine.close()

    async def test_greedy_text_is_that_of_generate(self, engine, checkpoint, words):
        prompts = [sentence(words, seed) for seed in range(3)]
        found = await asyncio.gather(*(done(engine, ask(prompt)) for prompt in prompts))
        assert difference(reference(checkpoint, prompts, 16), [one.text for one in found]) is None

    @pytest.mark.parametrize(
        "options",
        [
            {"repetition_penalty": 1.8},
            {"stop_token_ids": "second", "min_tokens": 6},
            {"stop_token_ids": "second"},
            {"temperature": 1.0, "top_k": 1},
            {"temperature": 0.7, "top_p": 1e-6},
            {"temperature": 1.0, "min_p": 1.0},
        ],
        ids=str,
    )
    async def test_options_mean_what_they_do_on_our_own_engine(self, engine, own, words, options):
        prompt = sentence(words, 7)
        plain = await done(own, ask(prompt))
        if options.get("stop_token_ids"):
            tokens = await own.tokenize(prompt + plain.text)
            options = {**options, "stop_token_ids": (tokens[plain.usage.prompt + 1],)}
        wanted, found = await done(own, ask(prompt, **options)), await done(engine, ask(prompt, **options))
        assert (found.text, found.reason, found.usage.completion) == (
            wanted.text,
            wanted.reason,
            wanted.usage.completion,
        )
        assert (wanted.text == plain.text) == (options.get("temperature", 0) > 0)

    async def test_it_comes_back_when_its_process_is_killed(self, engine, words):
        wanted = (await done(engine, ask(sentence(words, 1)))).text
        items = engine.generate(ask(sentence(words, 1), 400, ignore_eos=True))
        assert isinstance(await anext(items), Delta)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            async for _ in items:
                pass
        await engine.recovered()
        assert (await done(engine, ask(sentence(words, 1)))).text == wanted
        assert (await engine.stats()).running == 0


@pytest.mark.parametrize("cache", [True, False])
async def test_a_prompt_that_comes_again_is_not_computed_again(exported, words, cache):
    engine = engine_of(exported, prefix_cache=cache)
    await engine.start()
    steps = []
    for _ in range(2):
        before = (await engine.stats()).steps
        await done(engine, ask(sentence(words, 1, 1500), 1))
        steps.append((await engine.stats()).steps - before)
    await engine.close()
    assert steps[0] > 2  # of 512 tokens at most
    assert steps[1] == (1 if cache else steps[0])


def test_the_demo_runs_unchanged(exported, checkpoint, words, tmp_path):
    config = tmp_path / "engines.toml"
    config.write_text(f"[engines.theirs]\nkind = 'openvino'\nmodel = '{exported}'\nthreads = 1\nkv_tokens = 16384\n")
    with LiveServer("--config", str(config)) as server:
        said, trips = demo.lowered(server, words)
    assert trips == 2
    with LiveServer("--model", str(checkpoint), "--deterministic") as server:
        assert said == demo.eager(server.url, "default", words)
