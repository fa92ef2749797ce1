"""What the core itself costs, without a model: accepting a program, the hop from a producer to its consumer, one
decision of the scheduler with many tasks queued for many engines, and the memory of variables that wait.

    python benchmarks/core.py [--calls 1000] [--queued 10000] [--engines 64] [--live 100] [--json FILE]

The engine here answers at once, so that nothing but the core is timed, and is able to do all that the core does
something for. Accepting and hops are measured with Python's collector of garbage as it comes, and as the server sets
it (server/garbage.py), in turn; its own pauses are noted.
Goals (1,000 calls accepted in 20 ms; a hop's p99 of 1 ms; a decision's p99 of 100 µs with 10,000 queued for
64 engines; 300 MB with 100,000 live variables) are those of the project's workloads.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import psutil

from about import about
from instant import InstantEngine
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.scheduling import Decider, Task
from semantic_parrot.server import garbage


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


class Pauses:
    """Milliseconds of every collection of garbage while it is open."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self._begun = 0.0

    def __enter__(self) -> Pauses:
        gc.callbacks.append(self._told)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._told)

    def _told(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self.took.append((time.perf_counter() - self._begun) * 1e3)


async def one_chain(length: int) -> tuple[float, list[float]]:
    """Milliseconds to accept a chain of so many calls, and of each hop in it."""
    engine = InstantEngine()
    runtime = Runtime([engine])
    await runtime.start()
    body = chain(length)
    begun = time.perf_counter()
    run = runtime.submit(parse_program(body))
    accepted = (time.perf_counter() - begun) * 1e3
    await run.wait()
    hops = [(came - went) * 1e3 for went, came in zip(engine.went[:-1], engine.came[1:], strict=True)]
    await runtime.close()
    return accepted, hops


async def measure(length: int, repeats: int) -> dict[str, Any]:
    """Chains with the collector as it comes and as the server sets it, in turn."""
    ways: dict[str, tuple[int, int, int]] = {"default": gc.get_threshold(), "server": garbage.THRESHOLDS}
    accepted: dict[str, list[float]] = {way: [] for way in ways}
    hops: dict[str, list[float]] = {way: [] for way in ways}
    pauses: dict[str, list[float]] = {way: [] for way in ways}
    await one_chain(length)  # what is imported on the way
    for _ in range(repeats):
        for way, thresholds in ways.items():
            gc.unfreeze()
            gc.collect()
            if way == "server":
                garbage.settle()
            else:
                gc.set_threshold(*thresholds)
            with Pauses() as found:
                took, hopped = await one_chain(length)
            accepted[way].append(took)
            hops[way] += hopped
            pauses[way] += found.took
    gc.unfreeze()
    gc.set_threshold(*ways["default"])
    return {
        **about(),
        "calls": length,
        "repeats": repeats,
        **{f"accept_ms_{way}": {"median": statistics.median(took), "all": took} for way, took in accepted.items()},
        **{f"hop_ms_{way}": quantiles(took) for way, took in hops.items()},
        **{f"collections_ms_{way}": quantiles(took) for way, took in pauses.items()},
    }


def quantiles(took: list[float]) -> dict[str, float]:
    took = sorted(took) or [0.0]
    return {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1], "n": len(took)}


SYSTEM = "You are the harbour master's assistant. You answer in one short sentence and you name the ship. " * 6


def waiting(number: int, length: int) -> dict[str, Any]:
    """A program none of whose calls can run yet: an app's constants, names of its own."""
    calls = []
    for i in range(length):
        text = {
            "$t": ["Here is what came before:\n", {"var": f"p{number}v{i - 1}" if i else "doc"}, "\nThe next entry: "]
        }
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        request = {"model": "default", "temperature": 0, "max_tokens": 100, "messages": messages}
        calls.append({"id": f"p{number}c{i}", "output": f"p{number}v{i}", "request": request})
    return {"calls": calls, "inputs": {"doc": None}}


async def memory(programs: int, length: int) -> dict[str, float]:
    """Resident megabytes with `programs` of `length` calls that wait for an input, parsed from JSON as they arrive; and
    bytes of a variable and all that belongs to it, as tracemalloc counts them in a tenth of that."""
    runtime = Runtime([InstantEngine()])
    await runtime.start()
    process = psutil.Process()
    before = process.memory_info().rss

    async def fill(numbers: range) -> None:
        for number in numbers:
            body = json.loads(json.dumps(waiting(number, length)))
            body["parrot"] = {"session": runtime.sessions.open().id}
            runtime.submit(parse_program(body))
            await asyncio.sleep(0)

    tenth = max(1, programs // 10)
    await fill(range(tenth, programs + tenth))
    gc.collect()
    resident = process.memory_info().rss
    tracemalloc.start()
    await fill(range(tenth))
    gc.collect()
    traced, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await runtime.close()
    live = programs * length
    return {"live": live, "before_mb": before / 1e6, "mb": resident / 1e6, "bytes_each": traced / (tenth * length)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--live", type=int, default=100, help="programs of 1,000 variables each that wait")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    live = asyncio.run(memory(args.live, 1000))  # first: nothing else has used memory yet
    print(f"{live['live']} live variables: {live['mb']:.0f} MB resident, {live['bytes_each']:.0f} bytes each")
    found = {"memory": live, **asyncio.run(measure(args.calls, args.repeats))}
    for way in ("default", "server"):
        print(f"collector of garbage: {way}")
        print(f"  {args.calls} calls are accepted in {found[f'accept_ms_{way}']['median']:.1f} ms (median)")
        for name, what in (("hop", "producer's end to consumer's dispatch"), ("collections", "collections")):
            took = found[f"{name}_ms_{way}"]
            print(f"  {what}: " + ", ".join(f"{k} {took[k]:.3f} ms" for k in ("p50", "p99", "max")) + f", {took['n']}")
    for name, decide in (("saturated", decisions), ("open", idle_decisions)):
        found[f"decision_us_{name}"] = took = decide(args.queued, args.engines, 10_000)
        where = f"{args.queued} queued, {args.engines} engines, {name}"
        print(f"decision ({where}): " + ", ".join(f"{k} {took[k]:.1f} µs" for k in ("p50", "p99", "max")))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
