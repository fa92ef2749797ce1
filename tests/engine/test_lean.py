"""Layers as plain functions over kernels in C give what the modules over torch's give: the same tokens."""

from __future__ import annotations

import pytest
import torch
from c_kernels import kernels

from semantic_parrot.core.engine import lean, packing
from semantic_parrot.core.engine.families import LLAMA_SHAPED

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "
PROMPTS = [LINE + "One", "Two", LINE * 3 + "Three", LINE + "Four"]
OUT = 12


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("family", sorted(LLAMA_SHAPED))
def test_same_tokens_as_the_modules(tiny, bench, ask, family, packed, monkeypatch):
    kernels()
    if packed:
        monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    expected, found = (bench(tiny(family), kernels=way, chunk=48) for way in ("torch", "c"))
    assert expected.recorded.runner._lean is None
    assert found.recorded.runner._lean is not None
    for one in (expected, found):
        one.run(*(ask(prompt, OUT) for prompt in PROMPTS))
    for n in range(1, len(PROMPTS) + 1):
        assert found.tokens(n) == expected.tokens(n)
        torch.testing.assert_close(found.logits(n), expected.logits(n), atol=1e-4, rtol=1e-4)


def test_in_bf16_logits_are_as_near_to_fp32s_as_the_modules(tiny, bench, ask):
    kernels()
    ways = {"exact": ("torch", "float32"), "modules": ("torch", "bfloat16"), "lean": ("c", "bfloat16")}
    prompts = [ask(LINE + word, 1) for word in ("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")]
    logits = {}
    for name, (way, dtype) in ways.items():
        one = bench(tiny("llama"), kernels=way, dtype=dtype, prefix_cache=False)
        one.run(*prompts)
        logits[name] = torch.stack([one.logits(n)[0] for n in range(1, len(prompts) + 1)])
    error = {name: (found - logits["exact"]).square().mean().sqrt() for name, found in logits.items()}
    assert 0 < error["lean"] <= 1.1 * error["modules"]


@pytest.mark.parametrize(("family", "options"), [("gemma2", {}), ("llama", {"deterministic": True})])
def test_who_keeps_the_modules(tiny, bench, family, options):
    kernels()
    assert bench(tiny(family), kernels="c", **options).recorded.runner._lean is None


def test_what_is_not_for_it_is_named(tiny, bench):
    model = bench(tiny("llama"), kernels="torch").recorded.runner._model
    assert lean.refuses(model) is None
    model.config.hidden_act = "gelu"
    assert lean.refuses(model) == "gelu in MLPs"
    model.config.model_type = "gemma2"
    assert lean.refuses(model) == "the family gemma2"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_that_ends_no_prompt_has_no_row_for_the_last_products(tiny, bench, ask, monkeypatch, dtype):
    """Neither the output layer's, nor those of the last layer that come after its attention."""
    kernels()
    monkeypatch.setattr(packing, "LEAST", dict.fromkeys(packing.LEAST, 0))
    one = bench(tiny("llama"), kernels="c", dtype=dtype, chunk=16)
    lean_model = one.recorded.runner._lean
    last = lean_model._layers[-1]
    rows = {}

    def watch(owner, name):
        product, found = getattr(owner, name), rows.setdefault(name, [])
        monkeypatch.setattr(owner, name, lambda x: found.append(len(x)) or product(x))

    watch(lean_model, "_head")
    watch(lean_model._layers[0], "_up")
    for name in ("_output", "_gate", "_down"):
        watch(last, name)
    one.run(ask(LINE * 3, 4))
    assert rows["_up"][0] == 16
    for name in ("_head", "_output", "_gate", "_down"):
        assert rows[name][0] == 0
        assert rows[name][-4:] == [1, 1, 1, 1]
