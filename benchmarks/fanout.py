"""Wide programs on the native engine in its own process: what a cold fan-out computes, and how soon a cancel frees.

    python benchmarks/fanout.py [--siblings 64] [--prefix 1000] [--cancels 50] [--json FILE]

A fan-out: so many calls at once that share a cold prefix. It is to be computed once: prompt tokens computed are at most
the prefix, what each sibling has of its own, and one block per sibling. A cancel: a run of 100 calls is cancelled while
they decode; counted is the time until the engine reports that no block is held. The goal is one engine step and 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from about import about
from semantic_parrot.core.demo_model import MODEL_DIR
from semantic_parrot.core.engine.messages import Message
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.program import Program, parse_program
from semantic_parrot.core.runtime import Runtime

BLOCK = 16  # tokens of KV that are shared or computed together
SENTENCE = "The ferry Quail put to sea at 07:00 from berth 3 with mail and two passengers. "


def program(prefix: str, count: int, tokens: int) -> Program:
    calls = []
    for i in range(count):
        messages = [{"role": "user", "content": f"{prefix}Question {i}: which ship was it?"}]
        sampling = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
        calls.append({"id": f"c{i}", "output": f"v{i}", "request": {"model": "demo", "messages": messages, **sampling}})
    return parse_program({"calls": calls})


async def cold_fanout(engine: NativeEngine, runtime: Runtime, siblings: int, prefix: int) -> dict[str, Any]:
    """Prompt tokens: computed, and the most that they may be."""
    text = SENTENCE
    while len(await engine.tokenize(text)) < prefix:
        text += SENTENCE
    shared = len(await engine.tokenize((Message("user", text),)))
    await engine.forget_prefixes()
    before = await engine.stats()
    run = runtime.submit(program(text, siblings, 4))
    await run.wait()
    assert run.status == "finished", run.errors()
    after = await engine.stats()
    prompts = [call["response"]["usage"]["prompt_tokens"] for call in run.result()["calls"].values()]
    return {
        "siblings": siblings,
        "prefix": shared,
        "prompt_tokens": sum(prompts),
        "computed": after.prompt_tokens_computed - before.prompt_tokens_computed,
        "bound": shared + sum(n - shared for n in prompts) + siblings * BLOCK,
    }


async def cancel(engine: NativeEngine, runtime: Runtime, number: int, calls: int) -> float:
    """Milliseconds from the cancel of a run whose calls decode until the engine reports that nothing is held."""
    run = runtime.submit(program(f"{number}. {SENTENCE}", calls, 400))
    while (await engine.stats()).running < min(calls, engine.window):
        pass
    begun = time.perf_counter()
    run.cancel()
    while (await engine.stats()).kv_blocks_used:
        pass
    return (time.perf_counter() - begun) * 1e3


async def step_ms(engine: NativeEngine, runtime: Runtime, calls: int) -> float:
    """Of the engine with as many sequences as a run to be cancelled has."""
    run = runtime.submit(program(SENTENCE, calls, 64))
    await run.wait()
    decodes = [call["timings"]["decode"] for call in run.result()["calls"].values()]
    return sorted(decodes)[len(decodes) // 2] / 63 * 1e3


async def measure(siblings: int, prefix: int, cancels: int, calls: int) -> dict[str, Any]:
    engine = NativeEngine(MODEL_DIR, names=("demo",))
    runtime = Runtime([engine])
    await runtime.start()
    found = {"fanout": await cold_fanout(engine, runtime, siblings, prefix)}
    step = await step_ms(engine, runtime, calls)
    took = sorted([await cancel(engine, runtime, number, calls) for number in range(cancels)])
    await runtime.close()
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    goal = step + 50
    found["cancel"] = {"calls": calls, "step_ms": step, "goal_ms": goal, "p50_ms": p50, "p99_ms": p99, "all_ms": took}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--siblings", type=int, default=64)
    parser.add_argument("--prefix", type=int, default=1000, help="tokens that the siblings share")
    parser.add_argument("--cancels", type=int, default=50)
    parser.add_argument("--calls", type=int, default=100, help="of a run that is cancelled")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.siblings, args.prefix, args.cancels, args.calls))
    wide, gone = found["fanout"], found["cancel"]
    print(
        f"{wide['siblings']} siblings, a cold prefix of {wide['prefix']} tokens: computed are {wide['computed']} tokens"
    )
    print(f"  of {wide['prompt_tokens']}; the bound is {wide['bound']}")
    print(f"cancel of {gone['calls']} calls: p50 {gone['p50_ms']:.1f} ms, p99 {gone['p99_ms']:.1f} ms", end="")
    print(f"; a step is {gone['step_ms']:.1f} ms, the goal {gone['goal_ms']:.1f} ms")
    if args.json:
        args.json.write_text(json.dumps({**about(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
