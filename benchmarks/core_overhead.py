"""What the core itself costs, without a model: accepting a program, and the hop from a producer to its consumer.

    python benchmarks/core_overhead.py [--json FILE]

The engine here answers at once, so that nothing but the core is timed. Goals (a program of 1,000 calls accepted in
20 ms; a hop's p99 of 1 ms) are those of the project's workloads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from semantic_parrot.core.engines.protocol import Delta, Done, ModelInfo, Stats, Usage
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.runtime import Runtime


class InstantEngine:
    """Answers every request with one word, and notes when each came and went."""

    name = "instant"
    window = 1024
    model = ModelInfo(("default",), 1 << 20)
    healthy = True

    def __init__(self) -> None:
        self.came: list[float] = []
        self.went: list[float] = []

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def forget_prefixes(self) -> None: ...

    def prefill(self, key: object, request: ModelRequest | None) -> None: ...

    async def generate(self, request: ModelRequest) -> AsyncGenerator[Delta | Done, None]:
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
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.calls, args.repeats))
    print(f"a program of {args.calls} calls is accepted in {found['accept_ms']['median']:.1f} ms (median)")
    print("producer's end to consumer's dispatch: " + ", ".join(f"{k} {v:.3f} ms" for k, v in found["hop_ms"].items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
