"""The pieces of an app and what becomes of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from semantic_parrot.adapters.plan import PlannedCall

Kind = Literal["plain", "call", "cut", "waits"]

#: How rich shows each kind.
STYLES: dict[Kind, str] = {"plain": "", "call": "green", "cut": "yellow", "waits": "dim"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where code of the app stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Shared:
    """The beginning of a prompt that others have too: so many known `characters`, and the values of `variables`.
    `calls`: the others, or the first of so many as `others`."""

    characters: int
    variables: tuple[str, ...]
    calls: tuple[str, ...]
    others: int

    def __str__(self) -> str:
        named = ", ".join(self.calls)
        more = self.others - len(self.calls)
        beginning = " and ".join((f"{self.characters} characters", *self.variables))
        return f"{beginning} with {named}{f' and {more} more' if more else ''}"


@dataclass(frozen=True, slots=True)
class Piece:
    """One of the app's objects. `call`: the planned call that it became; it reads the variables `reads` and needs the
    answers `needs` of other calls; `repeated`: for each item of a list. `reason`: why it was cut, because of the code
    at `source`. `waits`: it stands after a cut, and is planned when its input is known."""

    name: str
    call: str | None = None
    repeated: bool = False
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    shares: Shared | None = None
    reason: str | None = None
    source: Source | None = None
    waits: bool = False
    children: tuple[Piece, ...] = ()

    @property
    def kind(self) -> Kind:
        if self.reason is not None:
            return "cut"
        return "waits" if self.waits else "plain" if self.call is None else "call"

    def words(self) -> str:
        """What became of it; empty for what is merely passed through."""
        match self.kind:
            case "cut":
                return f"stays on the client: {self.reason}{f' ({self.source})' if self.source else ''}"
            case "waits":
                return "planned when its input is known"
            case "call":
                reads = f" reads {', '.join(self.reads)}" if self.reads else ""
                shares = "" if self.shares is None else f", shares {self.shares}"
                return f"call{' for each item' if self.repeated else ''}, makes {self.call}{reads}{shares}"
        return ""

    def walk(self) -> Iterator[Piece]:
        """It and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Explanation:
    """`str()` is a tree; `rich.print` shows it in colour.

    `calls`: what is planned at once. `round_trips`: how many the run is expected to make; an estimate where code of the
    app decides what happens. `notes`: about planning as a whole.
    """

    root: Piece
    calls: tuple[PlannedCall, ...]
    round_trips: int
    notes: tuple[str, ...]

    @property
    def cuts(self) -> tuple[Piece, ...]:
        """What is not planned at once, each with its reason."""
        return tuple(piece for piece in self.root.walk() if piece.reason is not None)

    def summary(self) -> str:
        calls = f"{len(self.calls)} planned call{'s' * (len(self.calls) != 1)}"
        return f"{calls}, {self.round_trips} round trip{'s' * (self.round_trips != 1)} expected"

    def lines(self) -> Iterator[tuple[Kind, str]]:
        """What kind of piece each line is about, and the line."""
        yield "plain", self.summary()
        yield from _tree(self.root, "", "")
        for note in self.notes:
            yield "cut", f"note: {note}"

    def __str__(self) -> str:
        return "\n".join(line for _, line in self.lines())

    def __rich__(self) -> Any:
        from rich.text import Text

        return Text("\n").join(Text(line, style=STYLES[kind]) for kind, line in self.lines())

    def to_mermaid(self) -> str:
        """A Mermaid flowchart: the tree, and dotted from call to call the answers that are read."""
        from semantic_parrot.adapters.explanation.mermaid import mermaid

        return mermaid(self)

    def to_html(self) -> str:
        """A page of its own, light or dark as the reader likes: no script, nothing to load."""
        from semantic_parrot.adapters.explanation.page import page

        return page(self)


def _tree(piece: Piece, first: str, rest: str) -> Iterator[tuple[Kind, str]]:
    words = piece.words()
    yield piece.kind, f"{first}{piece.name}{f': {words}' if words else ''}"
    for i, child in enumerate(piece.children):
        last = i == len(piece.children) - 1
        yield from _tree(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
