"""A server that is asked ten times what its engine can do: what it still answers, and what refusing costs.

    python benchmarks/overload.py [--times 10] [--seconds 60] [--queued 32] [--json FILE]

First the peak: as many clients as the engine has places, one request after the other. Then arrivals at `times` that
rate, whatever is under way (open loop), for `seconds`; the server bounds what waits (`queued` of `[limits]`) and
refuses the rest with 429. Goals: 95 % of the peak, refusals answered within 10 ms (p99), memory bounded. Times are the
client's; server and client are held to a core each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil

from about import about
from null_server import Stream, connect, request, served

#: An answer takes TOKENS steps of STEP seconds; so many run at once.
TOKENS, STEP, WINDOW = 10, 0.02, 8


class Answer(Stream):
    """Remembers the status of the last answer. A refusal is one piece."""

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not self.free:
            self.status = int(data[9:12])
            if self.status != 200:
                self.free = True
                self._ended.set_result(None)
                return
        super().data_received(data)


async def peak(port: int, seconds: float) -> float:
    """Answers per second of WINDOW clients."""
    until, answered = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal answered
        stream = await connect(port)
        while time.perf_counter() < until:
            await stream.ask(request(TOKENS), lambda _: None)
            answered += 1
        stream.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(WINDOW)))
    return answered / (time.perf_counter() - begun)


async def overload(process: psutil.Process, port: int, rate: float, seconds: float) -> dict[str, Any]:
    loop, random, body = asyncio.get_running_loop(), Random(1), request(TOKENS)
    idle: list[Answer] = []
    ends: list[float] = []
    refused: list[float] = []
    other: list[int] = []
    memory = [process.memory_info().rss]

    async def one() -> None:
        stream = idle.pop() if idle else (await loop.create_connection(Answer, "127.0.0.1", port))[1]
        begun = time.perf_counter()
        await stream.ask(body, lambda _: None)
        if stream.status == 200:
            ends.append(time.perf_counter())
            idle.append(stream)
            return
        if stream.status == 429:
            refused.append(time.perf_counter() - begun)
        else:
            other.append(stream.status)
        stream.close()  # a refusal may come before the body was read: such a connection ends

    begun = due = time.perf_counter()
    pending: set[asyncio.Task[None]] = set()
    while (due := due + random.expovariate(rate)) < begun + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one())
        pending.add(task)
        task.add_done_callback(pending.discard)
        if due - begun > len(memory):
            memory.append(process.memory_info().rss)
    await asyncio.gather(*pending)
    refused.sort()
    return {
        "goodput": sum(begun + 1 < end < begun + seconds for end in ends) / (seconds - 1),
        "answered": len(ends),
        "refused": len(refused),
        "other": len(other),
        "refusal_p50_ms": refused[len(refused) // 2] * 1e3 if refused else None,
        "refusal_p99_ms": refused[len(refused) * 99 // 100] * 1e3 if refused else None,
        "memory_mb": [round(rss / 1e6, 1) for rss in memory],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--queued", type=int, default=32)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0] if len(cores) > 1 else None
    os.sched_setaffinity(0, {cores[-1]})
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "parrot.toml"
        config.write_text(f"[limits]\nqueued = {args.queued}\n")
        set_up = {"STEP": str(STEP), "WINDOW": str(WINDOW), "CONFIG": str(config)}
        with served(core, **set_up) as (process, port):
            most = asyncio.run(peak(port, min(10.0, args.seconds)))
            print(f"peak: {most:.1f} answers/s")
            found = asyncio.run(overload(process, port, args.times * most, args.seconds))
    memory = found["memory_mb"]
    print(f"goodput at {args.times:g} times that: {found['goodput']:.1f}/s, {found['goodput'] / most:.1%} of the peak")
    print(f"{found['answered']} answered, {found['refused']} refused, {found['other']} others")
    print(f"refusals: p50 {found['refusal_p50_ms']} ms, p99 {found['refusal_p99_ms']} ms")
    print(f"memory: {memory[0]} MB before, {memory[len(memory) // 2]} in the middle, {memory[-1]} at the end")
    if args.json is not None:
        whole = {**about(("fastapi", "uvicorn", "httptools")), "peak": most, "times": args.times, **found}
        args.json.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
