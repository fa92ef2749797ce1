"""Decode steps over static tensors: one step after another in the same memory gives what a plain step gives."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from semantic_parrot.core.engine.static_decode import StaticDecode
from semantic_parrot.kernels.paging import Segment
from semantic_parrot.kernels.triton_attention import How

HOW = How(worth=lambda rows, tokens: rows > 1)


@torch.inference_mode()
def test_steps_in_the_same_memory(tiny, bench):
    runner = bench(tiny("qwen3", num_hidden_layers=1), kernels="triton", kv_tokens=1024).recorded.runner
    for cache in (*runner._cache.keys, *runner._cache.values):
        cache.normal_(generator=torch.Generator().manual_seed(1))
    runner._decode = None
    static = StaticDecode(runner._model, runner._cache, runner._layers, HOW)
    steps = [
        ([5, 6, 7], [20, 3, 18], [[1, 2], [3], [1, 4]]),  # two rows share a block
        ([8, 9, 5, 6], [15, 16, 0, 31], [[5], [6, 7], [8], [9, 10]]),
        ([7, 5, 8], [33, 34, 35], [[1, 2, 11], [1, 2, 12], [1, 2, 13]]),
        ([4, 4, 4], [90, 10, 70], [[*range(20, 26)], [33], [*range(34, 39)]]),  # more than there was room for
        ([3], [4], [[50]]),
    ]
    where = {}
    for tokens, positions, blocks in steps:
        segments = [Segment(i, 1, p + 1, own) for i, (p, own) in enumerate(zip(positions, blocks, strict=True))]
        before = [cache.clone() for cache in (*runner._cache.keys, *runner._cache.values)]
        ids = torch.tensor(tokens)
        expected = runner._forward(ids, positions, segments, list(range(len(tokens))))
        after = [cache.clone() for cache in (*runner._cache.keys, *runner._cache.values)]
        for cache, old in zip((*runner._cache.keys, *runner._cache.values), before, strict=True):
            cache.copy_(old)
        got = static.run(ids, positions, segments)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        for cache, new in zip((*runner._cache.keys, *runner._cache.values), after, strict=True):
            torch.testing.assert_close(cache[1:], new[1:], atol=1e-5, rtol=1e-5)  # block 0 is scratch
        bucket = 1 << (len(tokens) - 1).bit_length()
        where.setdefault(bucket, []).append(static._buckets[bucket].logits.data_ptr())
    assert where[4][0] == where[4][1] == where[4][2] != where[4][3]  # anew once, for want of room
    assert len(where[1]) == 1
