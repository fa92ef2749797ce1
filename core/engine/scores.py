"""Log-probabilities on their way from the logits to the answer: told once the text of their token is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from semantic_parrot.core.engine.text import TextStream
from semantic_parrot.core.engine.vocabulary import Vocabulary
from semantic_parrot.core.logprobs import LOWEST, Ranked, TokenLogprob
from semantic_parrot.kernels.transfer import Download, upload

#: Alternatives that are looked for in any case: of equals, which ones are found depends on how many are wanted.
_MOST = 20


class Scores:
    """Of one sequence. `count`: how many of the likeliest tokens are told beside each of its own."""

    def __init__(self, count: int, vocabulary: Vocabulary) -> None:
        self.count = count
        self._vocabulary = vocabulary
        self._latest: tuple[int, float, tuple[tuple[int, float], ...]] | None = None
        self._untold: list[TokenLogprob] = []

    def drawn(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> None:
        """The last row of logits gave `token`; `top`: the likeliest (token, log-probability), in order."""
        self._latest = (token, logprob, tuple(top))

    def add(self, offset: int) -> None:
        """That token is part of the answer, after `offset` characters."""
        assert self._latest is not None
        token, logprob, top = self._latest
        ranked = tuple(self._ranked(other, value) for other, value in top)
        own = self._ranked(token, logprob)
        self._untold.append(TokenLogprob(own.token, own.bytes, own.logprob, offset, ranked))

    def tell(self, text: TextStream) -> tuple[TokenLogprob, ...]:
        """What has not been told of the tokens that begin in what is shown of `text`."""
        return self._take(lambda t: t.offset < text.shown)

    def tell_rest(self, text: TextStream) -> tuple[TokenLogprob, ...]:
        """The same at the end of the answer: of every token that is left, with text or without, but for those of the
        stop string at which it ended."""
        return self.tell(text) if text.stopped else self._take(lambda _: True)

    def _take(self, wanted: Callable[[TokenLogprob], bool]) -> tuple[TokenLogprob, ...]:
        told = tuple(t for t in self._untold if wanted(t))
        self._untold = self._untold[len(told) :]
        return told

    def _ranked(self, token: int, logprob: float) -> Ranked:
        text, raw = self._vocabulary.spell(token)
        return Ranked(text, raw, max(logprob, LOWEST))


@torch.inference_mode()
def distribution(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """The log-probabilities of `rows` of `logits`: [len(rows), vocabulary]. Not a view: `logits` may be changed."""
    return logits[upload(rows, logits.device)].double().log_softmax(-1)


@torch.inference_mode()
def tell(before: Tensor, tokens: Sequence[int], scores: Sequence[Scores]) -> None:
    """Each row of `before`, a `distribution`, to the scores of its sequence, with the token that it gave (below 0:
    none, and nothing is told)."""
    chosen = upload([max(token, 0) for token in tokens], before.device)[:, None]
    best = before.topk(min(_MOST, before.shape[-1]), -1)
    found = [Download(part) for part in (before.gather(-1, chosen)[:, 0], best.values, best.indices)]
    read = (part.read().tolist() for part in found)
    for score, token, value, top, ids in zip(scores, tokens, *read, strict=True):
        if token >= 0:
            score.drawn(token, value, list(zip(ids, top, strict=True))[: score.count])
