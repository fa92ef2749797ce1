"""From logits to tokens. A sampled token depends on its logits, the request's seed and its position only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from semantic_parrot.core.request import Sampling


def sample(logits: Tensor, sampling: Sequence[Sampling], positions: Sequence[int]) -> list[int]:
    """The next token of each row of `logits` [rows, vocabulary]; `positions`: the index that each will have."""
    tokens = logits.argmax(-1)
    rows = [i for i, s in enumerate(sampling) if s.temperature > 0]
    if rows:
        chosen = [sampling[i] for i in rows]
        noise = [uniform(s.seed, positions[i]) for i, s in zip(rows, chosen, strict=True)]
        tokens[rows] = _draw(logits[rows], chosen, noise)
    return [int(token) for token in tokens.tolist()]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of seed and position: no generator state that a batch could share."""
    digest = hashlib.blake2b(position.to_bytes(8, "little"), key=seed.to_bytes(8, "little", signed=True), digest_size=8)
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


def _draw(logits: Tensor, sampling: Sequence[Sampling], noise: Sequence[float]) -> Tensor:
    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    # Double precision: the noise has 53 bits, and a cumulative sum over a large vocabulary adds up its rounding.
    scaled = logits.double() / column([s.temperature for s in sampling])
    probability, token = functional.softmax(scaled, -1).sort(dim=-1, descending=True, stable=True)
    mass = probability.cumsum(-1)
    # Top-p keeps the tokens before which less than p has been gathered: always at least one.
    kept = (mass - probability) < column([s.top_p for s in sampling])
    total = torch.where(kept, probability, 0.0).sum(-1, keepdim=True)
    index = torch.searchsorted(mass, column(noise) * total, right=True)
    index = torch.minimum(index, kept.sum(-1, keepdim=True) - 1)
    drawn: Tensor = token.gather(-1, index)[:, 0]
    return drawn
