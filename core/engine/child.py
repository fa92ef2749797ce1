"""The engine's process as the server process sees it: started, spoken to, its end noticed. Loads no torch."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from semantic_parrot.core.engine.clocks import shifted
from semantic_parrot.core.engine.messages import (
    Command,
    Failed,
    Load,
    Options,
    PrefixesChanged,
    Ready,
    Refused,
    Reply,
    decode_replies,
    encode_commands,
)
from semantic_parrot.core.engines.hope import Lost
from semantic_parrot.core.engines.protocol import ModelLoadError, PrefixChange
from semantic_parrot.core.errors import EngineFailed, InvalidRequest

logger = logging.getLogger(__name__)

#: Bytes in a reply line at most: the tokens of a very long text.
LINE = 1 << 26


class Process(Protocol):
    """What runs an engine, here or on another machine."""

    pid: int

    def kill(self) -> None: ...

    async def wait(self) -> str:
        """How it ended, once it has."""
        ...


class Child:
    """One engine process: its socket, and who waits for which reply. `ended` is set once the socket has closed.
    `shift`: seconds by which its clock is ahead of ours."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shift: float = 0.0
    ) -> None:
        self.pid = process.pid
        self.alive = True
        self.told: Callable[[PrefixChange], None] = lambda _: None  # of prefixes: see `Telling`
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._shift = shift
        self._waiting: dict[int, asyncio.Queue[Reply]] = {}
        self._listener = asyncio.create_task(self._listen(), name=f"listener of engine process {process.pid}")

    def ask(self, id: int, command: Command) -> asyncio.Queue[Reply]:
        """Send a command; its replies come on the queue, a Failed if the process dies first."""
        line = self._encode(command)
        replies = self._waiting[id] = asyncio.Queue()
        if self.alive:
            self._writer.write(line)
        return replies

    def forget(self, id: int) -> None:
        self._waiting.pop(id, None)

    def send(self, command: Command) -> None:
        if self.alive:
            self._writer.write(self._encode(command))

    def lost(self) -> None:
        """It is known not to answer any more, though its socket is open: its machine is gone."""
        self._end("was lost")

    async def reap(self) -> str:
        """How the process ended."""
        return await self._process.wait()

    async def close(self) -> None:
        """Closing the socket tells the process to end; one that is deep in a step is killed."""
        self._end("was stopped")
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        try:
            await asyncio.wait_for(self._process.wait(), 1.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                for reply in decode_replies(line):
                    assert not isinstance(reply, Ready | Refused)
                    if isinstance(reply, PrefixesChanged):
                        self.told(reply.change)
                        continue
                    queue = self._waiting.get(reply.id)
                    if queue is not None:  # else it was cancelled while the reply was on its way
                        queue.put_nowait(reply)
        except ConnectionError:
            pass
        except Exception:
            logger.exception("engine process %d sent what can't be read", self.pid)
            self._process.kill()
        finally:
            self._end("died")

    def _end(self, how: str) -> None:
        if not self.alive:
            return
        self.alive = False
        self._writer.close()
        for id, queue in self._waiting.items():
            queue.put_nowait(Failed(id, EngineFailed.code, f"the engine process {how} while it had the request"))
        if not self.ended.done():
            self.ended.set_result(None)

    def _encode(self, command: Command) -> bytes:
        try:
            return encode_commands([shifted(command, self._shift) if self._shift else command])
        except ValueError as error:  # a lone surrogate, which JSON can spell and UTF-8 can't
            raise InvalidRequest("the text is not valid Unicode: it has a lone surrogate") from error


class _Local:
    """A process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.kill = process.kill
        self._process = process

    async def wait(self) -> str:
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def environment(outer: Mapping[str, str]) -> dict[str, str]:
    """The process's environment, within that of ours."""
    return {
        # A thread that spins while it waits takes the core from whoever has work, and one that sleeps at once is late
        # for each of a step's hundred products: it spins for some ten microseconds, then sleeps.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "20000",
        # Tensors of a few MiB come and go with each layer: kept by the process, their pages are not zeroed each time.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
        "MALLOC_TOP_PAD_": str(16 << 20),
        **outer,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }


async def load(options: Options, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ready | None:
    """What the process at the other end says once it has loaded the model; None: it ended instead. Raises
    ModelLoadError with why it can't."""
    try:
        writer.write(encode_commands([Load(options)]))
        line = await reader.readline()
    except ConnectionError:
        return None
    (reply,) = decode_replies(line) if line else (None,)
    if isinstance(reply, Refused):
        raise ModelLoadError(reply.message)
    assert reply is None or isinstance(reply, Ready)
    return reply


async def spawn(options: Options) -> tuple[Child, Ready]:
    """A process that has loaded the model, and what it says of it. Raises ModelLoadError; Lost, if it was killed."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "semantic_parrot.core.engine", "--fd", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=environment(os.environ),
            )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    reader, writer = await asyncio.open_connection(sock=ours, limit=LINE)
    try:
        ready = await load(options, reader, writer)
    except asyncio.CancelledError:
        process.kill()
        writer.close()
        await process.wait()
        raise
    except ModelLoadError:
        writer.close()
        await process.wait()
        raise
    if ready is not None:
        return Child(_Local(process), reader, writer), ready
    writer.close()
    code = await process.wait()
    kind = Lost if code < 0 else ModelLoadError  # a signal: somebody, or the system for want of memory
    raise kind(f"the engine process ended with code {code} while it loaded {options.model_dir}")
