"""The next tokens of a batch: sampled, within what each answer's grammar allows."""

from __future__ import annotations

from collections.abc import Sequence as List

from torch import Tensor

from semantic_parrot.core.engine.sampler import sample
from semantic_parrot.core.engine.scores import distribution, tell
from semantic_parrot.core.engine.sequence import Sequence
from semantic_parrot.core.errors import InvalidRequest


def draw(sequences: List[Sequence], logits: Tensor) -> list[int | InvalidRequest]:
    """The token of each row of `logits` [rows, vocabulary], which is written to; below 0 as `sample` says. For a
    sequence whose grammar has become too much for the library, the error that ends it."""
    masks: dict[int, Tensor] = {}
    refused: dict[int, InvalidRequest] = {}
    for row, s in enumerate(sequences):
        if s.constraint is not None:
            try:
                masks[row] = s.constraint.mask()
            except InvalidRequest as error:
                refused[row] = error
    scored = [row for row, s in enumerate(sequences) if s.scores is not None]
    before = distribution(logits, scored) if scored else None
    penalties = {row: s.penalties for row, s in enumerate(sequences) if s.penalties is not None}
    tokens = sample(logits, [s.sampling for s in sequences], [len(s.tokens) for s in sequences], penalties, masks)
    tokens = [_completable(s, token) for s, token in zip(sequences, tokens, strict=True)]
    if before is not None:
        tell(before, [tokens[row] for row in scored], [s.scores for s in sequences if s.scores is not None])
    return [refused.get(row) or token for row, token in enumerate(tokens)]


def _completable(s: Sequence, token: int) -> int:
    """`token`, or one that lets the answer's grammar be complete within its limit."""
    if s.constraint is None or token < 0:
        return token
    better = s.constraint.closing(token, s.limit - len(s.tokens))
    too_short = len(s.tokens) - s.prompt < s.sampling.min_tokens
    return token if better in s.ends and too_short else better
