"""What the adapter of Semantic Kernel costs and saves the app: client CPU beside the stock OpenAIChatCompletion.

    python benchmarks/sk.py [--rounds 15] [--runs 20] [--json FILE]

The server is a process of its own, whose engine answers at once. CPU time of the whole process, as a thread of ours
works as well; the two take turns, and the median of the rounds' ratios counts. Goals: 0.6 of the stock service per call
for a prompt with 3 nested calls; 0.2 ms added to a single call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_client import in_turn, server

from about import about

PACKAGES = ("semantic-kernel", "openai", "pydantic")
#: So many calls in each function, eagerly.
CALLS = {"single": 1, "nested": 4, "deep": 4}
PROMPTS = {
    "a": "One: {{$x}}",
    "b": "Two: {{$x}}",
    "c": "Three: {{$x}}",
    "single": "Summarise this: {{$x}}",
    "nested": "Join {{w.a}}, {{w.b}} and {{w.c}}",
    "inner": "Two: {{w.a}} and {{w.b}}",
    "deep": "Join {{w.inner}}",
}


def kernel(url: str, *, ours: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openai import AsyncOpenAI
        from semantic_kernel import Kernel
        from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion

        from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion

    found = Kernel()
    if ours:
        found.add_service(ParrotChatCompletion(base_url=url, attach_to=found))
    else:
        client = AsyncOpenAI(base_url=url, api_key="none")
        found.add_service(OpenAIChatCompletion(ai_model_id="default", async_client=client))
    for name, prompt in PROMPTS.items():
        found.add_function(plugin_name="w", function_name=name, prompt=prompt)
    return found


def measure(url: str, rounds: int, runs: int) -> dict[str, Any]:
    from semantic_parrot.adapters.semantic_kernel import stats

    loop = asyncio.new_event_loop()
    texts = iter(range(1 << 30))

    def run(app: Any, name: str) -> Callable[[], object]:
        def once() -> object:
            given = f"The tug left at {next(texts)}."
            return loop.run_until_complete(app.invoke(plugin_name="w", function_name=name, x=given))

        return once

    stock, parrot = kernel(url, ours=False), kernel(url, ours=True)
    found: dict[str, Any] = {}
    for name, calls in CALLS.items():
        before = stats()
        took = in_turn([run(stock, name), run(parrot, name)], rounds, runs, time.process_time)
        after = stats()
        ratios = [ours / theirs for theirs, ours in zip(*took, strict=True)]
        added = [ours - theirs for theirs, ours in zip(*took, strict=True)]
        found[name] = {
            "ratio": statistics.median(ratios),
            "ratios": [min(ratios), max(ratios)],
            "added_us": statistics.median(added) * 1e6,
            "stock_us_per_call": statistics.median(took[0]) * 1e6 / calls,
            "parrot_us_per_call": statistics.median(took[1]) * 1e6 / calls,
            "claimed": after.claimed - before.claimed,
            "misses": after.misses - before.misses,
        }
    loop.run_until_complete(stock.services["default"].client.close())
    loop.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=20, help="of a function in each round")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {"about": about(PACKAGES), "load": os.getloadavg()[0]}
    with server() as url:
        found["client"] = measure(url, args.rounds, args.runs)
    for name, took in found["client"].items():
        print(
            f"client CPU, {name}: {took['ratio']:.2f} of OpenAIChatCompletion's "
            f"({took['parrot_us_per_call']:.0f} µs a call, {took['added_us']:+.0f} µs a run)"
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
