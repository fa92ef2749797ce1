"""The log of a run, read one by one and together."""

from __future__ import annotations

import asyncio

from semantic_parrot.core.events import CallAborted, RunFinished, RunStarted
from semantic_parrot.core.log import TOGETHER, Log

EVENTS = [RunStarted(id="r"), *(CallAborted(id=str(i), reason="") for i in range(2 * TOGETHER))]
END = RunFinished(id="r", status="failed", outputs={}, errors={})


async def test_what_is_there_is_read_together_and_the_rest_as_it_comes():
    log = Log()
    for event in EVENTS[:3]:
        log.append(event)
    batches = log.read_together()
    assert await anext(batches) == [(1, EVENTS[0]), (2, EVENTS[1]), (3, EVENTS[2])]
    more = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    assert not more.done()
    log.append(EVENTS[3])
    log.append(END)
    assert await more == [(4, EVENTS[3]), (5, END)]
    assert [batch async for batch in batches] == []


async def test_who_comes_late_reads_all_of_it_a_part_at_a_time():
    log = Log()
    for event in (*EVENTS, END):
        log.append(event)
    batches = [batch async for batch in log.read_together(after=2)]
    assert max(map(len, batches)) == TOGETHER
    assert [pair for batch in batches for pair in batch] == list(enumerate([*EVENTS[2:], END], 3))
    assert [pair async for pair in log.read(after=2)] == [pair for batch in batches for pair in batch]
