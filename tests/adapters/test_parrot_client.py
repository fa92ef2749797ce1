"""The clients, against the real application."""

from __future__ import annotations

import httpx
import pytest

from semantic_parrot.adapters.client import AsyncParrotClient, NotParrot, ParrotClient
from semantic_parrot.core.errors import InvalidRequest, NotFound, UnknownModel
from semantic_parrot.core.events import CallReady, RunFinished, RunStarted
from semantic_parrot.core.program import Call, Program
from semantic_parrot.core.wire import content_key, template


def request(*parts, **more):
    return {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": template(*parts)}], **more}


def program(**more):
    calls = [
        Call(id="first", output="a", request=request("A ", ("x",))),
        Call(id="second", output="b", request=request("B ", ("a",))),
    ]
    return Program(calls=calls, inputs={"x": "1"}, outputs=["a", "b"], **more)


def test_a_run_and_its_events_agree(server):
    with ParrotClient(server.url) as client:
        result = client.run(program())
        events = list(client.stream(program(deltas=["second"])))
    assert result.status == "finished"
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].outputs == result.outputs
    ready = {event.id: event.content_key for event in events if isinstance(event, CallReady)}
    rendered = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": "A 1"}]}
    assert ready["first"] == content_key(rendered)
    assert ready == {name: call["content_key"] for name, call in result.calls.items()}


async def test_the_asynchronous_client_does_the_same(server):
    with ParrotClient(server.url) as client:
        expected = client.run(program()).outputs
    async with AsyncParrotClient(server.url) as client:
        assert (await client.run(program())).outputs == expected
        events = [event async for event in client.stream(program())]
        assert events[-1].outputs == expected
        assert "default" in await client.models()
        assert "parrot_requests_total" in await client.metrics()
        with pytest.raises(NotFound):
            await client.cancel("run_never")


def test_errors_are_those_of_the_body(server):
    bad = Program(calls=[Call(id="a", output="a", request=request("A", nonsense=1))])
    unknown = Program(calls=[Call(id="a", output="a", request=request("A", model="nobody"))])
    with ParrotClient(server.url) as client:
        for call in (client.run, lambda p: list(client.stream(p))):
            with pytest.raises(InvalidRequest, match="nonsense") as error:
                call(bad)
            assert error.value.where == "calls[0].request.nonsense"
            with pytest.raises(UnknownModel, match="nobody"):
                call(unknown)


def test_a_server_without_runs_is_told_from_a_missing_model(server):
    with ParrotClient(f"{server.base}/elsewhere") as client, pytest.raises(NotParrot):
        client.run(program())


def test_no_server_is_a_connection_error():
    with ParrotClient("http://127.0.0.1:9/v1") as client, pytest.raises(httpx.ConnectError):
        client.models()


def test_models_metrics_and_cancel(server):
    with ParrotClient(server.url) as client:
        assert {"default", "scripted"} <= set(client.models())
        assert "parrot_requests_total" in client.metrics()
        run = client.run(program())
        client.cancel(run.id, unclaimed=["first"])
        with pytest.raises(NotFound):
            client.cancel("run_never")
