"""Architectures: those that can't be served are refused in one line that says why; the size of the cache."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONTEXT, make_tokenizer

from semantic_parrot.core.engine.loader import load
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.protocol import ModelLoadError


def refused(path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(Options(str(path), kv_tokens=256))
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


SMALL = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


@pytest.mark.parametrize(
    ("config", "fields", "reason"),
    [
        ("MiniMaxM3VLTextConfig", {**SMALL, **HEADS, "num_local_experts": 2, "num_experts_per_tok": 1}, "an indexer"),
        ("BloomConfig", {"vocab_size": 400, "hidden_size": 32, "n_layer": 1, "n_head": 2}, ""),
        ("MambaConfig", {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, ""),
        ("T5Config", {"vocab_size": 400, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1}, "encoder-decoder"),
        ("BertConfig", {**SMALL, "num_attention_heads": 2}, ""),
        (
            "DeepseekV3Config",
            {
                **SMALL,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "first_k_dense_replace": 2,
                "q_lora_rank": 16,
                "kv_lora_rank": 16,
                "qk_rope_head_dim": 8,
                "qk_nope_head_dim": 8,
                "v_head_dim": 12,
            },
            "keys and values of different sizes",
        ),
        ("Llama4TextConfig", {**SMALL, **HEADS, "num_local_experts": 2, "intermediate_size_mlp": 64}, "chunked"),
        (
            "Qwen3NextConfig",
            {**SMALL, **HEADS, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
            "",
        ),
    ],
)
def test_architectures_that_are_not_served(tmp_path, config, fields, reason):
    import transformers

    made = getattr(transformers, config)
    kind = transformers.AutoModelForSeq2SeqLM if config == "T5Config" else transformers.AutoModelForCausalLM
    model = kind.from_config(made(**fields))
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert reason in refused(tmp_path)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ("Qwen3Config", {**SMALL, **HEADS, "max_position_embeddings": 256}),
        ("Gemma3TextConfig", {**SMALL, **HEADS, "max_position_embeddings": 256, "sliding_window": 8}),
        ("GPT2Config", {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
        ("GPTNeoXConfig", {**SMALL, "num_attention_heads": 4, "max_position_embeddings": 256}),
        ("OlmoConfig", {**SMALL, **HEADS, "max_position_embeddings": 256}),
    ],
)
def test_architectures_we_have_not_named_are_served(tmp_path, bench, ask, config, fields):
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, config)(**fields, bos_token_id=None, eos_token_id=2, pad_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    b = bench(tmp_path, deterministic=True, chunk=9)
    b.run(ask("The harbour master wrote down each ship", 6), ask("Two", 6))
    for id in (1, 2):
        tokens = torch.tensor([b.tokens(id)])
        with torch.no_grad():
            logits = model(tokens).logits[0, -7:-1]
        torch.testing.assert_close(b.logits(id), logits, atol=2e-3, rtol=1e-3)


def test_the_text_part_of_a_multimodal_checkpoint(tmp_path, bench, ask):
    import transformers

    torch.manual_seed(0)
    text = {**SMALL, **HEADS, "max_position_embeddings": 256, "sliding_window": 8, "eos_token_id": 2}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=5,
        boi_token_index=6,
        eoi_token_index=7,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    b = bench(tmp_path, chunk=9)
    b.run(ask("The harbour master wrote down each ship", 6))
    with torch.no_grad():
        logits = model(torch.tensor([b.tokens(1)])).logits[0, -7:-1]
    torch.testing.assert_close(b.logits(1), logits, atol=2e-3, rtol=1e-3)


def test_context_is_bounded_by_the_cache(tiny):
    assert load(Options(str(tiny("llama")), kv_tokens=256))[1] == 256
    assert load(Options(str(tiny("llama")), kv_tokens=1 << 14))[1] == CONTEXT


def test_default_size_of_the_cache(tiny):
    loop, _ = load(Options(str(tiny("llama"))))
    assert loop.stats().kv_blocks_total == 64 * CONTEXT // 16


def test_experts_in_deterministic_mode(tiny):
    with pytest.raises(ModelLoadError, match="in deterministic mode, mixtures of experts"):
        load(Options(str(tiny("mixtral")), kv_tokens=256, deterministic=True))


def test_the_log_says_that_a_family_is_untested(tmp_path, tiny, caplog):
    import transformers

    config = transformers.OlmoConfig(**SMALL, **HEADS, max_position_embeddings=256, pad_token_id=0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    load(Options(str(tmp_path), kv_tokens=256))
    assert [r.getMessage() for r in caplog.records if "untested" in r.getMessage()] == [
        "the model family olmo is served untested: docs/engine.md lists those that are"
    ]
    caplog.clear()
    load(Options(str(tiny("llama")), kv_tokens=256))
    assert not caplog.records
