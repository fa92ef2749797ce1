"""Trouble of every kind: the exception that ChatOpenAI raises, with the server's message, planned or not."""

from __future__ import annotations

import socket
from collections.abc import Callable

import openai
import pytest
from langchain_openai import ChatOpenAI
from lc_shapes import P, step
from plain_server import PlainServer, chat_completion

from semantic_parrot.adapters.langchain import ChatParrot
from semantic_parrot.adapters.replay import to_json


def error(status, message, **headers):
    body = to_json({"error": {"message": message, "type": "t", "param": None, "code": "some_code"}})
    return status, headers, body


def cut_short(body):
    """Half an answer, then the end of the connection."""
    if not body.get("stream"):
        return 200, {"content-length": "1000"}, to_json(chat_completion(message={"role": "assistant"}))[:30]
    block = b"data: " + to_json(chat_completion(delta={"role": "assistant", "content": "Hel"})) + b"\n\n"
    return 200, {"content-length": "1000"}, block


def garbage(body):
    return b"data: {no JSON\n\n" if body.get("stream") else b"{no JSON"


#: What the server does, and the class that ChatOpenAI raises for it, whole and in a stream.
TROUBLE: dict[str, tuple[Callable, str, str]] = {
    "wrong key": (lambda _: error(401, "no such key"), "AuthenticationError", "AuthenticationError"),
    "no right": (lambda _: error(403, "not yours"), "PermissionDeniedError", "PermissionDeniedError"),
    "rate limit": (lambda _: error(429, "too fast"), "RateLimitError", "RateLimitError"),
    "server error": (lambda _: error(500, "a bug here"), "InternalServerError", "InternalServerError"),
    "not ready": (lambda _: error(503, "no engine"), "InternalServerError", "InternalServerError"),
    "an error that is no JSON": (lambda _: (502, {}, b"<html>"), "InternalServerError", "InternalServerError"),
    "garbage": (garbage, "JSONDecodeError", "JSONDecodeError"),
    "cut short": (cut_short, "APIConnectionError", "APIConnectionError or RemoteProtocolError"),
    "an error for an answer": (lambda _: to_json({"error": {"message": "why"}}), "ValueError", "ValueError"),
}


def raised(work):
    with pytest.raises(Exception) as failed:  # noqa: PT011 (which one is what is compared)
        work()
    kinds = [kind.__name__ for kind in type(failed.value).__mro__]
    return kinds, str(failed.value), getattr(failed.value, "status_code", None)


def models(url, **settings):
    settings |= {"base_url": url, "max_retries": 0}
    return ChatOpenAI(api_key="k", model="default", **settings), ChatParrot(api_key="k", **settings)


def single(llm):
    return llm, "x"


def chain(llm):
    return step("A {x}", llm) | P("B {y}") | llm, {"x": "1"}


APPS = {"a call": single, "a chain": chain}
WAYS = {
    "invoke": lambda app, given: app.invoke(given),
    "stream": lambda app, given: list(app.stream(given)),
}


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_is_raised_as_by_chat_openai(trouble, way, app):
    answer, whole, streamed = TROUBLE[trouble]
    with PlainServer(answer) as plain:
        theirs, ours = (raised(lambda llm=llm: WAYS[way](*APPS[app](llm))) for llm in models(plain.url))
    assert set((whole if way == "invoke" else streamed).split(" or ")) & set(theirs[0])
    assert ours == theirs


@pytest.mark.parametrize("app", APPS)
async def test_trouble_of_asynchronous_calls(app):
    with PlainServer(lambda _: error(429, "too fast")) as plain:
        for llm in models(plain.url):
            chain, given = APPS[app](llm)
            with pytest.raises(Exception, match="too fast") as failed:
                await chain.ainvoke(given)
            assert isinstance(failed.value, openai.RateLimitError)


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("way", WAYS)
def test_an_unreachable_server(way, app):
    with socket.socket() as taken:  # bound, and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        theirs, ours = (raised(lambda llm=llm: WAYS[way](*APPS[app](llm))) for llm in models(url))
    assert "APIConnectionError" in theirs[0]
    assert ours == theirs


@pytest.mark.parametrize("app", APPS)
def test_a_request_is_repeated_as_often_as_configured(app, monkeypatch):
    failures = 2
    for llm in range(2):
        tried = []

        def flaky(body, tried=tried):
            tried.append(body)
            if len(tried) <= failures:
                return error(429, "too fast", **{"retry-after-ms": "1"})
            return to_json(chat_completion(message={"role": "assistant", "content": "hi"}))

        with PlainServer(flaky) as plain:
            runnable, given = APPS[app](models(plain.url)[llm].model_copy(update={"max_retries": 9}))
            with pytest.raises(Exception, match="too fast"):
                runnable.invoke(given)
            assert len(tried) == 1
            tried.clear()
            settings = {"base_url": plain.url, "max_retries": 2, "api_key": "k"}
            again = (ChatOpenAI, ChatParrot)[llm](**settings)
            runnable, given = APPS[app](again)
            answer = runnable.invoke(given)
            assert answer.content == "hi"
            assert len(tried) == failures + (1 if app == "a call" else 2)


# A Parrot server's own.


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("settings", "kind", "status", "message"),
    [
        ({"model": "no-such-model"}, "NotFoundError", 404, "no-such-model"),
        ({"temperature": 3.0}, "BadRequestError", 400, "temperature"),
        ({"max_tokens": 5000}, "BadRequestError", 400, "context"),
        ({"timeout": 1e-6}, "APITimeoutError", None, "timed out"),
    ],
)
def test_what_a_parrot_server_refuses(tool_server, settings, kind, status, message, way, app):
    settings = {"base_url": tool_server.url, "max_retries": 0, "temperature": 0, "model": "default", **settings}
    theirs, ours = (
        raised(lambda cls=cls: WAYS[way](*APPS[app](cls(api_key="k", **settings)))) for cls in (ChatOpenAI, ChatParrot)
    )
    assert kind in theirs[0]
    assert (ours[0], ours[2]) == (theirs[0], status)
    assert message in ours[1].lower()
    assert ours[1] == theirs[1]


def test_a_prompt_that_is_too_long_is_langchains_own_error(tool_server):
    exceptions = pytest.importorskip("langchain_core.exceptions")
    if not hasattr(exceptions, "ContextOverflowError"):
        pytest.skip("LangChain 0.3 has no such class")
    for cls in (ChatOpenAI, ChatParrot):
        llm = cls(base_url=tool_server.url, api_key="k", model="default", max_retries=0)
        for app, given in ((llm, "long " * 5000), (step("A {x}", llm) | P("B {y}") | llm, {"x": "long " * 5000})):
            with pytest.raises(exceptions.ContextOverflowError):
                app.invoke(given)
