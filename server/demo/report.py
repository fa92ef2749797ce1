"""The demo's HTML page: one file, no script, nothing to load."""

from __future__ import annotations

import time
from pathlib import Path

import jinja2

from semantic_parrot.server.demo.drawing import NODE_HEIGHT, NODE_WIDTH, dag, ticks
from semantic_parrot.server.demo.measure import Comparison


def write(path: Path, comparisons: list[Comparison], *, model: str, rtt_ms: float, repeats: int) -> None:
    """Write the page to `path`."""
    source = Path(__file__).with_name("report.html").read_text()
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    workloads = []
    for c in comparisons:
        longest = max([span.end for side in (c.eager, c.lowered) for span in side.spans] + [c.eager.seconds])
        workloads.append(
            {
                "title": c.title,
                "same_text": c.same_text,
                "eager": c.eager,
                "lowered": c.lowered,
                "text": c.lowered.text,
                "picture": dag(c.reads, c.prompts),
                "longest": longest,
                "ticks": ticks(longest),
            }
        )
    page = env.from_string(source).render(
        workloads=workloads,
        model=model,
        rtt_ms=rtt_ms,
        repeats=repeats,
        when=time.strftime("%Y-%m-%d %H:%M"),
        node_width=NODE_WIDTH,
        node_height=NODE_HEIGHT,
    )
    path.write_text(page, encoding="utf-8")
