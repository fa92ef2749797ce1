"""Where a model sends what: defaults, environment, other servers, switches."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd
from langchain_core.runnables import RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.passthrough import RunnableAssign
from lc_shapes import PROMISED, P, step
from live import LocalServer
from plain_server import PlainServer
from scripted import ScriptedEngine

from semantic_parrot.adapters.langchain import ChatParrot, disabled, explain, install, stats, uninstall
from semantic_parrot.core.runtime import Runtime

TWO, TRIPS_OF_TWO = PROMISED[0], (2, 1)


def trips(server, chain, given) -> int:
    before = server.requests()
    chain.invoke(given)
    return int(server.requests() - before)


# Defaults and environment.


def test_nothing_of_openai_is_read_or_sent(monkeypatch):
    for name in ("API_KEY", "ORG_ID", "ORGANIZATION", "PROJECT_ID", "ADMIN_KEY"):
        monkeypatch.setenv(f"OPENAI_{name}", "secret")
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://secret.invalid:1/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Own: secret")
    with PlainServer() as plain:
        monkeypatch.setenv("PARROT_BASE_URL", plain.url)
        TWO.build(ChatParrot()).invoke(TWO.input)
    assert {path for path, _, _ in plain.seen} == {"/v1/runs", "/v1/chat/completions"}
    for _, headers, body in plain.seen:
        assert "secret" not in json.dumps([headers, body])
        assert "authorization" not in headers
        assert body.get("model", "default") == "default"


def test_parrot_variables_and_arguments(monkeypatch):
    monkeypatch.setenv("PARROT_API_KEY", "pk-env")
    monkeypatch.setenv("PARROT_MODEL", "tiny")
    with PlainServer() as plain:
        ChatParrot(base_url=plain.url, default_headers={"X-App": "a"}).invoke("x")
        ChatParrot(base_url=plain.url, api_key="pk-given", model="other", organization="o").invoke("x")
    (_, first, body), (_, second, other) = plain.seen
    assert (first["authorization"], first["x-app"], body["model"]) == ("Bearer pk-env", "a", "tiny")
    assert (second["authorization"], second["openai-organization"], other["model"]) == ("Bearer pk-given", "o", "other")


def test_a_server_without_runs_means_eager_with_one_warning(caplog):
    with PlainServer() as plain, caplog.at_level(logging.WARNING, "semantic_parrot"):
        chain = TWO.build(ChatParrot(base_url=plain.url))
        assert chain.invoke(TWO.input) == "hi"
        assert chain.invoke(TWO.input) == "hi"
    assert [path for path, _, _ in plain.seen].count("/v1/runs") == 1
    assert [path for path, _, _ in plain.seen].count("/v1/chat/completions") == 4
    assert sum("no Parrot server" in record.message for record in caplog.records) == 1


class Refusing(LocalServer):
    """Programs reach it with a query parameter, which it refuses."""

    def __init__(self) -> None:
        super().__init__(Runtime([ScriptedEngine()]))
        inner = self._server.config.app

        async def app(scope, receive, send):
            changed = {"query_string": b"v=1"} if scope.get("path") == "/v1/runs" else {}
            await inner({**scope, **changed}, receive, send)

        self._server.config.app, self._server.config.interface = app, "asgi3"


def test_a_server_that_refuses_every_program_is_sent_no_more(caplog):
    before = stats().programs
    with Refusing() as server, caplog.at_level(logging.WARNING, "semantic_parrot"):
        chain = TWO.build(ChatParrot(base_url=server.url, temperature=0))
        for _ in range(5):
            assert trips(server, chain, TWO.input) == 2
    assert sum("refuses programs" in record.message for record in caplog.records) == 1
    assert stats().programs - before <= 5


def test_the_model_is_not_serializable_and_holds_its_key():
    llm = ChatParrot(api_key="secret")
    assert not ChatParrot.is_lc_serializable()
    assert "secret" not in repr(dumpd(llm))


# Several servers, subclasses.


def test_two_servers_in_one_chain_are_two_plans(server):
    with LocalServer(Runtime([ScriptedEngine()])) as other:
        here, there = (ChatParrot(base_url=s.url, temperature=0) for s in (server, other))
        chain = {
            "a": step("A {x}", here) | step("A2 {y}", here),
            "b": step("B {x}", there) | step("B2 {y}", there),
        } | step("J {a} {b}", here)
        with disabled():
            eager = chain.invoke({"x": "1"})
        before = server.requests(), other.requests()
        assert chain.invoke({"x": "1"}) == eager
        # The join needs an answer of the other server: it goes out by itself.
        assert (server.requests() - before[0], other.requests() - before[1]) == (2, 1)


class Shouting(ChatParrot):
    def _get_request_payload(self, input_, *, stop=None, **kwargs):
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        payload["messages"][0]["content"] += "!"
        return payload


def test_a_subclass_that_builds_requests_itself_is_eager(server):
    chain = TWO.build(Shouting(base_url=server.url, temperature=0))
    assert trips(server, chain, TWO.input) == 2
    assert any("overrides _get_request_payload" in piece.reason for piece in explain(chain, TWO.input).cuts)


def test_what_the_client_decides_itself_is_eager(server):
    from langchain_core.caches import InMemoryCache
    from langchain_core.rate_limiters import InMemoryRateLimiter

    for more in ({"cache": InMemoryCache()}, {"rate_limiter": InMemoryRateLimiter(requests_per_second=1000)}):
        chain = TWO.build(ChatParrot(base_url=server.url, temperature=0, **more))
        assert trips(server, chain, TWO.input) == 2


def test_a_call_that_the_server_refuses_is_not_planned_again(server):
    llm = ChatParrot(base_url=server.url, temperature=0, max_retries=0)
    first = step("A {x}", llm) | P("B {y}") | llm.bind(extra_body={"best_of": 2})

    def fails():
        with pytest.raises(Exception, match="best_of"):
            first.invoke({"x": "1"})

    before = stats().refused
    fails()
    fails()
    assert stats().refused == before + 1
    assert any("the server refused it" in piece.reason for piece in explain(first, {"x": "1"}).cuts)


def test_a_site_whose_answers_nobody_uses_is_no_longer_planned(server):
    ending = "!"

    class Changes(BaseCallbackHandler):
        """The app changes, while it runs, what the plan took for a constant."""

        def on_llm_end(self, *_, **__):
            nonlocal ending
            ending += "!"

    llm = ChatParrot(base_url=server.url, temperature=0)
    chain = step("A {x}", llm) | (lambda y: {"y": y + ending}) | step("B {y}", llm)
    given, config = {"x": "1"}, {"callbacks": [Changes()]}

    def executed():
        before = server.metrics()["parrot_calls_executed_total"]
        chain.invoke(given, config)
        return server.metrics()["parrot_calls_executed_total"] - before

    before = stats()
    assert [executed() for _ in range(20)] == [3] * 20
    assert stats().unclaimed == before.unclaimed + 20
    assert stats().sites_dropped == before.sites_dropped + 1
    assert executed() == 2, "nothing is wasted any more"
    assert any("only 0 of its last 20" in piece.reason for piece in explain(chain, given).cuts)


# Switches.


def test_disabled(server, monkeypatch):
    chain = TWO.build(ChatParrot(base_url=server.url, temperature=0))
    with disabled():
        assert trips(server, chain, TWO.input) == 2
    assert trips(server, chain, TWO.input) == 1
    monkeypatch.setenv("PARROT_DISABLE", "1")
    assert trips(server, chain, TWO.input) == 2
    assert "disabled" in str(explain(chain, TWO.input))


def test_uninstall_puts_every_method_back(server):
    uninstall()
    classes = (RunnableSequence, RunnableParallel, RunnableAssign, RunnableEach)
    names = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream", "transform", "atransform")
    methods = {(cls, name): getattr(cls, name) for cls in classes for name in names}
    chain = TWO.build(ChatParrot(base_url=server.url, temperature=0))
    assert trips(server, chain, TWO.input) == 1
    for (cls, name), method in methods.items():
        wrapper = getattr(cls, name)
        assert inspect.signature(wrapper) == inspect.signature(method)
        assert inspect.iscoroutinefunction(wrapper) == inspect.iscoroutinefunction(method)
    uninstall()
    assert {(cls, name): getattr(cls, name) for cls in classes for name in names} == methods
    assert trips(server, chain, TWO.input) == 2
    install()
    assert trips(server, chain, TWO.input) == 1


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_somebody_else_wraps_the_same_methods(server, monkeypatch, first):
    """As instrumentations do, before or after us."""
    calls = []

    def wrap():
        original = RunnableSequence.invoke

        def traced(self, *args, **kwargs):
            calls.append(type(self).__name__)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(RunnableSequence, "invoke", traced)

    uninstall()
    if first == "theirs":
        wrap()
    chain = TWO.build(ChatParrot(base_url=server.url, temperature=0))
    if first == "ours":
        wrap()
    assert trips(server, chain, TWO.input) == 1
    uninstall()
    assert trips(server, chain, TWO.input) == 2
    install()
    assert trips(server, chain, TWO.input) == 1
    assert calls == ["RunnableSequence"] * 3
    uninstall()
    monkeypatch.undo()
    install()


def test_a_fault_of_the_planner_is_counted_and_the_app_goes_on(server, monkeypatch):
    from semantic_parrot.adapters.langchain.lower import Lowering

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    chain = TWO.build(ChatParrot(base_url=server.url, temperature=0))
    expected = chain.invoke(TWO.input)
    monkeypatch.setattr(Lowering, "steps", fail)
    with pytest.raises(ZeroDivisionError):
        chain.invoke(TWO.input)
    monkeypatch.delenv("PARROT_DEBUG")
    before = stats().planner_errors
    assert chain.invoke(TWO.input) == expected
    assert stats().planner_errors > before
    assert "a bug" in (stats().last_error or "")
    monkeypatch.undo()
    assert "a bug" in str(explain(chain, TWO.input))


def test_importing_the_adapter_is_light():
    code = (
        # LangChain 0.3 imports transformers itself, where that is installed.
        "import sys, langchain_openai; before = set(sys.modules);"
        "import semantic_parrot.adapters.langchain, semantic_parrot.adapters.client;"
        "print([m for m in ('torch', 'fastapi', 'transformers', 'uvicorn') if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_gets_a_courier_of_its_own(server):
    code = f"""
import os, sys
sys.path = {sys.path!r}
from lc_shapes import PROMISED
from semantic_parrot.adapters.langchain import ChatParrot, stats
chain = PROMISED[0].build(ChatParrot(base_url={server.url!r}, temperature=0))
first = chain.invoke(PROMISED[0].input)
pid = os.fork()
if pid == 0:
    ok = chain.invoke(PROMISED[0].input) == first and stats().claimed == 4
    os._exit(0 if ok else 1)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    before = server.requests()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert server.requests() - before == 2
