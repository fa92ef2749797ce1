"""Goals of what stands between app and engine, from the result files of benchmarks/core.py and benchmarks/server.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
#: What, goal, unit, which file, where in it.
GOALS = (
    ("dependent hop, p99", 1.0, "ms", "core.json", ("hop_ms_server", "p99")),
    ("1,000-call program accepted", 20.0, "ms", "core.json", ("accept_ms_server", "median")),
    ("decision at 10⁴ queued × 64 engines, p99", 100.0, "µs", "core.json", ("decision_us_saturated", "p99")),
    ("TTFT of a single call at 300 a second, p50", 0.5, "ms", "server.json", ("ttft", "p50_ms")),
)


def lines(folder: Path = RESULTS) -> list[str]:
    found: dict[str, dict[str, Any]] = {
        name: json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        for name in dict.fromkeys(name for _, _, _, name, _ in GOALS)
    }
    rows = ["| middleware | goal | measured | |", "| --- | --- | --- | --- |"]
    for what, goal, unit, name, (part, figure) in GOALS:
        value = found[name].get(part, {}).get(figure)
        said = ("not measured", "") if value is None else (f"{value:.2f} {unit}", "met" if value <= goal else "missed")
        rows.append(f"| {what} | ≤ {goal:g} {unit} | {said[0]} | {said[1]} |")
    for name, about in found.items():
        if about:
            where = f"{about['processor']}, commit {about['commit']}, {about['date']}"
            rows += ["", f"{where}: `benchmarks/results/{name}`"]
    return rows
