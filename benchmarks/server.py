"""What the server adds to a call, with an engine that costs nothing: time to the first token, cost of a token that is
relayed, and many streams at once.

    python benchmarks/server.py [--rate 300] [--seconds 10] [--streams 500] [--json FILE]

Server and client are two processes, each held to one core. Goals: TTFT p50 of 0.5 ms and p99 of 3 ms at 300
requests/s; 20 µs a token; 500 streams at 98 % of what the engine says without a server. Times are the client's,
loopback and its own work included; `cpu` is the server process's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil

from about import about
from null_server import Stream, connect, cpu, request, served
from paced import PacedEngine
from semantic_parrot.core.request import parse_request

#: Tokens of a relayed answer, and the step of an engine that is like a batch in decode.
LONG, STEP = 2_000, 0.04


async def first_tokens(process: psutil.Process, port: int, rate: float, seconds: float) -> dict[str, float]:
    """Arrivals are Poisson's, whatever is under way (open loop); each on a connection that is there already."""
    random, body, took = Random(1), request(1), list[float]()
    idle = [await connect(port) for _ in range(64)]
    pending: set[asyncio.Future[None]] = set()

    async def one(due: float, stream: Stream) -> None:
        await stream.ask(body, lambda _: took.append(time.perf_counter() - due))
        idle.append(stream)

    for stream in tuple(idle):  # what is imported and compiled on the way
        await stream.ask(body, lambda _: None)
    before, begun = cpu(process), time.perf_counter()
    due = begun
    while (due := due + random.expovariate(rate)) < begun + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        stream = idle.pop() if idle else await connect(port)
        task = asyncio.ensure_future(one(max(due, time.perf_counter()), stream))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    spent = cpu(process) - before
    for stream in idle:
        stream.close()
    took.sort()
    n = len(took)
    return {
        "n": n, "p50_ms": took[n // 2] * 1e3, "p99_ms": took[n * 99 // 100] * 1e3, "max_ms": took[-1] * 1e3,
        "cpu_ms": spent / n * 1e3,
    }  # fmt: skip


async def relay(process: psutil.Process, port: int, repeats: int) -> dict[str, float]:
    """One stream of an engine that says all it has: what the server computes for a token."""
    stream, body, heard = await connect(port), request(LONG), 0

    def count(n: int) -> None:
        nonlocal heard
        heard += n

    await stream.ask(body, lambda _: None)
    before = cpu(process)
    for _ in range(repeats):
        await stream.ask(body, count)
    spent = cpu(process) - before
    stream.close()
    return {"tokens": heard, "cpu_us": spent / heard * 1e6, "engine_us": await own_cost(repeats)}


async def own_cost(repeats: int) -> float:
    """Microseconds of a token in the engine itself."""
    asked = parse_request({"model": "default", "prompt": "x", "max_tokens": LONG})
    begun = time.process_time()
    for _ in range(repeats):
        async for _ in PacedEngine().generate(asked):
            pass
    return (time.process_time() - begun) / repeats / LONG * 1e6


async def together(process: psutil.Process, port: int, streams: int, seconds: float) -> dict[str, float]:
    """Tokens per second of many streams, and what they take of a core."""
    tokens = int(seconds / STEP)
    heard, begun_all = 0, asyncio.Event()

    def count(n: int) -> None:
        nonlocal heard
        heard += n
        if heard >= streams:
            begun_all.set()

    opened = [await connect(port) for _ in range(streams)]
    ends = [stream.ask(request(tokens), count) for stream in opened]
    await begun_all.wait()
    before, first, begun = cpu(process), heard, time.perf_counter()
    await asyncio.sleep(seconds * 0.7)
    said, spent, took = heard - first, cpu(process) - before, time.perf_counter() - begun
    await asyncio.gather(*ends)
    for stream in opened:
        stream.close()
    return {
        "tokens_per_s": said / took, "direct_per_s": streams / STEP, "ratio": said / took / (streams / STEP),
        "cpu_us": spent / said * 1e6, "core": spent / took,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[0] if len(cores) > 1 else None
    if server_core is not None:
        os.sched_setaffinity(0, set(cores[1:2]))
    found: dict[str, Any] = {**about(("fastapi", "uvicorn", "httptools", "uvloop")), "step_s": STEP}
    with served(server_core) as (process, port):
        found["ttft"] = took = asyncio.run(first_tokens(process, port, args.rate, args.seconds))
        print(f"TTFT at {args.rate:g}/s: " + ", ".join(f"{name} {value:.3f}" for name, value in took.items()))
        found["relay"] = cost = asyncio.run(relay(process, port, args.repeats))
        print(f"a relayed token: {cost['cpu_us']:.1f} µs, of which the engine's {cost['engine_us']:.1f}")
    with served(server_core, STEP=str(STEP)) as (process, port):
        found["together"] = many = asyncio.run(together(process, port, args.streams, args.seconds))
        print(f"{args.streams} streams: " + ", ".join(f"{name} {value:.3f}" for name, value in many.items()))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
