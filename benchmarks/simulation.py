"""The scheduler in simulation: completion over its bounds, what each optimisation is worth, chat beside batch work,
fair shares, and what a simulated call costs.

    python benchmarks/simulation.py [--quick] [--part completion ...] [--json FILE]

All but `cost` is deterministic for a seed, and that is seconds of the processor; `million`, its largest size, takes ten
minutes and is run only if it is named. Four engines, each workload unloaded (at 2 % of what the engines can
do at the most) and at 80 %. Goals: completion <= 1.10 x the bound unloaded, <= 1.25 x at 80 %; chat's p99 TPOT within
5 % of chat alone at >= 95 % of the throughput of batch work alone; Jain index >= 0.98 at three times what the engines
can do; a call costs the same within 2 x from 10^4 to 10^6 of them. Parts that are not run keep their last results in
the file, which is benchmarks/results/simulation.json, or with --quick none.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from math import exp
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from about import about
from semantic_parrot.core.simulator import Costs, Simulation, simulate
from semantic_parrot.core.simulator.costs import PRESETS
from semantic_parrot.core.simulator.load import demand, load
from semantic_parrot.core.simulator.report import quantiles
from semantic_parrot.core.simulator.workloads import SimProgram

ENGINES = 4
NAMES = ("W1", "W2", "W3", "W4", "W5", "W6", "W7")
PARTS = ("completion", "ablation", "mixed", "fair", "cost", "million")
RESULTS = Path(__file__).parent / "results" / "simulation.json"
#: Optimisations that a simulation can do without, and prompt tokens of a cache that is small for W4 and W7.
ABLATED = (
    "batch-cap", "critical-path", "fair-share", "objectives",
    "preemption", "prefix-placement", "retention", "task-groups",
)  # fmt: skip
SMALL = {"W4": 9_000, "W7": 60_000}
TARGETS = (None, 0.013, 0.014, 0.016, 0.02, 0.03)


def completion(name: str, at_load: float, costs: str, calls: int, seed: int, **more: Any) -> dict[str, Any]:
    found = simulate(name, engines=ENGINES, calls=calls, seed=seed, at_load=at_load, costs=costs, **more)
    kept = ("mean_over_bound", "floor", "prompt_tokens_reused", "waits", "jain", "rate")
    paths = {app: own["over_path"].get("mean") for app, own in found["apps"].items()}
    return {"workload": name, "load": at_load, "costs": costs, **{key: found[key] for key in kept}, "over_path": paths}


def mixed(costs: Costs, seconds: float, seed: int, *, chat: bool, batch: bool, tpot: float | None) -> Simulation:
    """W6 for `seconds`: chat as it arrives, and map-reduce jobs for throughput, more than can be done, all at once."""

    def programs() -> Iterator[SimProgram]:
        chats = (p for p in load("W6", seed) if p.app == "chat" and chat)
        jobs = (p for p in load("W6", seed + 1) if p.app == "map-reduce")
        rate = 1 / demand(load("W2", seed), 500, ENGINES, costs) * 0.2
        backlog = islice(jobs, int(seconds * rate * 1.5) + 50) if batch else iter(())
        at_once = (SimProgram(0.0, p.app, p.calls, p.tenant, p.stated) for p in backlog)
        return merge(at_once, chats, key=lambda p: p.at) if chat else at_once

    simulation = Simulation(programs(), ENGINES, 1 << 40, costs, tpot=tpot)
    simulation.run(until=seconds)
    return simulation


def kept_at_most(ratio: float, alone: float, chats: float, work: float, costs: Costs) -> float:
    """The share of batch-only throughput that is left at the most where chat keeps `ratio` times its TPOT `alone`.

    N = `chats` or more run on average, each adding m seconds to a step. An engine with c of them has steps of at most
    T = ratio * alone, of which T - base - c m are left for the batch's work; free, it spends the part `work` of its
    time on that. Chat is on K engines on average: at least on N m / (T - base) of them, which is all that fit, and on
    one whenever any chat runs, which is 1 - exp(-N) of the time (Poisson arrivals). The sum over the engines:
    (E - K) work + K (T - base) / T - N m / T.
    """
    step = ratio * alone
    m = costs.each + costs.token * 700  # half a prompt and half an answer more than that of the mean chat
    used = min(ENGINES, max(1 - exp(-chats), chats * m / max(step - costs.base, m)))
    left = (ENGINES - used) * work + used * (step - costs.base) / step - chats * m / step
    return min(1.0, max(0.0, left / (ENGINES * work)))


def frontier(name: str, seconds: float, seed: int) -> Iterator[dict[str, Any]]:
    """Chat's p99 TPOT, as a multiple of chat alone, against the share of the throughput of batch work alone."""
    costs = PRESETS[name]
    chat = mixed(costs, seconds, seed, chat=True, batch=False, tpot=None).measures.apps["chat"]
    alone = quantiles(chat.tpot)["p99"]
    lone = mixed(costs, seconds, seed, chat=False, batch=True, tpot=None)
    most = lone.measures.apps["map-reduce"].tokens
    work = (lone.measures.trace.fills + lone.measures.trace.marginal) / seconds / ENGINES
    chats = sum(chat.took) / seconds
    scale = alone / 0.0125
    for target in TARGETS:
        tpot = None if target is None else target * scale
        apps = mixed(costs, seconds, seed, chat=True, batch=True, tpot=tpot).measures.apps
        ratio = quantiles(apps["chat"].tpot)["p99"] / alone
        possible = kept_at_most(max(1.0, ratio), alone, chats, work, costs)
        kept = apps["map-reduce"].tokens / most
        yield {"costs": name, "tpot": tpot, "chat_p99": ratio, "batch": kept, "possible": possible, "alone": alone}


def cost(calls: int) -> dict[str, float]:
    """Microseconds of a call, and MiB of the process, of a simulation of so many; in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_cost, (calls,))


def _cost(calls: int) -> dict[str, float]:
    begun = time.process_time()
    simulate("W2", engines=ENGINES, calls=calls, at_load=0.8)
    seconds = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"calls": calls, "us_per_call": seconds / calls * 1e6, "seconds": seconds, "mib": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer calls, one set of costs")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; if left out, all but million")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    calls, seconds, seed = (400, 60.0, args.seed) if args.quick else (2000, 120.0, args.seed)
    presets = ("default",) if args.quick else tuple(PRESETS)
    sizes = (1_000, 10_000) if args.quick else (10_000, 100_000)
    wanted = args.part or PARTS[:-1]
    found: dict[str, Any] = {part: [] for part in wanted}
    jobs: list[tuple[str, Callable[[], Any]]] = []
    for costs in presets:
        jobs += [
            ("completion", lambda n=name, at=at, c=costs: completion(n, at, c, calls, seed))
            for name in NAMES
            for at in (0.02, 0.8)
        ]
        jobs.append(("mixed", lambda c=costs: list(frontier(c, seconds, seed))))

    def ablated(name: str, off: frozenset[str]) -> dict[str, Any]:
        cache = SMALL.get(name)
        return {"off": sorted(off), **completion(name, 0.8, "default", calls, seed, cache=cache, disable=off)}

    for name in NAMES:
        jobs += [("ablation", lambda n=name, o=off: ablated(n, frozenset(o))) for off in ((), *((x,) for x in ABLATED))]
    fair = ((), ("fair-share",))
    jobs += [("fair", lambda o=off: ablated_fair(o, 3_000 if args.quick else 12_000, seed)) for off in fair]
    jobs += [("cost", lambda n=size: cost(n)) for size in sizes]
    jobs.append(("million", lambda: cost(1_000_000)))
    jobs = [(part, job) for part, job in jobs if part in wanted]
    with Progress() as progress:
        bar = progress.add_task("simulating", total=len(jobs))
        for part, job in jobs:
            progress.update(bar, description=part)
            result = job()
            found[part] += result if isinstance(result, list) else [result]
            progress.advance(bar)
    file = args.json or (None if args.quick else RESULTS)
    kept = json.loads(file.read_text()) if file and file.exists() else {}
    kept |= {part: {**about(), "seed": seed, "calls": calls, "results": results} for part, results in found.items()}
    if file:
        file.write_text(json.dumps(kept, indent=1) + "\n")
    show({part: kept[part]["results"] if part in kept else [] for part in PARTS})


def ablated_fair(off: tuple[str, ...], calls: int, seed: int) -> dict[str, Any]:
    return {"off": list(off), **completion("tenants", 3.0, "default", calls, seed, disable=frozenset(off))}


def show(found: dict[str, Any]) -> None:
    console = Console()
    rows = Table("workload", "costs", "load", "over bound", "no schedule below", "over path")
    for r in found["completion"]:
        paths = ", ".join(f"{app} {ratio:.2f}" for app, ratio in r["over_path"].items() if ratio)
        rows.add_row(
            r["workload"], r["costs"], f"{r['load']:.0%}", f"{r['mean_over_bound']:.2f}", f"{r['floor']:.2f}", paths
        )
    console.print(rows)
    base = {r["workload"]: r["mean_over_bound"] for r in found["ablation"] if not r["off"]}
    rows = Table("without", *NAMES, title="completion time without, over that with all (80 % load)")
    for name in ABLATED if base else ():
        own = {r["workload"]: r["mean_over_bound"] for r in found["ablation"] if r["off"] == [name]}
        rows.add_row(name, *(f"{own[w] / base[w]:.2f}" for w in NAMES))
    console.print(rows)
    rows = Table("costs", "target, ms", "chat p99 TPOT over alone", "batch throughput", "possible", title="W6")
    for r in found["mixed"]:
        target = "1.5 x" if r["tpot"] is None else f"{1e3 * r['tpot']:.1f}"
        rows.add_row(r["costs"], target, f"{r['chat_p99']:.2f}", f"{r['batch']:.1%}", f"{r['possible']:.1%}")
    console.print(rows)
    for r in found["fair"]:
        console.print(f"Jain index at 3 x overload, without {r['off'] or 'nothing'}: {r['jain'] or 0:.3f}")
    for r in found["cost"] + found["million"]:
        console.print(f"{r['calls']} calls: {r['us_per_call']:.0f} µs a call, {r['seconds']:.0f} s, {r['mib']:.0f} MiB")


if __name__ == "__main__":
    main()
