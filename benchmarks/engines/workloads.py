"""What each engine is asked for, and the figure that its answers give."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.model import prompt
from peers.client import Answer
from peers.process import PeerFailed


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` requests at once of `own` prompt tokens each, after a prefix of `shared` tokens that all have; `tokens`
    of answer. `figure`: tokens a second, of the answers and this."""

    key: str
    title: str
    batch: int
    own: int
    tokens: int
    figure: Callable[[Sequence[Answer], Workload], float]
    shared: int = 0

    def prompts(self, words: list[str], repeat: int) -> list[str]:
        """New ones in each repetition, so that no cache knows them; the same for every engine."""
        prefix = prompt(words, self.shared, self.key, repeat, "prefix")
        return [prefix + prompt(words, self.own, self.key, repeat, i) for i in range(self.batch)]


def decode(answers: Sequence[Answer], work: Workload) -> float:
    """Tokens a second while all decode: from the last of the first tokens to the first of the last ones.

    Chunks stand for tokens: a chunk of two (text that was held back) is rare, and an answer's chunks are scaled to its
    number of tokens.
    """
    begin, end = max(a.chunks[0] for a in answers), min(a.chunks[-1] for a in answers)
    if end <= begin:
        raise PeerFailed(f"it never ran {len(answers)} requests at once")
    came = 0.0
    for a in answers:
        within = sum(begin < at <= end for at in a.chunks)
        came += within * work.tokens / len(a.chunks)
    return came / (end - begin)


def prefill(answers: Sequence[Answer], work: Workload) -> float:
    """Prompt tokens a second, until every request has its first token."""
    took = max(a.chunks[0] for a in answers) - min(a.sent for a in answers)
    return work.batch * (work.shared + work.own) / took


WORKLOADS = (
    Workload("decode-1", "decode, batch 1", 1, 32, 64, decode),
    Workload("decode-8", "decode, batch 8", 8, 32, 48, decode),
    Workload("decode-32", "decode, batch 32", 32, 32, 48, decode),
    Workload("prefill", "prefill", 4, 512, 1, prefill),
)
#: Our own engine only.
SHARED = Workload("shared-32", "decode, batch 32 over a prefix of 2,000 tokens", 32, 16, 32, decode, shared=2000)


def seconds(answers: Sequence[Answer]) -> float:
    return max(a.chunks[-1] for a in answers) - min(a.sent for a in answers)


def check_counts(answers: Sequence[Answer], work: Workload) -> None:
    """Raises PeerFailed where a server says that it computed something else."""
    for a in answers:
        for what, wanted, said in (
            ("prompt", work.shared + work.own, a.prompt),
            ("answer", work.tokens, a.tokens),
        ):
            if said is not None and said != wanted:
                raise PeerFailed(f"its {what} has {said} tokens instead of {wanted}")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
