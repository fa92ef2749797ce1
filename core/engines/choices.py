"""Several choices of one request: each an answer of its own, told as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.request import ModelRequest

Items = AsyncGenerator[Delta | Done, None]


async def answer(request: ModelRequest, one: Callable[[ModelRequest], Items]) -> Items:
    """The answer to `request`, of which `one` makes one choice. They run together, so that the first fills the prompt
    for all; greedy ones are equal, and made once. The first failure ends them all."""
    wanted = request.sampling.choices()
    if len(wanted) == 1:
        run = one(request)
    elif request.sampling.temperature == 0:
        run = _repeated(one(replace(request, sampling=wanted[0])), len(wanted))
    else:
        run = _together([one(replace(request, sampling=sampling)) for sampling in wanted])
    async with aclosing(run):
        async for item in run:
            yield item


async def _repeated(items: Items, times: int) -> Items:
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Done):
                usage = replace(item.usage, completion=times * item.usage.completion)
                yield replace(item, usage=usage, others=item.choices * (times - 1))
                continue
            usage_so_far = item.usage and replace(item.usage, completion=times * item.usage.completion)
            for index in range(times):
                yield replace(item, index=index, usage=usage_so_far)


async def _together(runs: Sequence[Items]) -> Items:
    queue: asyncio.Queue[tuple[int, Delta | Done | Exception]] = asyncio.Queue()

    async def pump(index: int, items: Items) -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    queue.put_nowait((index, item))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(index, items)) for index, items in enumerate(runs)]
    used: dict[int, Usage] = {}
    done: dict[int, Done] = {}
    try:
        while len(done) < len(runs):
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item.usage is not None:
                used[index] = item.usage
            if isinstance(item, Done):
                done[index] = item
            else:
                yield replace(item, index=index, usage=_sum(used))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    others = tuple(d.choices[0] for _, d in sorted(done.items()) if d is not done[0])
    usage = _sum(used)
    assert usage is not None
    decode = max(d.timings.prefill + d.timings.decode for d in done.values()) - done[0].timings.prefill
    timings = done[0].timings.model_copy(update={"decode": max(decode, 0.0)})
    yield replace(done[0], usage=usage, timings=timings, others=others)


def _sum(used: dict[int, Usage]) -> Usage | None:
    """Of all choices; known once the first one's is, which tells what had to be computed of the prompt."""
    if 0 not in used:
        return None
    return replace(used[0], completion=sum(u.completion for u in used.values()))
