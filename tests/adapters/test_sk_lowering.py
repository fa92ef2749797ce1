"""Nested templates: the results of eager runs, in the round trips that are promised."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live import LocalServer
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings
from semantic_kernel.functions import KernelArguments, kernel_function
from semantic_kernel.services.ai_service_selector import AIServiceSelector
from sk_engine import SkEngine
from sk_pairs import outcome, parrot, parrot_text, raised, seen, stock, stock_text

from semantic_parrot.adapters.planning import disabled
from semantic_parrot.adapters.semantic_kernel import ParrotChatPromptExecutionSettings, explain
from semantic_parrot.adapters.semantic_kernel.filters import attach
from semantic_parrot.core.runtime import Runtime


@pytest.fixture(scope="module")
def engine() -> SkEngine:
    return SkEngine()


@pytest.fixture(scope="module")
def server(engine) -> Iterator[LocalServer]:
    with LocalServer(Runtime([engine], disable={"single-flight"})) as running:
        yield running


class Native:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    @kernel_function
    def up(self, s: str = "") -> str:
        assert type(s) is str
        assert "\ue000" not in s
        self.calls.append(s)
        return s.upper()

    @kernel_function
    def add(self, a: int, b: int) -> int:
        self.calls.append((a, b))
        return int(a) + int(b)

    @kernel_function
    def broken(self, s: str = "") -> str:
        raise ValueError("broken")


AUTO = OpenAIChatPromptExecutionSettings(
    function_choice_behavior=FunctionChoiceBehavior.Auto(filters={"included_functions": ["nat-add"]})
)
FUNCTIONS = {
    "d": "Draft {{$t}}",
    "c": "Crit {{$t}}",
    "two": "Merge {{w.d $t}} / {{w.c $t}}",
    "deep": "Final {{w.two $t}}",
    "native": "{{nat.up s=$t}} {{w.d $t}}",
    "between": "{{w.d $t}} {{nat.up s=$t}} {{w.c $t}}",
    "inner_native": "{{nat.up s=$t}}",
    "after_native": "{{w.inner_native}} {{w.d}}",
    "messages": "<message role='system'>{{w.d $t}}</message>{{w.c $t}}",
    "spaced": '  {{w.d}}  \n <message role="user">  {{w.c}}  </message> {{w.two}} \n',
    "text": "AT&T {{w.d}} & {{w.c}}",
    "same": "{{w.d}} {{w.d}}",
    "attribute": "<message role='user' name='{{w.d}}'>x</message>",
    "markup": "<p>{{w.d}}</p> {{w.c}}",
    "value": "{{'v'}} {{w.d 'lit'}} {{w.c t='a&<b>'}}",
    "broken": "{{w.d}} {{nat.broken}} {{w.c}}",
    "unknown": "{{w.d}} {{w.nobody}} {{w.c}}",
    "endless": "{{w.d}} {{w.endless}}",
}
JINJA = {
    "jinja": "J {{ w_d(t=t) }} {{ w_c(t='lit') }}",
    "jinja_if": "J {% if w_d(t=t) %}{{ w_c(t=t) }}{% endif %}",
    "jinja_filter": "J {{ w_two() | upper }}",
}


def build(service, *, ours: bool, prepare=None) -> tuple[Kernel, Native]:
    kernel, native = Kernel(), Native()
    kernel.add_service(service)
    kernel.add_plugin(native, "nat")
    for name, prompt in FUNCTIONS.items():
        kernel.add_function(plugin_name="w", function_name=name, prompt=prompt)
    for name, prompt in JINJA.items():
        kernel.add_function(plugin_name="w", function_name=name, prompt=prompt, template_format="jinja2")
    add = kernel.add_function
    add(plugin_name="w", function_name="tools", prompt="Merge {{w.d $t}} {{w.c $t}}", prompt_execution_settings=AUTO)
    add(plugin_name="w", function_name="child_tools", prompt="X {{w.tools $t}} {{w.d $t}} {{w.c $t}}")
    if ours:
        attach(kernel)
    if prepare is not None:
        prepare(kernel)
    return kernel, native


@dataclass(frozen=True)
class Seen:
    result: Any
    native: Any
    trips: int
    executed: int


async def observe(
    server, engine, service, work: Callable[[Kernel], Awaitable[Any]], *, ours: bool, prepare=None
) -> Seen:
    kernel, native = build(service, ours=ours, prepare=prepare)
    trips, executed = server.requests(), len(engine.seen)
    try:
        result = seen(await work(kernel))
    except Exception as error:
        result = raised(error)
    finally:
        await service.client.close()
    return Seen(result, native.calls, int(server.requests() - trips), len(engine.seen) - executed)


async def both(server, engine, work, prepare=None) -> tuple[Seen, Seen]:
    return (
        await observe(server, engine, stock(server.url), work, ours=False, prepare=prepare),
        await observe(server, engine, parrot(server.url), work, ours=True, prepare=prepare),
    )


def invoke(name, **arguments):
    return lambda kernel: kernel.invoke(plugin_name="w", function_name=name, **({"t": "x & <y>"} | arguments))


def stream(name):
    async def read(kernel):
        return "".join([str(c[0]) async for c in kernel.invoke_stream(plugin_name="w", function_name=name, t="x")])

    return read


def prompt(text, format="semantic-kernel"):
    return lambda kernel: kernel.invoke_prompt(text, function_name="p", template_format=format, t="x")


async def gather(kernel):
    import asyncio

    return await asyncio.gather(*(invoke("two", t=str(i))(kernel) for i in range(4)))


TRIPS: dict[str, tuple[Any, int, int]] = {
    "one function": (invoke("d"), 1, 1),
    "two children": (invoke("two"), 3, 1),
    "three deep": (invoke("deep"), 4, 1),
    "a native function first": (invoke("native"), 2, 1),
    "a native function between": (invoke("between"), 3, 2),
    "a native function in a child": (invoke("after_native"), 3, 1),
    "messages": (invoke("messages"), 3, 1),
    "white space": (invoke("spaced"), 6, 1),
    "no XML": (invoke("text"), 3, 1),
    "the same child twice": (invoke("same"), 3, 1),
    "literals": (invoke("value"), 3, 1),
    "Jinja2": (invoke("jinja"), 3, 1),
    "Jinja2, control flow": (invoke("jinja_if"), 3, 3),
    "Jinja2, a filter": (invoke("jinja_filter"), 4, 2),
    "streamed": (stream("two"), 3, 2),
    "tools": (invoke("tools"), 4, 3),
    "tools, streamed": (stream("tools"), 4, 3),
    "a child with tools": (invoke("child_tools"), 7, 4),
    "a value in an attribute": (invoke("attribute"), 2, 2),
    "markup": (invoke("markup"), 3, 2),
    "a prompt": (prompt("Merge {{w.d $t}} / {{w.c $t}}"), 3, 1),
    "at the same time": (gather, 12, 4),
    "a control character": (invoke("two", t="\x0b"), 3, 1),
    "a native function raises": (invoke("broken"), 1, 1),
    "an unknown function": (invoke("unknown"), 1, 1),
}


@pytest.mark.parametrize("case", TRIPS)
async def test_the_results_of_eager_in_the_promised_round_trips(case, server, engine):
    work, eager_trips, lowered_trips = TRIPS[case]
    eager, lowered = await both(server, engine, work)
    assert lowered.result == eager.result
    assert lowered.native == eager.native
    assert (eager.trips, lowered.trips) == (eager_trips, lowered_trips)
    assert lowered.executed == eager.executed, "a call was executed twice, or for nothing"


#: Of a text completion the whole prompt is one text, whatever tags are in it.
TEXT = {name: case for name, case in TRIPS.items() if "tools" not in name} | {
    "a value in an attribute": (invoke("attribute"), 2, 1),
    "markup": (invoke("markup"), 3, 1),
}


@pytest.mark.parametrize("case", TEXT)
async def test_text_completions_are_planned_too(case, server, engine):
    work, eager_trips, lowered_trips = TEXT[case]
    eager = await observe(server, engine, stock_text(server.url), work, ours=False)
    lowered = await observe(server, engine, parrot_text(server.url), work, ours=True)
    assert lowered.result == eager.result
    assert lowered.native == eager.native
    assert (eager.trips, lowered.trips) == (eager_trips, lowered_trips)
    assert lowered.executed == eager.executed


FAILING = ("endless", "broken", "unknown", "attribute")


@pytest.mark.parametrize("name", [name for name in (*FUNCTIONS, "jinja") if name not in FAILING])
async def test_explain_expects_the_round_trips_that_are_made(name, server, engine):
    kernel, native = build(parrot(server.url), ours=True)
    before = server.requests()
    explained = explain(kernel, kernel.plugins["w"][name], KernelArguments(t="x"))
    assert server.requests() == before, "explaining runs nothing"
    assert not native.calls
    await invoke(name, t="x")(kernel)
    assert explained.round_trips == server.requests() - before


def test_explain_names_cuts_and_their_reasons(server):
    kernel, _ = build(parrot(server.url), ours=True)
    found = explain(kernel, kernel.plugins["w"]["between"], KernelArguments(t="x"))
    assert [(cut.name, cut.reason) for cut in found.cuts] == [("nat-up", "it is code of the app")]
    assert found.cuts[0].source.file == __file__
    assert [piece.name for piece in found.root.children] == ["w-d", "nat-up", "w-c"]
    assert "makes text0" in str(found)
    assert "w-c: planned when its input is known" in str(found)
    tools = explain(kernel, kernel.plugins["w"]["tools"], KernelArguments(t="x"))
    assert [(cut.name, cut.reason) for cut in tools.cuts] == [("w-tools", "its model may call functions")]
    assert "2 planned calls, 2 round trips" in str(tools)
    own_selector(kernel)
    eager = explain(kernel, kernel.plugins["w"]["two"], KernelArguments(t="x"))
    assert eager.round_trips == 3
    assert "selects services in a way of its own" in str(eager)


async def test_a_function_that_calls_itself_fails_as_it_does(server, engine):
    with pytest.raises(Exception):  # noqa: B017, PT011 (what a stack that overflows makes of it)
        await build(parrot(server.url), ours=True)[0].invoke(plugin_name="w", function_name="endless", t="x")


def user_filter(kind):
    def prepare(kernel):
        async def own(context, next):
            await next(context)

        kernel.add_filter(kind, own)

    return prepare


def own_selector(kernel):
    class Own(AIServiceSelector):
        pass

    kernel.ai_service_selector = Own()


def masked(kernel):
    async def mask(context, next):
        await next(context)
        context.rendered_prompt = context.rendered_prompt.replace("x", "[x]")

    kernel.add_filter("prompt_rendering", mask)


@pytest.mark.parametrize(
    "prepare", [user_filter("function_invocation"), user_filter("prompt_rendering"), masked, own_selector]
)
async def test_what_the_app_does_itself_stays_eager(prepare, server, engine):
    eager, lowered = await both(server, engine, invoke("two"), prepare)
    assert lowered == eager
    assert lowered.trips == 3


async def test_planning_can_be_switched_off(server, engine, monkeypatch):
    with disabled():
        assert (await observe(server, engine, parrot(server.url), invoke("two"), ours=True)).trips == 3
    monkeypatch.setenv("PARROT_DISABLE", "1")
    assert (await observe(server, engine, parrot(server.url), invoke("two"), ours=True)).trips == 3


async def test_settings_of_arguments_and_functions_are_those_of_eager(server, engine):
    def work(kernel):
        own = OpenAIChatPromptExecutionSettings(service_id="default", max_tokens=2, temperature=0)
        kernel.add_function(plugin_name="w", function_name="set", prompt="S {{w.d}}", prompt_execution_settings=own)
        arguments = KernelArguments(settings=OpenAIChatPromptExecutionSettings(service_id="other", max_tokens=1), t="x")
        return kernel.invoke_prompt("A {{w.set}} {{w.d}} {{w.c}}", function_name="p", arguments=arguments)

    eager, lowered = await both(server, engine, work)
    assert lowered.result == eager.result
    assert (eager.trips, lowered.trips, lowered.executed) == (5, 1, 5)


async def test_hints_of_the_outer_function_are_the_programs(server, engine):
    hints = ParrotChatPromptExecutionSettings(objective="throughput", priority=7, deadline_ms=60_000)

    def work(kernel):
        arguments = KernelArguments(t="x")
        kernel.add_function(plugin_name="w", function_name="h", prompt="{{w.d}}", prompt_execution_settings=hints)
        return kernel.invoke(plugin_name="w", function_name="h", arguments=arguments)

    first = len(engine.directed)
    lowered = await observe(server, engine, parrot(server.url), work, ours=True)
    assert lowered.trips == 1
    assert len(engine.directed[first:]) == 2


async def test_two_services_of_two_servers_are_two_plans(server, engine):
    with LocalServer(Runtime([SkEngine()], disable={"single-flight"})) as other:

        def second(kernel):
            service = parrot(other.url, service_id="other")
            kernel.add_service(service)
            for name in ("e", "f"):
                settings = OpenAIChatPromptExecutionSettings(service_id="other")
                kernel.add_function(
                    plugin_name="w", function_name=name, prompt=f"{name} {{{{$t}}}}", prompt_execution_settings=settings
                )

        lowered = await observe(
            server, engine, parrot(server.url), prompt("{{w.e}} {{w.f}} {{w.d}}"), ours=True, prepare=second
        )
        assert other.requests() == 1, "its two calls are one program"
    assert lowered.trips == 1, "the answers of the other server are known by then"


async def test_a_server_without_runs_gets_ordinary_requests(server, engine, hostile):
    eager = await observe(server, engine, stock(server.url), invoke("deep"), ours=False)
    for _ in range(12):
        found = await outcome(parrot(hostile.url), lambda s: invoke("deep")(build(s, ours=True)[0]))
        assert found == eager.result
    assert hostile.faults["abort"] > 3
    assert hostile.faults["garbage"] > 3


SCRIPT = Path(__file__).parent / "helpers" / "sk_fuzz.py"


def test_random_apps_are_as_with_the_stock_service():
    """In a process of its own: Handlebars prompts change asyncio for the whole process."""
    import os

    count = os.environ.get("PARROT_FUZZ_APPS", "60")
    command = [sys.executable, str(SCRIPT), os.environ.get("PARROT_FUZZ_FIRST", "0"), count]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert not found["differences"]
    assert found["error"] is None
    assert found["totals"]["apps"] > int(count) * 0.7
    assert found["claimed"] > found["totals"]["apps"] / 5
