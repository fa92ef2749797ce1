"""The project's workloads as programs with arrival times: their shapes, seeded, at a scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from random import Random

from semantic_parrot.core.analysis.pieces import Piece, Var
from semantic_parrot.core.analysis.step import Class

#: Characters of a token, in simulated texts.
CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class SimCall:
    """`pieces`: its prompt; `tokens`: of its answer, as it will turn out. `after`: seconds from its inputs' end to its
    start (a tool's work, a user's pause)."""

    output: str
    pieces: tuple[Piece, ...]
    tokens: int
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class SimProgram:
    at: float
    app: str
    calls: tuple[SimCall, ...]
    tenant: str = ""
    stated: dict[str, Class] = field(default_factory=dict)
    deadline: float | None = None


def text(name: str, tokens: int) -> str:
    """A text of `tokens` tokens that no other name has."""
    return f"{name}:".ljust(tokens * CHARACTERS, "x")


def _poisson(random: Random, rate: float) -> Iterator[float]:
    at = 0.0
    while True:
        at += random.expovariate(rate)
        yield at


def _chat(random: Random, i: int, at: float) -> SimProgram:
    prompt, output = random.randint(64, 1024), random.randint(32, 512)
    call = SimCall(f"chat{i}", (text(f"chat{i}", prompt),), output)
    return SimProgram(at, "chat", (call,), "chat", {f"chat{i}": "latency"})


def _map_reduce(random: Random, i: int, at: float, *, maps: int = 16) -> SimProgram:
    ask, size = text("summarise", 40), random.choice((512, 1024, 2048))
    calls = [SimCall(f"m{i}.{j}", (ask, text(f"doc{i}.{j}", size)), random.randint(25, 100)) for j in range(maps)]
    reads: list[Piece] = [text("merge", 30), *(Var(call.output) for call in calls)]
    calls.append(SimCall(f"r{i}", tuple(reads), random.randint(25, 100)))
    return SimProgram(at, "map-reduce", tuple(calls), "map-reduce", {f"r{i}": "latency"})


def w1(random: Random) -> Iterator[SimProgram]:
    """Chain summaries, with background requests beside them."""
    background = _poisson(random, 1.0)
    chat = next(background)
    for i, at in enumerate(_poisson(random, 0.02)):
        while chat < at:
            call = SimCall(f"b{i}.{chat:.6f}", (text(f"b{chat}", 512),), 50)
            yield SimProgram(chat, "background", (call,), "background")
            chat = next(background)
        chunk, output = random.choice((512, 1024, 2048)), random.randint(25, 100)
        calls = []
        for j in range(20_480 // chunk):
            so_far: tuple[Piece, ...] = (text("go on", 40), text(f"doc{i}.{j}", chunk))
            so_far = (*so_far, Var(f"c{i}.{j - 1}")) if j else so_far
            calls.append(SimCall(f"c{i}.{j}", so_far, output))
        yield SimProgram(at, "chain", tuple(calls), "chain", {calls[-1].output: "latency"})


def w2(random: Random) -> Iterator[SimProgram]:
    """Map-reduce summaries."""
    for i, at in enumerate(_poisson(random, 0.2)):
        yield _map_reduce(random, i, at)


def w3(random: Random) -> Iterator[SimProgram]:
    """Copilot: one long system prompt, many users."""
    system = text("copilot", 6000)
    for i, at in enumerate(_poisson(random, 4.0)):
        call = SimCall(f"v{i}", (system, text(f"user{i}", 50)), random.randint(180, 800))
        yield SimProgram(at, "copilot", (call,), f"user{i % 8}", {f"v{i}": "latency"})


def w4(random: Random) -> Iterator[SimProgram]:
    """GPTs: four apps."""
    apps = ((7437, 7, 704), (1116, 8, 89), (1694, 4, 631), (2031, 4, 416))
    prompts = [text(f"gpt{i}", app[0]) for i, app in enumerate(apps)]
    for i, at in enumerate(_poisson(random, 4.0)):
        kind = random.randrange(4)
        call = SimCall(f"v{i}", (prompts[kind], text(f"query{i}", apps[kind][1])), apps[kind][2])
        yield SimProgram(at, f"gpt{kind}", (call,), f"gpt{kind}", {f"v{i}": "latency"})


def w5(random: Random) -> Iterator[SimProgram]:
    """Agents that write code: an architect, then for each file a coder, reviewers and revisions, three rounds."""
    roles = {role: text(role, 400) for role in ("architect", "coder", "reviewer", "reviser")}
    for i, at in enumerate(_poisson(random, 0.02)):
        files, plan = random.randint(4, 16), f"plan{i}"
        calls = [SimCall(plan, (roles["architect"], text(f"task{i}", 2600)), random.randint(300, 700))]
        latest = []
        for f in range(files):
            code = f"code{i}.{f}.0"
            calls.append(SimCall(code, (roles["coder"], Var(plan), text(f"file{f}", 40)), random.randint(300, 700)))
            for turn in range(1, 4):
                reviews = [f"review{i}.{f}.{turn}.{k}" for k in range(3)]
                for k, review in enumerate(reviews):
                    asked = (roles["reviewer"], Var(plan), Var(code), text(f"as {k}", 20))
                    calls.append(SimCall(review, asked, random.randint(300, 700)))
                revised = f"code{i}.{f}.{turn}"
                said = tuple(Var(review) for review in reviews)
                calls.append(
                    SimCall(revised, (roles["reviser"], Var(plan), Var(code), *said), random.randint(300, 700))
                )
                code = revised
            latest.append(code)
        end = f"end{i}"
        calls.append(SimCall(end, (roles["architect"], *map(Var, latest)), 300))
        yield SimProgram(at, "agents", tuple(calls), "agents", {end: "latency"})


def w6(random: Random) -> Iterator[SimProgram]:
    """Chat beside map-reduce jobs for throughput."""
    chats, jobs = _poisson(random, 1.0), _poisson(random, 0.05)
    chat, job = next(chats), next(jobs)
    i = 0
    while True:
        i += 1
        if chat < job:
            yield _chat(random, i, chat)
            chat = next(chats)
        else:
            program = _map_reduce(random, i, job)
            yield SimProgram(job, program.app, program.calls, program.tenant, {f"r{i}": "throughput"})
            job = next(jobs)


def w7(random: Random) -> Iterator[SimProgram]:
    """Tool agents: a prompt that grows turn by turn, with a tool's work in between."""
    system = text("agent", 1500)
    for i, at in enumerate(_poisson(random, 0.05)):
        pieces: list[Piece] = [system, text(f"goal{i}", 200)]
        calls = []
        for turn in range(random.randint(20, 43)):
            calls.append(
                SimCall(f"t{i}.{turn}", tuple(pieces), random.randint(40, 200), random.uniform(0.1, 5.0) if turn else 0)
            )
            pieces += [Var(f"t{i}.{turn}"), text(f"tool{i}.{turn}", random.randint(100, 1200))]
        yield SimProgram(at, "tools", tuple(calls), f"agent{i % 8}", {calls[-1].output: "latency"})


def tenants(random: Random) -> Iterator[SimProgram]:
    """Eight tenants of equal weight with unequal needs: short and long prompts and answers, chains and fan-outs; some
    ask for up to three times as many tokens as others."""
    yield from merge(*(_tenant(Random(random.random()), kind) for kind in range(8)), key=lambda program: program.at)


def _tenant(random: Random, kind: int) -> Iterator[SimProgram]:
    tenant, prompt, output = f"tenant{kind}", 100 * (kind + 1), 400 // (kind + 1)
    tokens = prompt + output  # then that which is new to an engine of a whole program
    tokens = {2: tokens + 2 * (50 + 2 * output), 3: 8 * tokens + 10 * output}.get(kind % 4, tokens)
    stated: Class = "latency" if kind < 4 else "throughput"
    for i, at in enumerate(_poisson(random, 500.0 * (1 + kind % 3) / tokens)):
        name = f"{tenant}.{i}"
        if kind % 4 == 3:  # a fan-out and what reads it
            calls = [SimCall(f"{name}.{j}", (text(f"{name}.{j}", prompt),), output) for j in range(8)]
            calls.append(SimCall(name, tuple(Var(call.output) for call in calls), 2 * output))
        elif kind % 4 == 2:  # a chain
            go_on = text(f"{tenant} goes on", 50)
            calls = [SimCall(f"{name}.0", (text(name, prompt),), output)]
            calls += [SimCall(f"{name}.{j}", (go_on, Var(f"{name}.{j - 1}")), output) for j in (1, 2)]
        else:
            calls = [SimCall(name, (text(f"{tenant} asks", 64 * kind), text(name, prompt)), output)]
        yield SimProgram(at, tenant, tuple(calls), tenant, {calls[-1].output: stated})


WORKLOADS: dict[str, Callable[[Random], Iterator[SimProgram]]] = {
    "W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w6, "W7": w7,
    "tenants": tenants,
}  # fmt: skip
