"""When requests come, seeded: seconds after the start, in order."""

from __future__ import annotations

from itertools import accumulate
from random import Random


def poisson(rate: float, count: int, *seed: object) -> list[float]:
    """`rate`: a second, on average."""
    return bursty(rate, 1.0, count, *seed)


def bursty(rate: float, variation: float, count: int, *seed: object) -> list[float]:
    """Gaps of a gamma distribution, as measured of BurstGPT's traces (Wang et al., KDD 2025): `variation` is their
    standard deviation over their mean; 1 is Poisson, more comes in bursts."""
    rng = Random("/".join(map(str, seed)))
    shape = variation**-2
    return list(accumulate(rng.gammavariate(shape, 1 / (rate * shape)) for _ in range(count)))
