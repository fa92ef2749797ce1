"""Where a call goes, among many engines: how long a decision takes, and what the index of resident prefixes weighs.

    python benchmarks/routing.py [--engines 10000] [--prefixes 1000000] [--json FILE]

The engines are states in the scheduler, each with costs of its own; nothing runs. Apps are of all sizes (Zipf): the
largest ones' constants are resident on thousands of engines, the smallest ones' on ten. A prompt has an app's constant,
one of its documents, and a question that nobody has asked before. Tasks come and end all the time, so that engines
differ in load. Times are the thread's own; the collector of garbage is set as the server sets it. Memory is what the
process grows by while the index fills, and what tracemalloc counts of a tenth of it. Goals: a decision's p99 within
200 µs, an index within 1 GiB.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import psutil

from about import about
from semantic_parrot.core.scheduling import Decider, Task
from semantic_parrot.core.scheduling.residency import Residency
from semantic_parrot.core.simulator.report import quantiles
from semantic_parrot.server import garbage

APPS, WINDOW = 1000, 16


def name_of(kind: int, number: int, length: int) -> int:
    return length << 32 | (kind << 28 | number)


def popularity(random: Random) -> int:
    """An app: the first is a seventh of all."""
    return min(int(APPS ** random.random()), APPS) - 1


def task_of(random: Random, documents: int) -> Task:
    app = popularity(random)
    names = (
        name_of(1, app, 8000),
        name_of(2, app * documents + random.randrange(documents), 24_000),
        name_of(3, random.getrandbits(28), 24_400),
    )
    return Task(
        objective=random.choice(("latency", "throughput")),
        prompt=6100.0,
        output=random.randint(20, 400),
        seconds=2.0,
        prefixes=names,
        held=tuple((name >> 32) / 4 for name in names),
        site=app,
        chars=24_400,
    )


def fill(index: Residency, engines: int, prefixes: int, random: Random) -> int:
    """`prefixes` different ones, most on one engine; the popular apps' constants on thousands. How many pairs."""
    documents, pairs = prefixes // APPS, 0
    for app in range(APPS):
        holders = random.sample(range(engines), max(1, engines // (app + 2)))
        for engine in holders:
            index.hold(engine, (name_of(1, app, 8000),), 0.0)
        pairs += len(holders)
        for document in range(documents):
            for engine in random.sample(range(engines), random.choice((1, 1, 1, 2))):
                index.hold(engine, (name_of(2, app * documents + document, 24_000),), 0.0)
                pairs += 1
    return pairs


def memory(engines: int, prefixes: int) -> dict[str, float]:
    """MiB of an index: resident, and as tracemalloc counts a tenth, times ten."""
    process = psutil.Process()
    before = process.memory_info().rss
    index = Residency(engines)
    pairs = fill(index, engines, prefixes, Random(1))
    gc.collect()
    mib = (process.memory_info().rss - before) / (1 << 20)
    del index
    tracemalloc.start()
    tenth = Residency(engines // 10)
    fill(tenth, engines // 10, prefixes // 10, Random(1))
    traced, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"pairs": pairs, "mib": mib, "mib_traced": traced * 10 / (1 << 20)}


def decisions(engines: int, prefixes: int, events: int, *, full: bool) -> dict[str, Any]:
    """Microseconds to decide where a task goes, and of what follows: its first token, its end and what was learned.
    `full`: nearly all engines are, so that a place comes free before a task is placed."""
    random, decider, now = Random(2), Decider([WINDOW] * engines, preempting=range(engines)), 0.0
    documents = prefixes // APPS
    pairs = fill(decider.fleet.residency, engines, prefixes, random)
    running = []
    # All have costs of their own.
    for _ in range(engines):
        decider.submit(task_of(random, documents), now)
    running += decider.dispatch(now)
    for i, placement in enumerate(running):
        decider.filled(placement, now)
        decider.fleet.learn(placement, (6100, 100 * (i % 50), 100), 0.5 + i % 7 / 10, 1.0 + i % 5 / 10)
        other = decider.fleet.engines[i % engines]
        other.costs = decider.fleet.costs.copy()
        other.costs.decoded(8, 100, 1.5 + i % 11 / 10)
        decider.fleet._changed(other)
    load = engines * WINDOW if full else engines * WINDOW // 2
    while len(running) < load:
        for _ in range(1000):
            decider.submit(task_of(random, documents), now)
        running += decider.dispatch(now)
    decided, followed = [], []
    garbage.settle()
    for _ in range(events):
        now += 0.001
        place = random.randrange(len(running))
        running[place], running[-1] = running[-1], running[place]
        ended = running.pop()
        begun = time.thread_time()
        decider.filled(ended, now)
        decider.release(ended, now)
        decider.measured(ended, (6100, random.choice((0, 6000)), 100), 0.6, 2.0)
        followed.append((time.thread_time() - begun) * 1e6)
        decider.submit(task_of(random, documents), now)
        begun = time.thread_time()
        placed = decider.dispatch(now)
        decided.append((time.thread_time() - begun) * 1e6 / max(1, len(placed)))
        running += placed
    return {"pairs": pairs, "running": len(running), "decision_us": quantiles(decided), "end_us": quantiles(followed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", type=int, default=10_000)
    parser.add_argument("--prefixes", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {**about(()), "engines": args.engines, "prefixes": args.prefixes}
    found["index"] = memory(args.engines, args.prefixes)  # first: nothing else has used memory yet
    print("index: {pairs} pairs, {mib:.0f} MiB resident ({mib_traced:.0f} by tracemalloc)".format(**found["index"]))
    for way in ("half", "full"):
        own = found[way] = decisions(args.engines, args.prefixes, args.events, full=way == "full")
        for what in ("decision_us", "end_us"):
            took = own[what]
            print(f"{way}, {what}: " + ", ".join(f"{k} {took[k]:.1f}" for k in ("p50", "p99", "max")))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
