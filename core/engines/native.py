"""The native engine's handle in the server process: starts the engine's process, talks to it, restarts it.

Neither torch nor transformers is loaded here; only the child loads them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

from semantic_parrot.core.engine.messages import (
    Cancel,
    Command,
    Failed,
    Finished,
    ForgetPrefixes,
    Generate,
    GetStats,
    Load,
    Options,
    Ready,
    Refused,
    Reply,
    Report,
    Text,
    Tokenize,
    Tokens,
    decode_replies,
    encode_commands,
)
from semantic_parrot.core.engines.protocol import Delta, Done, ModelInfo, ModelLoadError, Stats
from semantic_parrot.core.errors import EngineFailed, InvalidRequest, from_code
from semantic_parrot.core.request import Message, ModelRequest

logger = logging.getLogger(__name__)

_LINE = 1 << 26  # bytes in a reply line at most: the tokens of a very long text
_COUNTERS = ("prompt_tokens_computed", "prompt_tokens_reused", "generated_tokens", "steps")
_BACKOFF = (0.0, 1.0, 5.0, 30.0)  # seconds before a restart, by how many in a row failed to load


class NativeEngine:
    """An engine process of our own for one model directory.

    `names`: what requests may call the model. `deterministic`: logits that do not depend on what else is in the
    batch. `threads`: of the child's torch (default: all cores but one). `kv_tokens`: size of the KV cache (default:
    by free memory). `max_batch`: sequences that decode together; also the window. `chunk`: tokens a step. `dtype`:
    "auto" or a torch dtype's name. `device`: "auto", "cpu", "cuda".

    Owned by the event loop. A crash of the process ends what is in flight with EngineFailed; the handle is unhealthy,
    and refuses with EngineFailed, until a new process has loaded the model.
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        names: Sequence[str],
        deterministic: bool = False,
        name: str = "native-0",
        threads: int | None = None,
        kv_tokens: int | None = None,
        max_batch: int = 64,
        chunk: int = 512,
        prefix_cache: bool = True,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self.name = name
        self.window = max_batch
        self._options = Options(
            model_dir=str(model_dir),
            deterministic=deterministic,
            threads=threads or max(1, (os.cpu_count() or 1) - 1),
            kv_tokens=kv_tokens,
            max_batch=max_batch,
            chunk=chunk,
            prefix_cache=prefix_cache,
            dtype=dtype,
            device=device,
        )
        self._names = tuple(names)
        self._model: ModelInfo | None = None
        self._child: _Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._up_again = asyncio.Event()
        self._ids = itertools.count(1)
        self._latest = Stats()
        self._before = Stats()  # counters of the processes that died, as last reported

    @property
    def model(self) -> ModelInfo:
        """Known once the engine has started."""
        assert self._model is not None, "the engine has not been started"
        return self._model

    @property
    def healthy(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Of the engine's process, while there is one."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def recovered(self) -> None:
        """Returns once the engine is healthy (at once, if it is)."""
        while not self.healthy:
            self._up_again.clear()
            await self._up_again.wait()

    async def start(self) -> None:
        self._child, context = await _spawn(self._options)
        self._model = ModelInfo(self._names, context)
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self.name}")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._child is not None:
            await self._child.close()
            self._child = None

    async def generate(self, request: ModelRequest) -> AsyncGenerator[Delta | Done, None]:
        child, id = self._up(), next(self._ids)
        replies = child.ask(id, Generate(id, request, time.monotonic()))
        ended = False
        try:
            while True:
                match await replies.get():
                    case Text(_, text):
                        yield Delta(text)
                    case Finished(_, done):
                        ended = True
                        yield done
                        return
                    case Failed(_, code, message, where):
                        ended = True
                        raise from_code(code, message, where)
        finally:
            child.forget(id)
            if not ended:
                child.send(Cancel(id))

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        id = next(self._ids)
        reply = await self._ask_once(id, Tokenize(id, content))
        assert isinstance(reply, Tokens)
        return reply.tokens

    async def stats(self) -> Stats:
        id = next(self._ids)
        reply = await self._ask_once(id, GetStats(id))
        assert isinstance(reply, Report)
        before = self._before
        counters = {name: getattr(before, name) + getattr(reply.stats, name) for name in _COUNTERS}
        self._latest = replace(reply.stats, **counters)
        return self._latest

    async def forget_prefixes(self) -> None:
        id = next(self._ids)
        await self._ask_once(id, ForgetPrefixes(id))

    async def _ask_once(self, id: int, command: Command) -> Reply:
        child = self._up()
        try:
            reply = await child.ask(id, command).get()
        finally:
            child.forget(id)
        if isinstance(reply, Failed):
            raise from_code(reply.code, reply.message, reply.where)
        return reply

    def _up(self) -> _Child:
        if self._child is None or not self._child.alive:
            raise EngineFailed(f"engine {self.name} is down; it is being restarted")
        return self._child

    async def _keep(self) -> None:
        """Replace a child that died by a new one, for as long as the engine is open."""
        failures = 0
        while True:
            assert self._child is not None
            await self._child.ended
            logger.error("engine %s died (%s); restarting it", self.name, await self._child.reap())
            self._before = self._latest
            while not self._child.alive:
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                try:
                    self._child, _ = await _spawn(self._options)
                    failures = 0
                    self._up_again.set()
                except ModelLoadError as error:
                    failures += 1
                    logger.error("engine %s can't be restarted: %s", self.name, error)


class _Child:
    """One engine process: its socket, and who waits for which reply. `ended` is set once the socket has closed."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self.alive = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Queue[Reply]] = {}
        self._listener = asyncio.create_task(self._listen(), name=f"listener of engine process {process.pid}")

    def ask(self, id: int, command: Command) -> asyncio.Queue[Reply]:
        """Send a command; its replies come on the queue, a Failed if the process dies first."""
        line = _encode(command)
        replies = self._waiting[id] = asyncio.Queue()
        if self.alive:
            self._writer.write(line)
        return replies

    def forget(self, id: int) -> None:
        self._waiting.pop(id, None)

    def send(self, command: Command) -> None:
        if self.alive:
            self._writer.write(_encode(command))

    async def reap(self) -> str:
        """How the process ended."""
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

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


def _encode(command: Command) -> bytes:
    try:
        return encode_commands([command])
    except ValueError as error:  # a lone surrogate, which JSON can spell and UTF-8 can't
        raise InvalidRequest("the text is not valid Unicode: it has a lone surrogate") from error


async def _spawn(options: Options) -> tuple[_Child, int]:
    """A process that has loaded the model, and the model's context. Raises ModelLoadError."""
    ours, theirs = socket.socketpair()
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",  # a thread that spins while it waits takes the core from whoever has work
        # Tensors of a few MiB come and go with each layer: kept by the process, their pages are not zeroed each time.
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
        "MALLOC_TOP_PAD_": str(16 << 20),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "semantic_parrot.core.engine", "--fd", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=environment,
            )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE)
    try:
        writer.write(encode_commands([Load(options)]))
        line = await reader.readline()
        (reply,) = decode_replies(line) if line else (None,)
        if isinstance(reply, Ready):
            return _Child(process, reader, writer), reply.context
    except ConnectionError:
        reply = None
    except asyncio.CancelledError:
        process.kill()
        writer.close()
        await process.wait()
        raise
    writer.close()
    code = await process.wait()
    if isinstance(reply, Refused):
        raise ModelLoadError(reply.message)
    raise ModelLoadError(f"the engine process ended with code {code} while it loaded {options.model_dir}")
