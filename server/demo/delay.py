"""A network between client and server: a TCP proxy that holds every byte back for half a round trip each way, give or
take what is asked for. Benchmarks use it, too."""

from __future__ import annotations

import asyncio
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


async def _link(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, delay: Callable[[], float]
) -> None:
    ends = [writer]
    try:
        up_reader, up_writer = await asyncio.open_connection(host, port)
        ends.append(up_writer)
        await asyncio.gather(_forward(reader, up_writer, delay), _forward(up_reader, writer, delay))
    except OSError:
        pass  # one end went away: so does the other
    finally:
        for end in ends:
            end.close()


async def _serve(
    host: str, port: int, delay: Callable[[], float], ready: asyncio.Future[int], stop: asyncio.Event
) -> None:
    links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(_link(reader, writer, host, port, delay))
        links[link] = writer
        link.add_done_callback(links.pop)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    ready.set_result(server.sockets[0].getsockname()[1])
    await stop.wait()
    # A server that is closed drops what it has just accepted unclosed: first that gets its task, transport and link.
    asyncio.get_running_loop().remove_reader(server.sockets[0])
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()
    left = dict(links)
    for link in left:
        link.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for writer in left.values():  # a link that was ended before it began has closed nothing
        writer.transport.abort()
    await asyncio.sleep(0)


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
