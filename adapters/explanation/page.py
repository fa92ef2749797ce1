"""An explanation as one HTML page: no script, nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from semantic_parrot.adapters.explanation.tree import Explanation, Piece

_HEAD = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --ink: light-dark(#1c2330, #e6e9ef); --soft: light-dark(#5b6577, #9aa4b5);
    --paper: light-dark(#fff, #12161d); --line: light-dark(#d5dae2, #38414f); --call: light-dark(#18794e, #4cc38a);
    --cut: light-dark(#9a5508, #eba04a) }}
  body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
    max-width: 66rem; padding: 0 1rem }}
  h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }} li, td {{ overflow-wrap: anywhere }}
  ul {{ list-style: none; padding-left: 1.1rem; border-left: 1px solid var(--line) }}
  body > ul {{ border: 0; padding: 0 }}
  li {{ margin: .15rem 0 }} span {{ color: var(--soft) }} .call > b {{ color: var(--call) }}
  .cut > b {{ color: var(--cut) }}
  .waits > b {{ font-weight: 400; color: var(--soft) }} .plain > b {{ font-weight: 400 }}
  table {{ border-collapse: collapse }} td, th {{ border-top: 1px solid var(--line); padding: .2rem .8rem .2rem 0;
    text-align: left; vertical-align: top }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
"""


def page(explanation: Explanation) -> str:
    """Whatever stands in names and reasons stands in it as text."""
    parts = [_HEAD.format(title=escape(explanation.root.name), summary=escape(explanation.summary()))]
    parts.append(f"<ul>{_item(explanation.root)}</ul>\n")
    cuts = [(piece.name, piece.reason or "", str(piece.source or "")) for piece in explanation.cuts]
    shared = [(piece.call or "", str(piece.shares)) for piece in explanation.root.walk() if piece.shares]
    parts.append(_table("What stays on the client", ("piece", "reason", "code"), cuts))
    parts.append(_table("Shared prefixes", ("call", "shares"), shared))
    parts.append(_table("Notes", ("",), [(note,) for note in explanation.notes]))
    return "".join(parts)


def _item(piece: Piece) -> str:
    words = piece.words()
    own = f"<b>{escape(piece.name)}</b>{f' <span>{escape(words)}</span>' if words else ''}"
    below = f"<ul>{''.join(map(_item, piece.children))}</ul>" if piece.children else ""
    return f'<li class="{piece.kind}">{own}{below}</li>'


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows]
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<h2>{title}</h2>\n<table><tr>{head}</tr>\n{''.join(lines)}</table>\n"
