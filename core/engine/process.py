"""The engine's process: commands in, replies out, over one socket; one thread, which blocks when there is nothing
to do. The parent's end closing is the order to stop, whatever became of the parent."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from semantic_parrot.core.engine.hop import PATIENCE
from semantic_parrot.core.engine.messages import (
    Cancel,
    Command,
    ForgetPrefixes,
    Generate,
    GetOutline,
    GetStats,
    Load,
    Options,
    Outlined,
    Prefill,
    Ready,
    Refused,
    Reply,
    Report,
    Tokenize,
    decode_commands,
    encode_replies,
)
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.core.errors import ParrotError
from semantic_parrot.core.request import ModelRequest

if TYPE_CHECKING:
    from semantic_parrot.core.engine.loop import EngineLoop
    from semantic_parrot.core.engine.openvino_loop import OpenVinoLoop

    Engine = EngineLoop | OpenVinoLoop

TITLE = "parrot-engine"


class Channel:
    """Lines of messages over a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def receive(self, *, wait: bool, coming: int = 0, patience: float = PATIENCE) -> list[Command]:
        """Commands that have come; with `wait`, blocks until there is one, and for `patience` seconds at most until
        there are so many requests as are `coming`. Raises EOFError at the end."""
        commands: list[Command] = []
        until = time.monotonic() + patience if coming else 0.0
        while True:
            left = until - time.monotonic() if coming > sum(isinstance(c, Generate) for c in commands) else 0.0
            self._sock.settimeout(None if wait and not commands else max(left, 0.0))
            try:
                data = self._sock.recv(1 << 20)
            except (BlockingIOError, TimeoutError):
                return commands
            finally:
                self._sock.setblocking(True)
            if not data:
                raise EOFError
            self._buffer += data
            *lines, rest = self._buffer.split(b"\n")
            self._buffer = rest
            for line in lines:
                commands += decode_commands(bytes(line))

    def send(self, replies: Sequence[Reply]) -> None:
        if replies:
            self._sock.sendall(encode_replies(replies))


def main() -> int:
    """Serve the engine on the socket `--fd`. Returns the exit code: 2 if the model can't be served."""
    parser = argparse.ArgumentParser(prog=TITLE)
    parser.add_argument("--fd", type=int, required=True)
    channel = Channel(socket.socket(fileno=parser.parse_args().fd))
    # A terminal's Ctrl-C reaches us too; it is the parent who decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(TITLE)
    try:
        return serve(channel)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0


def _torch(options: Options) -> tuple[Engine, int]:
    import torch

    torch.set_num_threads(options.threads)
    from semantic_parrot.core.engine.loader import load

    return load(options)


def _openvino(options: Options) -> tuple[Engine, int]:
    from semantic_parrot.core.engine.openvino_loader import load

    return load(options)


#: What computes a model: from options to the engine and its context. They raise ModelLoadError.
RUNTIMES: Mapping[str, Callable[[Options], tuple[Engine, int]]] = {"torch": _torch, "openvino": _openvino}


def _publish(engine: Engine, requests: Sequence[ModelRequest], *, cache: bool) -> None:
    """Raises ModelLoadError."""
    if requests and not cache:
        raise ModelLoadError("public prefixes need the prefix cache, which is off")
    for number, request in enumerate(requests, 1):
        try:
            engine.publish(number, request)
        except ParrotError as error:
            raise ModelLoadError(f"public prefix {number} can't be kept: {error.message}") from None


def serve(channel: Channel) -> int:
    """As `main`. Raises EOFError or ConnectionError when the other end closes."""
    (load,) = channel.receive(wait=True)
    assert isinstance(load, Load)

    def obey(engine: Engine, command: Command) -> Reply | None:
        match command:
            case Generate(id, request, arrived, directions):
                # On another machine, its clock is known to within a round trip.
                return engine.submit(id, request, min(arrived, time.monotonic()), directions)
            case Prefill(id, request, keep, salt):
                engine.prefill(id, request, keep, salt)
            case Cancel(id):
                engine.cancel(id)
            case GetStats(id):
                return Report(id, engine.stats())
            case GetOutline(id, text):
                return Outlined(id, engine.outline(text=text))
            case ForgetPrefixes(id):
                engine.forget_prefixes()
                return Report(id, engine.stats())
            case Tokenize(id, content):
                return engine.tokenize(id, content)
            case Load():
                raise AssertionError("the model is loaded already")
        return None

    try:
        engine, context = RUNTIMES[load.options.runtime](load.options)
        _publish(engine, load.options.public, cache=load.options.prefix_cache)
    except ModelLoadError as error:
        channel.send([Refused(str(error))])
        return 2
    channel.send([Ready(context, engine.text.calls)])
    while True:
        answers = (obey(engine, command) for command in channel.receive(wait=not engine.busy, coming=engine.coming))
        replies = [reply for reply in answers if reply is not None]
        channel.send([*replies, *engine.step(), *engine.changed()])
