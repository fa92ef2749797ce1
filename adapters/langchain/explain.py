"""`explain`: what a chain becomes, which pieces stay on the client and why, and how many round trips that makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable

from semantic_parrot.adapters.explanation import Explanation, Piece, Shared, producers, shared_prefixes
from semantic_parrot.adapters.langchain.frames import TRANSPARENT
from semantic_parrot.adapters.langchain.lower import LowerableModel, Lowering, rule_of, steps_of
from semantic_parrot.adapters.langchain.planner import PLANNER, children_of, contains_model, enabled
from semantic_parrot.adapters.langchain.sources import source_of
from semantic_parrot.adapters.langchain.trace import Recording, Step
from semantic_parrot.adapters.langchain.values import lift
from semantic_parrot.adapters.plan import Plan, PlannedCall


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
    calls = {call.variable: call for call in low.plan.calls}
    root = _piece(trace.root, calls, producers(low.plan), shared_prefixes(low.plan.calls))
    return Explanation(root, tuple(low.plan.calls), trips, tuple(notes))


def _piece(
    step: Step,
    calls: Mapping[str, PlannedCall],
    producers: Mapping[str, Sequence[str]],
    shared: Mapping[str, Shared],
) -> Piece:
    children = tuple(_piece(child, calls, producers, shared) for child in step.children)
    name = str(step.runnable.get_name())
    if step.reason is not None:
        return Piece(name, reason=step.reason, source=source_of(step.runnable, step.cause), children=children)
    if step.variable is None:
        return Piece(name, waits=step.waits, children=children)
    call = calls[step.variable]
    needs = dict.fromkeys(maker for read in call.inputs for maker in producers.get(read, ()))
    return Piece(
        name,
        call=call.variable,
        repeated=call.repeated,
        reads=call.inputs,
        needs=tuple(needs),
        shares=shared.get(call.variable),
        children=children,
    )


def _pending_trips(step: Step) -> int:
    """Round trips of what is not planned yet: below cut pieces, and after them."""
    if step.reason is not None:
        return _static_trips([step.runnable])
    reached = [child for child in step.children if not child.waits]
    waiting = [child.runnable for child in step.children if child.waits]
    if waiting and reached[-1].reason is not None:  # that is what they wait for
        waiting.insert(0, reached.pop().runnable)
    return _static_trips(waiting) + sum(map(_pending_trips, reached))


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
    known = rule_of(step) is not None or isinstance(step, TRANSPARENT)
    return known and all(_readable(child) for child in children_of(step))
