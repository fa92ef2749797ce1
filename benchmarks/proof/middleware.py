"""Goals of what stands between app and engine, from the result file of `benchmarks/core.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORE = Path(__file__).parents[1] / "results" / "core.json"
#: What, goal, unit, where in the file.
GOALS = (
    ("dependent hop, p99", 1.0, "ms", ("hop_ms_server", "p99")),
    ("1,000-call program accepted", 20.0, "ms", ("accept_ms_server", "median")),
    ("decision at 10⁴ queued × 64 engines, p99", 100.0, "µs", ("decision_us_saturated", "p99")),
)


def lines(file: Path = CORE) -> list[str]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    rows = ["| middleware | goal | measured | |", "| --- | --- | --- | --- |"]
    for what, goal, unit, (part, figure) in GOALS:
        value = found.get(part, {}).get(figure)
        said = ("not measured", "") if value is None else (f"{value:.2f} {unit}", "met" if value <= goal else "missed")
        rows.append(f"| {what} | ≤ {goal:g} {unit} | {said[0]} | {said[1]} |")
    rows.append("| added TTFT, p50 (`benchmarks/server.py`) | ≤ 0.5 ms | not in a result file | |")
    if found:
        rows += [
            "",
            f"{found['processor']}, commit {found['commit']}, {found['date']}: `benchmarks/results/{file.name}`",
        ]
    return rows
