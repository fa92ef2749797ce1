"""Responses as a Parrot server sends them, with something odd somewhere."""

from __future__ import annotations

import json

from hypothesis import strategies as st

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
ODD = st.sampled_from(
    [
        None, 3, 2.5, True, "a", "", [], {}, ["a"], {"a": 1}, {"content": [{"token": "a", "logprob": -1}]},
        [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        {"cached_tokens": 2.0, "more": None}, "1970-01-01T00:00:00Z", {"id": "audio", "expires_at": 5},
    ]
)  # fmt: skip


def places(value, path=()):
    """The paths of every field, those of the classes that are not there among them."""
    if isinstance(value, dict):
        unset = {"service_tier": None, "tool_calls": None, "audio": None, "completion_tokens_details": None, "x": None}
        for name, item in {**unset, **value}.items():
            yield (*path, name)
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*path, number))


def changes(response):
    """Some places in it, with what is to be there instead."""
    place = st.sampled_from(sorted(places(response), key=str))
    return st.lists(st.tuples(place, ODD | st.just("gone")), max_size=3)


def changed(response, changes):
    """A copy of `response` with `changes`, where their places are there."""
    response = json.loads(json.dumps(response))
    for (*path, last), value in changes:
        inside = response
        for name in path:
            if (isinstance(inside, dict) and name in inside) or (isinstance(inside, list) and name == 0 and inside):
                inside = inside[name]
        if isinstance(inside, dict):
            inside[last] = value
            if value == "gone":
                del inside[last]
    return response
