"""The dashboard's pages and their parts, as HTML. Whatever a client or a model has written stands in them as text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from semantic_parrot.core.journal.values import Listed
from semantic_parrot.core.report import report
from semantic_parrot.core.run import Run
from semantic_parrot.core.snapshot import Snapshot
from semantic_parrot.core.trace import Trace
from semantic_parrot.server.dashboard import graph
from semantic_parrot.server.dashboard.values import Values
from semantic_parrot.server.explain import timeline, words
from semantic_parrot.server.explain.lanes import lanes

#: Name of a part of a page -> its HTML.
Parts = dict[str, str]

#: Runs that are listed.
LISTED = 100

#: Pixels of the timeline: left of its time axis, of that, of a lane.
LEFT, AXIS, LANE = 16, 1000, 26


class View:
    """Its templates, read once."""

    def __init__(self) -> None:
        here = Path(__file__).parent / "pages"
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(here),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._pages.globals.update(words=words, clock=_clock, graph=graph, LEFT=LEFT, AXIS=AXIS, LANE=LANE)

    def page(self, name: str, **about: Any) -> str:
        return self._pages.get_template(f"{name}.html").render(about)

    def _part(self, name: str, **about: Any) -> str:
        return self._pages.get_template(f"part_{name}.html").render(about)

    def runs(self, open_runs: Sequence[Run], past: Sequence[Trace], kept: Sequence[Listed], trouble: str) -> Parts:
        """The list of runs, the latest first: those that can be read, those of which there is a trace, and those that
        the journal has; `trouble`: why it can't say. On the event loop: it reads them."""
        rows = [_row(run.trace, run.status, len(run.nodes)) for run in open_runs]
        rows += [_row(trace, trace.status, len(trace.calls)) for trace in past]
        known = {row["id"] for row in rows}
        rows += [_kept(run) for run in kept if run.id not in known]
        rows.sort(key=lambda row: row["created"], reverse=True)
        more = len(rows) > LISTED or len(kept) >= LISTED
        return {"runs": self._part("runs", rows=rows[:LISTED], more=more, trouble=trouble)}

    def run(self, snapshot: Snapshot, values: Values | None) -> Parts:
        """The parts of a run's page; `values` None: they are kept no longer. In any thread."""
        found = report(snapshot)
        ended = found["status"] in ("finished", "failed", "cancelled")
        drawing, stays = graph.draw(found), lanes(found)
        scale = AXIS / max(found["seconds"], 1e-9)
        ticks = [(t, LEFT + t * scale) for t in timeline.ticks(found["seconds"])]
        return {
            "status": self._part("status", report=found, ended=ended),
            "graph": self._part("graph", report=found, drawing=drawing),
            "timeline": self._part("timeline", report=found, engines=stays, scale=scale, ticks=ticks),
            "values": self._part("values", values=values),
            "calls": self._part("calls", report=found, most=graph.MOST),
        }

    def engines(self, rows: list[Mapping[str, Any]], *, whole: bool) -> Parts:
        """`whole`: what is about the whole server may be shown."""
        return {"engines": self._part("engines", rows=rows, whole=whole)}


def _row(trace: Trace, status: str, size: int) -> dict[str, Any]:
    tokens = trace.usage.total_tokens
    return {
        "id": trace.id,
        "status": status,
        "created": trace.created,
        "seconds": trace.seconds,
        "size": size,
        "tokens": None if trace.seconds is None else tokens,
    }


def _kept(run: Listed) -> dict[str, Any]:
    """Of one that the journal alone knows: how many calls it had would have to be read from its events."""
    seconds = None if run.ended is None else run.ended - run.created
    row = {"id": run.id, "status": run.status, "created": run.created, "seconds": seconds}
    return {**row, "size": None, "tokens": None}


def _clock(created: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
