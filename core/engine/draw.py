"""The next tokens of a batch: sampled, within what each answer's grammar allows."""

from __future__ import annotations

from collections.abc import Sequence as List

from torch import Tensor

from semantic_parrot.core.engine.planner import Work
from semantic_parrot.core.engine.sampler import sample
from semantic_parrot.core.engine.scores import distribution, tell
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.kernels.transfer import Download, upload


class Drawn:
    """The tokens of the `sequences` of a step, on their way from the device."""

    def __init__(self, work: List[Work], logits: Tensor) -> None:
        """`work` that has run and is not counted as computed yet; `logits` [len(work), vocabulary], written to."""
        self.sequences = [w.sequence for w in work]
        masks: dict[int, Tensor] = {}
        self._refused: dict[int, InvalidRequest] = {}
        for row, s in enumerate(self.sequences):
            if s.constraint is not None:
                try:
                    masks[row] = s.constraint.mask()
                except InvalidRequest as error:
                    self._refused[row] = error
        self._scored = [row for row, s in enumerate(self.sequences) if s.scores is not None]
        self._before = distribution(logits, self._scored) if self._scored else None
        penalties = {row: s.penalties for row, s in enumerate(self.sequences) if s.penalties is not None}
        positions = [w.sequence.computed + w.rows for w in work]
        self._tokens = sample(logits, [s.sampling for s in self.sequences], positions, penalties, masks)
        self._download = Download(self._tokens)

    def inputs(self, sequences: List[Sequence]) -> Tensor:
        """The tokens of `sequences` on the device, [len(sequences)], for the step after; 0 for one that has none."""
        rows = {s: row for row, s in enumerate(self.sequences)}
        return self._tokens[upload([rows[s] for s in sequences], self._tokens.device)].clamp_min(0)

    def read(self) -> list[int | InvalidRequest]:
        """The token of each sequence; below 0 as `sample` says. For one whose grammar has become too much for the
        library, the error that ends it. Waits for the device, once where no log-probabilities are wanted."""
        sampled: list[int] = self._download.read().tolist()
        tokens = [_completable(s, token) for s, token in zip(self.sequences, sampled, strict=True)]
        if self._before is not None:
            scores = [s.scores for s in self.sequences if s.scores is not None]
            tell(self._before, [tokens[row] for row in self._scored], scores)
        return [self._refused.get(row) or token for row, token in enumerate(tokens)]


def _completable(s: Sequence, token: int) -> int:
    """`token`, or one that lets the answer's grammar be complete within its limit."""
    if s.constraint is None or token < 0:
        return token
    better = s.constraint.closing(token, s.limit - len(s.tokens))
    too_short = len(s.tokens) - s.prompt < s.sampling.min_tokens
    return token if better in s.ends and too_short else better
