"""The scheduler against modelled engines, on a virtual clock: what-if and capacity questions, without a model."""

from __future__ import annotations

from typing import Any

from semantic_parrot.core.simulator.engine import Costs
from semantic_parrot.core.simulator.report import report
from semantic_parrot.core.simulator.run import Simulation
from semantic_parrot.core.simulator.workloads import load

__all__ = ["Costs", "Simulation", "simulate"]


def simulate(
    workload: str,
    *,
    engines: int = 1,
    seed: int = 0,
    calls: int = 1000,
    rate: float = 1.0,
    disable: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The report of `calls` calls of `workload` (W1 to W7, or a file) on `engines` engines, `rate` times as dense.

    Raises ValueError for an unknown workload or optimisation.
    """
    simulation = Simulation(load(workload, seed, rate), engines, calls, Costs(), disabled=disable)
    simulation.run()
    asked = {"workload": workload, "seed": seed, "rate": rate, "disabled": sorted(disable)}
    return {**asked, **report(simulation)}
