"""The page's picture: how many times faster ours is than each comparator, with the paper's own result behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proof.goals import Data, better, goal_of
from workloads import WORKLOADS

OWN = "parrot"


def draw(own: dict[tuple[str, float], Data], path: Path) -> None:
    """A panel for each workload and scale; bars are medians, whiskers 95 % intervals. Nothing measured: no file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    if not own:
        return
    columns = min(3, len(own))
    rows = -(-len(own) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    panels: Any = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(own) :]:
        panel.set_visible(False)
    for panel, ((key, _), data) in zip(panels.flat, own.items(), strict=False):
        fill(panel, key, data)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def fill(panel: Any, key: str, data: Data) -> None:
    """`panel` (matplotlib's Axes) shows what was measured of workload `key`."""
    goal = goal_of(key)
    rtts = data["settings"]["rtt"]
    names = [name for name in data["settings"]["comparators"] if name != OWN]
    width = 0.8 / max(1, len(rtts))
    for i, rtt in enumerate(rtts):
        label: str | None = f"RTT {rtt:g} ms"  # of the first bar that is drawn
        for at, name in enumerate(names):
            found = better(data, goal, name, rtt)
            if found is None or not found.told:  # what the page does not tell is not drawn
                continue
            ends = [[max(0.0, found.median - found.low)], [max(0.0, found.high - found.median)]]
            place = at + (i - (len(rtts) - 1) / 2) * width
            panel.bar(place, found.median, width, yerr=ends, color=f"C{i}", capsize=3, label=label)
            label = None
    paper = WORKLOADS[key].paper if key in WORKLOADS else None
    if paper is not None:
        panel.axhspan(*paper, color="0.85", zorder=0, label="the paper, over its baseline")
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_xticks(range(len(names)), names, rotation=20)
    panel.set_ylabel(f"times better ({goal.what})", fontsize=8)
    settings = data["settings"]
    panel.set_title(f"{key}, {settings['workloads'][key]}, scale {settings['scale'][key]:g}", fontsize=10)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7)
