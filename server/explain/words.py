"""A report in words: what the terminal and the page say alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Names that are listed; of more, the number is told.
LISTED = 4

#: Of a run that only the journal knows.
RETOLD = (
    "from the journal, which keeps what was told: no plans and no shared prefixes, no times of calls that failed, and"
    " of calls in maps and branches not what they read"
)


def seconds(value: float | None) -> str:
    """ "–" for None."""
    if value is None:
        return "–"
    if abs(value) < 0.9995:
        return f"{value * 1e3:.1f} ms" if abs(value) < 0.01 else f"{value * 1e3:.0f} ms"
    return f"{value:.2f} s"


def tick(value: float) -> str:
    """A place on the time axis."""
    return f"{value * 1e3:g} ms" if 0 < value < 0.1 else f"{value:g} s"


def short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def listed(names: list[str], total: int | None = None) -> str:
    """`names`, of `total`."""
    total = len(names) if total is None else total
    text = ", ".join(names[:LISTED])
    more = total - min(len(names), LISTED)
    return f"{text} and {more} more" if text and more else text or f"{more} calls"


def prefixes(call: Mapping[str, Any]) -> list[str]:
    """Each prefix it shares, and with whom."""
    lines = []
    for shared in call["prefixes"]:
        with_whom = [f"{listed(own['calls'], own['count'])} of {run}" for run, own in shared["runs"].items()]
        if shared["calls"]:
            with_whom.insert(0, listed(shared["calls"], shared["own"] - 1))
        lines.append(f"{shared['characters']} characters with {'; '.join(with_whom)}")
    return lines or ["shared with no other call"]


def outside(call: Mapping[str, Any]) -> list[str]:
    """The calls of other runs whose values it reads."""
    return [
        there["run"] if there["call"] == there["run"] else f"{there['call']} of {there['run']}"
        for there in call["outside"]
    ]


def group(call: Mapping[str, Any]) -> str:
    own = call["task_group"]
    return "none" if own is None else f"{own['id']}: {listed(own['calls'], own['size'])}"


def objective(call: Mapping[str, Any]) -> str:
    if call["objective"] is None:
        return "none: it failed before it was analysed"
    return f"{call['objective']}: {call['because']}"


def engine(call: Mapping[str, Any]) -> str:
    own = call["engine"]
    return "none" if own is None else f"{own['name']}, {own['why']}: {own['explanation']}"


def state(call: Mapping[str, Any]) -> str:
    text = str(call["state"])
    if call["reason"]:
        text += f": {call['reason']}"
    if call["waits_for"]:
        text += f" for {listed(call['waits_for'])}"
    return text


def times(call: Mapping[str, Any]) -> str:
    own = call["times"]
    if own["ready"] is None:
        return "not ready"
    text = f"ready at {seconds(own['ready'])}"
    if call["state"] == "finished":
        text += f", queued {seconds(own['queued'])}, prefill {seconds(own['prefill'])}, decode {seconds(own['decode'])}"
    if own["end"] is None:
        return f"{text}, for {seconds(own['so_far'])} by now"
    return f"{text}, end at {seconds(own['end'])}"


def plan(call: Mapping[str, Any]) -> str:
    """Predicted → real."""
    predicted, real = call["predicted"], call["real"]
    return (
        f"{seconds(predicted['seconds'])} → {seconds(real['seconds'])},"
        f" cached {count(predicted['cached_tokens'])} → {count(real['cached_tokens'])}"
        f" of {count(predicted['prompt_tokens'])} → {count(real['prompt_tokens'])} prompt tokens,"
        f" {count(predicted['output_tokens'])} → {count(real['output_tokens'])} of output"
    )


def start(call: Mapping[str, Any]) -> str:
    """When it was to start, and when it did."""
    if call["latest_start"] is None:
        return "not planned"
    text = f"planned by {seconds(max(0.0, call['latest_start']))}"
    if call["margin"] is not None:
        text += f", started {seconds(abs(call['margin']))} {'before' if call['margin'] >= 0 else 'after'} that"
    if call["slack"] is not None:
        text += f"; it could have ended {seconds(call['slack'])} later and the run no later"
    return text


def headline(report: Mapping[str, Any]) -> list[str]:
    """The run in a few lines."""
    path, usage, hops = report["critical_path"], report["usage"], report["hops"]
    took = "took" if report["status"] in ("finished", "failed", "cancelled") else "so far"
    lines = [
        f"{report['status']}, {took} {seconds(report['seconds'])}; planned {seconds(report['planned_seconds'])};"
        f" nothing of it was on an engine for {seconds(report['idle_seconds'])}",
        f"critical path {seconds(path['seconds'])}: {' → '.join(path['calls']) or 'none yet'}"
        f" (queued {seconds(path['queued'])}, prefill {seconds(path['prefill'])}, decode {seconds(path['decode'])})",
        f"{usage['prompt_tokens']} prompt tokens, {report['reused']:.0%} of them reused;"
        f" {usage['completion_tokens']} generated",
        f"{hops['calls']} calls in one round trip: {hops['dependent']} needed an answer first, and the server itself"
        f" started them, {hops['deepest']} of them one after the other",
    ]
    return [*lines, RETOLD] if report.get("retold") else lines
