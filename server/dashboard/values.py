"""The variables of a run as its page shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

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


#: The variables that are shown, and how many there are more.
Values = tuple[list[Shown], int]


def values(run: Run) -> Callable[[], Values]:
    """The variables of a run that can be read: what it returns, what it makes, what it is given. What is returned may
    be called in any thread: to write large values down takes longer than the event loop may be kept."""
    made = {node.output: f"{node.spec.kind} {node.id}" for node in run.nodes}
    read = dict.fromkeys(name for node in run.nodes for name in node.reads if name not in made)
    variables = run.session.graph.variables
    wanted = set(run.terms.wanted)
    names = [*(name for name in made if name in wanted), *(name for name in made if name not in wanted), *read]
    names = [name for name in names if name in variables]
    taken: list[tuple[str, str, str, JSON]] = []
    for name in names[:MOST]:
        variable = variables[name]
        state, value = "waiting", cast(JSON, "")
        if variable.error is not None:
            state, value = "failed", variable.error.message
        elif variable.settled:
            state, value = "done", variable.value
        elif (said := run.spoken.so_far(name)) is not None:
            state, value = "streaming", said
        taken.append((name, made.get(name) or ("input" if variable.producer is None else "another run"), state, value))

    def show() -> Values:
        return [_shown(*one, one[0] in wanted) for one in taken], len(names) - len(taken)

    return show


def kept_values(run: EndedRun) -> Values:
    """The same of a run that only the journal knows: what it returned, what failed, what its calls said and what it was
    given."""
    result, calls = run.result(), trace_of(run.stored).calls
    ends, given = result["calls"], run.stored.body.get("inputs") or {}
    answers = {name: _answer(ends[c.id]) for name, c in calls.items() if "response" in ends.get(c.id, ())}
    found = {name: ("failed", error["message"]) for name, error in result["errors"].items()}
    for several in (result["outputs"], answers, given):
        found = {name: ("done", value) for name, value in several.items()} | found
    names = [*result["outputs"], *(name for name in found if name not in result["outputs"])]
    shown = []
    for name in names[:MOST]:
        source = f"call {calls[name].id}" if name in calls else "input" if name in given else "of the program"
        shown.append(_shown(name, source, *found[name], name in result["outputs"]))
    return shown, len(names) - len(shown)


def _answer(call: dict[str, Any]) -> str:
    choice = call["response"]["choices"][0]
    return (choice["message"]["content"] if "message" in choice else choice["text"]) or ""


def _shown(name: str, source: str, state: str, value: JSON, wanted: bool) -> Shown:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    # What streams is read at its end.
    part = text[-CHARACTERS:] if state == "streaming" else text[:CHARACTERS]
    return Shown(name, source, state, part, len(text) - len(part), wanted)
