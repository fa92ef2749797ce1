"""The comparators' servers: started together, each with a network in front of it, stopped by their own ids."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.results import Results
from peers.peer import Peer, Setup
from peers.process import PeerFailed, Process
from proof.comparators import Comparator, close
from semantic_parrot.server.demo.delay import delayed
from workloads import Framework

Say = Callable[[str], None]
JITTER = 0.1  # of each way's time
SETTLES = 0.3  # seconds that a server has to itself, before it is measured


@dataclass(frozen=True, slots=True)
class Running:
    """A comparator whose server is up. `urls`: where, by round trip in milliseconds. `model`: as it calls its own."""

    comparator: Comparator
    peer: Peer
    process: Process
    model: str
    urls: dict[float, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.comparator.name

    @property
    def own(self) -> bool:
        """A server of ours: it counts, and forgets what it is told to."""
        return self.comparator.peer is None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.process.port}"

    @asynccontextmanager
    async def handed(self, framework: Framework, rtt: float) -> AsyncIterator[Any]:
        """What an app is given. Its connections are its own: one that was idle while others were measured may be closed
        by its server just when it is used, which nothing here tries again."""
        model = self.comparator.handed(framework, self.urls[rtt], self.model)
        try:
            yield model
        finally:
            await close(model)


@contextmanager
def alone(one: Running, running: Sequence[Running]) -> Iterator[None]:
    """The other servers' processes stand still: some compute on for a while after their last answer (vLLM's and
    llama.cpp's threads spin), which would slow down whoever comes next."""
    others = {id(other.process): other.process for other in running if other.process is not one.process}
    for process in others.values():
        process.freeze()
    try:
        time.sleep(SETTLES)
        yield
    finally:
        for process in others.values():
            process.thaw()


@contextmanager
def started(
    comparators: Sequence[Comparator],
    home: Path,
    setup: Setup,
    rtts: Sequence[float],
    flags: tuple[str, ...],
    kept: Results,
    say: Say,
) -> Iterator[list[Running]]:
    """Those that can be started; why the others can't is in `kept`. `flags`: of our own servers."""
    with ExitStack() as stack:
        servers: dict[str, tuple[Peer, Process] | str] = {}
        found = []
        for one in comparators:
            if one.server not in servers:
                say(f"{setup.dtype}: starting {one.server}")
                peer = one.start_with(home, flags)
                try:
                    if (why := peer.missing()) is not None:
                        raise PeerFailed(why)
                    kept.data["versions"][one.server] = peer.version()
                    servers[one.server] = (peer, stack.enter_context(peer.start(setup)))
                except PeerFailed as error:
                    servers[one.server] = str(error)
            up = servers[one.server]
            if isinstance(up, str):
                kept.failure(setup.dtype, one.name, None, up)
                say(f"{one.name}: {up}")
                continue
            running = Running(one, *up, str(setup.checkpoint))
            for rtt in rtts:
                running.urls[rtt] = stack.enter_context(delayed(f"{running.base}/v1", rtt / 1e3, JITTER))
            found.append(running)
        yield found
