"""What can't be served is refused in one line that says why."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_models import CONTEXT, make_model, make_tokenizer

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


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny("llama"), tmp_path / "copy")


def test_missing(tmp_path):
    assert "not a directory" in refused(tmp_path / "nowhere")
    assert "no config.json" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "line"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_a_file_is_missing(copy, name, line):
    (copy / name).unlink()
    assert line in refused(copy)


def test_truncated_weights(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "can't be loaded" in refused(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_cut_short(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:60])
    refused(copy)


def test_lacking_weights(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights: model.layers.1.mlp.up_proj.weight" in refused(copy)


def test_weights_of_another_shape(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    refused(copy)


def test_unknown_architecture(copy):
    (copy / "config.json").write_text('{"model_type": "abacus", "architectures": ["AbacusForCausalLM"]}')
    assert "abacus" in refused(copy)


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


def test_context_is_bounded_by_the_cache(tiny):
    assert load(Options(str(tiny("llama")), kv_tokens=256))[1] == 256
    assert load(Options(str(tiny("llama")), kv_tokens=1 << 14))[1] == CONTEXT


def test_default_size_of_the_cache(tiny):
    loop, _ = load(Options(str(tiny("llama"))))
    assert loop.stats().kv_blocks_total == 64 * CONTEXT // 16


def test_bf16_weights(tmp_path, bench, ask):
    """Served as they are stored; fp32 where exactness was asked for."""
    path = make_model("llama", tmp_path / "bf16", dtype="bfloat16")
    for deterministic, dtype in ((False, torch.bfloat16), (True, torch.float32)):
        b = bench(path, deterministic=deterministic)
        assert b.recorded.runner._model.dtype == dtype
        assert b.run(ask("The quay", 8))[0].usage.completion == 8


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
