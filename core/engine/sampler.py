"""From logits to tokens. A token depends on its logits, the tokens before it, the request's seed and its position only:
never on what else is in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from semantic_parrot.core.engine.penalties import Penalties, allow, penalise
from semantic_parrot.core.sampling import Sampling
from semantic_parrot.kernels.transfer import upload

#: In place of a token: the model's logits are no numbers (NaN, infinity); every token was ruled out.
UNREADABLE, NONE_LEFT = -1, -2


@torch.inference_mode()
def sample(
    logits: Tensor,
    sampling: Sequence[Sampling],
    positions: Sequence[int],
    penalties: Mapping[int, Penalties] | None = None,
    masks: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """The next token of each row of `logits` [rows, vocabulary], which is written to; or UNREADABLE or NONE_LEFT. It
    is on the device of the logits, which is not waited for.

    `positions`: the index that each token will have. By row, for those that have any: `penalties`; `masks`: the tokens
    that a grammar allows (see `allow`), applied before all else.
    """
    highest, tokens = logits.max(-1)
    tokens = tokens.where(highest.isfinite(), UNREADABLE)
    if masks:
        allow(logits, list(masks), list(masks.values()))
    if penalties:
        penalise(logits, list(penalties), list(penalties.values()))
    if masks or penalties:
        changed = upload(sorted({*(masks or ()), *(penalties or ())}), logits.device)
        highest, best = logits[changed].max(-1)
        best = best.where(highest.isfinite(), NONE_LEFT)
        tokens[changed] = best.where(tokens[changed] >= 0, UNREADABLE)
    hot = [i for i, s in enumerate(sampling) if s.temperature > 0]
    if hot:
        for rows, draw in (
            ([i for i in hot if sampling[i].cut], _draw_cut),
            ([i for i in hot if not sampling[i].cut], _draw),
        ):
            if rows:
                chosen = [sampling[i] for i in rows]
                noise = [uniform(s.seed, positions[i]) for i, s in zip(rows, chosen, strict=True)]
                here = upload(rows, logits.device)
                drawn = draw(_probability(logits[here], chosen), chosen, _column(noise, logits))
                tokens[here] = drawn.where(tokens[here] >= 0, tokens[here])
    return tokens


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of seed and position: no generator state that a batch could share."""
    digest = hashlib.blake2b(position.to_bytes(8, "little"), key=seed.to_bytes(8, "little", signed=True), digest_size=8)
    return (int.from_bytes(digest.digest(), "little") >> 11) * 2.0**-53


def _probability(logits: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    # Double precision: the noise has 53 bits, and a cumulative sum over a large vocabulary adds up its rounding. The
    # maximum goes first: divided by a tiny temperature, it would overflow.
    logits = logits.double()
    above = logits - logits.amax(-1, keepdim=True)
    return functional.softmax(above / _column([s.temperature for s in sampling], logits), -1)


def _draw(probability: Tensor, sampling: Sequence[Sampling], noise: Tensor) -> Tensor:
    mass = probability.cumsum(-1)
    index = torch.searchsorted(mass, noise * mass[:, -1:], right=True)
    return index.clamp_max(probability.shape[-1] - 1)[:, 0]


def _draw_cut(probability: Tensor, sampling: Sequence[Sampling], noise: Tensor) -> Tensor:
    """Of the likeliest: `top_k` tokens; of those the fewest that hold `top_p` of their mass; of those the ones that are
    at least `min_p` times as likely as the first. The first one is always among them."""
    size = probability.shape[-1]
    ordered, token = probability.sort(dim=-1, descending=True, stable=True)
    mass = ordered.cumsum(-1)
    most = upload([min(s.top_k, size) or size for s in sampling], probability.device)[:, None]
    enough = _column([s.top_p if s.top_p < 1 else 2.0 for s in sampling], probability) * mass.gather(-1, most - 1)
    kept = torch.arange(size, device=probability.device) < most
    kept &= (mass - ordered) < enough
    kept &= ordered >= _column([s.min_p for s in sampling], probability) * ordered[:, :1]
    last = (kept.sum(-1, keepdim=True) - 1).clamp_min(0)
    index = torch.searchsorted(mass, noise * mass.gather(-1, last), right=True)
    drawn: Tensor = token.gather(-1, torch.minimum(index, last))[:, 0]
    return drawn


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return upload(values, like.device, torch.float64)[:, None]
