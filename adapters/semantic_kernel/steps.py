"""`lower`: invocations that the app lists beforehand, run as one program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from semantic_kernel.functions import FunctionResult, KernelArguments

from semantic_parrot.adapters.semantic_kernel.deferred import deferred
from semantic_parrot.adapters.semantic_kernel.orchestrations import is_orchestration, run_orchestration


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


async def lower(subject: Any, plan: Any) -> Any:
    """Run what is known beforehand, in one round trip where that can be.

    Of a kernel and a Plan: the result of each step, in order; raises what the first one that fails raises. Of an
    orchestration of agents (sequential, concurrent, group chat in turn) and its task: its result, on a runtime of its
    own.
    """
    return await (run_orchestration(subject, plan) if is_orchestration(subject) else _run(subject, plan))


async def _run(kernel: Any, plan: Plan) -> list[FunctionResult]:
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
