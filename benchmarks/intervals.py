"""How sure a median of few repetitions is."""

from __future__ import annotations

import random
import statistics


def interval(ratios: list[float], draws: int = 10_000) -> dict[str, float]:
    """The middle 95 % of the medians of samples drawn from `ratios`, seeded."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(draws))
    return {"low": medians[int(draws * 0.025)], "high": medians[int(draws * 0.975)]}
