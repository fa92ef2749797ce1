"""A run or a plan as a Mermaid flowchart: calls, what they need, task groups, the critical path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semantic_parrot.server.explain.words import seconds

STYLES = (
    "classDef latency stroke:#2166b8",
    "classDef deadline stroke:#b3660c",
    "classDef throughput stroke:#18794e",
    "classDef failed stroke:#c62f2b,stroke-dasharray:4 3",
)


def mermaid(report: Mapping[str, Any]) -> str:
    """`report`: of a run, or the plan of a program. Names stand in it as text, whatever is in them."""
    calls = report["calls"]
    number = {call["id"]: i for i, call in enumerate(calls)}
    lines = ["flowchart LR"]
    groups: dict[int, list[str]] = {}
    for i, call in enumerate(calls):
        took = call["seconds"] if "seconds" in call else call["real"]["seconds"]
        state = call.get("state", "finished")
        own = "failed" if state in ("failed", "aborted") else call["objective"]
        note = f"<br>{seconds(took)}" if took is not None else "" if state == "finished" else f"<br>{state}"
        line = f'  n{i}["{_text(call["id"])}{note}"]{f":::{own}" if own else ""}'
        if call["task_group"] is None:
            lines.append(line)
        else:
            groups.setdefault(call["task_group"]["id"], []).append(line)
    for group, members in groups.items():
        lines += [f'  subgraph g{group}["task group {group}"]', *(f"  {line}" for line in members), "  end"]
    for i, call in enumerate(calls):
        for need in call["needs"]:
            heavy = call["critical"] and call.get("waited_for", need) == need and calls[number[need]]["critical"]
            lines.append(f"  n{number[need]} {'==>' if heavy else '-->'} n{i}")
    return "\n".join([*lines, *(f"  {style}" for style in STYLES)])


def _text(name: str) -> str:
    """Nothing in it means anything to Mermaid, or to the HTML that it makes."""
    return "".join(c if c.isalnum() or c in " _-." else f"#{ord(c)};" for c in name)
