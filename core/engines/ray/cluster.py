"""A Ray cluster, as the server sees it: through a process of its own (`placer.py`), started when it is needed and again
when it has ended. Ray is not imported here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from typing import Any

from semantic_parrot.core.engine.child import LINE
from semantic_parrot.core.engines.hope import Lost
from semantic_parrot.core.engines.ray.messages import (
    Drop,
    Gone,
    Join,
    Joined,
    Needs,
    NoCluster,
    Order,
    Place,
    Placed,
    Word,
    decode_word,
    encode_order,
)
from semantic_parrot.core.engines.ray.replica import Replica

log = logging.getLogger(__name__)

#: Seconds that the process for Ray has to leave the cluster.
LEAVE = 5.0


class NotPlaced(Lost):
    """There is no process: no cluster, or none of its nodes takes one."""


class Link:
    """The process for Ray, once it has joined the cluster."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.alive = True
        self._process, self._reader, self._writer = process, reader, writer
        self._ids = itertools.count(1)
        self._placed: dict[int, asyncio.Future[Placed]] = {}
        self._gone: dict[int, asyncio.Future[str]] = {}
        self._listener = asyncio.create_task(self._listen(), name="listener of the process for Ray")

    def say(self, order: Order) -> None:
        if self.alive:
            self._writer.write(encode_order(order))

    async def place(self, needs: Needs) -> Replica:
        """Returns once it listens on a node that had room. Cancelled: it is not wanted. Raises NotPlaced."""
        id, loop = next(self._ids), asyncio.get_running_loop()
        placed: asyncio.Future[Placed] = loop.create_future()
        gone: asyncio.Future[str] = loop.create_future()
        self._placed[id], self._gone[id] = placed, gone
        self.say(Place(id, needs))
        try:
            either: set[asyncio.Future[Any]] = {placed, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not placed.done():
                raise NotPlaced(f"it can't be placed: {gone.result()}")
            return Replica(placed.result(), gone, lambda: self.say(Drop(id)))
        except asyncio.CancelledError:
            self.say(Drop(id))
            raise
        finally:
            del self._placed[id]

    async def close(self) -> None:
        self._writer.close()
        try:
            await asyncio.wait_for(self._process.wait(), LEAVE)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._hear(decode_word(line))
        except ConnectionError:
            pass
        finally:
            self.alive = False
            self._writer.close()
            for gone in self._gone.values():
                gone.set_result("the cluster was left")
            self._gone.clear()

    def _hear(self, word: Word) -> None:
        match word:
            case Placed(id):
                if id in self._placed:  # else it was given up while the word was on its way
                    self._placed[id].set_result(word)
            case Gone(id, why):
                self._gone.pop(id).set_result(why)


class Cluster:
    """`address`: as Ray has it, "auto" or host:port. This machine must be a node of the cluster."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._link: Link | None = None
        self._joining = asyncio.Lock()

    async def place(self, needs: Needs) -> Replica:
        """As Link's; the cluster is joined before, if it is not. Raises NotPlaced."""
        async with self._joining:
            if self._link is None or not self._link.alive:
                if self._link is not None:
                    log.error("the Ray cluster at %s was lost; joining it again", self.address)
                    await self._link.close()
                self._link = await join(self.address)
            link = self._link
        return await link.place(needs)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()


async def join(address: str) -> Link:
    """Raises NotPlaced."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "semantic_parrot.core.engines.ray", "--fd", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,  # Ray's own logs have it
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    reader, writer = await asyncio.open_connection(sock=ours, limit=LINE)
    joined = False
    try:
        writer.write(encode_order(Join(address)))
        line = b""
        with contextlib.suppress(ConnectionError):
            line = await reader.readline()
        word = decode_word(line) if line else NoCluster(f"no Ray cluster at {address}: Ray ended its process")
        if isinstance(word, NoCluster):
            raise NotPlaced(word.message)
        assert isinstance(word, Joined)
        joined = True
        return Link(process, reader, writer)
    finally:
        if not joined:
            writer.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
