"""Optimisations that an engine has to take part in, and what is said of an engine that can't."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import get_args

from semantic_parrot.core.config import ConfigError
from semantic_parrot.core.engines.protocol import Ability, Engine
from semantic_parrot.core.scheduling import OPTIMISATIONS, Policy
from semantic_parrot.core.tenants import Terms

#: The optimisation has the name of the ability.
NEEDED: tuple[Ability, ...] = tuple(name for name in get_args(Ability) if name in OPTIMISATIONS)

log = logging.getLogger(__name__)


def lacking(engine: Engine, policy: Policy) -> list[str]:
    """The optimisations that are on and have no effect on `engine`."""
    return sorted(name for name in NEEDED if policy.on(name) and name not in engine.abilities)


def tell(engines: Sequence[Engine], policy: Policy, enabled: Collection[str]) -> None:
    """Say, once for each engine, what it can't do. Raises ConfigError if no engine can do one of `enabled`."""
    for name in sorted(enabled):
        if name in NEEDED and not any(name in engine.abilities for engine in engines):
            able = "; ".join(f"{engine.name} can do {_list(engine.abilities)}" for engine in engines)
            raise ConfigError(f"{name} is enabled, and no engine can do it: {able}")
    for engine in engines:
        if missing := lacking(engine, policy):
            log.warning("engine %s can't do %s: no effect there", engine.name, _list(missing))


def refuse_unsalted(engines: Sequence[Engine]) -> None:
    """Raises ConfigError for one that would let a tenant find out, by the time that an answer takes, what another has
    asked."""
    for engine in engines:
        if "salt" not in engine.abilities:
            raise ConfigError(
                f"engine {engine.name} can't keep the caches of tenants apart: it may serve one, without keys"
            )


def refuse_unpriced(terms: Terms, models: Sequence[str]) -> None:
    """`models` have no price. Raises ConfigError if there is one, and somebody has a quota of cost."""
    for name, section in (("tenant_defaults", terms.defaults), *terms.tenants.items()):
        if section.quota_cost is not None and models:
            raise ConfigError(f"{name}: a quota_cost needs a price for each model, and {models[0]!r} has none")


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none of these"
