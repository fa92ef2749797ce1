"""The longest paths through a program's calls, and what their tokens cost each other: a bound from all of them at once.

A program ends no sooner than any of its paths, so no sooner than their weighted mean. On a path, a token takes the step
that it is generated in: base seconds, and the marginal cost m of each token of that step. Let a token's weight w be the
sum of those of the paths that it lies on; those of all paths sum to 1. Weighted, the tokens of one step wait for it
(sum of w) (base + sum of m), where (sum of w) (sum of m) >= (sum of sqrt(w m))^2, by Cauchy and Schwarz; and over K
steps that adds up to at least (sum of sqrt(w m) over all tokens)^2 / K, by the same. Alone they would wait for the sum
of w m instead: the difference is what they take longer. K is at most (engines * seconds - all work) / base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one call: `marginal`, the seconds of all, and `root`, at most the sum of the square roots of each one's."""

    marginal: float = 0.0
    root: float = 0.0

    @staticmethod
    def of(count: int, first: float, growth: float) -> Tokens:
        """`count` tokens, of which the first costs `first` seconds and each further one `growth` more. (The root is
        concave, so it lies above its chord.)"""
        last = first + growth * count
        return Tokens(count * (first + last) / 2, count * (sqrt(first) + sqrt(last)) / 2)


@dataclass(frozen=True, slots=True)
class Path:
    """`seconds`: of all of it, alone."""

    seconds: float
    calls: list[int]


def cover(
    took: Sequence[float],
    after: Sequence[float],
    heads: Sequence[float],
    tails: Sequence[float],
    producers: Sequence[Sequence[int]],
) -> list[Path]:
    """Paths that together go through every call: the longest through each one that no longer one
    went through, the longest first. `after`: seconds that each has to wait before it
    starts; `heads`: its earliest start; `tails`: seconds from its end at the least."""
    rest = [sum(seconds) for seconds in zip(after, took, tails, strict=True)]
    following: list[int | None] = [None] * len(took)
    for i, own in enumerate(producers):
        for p in own:
            before = following[p]
            if before is None or rest[before] < rest[i]:
                following[p] = i
    seen: set[int] = set()
    paths: list[Path] = []
    for i in sorted(range(len(took)), key=lambda i: -(heads[i] + took[i] + tails[i])):
        if i in seen:
            continue
        path, at = [i], i
        while producers[at]:
            at = max(producers[at], key=lambda p: heads[p] + took[p])
            path.append(at)
        onward = following[i]
        while onward is not None:
            path.append(onward)
            onward = following[onward]
        seen.update(path)
        paths.append(Path(heads[i] + took[i] + tails[i], path))
    return paths


def together(
    paths: Sequence[Path], tokens: Mapping[int, Tokens], steps: Callable[[float], float], least: float
) -> float:
    """Seconds that a program takes at the least, but no less than `least`. `tokens`: of those calls that wait for each
    other's steps, of which there are `steps(seconds)` at the most. The weights are those of the first one, two, three …
    of its `paths` alike."""
    counts: Counter[int] = Counter()
    seconds = 0.0
    for n, path in enumerate(paths, 1):
        seconds += path.seconds
        counts.update(i for i in path.calls if i in tokens)
        root = sum(sqrt(count / n) * tokens[i].root for i, count in counts.items())
        alone = seconds / n - sum(count / n * tokens[i].marginal for i, count in counts.items())

        def ends(within: float, root: float = root, alone: float = alone) -> bool:
            return steps(within) > 0 and alone + root * root / steps(within) <= within

        if seconds / n > least or not ends(least):
            least = _least(ends, max(least, seconds / n))
    return least


def _least(ends: Callable[[float], bool], low: float) -> float:
    """The least number, not below `low`, of which that is true: it stays so from there on."""
    if ends(low):
        return low
    high = max(2 * low, 1e-9)
    while not ends(high):
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if ends(middle) else (middle, high)
    return low
