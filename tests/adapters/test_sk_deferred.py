"""Deferred invocations: the results of eager ones, in one round trip; nobody sees a result before it is there."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import pickle
from collections.abc import Iterator

import pydantic_core
import pytest
from live import LocalServer
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError
from semantic_kernel import Kernel
from semantic_kernel.exceptions import KernelInvokeException
from semantic_kernel.functions import FunctionResult, kernel_function
from sk_engine import SkEngine
from sk_pairs import parrot, raised, seen, stock

from semantic_parrot.adapters.semantic_kernel import PendingResult, Plan, deferred, lower
from semantic_parrot.core.errors import ResultPending
from semantic_parrot.core.runtime import Runtime


@pytest.fixture(scope="module")
def engine() -> SkEngine:
    return SkEngine()


@pytest.fixture(scope="module")
def server(engine) -> Iterator[LocalServer]:
    with LocalServer(Runtime([engine], disable={"single-flight"})) as running:
        yield running


class Native:
    @kernel_function
    def up(self, s: str) -> str:
        assert type(s) is str
        assert "\ue000" not in s
        return s.upper()

    @kernel_function
    def broken(self, s: str = "") -> str:
        raise ValueError("broken")


FUNCTIONS = {
    "d": "Draft {{$t}}",
    "r": "Rev {{$x}} of <message role='user'>{{$x}}</message>",
    "two": "Merge {{w.d $t}} / {{w.d 'y'}}",
    "over": "Again: {{$x}} {{w.d $x}}",
    "fails": "a {{nat.broken}} {{$x}}",
    "merge": "\n".join(f"{{{{$x{i}}}}}" for i in range(6)),
}


class App:
    """A kernel, and what it asks the server for."""

    def __init__(self, server, engine, service) -> None:
        self.kernel = Kernel()
        self.kernel.add_service(service)
        self.kernel.add_plugin(Native(), "nat")
        for name, prompt in FUNCTIONS.items():
            self.kernel.add_function(plugin_name="w", function_name=name, prompt=prompt)
        self._server, self._engine = server, engine
        self._before = server.requests(), len(engine.seen)

    def __call__(self, name, plugin="w", **arguments):
        return self.kernel.invoke(plugin_name=plugin, function_name=name, **arguments)

    @property
    def trips(self) -> int:
        return int(self._server.requests() - self._before[0])

    @property
    def executed(self) -> int:
        return len(self._engine.seen) - self._before[1]


@pytest.fixture
def app(server, engine) -> App:
    return App(server, engine, parrot(server.url))


@pytest.fixture
async def eager(server, engine):
    service = stock(server.url)
    yield App(server, engine, service)
    await service.client.close()


async def chain(app, text=str):
    first = await app("d", t="x & <y>")
    second = await app("r", x=text(first))
    return [first, second, await app("over", x=text(second))]


async def map_reduce(app, text=str):
    drafts = await asyncio.gather(*(app("d", t=str(i)) for i in range(6)))
    return [*drafts, await app("merge", **{f"x{i}": text(draft) for i, draft in enumerate(drafts)})]


async def nested(app, text=str):
    first = await app("two", t="x")
    return [first, await app("over", x=text(first))]


async def with_native(app, text=str):
    first = await app("d", t="x")
    loud = await app("up", "nat", s=text(first))
    return [first, loud, await app("r", x=text(loud))]


SHAPES = {"chain": (chain, 4, 1), "map-reduce": (map_reduce, 7, 1), "nested": (nested, 5, 1)}


@pytest.mark.parametrize("shape", SHAPES)
async def test_deferred_results_are_the_eager_ones_in_one_round_trip(shape, app, eager):
    work, trips, lowered = SHAPES[shape]
    expected = await work(eager)
    assert (eager.trips, eager.executed) == (trips, trips)
    app = App(app._server, app._engine, app.kernel.services["default"])
    async with deferred(app.kernel):
        found = await work(app, lambda result: result)
        assert all(isinstance(result, PendingResult) for result in found)
        assert app.trips == 0
    assert [seen(r.model_dump(exclude={"metadata"})) for r in found] == [
        seen(r.model_dump(exclude={"metadata"})) for r in expected
    ]
    assert [seen(r.metadata) for r in found] == [seen(r.metadata) for r in expected]
    assert (app.trips, app.executed) == (lowered, trips)


async def test_a_native_function_gets_the_text_once_it_is_there(app, eager):
    expected = [str(result) for result in await with_native(eager)]
    async with deferred(app.kernel):
        first = await app("d", t="x")
        loud = await app("up", "nat", s=first)
        assert type(loud) is FunctionResult
        last = await app("r", x=str(loud))
    assert [str(first), str(loud), str(last)] == expected


async def test_awaiting_a_result_runs_what_is_pending(app):
    async with deferred(app.kernel):
        first = await app("d", t="x")
        second = await app("r", x=first)
        text = str(await first)
        before = app.trips
        assert before == 1, "both were one program"
        assert text == str(first)
        assert str(second)
        third = await app("r", x=text)
    assert str(third) == str(second)
    assert app.trips == 2


async def test_plan_and_lower(app, eager):
    expected = [str(result) for result in await chain(eager)]
    plan = Plan()
    first = plan.call(app.kernel.plugins["w"]["d"], t="x & <y>")
    second = plan.call("w-r", x=first)
    plan.call("w-over", x=second)
    before = app.trips
    assert [str(result) for result in await lower(app.kernel, plan)] == expected
    assert app.trips - before == 1


READS = {
    "str": str,
    "repr": repr,
    "f-string": lambda r: f"{r}",
    "format": lambda r: format(r, ">10"),
    "%": lambda r: "%s" % r,  # noqa: UP031
    "join": lambda r: "".join(map(str, [r])),
    "value": lambda r: r.value,
    "rendered prompt": lambda r: r.rendered_prompt,
    "metadata": lambda r: r.metadata,
    "inner content": lambda r: r.get_inner_content(),
    "==": lambda r: r == r,
    "!=": lambda r: r != 1,
    "in": lambda r: r in [1],
    "hash": hash,
    "set": lambda r: {r},
    "bool": bool,
    "iteration": list,
    "dict": dict,
    "vars": vars,
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": pickle.dumps,
    "model_dump": lambda r: r.model_dump(),
    "model_dump_json": lambda r: r.model_dump_json(),
    "model_copy": lambda r: r.model_copy(),
    "json": lambda r: json.dumps(r, default=str),
    "pydantic": lambda r: TypeAdapter(FunctionResult).dump_python(r),
    "pydantic json": pydantic_core.to_json,
    "logging": lambda r: logging.LogRecord("n", 10, "p", 1, "%s", (r,), None).getMessage(),
}


@pytest.mark.parametrize("read", READS)
async def test_reading_a_pending_result_raises(read, app):
    async with deferred(app.kernel):
        line = inspect.currentframe().f_lineno - 1
        result = await app("d", t="x")
        with pytest.raises(
            (ResultPending, PydanticSerializationError), match=rf"w-d.*test_sk_deferred\.py:{line}.*await"
        ):
            READS[read](result)
    assert str(result)
    assert result == result
    assert pickle.loads(pickle.dumps(result.value[0].content)) == str(result)


async def test_a_block_that_is_left_by_an_exception_runs_nothing(app):
    results = []

    async def leave():
        async with deferred(app.kernel):
            results.append(await app("d", t="x"))
            raise KeyError

    with pytest.raises(KeyError):
        await leave()
    (result,) = results
    assert app.trips == 0
    with pytest.raises(ResultPending, match="left by an exception"):
        str(result)


async def test_what_fails_raises_as_eager_when_the_block_is_left(app, eager):
    with pytest.raises(KernelInvokeException) as expected:
        await eager("fails", x=str(await eager("d", t="x")))
    block = deferred(app.kernel)
    await block.__aenter__()
    first = await app("d", t="x")
    second = await app("fails", x=first)
    third = await app("r", x=second)
    with pytest.raises(KernelInvokeException) as found:
        await block.__aexit__(None, None, None)
    assert raised(found.value) == raised(expected.value)
    assert str(first), "what did not fail is there"
    for result in (second, third):
        with pytest.raises(ResultPending):
            str(result)


async def test_a_filter_of_the_app_makes_it_eager(app):
    seen_by_filter = []

    async def own(context, next):
        await next(context)
        seen_by_filter.append(str(context.result))

    app.kernel.add_filter("function_invocation", own)
    async with deferred(app.kernel):
        first = await app("d", t="x")
        assert seen_by_filter == [str(first)]
    assert app.trips == 1


async def test_debug_logs_make_it_eager(app, caplog):
    with caplog.at_level(logging.DEBUG, "semantic_kernel.functions.kernel_function"):
        async with deferred(app.kernel):
            assert str(await app("d", t="x"))


async def test_blocks_of_two_kernels(server, engine, app):
    other = App(server, engine, parrot(server.url))
    async with deferred(app.kernel):
        first = await app("d", t="x")
        async with deferred(other.kernel):
            second = await other("r", x=first)
    assert str(second)
    assert str(first)


async def test_stock_calls_beside_a_block_are_as_always(app, eager):
    async with deferred(app.kernel):
        await app("d", t="x")
        assert str(await eager("d", t="x"))


async def test_what_failed_while_something_else_was_awaited_is_raised_when_the_block_ends(app):
    async def block():
        async with deferred(app.kernel):
            await app("fails", x="1")
            assert str(await (await app("d", t="x")))

    with pytest.raises(KernelInvokeException, match="w-fails"):
        await block()


async def test_an_error_that_was_awaited_is_not_raised_again(app):
    async with deferred(app.kernel):
        first = await app("fails", x="1")
        with pytest.raises(KernelInvokeException, match="w-fails"):
            await first
        second = await app("d", t="x")
    assert str(second)
