"""From how many tokens on it is worth to read a shared prefix once: the measured table behind tree attention.

A segment of the tree costs launches and a merge, and saves (rows - 1) × tokens reads: for few rows or a short prefix it
is slower than reading for each row. `worth.json` holds, for each way to compute on each device, the least tokens by
number of rows, as `benchmarks/dispatch.py --write` has measured them there, by query heads to a KV head where that was
measured: of eight, seven read what the first has fetched into the processor's cache, so sharing saves less.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "worth.json"


@dataclass(frozen=True, slots=True)
class Worth:
    """`least`: (rows, tokens), by rows: so many rows share a segment of so many tokens or more; fewer than the first,
    none. Between two entries the one with fewer rows holds, which asks for more tokens."""

    least: tuple[tuple[int, int], ...]

    def __call__(self, rows: int, tokens: int) -> bool:
        at = bisect_right(self.least, rows, key=lambda entry: entry[0])
        return at > 0 and tokens >= self.least[at - 1][1]


def read(kernels: str, device: str, table: Path = TABLE, *, group: int = 1) -> Worth:
    """For `kernels` ("torch", "triton") on `device` (its name; one that was not measured is taken for the "default" of
    these kernels), `group` query heads to a KV head: as measured for so many, or for the next more, or the most."""
    found: Mapping[str, Any] = json.loads(table.read_text())[kernels]
    groups = found.get(device, found["default"])["least"]
    measured = sorted(int(size) for size in groups)
    nearest = next((size for size in measured if size >= group), measured[-1])
    return Worth(tuple(sorted((int(rows), int(tokens)) for rows, tokens in groups[str(nearest)].items())))


def write(kernels: str, device: str, found: Mapping[int, Worth], measured: str, table: Path = TABLE) -> None:
    """Keep what was `found` on `device`, by query heads to a KV head; `measured`: when and with what."""
    whole = json.loads(table.read_text())
    least = {str(group): {str(rows): tokens for rows, tokens in worth.least} for group, worth in found.items()}
    whole.setdefault(kernels, {})[device] = {"measured": measured, "least": least}
    table.write_text(json.dumps(whole, indent=1) + "\n")


def fitted(took: Mapping[tuple[int, int], tuple[float, float]]) -> Worth:
    """`took`: seconds of (unshared, shared) by (rows, tokens). The least tokens from which shared is never slower, for
    each number of rows at which there are any."""
    least = []
    for rows in sorted({rows for rows, _ in took}):
        good: int | None = None
        for tokens in sorted((t for r, t in took if r == rows), reverse=True):
            unshared, shared = took[rows, tokens]
            if shared > unshared:
                break
            good = tokens
        if good is not None:
            least.append((rows, good))
    # More rows never ask for more tokens: what says so is noise.
    return Worth(tuple((rows, min(t for r, t in least if r <= rows)) for rows, _ in least))


def regret(worth: Worth, took: Mapping[tuple[int, int], tuple[float, float]]) -> tuple[tuple[int, int], float]:
    """Where, of what was measured, the chosen way is slowest beside the better one, and the ratio of their times: 1.0
    is no mistake anywhere."""
    ratios = {at: pair[worth(*at)] / min(pair) for at, pair in took.items()}
    at = max(ratios, key=ratios.__getitem__)
    return at, ratios[at]
