"""A two-step chain whose first answer is long: pipelined prefill on and off in turn, on the demo model.

    python benchmarks/pipelined_prefill.py [--tokens 1000] [--repeats 30] [--deterministic] [--json FILE]

What counts: from the producer's last token to the consumer's first, the producer's own time, the chain's, and the
processor time that the engine and this process, which stands for the server, spend on the chain. The same chain runs
with and without, one right after the other on one engine process, which goes first in turn; told is the median of the
ratios of such pairs, with a bootstrap interval (95 %), so that what the machine does besides concerns both. (Two
processes of the same engine can differ by more than what is measured here, for as long as they live: where their memory
lies is luck.)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import psutil

from about import about
from intervals import interval
from semantic_parrot.core.demo_model import MODEL_DIR
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.runtime import Runtime

WHAT = {
    "hop": "last token to first token",
    "producer": "the producer",
    "chain": "the chain",
    "cpu": "the engine's processor time",
    "server": "this process's",
}


def chain(seed: int, tokens: int) -> dict[str, Any]:
    """`tokens` of text, then a few more that read it all."""

    def request(limit: int, *parts: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": {"$t": list(parts)}}]
        # Not `ignore_eos`: what follows an end is often no text at all, and the reader has nothing to read.
        sampling = {"temperature": 0, "max_tokens": limit, "min_tokens": limit}
        return {"model": "demo", "messages": messages, **sampling}

    first = request(tokens, f"Merge these summaries into one report:\nEntry {seed}: Kestrel left berth 4.")
    second = request(8, f"Report {seed} so far: ", {"var": "long"}, "\nGive the updated report.")
    calls = [
        {"id": "first", "output": "long", "request": first},
        {"id": "second", "output": "end", "request": second},
    ]
    return {"calls": calls}


class Started:
    """An engine that has been started, and that others close."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def cpu_seconds(engine: NativeEngine) -> float:
    times = psutil.Process(engine.pid).cpu_times()
    return times.user + times.system


async def measure(tokens: int, repeats: int, deterministic: bool) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {"on": [], "off": []}
    texts: list[set[str]] = [set() for _ in range(repeats + 1)]
    engine = NativeEngine(MODEL_DIR, names=("demo",), deterministic=deterministic)
    await engine.start()
    runtimes = {}
    for way in runs:
        runtimes[way] = Runtime([Started(engine)], disable=() if way == "on" else {"prefill-ahead"})
        await runtimes[way].start()
    for seed in range(repeats + 1):  # the first pair warms up
        for way in ("on", "off") if seed % 2 else ("off", "on"):
            await engine.forget_prefixes()
            runtime, spent, own = runtimes[way], cpu_seconds(engine), time.process_time()
            run = runtime.submit(parse_program(chain(seed, tokens)))
            await run.wait()
            assert run.status == "finished", run.errors()
            texts[seed].add(str(run.outputs()["end"]))
            first, second = (run.result()["calls"][name]["timings"] for name in ("first", "second"))
            found = {
                "producer": first["queued"] + first["prefill"] + first["decode"],
                "hop": second["queued"] + second["prefill"],
                "chain": second["ready"] + second["queued"] + second["prefill"] + second["decode"],
                "cpu": cpu_seconds(engine) - spent,
                "server": time.process_time() - own,
            }
            if seed:
                runs[way].append(found)
    for runtime in runtimes.values():
        await runtime.close()
    await engine.close()
    keys = tuple(WHAT)
    ratios = {key: [off[key] / on[key] for on, off in zip(runs["on"], runs["off"], strict=True)] for key in keys}
    return {
        "tokens": tokens,
        "deterministic": deterministic,
        "same_text": all(len(found) == 1 for found in texts),
        "median_seconds": {way: {key: statistics.median(r[key] for r in runs[way]) for key in keys} for way in runs},
        "off_over_on": {key: {"median": statistics.median(found), **interval(found)} for key, found in ratios.items()},
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.tokens, args.repeats, args.deterministic))
    on, off = found["median_seconds"]["on"], found["median_seconds"]["off"]
    for key, what in WHAT.items():
        times = f"off {off[key] * 1e3:8.1f} ms   on {on[key] * 1e3:8.1f} ms"
        ratio = found["off_over_on"][key]
        print(f"{what:28} {times}   off/on {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]")
    print("same text" if found["same_text"] else "THE TEXTS DIFFER")
    if args.json:
        args.json.write_text(json.dumps({**about(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
