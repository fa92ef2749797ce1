"""A short soak of a fleet (benchmarks/soak_fleet.py: a hundred kills): real engines, SIGKILL at random moments."""

from __future__ import annotations

import pytest
from live import LiveServer
from soak_fleet import soak
from tiny_models import make_model

KILLS = 5


@pytest.mark.timeout(900)
async def test_every_run_finishes_though_engines_are_killed(tmp_path):
    model = make_model("llama", tmp_path / "llama")
    flags = ["--model", str(model), "--deterministic", "--engines", "2", "--kv-tokens", "16384"]
    with LiveServer(*flags, "--disable", "single-flight") as server:
        report = await soak(server, KILLS, open_runs=20, engines=2)
    assert report.problems == []
    assert report.kills == KILLS
    assert report.finished >= 20
    assert report.again > 0  # something was lost, and made again
