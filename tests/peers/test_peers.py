"""Parrot before the real servers of others: the conformance tests, and an app's answers, the same as on our own."""

from __future__ import annotations

import asyncio
import random

import peer_demo as demo
import psutil
import pytest
from live import LiveServer

from engines.check import difference, reference
from semantic_parrot.core.engines.conformance import EngineConformance
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.engines.remote import RemoteEngine
from semantic_parrot.core.errors import Unsupported
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling


class TestPeer(EngineConformance):
    """What a kind lacks is what its row of docs/engines.md says."""

    @classmethod
    def make(cls, request):
        peer = request.getfixturevalue("peer")
        return engine_of(peer, priority=peer[0] == "vllm")

    @pytest.fixture(autouse=True)
    def _known(self, peer):
        kind = peer[0]
        self.told = self.several = self.counted = self.bounded = kind != "transformers"
        self.seeded = kind != "transformers"  # continuous batching draws from one stream for all
        # Cached and chunked prompts are summed in another order: near-ties may fall the other way.
        self.equal = False


def engine_of(peer, **options):
    kind, url, model = peer
    return RemoteEngine(url, dialect=kind, model=model, **options)


def sentence(words, seed, count=40):
    return " ".join(random.Random(seed).choices(words, k=count))


async def test_greedy_text_is_that_of_generate(peer, checkpoint, words):
    engine = engine_of(peer)
    await engine.start()
    prompts = [sentence(words, seed) for seed in range(3)]

    async def text(prompt):
        request = ModelRequest("default", None, prompt, Sampling(temperature=0.0, max_tokens=16))
        return [item async for item in engine.generate(request)][-1].text

    texts = await asyncio.gather(*(text(prompt) for prompt in prompts))
    await engine.close()
    assert difference(reference(checkpoint, prompts, 16), texts) is None


def test_the_demo_runs_unchanged(peer, checkpoint, words, tmp_path):
    """Two chains, a round trip each; the texts are those of the server itself, call by call, and of our own engine."""
    kind, url, model = peer
    config = tmp_path / "engines.toml"
    config.write_text("\n".join(["[engines.theirs]", f"kind = '{kind}'", f"url = '{url}'", f"model = '{model}'"]))
    with LiveServer("--config", str(config)) as server:
        said, trips = demo.lowered(server, words)
    assert trips == 2
    assert said == demo.eager(url, model, words)
    with LiveServer("--model", str(checkpoint), "--deterministic") as server:
        assert said == demo.eager(server.url, "default", words)


async def overtaken_by(engine, words, seed):
    """How many of 16 long requests have ended when a short one has that came last, for latency. vLLM's scheduler stands
    still until it holds all of them: what it does next depends on nobody's pace."""
    came = asyncio.Semaphore(0)

    async def count(_):
        came.release()

    async def ask(name, rank):
        options = Sampling(temperature=0.0, max_tokens=8, ignore_eos=True)
        request = ModelRequest("default", None, sentence(words, f"{seed} {name}", 3000 if rank else 40), options)
        async for _ in engine.generate(request, Directions(rank)):
            pass

    engine._http.event_hooks["response"].append(count)
    (scheduler,) = (p for p in psutil.Process().children(recursive=True) if "EngineCore" in "".join(p.cmdline()))
    scheduler.suspend()
    try:
        tasks = [asyncio.create_task(ask(f"batch {i}", 2)) for i in range(16)]
        for _ in tasks:  # an answer begins when its request is handed on
            await came.acquire()
        chat = asyncio.create_task(ask("chat", 0))
        await came.acquire()
    finally:
        scheduler.resume()
    await chat
    ended = sum(task.done() for task in tasks)
    await asyncio.gather(*tasks)  # none of them has failed
    return ended


async def test_vllm_takes_priorities(peer, words):
    """It runs four at a time: a latency call that comes last overtakes those that wait."""
    if peer[0] != "vllm":
        pytest.skip("vLLM alone has priorities here")
    places = []
    for priority in (False, True):
        engine = engine_of(peer, priority=priority)
        await engine.start()
        places.append(await overtaken_by(engine, words, f"priority {priority}"))  # in no cache
        await engine.close()
    assert places[1] < 12 < places[0]


async def test_what_was_reused_is_told(peer, words):
    if peer[0] == "transformers":
        pytest.skip("it does not say")
    engine = engine_of(peer)
    await engine.start()
    request = ModelRequest("default", None, sentence(words, "again", 300), Sampling(temperature=0.0, max_tokens=2))
    usages = [[item async for item in engine.generate(request)][-1].usage for _ in range(2)]
    await engine.close()
    # llama.cpp is started without its prompt cache, as the benchmarks want it.
    assert usages[1].cached > 200 if peer[0] == "vllm" else usages[1].cached == 0
    assert usages[0].prompt == usages[1].prompt > 250


async def test_vllm_keeps_salts_apart(peer, words):
    if peer[0] != "vllm":
        pytest.skip("vLLM alone has salts here")
    engine = engine_of(peer)
    await engine.start()
    request = ModelRequest("default", None, sentence(words, "salted", 300), Sampling(temperature=0.0, max_tokens=2))
    cached = []
    for salt in ("ann", "ann", "bob", "bob", ""):
        directions = Directions(salt=salt)
        cached.append([item async for item in engine.generate(request, directions)][-1].usage.cached)
    await engine.close()
    assert [tokens > 200 for tokens in cached] == [False, True, False, True, False]


async def test_what_it_does_not_tell_is_refused(peer):
    engine = engine_of(peer)
    await engine.start()
    if peer[0] == "transformers":
        with pytest.raises(Unsupported):
            await engine.tokenize("a")
    else:
        assert await engine.tokenize("a ship")
    await engine.close()
