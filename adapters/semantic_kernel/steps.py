"""`lower`: invocations that the app lists beforehand, run as one program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from semantic_kernel.functions import FunctionResult, KernelArguments

from semantic_parrot.adapters.semantic_kernel.deferred import deferred


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One invocation of a plan. As an argument of a later one it stands for the text of its result."""

    function: Any
    arguments: Any


@dataclass(eq=False, slots=True)
class Plan:
    """Invocations, in order. ``plan.call(function, name=value, …)`` adds one; a value may be an earlier step."""

    steps: list[Step] = field(default_factory=list)

    def call(self, function: Any, arguments: Any = None, **more: Any) -> Step:
        """`function`: a kernel function, or its name ``plugin-function``."""
        settings = getattr(arguments, "execution_settings", None)
        given = KernelArguments(settings=settings, **{**(arguments or {}), **more})
        step = Step(function, given)
        self.steps.append(step)
        return step


async def lower(kernel: Any, plan: Plan) -> list[FunctionResult]:
    """Run the steps of `plan` on `kernel`, in one round trip where that can be. The result of each, in order; raises
    what the first one that fails raises."""
    results: dict[Step, FunctionResult] = {}
    async with deferred(kernel):
        for step in plan.steps:
            function = step.function
            if isinstance(function, str):
                function = kernel.get_function_from_fully_qualified_function_name(function)
            arguments = KernelArguments(settings=step.arguments.execution_settings)
            for name, value in step.arguments.items():
                arguments[name] = results[value] if isinstance(value, Step) else value
            results[step] = await kernel.invoke(function, arguments)
    return list(results.values())
