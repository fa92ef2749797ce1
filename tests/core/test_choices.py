"""Several choices of one request, told as one answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from semantic_parrot.core.engines.choices import answer
from semantic_parrot.core.engines.protocol import Choice, Delta, Done, Usage
from semantic_parrot.core.errors import BadLogits
from semantic_parrot.core.events import Timings
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling


def request(n, temperature=1.0, seed=7):
    return ModelRequest("m", None, "x", Sampling(temperature=temperature, seed=seed, n=n))


class Script:
    """An engine for one choice at a time: it says the seed it was given, in two pieces; `turn` is passed between."""

    def __init__(self, fails=None):
        self.seeds = []
        self.ended = 0
        self.fails = fails
        self.go = asyncio.Event()

    async def one(self, request):
        assert request.sampling.n == 1
        seed = request.sampling.seed
        mine = len(self.seeds)
        self.seeds.append(seed)
        used = Usage(10, 0 if mine == 0 else 9, 1)
        try:
            yield Delta("seed ", used)
            if mine == self.fails:
                raise BadLogits("no number")
            await self.go.wait()
            yield Delta(str(seed), Usage(10, used.cached, 2))
            timings = Timings(prefill=1.0, decode=float(mine))
            yield Done(f"seed {seed}", "stop", Usage(10, used.cached, 2), timings=timings)
        finally:
            self.ended += 1


async def collect(items, texts):
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Done):
                return item
            texts[item.index] = texts.get(item.index, "") + item.text
            texts["usage"] = item.usage


async def test_one_is_passed_on():
    script = Script()
    script.go.set()
    done = await collect(answer(request(1), script.one), {})
    assert script.seeds == [7]
    assert done.others == ()
    assert done.usage == Usage(10, 0, 2)


async def test_each_has_a_seed_that_follows_from_the_first():
    script, texts = Script(), {}
    script.go.set()
    done = await collect(answer(request(4), script.one), texts)
    assert script.seeds[0] == 7
    assert len(set(script.seeds)) == 4
    assert all(-(2**63) <= seed < 2**63 for seed in script.seeds)
    assert [choice.text for choice in done.choices] == [f"seed {seed}" for seed in script.seeds]
    assert [texts[i] for i in range(4)] == [choice.text for choice in done.choices]
    assert done.usage == Usage(10, 0, 8)  # the prompt once; what was cached of it as the first one found it
    assert texts["usage"] == done.usage
    assert done.timings == Timings(prefill=1.0, decode=3.0)
    again = Script()
    again.go.set()
    await collect(answer(request(4), again.one), {})
    assert again.seeds == script.seeds
    assert set(Sampling(n=4, seed=8).choices()) & set(Sampling(n=4, seed=7).choices()) == set()


async def test_greedy_ones_are_made_once():
    script, texts = Script(), {}
    script.go.set()
    done = await collect(answer(request(3, temperature=0.0), script.one), texts)
    assert script.seeds == [7]
    assert done.choices == (Choice("seed 7", "stop"),) * 3
    assert [texts[i] for i in range(3)] == ["seed 7"] * 3
    assert done.usage == texts["usage"] == Usage(10, 0, 6)


async def test_they_run_together():
    script = Script()
    items = answer(request(3), script.one)
    for _ in range(3):
        await anext(items)
    assert len(script.seeds) == 3
    script.go.set()
    assert isinstance([item async for item in items][-1], Done)


@pytest.mark.parametrize("fails", [0, 2])
async def test_the_first_failure_ends_all(fails):
    script = Script(fails)
    with pytest.raises(BadLogits):
        await collect(answer(request(3), script.one), {})
    assert script.ended == 3


async def test_closing_ends_all():
    script = Script()
    items = answer(request(3), script.one)
    await anext(items)
    await items.aclose()
    assert script.ended == len(script.seeds) == 3
