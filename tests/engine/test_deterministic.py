"""Deterministic mode: the logits of a request are the same bits alone, in any batch, after a prefix hit, in chunks,
after a preemption."""

from __future__ import annotations

import pytest
import torch

LONG = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
PROMPTS = [LONG * 2 + "One", "Two", LONG + "Three", LONG * 2 + "On the quay", "naïve café " * 9]
# Sizes at which products switch between kernels: one KV head, odd widths, a vocabulary that is no multiple of 16.
OTHERS = ["qwen2", "mistral", "phi3_longrope", "gemma2", "granite_swa"]  # windows, two regimes, soft-capping, sinks
SHAPES = [
    {},
    {"num_key_value_heads": 1, "intermediate_size": 200},
    {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 688},
    {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 40},
]


def alone(bench, path, ask, **options):
    """Each prompt by itself in a fresh engine."""
    found = []
    for prompt in PROMPTS:
        b = bench(path, deterministic=True, **options)
        b.run(ask(prompt))
        found.append(b.logits(1))
    return found


@pytest.mark.parametrize(("family", "shape"), [*((family, {}) for family in OTHERS), *(("llama", s) for s in SHAPES)])
def test_bits(tiny, bench, ask, family, shape):
    path = tiny(family, **shape)
    expected = alone(bench, path, ask)

    def check(b, first=1):
        for n, logits in enumerate(expected):
            assert torch.equal(b.logits(first + n), logits), PROMPTS[n]

    together = bench(path, deterministic=True)
    together.run(*map(ask, PROMPTS))
    check(together)
    again = together.run(*map(ask, PROMPTS))  # all but the last token from the prefix tree
    check(together, first=1 + len(PROMPTS))
    assert all(d.usage.cached == d.usage.prompt - 1 for d in again)

    chunked = bench(path, deterministic=True, chunk=7, prefix_cache=False)
    chunked.run(*map(ask, PROMPTS))
    check(chunked)

    cramped = bench(path, deterministic=True, kv_tokens=192, chunk=64)
    cramped.run(*map(ask, PROMPTS))
    check(cramped)


def test_bits_do_not_depend_on_threads(tiny, bench, ask):
    path = tiny("llama", hidden_size=256, intermediate_size=688)
    expected = alone(bench, path, ask)
    torch.set_num_threads(2)
    b = bench(path, deterministic=True)
    b.run(*map(ask, PROMPTS))
    for n, logits in enumerate(expected):
        assert torch.equal(b.logits(1 + n), logits)
