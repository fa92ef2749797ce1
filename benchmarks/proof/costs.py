"""What a call costs our engine on this machine, measured through its server, and the bound that follows: no order of
the same calls ends sooner at these costs (`core/simulator/bounds.py`).

The costs are those of the engine at its best: alone, and of the best of some tries. A shared machine changes by the
minute, so a bound's costs are measured right before and right after what it is the bound of. Answers count as many
tokens in the prompts that read them as they were generated with; tokenised again they can be a few more or less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engines.workloads import Workload as Load
from engines.workloads import decode
from peers.client import Answer
from semantic_parrot.core.simulator.bounds import Cost, program_bound
from semantic_parrot.core.simulator.costs import Costs
from semantic_parrot.core.simulator.paths import Tokens
from workloads.job import Job
from workloads.texts import Texts

Ask = Callable[[Sequence[str], int], list[Answer]]
BATCH, PROMPT, TOKENS = 16, 512, 32
#: Tries for the costs that hold for a whole run; one before them warms up.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Try:
    """Seconds: of a prompt's token, and of a decode step of one and of BATCH sequences."""

    fill: float
    alone: float
    full: float


@dataclass(frozen=True, slots=True)
class Meter:
    """`ask`: what answers prompts on our server. `window`: tokens that a call may have."""

    ask: Ask
    texts: Texts
    window: int

    def costs(self) -> Costs:
        """Raises PeerFailed."""
        return best([self.measured("start", str(number)) for number in range(TRIES + 1)][1:])

    def measured(self, *name: str) -> Try:
        """`name`: of the try; its texts are its own, or a cache would know them. Raises PeerFailed."""
        prompt = min(PROMPT, self.window - 8)
        (answer,) = self.ask([self.texts.text(prompt, "fill", *name)], 1)
        return Try((answer.chunks[0] - answer.sent) / prompt, self._step(1, *name), self._step(BATCH, *name))

    def _step(self, batch: int, *name: str) -> float:
        load = Load("costs", "", batch, 16, TOKENS, decode)
        answers = self.ask([self.texts.text(16, "decode", *name, str(batch), str(i)) for i in range(batch)], TOKENS)
        return batch / decode(answers, load)


def best(tries: Sequence[Try]) -> Costs:
    """Each part by the try that took least for it."""
    fill, alone, full = (min(getattr(one, part) for one in tries) for part in ("fill", "alone", "full"))
    each = max(0.0, (full - alone) / (BATCH - 1))
    # A step's own costs are in what a prompt took.
    return Costs(base=max(alone - each, 1e-6), each=each, token=0.0, prefill=fill, chunk=1 << 30, cache=1 << 40)


def told(costs: Costs) -> dict[str, float]:
    """In seconds, for a result file."""
    return {"decode_alone": costs.step(1), "decode_each_more": costs.each, "prefill": costs.prefill}


def bound(jobs: Sequence[Job], costs: Costs, engines: int = 1) -> float:
    """Seconds until the last of all jobs has ended, at the least, if each common beginning is filled once."""
    calls: list[tuple[Cost, list[int]]] = []
    filled: set[str] = set()
    for job in jobs:
        first = len(calls)
        for call in job.calls:
            fresh = call.own + sum(tokens for name, tokens in call.begins if name not in filled)
            filled.update(name for name, _ in call.begins)
            after = call.after + (0.0 if call.reads else job.at)
            steps = max(0, call.tokens - 1)
            cost = Cost(
                after,
                costs.work(call.prompt, fresh, call.tokens),
                costs.steps(fresh, call.tokens),
                Tokens.of(steps, costs.each, 0.0),
            )
            calls.append((cost, [first + i for i in call.reads]))
    return program_bound(calls, engines, costs).bound


def alone(job: Job, costs: Costs, rtt: float = 0.0) -> float:
    """Seconds of the job on an idle engine, from when it is due, and of a round trip, for each token of its answers."""
    return (bound([replace(job, at=0.0)], costs) + rtt) / sum(call.tokens for call in job.calls)
