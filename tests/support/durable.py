"""What tests of durable runs share: a program of every kind of node, and how a run is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from programs import request
from scripted import ScriptedEngine, answer

from semantic_parrot.core.engines.protocol import UNDIRECTED
from semantic_parrot.core.errors import EngineFailed
from semantic_parrot.core.runtime import Runtime

BACKGROUND = {"lifetime": "background"}


def call(output, *parts, **fields):
    return {"id": f"call_{output}", "output": output, "request": request(*parts, **fields)}


def body(*calls, **fields):
    return {"calls": list(calls), "parrot": BACKGROUND, **fields}


#: A chain, a fan-out over a model's own list, a choice, a sampled call, one that fails and one that then never runs.
RICH = body(
    call("list", "List them"),
    call("sampled", "Draw ", ("list",), temperature=1.0),
    call("bad", "FAIL"),
    call("never", "After ", ("bad",)),
    call("end", "Merge ", ("joined",), " and ", ("sampled",), " and ", ("chosen",)),
    transforms=[
        {"id": "split", "op": "split", "of": "list", "output": "items"},
        {"id": "join", "op": "join", "of": "entries", "output": "joined", "sep": ", "},
        {"id": "test", "op": "compare", "test": "contains", "of": "sampled", "to": {"value": "w"}, "output": "flag"},
    ],
    maps=[
        {
            "id": "each",
            "over": "items",
            "item": "item",
            "bound": 5,
            "output": "entries",
            "result": "entry",
            "calls": [call("entry", "Say ", ("item",))],
        }
    ],
    branches=[
        {
            "id": "way",
            "on": "flag",
            "output": "chosen",
            "arms": [{"when": True, "result": "yes", "calls": [call("yes", "Yes ", ("list",))]}],
            "default": {"result": "no", "calls": [call("no", "No")]},
        }
    ],
    outputs=["end", "never"],
    deltas="all",
)


def fail(asked):
    return EngineFailed("a scripted failure") if asked.messages[0].content == "FAIL" else None


def drawn(asked):
    """As `answer`; what is sampled depends on the seed."""
    return answer(asked) + ("" if asked.sampling.temperature == 0 else f" s{asked.sampling.seed}")


class Paced(ScriptedEngine):
    """Each word in a turn of its own."""

    async def generate(self, asked, directions=UNDIRECTED):
        async with aclosing(super().generate(asked, directions)) as items:
            async for item in items:
                await asyncio.sleep(0)
                yield item


async def started(journal, engine=None, **options):
    engine = engine or Paced(fail=fail, answers=drawn)
    runtime = Runtime([engine], journal=journal, **options)
    await runtime.start()
    return runtime


async def until(holds):
    """Turn by turn of the loop: what is waited for happens in another thread, or with no event."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def told(run, after=0):
    return [(number, event) async for number, event in run.events(after)]


def known(events):
    """What a client can tell apart; times are another run's."""
    return [(number, event.model_dump(exclude={"timings", "schedule", "usage"})) for number, event in events]


def finished(events):
    return {event.id: event.content_key for _, event in events if event.type in ("call.finished", "call.failed")}


def text(events, call_id):
    return "".join(event.text for _, event in events if event.type == "variable.delta" and event.id == call_id)


def text_of(events):
    return {event.id: text(events, event.id) for _, event in events if event.type == "variable.delta"}
