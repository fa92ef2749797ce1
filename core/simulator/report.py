"""What a simulation has to say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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
    """JSON: seconds, except for ratios and counts. `over_bound`: completion time over the program's critical path at
    an idle engine's costs. `jain`: of the speed of tenants, bound over completion time."""
    done = simulation.outcomes
    apps = {}
    for app in sorted({outcome.app for outcome in done}):
        mine = [outcome for outcome in done if outcome.app == app]
        apps[app] = {
            "programs": len(mine),
            "completion": quantiles([outcome.took for outcome in mine]),
            "over_bound": quantiles([outcome.took / outcome.bound for outcome in mine]),
        }
    speeds: dict[str, list[float]] = {}
    for outcome in done:
        speeds.setdefault(outcome.tenant, []).append(outcome.bound / outcome.took)
    now = simulation.now or 1.0
    return {
        "programs": len(done),
        "calls": sum(simulation.placed),
        "simulated": simulation.now,
        "apps": apps,
        "waits": quantiles(simulation.waits),
        "engines": [
            {"calls": calls, "busy": engine.busy / now}
            for calls, engine in zip(simulation.placed, simulation.engines, strict=True)
        ],
        "prompt_tokens_reused": simulation.reused / simulation.prompted if simulation.prompted else 0.0,
        "jain": jain([sum(own) / len(own) for own in speeds.values()]),
    }


def as_text(found: Mapping[str, Any], *, machine: bool) -> str:
    """A report for a reader, or as JSON."""
    if machine:
        return json.dumps(found)
    lines = [f"{found['calls']} calls of {found['programs']} programs in {found['simulated']:.1f} simulated seconds"]
    for app, own in found["apps"].items():
        took, ratio = own["completion"], own["over_bound"]
        lines.append(
            f"  {app}: completion p50 {took['p50']:.2f} s, p99 {took['p99']:.2f} s;"
            f" {ratio['p50']:.2f} and {ratio['p99']:.2f} times the critical-path bound"
        )
    waits = found["waits"]
    lines.append(f"  waits: mean {waits.get('mean', 0):.3f} s, p99 {waits.get('p99', 0):.3f} s")
    lines.append(f"  prompt tokens reused: {found['prompt_tokens_reused']:.0%}; Jain index {found['jain']:.3f}")
    for i, engine in enumerate(found["engines"]):
        lines.append(f"  engine {i}: {engine['calls']} calls, busy {engine['busy']:.0%}")
    return "\n".join(lines)
