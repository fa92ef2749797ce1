"""W4, scaled, on two real engines: how many requests a second each way of routing serves within an objective.

    python benchmarks/routing_w4_real.py [--seconds 15] [--probes 5] [--json FILE]

The built-in model on the CPU, one core an engine; everything is on 127.0.0.1. Prompts, answers and the memory for KV
are a sixth of those of the simulated 13B model (benchmarks/routing_w4.py). Ways: two servers and a client that takes
them in turn, which is what users of several servers have; one server with two engines, without and with placement by
prefix. The objective: a mean normalised latency (seconds over tokens of the answer) of at most four times that of calls
that are alone. Each way's rate is found by bisection, each probe with new queries and the same Poisson arrivals, in
turn over the ways so that all see the same machine. About five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from contextlib import ExitStack
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx

from about import about

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from live import LiveServer

SCALE, KV, FACTOR = 6, 2624, 4.0
APPS = [(prompt // SCALE, answer // SCALE) for prompt, answer in ((7437, 704), (1116, 89), (1694, 631), (2031, 416))]
#: Requests a second between which the limit is looked for: what all ways are expected to serve, and none.
RATES = 8.0, 128.0
FLAGS = ("--kv-tokens", str(KV), "--kv-offload-tokens", "0")
WAYS: dict[str, tuple[int, tuple[str, ...]]] = {
    "round-robin": (2, ("--engines", "1")),
    "load-only": (1, ("--engines", "2", "--disable", "prefix-placement")),
    "parrot": (1, ("--engines", "2")),
}
WORDS = "the harbour master wrote down each ship its cargo and the hour at which it left the quay".split()


class Way:
    """Servers, and a client that asks them in turn. `prompts`: of the apps."""

    def __init__(self, http: httpx.AsyncClient, servers: list[LiveServer]) -> None:
        self._http = http
        self._turn = cycle([server.url for server in servers])
        self._number = count()
        self.prompts: list[str] = []

    async def call(self, prompt: str, query: str, answer: int) -> tuple[float, dict[str, Any]]:
        """(seconds, usage)"""
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": query}]
        body = {"model": "default", "messages": messages, "temperature": 0, "max_tokens": answer, "ignore_eos": True}
        begun = time.perf_counter()
        response = await self._http.post(f"{next(self._turn)}/chat/completions", json=body)
        response.raise_for_status()
        return time.perf_counter() - begun, response.json()["usage"]

    async def fit(self) -> None:
        """Make each app's prompt as long as it should be."""
        rng = random.Random(0)
        for app, (wanted, _) in enumerate(APPS):
            words = [f"app {app}:", *rng.choices(WORDS, k=wanted * 2)]
            used = (await self.call(" ".join(words[:80]), "go", 1))[1]["prompt_tokens"]
            self.prompts.append(" ".join(words[: round(80 * wanted / used)]))

    async def one(self, app: int) -> float:
        """Normalised latency of a call of the app."""
        answer = APPS[app][1]
        seconds, usage = await self.call(self.prompts[app], f"query {next(self._number)}", answer)
        assert usage["completion_tokens"] == answer
        return seconds / answer

    async def probe(self, rate: float, seconds: float, seed: int) -> dict[str, float]:
        """Mean normalised latency at `rate` requests a second, of those that come in so many seconds."""
        rng, at, calls = random.Random(seed), 0.0, []
        begun = time.perf_counter()
        while (at := at + rng.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
            calls.append(asyncio.create_task(self.one(rng.randrange(len(APPS)))))
        took = await asyncio.gather(*calls)
        return {"rate": rate, "calls": len(took), "latency": statistics.mean(took) if took else 0.0}


async def measure(servers: dict[str, list[LiveServer]], seconds: float, probes: int) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=None)) as http:
        ways = {name: Way(http, own) for name, own in servers.items()}
        alone = []
        for way in ways.values():
            await way.fit()
            for _ in range(2):  # on each server
                for app in range(len(APPS)):
                    await way.one(app)
        for _ in range(2):
            for app in range(len(APPS)):
                alone.append(await ways["parrot"].one(app))
        objective = FACTOR * statistics.mean(alone)
        bounds = {name: list(RATES) for name in ways}
        tried: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for number in range(probes):
            for name, way in ways.items():
                low, high = bounds[name]
                found = await way.probe((low * high) ** 0.5, seconds, number)
                tried[name].append(found)
                bounds[name][found["latency"] > objective] = found["rate"]
                print(f"{name}: {found['rate']:.2f} a second: {1e3 * found['latency']:.0f} ms a token", flush=True)
    rates = {name: low for name, (low, _) in bounds.items()}
    return {"alone": alone, "objective": objective, "rates": rates, "within": bounds, "tried": tried}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--probes", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each engine
    with ExitStack() as stack:
        servers = {
            name: [stack.enter_context(LiveServer(*FLAGS, *flags)) for _ in range(number)]
            for name, (number, flags) in WAYS.items()
        }
        found = asyncio.run(measure(servers, args.seconds, args.probes))
    for name, rate in found["rates"].items():
        if found["within"][name][0] == RATES[0] or found["within"][name][1] == RATES[1]:
            print(f"{name}: its limit is not between {RATES[0]:g} and {RATES[1]:g} requests a second")
        print(f"{name}: {rate:.2f} requests a second; parrot {found['rates']['parrot'] / rate:.2f} times")
    if args.json:
        args.json.write_text(json.dumps({**about(), "kv_tokens": KV, "apps": APPS, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
