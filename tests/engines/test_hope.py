"""Who waits for an engine that is down: one that is lost again and again is waited for, one that refuses not long."""

import asyncio

from semantic_parrot.core.engines import hope
from semantic_parrot.core.engines.hope import HOPELESS, Hope, Lost
from semantic_parrot.core.engines.protocol import ModelLoadError


def test_what_refuses_is_given_up_and_what_is_lost_is_not():
    lost, refused = Hope(lambda: None), Hope(lambda: None)
    for _ in range(HOPELESS):
        assert not refused.lost
        refused.failed(ModelLoadError("no such model"))
        lost.failed(Lost("killed"))
    assert (refused.lost, lost.lost) == (True, False)
    refused.over()
    assert not refused.lost


def test_tries_are_further_and_further_apart():
    one, pauses = Hope(lambda: None), []
    for _ in range(8):
        pauses.append(one.pause)
        one.failed(Lost("killed"))
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.0
    assert pauses[-1] == pauses[-2] > 0
    one.over()
    assert one.pause == 0.0


async def test_what_stays_down_is_given_up_once_until_it_is_up(monkeypatch):
    monkeypatch.setattr(hope, "PATIENCE", 0.01)
    late, times = asyncio.Event(), []
    one = Hope(lambda: (times.append(1), late.set()))
    for _ in range(3):  # each try that begins
        one.down()
    async with asyncio.timeout(30):
        await late.wait()
    assert one.lost
    assert times == [1]
    one.over()
    assert not one.lost
    one.down()
    one.over()  # it was soon enough
    await asyncio.sleep(0.05)
    assert (one.lost, times) == (False, [1])
