"""Each family in docs/engine.md: greedy fp32 tokens equal those of transformers' own `generate`, alone, in mixed
batches of 32 that share prefixes, in chunks, from the prefix tree, after preemptions and from the second tier, in both
modes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, LONGROPE_ORIGINAL, MOE_FAMILIES, MORE_FAMILIES, WINDOW

from semantic_parrot.core.engine.families import TESTED

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
# Lengths around LongRoPE's threshold and the sliding windows': the first crosses the threshold while it decodes.
BEGINNINGS = [LINE * 2 + "On the quay at ", "", LINE * 3, "naïve café 🦜 " * 6]
# Eight ends of one token each: prompts of one length, so that `generate` takes them together and unpadded.
PROMPTS = [[beginning + end for end in "BDFHJLNP"] for beginning in BEGINNINGS]
OUT = 24
DOCS = Path(__file__).parents[2] / "docs" / "engine.md"
TIE = 1e-4  # below this margin between the best two tokens, rounding decides
ALL = (*FAMILIES, *MORE_FAMILIES)


@pytest.fixture(scope="module")
def generated(tiny):
    """generated(family): for each prompt, generate's tokens, up to its first near-tie."""
    known: dict[str, list[list[int]]] = {}

    def get(family):
        if family not in known:
            known[family] = [tokens for prompts in PROMPTS for tokens in _generate(tiny(family), prompts)]
            # Near-ties that leave too little to compare: choose another seed.
            assert sum(map(len, known[family])) > 0.9 * OUT * len(known[family])
        return known[family]

    return get


def _generate(path, prompts):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None
    ids = AutoTokenizer.from_pretrained(path)(prompts, return_tensors="pt").input_ids
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=OUT,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    margins = torch.stack(out.logits, 1).topk(2).values.diff().abs()[..., 0]  # [prompts, OUT]
    for tokens, margin in zip(out.sequences[:, ids.shape[1] :].tolist(), margins, strict=True):
        ties = (margin < TIE).nonzero()
        yield tokens[: int(ties[0])] if len(ties) else tokens


def check(b, id, tokens):
    prompt = b.done[id].usage.prompt
    assert b.tokens(id)[prompt : prompt + len(tokens)] == tokens


MODES = [(f, d) for f in ALL for d in (False, True) if not (d and f in MOE_FAMILIES)]


@pytest.mark.parametrize(("family", "deterministic"), MODES)
def test_tokens_equal_those_of_generate(tiny, bench, ask, generated, family, deterministic):
    path, expected = tiny(family), generated(family)
    flat = [prompt for prompts in PROMPTS for prompt in prompts]

    b = bench(path, deterministic=deterministic, chunk=100)
    for n in range(0, 32, 8):
        b.run(ask(flat[n], OUT))
        check(b, b.ids, expected[n])
    usages = [d.usage for d in b.run(*(ask(p, OUT) for p in flat))]
    assert sum(u.cached for u in usages) > sum(u.prompt for u in usages) / 2
    for n, tokens in enumerate(expected):
        check(b, 5 + n, tokens)
    lengths = {u.prompt for u in usages}
    assert any(n <= LONGROPE_ORIGINAL < n + OUT for n in lengths)
    assert any(n > LONGROPE_ORIGINAL for n in lengths)
    assert any(n <= WINDOW < n + OUT for n in lengths)
    assert b.loop.stats().kv_blocks_used == 0

    cramped = bench(path, deterministic=deterministic, kv_tokens=512, kv_offload_tokens=4096, chunk=50)
    for p in flat:
        cramped.submit(ask(p, OUT))
    preempted = set()
    while cramped.loop.busy:
        cramped.step()
        preempted |= {s.id for s in cramped.loop._planner.waiting if s.cached is not None}
    assert preempted
    cramped.loop._planner._tables._tree.evict(32, 0)
    assert cramped.loop.stats().kv_blocks_cached == 0
    restored = cramped.loop.stats().kv_blocks_restored
    again = [d.usage for d in cramped.run(*(ask(p, OUT) for p in flat[::8]))]
    assert [u.cached for u in again] == [u.prompt - 1 for u in again]  # nothing but their last tokens is computed
    assert cramped.loop.stats().kv_blocks_restored > restored + 10
    for n, tokens in enumerate([*expected, *expected[::8]]):
        check(cramped, 1 + n, tokens)


def test_the_table_of_families_is_what_is_tested(tiny):
    from transformers import AutoConfig

    assert {AutoConfig.from_pretrained(tiny(f)).model_type for f in ALL} == TESTED
    table = DOCS.read_text().partition("| `model_type` |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == sorted(TESTED)
