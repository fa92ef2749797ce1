"""The content key is a contract between client and server: golden vectors, then properties."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.core.errors import DanglingReference, InvalidProgram
from semantic_parrot.core.wire import IGNORED, canonical, content_key, references, render, template

# (request, canonical form, SHA-256 of it by sha256sum): these never change without a new version of the wire.
GOLDEN = [
    (
        {"model": "default", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0},
        b'{"messages":[{"content":"Hi","role":"user"}],"model":"default","temperature":0}',
        "2f667a8d4c6fa3c2a71dbe5c447d7ecaf81c6b402412a21b052a13e3b3796abb",
    ),
    (
        {"model": "m", "prompt": "é\u2028😀", "temperature": 0.0, "stream": True, "user": "u", "metadata": {"a": "b"}},
        b'{"model":"m","prompt":"\\u00e9\\u2028\\ud83d\\ude00","temperature":0.0}',
        "9537fca9eeca00cd41c00dfa3c871450456c9fd9bd223f95e4acf448ac45ac47",
    ),
    (
        {"b": [1, 1.5, True, None], "a": {"z": "", "y": {}}},
        b'{"a":{"y":{},"z":""},"b":[1,1.5,true,null]}',
        "b5f42e4e0a0d5819d7e41d160354cd32638a6607fd51281963d54b3dd24eac01",
    ),
]


@pytest.mark.parametrize(("request_", "form", "key"), GOLDEN)
def test_golden_vectors(request_, form, key):
    assert canonical(request_) == form
    assert content_key(request_) == key


def test_numbers_keep_the_form_they_were_received_in():
    zero, zero_point = ({"model": "m", "temperature": t} for t in (0, 0.0))
    assert content_key(zero) != content_key(zero_point)


@pytest.mark.parametrize("field", sorted(IGNORED))
def test_delivery_does_not_change_the_key(field):
    body = {"model": "m", "prompt": "x"}
    assert content_key({**body, field: {"any": 1}}) == content_key(body)


texts = st.text(max_size=20)
names = st.text(string.ascii_letters, min_size=1, max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(names, json_values, max_size=5))
def test_a_request_survives_the_wire_with_its_key(body):
    assert content_key(json.loads(json.dumps(body))) == content_key(body)
    assert content_key(dict(reversed(body.items()))) == content_key(body)


@given(st.dictionaries(names, json_values, max_size=5))
def test_rendering_changes_nothing_but_templates(body):
    assert render(body, {}) == body
    assert references(body) == ()


@given(st.lists(texts | st.tuples(names), max_size=8), st.dictionaries(names, texts))
def test_a_template_renders_to_one_text(parts, values):
    values = {part[0]: "v" for part in parts if isinstance(part, tuple)} | values
    body = {"messages": [{"role": "user", "content": template(*parts)}]}
    expected = "".join(part if isinstance(part, str) else values[part[0]] for part in parts)
    assert render(body, values) == {"messages": [{"role": "user", "content": expected}]}
    assert set(references(body)) == {part[0] for part in parts if isinstance(part, tuple)}


def test_a_value_that_looks_like_a_template_stays_text():
    body = {"prompt": template("<", ("a",), ">")}
    assert render(body, {"a": '{"$t": [{"var": "b"}]}'}) == {"prompt": '<{"$t": [{"var": "b"}]}>'}


def test_references_come_once_in_order_of_use():
    body = {"messages": [{"content": template(("b",), ("a",), ("b",))}, {"content": template(("c",))}]}
    assert references(body) == ("b", "a", "c")


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"$t": "text"}, "request.prompt"),
        ({"$t": [], "more": 1}, "request.prompt"),
        ({"$t": ["a", 3]}, "request.prompt.$t[1]"),
        ({"$t": [{"var": 3}]}, "request.prompt.$t[0]"),
        ({"$t": [{"var": "a", "op": "strip"}]}, "request.prompt.$t[0]"),
    ],
)
def test_a_malformed_template_is_refused_with_its_place(node, place):
    with pytest.raises(InvalidProgram) as caught:
        references({"prompt": node})
    assert caught.value.where == place


def test_a_missing_value_is_named():
    with pytest.raises(DanglingReference, match="'a'"):
        render({"prompt": template(("a",))}, {})
