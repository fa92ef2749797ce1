"""The engine on the Triton kernels, interpreted where there is no GPU: the tokens that it gives on torch's, and in
deterministic mode the same bits in any company. Short prompts: a token takes the interpreter 20 ms."""

from __future__ import annotations

import logging

import pytest
import torch

pytest.importorskip("triton")
from semantic_parrot.kernels import tree_attention, worth

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
PROMPTS = [LINE + "One", "Two", LINE + "Three"]


def check(bench, ask, path, prompts=PROMPTS, out=3):
    """The engine after `prompts`, whose tokens and logits are those of torch's kernels."""
    expected, b = bench(path, kernels="torch"), bench(path, kernels="triton", chunk=24)
    for one in (expected, b):
        one.run(*(ask(prompt, out) for prompt in prompts))
    for n in range(1, len(prompts) + 1):
        assert b.tokens(n) == expected.tokens(n)
        torch.testing.assert_close(b.logits(n), expected.logits(n), atol=1e-3, rtol=1e-3)
    return b


@pytest.mark.parametrize("family", ["mistral", "qwen3"])  # a window; norms of queries and keys
def test_same_tokens_as_torch(tiny, bench, ask, family):
    decode = check(bench, ask, tiny(family)).recorded.runner._decode
    assert decode.__self__._buckets  # steps of decode alone went another way than the rest


def test_a_shared_prefix_is_read_once(tiny, bench, ask, monkeypatch):
    monkeypatch.setattr(worth, "read", lambda *_, **__: worth.Worth(((2, 16),)))
    shared = []
    add = tree_attention.add

    def watched(work, trees, *rest):
        shared.extend(trees.shared)
        add(work, trees, *rest)

    monkeypatch.setattr(tree_attention, "add", watched)
    check(bench, ask, tiny("llama"), [LINE + "One", LINE + "Two"])
    assert any(node.last - node.first == 2 and len(node.blocks) == 2 for node in shared)


def test_a_family_that_is_not_fused_says_so_and_gives_the_same(tiny, bench, ask, caplog):
    with caplog.at_level(logging.WARNING):
        check(bench, ask, tiny("gemma2"), PROMPTS[1:2])  # soft-capped scores, which the kernels of attention take
    assert [r.getMessage() for r in caplog.records] == [
        "the fused Triton kernels do not take the family gemma2: torch computes its layers, but for attention"
    ]


def test_bits_do_not_depend_on_company(tiny, bench, ask):
    path = tiny("qwen2", num_hidden_layers=1)  # products with a bias, and without
    together = bench(path, kernels="triton", deterministic=True, chunk=24)
    together.run(*(ask(prompt, 2) for prompt in PROMPTS[:2]))
    for n, prompt in enumerate(PROMPTS[:2], 1):
        alone = bench(path, kernels="triton", deterministic=True)
        alone.run(ask(prompt, 2))
        assert torch.equal(together.logits(n), alone.logits(1))
