"""Where the running code is in the app's runnables: enough to plan what comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableBranch, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.retry import RunnableRetry

from semantic_parrot.adapters.langchain.lower import Lowering, steps_of
from semantic_parrot.adapters.langchain.values import Unknown, Value


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A composite that runs. `position`: how many steps of the parent precede what follows it; None if not known."""

    runnable: Any
    parent: Frame | None
    position: int | None


def position_of(config: Mapping[str, Any] | None) -> int | None:
    """The number (from 1) of the sequence step that was called with `config`, as LangChain tags its callbacks."""
    for tag in getattr((config or {}).get("callbacks"), "tags", None) or ():
        if isinstance(tag, str) and tag.startswith("seq:step:") and tag[9:].isdecimal():
            return int(tag[9:])
    return None


def standing(runnable: object, frame: Frame | None, position: int | None) -> tuple[Frame | None, int | None]:
    """The sequence, and the position in it, where `runnable` stands. That is `frame` or around it: in a stream, the
    code that runs is that of a later step, which reads."""
    around = frame
    while around is not None and position is not None:
        steps = steps_of(around.runnable)
        if steps is not None and position <= len(steps) and _stands_for(steps[position - 1], runnable):
            return around, position
        around = around.parent
    return frame, None


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
