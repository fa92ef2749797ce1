"""The process that speaks to Ray: it places replicas in a cluster, and says which are gone.

A process by itself, as Ray wants its drivers: it takes their signal handlers, and ends them when the cluster is gone.
Its end takes its replicas along, so the end of the server, however it comes, leaves nothing in the cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
from typing import Any

from semantic_parrot.core.engines.ray.actor import remote_class
from semantic_parrot.core.engines.ray.messages import (
    Drop,
    Gone,
    Join,
    Joined,
    Needs,
    NoCluster,
    Place,
    Placed,
    Word,
    decode_order,
    encode_word,
)


class Placer:
    """`ray`: the module, connected."""

    def __init__(self, ray: Any, writer: asyncio.StreamWriter) -> None:
        self._ray = ray
        self._writer = writer
        self._actor = remote_class(ray)
        self._lives: dict[int, asyncio.Task[None]] = {}

    def say(self, word: Word) -> None:
        self._writer.write(encode_word(word))

    def place(self, order: Place) -> None:
        life = self._lives[order.id] = asyncio.create_task(self._live(order))
        life.add_done_callback(lambda _: self._lives.pop(order.id))

    def drop(self, id: int) -> None:
        if id in self._lives:
            self._lives[id].cancel()

    async def _live(self, order: Place) -> None:
        """One replica, from its place to its end."""
        handle, why = None, "it was dropped"
        try:
            handle = self._start(order.needs)
            host, port, secret, pid = await handle.listen.remote()
            ended = handle.serve.remote()
            self.say(Placed(order.id, host, port, secret, pid))
            why = f"exit code {await ended}"
        except Exception as error:  # Ray's own, and what it makes of needs that can't be
            error = getattr(error, "cause", None) or error  # Ray's begins with where it was, not with what
            why = str(error).strip().partition("\n")[0] or type(error).__name__
        finally:
            if handle is not None:
                self._ray.kill(handle)
            self.say(Gone(order.id, why))

    def _start(self, needs: Needs) -> Any:
        return self._actor.options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            resources=dict(needs.resources or {}),
            max_restarts=0,  # the server has another one placed: it has to load the model into that, too
            max_task_retries=0,
            scheduling_strategy="SPREAD",  # the loss of a node is to take as few as can be
            runtime_env={"env_vars": dict(needs.env or {})},
        ).remote()


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10.0).close()


async def _serve(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    join = decode_order(await reader.readline())
    assert isinstance(join, Join)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody; read when Ray is imported
    import ray

    try:
        _knock(join.address)
        # The cluster's own logs have what its workers say.
        ray.init(join.address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        message = str(error).strip().partition("\n")[0]
        writer.write(encode_word(NoCluster(f"no Ray cluster at {join.address}: {message or type(error).__name__}")))
        await writer.drain()
        return
    placer = Placer(ray, writer)
    placer.say(Joined())
    try:
        while line := await reader.readline():
            order = decode_order(line)
            match order:
                case Place():
                    placer.place(order)
                case Drop(id):
                    placer.drop(id)
    finally:
        ray.shutdown()


def main() -> int:
    """Serve on the socket `--fd` until its other end closes."""
    parser = argparse.ArgumentParser(prog="parrot-ray")
    parser.add_argument("--fd", type=int, required=True)
    sock = socket.socket(fileno=parser.parse_args().fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches us too
    with contextlib.suppress(ConnectionError):
        asyncio.run(_serve(sock))
    return 0
