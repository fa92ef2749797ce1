"""A program under way in a simulation, and its calls that were submitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

from semantic_parrot.core.analysis import Analysis, Skeleton
from semantic_parrot.core.scheduling import Placement
from semantic_parrot.core.simulator.bounds import Cost
from semantic_parrot.core.simulator.workloads import SimCall, SimProgram


@dataclass(slots=True, eq=False)
class Job:
    """A program under way. `costs`: of its calls that ended, by output, at an idle engine, for its bound."""

    program: SimProgram
    id: int
    analysis: Analysis = field(default_factory=Analysis)
    missing: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[SimCall]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    work: float = 0.0
    left: int = 0

    def key(self, output: str) -> str:
        """Of the call that produces `output`, among all programs."""
        return f"{self.id}/{output}"


@dataclass(slots=True, eq=False)
class Running:
    """One that was submitted: `prompt` in tokens, `fresh` of them new to an engine that forgets nothing."""

    job: Job
    call: SimCall
    skeleton: Skeleton
    prompt: float
    fresh: float = 0.0
    placement: Placement | None = None


def skeleton_of(call: SimCall) -> Skeleton:
    constants = [piece for piece in call.pieces if isinstance(piece, str)]
    # A call site is named by its first constant: the texts of documents stand for variables here.
    return Skeleton(call.pieces, hash_of(constants[0]) if constants else 0, sum(map(len, constants)), None, False)


def hash_of(text: str) -> int:
    """Of what names a generated text, without its number and its padding."""
    return crc32(text.partition(":")[0].rstrip("0123456789.").encode())
