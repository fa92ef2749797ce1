"""The variables of a run as its page shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from semantic_parrot.core.ended import EndedRun
from semantic_parrot.core.retold import trace_of
from semantic_parrot.core.run import Run
from semantic_parrot.core.value import JSON

#: Variables that are shown, and characters of each.
MOST, CHARACTERS = 200, 2000


@dataclass(frozen=True, slots=True)
class Shown:
    """`source`: what makes it, as "call map0", or "input". `state`: "waiting", "streaming", "done", "failed". `more`:
    characters that are not shown."""

    name: str
    source: str
    state: str
    text: str
    more: int
    wanted: bool


def values(run: Run) -> tuple[list[Shown], int]:
    """(the variables of a run that can be read: what it returns, what it makes, what it is given; how many more)"""
    made = {node.output: f"{node.spec.kind} {node.id}" for node in run.nodes}
    read = dict.fromkeys(name for node in run.nodes for name in node.reads if name not in made)
    variables = run.session.graph.variables
    wanted = set(run.terms.wanted)
    names = [*(name for name in made if name in wanted), *(name for name in made if name not in wanted), *read]
    names = [name for name in names if name in variables]
    shown = []
    for name in names[:MOST]:
        variable = variables[name]
        state, text = "waiting", ""
        if variable.error is not None:
            state, text = "failed", variable.error.message
        elif variable.settled:
            state, text = "done", _text(variable.value)
        elif (said := run.spoken.so_far(name)) is not None:
            state, text = "streaming", said
        source = made.get(name) or ("input" if variable.producer is None else "another run")
        # What streams is read at its end.
        part = text[-CHARACTERS:] if state == "streaming" else text[:CHARACTERS]
        shown.append(Shown(name, source, state, part, len(text) - len(part), name in wanted))
    return shown, len(names) - len(shown)


def kept_values(run: EndedRun) -> tuple[list[Shown], int]:
    """The same of a run that only the journal knows: what it returned, what failed, what its calls said and what it was
    given."""
    result, calls = run.result(), trace_of(run.stored).calls
    ends, given = result["calls"], run.stored.body.get("inputs") or {}
    answers = {name: _answer(ends[c.id]) for name, c in calls.items() if "response" in ends.get(c.id, ())}
    found = {name: ("failed", error["message"]) for name, error in result["errors"].items()}
    for several in (result["outputs"], answers, given):
        found = {name: ("done", _text(value)) for name, value in several.items()} | found
    names = [*result["outputs"], *(name for name in found if name not in result["outputs"])]
    shown = []
    for name in names[:MOST]:
        state, text = found[name]
        source = f"call {calls[name].id}" if name in calls else "input" if name in given else "of the program"
        part = text[:CHARACTERS]
        shown.append(Shown(name, source, state, part, len(text) - len(part), name in result["outputs"]))
    return shown, len(names) - len(shown)


def _answer(call: dict[str, Any]) -> str:
    choice = call["response"]["choices"][0]
    return (choice["message"]["content"] if "message" in choice else choice["text"]) or ""


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
