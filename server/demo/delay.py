"""A network between client and server: a TCP proxy that holds every byte back for half a round trip each way, give or
take what is asked for. Benchmarks use it, too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from urllib.parse import urlsplit

_CHUNK = 1 << 16


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Callable[[], float]) -> None:
    """Bytes keep their order: each chunk is due `delay()` seconds after it came, but not before those ahead of it."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        while data := await reader.read(_CHUNK):
            chunks.put_nowait((loop.time() + delay(), data))
        chunks.put_nowait((loop.time() + delay(), b""))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, data = await chunks.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _serve(
    host: str, port: int, delay: Callable[[], float], ready: asyncio.Future[int], stop: asyncio.Event
) -> None:
    links: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        links.add(link)
        link.add_done_callback(links.discard)
        try:
            up_reader, up_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_forward(reader, up_writer, delay), _forward(up_reader, writer, delay))
        except (OSError, asyncio.CancelledError):
            pass  # one end went away, or the proxy ends: so does the other. Streams log a task that ends cancelled.
        finally:
            for end in (writer, up_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    ready.set_result(server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()
    for link in links:
        link.cancel()
    await asyncio.gather(*links, return_exceptions=True)


@contextmanager
def delayed(url: str, rtt: float, jitter: float = 0.0, seed: int = 0) -> Iterator[str]:
    """`url` as it looks through a network with a round trip of `rtt` seconds; itself if that is 0. Each way takes up to
    `jitter` of its time more or less, drawn anew for what comes."""
    if not rtt:
        yield url
        return
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    rng = Random(seed)
    started = threading.Event()
    state: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []

    async def main() -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        delay = (lambda: rtt / 2 * rng.uniform(1 - jitter, 1 + jitter)) if jitter else (lambda: rtt / 2)
        serving = asyncio.create_task(_serve(host, port, delay, ready, stop))
        state.append((asyncio.get_running_loop(), stop, await ready))
        started.set()
        await serving

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="delay-proxy", daemon=True)
    thread.start()
    started.wait()
    loop, stop, proxy_port = state[0]
    try:
        yield parts._replace(netloc=f"127.0.0.1:{proxy_port}").geturl()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
