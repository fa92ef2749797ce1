"""An explanation as a Mermaid flowchart."""

from __future__ import annotations

from semantic_parrot.adapters.explanation.tree import Explanation

STYLES = (
    "classDef call stroke:#18794e,stroke-width:2px",
    "classDef cut stroke:#b3660c,stroke-dasharray:4 3",
    "classDef waits stroke:#7b8494,stroke-dasharray:1 3",
)


def mermaid(explanation: Explanation) -> str:
    """Names and reasons stand in it as text, whatever is in them."""
    pieces = list(explanation.root.walk())
    number = {id(piece): i for i, piece in enumerate(pieces)}
    maker = {piece.call: i for i, piece in enumerate(pieces) if piece.call is not None}
    lines = ["flowchart TD"]
    for i, piece in enumerate(pieces):
        words = piece.words()
        style = "" if piece.kind == "plain" else f":::{piece.kind}"
        lines.append(f'  n{i}["{_text(piece.name)}{f"<br>{_text(words)}" if words else ""}"]{style}')
    for i, piece in enumerate(pieces):
        lines += [f"  n{i} --> n{number[id(child)]}" for child in piece.children]
    for i, piece in enumerate(pieces):
        lines += [f"  n{maker[need]} -. {need} .-> n{i}" for need in piece.needs]
    return "\n".join([*lines, *(f"  {style}" for style in STYLES)])


def _text(name: str) -> str:
    """Nothing in it means anything to Mermaid, or to the HTML that it makes."""
    return "".join(c if c.isalnum() or c in " _-." else f"#{ord(c)};" for c in name)
