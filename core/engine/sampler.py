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
    cut = [i for i, s in enumerate(sampling) if s.temperature > 0 and s.top_p < 1]
    whole = [i for i, s in enumerate(sampling) if s.temperature > 0 and s.top_p == 1]
    for rows, draw in ((cut, _draw_top_p), (whole, _draw)):
        if rows:
            chosen = [sampling[i] for i in rows]
            noise = [uniform(s.seed, positions[i]) for i, s in zip(rows, chosen, strict=True)]
            tokens[rows] = draw(_probability(logits[rows], chosen), chosen, _column(noise, logits))
    return [int(token) for token in tokens.tolist()]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of seed and position: no generator state that a batch could share."""
    digest = hashlib.blake2b(position.to_bytes(8, "little"), key=seed.to_bytes(8, "little", signed=True), digest_size=8)
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


def _probability(logits: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    # Double precision: the noise has 53 bits, and a cumulative sum over a large vocabulary adds up its rounding.
    return functional.softmax(logits.double() / _column([s.temperature for s in sampling], logits), -1)


def _draw(probability: Tensor, sampling: Sequence[Sampling], noise: Tensor) -> Tensor:
    mass = probability.cumsum(-1)
    index = torch.searchsorted(mass, noise * mass[:, -1:], right=True)
    return index.clamp_max(probability.shape[-1] - 1)[:, 0]


def _draw_top_p(probability: Tensor, sampling: Sequence[Sampling], noise: Tensor) -> Tensor:
    ordered, token = probability.sort(dim=-1, descending=True, stable=True)
    mass = ordered.cumsum(-1)
    # Top-p keeps the tokens before which less than p has been gathered: always at least one.
    kept = (mass - ordered) < _column([s.top_p for s in sampling], probability)
    last = kept.sum(-1, keepdim=True) - 1
    index = torch.searchsorted(mass, noise * mass.gather(-1, last), right=True)
    drawn: Tensor = token.gather(-1, torch.minimum(index, last))[:, 0]
    return drawn


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
