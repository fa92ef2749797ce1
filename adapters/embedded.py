"""A server as a child process: `base_url="embedded"` needs nothing else running.

One server per (model, options) and process. It ends when its standard input does, so it can't outlive its parent;
after a fork the child process starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import IO

from semantic_parrot.core.errors import EngineFailed

EMBEDDED = "embedded"


@dataclass(frozen=True)
class EmbeddedOptions:
    """`model`: a directory; None is the built-in demo model. `flags`: more flags of `parrot serve`."""

    model: str | None = None
    flags: tuple[str, ...] = ()
    start_seconds: float = 300.0

    def command(self) -> list[str]:
        serve = [sys.executable, "-m", "semantic_parrot.server.cli", "serve"]
        model = [] if self.model is None else ["--model", self.model]
        return [*serve, *model, "--port", "0", "--announce", "--exit-with-parent", *self.flags]


class EmbeddedServer:
    """A running child server. Raises EngineFailed, with the end of its log, if it does not come up."""

    def __init__(self, options: EmbeddedOptions) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the server runs)
        self._process = subprocess.Popen(
            options.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
        )
        try:
            self.url: str = json.loads(self._announcement(options.start_seconds))["url"]
        except BaseException:
            self._process.kill()
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def _announcement(self, seconds: float) -> bytes:
        out = self._process.stdout
        assert out is not None
        readable, _, _ = select.select([out], [], [], seconds)
        line: bytes = out.readline() if readable else b""
        if not line:
            why = "ended" if readable else f"was not ready after {seconds:.0f} s"
            self._log.seek(0)
            log = self._log.read().decode(errors="replace").strip()
            raise EngineFailed(f"the embedded server {why}: {log[-2000:]}")
        return line

    def close(self) -> None:
        """End it, by the end of its input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def abandon(self) -> None:
        """After a fork: it is the parent's. Only let go of our copies of its pipes, or it would outlive the parent."""
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.returncode = 0  # not ours to wait for


class _Servers:
    """The embedded servers of this process, by their options."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[EmbeddedOptions, EmbeddedServer] = {}

    def url(self, options: EmbeddedOptions) -> str:
        with self._lock:
            server = self._running.get(options)
            if server is None or not server.alive():
                if server is not None:
                    server.close()
                server = self._running[options] = EmbeddedServer(options)
            return server.url

    def close(self) -> None:
        with self._lock:
            while self._running:
                self._running.popitem()[1].close()

    def forked(self) -> None:
        self._lock = threading.Lock()
        while self._running:
            self._running.popitem()[1].abandon()


# Shared by all models of the process, as the servers are: this is what "one per model and process" means.
_SERVERS = _Servers()
atexit.register(_SERVERS.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SERVERS.forked)


def embedded_url(options: EmbeddedOptions) -> str:
    """The base URL of the server for `options`, started if this process has none (or it died)."""
    return _SERVERS.url(options)


def close_embedded() -> None:
    """End every embedded server of this process; the next use starts one again."""
    _SERVERS.close()
