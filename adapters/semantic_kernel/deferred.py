"""`deferred`: a block in which prompt functions return at once, and run together as one program when it is left."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextvars import Token
from copy import copy
from types import TracebackType
from typing import Any, Self

from semantic_kernel.functions.kernel_function_from_prompt import KernelFunctionFromPrompt
from semantic_kernel.utils.telemetry.model_diagnostics.function_tracer import are_sensitive_events_enabled

from semantic_parrot.adapters.marks import Part
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.scope import Scope
from semantic_parrot.adapters.semantic_kernel.filters import DEFERRAL, Taking, attach
from semantic_parrot.adapters.semantic_kernel.frames import PREPARED, Planned, Prepared
from semantic_parrot.adapters.semantic_kernel.pending import PendingResult, is_pending, pending, settle
from semantic_parrot.adapters.semantic_kernel.planner import PLANNER, obstacle
from semantic_parrot.adapters.semantic_kernel.templates import Cut

_LOGGED = logging.getLogger("semantic_kernel.functions.kernel_function")


class Invocation:
    """A deferred one. `done`: the error that it raised, or None, once it ran; `told`: who awaited it got the error."""

    def __init__(self, block: deferred, function: Any, arguments: Any) -> None:
        self.block = block
        self.function = function
        self.arguments = arguments
        self.planned = Planned()
        self.told = False
        self.result = pending(function, self)
        self.done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def explanation(self) -> str:
        name = self.function.fully_qualified_name
        if self.block.left:
            return f"The result of {name!r} never came: the block {self.block.place} was left by an exception."
        return (
            f"The result of {name!r} is pending in the block {self.block.place}. "
            "`await` the result, or leave the block, before it is read."
        )

    async def arrive(self) -> None:
        await self.block.flush()
        error = await asyncio.shield(self.done)
        if error is not None:
            self.told = True
            raise error

    def needs(self) -> list[Invocation]:
        """What its arguments wait for."""
        waiting = (value._waiting for value in self.arguments.values() if is_pending(value))
        return [found for found in waiting if isinstance(found, Invocation)]


class deferred(Taking):
    """``async with deferred(kernel):`` prompt functions that are invoked inside return pending results at once, and
    these may be passed as arguments to further invocations; awaiting one, or leaving the block, runs them all as one
    program. Anything else that is done to a pending result raises ResultPending. An exception inside the block means
    that nothing of what is still pending runs."""

    def __init__(self, kernel: Any) -> None:
        attach(kernel)
        caller = sys._getframe(1)
        self.place = f"`deferred` at {caller.f_code.co_filename}:{caller.f_lineno}"
        self.left = False
        self._kernel = kernel
        self._waiting: list[Invocation] = []
        self._ran: list[Invocation] = []
        self._token: Token[Taking | None] | None = None

    async def __aenter__(self) -> Self:
        self._token = DEFERRAL.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        DEFERRAL.reset(self._token)
        if error is not None:
            self.left = True
            return
        await self.flush()
        # Also of those that ran before, because something else was awaited.
        for invocation in self._ran:
            failed = invocation.done.result()
            if failed is not None and not invocation.told:
                raise failed

    # What the filter asks.

    def concerns(self, context: Any) -> bool:
        return context.kernel is self._kernel and not self.left

    async def take(self, context: Any) -> bool:
        if (
            type(context.function) is KernelFunctionFromPrompt
            and not context.is_streaming
            and obstacle(self._kernel) is None
            # These read the arguments and the result of every invocation.
            and not _LOGGED.isEnabledFor(logging.DEBUG)
            and not are_sensitive_events_enabled()
        ):
            invocation = Invocation(self, context.function, copy(context.arguments))
            self._waiting.append(invocation)
            context.result = invocation.result
            return True
        if any(is_pending(value) for value in context.arguments.values()):
            for value in list(context.arguments.values()):
                if is_pending(value):
                    await value
        context.arguments = _concrete(context.arguments)
        return False

    async def flush(self) -> None:
        """Run what is pending, as one program; what it raised is in each."""
        ran, self._waiting = self._waiting, []
        if not ran:
            return
        self._ran += ran
        token = DEFERRAL.set(None)
        scope = PLANNER.new_scope(streaming=False)
        try:
            self._plan(ran, scope)
            tasks = [asyncio.ensure_future(self._run(invocation, scope)) for invocation in ran]
            try:
                await asyncio.gather(*tasks)
            finally:
                for invocation, task in zip(ran, tasks, strict=True):
                    task.cancel()
                    if not invocation.done.done():
                        invocation.done.cancel()
        finally:
            scope.close()
            DEFERRAL.reset(token)

    def _plan(self, invocations: list[Invocation], scope: Scope) -> None:
        with PLANNER.guarded():
            plan = Plan()
            low = PLANNER.lowering(plan)
            made: dict[Invocation, tuple[Part, ...]] = {}
            for invocation in invocations:
                if any(need not in made for need in invocation.needs()):
                    continue  # what it reads is known only at run time
                texts = {
                    name: plan.marks.write(made[value._waiting]) if is_pending(value) else value
                    for name, value in _settled(invocation.arguments).items()
                }
                arguments = copy(invocation.arguments)
                arguments.update(texts)
                try:
                    made[invocation] = low.run(self._kernel, invocation.function, arguments, invocation.planned)
                except Cut:
                    continue
            scope.submit(plan)

    async def _run(self, invocation: Invocation, scope: Scope) -> None:
        """As the app would have, with the texts of what it passed."""
        try:
            for need in invocation.needs():
                if need.block is not self:
                    await need.block.flush()
                error = await asyncio.shield(need.done)
                if error is not None:
                    raise error
            PREPARED.set(Prepared(scope, invocation.planned))
            real = await self._kernel.invoke(invocation.function, _concrete(invocation.arguments))
            settle(invocation.result, real)
            invocation.done.set_result(None)
        except Exception as error:
            invocation.done.set_result(error)


def _settled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Results that have come are the texts that the app would have passed."""
    return {
        name: str(value) if type(value) is PendingResult and not is_pending(value) else value
        for name, value in arguments.items()
    }


def _concrete(arguments: Any) -> Any:
    found = copy(arguments)
    found.update(_settled(arguments))
    return found
