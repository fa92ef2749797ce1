"""Kills one of a server's engine processes again and again, with SIGKILL at random moments, under many open runs, and
checks what is promised (docs/engines.md): every run finishes, with the texts that it has when nothing is killed.

    python benchmarks/soak_fleet.py --kills 100 --open 100 --engines 2

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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from about import about

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from live import LiveServer
from tiny_models import make_model

#: Different programs: the texts of each are known before anything is killed.
PROGRAMS = 12
#: Seconds between two kills, at most: an engine takes several to load its model again.
PAUSE = 8.0
PATIENCE = 600.0


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


async def kill(server: LiveServer, report: Report, kills: int, rng: random.Random) -> None:
    while report.kills < kills:
        await asyncio.sleep(rng.uniform(0, PAUSE))
        engines = [p for p in psutil.Process(server.pid).children() if p.status() != psutil.STATUS_ZOMBIE]
        if engines:
            os.kill(rng.choice(engines).pid, signal.SIGKILL)
            report.kills += 1


async def soak(server: LiveServer, kills: int, open_runs: int, engines: int, seed: int = 0) -> Report:
    report, began = Report(engines, open_runs), time.monotonic()
    async with httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=None)) as http:
        wanted = [await run(http, server.url, number) for number in range(PROGRAMS)]
        assert all(told == whole and not errors for told, whole, errors in wanted)
        before = server.metrics()["parrot_calls_executed_total"]
        killer = asyncio.create_task(kill(server, report, kills, random.Random(seed)))

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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model("llama", Path(folder) / "llama")
        flags = ["--model", str(model), "--deterministic", "--engines", str(options.engines), "--kv-tokens", "16384"]
        # Equal greedy calls share an execution otherwise, and little would be under way.
        with LiveServer(*flags, "--disable", "single-flight") as server:
            report = asyncio.run(soak(server, options.kills, options.open, options.engines, options.seed))
    print(json.dumps(asdict(report), indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps({**about(), **asdict(report)}, indent=2) + "\n")
    raise SystemExit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
