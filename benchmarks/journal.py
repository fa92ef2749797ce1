"""What being durable costs: CPU of the event loop and of the journal's thread, for each call of a run, beside the same
run without a journal, in turns. The engine answers at once: nothing else is timed.

    python benchmarks/journal.py [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from about import about
from instant import InstantEngine
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime

CALLS, RUNS = 10, 20


def program(run: int, lifetime: str) -> dict[str, Any]:
    """A chain."""
    calls = []
    for i in range(CALLS):
        content = {"$t": [f"{run}, go on with ", *([{"var": f"v{i - 1}"}] if i else [])]}
        request = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": content}]}
        calls.append({"id": f"c{i}", "output": f"v{i}", "request": request})
    return {"calls": calls, "parrot": {"lifetime": lifetime}}


async def timed(runtime: Runtime, lifetime: str) -> tuple[float, float, float]:
    """(seconds of CPU in the loop's thread, in all threads, of wall time), for each call."""
    bodies = [program(run, lifetime) for run in range(RUNS)]
    before = time.thread_time(), time.process_time(), time.perf_counter()
    runs = []
    for body in bodies:
        parsed = parse_program(body)
        runs.append((await runtime.accept(parsed, body))[0] if lifetime == "background" else runtime.submit(parsed))
    await asyncio.gather(*(run.wait() for run in runs))
    after = time.thread_time(), time.process_time(), time.perf_counter()
    assert all(run.status == "finished" for run in runs)
    loop, process, wall = ((b - a) / (RUNS * CALLS) for a, b in zip(before, after, strict=True))
    return loop, process, wall


def median(times: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """Microseconds."""
    return {
        name: 1e6 * statistics.median(row[i] for row in times) for i, name in enumerate(("loop", "process", "wall"))
    }


async def measure(rounds: int) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float, float]]] = {"foreground": [], "background": []}
    with tempfile.TemporaryDirectory(prefix="parrot-journal-") as folder:
        runtime = Runtime([InstantEngine()], journal=Journal(f"sqlite:///{folder}/journal.db"))
        await runtime.start()
        for _ in range(rounds):
            for lifetime, times in found.items():
                times.append(await timed(runtime, lifetime))
        await runtime.close()
    return {name: median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.rounds))
    for name, row in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.0f} µs" for key, value in row.items()), "a call")
    if args.json:
        args.json.write_text(json.dumps({"about": about(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
