"""The scheduler against modelled engines, on a virtual clock: what-if and capacity questions, without a model."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from semantic_parrot.core.simulator.costs import Costs
from semantic_parrot.core.simulator.costs import costs as costs_of
from semantic_parrot.core.simulator.load import demand, load
from semantic_parrot.core.simulator.report import report
from semantic_parrot.core.simulator.run import Simulation

__all__ = ["Costs", "Simulation", "simulate"]


def simulate(
    workload: str,
    *,
    engines: int = 1,
    seed: int = 0,
    calls: int = 1000,
    rate: float = 1.0,
    at_load: float | None = None,
    costs: str | Costs = "default",
    cache: int | None = None,
    tpot: float | None = None,
    disable: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The report of `calls` calls of `workload` (W1 to W7, "tenants", or a file) on `engines` engines, `rate` times as
    dense; or, with `at_load`, so dense that they are that part of what the engines can do at the most (see `demand`).

    `costs`: a preset, a JSON file, or what it says; `cache`: prompt tokens that stay in each engine after use; `tpot`:
    seconds per token that latency calls are to keep. Raises ValueError for what is unknown.
    """
    model = costs if isinstance(costs, Costs) else costs_of(costs)
    if cache is not None:
        model = replace(model, cache=cache)
    natural = demand(load(workload, seed), calls, engines, model)
    if at_load is not None:
        rate = at_load / natural
    simulation = Simulation(load(workload, seed, rate), engines, calls, model, tpot=tpot, disabled=disable)
    simulation.run()
    asked = {"workload": workload, "seed": seed, "rate": rate, "load": rate * natural, "tpot": tpot}
    return {**asked, "disabled": sorted(disable), "costs": asdict(model), **report(simulation)}
