"""The two stages of training: what each draws, for how long, at what rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a stage of training draws."""

    weights: Mapping[str, float]  # by task
    completions: float  # share of conversations without the chat template
    prefer_long: bool  # of two examples, keep the one with the longer answer


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of the optimisers; its step s draws its batch from the seed `first_seed + s`."""

    steps: int
    first_seed: int
    peak: float  # of the rates above
    from_short: bool  # reports of one entry first, longer ones step by step
    mixture: Mixture


STAGES: Final[Mapping[int, Stage]] = MappingProxyType(
    {
        1: Stage(
            steps=1500,
            first_seed=0,
            peak=1.0,
            from_short=True,
            mixture=Mixture(
                weights={"extract": 1.0, "summarise": 1.0, "translate": 1.0, "merge": 1.5, "update": 1.2},
                completions=0.08,
                prefer_long=False,
            ),
        ),
        2: Stage(
            steps=750,
            first_seed=1_000_000,
            peak=0.4,
            from_short=False,
            mixture=Mixture(
                weights={"extract": 0.5, "summarise": 0.5, "translate": 1.0, "merge": 2.5, "update": 2.0},
                completions=0.12,
                prefer_long=True,
            ),
        ),
    }
)
