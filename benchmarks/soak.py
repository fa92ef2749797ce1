"""Kills a server again and again, with SIGKILL at random moments, under many open background runs, and checks what is
promised (docs/durability.md): every accepted run ends, no call whose end is in the journal runs again, and every client
hears every event once.

    python benchmarks/soak.py --kills 100 --open 200 [--journal postgresql://…]

Everything is on 127.0.0.1, in a temporary folder. Exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from about import about

SERVER = [sys.executable, str(Path(__file__).with_name("soak_engine.py")), "serve", "--announce"]

#: Seconds that anything may take that is waited for.
PATIENCE = 120.0


def call(run: int, output: str, *parts: Any, temperature: float = 0.0) -> dict[str, Any]:
    content = {"$t": [f"r{run}/{output} Go on with ", *({"var": name} for name in parts)]}
    request = {"model": "default", "temperature": temperature, "messages": [{"role": "user", "content": content}]}
    return {"id": output, "output": output, "request": request}


def program(run: int) -> dict[str, Any]:
    """A chain, or a fan-out over a list that the first call makes, with a sampled call in each."""
    calls = [call(run, "a"), call(run, "b", "a", temperature=1.0)]
    more: dict[str, Any] = {}
    if run % 2:
        calls += [call(run, "c", "b"), call(run, "end", "c", temperature=1.0)]
    else:
        calls += [call(run, "end", "all", "b")]
        more["transforms"] = [{"id": "split", "op": "split", "of": "a", "output": "items"}]
        each = {"id": "map", "over": "items", "item": "item", "bound": 9, "output": "all", "result": "each"}
        more["maps"] = [{**each, "calls": [call(run, "each", "item")]}]
    wanted = {"outputs": ["end"], "deltas": "all" if run % 3 else "none"}
    return {"calls": calls, **more, **wanted, "parrot": {"lifetime": "background"}}


@dataclass
class Run:
    """As its client knows it: `told` is every event, in the order in which it came."""

    number: int
    id: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ended: bool = False

    def hear(self, number: int, event: dict[str, Any]) -> None:
        if number != len(self.told) + 1:
            self.problems.append(f"event {number} came after {len(self.told)}")
        self.told.append(event)
        self.ended = event["type"] == "run.finished"

    def close(self) -> int:
        """It has ended: what is wrong is among its problems now, and what was told, so many events, is dropped."""
        self.problems, told = self._check(), len(self.told)
        self.told = []
        return told

    def _check(self) -> list[str]:
        """All that is wrong with what was told."""
        found, texts = list(self.problems), Counter[str]()
        heard: dict[str, str] = {}
        for event in self.told:
            if event["type"] == "variable.delta":
                heard[event["id"]] = heard.get(event["id"], "") + event["text"]
            else:
                texts[f"{event['type']} {event['id']}"] += 1
            if event["type"] == "call.finished":
                text = event["response"]["choices"][0]["message"]["content"]
                if heard.get(event["id"], text) != text:
                    found.append(f"{event['id']}: {heard[event['id']]!r} was told, and {text!r} is the answer")
        found += [f"{times} times {what}" for what, times in texts.items() if times > 1]
        if not self.ended or self.told[-1]["status"] != "finished":
            found.append(f"it ended as {self.told[-1] if self.told else None}")
        return found


@dataclass
class Report:
    """Seconds from the start of a process: `ready` to serve, `resumed`: every client has its stream again."""

    kills: int = 0
    accepted: int = 0
    finished: int = 0
    events: int = 0
    open_at_kill: list[int] = field(default_factory=list)
    executions: int = 0
    calls: int = 0
    ready: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Soak:
    def __init__(self, folder: Path, journal: str | None, open_runs: int, seed: int) -> None:
        self._folder = folder
        self._url = journal or f"sqlite:///{folder / 'journal.db'}"
        self._open_runs = open_runs
        self._random = random.Random(seed)
        self._port = _free_port()
        self._executed = folder / "executed"
        self._executed.touch()
        self._log = (folder / "log").open("ab")
        self._up = asyncio.Event()
        self._runs: list[Run] = []
        self._connected: set[int] = set()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._ended: dict[str, int] = {}  # answers of calls whose end is in the journal, and how often they were made
        self._made = Counter[str]()  # all answers, as far as `_executed` was read
        self._read = 0
        self._looked = 0.0
        self.report = Report()

    async def run(self, kills: int) -> Report:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._port}", timeout=PATIENCE, limits=limits
        ) as self._http:
            await self._start()
            for _ in range(kills):
                await self._fill()
                await asyncio.sleep(self._random.uniform(0.0, 1.5))
                await self._fill()  # some have ended
                await self._kill()
                await self._start()
            async with asyncio.timeout(PATIENCE * 5):
                await asyncio.gather(*self._tasks.values())
            self._remember()
            await self._stop()
        self._log.close()
        self._judge()
        return self.report

    # The server.

    async def _start(self) -> None:
        began = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *SERVER, "--port", str(self._port), "--data-dir", str(self._folder), "--journal", self._url,
            stdout=asyncio.subprocess.PIPE, stderr=self._log,
            env={**os.environ, "PARROT_SOAK_LOG": str(self._executed)},
        )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            if not await self._process.stdout.readline():
                raise RuntimeError((self._folder / "log").read_text())
        self.report.ready.append(time.monotonic() - began)
        self._up.set()
        async with asyncio.timeout(PATIENCE):
            await self._until(lambda: all(run.ended or run.number in self._connected for run in self._runs))
        if self._runs:
            self.report.resumed.append(time.monotonic() - began)

    async def _kill(self) -> None:
        assert self._process is not None
        self._up.clear()
        open_runs = [run for run in self._runs if not run.ended]
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        self._connected.clear()
        self.report.kills += 1
        self.report.open_at_kill.append(len(open_runs))
        self._remember()

    async def _stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            await self._process.wait()

    # What may not happen again: calls whose end is in the journal of a server that is dead.

    def _remember(self) -> None:
        """Of the runs that are open, or have ended since the last look: the others were looked at as they are."""
        executed, since, self._looked = self._count(), self._looked - 10.0, time.time()
        path = self._url.removeprefix("sqlite:///")
        url = self._url if path == self._url else f"sqlite:///file:{path}?mode=ro&uri=true"
        engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
        ended = sa.text(
            "SELECT data FROM parrot_runs JOIN parrot_events ON run = id"
            " WHERE (ended IS NULL OR ended >= :since) AND data LIKE :beginning"
        )
        with engine.connect() as connection:
            for data in connection.scalars(ended, {"since": since, "beginning": '{"type":"call.finished"%'}):
                answer = json.loads(data)["response"]["choices"][0]["message"]["content"]
                self._ended.setdefault(answer, executed[answer])
        engine.dispose()

    def _count(self) -> Counter[str]:
        """How often each answer was made by now. Nobody writes: the server is dead."""
        with self._executed.open() as file:
            file.seek(self._read)
            self._made.update(file.read().split("\n")[:-1])
            self._read = file.tell()
        return self._made

    def _judge(self) -> None:
        report, executed = self.report, self._count()
        report.executions = executed.total()
        report.accepted, report.finished = len(self._runs), sum(run.ended for run in self._runs)
        report.calls = len(self._ended)
        report.problems += [f"run {run.number}: {problem}" for run in self._runs for problem in run.problems]
        for answer, times in self._ended.items():
            if executed[answer] != times:
                report.problems.append(
                    f"{answer}: {times} executions when its end was in the journal, {executed[answer]} now"
                )
        if len({run.id for run in self._runs}) != len(self._runs):
            report.problems.append("two requests with keys of their own got one run")

    # The clients.

    async def _fill(self) -> None:
        """Until so many runs are open; one in ten more, because some end meanwhile."""
        while (missing := self._open_runs - sum(not run.ended for run in self._runs)) > 0:
            fresh = [Run(len(self._runs) + i) for i in range(missing + self._open_runs // 10)]
            self._runs += fresh
            for run in fresh:
                self._tasks[run.number] = asyncio.create_task(self._client(run))
            async with asyncio.timeout(PATIENCE):
                await self._until(lambda: all(run.id for run in self._runs))

    async def _client(self, run: Run) -> None:
        body, key = program(run.number), {"Idempotency-Key": f"soak {run.number}"}
        while not run.id:  # also when the answer was lost: the key makes it the same run
            await self._up.wait()
            with suppress(httpx.HTTPError):
                response = await self._http.post("/v1/runs", json=body, headers=key)
                response.raise_for_status()
                run.id = response.json()["id"]
        self._tell()
        while not run.ended:
            await self._up.wait()
            with suppress(httpx.HTTPError):
                await self._follow(run)
        self.report.events += run.close()
        self._tell()

    async def _follow(self, run: Run) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(run.told))}
        async with self._http.stream("GET", f"/v1/runs/{run.id}", headers=headers) as response:
            if response.status_code != 200:
                run.problems.append(f"{response.status_code}: {(await response.aread()).decode()}")
                run.ended = True
                return
            self._connected.add(run.number)
            self._tell()
            number = 0
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("data: "):
                    run.hear(number, json.loads(line[6:]))

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def soak(kills: int, *, open_runs: int, seed: int = 0, journal: str | None = None) -> Report:
    """`journal`: a URL of PostgreSQL; None: SQLite in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="parrot-soak-") as folder:
        return await Soak(Path(folder), journal, open_runs, seed).run(kills)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--open", type=int, default=200, help="background runs that are open at each kill, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", help="postgresql://…; SQLite if left out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = asyncio.run(soak(args.kills, open_runs=args.open, seed=args.seed, journal=args.journal))
    print(f"{report.kills} kills; {report.accepted} runs accepted, {report.finished} ended; {report.events} events")
    print(
        f"{report.executions} executions for {report.calls} calls; open at a kill: {min(report.open_at_kill)} or more"
    )
    for name in ("ready", "resumed"):
        values = getattr(report, name)
        print(f"{name}: median {statistics.median(values):.2f} s, longest {max(values):.2f} s")
    for problem in report.problems[:50]:
        print(problem)
    print(f"{len(report.problems)} problems")
    if args.json:
        args.json.write_text(json.dumps({"about": about(), **asdict(report)}, indent=1) + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
