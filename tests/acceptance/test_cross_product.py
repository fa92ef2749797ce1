"""Every optimisation on and off, on the native engine: the same greedy tokens for every call of every program.

All combinations would be a thousand. Run are: all, none, each left out, and rows in which every two optimisations are
seen in all of their four states together.
"""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from kept import Kept
from tiny_models import make_model

from semantic_parrot.core import ahead
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.scheduling import OPTIMISATIONS
from semantic_parrot.core.wire import template

NAMES = sorted(OPTIMISATIONS)
BLOCKS = 19  # of 16 tokens: fewer than the programs below need at once

SYSTEM = "You are the harbour master's clerk. You answer in one short sentence and you name the ship. "
ENTRIES = ["the ferry Quail left at seven", "fog until noon", "the pilot took the Kestrel in", "no cargo today"]


def request(tokens, *parts):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template(*parts)}]
    return {"model": "m", "temperature": 0, "max_tokens": tokens, "ignore_eos": True, "messages": messages}


def map_reduce(tokens):
    calls = {f"s{i}": request(tokens, f"Summarise: {entry}") for i, entry in enumerate(ENTRIES)}
    calls["report"] = request(
        tokens, "Write one report of these, in order: ", *((f"s{i}",) for i in range(len(ENTRIES)))
    )
    calls["title"] = request(
        tokens, "Here is the report, and it wants a title that fits. ", ("report",), " The title: "
    )
    return calls


CHAIN = {
    "a": request(36, "Begin the log of the day: "),
    "b": request(6, "A constant beginning of its own, for the second entry. ", ("a",), " Go on: "),
    "c": request(6, "And another constant for the last entry of all. ", ("b",), " The end: "),
}
EQUAL = {"x": request(5, "What is the tide?"), "y": request(5, "What is the tide?"), "z": request(4, ("x",), ("y",))}

#: (calls, Parrot's options), all submitted at once.
PROGRAMS = [
    (map_reduce(6), {"objectives": {"title": "latency"}}),
    (map_reduce(6), {"objectives": {"title": "throughput"}, "priority": -1}),
    (map_reduce(20), {"deadline_ms": 600_000}),
    (CHAIN, {"objectives": {"c": "throughput"}, "priority": 3}),
    (EQUAL, {}),
]
CALLS = sum(len(calls) for calls, _ in PROGRAMS)


def covering(strength):
    """Sets of names such that any `strength` names are seen there in every state, in and out; greedy, seeded."""
    rng = random.Random(0)
    every = itertools.product(
        itertools.combinations(NAMES, strength), itertools.product((False, True), repeat=strength)
    )
    missing = {frozenset(zip(names, states, strict=True)) for names, states in every}
    rows = []
    while missing:
        drawn = [{name: rng.random() < 0.5 for name in NAMES} for _ in range(40)]
        seen = [{want for want in missing if want <= row.items()} for row in drawn]
        best = max(range(len(drawn)), key=lambda i: len(seen[i]))
        if seen[best]:
            rows.append(frozenset(name for name, inside in drawn[best].items() if inside))
            missing -= seen[best]
    return rows


def combinations():
    """What to disable, each once, nothing first."""
    alone = [frozenset({name}) for name in NAMES]
    rows = [frozenset(), OPTIMISATIONS, *alone, *covering(2)]
    return list(dict.fromkeys(rows))


async def texts(engine, disable):
    """Of every call; and how many calls the engine executed."""
    runtime = Runtime([engine], disable=disable)
    await runtime.start()
    runs = []
    for calls, options in PROGRAMS:
        listed = [{"id": name, "output": name, "request": body} for name, body in calls.items()]
        runs.append(runtime.submit(parse_program({"calls": listed, "outputs": list(calls), "parrot": options})))
    async with asyncio.timeout(60):
        for run in runs:
            await run.wait()
    assert [run.errors() for run in runs] == [{}] * len(runs)
    assert (await engine.stats()).kv_blocks_used == 0
    await runtime.close()
    return [run.outputs() for run in runs], runtime.calls.executed


def started(model, **options):
    return NativeEngine(model, names=("m",), deterministic=True, threads=1, kv_tokens=BLOCKS * 16, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model("llama", tmp_path_factory.mktemp("model"))


def test_the_rows_cover_what_they_should():
    rows = combinations()
    assert len(rows) < 30
    for names in itertools.combinations(NAMES, 2):
        assert len({tuple(name in row for name in names) for row in rows}) == 4


async def test_any_optimisations_on_any_off_same_tokens(model, monkeypatch):
    monkeypatch.setattr(ahead, "EVERY", 40)
    engine, plain = started(model), started(model, prefix_cache=False)
    await asyncio.gather(engine.start(), plain.start())
    try:
        expected, _ = await texts(Kept(plain), OPTIMISATIONS)
        assert len({str(found) for found in expected}) == len(PROGRAMS) - 1  # two are one program
        total = (await plain.stats()).prompt_tokens_computed
        assert total > 3 * BLOCKS * 16, "memory is not tight"
        for disable in combinations():
            found, executed = await texts(Kept(engine), disable)
            assert found == expected, f"without {sorted(disable)}"
            assert (executed == CALLS) == ("single-flight" in disable)  # else all of this compared like with like
        found, _ = await texts(Kept(plain), frozenset())
        assert found == expected, "without a prefix cache"
    finally:
        await asyncio.gather(engine.close(), plain.close())
