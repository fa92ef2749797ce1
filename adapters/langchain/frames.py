"""Where the running code is in the app's runnables: enough to plan what comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableBranch, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.retry import RunnableRetry

from semantic_parrot.adapters.langchain.lower import Lowering, steps_of
from semantic_parrot.adapters.langchain.values import Unknown, Value


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A composite that runs. `position`: how many steps of the parent precede what follows it; None if not known.
    `caller`: the run of the parent, as LangChain names it to its callbacks, if it does."""

    runnable: Any
    parent: Frame | None
    position: int | None
    caller: UUID | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a runnable: the step (from 1) of a sequence, in the run `run`; None where LangChain does not say."""

    step: int | None = None
    run: UUID | None = None


def caller_of(config: Mapping[str, Any] | None) -> Caller:
    """As LangChain tells the callbacks in `config`."""
    callbacks = (config or {}).get("callbacks")
    run = getattr(callbacks, "parent_run_id", None)
    for tag in getattr(callbacks, "tags", None) or ():
        if isinstance(tag, str) and tag.startswith("seq:step:") and tag[9:].isdecimal():
            return Caller(int(tag[9:]), run)
    return Caller(None, run)


def standing(runnable: object, frame: Frame | None, caller: Caller) -> tuple[Frame | None, int | None]:
    """The sequence, and the position in it, where `runnable` stands. That is `frame` or around it: in a stream, the
    code that runs is that of a later step, which reads."""
    if caller.step is None:
        return frame, None
    guess, found, run = None, frame, None  # `run`: of `found`, by what was called inside it
    while found is not None:
        steps = steps_of(found.runnable)
        fits = steps is not None and caller.step <= len(steps) and _stands_for(steps[caller.step - 1], runnable)
        if fits and run is not None and run == caller.run:
            return found, caller.step
        if fits and guess is None and (run is None or caller.run is None):
            guess = found
        run = found.caller
        found = found.parent
    return (frame, None) if guess is None else (guess, caller.step)


def _stands_for(step: object, runnable: object) -> bool:
    """Whether `runnable` is what runs where `step` does: itself, or what it wraps."""
    if step is runnable:
        return True
    if isinstance(step, RunnableWithFallbacks):
        return any(_stands_for(choice, runnable) for choice in step.runnables)
    return isinstance(step, RunnableBindingBase) and _stands_for(step.bound, runnable)


def continue_after(low: Lowering, frame: Frame | None, position: int | None, value: Value) -> None:
    """Plan what the app will do with `value`, which step `position` of `frame` returns: there, and further up."""
    while frame is not None and not isinstance(value, Unknown):
        if not isinstance(frame.runnable, TRANSPARENT):
            steps = steps_of(frame.runnable)
            if position is None or steps is None:
                return
            value = low.steps(frame.runnable, steps[position:], value, position)
        position, frame = frame.position, frame.parent


#: What returns the value of the one runnable that it has chosen.
TRANSPARENT = (RunnableBranch, RunnableRetry, RunnableWithFallbacks)

# The innermost composite that runs; follows the app's threads and tasks.
FRAME: ContextVar[Frame | None] = ContextVar("parrot_frame", default=None)
