"""Who is cancelled in the moment of its turn leaves no trace, and its place goes to the next."""

import asyncio

from scripted import ScriptedEngine

from semantic_parrot.core.scheduler import Scheduler
from semantic_parrot.core.scheduling import Task


async def test_a_turn_that_comes_too_late_is_the_next_ones():
    engine = ScriptedEngine(window=2)
    await engine.start()
    scheduler = Scheduler([engine])
    running = [await scheduler.acquire(Task()) for _ in range(2)]
    gone = [asyncio.create_task(scheduler.acquire(Task(priority=1))) for _ in range(5)]
    last = [asyncio.create_task(scheduler.acquire(Task())) for _ in range(2)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    for placement in running:  # before those that are cancelled know of it
        scheduler.release(placement)
    async with asyncio.timeout(60):
        for error in await asyncio.gather(*gone, return_exceptions=True):
            assert isinstance(error, asyncio.CancelledError)
        for placement in await asyncio.gather(*last):
            scheduler.release(placement)
    assert scheduler.decider.fleet.engines[0].n == 0
    assert scheduler.waiting() == len(scheduler.decider.waiting) == 0


async def test_whoever_has_its_turn_and_is_cancelled_gives_it_back():
    engine = ScriptedEngine(window=1)
    await engine.start()
    scheduler = Scheduler([engine])
    running = await scheduler.acquire(Task())
    task, last = (asyncio.create_task(scheduler.acquire(Task(priority=p))) for p in (1, 0))
    await asyncio.sleep(0)
    scheduler.release(running)
    task.cancel()
    async with asyncio.timeout(60):
        scheduler.release(await last)
    assert scheduler.decider.fleet.engines[0].n == 0
