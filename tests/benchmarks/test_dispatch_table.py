"""What the benchmark of the dispatcher measures is what the dispatcher goes by afterwards."""

from __future__ import annotations

import shutil

import dispatch as benchmark
import pytest
import torch

from semantic_parrot.kernels import worth
from semantic_parrot.kernels.dispatch import device_name, paged_attention
from semantic_parrot.kernels.paging import Segment

CPU = torch.device("cpu")


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setitem(benchmark.SHAPES, "cpu", [(2, 2, 16)])
    monkeypatch.setitem(benchmark.ROWS, "cpu", (2, 4))
    monkeypatch.setitem(benchmark.TOKENS, "cpu", (32, 64, 128))
    path = tmp_path / "worth.json"
    shutil.copy(worth.TABLE, path)
    return path


def chosen(rows, tokens):
    """Whether the engine's planner shares a prefix of so many tokens among so many rows."""
    prefix = [*range(1, 1 + tokens // 16)]
    segments = [Segment(i, 1, tokens + 5, [*prefix, 900 + i]) for i in range(rows)]
    plan = paged_attention("torch", CPU, deterministic=False)(segments, rows, 16, CPU)
    return bool(plan.trees.shared)


def test_what_was_measured_is_what_is_chosen(table, monkeypatch, capsys):
    # Sharing is faster from 128 tokens on with two rows, from 64 on with four.
    faster = {2: 128, 4: 64}
    monkeypatch.setattr(benchmark, "measure", lambda rows, tokens, *_: (1.0, 0.5 if tokens >= faster[rows] else 1.03))
    benchmark.main(["--write", "--table", str(table)])
    found = worth.read("torch", device_name(CPU), table, group=2)
    assert found == worth.Worth(((2, 128), (4, 64)))
    assert "regret at (2, 2, 16): 1.000" in capsys.readouterr().out
    monkeypatch.setattr(worth, "read", lambda *_, **__: found)
    assert [chosen(rows, tokens) for rows in (2, 4) for tokens in (32, 64, 128)] == [
        False, False, True, False, True, True,
    ]  # fmt: skip


def test_it_measures_both_ways_and_writes_only_where_it_is_told(table, tmp_path):
    before = table.read_text()
    benchmark.main(["--repeats", "1", "--table", str(table), "--json", str(tmp_path / "found.json")])
    assert table.read_text() == before
    assert (tmp_path / "found.json").exists()
