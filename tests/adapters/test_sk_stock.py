"""Case by case: what an app sees of ParrotChatCompletion is what it sees of the stock OpenAIChatCompletion."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from live import LocalServer
from pydantic import BaseModel
from scripted import text_of
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai import PromptExecutionSettings
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings, OpenAITextPromptExecutionSettings
from semantic_kernel.contents import ChatHistory, ChatMessageContent, ImageContent, TextContent
from semantic_kernel.functions import KernelArguments, kernel_function
from sk_engine import SkEngine
from sk_pairs import outcome, parrot, parrot_text, stock, stock_text

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion, ParrotTextCompletion
from semantic_parrot.core.errors import ContextOverflow
from semantic_parrot.core.runtime import Runtime

Settings = OpenAIChatPromptExecutionSettings


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    def too_long(request):
        words = len(text_of(request).split()) + (request.sampling.max_tokens or 0)
        return ContextOverflow(f"{words} words") if words > 4096 else None

    with LocalServer(Runtime([SkEngine(fail=too_long)], disable={"single-flight"})) as running:
        yield running


class Sums:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    @kernel_function(description="Add.")
    def add(self, a: int, b: int) -> int:
        self.calls.append((a, b))
        return int(a) + int(b)

    @kernel_function
    def broken(self, a: int = 0) -> int:
        raise ValueError(f"no {a}")


def history(*extra) -> ChatHistory:
    found = ChatHistory(system_message="Be short.")
    found.add_user_message("What is <b>1</b> & 2?")
    for message in extra:
        found.add_message(message)
    return found


def kernel(service, **functions) -> Kernel:
    found = Kernel()
    found.add_service(service)
    found.add_plugin(Sums(), "sums")
    for name, prompt in functions.items():
        found.add_function(plugin_name="w", function_name=name, prompt=prompt)
    return found


async def whole(service, settings=None, given=None, **kwargs):
    return await service.get_chat_message_contents(given or history(), settings or Settings(), **kwargs)


async def pieces(service, settings=None, given=None, **kwargs):
    stream = service.get_streaming_chat_message_contents(given or history(), settings or Settings(), **kwargs)
    return [chunk async for chunk in stream]


def auto(choice="auto", **more):
    filters = {"included_functions": ["sums-add"]}
    behavior = {"auto": FunctionChoiceBehavior.Auto, "required": FunctionChoiceBehavior.Required}[choice]
    return Settings(function_choice_behavior=behavior(filters=filters, **more))


async def with_tools(service, call=whole, **more):
    app = kernel(service)
    asked = history()
    answer = await call(service, auto(**more), asked, kernel=app, arguments=KernelArguments())
    return answer, asked, app.plugins["sums"]["add"].metadata


async def function(service, prompt="Say {{$x}}", name="f", **arguments):
    return await kernel(service, f=prompt).invoke(plugin_name="w", function_name=name, **arguments)


async def function_stream(service, **arguments):
    app = kernel(service, f="Say {{$x}}")
    stream = app.invoke_stream(plugin_name="w", function_name="f", return_function_results=True, **arguments)
    return [chunk async for chunk in stream]


async def counted(service):
    await whole(service)
    await whole(service)
    return service.prompt_tokens, service.completion_tokens, service.total_tokens


async def agent(service, tools=False):
    found = ChatCompletionAgent(
        service=service,
        name="Poet",
        instructions="You rhyme & <draft>.",
        plugins=[Sums()] if tools else [],
        function_choice_behavior=FunctionChoiceBehavior.Auto() if tools else None,
    )
    first = await found.get_response("one")
    second = await found.get_response("two", thread=first.thread)
    return first.message, second.message, [m async for m in second.thread.get_messages()]


async def dictionary(service):
    found = service.to_dict()
    return sorted(found), found["ai_model_id"], found["instruction_role"], found["default_headers"]["Accept"]


class Answer(BaseModel):
    text: str


class Odd:
    """No settings at all."""


BOB = ChatMessageContent(role="assistant", content="3", name="bob")
IMAGE = ImageContent(uri="https://example.org/a.png")
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}

CASES: dict[str, Callable] = {
    "whole": whole,
    "streamed": pieces,
    "one message": lambda s: s.get_chat_message_content(history(), Settings()),
    "settings": lambda s: whole(s, Settings(temperature=0.5, max_tokens=2, seed=3, stop=["x"], top_p=0.9)),
    "settings, streamed": lambda s: pieces(s, Settings(temperature=0, max_tokens=2, user="me", metadata={"a": "b"})),
    "general settings": lambda s: whole(s, PromptExecutionSettings(max_tokens=1, extension_data={"temperature": 0})),
    "three answers": lambda s: whole(s, Settings(number_of_responses=3)),
    "three answers, streamed": lambda s: pieces(s, Settings(number_of_responses=3)),
    "log-probabilities": lambda s: whole(s, Settings(extra_body={"logprobs": True})),
    "JSON object": lambda s: whole(s, Settings(response_format={"type": "json_object"})),
    "JSON schema": lambda s: whole(s, Settings(response_format=JSON_SCHEMA)),
    "Pydantic": lambda s: whole(s, Settings(response_format=Answer)),
    "class": lambda s: whole(s, Settings(response_format=Odd)),
    "roles": lambda s: whole(s, None, history(BOB, ChatMessageContent(role="developer", content="x"))),
    "image": lambda s: whole(s, None, history(ChatMessageContent(role="user", items=[TextContent(text="see"), IMAGE]))),
    "empty history": lambda s: whole(s, None, ChatHistory()),
    "tools": with_tools,
    "tools, streamed": lambda s: with_tools(s, pieces),
    "tools, required": lambda s: with_tools(s, choice="required"),
    "tools, not invoked": lambda s: with_tools(s, auto_invoke=False),
    "tools, no kernel": lambda s: whole(s, auto()),
    "tools, three answers": lambda s: whole(
        s, Settings(number_of_responses=2, function_choice_behavior=FunctionChoiceBehavior.Auto()), kernel=Kernel()
    ),
    "usage": counted,
    "function": lambda s: function(s, x="a & <b>"),
    "function, streamed": lambda s: function_stream(s, x="a & <b>"),
    "function, no argument": function,
    "function, messages": lambda s: function(s, "<message role='system'>{{$x}}</message>hi", x="<i>"),
    "function, unknown role": lambda s: function(s, "<message role='king'>x</message>"),
    "function, markup": lambda s: function(s, "<p>Hi {{$x}}</p> <b>you</b>", x="&amp;"),
    "function, unknown child": lambda s: function(s, "{{w.none}}"),
    "function, child that raises": lambda s: function(s, "a {{sums.broken 3}}"),
    "function, child": lambda s: function(s, "a {{w.f}}", name="nowhere"),
    "function, complex argument": lambda s: function(s, x={"a": 1}),
    "function, result as argument": lambda s: function(s, x=object),
    "prompt": lambda s: kernel(s).invoke_prompt("Say {{$x}}", function_name="p", x=1),
    "empty prompt": lambda s: kernel(s).invoke_prompt(""),
    "bad template": lambda s: kernel(s).invoke_prompt("{{$x", function_name="p"),
    "bad block": lambda s: kernel(s).invoke_prompt("{{a b c}}", function_name="p"),
    "agent": agent,
    "agent with tools": lambda s: agent(s, tools=True),
    "as a dictionary": dictionary,
    # What goes wrong.
    "unknown model": lambda s: whole(s, Settings(ai_model_id="nobody")),
    "unknown model, streamed": lambda s: pieces(s, Settings(ai_model_id="nobody")),
    "unknown model, function": lambda s: kernel(s).invoke_prompt(
        "x", function_name="p", arguments=KernelArguments(settings=Settings(ai_model_id="nobody"))
    ),
    "too long": lambda s: whole(s, None, history(ChatMessageContent(role="user", content="a " * 5000))),
    "too much asked for": lambda s: whole(s, Settings(max_tokens=100_000)),
    "refused field": lambda s: whole(s, Settings(extra_body={"nonsense": 1})),
    "wrong field": lambda s: whole(s, Settings(logit_bias={"a": 1})),
    "NaN": lambda s: whole(s, Settings(extra_body={"temperature": float("nan")})),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_the_same_as_the_stock_service(case, server):
    expected = await outcome(stock(server.url), CASES[case])
    found = await outcome(parrot(server.url), CASES[case])
    assert found == expected


TEXT: dict[str, Callable] = {
    "whole": lambda s, k: s.get_text_contents("Say & <b>", OpenAITextPromptExecutionSettings(max_tokens=2)),
    "logprobs": lambda s, k: s.get_text_contents("Say", OpenAITextPromptExecutionSettings(logprobs=2)),
    "two": lambda s, k: s.get_text_contents("Say", OpenAITextPromptExecutionSettings(number_of_responses=2)),
    "function": lambda s, k: k.invoke_prompt("Say {{$x}} <b>", function_name="p", x="&amp; <i>"),
    "refused": lambda s, k: s.get_text_contents("Say", OpenAITextPromptExecutionSettings(suffix="x")),
    "unknown model": lambda s, k: s.get_text_contents("Say", OpenAITextPromptExecutionSettings(ai_model_id="nobody")),
}


@pytest.mark.parametrize("case", TEXT)
async def test_text_completion_is_the_stock_one(case, server):
    services = stock_text(server.url), parrot_text(server.url)
    expected, found = [await outcome(s, lambda s: TEXT[case](s, kernel(s))) for s in services]
    assert found == expected


async def test_streamed_text_is_the_stock_one(server):
    async def read(service):
        return [c async for c in service.get_streaming_text_contents("Say it", OpenAITextPromptExecutionSettings())]

    expected, found = await outcome(stock_text(server.url), read), await outcome(parrot_text(server.url), read)
    assert found == expected
    assert len(found) > 3


def test_the_cases_are_no_mere_errors(server):
    """Else the comparison above could hold for the wrong reason."""
    failing = []
    for case in CASES:
        found = asyncio.run(outcome(parrot(server.url), CASES[case]))
        if isinstance(found, list) and found and isinstance(found[0], tuple) and "Exception" in found[0][0]:
            failing.append(case)
    wrong = list(CASES)[list(CASES).index("unknown model") :]
    assert set(wrong) <= set(failing)
    assert len(failing) < 30


class Garbage:
    """A server that answers each connection with the same bytes, and closes it."""

    def __init__(self, answer: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as request:
                # All of it: with bytes unread, closing would reset the connection.
                length = 0
                while (line := request.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                request.read(length)
                connection.sendall(self._answer)

    def __enter__(self) -> Garbage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


def response(status: str, kind: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}".encode()


def refusal(status: str, code: str) -> bytes:
    return response(status, "application/json", json.dumps({"error": {"message": "no", "code": code}}))


def stream(text: str) -> bytes:
    return response("200 OK", "text/event-stream", f"data: {text}\n\n")


WIRE = {
    "wrong key": refusal("401 Unauthorized", "invalid_api_key"),
    "filtered": refusal("400 Bad Request", "content_filter"),
    "overflow": refusal("400 Bad Request", "context_length_exceeded"),
    "bare 500": response("500 Internal Server Error", "text/plain", "oops"),
    "no JSON": response("200 OK", "application/json", "<html>"),
    "broken stream": stream('{"choices": [{"index": 0, "delta": {"content": "a"}'),
    "error in a stream": stream('{"error": {"message": "gone"}}'),
    "nothing": b"",
}


@pytest.mark.parametrize("call", [whole, pieces, function], ids=lambda call: call.__name__)
@pytest.mark.parametrize("case", WIRE)
async def test_what_servers_do_wrong_looks_the_same(case, call):
    with Garbage(WIRE[case]) as server:
        expected = await outcome(stock(server.url), call)
        found = await outcome(parrot(server.url), call)
    assert found == expected


async def test_a_server_that_is_not_there_looks_the_same():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    assert await outcome(parrot(url), whole) == await outcome(stock(url), whole)


def test_no_variable_of_openai_is_read(monkeypatch, server):
    for name in ("API_KEY", "ORG_ID", "BASE_URL", "PROJECT_ID", "CHAT_MODEL_ID", "TEXT_MODEL_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "http://wrong.example/secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-secret: 1")
    for service in (ParrotChatCompletion(base_url=server.url), ParrotTextCompletion(base_url=server.url)):
        assert service.ai_model_id == "default"
        shown = f"{service.client.base_url} {service.client.organization} {service.client.default_headers}"
        assert "wrong" not in shown
        assert "secret" not in shown
    assert ParrotChatCompletion().client.base_url == "http://127.0.0.1:8765/v1/"


def test_what_is_set_for_parrot_is_used(monkeypatch):
    monkeypatch.setenv("PARROT_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("PARROT_MODEL", "small")
    monkeypatch.setenv("PARROT_API_KEY", "k")
    service = ParrotChatCompletion()
    assert (str(service.client.base_url), service.ai_model_id, service.client.api_key) == (
        "http://127.0.0.1:1/v1/",
        "small",
        "k",
    )
