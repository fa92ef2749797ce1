"""What the core itself costs, without a model: accepting a program, the hop from a producer to its consumer, and one
decision of the scheduler with many tasks queued for many engines.

    python benchmarks/core.py [--calls 1000] [--queued 10000] [--engines 64] [--json FILE]

The engine here answers at once, so that nothing but the core is timed. Goals (a program of 1,000 calls accepted in
20 ms; a hop's p99 of 1 ms; a decision's p99 of 100 µs with 10,000 queued for 64 engines) are those of the project's
workloads.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random
from typing import Any

from semantic_parrot.core.engines.protocol import UNDIRECTED, Ability, Delta, Directions, Done, ModelInfo, Stats, Usage
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.scheduling import Decider, Task


class InstantEngine:
    """Answers every request with one word, and notes when each came and went."""

    name = "instant"
    window = 1024
    model = ModelInfo(("default",), 1 << 20)
    healthy = True
    abilities: frozenset[Ability] = frozenset(("prefill-ahead",))

    def __init__(self) -> None:
        self.came: list[float] = []
        self.went: list[float] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def forget_prefixes(self) -> None: ...

    def prefill(self, key: object, request: ModelRequest | None) -> None: ...

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        self.came.append(time.perf_counter())
        await asyncio.sleep(0)
        self.went.append(time.perf_counter())
        yield Done("word", "stop", Usage(1, 0, 1))

    async def tokenize(self, content: str | tuple[Message, ...]) -> list[int]:
        return []

    async def stats(self) -> Stats:
        return Stats()


def chain(length: int) -> dict[str, Any]:
    """A chain: every call reads the one before."""
    calls = []
    for i in range(length):
        text = {"$t": ["Continue the report with the next entry: ", {"var": f"v{i - 1}" if i else "doc"}]}
        request = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": text}]}
        calls.append({"id": f"call{i}", "output": f"v{i}", "request": request})
    return {"calls": calls, "inputs": {"doc": "x" * 2000}}


def _task(random: Random) -> Task:
    """Of one of four tenants; it shares a system prompt with many, and a task group with some."""
    system, own = random.randrange(32), random.getrandbits(31)
    prefixes = (1000 << 32 | system, 4000 << 32 | own % 4096, 6000 << 32 | own)
    return Task(
        objective=random.choice(("latency", "throughput", "deadline")),
        tenant=f"tenant{random.randrange(4)}",
        prompt=random.randint(1500, 3000),
        output=random.randint(20, 400),
        seconds=random.uniform(0.1, 5.0),
        latest=random.uniform(0, 1e4),
        group=random.randrange(2000) if random.random() < 0.5 else None,
        prefixes=prefixes,
        held=tuple((name >> 32) / 4 for name in prefixes),
        site=system,
        chars=8000,
    )


def decisions(queued: int, engines: int, events: int) -> dict[str, float]:
    """Microseconds of a decision: a task ends somewhere, and the scheduler says who goes next and where; then another
    task arrives, so that `queued` wait all the time."""
    random, decider, now = Random(1), Decider([16] * engines), 0.0
    for _ in range(queued + 16 * engines):
        decider.submit(_task(random), now)
    running = decider.dispatch(now)
    took = []
    gc.collect()
    for _ in range(events):
        now += 0.001
        ended = running.pop(random.randrange(len(running)))
        decider.filled(ended, now)
        decider.release(ended, now)
        decider.measured(ended, (2000, random.choice((0, 1000)), 100), 0.1, 2.0)
        if random.random() < 0.6:  # several places come free: decide with several engines to choose from, too
            continue
        begun = time.perf_counter()
        placed = decider.dispatch(now)
        took.append((time.perf_counter() - begun) * 1e6 / max(1, len(placed)))
        running += placed
        for _ in placed:
            decider.submit(_task(random), now)
    took.sort()
    return {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1], "n": len(took)}


def idle_decisions(queued: int, engines: int, events: int) -> dict[str, float]:
    """The same with all engines half empty, so that each has to be looked at: tasks come one by one."""
    random, decider, now = Random(2), Decider([1 << 20] * engines), 0.0
    took = []
    for i in range(queued + events):
        decider.submit(_task(random), now)
        begun = time.perf_counter()
        decider.dispatch(now)
        if i >= queued:
            took.append((time.perf_counter() - begun) * 1e6)
    took.sort()
    return {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1], "n": len(took)}


async def measure(length: int, repeats: int) -> dict[str, Any]:
    accepted, hops = [], []
    for _ in range(repeats):
        engine = InstantEngine()
        runtime = Runtime([engine])
        await runtime.start()
        body = chain(length)
        begun = time.perf_counter()
        run = runtime.submit(parse_program(body))
        accepted.append((time.perf_counter() - begun) * 1e3)
        await run.wait()
        hops += [(came - went) * 1e3 for went, came in zip(engine.went[:-1], engine.came[1:], strict=True)]
        await runtime.close()
    hops.sort()
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "calls": length,
        "repeats": repeats,
        "accept_ms": {"median": statistics.median(accepted), "all": accepted},
        "hop_ms": {"p50": hops[len(hops) // 2], "p99": hops[len(hops) * 99 // 100], "max": hops[-1]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.calls, args.repeats))
    print(f"a program of {args.calls} calls is accepted in {found['accept_ms']['median']:.1f} ms (median)")
    print("producer's end to consumer's dispatch: " + ", ".join(f"{k} {v:.3f} ms" for k, v in found["hop_ms"].items()))
    for name, decide in (("saturated", decisions), ("open", idle_decisions)):
        found[f"decision_us_{name}"] = took = decide(args.queued, args.engines, 10_000)
        where = f"{args.queued} queued, {args.engines} engines, {name}"
        print(f"decision ({where}): " + ", ".join(f"{k} {took[k]:.1f} µs" for k in ("p50", "p99", "max")))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
