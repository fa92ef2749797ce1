"""What the scheduler is told of a task, and what it answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from semantic_parrot.core.analysis.step import Class

#: What can be turned off by name, to see what it is worth; the answers are the same on and off.
OPTIMISATIONS = frozenset(
    {
        "batch-cap",
        "critical-path",
        "fair-share",
        "objectives",
        "preemption",
        "prefill-ahead",
        "prefix-placement",
        "retention",
        "single-flight",
        "task-groups",
    }
)

#: Who goes first on an engine; see Directions.
RANKS: dict[Class, int] = {"latency": 0, "deadline": 1, "throughput": 2}

State = Literal["new", "waiting", "running", "ended"]

#: Why a task is where it is: its group was placed as one; queued sharers of a prefix were; the engine holds its
#: prefix; or nothing of these, and that engine suffers least.
Why = Literal["task-group", "queued-sharers", "prefix-held", "least-impact"]


@dataclass(frozen=True, slots=True)
class Policy:
    """`tpot`: seconds per token that a latency call is to keep; None: `slowdown` times what it has alone on its
    engine. `patience`: seconds in which a tenant's oldest waiting task goes at least once. `urgency`: a deadline
    task is urgent that many times its own duration before its latest start. `lag`: tokens (by weight) that a tenant may
    be behind the others before caps keep its tasks waiting no longer. `weights`: of tenants, `weight` that of any
    other. `disabled`: names of OPTIMISATIONS.
    """

    tpot: float | None = None
    slowdown: float = 1.5
    patience: float = 30.0
    urgency: float = 1.0
    lag: float = 8192.0
    weights: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    disabled: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = self.disabled - OPTIMISATIONS
        if unknown:
            known = ", ".join(sorted(OPTIMISATIONS))
            raise ValueError(f"no optimisation {sorted(unknown)[0]!r} to turn off; there is: {known}")

    def on(self, name: str) -> bool:
        return name not in self.disabled


@dataclass(slots=True, eq=False)
class Task:
    """One call, ready to run. Set by its maker; `ticket`, `arrived`, `state`, `stale` and `charged` by the scheduler.

    `prompt`, `output`: expected tokens. `latest`: latest start (absolute seconds). `prefixes`: names of the prompt's
    prefixes, shortest first, with their expected tokens in `held`. `filled`: (engine, tokens of this very prompt that
    were filled ahead there). `lost`: engines that failed to finish it; others are taken where there are any.
    """

    objective: Class = "latency"
    tenant: str = ""
    priority: int = 0
    prompt: float = 0.0
    output: float = 128.0
    seconds: float = 0.0
    latest: float = 0.0
    group: Hashable | None = None
    prefixes: tuple[int, ...] = ()
    held: tuple[float, ...] = ()
    filled: tuple[int, float] | None = None
    lost: tuple[int, ...] = ()
    site: int = 0
    chars: int = 0
    ticket: int = 0
    arrived: float = -inf
    state: State = "new"
    charged: float = 0.0

    @property
    def solo(self) -> bool:
        """Whether somebody waits for this very call's tokens; of a task group only the last end counts."""
        return self.objective == "latency" and self.group is None

    @property
    def waits(self) -> bool:
        """Whether the task may be kept out of an engine for the sake of the latency calls there."""
        return self.objective != "latency"


@dataclass(slots=True, eq=False)
class Placement:
    """A task on an engine, from its dispatch until it is released. `cached`: prompt tokens expected to be resident.
    `seconds`: predicted from here to the end; `filled`: when its first token came. `rank`, `cap`, `priority`, `slack`:
    for the engine (see Directions). `room`: engines that it could go to. `used`: when its prefix was last used there.
    `area` and `paused` are the engine's; `steady`: it decoded without a pause."""

    task: Task
    engine: int
    why: Why
    cached: float
    seconds: float
    started: float
    queued: float
    batch: int
    rank: int = 0
    cap: int | None = None
    priority: int = 0
    slack: float = 0.0
    together: int = 1
    room: int = 1
    area: float = 0.0
    paused: float = 0.0
    steady: bool = True
    used: float = 0.0
    filled: float | None = None
    filling: float = 0.0
    ahead: float = 0.0
