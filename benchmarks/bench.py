"""The proof: workloads of LangChain apps, planned by Parrot and call by call, beside other servers, in one run.

    parrot bench W1 W2 [--against E0,E1,llama.cpp] [--rtt 0,250] [--scale 0.1] [--json FILE]
    parrot bench --page            # measures nothing: docs/benchmarks.md from benchmarks/results/bench-*.json

Every comparator runs the same app on the same weights, one after the other, in another order each time, with texts that
no cache knows. E0: our server, call by call, without prefix cache; E1: with it; `without:NAME`: ours without one
optimisation; or a peer of `make peers`. One that is missing, dies or answers another text is a row that says so. What
is measured is kept after every repetition. docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engines import model, results
from peers.home import home
from proof import page, room
from proof.comparators import OURS, comparator
from proof.run import Bench, Plan
from workloads import WORKLOADS, workload
from workloads.texts import of_model

RESULTS = Path(__file__).parent / "results"
MODELS = {"100m": model.SHAPE, "tiny": model.SMALL}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="parrot bench", description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="W", help=f"{', '.join(WORKLOADS)}, or a file of a trace")
    parser.add_argument("--against", default="E0,E1,llama.cpp", help="E0, E1, without:NAME, or peers (make peers)")
    parser.add_argument("--rtt", default="0,250", help="network round trips, in milliseconds")
    parser.add_argument("--scale", type=float, help="1: the paper's; left out: of some seconds, by workload")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=MODELS, default="100m", help="random weights of this size")
    parser.add_argument("--dtype", choices=model.DTYPES, default="bfloat16", help="of what is measured")
    parser.add_argument("--threads", type=int, default=min(4, len(usable()) or 1), help="of each server")
    parser.add_argument("--json", type=Path, help="where to write (bench-….json in benchmarks/results)")
    parser.add_argument("--page", action="store_true", help="measure nothing: the page of what is in that folder")
    return parser.parse_args(argv)


def plan_of(args: argparse.Namespace) -> tuple[Plan, dict[str, Any]]:
    """What is asked for, and the model's shape. Raises ValueError with one line for what can't be."""
    if not args.workloads:
        raise ValueError(f"which workloads? There is: {', '.join(WORKLOADS)}")
    works = tuple(workload(name) for name in dict.fromkeys(args.workloads))
    if args.scale is not None:
        works = tuple(replace(work, scale=args.scale) for work in works)
    if not all(work.scale > 0 for work in works) or args.repeats < 1 or args.threads < 1:
        raise ValueError("--scale, --repeats and --threads are more than 0")
    try:
        rtts = tuple(float(part) for part in args.rtt.split(","))
    except ValueError:
        raise ValueError(f"--rtt {args.rtt}: milliseconds are wanted, as in 0,250") from None
    if min(rtts) < 0:
        raise ValueError(f"--rtt {args.rtt}: less than nothing")
    names = dict.fromkeys([OURS, *filter(None, args.against.split(","))])
    comparators = tuple(comparator(name) for name in names)
    longest = max(room.needs(work).window for work in works)
    shape = MODELS[args.model]
    if longest > shape["max_position_embeddings"]:
        shape = {**shape, "max_position_embeddings": 1 << (longest - 1).bit_length()}
    servers = len({one.server for one in comparators})
    room.check(works, shape, servers, psutil.virtual_memory().available)
    cores, _ = shared_out(args.threads)
    return Plan(works, comparators, rtts, args.repeats, args.seed, (args.dtype,), args.threads, home(), cores), shape


def usable() -> list[int]:
    """Cores that this process may run on, in order; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def shared_out(threads: int) -> tuple[str | None, list[int]]:
    """Cores of the servers, as taskset wants them, and of the client, where there are enough for both to have their
    own; else None, and all."""
    cores = usable()
    if len(cores) <= threads or shutil.which("taskset") is None:
        return None, cores
    return ",".join(map(str, cores[:threads])), cores[threads:]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(sys.argv[1:] if argv is None else argv)
    if args.page:
        page.write(sorted(RESULTS.glob("bench-*.json")))
        return 0
    try:
        plan, shape = plan_of(args)
    except ValueError as error:
        print(f"parrot: {error}", file=sys.stderr)
        return 2
    path = args.json or RESULTS / f"bench-{'-'.join(work.key for work in plan.works)}.json"
    kept = results.Results(path, machine=results.machine(args.threads))
    kept.data["settings"] = {
        **{name: getattr(args, name) for name in ("repeats", "seed", "model", "dtype", "threads")},
        "workloads": {work.key: work.title for work in plan.works},
        "scale": {work.key: work.scale for work in plan.works},
        "comparators": {one.name: one.title for one in plan.comparators},
        "rtt": plan.rtts,
        "servers_on": plan.cores,
    }
    if plan.cores is not None:
        os.sched_setaffinity(0, shared_out(args.threads)[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background begins without
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        measure(plan, shape, kept)
        kept.data["finished"] = True
    except KeyboardInterrupt:
        print("parrot: interrupted; what was measured until now is kept", file=sys.stderr)
    finally:
        kept.save()
    print(page.tables([json.loads(path.read_text())]))
    print(f"\nkept in {path}", file=sys.stderr)
    return 0 if kept.data["finished"] else 130


def measure(plan: Plan, shape: dict[str, Any], kept: results.Results) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("the model", total=plan.steps)

        def say(what: str) -> None:
            progress.update(task, description=what)
            if not console.is_terminal:  # in a file, there is no bar that moves
                console.print(what, soft_wrap=True)

        checkpoints = {
            dtype: model.make(plan.home, dtype, shape=shape)
            for dtype in model.DTYPES
            if dtype == "float32" or dtype in plan.dtypes
        }
        Bench(
            plan,
            kept,
            of_model(checkpoints["float32"]),
            checkpoints,
            say=say,
            advance=lambda: progress.advance(task),
        ).run()


if __name__ == "__main__":
    sys.exit(main())
