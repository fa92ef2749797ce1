"""A process in the cluster, and the connection to it: who we are, and by how much its clock differs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from semantic_parrot.core.engine.child import LINE
from semantic_parrot.core.engines.hope import Lost
from semantic_parrot.core.engines.ray.actor import LOOKS
from semantic_parrot.core.engines.ray.messages import Placed

#: Seconds in which a replica that listens must let us in.
CONNECT = 60.0
#: Seconds of silence, until a peer's machine is asked whether it is there; between questions; how many go unanswered.
KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Replica:
    """A process in the cluster that listens for us; a `Process` as engine.child has it. `gone`: why, once it is. `kill`
    has it ended."""

    def __init__(self, placed: Placed, gone: asyncio.Future[str], kill: Callable[[], None]) -> None:
        self.pid, self.host, self.gone, self.kill = placed.pid, placed.host, gone, kill
        self._placed = placed

    async def wait(self) -> str:
        return await asyncio.shield(self.gone)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, float]:
        """(reader, writer, seconds by which its clock is ahead of ours). Raises Lost."""
        where = f"the replica at {self.host}:{self._placed.port}"
        try:
            async with asyncio.timeout(CONNECT):
                reader, writer = await asyncio.open_connection(self.host, self._placed.port, limit=LINE)
                try:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in KEEPALIVE:
                        if hasattr(socket, option):  # each system has its own
                            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
                    writer.write(f"{self._placed.secret}\n".encode())
                    return reader, writer, await _ahead(reader, writer)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, ValueError) as error:  # a timeout is an OSError; a connection that was closed says nothing
            raise Lost(f"{where} can't be spoken to: {str(error) or type(error).__name__}") from None


async def _ahead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """Seconds by which the other end's clock is ahead of ours, by the answer that came soonest."""
    await reader.readline()  # of when it let us in, which may have taken long
    found = []
    for look in range(LOOKS):
        asked = time.monotonic()
        writer.write(b"?")
        if look < LOOKS - 1:
            theirs, heard = float(await reader.readline()), time.monotonic()
            found.append((heard - asked, theirs - (asked + heard) / 2))
    return min(found)[1]
