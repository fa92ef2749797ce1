"""What was measured, as Markdown: a pure function of result files, from which docs/benchmarks.md is made."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from engines.table import into
from proof import middleware
from proof.comparators import OURS as OWN
from proof.comparators import WITHOUT
from proof.goals import BOUNDED, GOALS, Data, Goal, Ratio, better, figures, goal_of, ratio_of
from workloads import WORKLOADS

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
#: Columns of the goals: the comparators that they name, and those that the page is to have beside them.
BESIDE = ("E0", "E1", "vllm", "llama.cpp")
RTTS = (0.0, 250.0)
#: A workload at a scale, and the results of each.
Case = tuple[str, float]
Cases = dict[Case, Data]


def write(files: Sequence[Path]) -> None:
    """The page and its picture, of these result files; of a workload that several have, the newest counts."""
    from proof import plots

    found = [json.loads(path.read_text()) for path in files]
    picture = PAGE.with_suffix(".png")
    plots.draw(latest(found), picture)
    shown = f"![How many times faster than each comparator]({picture.name})\n\n" if found else ""
    PAGE.write_text(into(PAGE.read_text(), shown + tables(found)))


def latest(found: Sequence[Data], *, ablation: bool = False) -> Cases:
    """The newest result of each workload and scale, in the order of workloads, of each its own scale first.
    `ablation`: of those that compare with ours without something, else of the others."""
    newest: Cases = {}
    for data in sorted(found, key=lambda data: str(data["started"])):
        if ablation is ablates(data):
            newest |= {(key, data["settings"]["scale"][key]): data for key in data["settings"]["workloads"]}
    return {case: newest[case] for case in sorted(newest, key=_place)}


def ablates(data: Data) -> bool:
    return any(name.startswith(WITHOUT) for name in data["settings"]["comparators"])


def _place(case: Case) -> tuple[float, str, bool, float]:
    key, scale = case
    at = list(WORKLOADS).index(key) if key in WORKLOADS else math.inf
    return at, key, key not in WORKLOADS or scale != WORKLOADS[key].scale, scale


def tables(found: Sequence[Data]) -> str:
    own = latest(found)
    lines = ["## Goals", "", *goals(own), "", *middleware.lines()]
    for (key, _), data in [*own.items(), *latest(found, ablation=True).items()]:
        lines += ["", *workload(key, data)]
    return "\n".join(lines)


def goals(own: Cases) -> list[str]:
    rows = []
    for goal in GOALS:
        for name, data in _of(own, goal.workload):
            for rtt in RTTS:
                cells = [_goal(data, goal, other, rtt) for other in BESIDE]
                rows.append([f"{name}, {goal.what}", f"{rtt:g} ms", *cells, "not measured"])
    bounds = [_bound(data, name, key, rtt) for key in BOUNDED for name, data in _of(own, key) for rtt in RTTS]
    mixed = [
        _mixed(data, name, rtt)
        for _, data in _of(own, "W6")
        for rtt in RTTS
        for name in (data["settings"]["comparators"] if data else (OWN, *BESIDE))
    ]
    return [
        *table(["times better than", "RTT", *BESIDE, "on a GPU"], rows),
        "",
        *table(["over the lower bound", "RTT", "parrot", "on a GPU"], bounds),
        "",
        *table(["W6", "RTT", "chat's p99 TPOT over chat alone", "batch over batch alone", "on a GPU"], mixed),
    ]


def _of(own: Cases, key: str) -> list[tuple[str, Data | None]]:
    """Its results, by what they are called: with their scale, where that is not the workload's own. Or one, None."""
    usual = WORKLOADS[key].scale
    found: list[tuple[str, Data | None]] = [
        (key if scale == usual else f"{key} at {scale:g}", data) for (name, scale), data in own.items() if name == key
    ]
    return found or [(key, None)]


def _goal(data: Data | None, goal: Goal, name: str, rtt: float) -> str:
    wanted = goal.wanted(name, rtt)
    found = None if data is None else better(data, goal, name, rtt)
    if found is None:
        why = None if data is None else failure(data, goal.workload, name)
        said = f"failed: {why[:60]}" if why else "not measured"
        if data is not None and figures(data, goal.workload, name, rtt, goal.figure):
            said = "it serves none"  # a rate of 0, of which ours is no multiple
        return said if wanted is None else f"{said} (goal {wanted:g})"
    other = data is not None and not data["checks"].get(goal.workload, {}).get(name, {"same": True})["same"]
    said = f"{found}{', ANOTHER TEXT' if other else ''}"
    if wanted is None:
        return said
    verdict, most = found.verdict(wanted), None if data is None else at_bound(data, goal, name, rtt)
    ceiling = f" (at the lower bound: {most})" if verdict == "missed" and most is not None else ""
    return f"{said} of {wanted:g}: **{verdict}**{ceiling}"


def _mixed(data: Data | None, name: str, rtt: float) -> list[str]:
    """Chat beside batch work: within 5 % of alone, at 95 % of its throughput."""
    cells = []
    for figure, goal, met in (("chat_over_alone", 1.05, Ratio.within), ("batch_kept", 0.95, Ratio.verdict)):
        found = None if data is None else ratio_of(list(figures(data, "W6", name, rtt, figure).values()))
        sign = "≤" if met is Ratio.within else "≥"
        judged = "" if found is None or name != OWN else f" ({sign} {goal:g}: **{met(found, goal)}**)"
        cells.append("not measured" if found is None else f"{found}{judged}")
    return [name, f"{rtt:g} ms", *cells, "not measured"]


def over_bound(data: Data, key: str, rtt: float) -> Ratio | None:
    """Ours until the last job ends, over the bound at what tokens cost here."""
    return ratio_of([r["figures"]["whole"] / r["bound"] for r in _runs(data, key, OWN, rtt) if "bound" in r])


def at_bound(data: Data, goal: Goal, name: str, rtt: float) -> Ratio | None:
    """How many times better ours would be if it took no longer than its bound; of workloads of one job."""
    if goal.workload not in BOUNDED or goal.figure != "seconds":
        return None
    bounds = {r["repeat"]: r["bound"] for r in _runs(data, goal.workload, OWN, rtt) if "bound" in r}
    theirs = figures(data, goal.workload, name, rtt, "seconds")
    return ratio_of([theirs[i] / bounds[i] for i in sorted(theirs.keys() & bounds.keys())])


def _runs(data: Data, key: str, name: str, rtt: float) -> list[Data]:
    return [r for r in data["runs"] if (r["workload"], r["comparator"], r["rtt"]) == (key, name, rtt)]


def _bound(data: Data | None, name: str, key: str, rtt: float) -> list[str]:
    found = None if data is None else over_bound(data, key, rtt)
    said = "not measured" if found is None else f"{found}: **{found.within(1.1)}**"
    return [f"{name}, ours until the last answer (≤ 1.10)", f"{rtt:g} ms", said, "not measured"]


def failure(data: Data, key: str, name: str) -> str | None:
    """Why there is nothing of it."""
    found = [f["why"] for f in data["failures"] if f["engine"] == name and f["workload"] in (key, None)]
    return found[-1] if found else None


def workload(key: str, data: Data) -> list[str]:
    about, settings = data["machine"], data["settings"]
    lines = [
        f"## {key}, {settings['workloads'][key]}{': ablation' if ablates(data) else ''}",
        "",
        f"{about['processor']}, {settings['threads']} threads of {about['cores']} cores, commit {about['commit']},"
        f" {about['date']}, model {settings['model']} in {settings['dtype']}, scale {settings['scale'][key]:g},"
        f" {settings['repeats']} repetitions{'' if data['finished'] else '; INTERRUPTED'}",
        "",
    ]
    rows = [_row(key, data, name, rtt) for rtt in settings["rtt"] for name in settings["comparators"]]
    head = ["", "RTT", "", "parrot is better by", "round trips", "prompt tokens computed", "text in fp32"]
    lines += table(head, rows)
    lines += ablation(key, data)
    wrong = [f for f in data["failures"] if f["workload"] in (key, None)]
    return lines + ([""] if wrong else []) + [f"- {f['engine']}, {f['dtype']}: {f['why']}" for f in wrong]


def ablation(key: str, data: Data) -> list[str]:
    """What each optimisation is worth: ours without it over ours, and as a part of ours over E0, in logarithms."""
    goal, rows = goal_of(key), []
    for rtt in data["settings"]["rtt"]:
        gain = better(data, goal, "E0", rtt)
        for name in data["settings"]["comparators"]:
            found = better(data, goal, name, rtt) if name.startswith(WITHOUT) else None
            if found is None:
                continue
            share = "not told"
            if gain is not None and gain.told and found.told and gain.low > 1:
                share = f"{math.log(found.median) / math.log(gain.median):.0%}"
            rows.append([name, f"{rtt:g} ms", str(found), share])
    head = ["ablation", "RTT", "parrot is better by", "part of the gain over E0"]
    return ["", *table(head, rows)] if rows else []


def _row(key: str, data: Data, name: str, rtt: float) -> list[str]:
    runs = _runs(data, key, name, rtt)
    title = f"{name}: {data['settings']['comparators'][name]}"
    if not runs:
        why = failure(data, key, name)
        return [
            title,
            f"{rtt:g} ms",
            f"failed: {why[:80]}" if why else "not measured",
            "",
            "",
            "",
            _text(data, key, name),
        ]
    goal = goal_of(key)
    values = statistics.median(figures(data, key, name, rtt, goal.figure).values())
    value = f"{values:.2f} {'/s' if goal.more else 's'}"
    against = "" if name == OWN else str(better(data, goal, name, rtt) or "")
    counts = [_count(runs, "requests"), _count(runs, "computed")]
    return [title, f"{rtt:g} ms", value, against, *counts, _text(data, key, name)]


def _count(runs: Sequence[Data], what: str) -> str:
    return f"{statistics.median(r[what] for r in runs):,.0f}" if what in runs[0] else ""


def _text(data: Data, key: str, name: str) -> str:
    found = data["checks"].get(key, {}).get(name)
    if found is None:
        return "not compared"
    return "the same" if found["same"] else f"ANOTHER TEXT: {found['difference']}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
