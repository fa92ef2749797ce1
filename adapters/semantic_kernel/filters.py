"""The two filters of a kernel: what is invoked tells where the app is, and is planned where no plan contains it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from semantic_kernel.functions.kernel_function_from_prompt import KernelFunctionFromPrompt

from semantic_parrot.adapters.scope import SCOPE, SITE
from semantic_parrot.adapters.semantic_kernel.frames import PREPARED, RENDERING, RUNNING, Frame
from semantic_parrot.adapters.semantic_kernel.planner import PLANNER, FrameSite, obstacle, worth_reading


class Taking(Protocol):
    """What invocations inside a block are handed to."""

    def concerns(self, context: Any) -> bool:
        """Whether it is one of the block's kernel."""

    async def take(self, context: Any) -> bool:
        """Whether it has been given a result, for now; else it is to run."""


DEFERRAL: ContextVar[Taking | None] = ContextVar("parrot_sk_deferral", default=None)

Next = Callable[[Any], Awaitable[None]]


def attach(kernel: Any) -> None:
    """Have the prompt functions of `kernel` planned; nothing happens if they are."""
    pairs = (
        (kernel.function_invocation_filters, function_filter),
        (kernel.prompt_rendering_filters, rendering_filter),
    )
    for filters, ours in pairs:
        if all(found is not ours for _, found in filters):
            filters.append((id(ours), ours))  # the last one is the outermost


def detach(kernel: Any) -> None:
    """The reverse."""
    for filters in (kernel.function_invocation_filters, kernel.prompt_rendering_filters):
        filters[:] = [pair for pair in filters if pair[1] not in (function_filter, rendering_filter)]


async def function_filter(context: Any, next: Next) -> None:
    around = RENDERING.get()
    if around is not None:
        await _in_a_template(around, context, next)
        return
    prepared = PREPARED.get()
    if prepared is not None:
        frame = Frame(context.function, context.kernel, context.arguments, prepared.scope, planned=prepared.planned)
        with _inside(
            (PREPARED, None), (SCOPE, prepared.scope), (RUNNING, frame), (RENDERING, None), (SITE, FrameSite(frame))
        ):
            await next(context)
        return
    deferral = DEFERRAL.get()
    if deferral is not None and deferral.concerns(context) and await deferral.take(context):
        return
    if not worth_reading(context.function) or obstacle(context.kernel) is not None:
        with _inside((RUNNING, None), (RENDERING, None), (SITE, None)):
            await next(context)
        return
    scope = PLANNER.new_scope(streaming=False)
    frame = Frame(context.function, context.kernel, context.arguments, scope, streams=context.is_streaming)
    PLANNER.plan(frame)
    try:
        with _inside((SCOPE, scope), (RUNNING, frame), (RENDERING, None), (SITE, FrameSite(frame))):
            await next(context)
    finally:
        scope.close()


async def _in_a_template(around: Frame, context: Any, next: Next) -> None:
    """A call in the template of the frame `around`."""
    frame = None
    site = None
    if type(context.function) is KernelFunctionFromPrompt:
        number = len(around.done)
        frame = Frame(context.function, context.kernel, context.arguments, around.scope, around)
        around.running = frame
        if number < len(around.planned.inner):
            frame.planned = around.planned.inner[number]
        else:
            PLANNER.plan(frame)
        site = FrameSite(frame)
    with _inside((RUNNING, frame), (RENDERING, None), (SITE, site)):
        await next(context)
    around.running = None
    around.done.append(context.result)


async def rendering_filter(context: Any, next: Next) -> None:
    frame = RUNNING.get()
    if frame is None or frame.function is not context.function:
        await next(context)
        return
    with _inside((RENDERING, frame)):
        await next(context)


@contextmanager
def _inside(*settings: tuple[ContextVar[Any], Any]) -> Iterator[None]:
    tokens = [(variable, variable.set(value)) for variable, value in settings]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


# How they are told from filters of the app.
function_filter.parrot = True  # type: ignore[attr-defined]
rendering_filter.parrot = True  # type: ignore[attr-defined]
