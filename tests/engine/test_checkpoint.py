"""A fault of a checkpoint is refused before anything is served, in one line that names the file or the tensor."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_model, make_tokenizer

from semantic_parrot.core.engine import precision
from semantic_parrot.core.engine.loader import load
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engines.protocol import ModelLoadError

INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"


def refused(path, **options) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(Options(str(path), kv_tokens=256, **options))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny("llama"), tmp_path / "copy")


@pytest.fixture
def shards(tiny, tmp_path):
    """The same checkpoint in several files."""
    from transformers import AutoModelForCausalLM

    path = shutil.copytree(tiny("llama"), tmp_path / "shards")
    model = AutoModelForCausalLM.from_pretrained(path)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="100KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    return path


def edit(path, **fields):
    """Change fields of a JSON file; None takes one out."""
    whole = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))


def test_missing(tmp_path):
    assert refused(tmp_path / "nowhere").endswith("nowhere is not a directory")
    assert refused(tmp_path).endswith("has no config.json")


@pytest.mark.parametrize(
    ("name", "line"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_a_file_is_missing(copy, name, line):
    (copy / name).unlink()
    assert line in refused(copy)


@pytest.mark.parametrize("keep", [-1000, 60, 0])
def test_truncated_weights(copy, keep):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "model.safetensors is truncated or no safetensors file" in refused(copy)


@pytest.mark.parametrize(
    ("name", "line"), [("config.json", "config.json can't be read as JSON"), ("tokenizer.json", "can't be loaded")]
)
def test_cut_short(copy, name, line):
    (copy / name).write_bytes((copy / name).read_bytes()[:60])
    assert line in refused(copy)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"architectures": None}, "names no architectures"),
        ({"model_type": None}, "has no model_type"),
        ({"model_type": "abacus"}, "transformers knows no model_type abacus"),
        ({"dtype": "float33"}, "a dtype that is not served: float33"),
        ({"torch_dtype": "int8", "dtype": None}, "a dtype that is not served: int8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantised checkpoints are not served"),
    ],
)
def test_config(copy, fields, line):
    edit(copy / "config.json", **fields)
    assert line in refused(copy)


def test_code_of_its_own_is_never_run(copy):
    (copy / "modeling_abacus.py").write_text(f"open({str(copy / 'ran')!r}, 'w').close()\n")
    auto_map = {"AutoConfig": "modeling_abacus.C", "AutoModelForCausalLM": "modeling_abacus.M"}
    edit(copy / "config.json", model_type="abacus", auto_map=auto_map)
    edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_abacus.T", None]})
    assert "abacus needs code of its own (auto_map), which is never run" in refused(copy)
    edit(copy / "config.json", model_type="llama")  # a family that transformers knows is served by transformers' code
    load(Options(str(copy), kv_tokens=256))
    assert not (copy / "ran").exists()


def test_tensors(copy):
    weights = load_file(copy / "model.safetensors")

    def line(changed):
        save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
        return refused(copy)

    assert line({**weights, "model.layers.7.stray": torch.zeros(3)}).endswith("does not know: model.layers.7.stray")
    assert line({**weights, UP: torch.zeros(96, 64)}).endswith(f"another shape: {UP}: [96, 64] instead of [128, 64]")
    assert line({**weights, UP: weights[UP].to(torch.float8_e4m3fn)}).endswith(
        f"quantised checkpoints are not served ({UP} in model.safetensors is F8_E4M3)"
    )
    del weights[UP]
    assert line(weights).endswith(f"lacks weights: {UP}")
    assert "no tensor of floating point" in line({"model.norm.weight": torch.zeros(64, dtype=torch.int32)})


def test_pickled_weights_only(copy):
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    line = refused(copy)
    assert "pickled weights only (pytorch_model.bin)" in line
    assert "save_pretrained" in line


def test_shards_are_served_as_one_file_is(shards, tiny, bench, ask):
    expected = bench(tiny("llama")).run(ask("The quay", 8))[0].text
    assert bench(shards).run(ask("The quay", 8))[0].text == expected


def test_shards(shards):
    whole = (shards / INDEX).read_text()
    named = json.loads(whole)["weight_map"]
    file = named[UP]

    edit(shards / INDEX, weight_map={**named, UP: next(other for other in named.values() if other != file)})
    assert f"lacks the tensor {UP}, which {INDEX} says is in it" in refused(shards)
    edit(shards / INDEX, weight_map={**named, UP: "../elsewhere.safetensors"})
    assert "outside the directory" in refused(shards)
    edit(shards / INDEX, weight_map=[])
    assert "no weight_map" in refused(shards)
    (shards / INDEX).write_text(whole[:50])
    assert f"{INDEX} can't be read" in refused(shards)
    (shards / INDEX).write_text(whole)
    content = (shards / file).read_bytes()
    (shards / file).write_bytes(content[:-8])
    assert f"{file} is truncated" in refused(shards)
    (shards / file).unlink()
    assert f"lacks {file}, which {INDEX} names" in refused(shards)


def test_more_tokens_than_embeddings(copy):
    tokenizer = make_tokenizer()
    have = len(tokenizer)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(copy)
    assert refused(copy).endswith(f"the tokenizer has {have + 2} tokens, and the model embeds {have}")


@pytest.mark.parametrize(
    ("stored", "named", "asked", "deterministic", "served"),
    [
        ("bfloat16", "bfloat16", "auto", False, torch.bfloat16),
        ("bfloat16", None, "auto", False, torch.bfloat16),  # as stored, where config.json does not say
        ("float32", "bfloat16", "auto", False, torch.bfloat16),
        ("float16", "float16", "auto", False, torch.float32),  # slow on a CPU
        ("bfloat16", "bfloat16", "auto", True, torch.float32),  # bits are promised in fp32
        ("float32", "float32", "bfloat16", False, torch.bfloat16),
    ],
)
def test_dtype(tmp_path, bench, ask, monkeypatch, stored, named, asked, deterministic, served):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    path = make_model("llama", tmp_path / "model", dtype=stored)
    edit(path / "config.json", dtype=named)
    b = bench(path, dtype=asked, deterministic=deterministic)
    assert b.recorded.runner._model.dtype == served
    assert b.run(ask("The quay", 4))[0].usage.completion == 4


@pytest.mark.parametrize(("free", "served"), [(1 << 40, torch.float32), (1 << 10, torch.bfloat16)])
def test_bf16_on_a_cpu_that_only_emulates_it(tmp_path, bench, ask, monkeypatch, free, served):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(precision, "free_memory", lambda: free)
    b = bench(make_model("llama", tmp_path / "model", dtype="bfloat16"))
    assert b.recorded.runner._model.dtype == served
    assert b.run(ask("The quay", 4))[0].usage.completion == 4


def test_a_dtype_that_there_is_not(tiny):
    for dtype in ("float33", "int8", "nn"):
        assert f"there is no dtype {dtype}" in refused(tiny("llama"), dtype=dtype)
