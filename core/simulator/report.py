"""What a simulation has to say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from semantic_parrot.core.simulator.bounds import shortest_first
from semantic_parrot.core.simulator.measures import Measures
from semantic_parrot.core.simulator.run import Simulation


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """{} for none."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = {name: ordered[min(int(q * len(ordered)), len(ordered) - 1)] for name, q in at.items()}
    return {"mean": sum(ordered) / len(ordered), **found}


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 if all shares are equal, 1/n if one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def report(simulation: Simulation) -> dict[str, Any]:
    """JSON: seconds, except for ratios and counts. `over_path`: completion time over the program's critical path at an
    idle engine's costs, `over_bound`: over the largest of its bounds (see `bounds`); `mean_over_bound`: of the means.
    `floor`: what `mean_over_bound` over all programs is at the least, at this load, whatever the schedule.
    `jain`: of the tokens that tenants were served while all of them had calls waiting; None if they never had;
    `jain_speed`: of bound over completion time."""
    measures, now = simulation.measures, simulation.now or 1.0
    apps = {}
    for name, app in sorted(measures.apps.items()):
        apps[name] = {
            "programs": len(app.took),
            "completion": quantiles(app.took),
            "over_path": quantiles([took / path for took, path in zip(app.took, app.path, strict=True)]),
            "over_bound": quantiles([took / bound for took, bound in zip(app.took, app.bound, strict=True)]),
            "mean_over_bound": sum(app.took) / sum(app.bound) if app.bound else None,
            "tpot": quantiles(app.tpot),
        }
    return {
        "programs": measures.programs,
        "calls": measures.calls,
        "simulated": simulation.now,
        "apps": apps,
        "mean_over_bound": over_bound(measures),
        "floor": floor(simulation),
        "waits": quantiles(measures.waits),
        "engines": [
            {"calls": calls, "busy": engine.busy / now}
            for calls, engine in zip(simulation.placed, simulation.engines, strict=True)
        ],
        "prompt_tokens_reused": measures.reused / measures.prompted if measures.prompted else 0.0,
        "jain": jain(list(measures.served.values())) if len(measures.served) > 1 else None,
        "jain_speed": jain([speed / n for speed, n in measures.speeds.values()]),
    }


def over_bound(measures: Measures) -> float:
    """Mean completion time over mean bound, of all programs."""
    bound = sum(sum(app.bound) for app in measures.apps.values())
    return sum(sum(app.took) for app in measures.apps.values()) / bound if bound else 1.0


def floor(simulation: Simulation) -> float:
    """What `over_bound` is at the least, for these programs at these times."""
    measures = simulation.measures
    apps = measures.apps.values()
    bound = sum(sum(app.bound) for app in apps)
    if not bound:
        return 1.0
    work = [pair for app in apps for pair in zip(app.at, app.work, strict=True)]
    shared = measures.trace.least(len(simulation.engines), simulation.now, simulation.costs)
    return max(bound, shortest_first(work) * len(work), shared) / bound


def as_text(found: Mapping[str, Any], *, machine: bool) -> str:
    """A report for a reader, or as JSON."""
    if machine:
        return json.dumps(found)
    lines = [
        f"{found['calls']} calls of {found['programs']} programs in {found['simulated']:.1f} simulated seconds,"
        f" at {found['load']:.0%} of what the engines can do"
    ]
    for app, own in found["apps"].items():
        took, path, bound, tpot = own["completion"], own["over_path"], own["over_bound"], own["tpot"]
        if took:
            lines.append(
                f"  {app}: completion p50 {took['p50']:.2f} s, p99 {took['p99']:.2f} s; TPOT p99"
                f" {1e3 * tpot.get('p99', 0):.1f} ms; {path['p50']:.2f} and {path['p99']:.2f} times the critical path,"
                f" {bound['p50']:.2f} and {bound['p99']:.2f} times the bound"
            )
    waits = found["waits"]
    lines.append(
        f"  mean completion: {found['mean_over_bound']:.2f} times the bound;"
        f" no schedule is below {found['floor']:.2f} at this load"
    )
    lines.append(f"  waits: mean {waits.get('mean', 0):.3f} s, p99 {waits.get('p99', 0):.3f} s")
    fair = "-" if found["jain"] is None else f"{found['jain']:.3f}"
    lines.append(f"  prompt tokens reused: {found['prompt_tokens_reused']:.0%}; Jain index {fair}")
    for i, engine in enumerate(found["engines"]):
        lines.append(f"  engine {i}: {engine['calls']} calls, busy {engine['busy']:.0%}")
    return "\n".join(lines)
