"""What a response writes in one turn of the loop leaves in one piece, in order, and not too large."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from semantic_parrot.server.corked import MOST, Corked
from semantic_parrot.server.protocol import HUNG_UP
from semantic_parrot.server.streams import WhileThere


class Transport:
    def __init__(self) -> None:
        self.did: list[Any] = []

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def close(self) -> None:
        self.did.append("close")

    def is_closing(self) -> bool:
        return "close" in self.did


@pytest.fixture
def wire() -> Transport:
    return Transport()


@pytest.fixture
async def corked(wire) -> Corked:
    return Corked(wire, asyncio.get_running_loop(), wire.close)


async def test_a_turn_is_a_piece(wire, corked):
    for turn in (b"abc", b"de"):
        for byte in turn:
            corked.write(bytes([byte]))
        assert turn not in wire.did
        await asyncio.sleep(0)
    assert wire.did == [b"abc", b"de"]


async def test_a_large_piece_does_not_wait(wire, corked):
    """The transport has a limit of its own, at which it stops whoever writes."""
    for _ in range(3):
        corked.write(b"x" * (MOST // 2 + 1))
    assert [len(piece) for piece in wire.did] == [MOST + 2]
    corked.close()
    assert [len(piece) for piece in wire.did[:2]] == [MOST + 2, MOST // 2 + 1]
    assert corked.is_closing()
    await asyncio.sleep(0)
    assert len(wire.did) == 3


async def test_what_is_written_before_the_end_comes_before_it(wire, corked):
    corked.write(b"last words")
    corked.close()
    assert wire.did == [b"last words", "close"]


@pytest.fixture
async def hung_up() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_work_ends_when_its_client_hangs_up(hung_up):
    ended = []

    async def work() -> None:
        try:
            hung_up.set_result(None)
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(ClientDisconnect):
        async with WhileThere({HUNG_UP: hung_up}):
            await work()
    assert ended == [True]
    await asyncio.sleep(0)  # nothing is left that would cancel what comes after


async def test_work_of_a_client_that_has_hung_up_before_ends_too(hung_up):
    hung_up.set_result(None)
    with pytest.raises(ClientDisconnect):
        async with WhileThere({HUNG_UP: hung_up}):
            await asyncio.Event().wait()


@pytest.mark.parametrize("meanwhile", [False, True])
async def test_work_that_ends_first_is_not_disturbed(hung_up, meanwhile):
    async with WhileThere({HUNG_UP: hung_up}):
        await asyncio.sleep(0)
        if meanwhile:
            hung_up.set_result(None)
    if not meanwhile:
        hung_up.set_result(None)
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_cancellation_from_elsewhere_stays_one(hung_up):
    async def work() -> None:
        async with WhileThere({HUNG_UP: hung_up}):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
