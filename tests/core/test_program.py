"""Every fault that is visible in a program is refused with its place, before anything runs."""

import copy
import json

import pytest

from semantic_parrot.core.constants import share
from semantic_parrot.core.errors import InvalidRequest, ParrotError, from_code
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import Message, parse_request
from semantic_parrot.core.wire import template

REQUEST = {"model": "default", "messages": [{"role": "user", "content": "Hi"}]}


def call(**changes):
    return {"id": "a", "output": "x", "request": REQUEST, **changes}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ([], ""),
        ({}, "calls"),
        ({"calls": []}, "calls"),
        ({"calls": [call()], "more": 1}, "more"),
        ({"calls": [call(more=1)]}, "calls[0].more"),
        ({"calls": [call(id="")]}, "calls[0].id"),
        ({"calls": [call(request="Hi")]}, "calls[0].request"),
        ({"calls": [call(), call(output="y")]}, "calls[1].id"),
        ({"calls": [call()], "inputs": {"a": {3}}}, "inputs.a"),
        ({"calls": [call()], "inputs": {"a[0].b": "x"}}, "inputs.a[0].b"),
        ({"calls": [call()], "stream": "yes"}, "stream"),
        ({"calls": [call()], "deltas": ["nobody"]}, "deltas[0]"),
        ({"calls": [call()], "parrot": {"lifetime": "background"}}, "parrot.lifetime"),
        ({"calls": [call()], "parrot": {"objectives": {"x": "fast"}}}, "parrot.objectives.x"),
    ],
)
def test_bad_programs(body, place):
    with pytest.raises(InvalidRequest) as caught:
        parse_program(body)
    assert caught.value.where == place
    assert caught.value.status == 400


def test_without_named_outputs_the_sinks_are_wanted():
    reader = call(id="b", output="y", request={"model": "m", "prompt": template(("x",))})
    assert parse_program({"calls": [call(), reader]}).wanted() == ("y",)
    assert parse_program({"calls": [call(), reader], "outputs": []}).wanted() == ()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, ""),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"n": 17}, "n"),
        ({"tools": []}, "tools"),
        ({"stop": 3}, None),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"model": None}, "model"),
    ],
)
def test_bad_requests(changes, place):
    with pytest.raises(InvalidRequest) as caught:
        parse_request({**REQUEST, **changes})
    assert place is None or caught.value.where == place
    assert caught.value.status == 400


def test_an_empty_prompt_is_an_error_once_it_is_known():
    empty = {"model": "m", "messages": [{"role": "user", "content": ""}]}
    for body in (empty, {"model": "m", "prompt": ""}):
        with pytest.raises(InvalidRequest, match="empty"):
            parse_request(body)
        parse_request(body, allow_empty=True)


def test_defaults_are_those_of_openai():
    chat, again = parse_request(REQUEST), parse_request(REQUEST)
    assert chat.sampling.temperature == 1.0
    assert chat.sampling.max_tokens is None
    assert chat.sampling.seed != again.sampling.seed
    assert parse_request({"model": "m", "prompt": "x"}).sampling.max_tokens == 16


def test_every_spelling_of_a_message_and_a_limit():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = parse_request(
        {"model": "m", "messages": [{"role": "user", "content": parts}], "max_completion_tokens": 3, "stop": "."}
    )
    assert request.messages == (Message("user", "ab"),)
    assert request.sampling.max_tokens == 3
    assert request.sampling.stop == (".",)


def _classes(cls):
    return [cls, *(found for sub in cls.__subclasses__() for found in _classes(sub))]


def test_every_error_survives_the_way_through_an_engine():
    for cls in _classes(ParrotError)[1:]:
        same = from_code(cls.code, "why", "x")
        assert type(same).code == cls.code
        assert same.body() == {"error": {"message": "why", "type": cls.kind, "param": "x", "code": cls.code}}
    assert "no such code" in from_code("no such code", "why").message


def test_equal_constants_are_one_object_and_mean_the_same():
    def body():
        system = {"role": "system", "content": "You are the harbour master."}
        calls = []
        for i in range(3):
            text = {"$t": ["Here is what came before: ", {"var": f"v{i - 1}" if i else "doc"}, " Go on."]}
            request = {"model": "default", "messages": [dict(system), {"role": "user", "content": text}], "stop": "\n"}
            calls.append({"id": f"c{i}", "output": f"v{i}", "request": request})
        return json.loads(json.dumps({"calls": calls, "inputs": {"doc": "x"}}))

    first, *rest = (call.request for call in parse_program(body()).calls)
    assert [first, *rest] == [call["request"] for call in body()["calls"]]
    for other in rest:
        assert other["messages"][0] is first["messages"][0]
        mine, its = (request["messages"][1]["content"]["$t"] for request in (first, other))
        assert [its[0] is mine[0], its[1] is mine[1], its[2] is mine[2]] == [True, False, True]


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "default", "messages": [{"role": "user", "content": {"$t": ["a", 1, "a"]}}, 5, {"content": None}]},
        {"model": "default", "messages": "none", "prompt": ["a", "a"]},
        {"model": "default", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}], "name": "b"}]},
    ],
)
def test_requests_of_any_shape_can_be_shared(request_):
    twins = [copy.deepcopy(request_), copy.deepcopy(request_)]
    share(twins)
    assert twins == [request_, request_]
