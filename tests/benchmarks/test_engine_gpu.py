"""The benchmark of the engine on a GPU runs without one, on a small shape, and compares what it computes."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("triton")
import engine_gpu

SHAPE = {**engine_gpu.SMALL, "vocab_size": 48, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1}


def test_it_runs_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine_gpu, "SMALL", SHAPE)
    monkeypatch.setattr(engine_gpu, "copy_bandwidth", lambda *_: 1e9)
    engine_gpu.main(["--steps", "1", "--repeats", "1", "--json", str(tmp_path / "found.json")])
    assert capsys.readouterr().out.count("not measured") == 3
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["gpu"] is None
    attention, mlp, norms = 2 * 32 * 32 + 2 * 32 * 16, 3 * 32 * 16, 3 * 32
    assert found["weight_bytes"] == 4 * (attention + mlp + norms + 48 * 32)
    assert found["batch_1"]["share"] == pytest.approx(found["weight_bytes"] / 1e9 / found["batch_1"]["seconds"])
    for part in ("w3", "deterministic"):
        assert all(seconds > 0 for seconds in found[part]["seconds"].values())


def test_ways_that_differ_are_noticed():
    class Way:
        def __init__(self, factor):
            self.first, self._factor = torch.arange(3), factor

        def step(self, tokens, number):
            return self._factor * torch.ones(3, 4)

        def run(self, steps):
            return 1.0

    assert engine_gpu.compared({"one": Way(1.0), "other": Way(1.01)}, 1, 1) == {"one": 1.0, "other": 1.0}
    with pytest.raises(AssertionError, match="differ"):
        engine_gpu.compared({"one": Way(1.0), "other": Way(float("nan"))}, 1, 1)
