"""When to plan: when a prompt function is invoked whose calls no plan contains, and when a call goes out unplanned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semantic_kernel.functions.kernel_function_from_prompt import KernelFunctionFromPrompt
from semantic_kernel.services.ai_service_selector import AIServiceSelector

from semantic_parrot.adapters.answers import Answer
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.planning import BasePlanner, switched_off
from semantic_parrot.adapters.scope import Scope
from semantic_parrot.adapters.semantic_kernel.frames import Frame
from semantic_parrot.adapters.semantic_kernel.lower import Lowering
from semantic_parrot.adapters.semantic_kernel.templates import Cut, layout_of
from semantic_parrot.core.wire import IGNORED


class Planner(BasePlanner):
    def lowering(self, plan: Plan, sending: tuple[Frame, dict[str, Any]] | None = None) -> Lowering:
        return Lowering(plan, self.names, self.ledger, sending=sending)

    def plan(self, frame: Frame, sending: tuple[Frame, dict[str, Any]] | None = None) -> Answer | None:
        """Plan what the root of `frame` still has to do. The answer to the call that is about to be sent, if it is in
        the plan and that was worth sending."""
        with self.guarded():
            low = self.lowering(Plan(), sending)
            low.resume(frame.root)
            return frame.scope.submit(low.plan, reserved=low.sent)
        return None


# The planner of this process: what it counts and learns is about the process.
PLANNER = Planner()


@dataclass(frozen=True, slots=True)
class FrameSite:
    """The model call of a prompt function that runs: the CallSite of `adapters.scope`."""

    frame: Frame

    def alone(self, scope: Scope) -> bool:
        return self.frame.streams or self.frame.parent is None  # nothing follows

    def replan(self, scope: Scope, request: Mapping[str, Any]) -> Answer | None:
        body = {key: value for key, value in request.items() if key not in IGNORED}
        return PLANNER.plan(self.frame, sending=(self.frame, body))


def worth_reading(function: Any) -> bool:
    """Whether a plan may save a round trip: the template calls something, and can be read."""
    if type(function) is not KernelFunctionFromPrompt:
        return False
    try:
        return bool(layout_of(function.prompt_template).asks)
    except Cut:
        return False


def obstacle(kernel: Any) -> str | None:
    """Why nothing that this kernel runs can be planned, or None."""
    if switched_off():
        return "planning is disabled: every call goes out by itself"
    if type(kernel.ai_service_selector) is not AIServiceSelector:
        return "the kernel selects services in a way of its own"
    for filters in (kernel.function_invocation_filters, kernel.prompt_rendering_filters):
        for _, found in filters:
            if not getattr(found, "parrot", False):
                return f"the kernel has a filter of the app: {getattr(found, '__name__', type(found).__name__)}"
    return None
