"""What stands in for the OpenAI client's classes gives what they give."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from semantic_parrot.adapters.langchain.plain_response import dumped

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
PLAIN = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "default",
    "choices": [
        {
            "index": 0,
            "logprobs": None,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "An answer", "refusal": None},
        }
    ],
    "usage": USAGE,
    "parrot": {"engine": "native-0", "cached_tokens": 4, "queued": 0.1, "prefill": 0.2, "decode": 0.3},
}
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


def built(response):
    return ChatCompletion.construct(**response).model_dump(warnings=False)


def test_an_ordinary_answer_needs_no_classes():
    assert dumped(PLAIN) == built(PLAIN)
    assert list(dumped(PLAIN)) == list(built(PLAIN))


@given(st.lists(st.tuples(st.sampled_from(sorted(places(PLAIN), key=str)), ODD | st.just("gone")), max_size=3))
def test_it_is_what_the_classes_make_of_it_or_nothing(changes):
    response = json.loads(json.dumps(PLAIN))
    for (*path, last), value in changes:
        inside = response
        for name in path:
            if (isinstance(inside, dict) and name in inside) or (isinstance(inside, list) and name == 0 and inside):
                inside = inside[name]
        if isinstance(inside, dict):
            inside[last] = value
            if value == "gone":
                del inside[last]
    found = dumped(response)
    if found is not None:
        assert found == built(response)
