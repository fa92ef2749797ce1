"""What stands in for the OpenAI client's classes gives what they give."""

from __future__ import annotations

from hypothesis import given
from odd_responses import USAGE, changed, changes
from openai.types.chat import ChatCompletion

from semantic_parrot.adapters.langchain.plain_response import dumped

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


def built(response):
    return ChatCompletion.construct(**response).model_dump(warnings=False)


def test_an_ordinary_answer_needs_no_classes():
    assert dumped(PLAIN) == built(PLAIN)
    assert list(dumped(PLAIN)) == list(built(PLAIN))


@given(changes(PLAIN))
def test_it_is_what_the_classes_make_of_it_or_nothing(made):
    response = changed(PLAIN, made)
    found = dumped(response)
    if found is not None:
        assert found == built(response)
