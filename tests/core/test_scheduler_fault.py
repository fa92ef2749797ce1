"""A fault of our own in the scheduler: whoever waits is told, nobody waits for ever, and what comes later is served."""

import asyncio

import pytest
from scripted import ScriptedEngine

from semantic_parrot.core.errors import InternalError
from semantic_parrot.core.scheduler import Scheduler
from semantic_parrot.core.scheduling import Task


@pytest.mark.parametrize("placed", [0, 1, 2])
async def test_whoever_waits_is_told_and_the_next_are_served(monkeypatch, caplog, placed):
    engine = ScriptedEngine(window=4)
    await engine.start()
    scheduler = Scheduler([engine])
    running = await scheduler.acquire(Task())
    place, left = scheduler.decider._place, [placed]

    def faulty(*args):
        if not left[0]:
            raise KeyError("a bug")
        left[0] -= 1
        return place(*args)

    monkeypatch.setattr(scheduler.decider, "_place", faulty)
    tasks = [Task(prefixes=(1 << 32,), held=(1.0,)) for _ in range(5)]
    refused = await asyncio.wait_for(asyncio.gather(*map(scheduler.acquire, tasks), return_exceptions=True), 10)
    assert [type(error) for error in refused] == [InternalError] * 5
    assert "the scheduler failed" in caplog.text
    assert scheduler.decider.fleet.engines[0].n == 1
    assert len(scheduler.decider.waiting) == 0

    monkeypatch.setattr(scheduler.decider, "_place", place)
    three = await asyncio.wait_for(asyncio.gather(*(scheduler.acquire(Task()) for _ in range(3))), 10)
    waiting = asyncio.create_task(scheduler.acquire(Task()))
    await asyncio.sleep(0)
    assert not waiting.done()
    scheduler.release(running)
    for placement in (*three, await asyncio.wait_for(waiting, 10)):
        scheduler.release(placement)
    assert scheduler.decider.fleet.engines[0].n == 0
