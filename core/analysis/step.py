"""What is known of one open call of a session: its plan, and its place among the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from semantic_parrot.core.analysis.pieces import Skeleton

Class = Literal["latency", "deadline", "throughput"]

#: The class of each `Step.strict`: what nothing stated reaches is for latency.
_NAMES: tuple[Class, ...] = ("latency", "throughput", "deadline", "latency")


@dataclass(frozen=True, slots=True)
class Planned:
    """A node that joins: what it reads and makes, and the seconds it will take on an idle engine. `skeleton`: of a
    call; None for what is done in the graph itself."""

    output: str
    inputs: tuple[str, ...]
    seconds: float
    skeleton: Skeleton | None


@dataclass(slots=True, eq=False)
class Group:
    """A task group: parallel calls that, stage by stage, feed one consumer. What counts is when the last one ends."""

    id: int
    size: int = 0
    into: Group | None = None  # the group it has become a part of

    def whole(self) -> Group:
        """The group that this one is part of by now."""
        group = self
        while group.into is not None:
            group = group.into
        return group


@dataclass(slots=True, eq=False)
class Job:
    """What joined together: when, and its critical path in seconds."""

    submitted: float
    length: float = 0.0


@dataclass(slots=True, eq=False)
class Step:
    """An open call. `remaining`: seconds from its start to the end of all that follows from it. `due`: when its
    output must be there. `depth`: longest path from a call without open producers, so equal depth means parallel."""

    planned: Planned
    job: Job
    producers: list[Step]
    depth: int
    remaining: float
    consumers: list[Step] = field(default_factory=list)
    strict: int = 0
    cause: str | None = None  # the variable for which `strict` was stated
    due: float = inf
    member: Group | None = None
    root: Step | None = None  # the consumer whose group `member` is
    stages: dict[int, Group] = field(default_factory=dict)  # the groups that feed this step, by depth
    done: bool = False

    @property
    def objective(self) -> Class:
        return _NAMES[self.strict]

    @property
    def group(self) -> Group | None:
        """None for a call that runs for itself, or for throughput: then only the sum counts."""
        if self.member is None or self.objective == "throughput":
            return None
        self.member = self.member.whole()
        return self.member if self.member.size > 1 else None

    @property
    def latest(self) -> float:
        """The latest start that keeps the deadline, or else the job's critical path as it was when it joined."""
        if self.due < inf:
            return self.due - self.planned.seconds
        return self.job.submitted + self.job.length - self.remaining
