"""How far a waiting call's prompt is known, kept as it grows: nothing is read twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

from semantic_parrot.core.analysis import Skeleton
from semantic_parrot.core.analysis.pieces import SHORTEST


@dataclass(slots=True)
class Speech:
    """What a running call has said so far; `told`: characters when its readers were last looked at."""

    parts: list[str] = field(default_factory=list)
    chars: int = 0
    told: int = 0


@dataclass(slots=True)
class Known:
    """The prompt of a waiting call up to its first unknown variable: `at` in the skeleton's pieces, so many `chars` and
    this `crc`, and the names of the prefixes in it (see analysis.pieces). `sent`: characters that are being filled;
    `warm`: since before its producer ran. `twin`: equal for prompts that go on from the same text in the same way."""

    skeleton: Skeleton
    at: int = 0
    chars: int = 0
    crc: int = 0
    names: list[int] = field(default_factory=list)
    sent: int = 0
    warm: bool = False
    twin: tuple[str, int, int, str] = ("", 0, 0, "")

    def add(self, text: str) -> None:
        self.at += 1
        self.chars += len(text)
        self.crc = crc32(text.encode("utf-8", "surrogatepass"), self.crc)
        if self.chars >= SHORTEST and text[:1] != "\0":
            self.names.append(self.chars << 32 | self.crc)
