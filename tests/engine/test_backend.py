"""Which kernels an engine gets, and what it says where it can't have them."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from semantic_parrot.core.engine import backend
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.core.engines.protocol import Done, ModelLoadError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_is_c_on_a_cpu_and_triton_on_a_gpu(in_c):
    pytest.importorskip("triton")
    assert backend.choose("auto", CPU) == backend.choose("c", CPU) == "c"
    assert backend.choose("torch", CPU) == backend.choose("torch", GPU) == "torch"
    assert backend.choose("auto", GPU) == backend.choose("triton", GPU) == "triton"


def test_unknown_kernels_are_refused():
    with pytest.raises(ModelLoadError, match="no kernels cuda: they are one of auto, torch, c, triton"):
        backend.choose("cuda", CPU)


def test_without_triton(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ModelLoadError, match=r"the Triton kernels can't be had: .*triton"):
        backend.choose("triton", GPU)
    with caplog.at_level(logging.WARNING):
        assert backend.choose("auto", GPU) == "torch"
    assert "which can't be had" in caplog.text


def test_without_a_compiler(monkeypatch, caplog):
    monkeypatch.setattr("semantic_parrot.kernels.c_compiler.shutil.which", lambda name: None)
    with pytest.raises(ModelLoadError, match="the kernels in C can't be had: there is no C compiler"):
        backend.choose("c", CPU)
    with caplog.at_level(logging.WARNING):
        assert backend.choose("auto", CPU) == "torch"
    assert "there is no C compiler" in caplog.text


def test_kernels_in_c_are_for_a_cpu():
    with pytest.raises(ModelLoadError, match="for a CPU, not for cuda"):
        backend.choose("c", GPU)


def test_triton_that_was_loaded_for_a_gpu_interprets_nothing(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr("semantic_parrot.kernels.triton_setup.interpreted", lambda: False)
    with pytest.raises(ModelLoadError, match="TRITON_INTERPRET"):
        backend.choose("triton", CPU)


def test_deterministic_mode_on_triton_is_for_fused_families(tiny, bench):
    pytest.importorskip("triton")
    with pytest.raises(ModelLoadError, match="not for the family gemma2"):
        bench(tiny("gemma2"), kernels="triton", deterministic=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"model_type": "gemma2"}, "the family gemma2"),
        ({"hidden_act": "gelu"}, "gelu in MLPs"),
        ({"hidden_size": 1 << 20}, "a hidden size of 1048576"),
        ({"dtype": torch.float64}, "float64 tensors"),
    ],
)
def test_what_is_not_fused_is_named(changes, says):
    pytest.importorskip("triton")
    from semantic_parrot.core.engine import fusing

    said = {"model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "dtype": torch.float32, **changes}
    assert fusing.refuses(SimpleNamespace(config=SimpleNamespace(**said), dtype=said["dtype"])) == says


async def test_an_engine_on_a_cpu_needs_no_triton(tiny, ask, tmp_path, monkeypatch):
    (tmp_path / "triton.py").write_text("raise ImportError('there is no triton here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = NativeEngine(tiny("llama"), names=("tiny",), threads=1, kv_tokens=1024)
    await engine.start()  # in a process of its own, which has loaded no Triton yet
    try:
        (done,) = [item async for item in engine.generate(ask("Hello", 3)) if isinstance(item, Done)]
        assert done.usage.completion == 3
    finally:
        await engine.close()
