"""`parrot serve`: engines, application and socket, from the command line's options to the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.engines.protocol import Engine, ModelLoadError
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server import garbage
from semantic_parrot.server.app import create_app
from semantic_parrot.server.engines import all_engines
from semantic_parrot.server.listener import Server, StartError, bind, cannot_listen, url_of
from semantic_parrot.server.options import ServeOptions
from semantic_parrot.server.service import Settings
from semantic_parrot.server.slow import impatient
from semantic_parrot.server.telemetry import Telemetry, say

if TYPE_CHECKING:
    from semantic_parrot.server.tenants.keys import Keyring
    from semantic_parrot.server.tenants.opening import Tenants
    from semantic_parrot.server.tenants.store import TenantStore

#: Seconds that open requests have to end once the engines are closed.
SHUTDOWN_SECONDS = 3

#: Longer than clients keep an idle connection (httpx: 5 s): else they may write to one that is just being closed.
KEEP_ALIVE_SECONDS = 75


def _announce(url: str, model: str, keyring: Keyring | None, options: ServeOptions) -> None:
    if options.log_format == "text":
        print(f"Parrot serves {model} at {url} (Ctrl-C stops it)", file=sys.stderr)
        key = "any api_key" if keyring is None else "an api_key of `parrot keys add`"
        print(f"  any OpenAI client: base_url={url!r}, model={model!r}, {key}", file=sys.stderr, flush=True)
        if keyring is not None and keyring.empty:
            add = f"parrot keys add NAME --data-dir {shlex.quote(str(options.data))}"
            print(f"  keys are asked for, and there is none yet: {add}", file=sys.stderr, flush=True)
    if options.announce:
        print(json.dumps({"url": url, "model": model, "pid": os.getpid()}), flush=True)


class _Stop(asyncio.Event):
    """Set by the first signal, or by the end of standard input. A second signal does not wait for anything. `gently`:
    it was SIGTERM, with which supervisors end a server that others may be using."""

    gently = False

    def install(self, *, stdin: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._signals = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        if stdin:
            threading.Thread(target=self._watch_stdin, name="parrot-stdin", daemon=True).start()

    def _signalled(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)  # the engines end by themselves: their sockets close
        self.gently = number == signal.SIGTERM
        self._loop.call_soon_threadsafe(self.set)

    def _watch_stdin(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop has ended before standard input did
            self._loop.call_soon_threadsafe(self.set)


async def _first(task: asyncio.Task[None], stop: _Stop) -> bool:
    """Whether `task` ended before `stop` was set."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return task.done()


def open_store(options: ServeOptions, sock: socket.socket) -> TenantStore | None:
    """Where the keys are, if they are asked for. Raises StartError."""
    loopback = ip_address(sock.getsockname()[0]).is_loopback
    if not (options.api_keys or (options.api_keys is None and not loopback)):
        if not loopback:
            raise StartError(f"API keys are required on {options.host}: only on loopback may the server do without")
        return None
    from semantic_parrot.server.tenants.store import StoreError, TenantStore

    try:
        return TenantStore(options.data)
    except StoreError as error:
        raise StartError(str(error)) from None


async def _run(
    options: ServeOptions, sock: socket.socket, runtime: Runtime, telemetry: Telemetry, store: TenantStore | None
) -> None:
    from semantic_parrot.server.tenants.opening import open_tenants
    from semantic_parrot.server.tenants.store import StoreError

    stop = _Stop()
    stop.install(stdin=options.exit_with_parent)
    try:
        tenants = open_tenants(options.terms, runtime, store)
    except StoreError as error:
        raise StartError(str(error)) from None
    try:
        if await _started(runtime, stop):
            await _listen(options, sock, runtime, telemetry, tenants, stop)
    finally:
        await tenants.close()


async def _started(runtime: Runtime, stop: _Stop) -> bool:
    """Whether `runtime` has, before `stop`; if not, it is closed."""
    starting = asyncio.create_task(runtime.start())
    if await _first(starting, stop):
        await starting
        return True
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await runtime.close()
    return False


async def _listen(
    options: ServeOptions, sock: socket.socket, runtime: Runtime, telemetry: Telemetry, tenants: Tenants, stop: _Stop
) -> None:
    """Until `stop`; then `runtime` is closed."""
    try:
        sock.listen()
    except OSError as error:  # another server bound the port beside us and was the first to listen
        await runtime.close()
        raise cannot_listen(options.host, options.port, error) from None
    limits = options.terms.limits
    settings = Settings(max_body=int(limits.max_body_mib * 2**20), slow=limits.slow_seconds, dev=options.dev)
    app = create_app(runtime, settings, tenants.keyring, tenants.limits)
    config = uvicorn.Config(
        app,
        lifespan="off",  # the runtime is started here, where a model that can't be loaded is one line
        log_level="warning",
        # In JSON, what uvicorn says goes the way of everything else.
        log_config=None if options.log_format == "json" else uvicorn.config.LOGGING_CONFIG,
        access_log=False,
        http=impatient(limits.slow_seconds),
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    model = runtime.engines[0].model.names[0]
    if telemetry.traces is not None:
        telemetry.traces.join(app)

    def up() -> None:
        garbage.settle()
        _announce(url_of(sock), model, tenants.keyring, options)
        say("serving", url=url_of(sock), model=model)

    server = Server(config, runtime, up)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    if not await _first(serving, stop) and stop.gently:
        await server.drain(options.drain_seconds)
    server.should_exit = True
    await serving


def serve(options: ServeOptions, build: Callable[[ServeOptions], Sequence[Engine]] = all_engines) -> int:
    """Serve, with the engines that `build` makes, until a signal; the process's exit code."""
    from semantic_parrot.core.journal.journal import Journal
    from semantic_parrot.core.journal.values import Retention

    try:
        journal = Journal(options.journal_url, Retention(options.keep_days, options.keep_runs))
        telemetry = Telemetry.set_up(options.log_format, os.environ, prompts=options.log_prompts)
        chosen: dict[str, Any] = {
            name: getattr(options, name) for name in ("disable", "enable", "tpot", "prices", "terms")
        }
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(telemetry))
            sock = stack.enter_context(contextlib.closing(bind(options.host, options.port)))
            store = open_store(options, sock)
            if store is not None:
                stack.callback(store.close)
                chosen["secret"] = store.secret()
            runtime = Runtime(build(options), journal=journal, **chosen)
            runtime.observers += telemetry.observers
            asyncio.run(_run(options, sock, runtime, telemetry, store))
    except (StartError, ModelLoadError, ConfigError) as error:
        print(f"parrot: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the loop had its own handler
        return 130
    return 0
