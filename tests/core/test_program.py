"""Every fault that is visible in a program is refused with its place, before anything runs."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.core.errors import InvalidRequest, ParrotError, from_code
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.request import Message, parse_request
from semantic_parrot.core.shape import Shapes
from semantic_parrot.core.wire import references, render, template

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
        ({"calls": [call()], "parrot": {"lifetime": "forever"}}, "parrot.lifetime"),
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


def shaped(*requests):
    shapes = Shapes()
    return [shapes.prompt(request, "here") for request in requests]


def written_out(prompt):
    """The request that the prompt was made of: its shape, with the names that it has for the variables."""
    references = {number: template((name,)) for number, name in zip(prompt.awaits(), prompt.names, strict=True)}

    def walk(node):
        if isinstance(node, dict) and "$t" in node:
            parts = [part if isinstance(part, str) else references[part["var"]]["$t"][0] for part in node["$t"]]
            return {"$t": parts}
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        return [walk(value) for value in node] if isinstance(node, list) else node

    return walk(prompt.shape.request)


def test_calls_that_differ_in_their_variables_are_of_one_shape():
    def body():
        system = {"role": "system", "content": "You are the harbour master."}
        calls = []
        for i in range(3):
            text = {"$t": ["Here is what came before: ", {"var": f"v{i - 1}" if i else "doc"}, " Go on."]}
            request = {"model": "default", "messages": [dict(system), {"role": "user", "content": text}], "stop": "\n"}
            calls.append({"id": f"c{i}", "output": f"v{i}", "request": request})
        calls[2]["request"]["messages"][1]["content"]["$t"][2] = "  Stop."
        return json.loads(json.dumps({"calls": calls, "inputs": {"doc": "x"}}))

    first, second, third = (call.prompt for call in parse_program(body()).calls)
    assert first.shape is second.shape
    assert (first.names, second.names, third.names) == (("doc",), ("v0",), ("v1",))
    one, other = first.shape.request["messages"], third.shape.request["messages"]
    assert other[0] is one[0]
    assert [other[1]["content"]["$t"][i] is one[1]["content"]["$t"][i] for i in (0, 2)] == [True, False]
    assert [written_out(prompt) for prompt in (first, second, third)] == [c["request"] for c in body()["calls"]]


@pytest.mark.parametrize("values", [(0, 0.0, -0.0, False, None, "0", ""), ([], {}, [[]], "[]"), ({"a": 1}, {"a": 1.0})])
def test_what_json_tells_apart_is_of_two_shapes(values):
    prompts = shaped(*({"prompt": "x", "field": value} for value in values))
    assert len({id(prompt.shape) for prompt in prompts}) == len(values)
    assert [repr(prompt.shape.request["field"]) for prompt in prompts] == [repr(value) for value in values]


def test_a_variable_that_is_read_twice_is_not_two():
    one, two = shaped({"prompt": template(("a",), ("a",))}, {"prompt": template(("a",), ("b",))})
    assert one.shape is not two.shape
    assert (one.names, two.names) == (("a",), ("a", "b"))


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3),
    st.lists(st.one_of(st.text(max_size=2), st.sampled_from("ab01").map(lambda n: {"var": n})), max_size=4).map(
        lambda parts: {"$t": parts}
    ),
)  # fmt: skip
NODES = st.recursive(
    LEAVES, lambda n: st.one_of(st.lists(n, max_size=3), st.dictionaries(st.text("abc", max_size=2), n, max_size=3))
)


@given(st.lists(st.dictionaries(st.sampled_from(["model", "prompt", "stop"]), NODES), max_size=4))
def test_requests_of_any_shape_mean_what_they_meant(requests):
    for request, prompt in zip(requests, shaped(*requests, *copy.deepcopy(requests)), strict=False):
        assert json.dumps(written_out(prompt)) == json.dumps(request)
        assert prompt.names == references(request)
        values = {name: f"<{name}>" for name in prompt.names}
        numbered = dict(zip(prompt.awaits(), values.values(), strict=True))
        assert json.dumps(render(prompt.shape.request, numbered)) == json.dumps(render(request, values))
