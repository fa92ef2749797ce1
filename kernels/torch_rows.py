"""Attention of decode rows that reads keys and values where they lie in the cache, and copies none of them.

Scores are the products of queries and keys that a sparse matrix asks for (`torch.sparse.sampled_addmm`), outputs are
weighted sums of the cache's rows (`embedding_bag`); both are told by index which tokens those are. Eight rows of 200
tokens take 0.9 of the time of a gather and SDPA, 32 of them half of it (3 queries a KV head, 64 wide, fp32, Zen 4).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from semantic_parrot.kernels.paging import SCRATCH, Scores, Segment


class Rows:
    """`segments`: of one row each, of similar length; padded to the longest of them."""

    def __init__(self, segments: Sequence[Segment], block_size: int, device: torch.device) -> None:
        self._last = torch.tensor([s.context - 1 for s in segments], device=device)[:, None, None]
        self._longest = max(s.context for s in segments)
        width = -(-self._longest // block_size)
        table = [[*s.blocks[:width], *[SCRATCH] * (width - len(s.blocks))] for s in segments]
        self._blocks = torch.tensor(table, device=device)
        self._size = block_size
        self._asked: dict[tuple[int, torch.Size], tuple[Tensor, Tensor, Tensor]] = {}
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        scores: Scores,
        *,
        weighed: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`query` [rows, heads, dim] in the caches' dtype. Returns what the rows read, [rows, heads, dim], and, if
        `weighed`, the log-sum-exp of their scores (without the sinks), [rows, heads]."""
        scale, window, softcap, sinks = scores
        rows, heads, dim = query.shape
        pairs, index, starts = self._ask(heads, key_cache.shape)
        keys, values = key_cache.view(-1, dim), value_cache.view(-1, dim)
        score = torch.sparse.sampled_addmm(pairs, query.reshape(-1, dim), keys.t(), alpha=scale, beta=0.0)
        score = score.values().view(rows, heads, -1)
        if softcap is not None:
            score.div_(softcap).tanh_().mul_(softcap)
        score += self._mask(window, score.dtype)
        weight = score.logsumexp(-1) if weighed or sinks is not None else None
        p = score.softmax(-1).flatten()
        out = functional.embedding_bag(index, values, starts, mode="sum", per_sample_weights=p).view(rows, heads, dim)
        if sinks is not None and weight is not None:  # exp(l) of exp(l) + exp(sink)
            out = out * (weight - sinks).sigmoid_()[..., None]
        return out, weight

    def _ask(self, heads: int, cache: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """The products that are wanted, as a sparse matrix [rows * heads, tokens of the cache * its heads]; which
        columns those are; where each row's begin."""
        found = self._asked.get((heads, cache))
        if found is None:
            blocks, kv_heads, size, _ = cache
            device, rows = self._blocks.device, len(self._blocks)
            head = torch.arange(kv_heads, device=device)[:, None, None]
            token = (self._blocks[:, None, :, None] * kv_heads + head) * size + torch.arange(size, device=device)
            # Heads that share keys stand together, so that the second one finds them in the processor's cache.
            shared = token.view(rows, kv_heads, 1, -1).expand(-1, -1, heads // kv_heads, -1)
            index, width = shared.reshape(-1).int(), shared.shape[3]
            starts = torch.arange(0, len(index) + 1, width, device=device, dtype=torch.int32)
            with warnings.catch_warnings():  # that the format may change some day
                warnings.simplefilter("ignore", UserWarning)
                pairs = torch.sparse_csr_tensor(
                    starts, index, torch.zeros(len(index), device=device),
                    (rows * heads, blocks * kv_heads * size), check_invariants=False,
                )  # fmt: skip
            found = self._asked[heads, cache] = pairs, index, starts[:-1]
        return found

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """What each row may not see, as -inf: [rows, 1, tokens]."""
        if window is not None and window >= self._longest:
            window = None
        found = self._masks.get(window)
        if found is None:
            token = torch.arange(self._blocks.shape[1] * self._size, device=self._blocks.device)
            hidden = token > self._last
            if window is not None:
                hidden |= token <= self._last - window
            zero = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            found = self._masks[window] = zero.masked_fill_(hidden, -torch.inf)
        return found
