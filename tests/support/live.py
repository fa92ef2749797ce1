"""Parrot servers on real sockets: `LiveServer` is `parrot serve` in a child process, with its engines; `LocalServer`
serves a given runtime from a thread, for tests of routes alone."""

from __future__ import annotations

import asyncio
import json
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any
from urllib.request import urlopen

import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.app import create_app
from semantic_parrot.server.listener import bind
from semantic_parrot.server.service import Settings
from semantic_parrot.server.slow import impatient


def _get(url: str) -> str:
    with urlopen(url, timeout=30) as response:
        text: str = response.read().decode()
        return text


class _Server:
    """`base`: http://host:port. `url`: the same with /v1, as OpenAI clients want it."""

    base: str

    @property
    def url(self) -> str:
        return f"{self.base}/v1"

    def metrics(self) -> dict[str, float]:
        """Each metric, summed over its labels, and each sample as `name{label="value"}`."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(_get(f"{self.base}/metrics")):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
                if sample.labels:
                    labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                    found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    def requests(self) -> float:
        """Round trips so far: accepted POSTs to runs, chat completions and completions."""
        return self.metrics()["parrot_requests_total"]


class LiveServer(_Server):
    """`with LiveServer("--model", path) as server:` starts a server on a free port and waits until it is ready.

    `model`: its name. `pid`: the server's process. `log()`: its standard error so far.
    """

    def __init__(self, *args: str, timeout: float = 120.0, command: Sequence[str] | None = None) -> None:
        serve = [sys.executable, "-m", "semantic_parrot.server.cli", "serve"]
        flags = ["--announce", "--exit-with-parent", "--port", "0"]
        self._command = [*(command or serve), *flags, *args]
        self._timeout = timeout

    def __enter__(self) -> LiveServer:
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            start_new_session=True,  # a process group of its own, which a test may interrupt as a terminal would
        )
        self.pid = self.process.pid
        try:
            announced = json.loads(self._first_line())
        except BaseException:
            self.kill()
            self._close()
            raise
        self.base = announced["url"].removesuffix("/v1")
        self.model: str = announced["model"]
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.kill()
            self._close()

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], self._timeout)
        line: bytes = self.process.stdout.readline() if readable else b""
        if not line:
            why = "ended" if readable else f"was not ready in {self._timeout} s"
            raise AssertionError(f"the server {why}; its log:\n{self.log()}")
        return line

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def stop(self) -> int:
        """End it as its parent's end would, by closing its standard input; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait()

    def wait(self, timeout: float = 30.0) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end; its log:\n{self.log()}") from None

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                stream.close()


class LocalServer(_Server):
    """`with LocalServer(runtime) as server:` serves `runtime` on a loop in a thread; `call` runs there."""

    def __init__(self, runtime: Runtime, settings: Settings | None = None, **more: Any) -> None:
        self.runtime = runtime
        self.app = create_app(runtime, settings, **more)
        config = uvicorn.Config(
            self.app,
            http=impatient((settings or Settings()).slow),
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._socket = bind("127.0.0.1", 0)
        self._socket.listen()
        self.base = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="local-server")
        self._up: asyncio.AbstractEventLoop | None = None

    def _serve(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(main())

    def __enter__(self) -> LocalServer:
        # The socket listens already: a request made now waits in its backlog until the application has started.
        self._thread.start()
        _get(f"{self.base}/healthz")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()

    def call(self, work: Callable[[], object]) -> None:
        """Run `work` on the server's loop, as everything that touches its runtime or engines must."""
        done = threading.Event()

        def run() -> None:
            try:
                work()
            finally:
                done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(10)
