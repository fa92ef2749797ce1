"""Decode steps of the native engine on the demo model, through its process, deterministic mode on and off in turn.

python benchmarks/engine_decode.py [--batches 1 4 16] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

from about import about
from semantic_parrot.core.demo_model import MODEL_DIR
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.protocol import Done
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.sampling import Sampling


async def answer(engine: NativeEngine, number: int, tokens: int) -> Done:
    """One greedy answer of exactly `tokens` tokens to a prompt that no other request has."""
    text = f"Summarise this entry in one sentence:\n{number}: the ferry Quail put to sea at 07:00 from berth 3."
    sampling = Sampling(temperature=0.0, top_p=1.0, seed=1, max_tokens=tokens, stop=(), ignore_eos=True)
    async for item in engine.generate(ModelRequest("demo", (Message("user", text),), None, sampling)):
        last = item
    assert isinstance(last, Done)
    return last


async def measure(batches: list[int], tokens: int, repeats: int) -> list[dict[str, Any]]:
    engines = {mode: NativeEngine(MODEL_DIR, names=("demo",), deterministic=mode) for mode in (False, True)}
    for engine in engines.values():
        await engine.start()
        await answer(engine, 0, 8)
    rows: list[dict[str, Any]] = []
    for batch in batches:
        steps: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(repeats):
            for mode, engine in engines.items():
                first = 1 + repeat * 1000 + batch * 100_000
                done = await asyncio.gather(*(answer(engine, first + i, tokens) for i in range(batch)))
                steps[mode].append(statistics.median(d.timings.decode for d in done) / (tokens - 1) * 1e3)
        for mode, found in steps.items():
            rows.append({"batch": batch, "deterministic": mode, "ms_per_step": statistics.median(found), "all": found})
    for engine in engines.values():
        await engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = asyncio.run(measure(args.batches, args.tokens, args.repeats))
    for row in rows:
        mode = "deterministic" if row["deterministic"] else "default"
        rate = row["batch"] / row["ms_per_step"] * 1e3
        print(f"batch {row['batch']:3} {mode:14} {row['ms_per_step']:6.2f} ms a step, {rate:6.0f} tokens/s")
    if args.json:
        args.json.write_text(json.dumps({**about(), "tokens": args.tokens, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
