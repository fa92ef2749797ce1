"""Greedy fp32 tokens equal those of transformers' own `generate`, whatever the engine does to get them."""

from __future__ import annotations

import pytest
import torch
from tiny_models import LONGROPE_ORIGINAL, WINDOW

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
PROMPTS = [LINE * 2 + "One", "Two", LINE + "Three", LINE * 3, "naïve café 🦜 " * 6, LINE * 2 + "On a quay"]
OUT = 40
TIE = 1e-4  # below this margin between the best two tokens, rounding decides


@pytest.fixture(scope="module")
def generated(tiny):
    """generated(path): for each prompt, generate's tokens, up to its first near-tie."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    known: dict = {}

    def get(path):
        if path not in known:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            model.generation_config.eos_token_id = None
            tokenizer = AutoTokenizer.from_pretrained(path)
            known[path] = [_generate(model, tokenizer(p, return_tensors="pt").input_ids) for p in PROMPTS]
        return known[path]

    return get


def _generate(model, ids):
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=OUT,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[0, ids.shape[1] :].tolist()
    for n, logits in enumerate(out.logits):
        first, second = logits[0].topk(2).values.tolist()
        if first - second < TIE:
            return tokens[:n]
    return tokens


def check(b, first, expected):
    for n, tokens in enumerate(expected):
        assert len(tokens) > OUT // 2, "near-ties leave too little to compare: choose another seed"
        id = first + n
        prompt = b.done[id].usage.prompt
        assert b.tokens(id)[prompt : prompt + len(tokens)] == tokens, PROMPTS[n]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral", "phi3_longrope"])
def test_alone_in_a_batch_from_the_tree_and_in_chunks(tiny, bench, ask, generated, family, deterministic):
    path = tiny(family)
    expected = generated(path)
    requests = [ask(p, OUT) for p in PROMPTS]
    together = bench(path, deterministic=deterministic)
    together.run(*requests)
    check(together, 1, expected)
    again = together.run(*requests)
    check(together, 1 + len(PROMPTS), expected)
    assert all(d.usage.cached == d.usage.prompt - 1 for d in again)

    for options in ({"chunk": 5}, {"prefix_cache": False, "chunk": 33}, {"max_batch": 1}):
        b = bench(path, deterministic=deterministic, **options)
        b.run(*requests)
        check(b, 1, expected)


@pytest.mark.parametrize("family", ["llama", "mistral", "phi3_longrope"])
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preempted(tiny, bench, ask, generated, family, prefix_cache):
    path = tiny(family)
    b = bench(path, kv_tokens=192, prefix_cache=prefix_cache, chunk=64)
    for p in PROMPTS:
        b.submit(ask(p, OUT))
    preempted = set()
    while b.loop.busy:
        b.step()
        preempted |= {s.id for s in b.loop._planner.waiting if s.cached is not None}
        stats = b.loop.stats()
        assert stats.kv_blocks_used + stats.kv_blocks_cached + b.loop._pool.free == stats.kv_blocks_total
    assert preempted
    check(b, 1, generated(path))
    stats = b.loop.stats()
    assert stats.kv_blocks_used == 0
    # More than the prompts: what a preemption lost is computed again, and counted.
    assert stats.prompt_tokens_computed + stats.prompt_tokens_reused >= sum(d.usage.prompt for d in b.done.values())


def test_the_prompts_test_what_they_should(tiny, bench, ask):
    b = bench(tiny("mistral"))
    lengths = [d.usage.prompt for d in b.run(*(ask(p, OUT) for p in PROMPTS))]
    assert max(lengths) > 2 * WINDOW
    assert any(n <= LONGROPE_ORIGINAL < n + OUT for n in lengths)  # crosses LongRoPE's threshold while it decodes
    assert any(n > LONGROPE_ORIGINAL for n in lengths)  # starts past it
    assert any(n + OUT <= LONGROPE_ORIGINAL for n in lengths)  # stays below


def test_prompts_that_come_together_share_their_prefix_once(tiny, bench, ask):
    b = bench(tiny("llama"), chunk=32)
    done = b.run(*(ask(LINE * 3 + str(n), 4) for n in range(8)))
    prompt = done[0].usage.prompt
    assert sum(d.usage.cached == 0 for d in done) == 1
    assert all(d.usage.cached >= prompt - 2 for d in done[1:])  # to the token, not to the block


def test_without_prefix_cache_nothing_is_kept(tiny, bench, ask):
    b = bench(tiny("llama"), prefix_cache=False)
    done = b.run(*(ask(LINE, 4) for _ in range(3)))
    assert [d.usage.cached for d in done] == [0, 0, 0]
    assert b.loop.stats().kv_blocks_cached == 0
