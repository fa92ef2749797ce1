"""A cold fan-out fills its shared prefix once, whatever becomes of the one that fills it."""

from __future__ import annotations

import asyncio

import pytest

from semantic_parrot.core.engine.kv import BLOCK_SIZE
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime

SIBLINGS = 64
LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


class FanOut:
    """Siblings that share about 1,000 tokens. `drop`: one that is not counted, and has no answer to compare."""

    def __init__(self, b, ask):
        self.b, self.ask = b, ask
        shared = LINE
        while len(b.loop.text.encode(shared)) < 1000:
            shared += LINE
        self.prompts = [f"{shared}Entry {n}" for n in range(SIBLINGS)]
        self.prefix = len(b.loop.text.encode(shared))
        self.ids = []

    def submit(self, *numbers, rank=0):
        self.ids += [self.b.submit(self.ask(self.prompts[n], 3), Directions(rank)) for n in numbers]

    def check(self, alone, drop=()):
        b = self.b
        b.drain()
        done = [b.done[id] for id in self.ids if id not in drop]
        suffixes = sum(d.usage.prompt - self.prefix for d in done)
        assert b.loop.stats().prompt_tokens_computed <= self.prefix + suffixes + BLOCK_SIZE * SIBLINGS
        assert b.loop.stats().kv_blocks_used == 0
        for n in (0, 1, SIBLINGS // 2, SIBLINGS - 1):
            if n + 1 not in drop:
                assert b.done[n + 1].text == alone[n]


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("llama", max_position_embeddings=2048)


@pytest.fixture(params=[4096, 700], ids=["one step for several prompts", "several steps for a prompt"])
def fan(model, bench, ask, request):
    return FanOut(bench(model, deterministic=True, chunk=request.param), ask)


@pytest.fixture
def slow(model, bench, ask):
    return FanOut(bench(model, deterministic=True, chunk=256), ask)


@pytest.fixture(scope="module")
def alone(model, bench, ask):
    """Some siblings by themselves."""
    texts = {}
    for n in (0, 1, SIBLINGS // 2, SIBLINGS - 1):
        b = bench(model, deterministic=True)
        texts[n] = b.run(ask(FanOut(b, ask).prompts[n], 3))[0].text
    return texts


def test_together(fan, alone):
    fan.submit(*range(SIBLINGS))
    fan.check(alone)


def test_staggered(fan, alone):
    for start in range(0, SIBLINGS, 8):
        fan.submit(*range(start, start + 8))
        fan.b.step()
    fan.check(alone)


def test_the_leader_is_cancelled_in_mid_prefill(slow, alone):
    slow.submit(*range(SIBLINGS))
    for gone in (1, 2):
        slow.b.step()
        assert slow.b.loop.stats().running == 1
        slow.b.loop.cancel(gone)
    slow.check(alone, drop=(1, 2))


def test_the_leader_is_preempted_in_mid_prefill(slow, alone):
    """By one that shares its prefix, and leads from then on."""
    slow.submit(*range(SIBLINGS - 1), rank=2)
    slow.b.step()
    slow.submit(SIBLINGS - 1)
    slow.b.step()
    assert [s.id for s in slow.b.loop._planner.running] == [SIBLINGS]
    slow.check(alone)


def test_the_leader_is_preempted_for_memory(model, bench, ask, alone):
    fan = FanOut(bench(model, deterministic=True, chunk=256, kv_tokens=2048), ask)
    fan.submit(*range(8), rank=2)
    fan.b.step()
    stranger = fan.b.submit(ask("x" * 1100, 3), Directions(0))
    fan.b.step()
    assert [s.id for s in fan.b.loop._planner.running] == [stranger]
    fan.b.drain()
    done = [fan.b.done[id] for id in fan.ids]
    computed = fan.b.loop.stats().prompt_tokens_computed - fan.b.done[stranger].usage.prompt
    # What the stranger's blocks took from the tree is computed again, once: not by each sibling.
    assert computed <= 2 * fan.prefix + sum(d.usage.prompt - fan.prefix for d in done) + 8 * BLOCK_SIZE
    assert done[0].text == alone[0]


async def test_a_cancelled_run_of_100_calls_holds_nothing(model):
    engine = NativeEngine(model, names=("m",), deterministic=True, threads=1, kv_tokens=16384)
    runtime = Runtime([engine], grace=0.05)
    await runtime.start()
    body = {"model": "m", "temperature": 0, "max_tokens": 400, "ignore_eos": True}
    calls = [
        {"id": f"c{n}", "output": f"v{n}", "request": {**body, "prompt": f"{LINE * 3}Entry {n}"}} for n in range(100)
    ]
    run = runtime.submit(parse_program({"calls": calls, "deltas": "all"}))
    async for _, event in run.events():
        if event.type == "variable.delta":
            break
    assert (await engine.stats()).kv_blocks_used > 0
    run.cancel()
    async with asyncio.timeout(30):
        while (stats := await engine.stats()).running or stats.waiting:
            pass
    assert stats.kv_blocks_used == 0
    assert not runtime.calls.schedulers[0].decider.fleet.engines[0].n
    await runtime.close()
