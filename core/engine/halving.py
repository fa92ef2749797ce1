"""A step that memory does not suffice for is run in halves, down to the one request that does not fit by itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from semantic_parrot.core.engine.planner import Batch, Work
from semantic_parrot.core.engine.runner import Runner


@dataclass(slots=True)
class Ran:
    """What became of a step: the work that was done; that of it which wanted logits, and those, [len(sampled), vocab];
    and the work for which there was no memory."""

    done: list[Work] = field(default_factory=list)
    sampled: list[Work] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)
    failed: list[Work] = field(default_factory=list)

    @property
    def logits(self) -> Tensor:
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)


def run(runner: Runner, batch: Batch) -> Ran:
    """Run a step. Work that was done with fewer rows than planned stands in `done` as what it became; the rest of it is
    still pending, as after a smaller chunk. Raises what the runner raises, but for a lack of memory."""
    ran = Ran()
    runner.prepare(batch)
    if batch.work and not _fits(runner, batch, ran):
        _halve(runner, batch, ran)
    return ran


def _halve(runner: Runner, batch: Batch, ran: Ran) -> None:
    first, *others = batch.work
    if others:
        middle = len(batch.work) // 2
        halves = [batch.work[:middle], batch.work[middle:]]
    elif first.rows > 1:
        halves = [(replace(first, rows=first.rows // 2),)]
    else:
        ran.failed.append(first)
        return
    for work in halves:
        half = replace(batch, work=work)
        if not _fits(runner, half, ran):
            _halve(runner, half, ran)


def _fits(runner: Runner, batch: Batch, ran: Ran) -> bool:
    try:
        sampled, logits = runner.run(batch)
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
    else:
        ran.done += batch.work
        ran.sampled += sampled
        ran.parts.append(logits)
        return True
    # Only now is what the failed step held in its frames free.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def _lacks_memory(error: Exception) -> bool:
    # On a CPU torch has no class for it.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
