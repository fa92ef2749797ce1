"""`explain`: what a chain becomes, which pieces stay on the client and why, and how many round trips that makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import Runnable

from semantic_parrot.adapters.langchain.lower import LowerableModel, Lowering, rule_of, steps_of
from semantic_parrot.adapters.langchain.planner import PLANNER, children_of, contains_model, enabled
from semantic_parrot.adapters.langchain.trace import Recording, Step
from semantic_parrot.adapters.langchain.values import lift
from semantic_parrot.adapters.plan import Plan, PlannedCall


@dataclass(frozen=True)
class Explanation:
    """`str()` is a tree; `rich.print` shows it in colour.

    `calls`: what is planned at once. `cuts`: (piece, reason) of what is not. `round_trips`: how many the run is
    expected to make; an estimate where code of the app decides what happens. `notes`: about planning as a whole.
    """

    root: Step
    calls: tuple[PlannedCall, ...]
    cuts: tuple[tuple[str, str], ...]
    round_trips: int
    notes: tuple[str, ...]

    def lines(self) -> Iterator[tuple[str, str]]:
        """(kind, line): kind is "plain", "call", "cut" or "waits"."""
        trips = "round trip" if self.round_trips == 1 else "round trips"
        yield (
            "plain",
            f"{len(self.calls)} planned call{'s' * (len(self.calls) != 1)}, {self.round_trips} {trips} expected",
        )
        inputs = {call.variable: call.inputs for call in self.calls}
        yield from _tree(self.root, "", "", inputs)
        for note in self.notes:
            yield "cut", f"note: {note}"

    def __str__(self) -> str:
        return "\n".join(line for _, line in self.lines())

    def __rich__(self) -> Any:
        from rich.text import Text

        styles = {"plain": "", "call": "green", "cut": "yellow", "waits": "dim"}
        return Text("\n").join(Text(line, style=styles[kind]) for kind, line in self.lines())


def explain(chain: Runnable[Any, Any], input: Any) -> Explanation:
    """What running `chain` on `input` would do. Runs nothing: no code of the app, no request.

    Errors of the planner itself are raised here; a run of the chain counts them and goes on without a plan.
    """
    trace = Recording(chain)
    low = Lowering(Plan(), PLANNER.names.name, trace)
    low.run(chain, lift(input))
    submissions = low.plan.submissions()
    sent = sum(len(calls) for _, calls in submissions)
    trips = len(submissions) + len(low.plan.calls) - sent + _pending_trips(trace.root)
    notes = [] if enabled() else ["planning is disabled: every call goes out by itself"]
    snapshot = PLANNER.statistics.snapshot()
    if snapshot.last_error is not None:
        notes.append(f"the planner failed {snapshot.planner_errors} times, last with {snapshot.last_error}")
    return Explanation(trace.root, tuple(low.plan.calls), tuple(_cuts(trace.root)), trips, tuple(notes))


def _name(runnable: Any) -> str:
    return str(runnable.get_name())


def _label(step: Step, inputs: dict[str, tuple[str, ...]]) -> tuple[str, str]:
    name = _name(step.runnable)
    if step.reason is not None:
        return "cut", f"{name}: stays on the client: {step.reason}"
    if step.waits:
        return "waits", f"{name}: planned when its input is known"
    if step.variable is not None:
        reads = f" reads {', '.join(inputs[step.variable])}" if inputs[step.variable] else ""
        return "call", f"{name}: call, makes {step.variable}{reads}"
    return "plain", name


def _tree(step: Step, first: str, rest: str, inputs: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    kind, text = _label(step, inputs)
    yield kind, first + text
    for i, child in enumerate(step.children):
        last = i == len(step.children) - 1
        yield from _tree(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), inputs)


def _cuts(step: Step) -> Iterator[tuple[str, str]]:
    if step.reason is not None:
        yield _name(step.runnable), step.reason
    for child in step.children:
        yield from _cuts(child)


def _pending_trips(step: Step) -> int:
    """Round trips of what is not planned yet: below cut pieces, and after them."""
    if step.reason is not None:
        return _static_trips([step.runnable])
    waiting = [child.runnable for child in step.children if child.waits]
    return _static_trips(waiting) + sum(_pending_trips(child) for child in step.children if not child.waits)


def _static_trips(steps: Sequence[Any]) -> int:
    """Plans that a sequence of `steps` needs: a new one after each piece of the app's own code."""
    trips, planned = 0, False
    for step in _flat(steps):
        if contains_model(step):
            trips += 0 if planned else 1
            planned = True
        if not _readable(step):
            planned = False
    return trips


def _flat(steps: Sequence[Any]) -> Iterator[Any]:
    for step in steps:
        inner = steps_of(step)
        yield from (step,) if inner is None else _flat(inner)


def _readable(step: Any) -> bool:
    """Whether planning gets past `step`, as far as its type tells."""
    if isinstance(step, LowerableModel):
        return step.parrot_obstacle() is None
    return rule_of(step) is not None and all(_readable(child) for child in children_of(step))
