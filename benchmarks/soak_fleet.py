"""Kills one of a server's engine processes again and again, with SIGKILL at random moments, under many open runs, and
checks what is promised (docs/engines.md): every run finishes, with the texts that it has when nothing is killed.

    python benchmarks/soak_fleet.py --kills 100 --open 100 --engines 2
    python benchmarks/soak_fleet.py --kills 100 --open 100 --engines 2 --ray

With --ray each engine is on a node of a Ray cluster on this machine, and what is killed is a replica, all of a node
(then another one joins), or the server's process for Ray.

Real engines on a small model that is made in a temporary folder, in deterministic mode; everything is on 127.0.0.1.
Exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from about import about

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from live import LiveServer
from tiny_models import make_model

if TYPE_CHECKING:
    from ray_cluster import RayCluster

#: Different programs: the texts of each are known before anything is killed.
PROGRAMS = 12
#: Between two kills, at most so many times what the server took to start: so that most hit engines that are up. Faster
#: ones kill what is loading again and again, until it counts as hopeless, which is another promise.
PAUSE = 1.5
PATIENCE = 600.0

#: Kills something of a server's, and says what; None: there was nothing.
Strike = Callable[[LiveServer, random.Random], str | None]


def call(output: str, *parts: object, tokens: int = 24) -> dict[str, Any]:
    request = {"model": "default", "temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    request["messages"] = [{"role": "user", "content": {"$t": list(parts)}}]
    return {"id": output, "output": output, "request": request}


def program(number: int) -> dict[str, Any]:
    """A fan-out of three with a shared beginning, and what is made of them, streamed."""
    begin = "The harbour master wrote down each ship, its cargo and the hour. "
    parts = [call(f"p{i}", f"{begin}{number} {i}: ", tokens=16 + 8 * i) for i in range(3)]
    ends = [
        call("merge", "Merge: ", {"var": "p0"}, {"var": "p1"}, {"var": "p2"}),
        call("end", "End: ", {"var": "merge"}),
    ]
    outputs = [node["output"] for node in (*parts, *ends)]
    return {"calls": [*parts, *ends], "outputs": outputs, "deltas": "all", "stream": True}


@dataclass
class Report:
    """`again`: executions beyond one a call: what was lost and made again."""

    engines: int
    open: int
    kills: int = 0
    killed: dict[str, int] = field(default_factory=dict)
    finished: int = 0
    calls: int = 0
    again: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


async def run(http: httpx.AsyncClient, url: str, number: int) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    """(outputs as they were streamed, as the calls ended, errors by variable)"""
    told: dict[str, str] = {}
    whole: dict[str, str] = {}
    errors: dict[str, Any] = {}
    async with http.stream("POST", f"{url}/runs", json=program(number)) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "variable.delta":
                told[event["variable"]] = told.get(event["variable"], "") + event["text"]
            elif event["type"] == "call.finished":
                whole[event["id"]] = event["response"]["choices"][0]["message"]["content"]
            elif event["type"] == "call.failed":
                errors[event["id"]] = event["body"]["error"]["message"]
    return told, whole, errors


def kill_child(server: LiveServer, rng: random.Random) -> str | None:
    """What was killed: an engine process, if there is one."""
    engines = [p for p in psutil.Process(server.pid).children() if p.status() != psutil.STATUS_ZOMBIE]
    if not engines:
        return None
    os.kill(rng.choice(engines).pid, signal.SIGKILL)
    return "process"


def kill_in(cluster: RayCluster, server: LiveServer, rng: random.Random) -> str | None:
    """As kill_child: a replica, a node or, one time in ten, what speaks to Ray."""
    if rng.random() < 0.1:
        return kill_child(server, rng) and "driver"
    node = rng.choice(cluster.others)
    if rng.random() < 0.5:
        cluster.kill(node)
        cluster.add()
        return "node"
    replicas = cluster.replicas(node)
    if not replicas:
        return None
    os.kill(replicas[0].pid, signal.SIGKILL)
    return "replica"


async def kill(
    server: LiveServer, report: Report, kills: int, rng: random.Random, strike: Strike, start_seconds: float
) -> None:
    while report.kills < kills:
        await asyncio.sleep(rng.uniform(0, PAUSE * start_seconds))
        what = strike(server, rng)  # Ray wants the main thread: what comes meanwhile is read afterwards
        if what is not None:
            report.killed[what] = report.killed.get(what, 0) + 1
            report.kills += 1


async def soak(
    server: LiveServer,
    kills: int,
    open_runs: int,
    engines: int,
    seed: int = 0,
    strike: Strike = kill_child,
    start_seconds: float = 4.0,
) -> Report:
    report, began = Report(engines, open_runs), time.monotonic()
    async with httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=None)) as http:
        wanted = [await run(http, server.url, number) for number in range(PROGRAMS)]
        assert all(told == whole and not errors for told, whole, errors in wanted)
        before = server.metrics()["parrot_calls_executed_total"]
        killer = asyncio.create_task(kill(server, report, kills, random.Random(seed), strike, start_seconds))

        async def client(index: int) -> None:
            number = index
            while True:
                number = (number + 7) % PROGRAMS
                told, whole, errors = await run(http, server.url, number)
                report.calls += len(whole)
                if errors:
                    report.problems.append(f"program {number}: {errors}")
                elif (told, whole) != wanted[number][:2]:
                    report.problems.append(f"program {number} has another text")
                else:
                    report.finished += 1
                if killer.done():
                    return

        await asyncio.gather(killer, *(client(index) for index in range(open_runs)))
        report.again = round(server.metrics()["parrot_calls_executed_total"] - before) - report.calls
    report.seconds = time.monotonic() - began
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--open", type=int, default=100)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="each engine on a node of a Ray cluster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        model = make_model("llama", Path(stack.enter_context(tempfile.TemporaryDirectory())) / "llama")
        flags, strike = ["--engines", str(options.engines)], kill_child
        if options.ray:
            from ray_cluster import ray_cluster

            cluster = stack.enter_context(ray_cluster(1 + options.engines, head_seats=0))
            config = model.with_name("parrot.toml")
            config.write_text(
                f'[engines.ray]\nkind = "ray"\naddress = "{cluster.address}"\nreplicas = {options.engines}\n'
                "resources = { seat = 1 }\n"
            )
            flags, strike = ["--config", str(config)], partial(kill_in, cluster)
        flags += ["--model", str(model), "--deterministic", "--kv-tokens", "16384"]
        # Equal greedy calls share an execution otherwise, and little would be under way.
        began = time.monotonic()
        with LiveServer(*flags, "--disable", "single-flight", timeout=PATIENCE) as server:
            took = time.monotonic() - began
            sizes = (options.kills, options.open, options.engines, options.seed)
            report = asyncio.run(soak(server, *sizes, strike, took))
    print(json.dumps(asdict(report), indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps({**about(), **asdict(report)}, indent=2) + "\n")
    raise SystemExit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
