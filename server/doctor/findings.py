"""What `parrot doctor` says: one line for each thing looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: "bad": `parrot serve` would end at once, or fail later. "note": it works, and could be better.
Level = Literal["good", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`about`: what was looked at. `advice`: what to do, where there is something."""

    level: Level
    about: str
    found: str
    advice: str = ""
