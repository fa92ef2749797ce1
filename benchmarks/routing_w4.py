"""W4, four apps on four modelled engines: how many requests a second each way of routing serves within the objective.

    python benchmarks/routing_w4.py [--calls 2000] [--json FILE]

Deterministic. The objective: the mean over all requests of the normalised latency (seconds from arrival to the last
token, over the tokens of the answer) is at most 0.1 s a token. The rate is the largest Poisson rate, found by
bisection, at which that holds on the mean of three seeds. All engines are alike and have continuous batching, chunked
prefill and a prefix cache; they differ in who gets which request:

- round-robin: each in turn, first come first served; a balancer in front of four servers.
- least-loaded: the one with the fewest requests.
- load-only: Parrot's scheduler without prefixes.
- parrot: Parrot's scheduler.

Two GPUs, by arithmetic from weights, bandwidth and FLOP/s (at 85 % and 55 %): a 13B model in 16 bits on an A100 of
40 GB, whose memory holds 15,700 tokens of KV (vLLM's paper, table 1), and a 7B model on an A6000 of 48 GB, which holds
54,000. Each without and with tree attention, which reads a prefix that several share once for all of them, as Parrot's
own engine does. Goals: 3 times round-robin, 1.5 times the better of the routings by load alone, on the same engines.
"""

from __future__ import annotations

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from about import about
from semantic_parrot.core.scheduling import Decider, Policy, Task
from semantic_parrot.core.scheduling.fleet import Fleet
from semantic_parrot.core.scheduling.state import EngineState
from semantic_parrot.core.scheduling.task import OPTIMISATIONS
from semantic_parrot.core.simulator import Costs, Simulation
from semantic_parrot.core.simulator.load import load

ENGINES, SEEDS, OBJECTIVE = 4, (0, 1, 2), 0.1
#: Tokens of each app's answer; and its natural rate in the simulator's workload.
ANSWERS, RATE = {"gpt0": 704, "gpt1": 89, "gpt2": 631, "gpt3": 416}, 4.0
GPUS = {
    "13B, A100 40 GB": Costs(base=0.0197, each=0.0001, token=4.8e-7, prefill=0.00015, kv=15_700),
    "7B, A6000 48 GB": Costs(base=0.0207, each=0.0001, token=8.0e-7, prefill=0.00016, kv=54_000),
}
GPUS |= {f"{name}, tree": replace(costs, tree=1) for name, costs in GPUS.items()}
RESULTS = Path(__file__).parent / "results" / "routing_w4.json"


class Balancer(Fleet, ABC):
    """Who places by what a balancer in front of the engines knows: nothing of the task."""

    @abstractmethod
    def pick(self) -> EngineState: ...

    def best(
        self,
        task: Task,
        rank: int,
        queued: float,
        *,
        without: Set[int] = frozenset(),
        near: int = -1,
        full: bool = False,
    ) -> tuple[EngineState, float]:
        return self.pick(), 0.0


class RoundRobin(Balancer):
    """Each engine in turn."""

    turn = -1

    def pick(self) -> EngineState:
        self.turn = (self.turn + 1) % len(self.engines)
        return self.engines[self.turn]


class LeastLoaded(Balancer):
    """The engine with the fewest requests."""

    def pick(self) -> EngineState:
        return min(self.engines, key=lambda engine: engine.n)


PLAIN = OPTIMISATIONS - {"single-flight"}
ROUTINGS: dict[str, tuple[type[Fleet], frozenset[str]]] = {
    "round-robin": (RoundRobin, PLAIN),
    "least-loaded": (LeastLoaded, PLAIN),
    "load-only": (Fleet, frozenset({"prefix-placement"})),
    "parrot": (Fleet, frozenset()),
}


def latency(routing: str, costs: Costs, rate: float, seed: int, calls: int) -> dict[str, float]:
    """Mean normalised latency at `rate` requests a second, and the share of prompt tokens that was found resident."""
    fleet, disabled = ROUTINGS[routing]
    simulation = Simulation(load("W4", seed, rate / RATE), ENGINES, calls, costs, disabled=disabled)
    if fleet is not Fleet:
        decider = simulation.decider = Decider([1 << 20] * ENGINES, Policy(disabled=disabled))
        decider.fleet = fleet([1 << 20] * ENGINES, decider.policy, decider.estimates.costs)
    simulation.run()
    took = [seconds / ANSWERS[name] for name, app in simulation.measures.apps.items() for seconds in app.took]
    assert len(took) == calls
    return {"latency": sum(took) / calls, "reused": simulation.measures.reused / simulation.measures.prompted}


def served(routing: str, gpu: str, calls: int) -> dict[str, Any]:
    """The largest rate that keeps the objective, within 1 %."""
    low, high, tried = 0.5, 64.0, []
    while high / low > 1.01:
        rate = (low * high) ** 0.5
        found = [latency(routing, GPUS[gpu], rate, seed, calls) for seed in SEEDS]
        mean = sum(one["latency"] for one in found) / len(SEEDS)
        tried.append({"rate": rate, "latency": mean, "seeds": found})
        if mean <= OBJECTIVE:
            low = rate
        else:
            high = rate
    return {"gpu": gpu, "routing": routing, "rate": low, "tried": sorted(tried, key=lambda one: one["rate"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    ways = [(routing, gpu) for gpu in GPUS for routing in ROUTINGS]
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(served, *zip(*ways, strict=True), [args.calls] * len(ways)))
    rates = {(one["gpu"], one["routing"]): one["rate"] for one in results}
    for gpu in GPUS:
        own = rates[gpu, "parrot"]
        others = ", ".join(f"{rates[gpu, way]:.2f} {way} ({own / rates[gpu, way]:.2f} times)" for way in ROUTINGS)
        print(f"{gpu}: requests a second: {others}")
    about_it = {**about(()), "objective": OBJECTIVE, "seeds": SEEDS, "calls": args.calls, "engines": ENGINES}
    args.json.write_text(json.dumps({**about_it, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
