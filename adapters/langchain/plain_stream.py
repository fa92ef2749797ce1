"""The OpenAI client's chat completions, whose plainest streams yield chunks as the dicts that came.

LangChain takes dicts, and makes dicts of the client's objects at once; building those is 30 % of the client CPU of a
streamed token (W3, by cProfile). Only where a dict and what the classes make of it can't differ in what LangChain
reads of it: where nothing but a text was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

#: Arguments with which an answer is a text, whatever they say; of `extra_body`, its fields count.
_TEXT = frozenset(
    "model messages stream stream_options temperature top_p max_tokens max_completion_tokens stop seed user"
    " frequency_penalty presence_penalty logit_bias extra_body extra_headers extra_query timeout".split()
)
#: Fields of a body that ask for more.
_MORE = frozenset(
    "logprobs top_logprobs prompt_logprobs tools tool_choice functions function_call response_format modalities".split()
)


class Resources(NamedTuple):
    blocking: Any
    asynchronous: Any


@cache
def resources() -> Resources:
    """Subclasses of the client's `Completions` and `AsyncCompletions`. Their module takes long to load, and is loaded
    when a client is first used."""
    from openai import AsyncStream, Stream
    from openai.resources.chat.completions import AsyncCompletions, Completions

    class PlainCompletions(Completions):
        def create(self, *args: Any, **kwargs: Any) -> Any:
            return _plain(super().create(*args, **kwargs), Stream, kwargs)

    class PlainAsyncCompletions(AsyncCompletions):
        async def create(self, *args: Any, **kwargs: Any) -> Any:
            return _plain(await super().create(*args, **kwargs), AsyncStream, kwargs)

    return Resources(PlainCompletions, PlainAsyncCompletions)


def _plain(response: Any, stream: type, asked: Mapping[str, Any]) -> Any:
    # A stream reads `_cast_to` as it is iterated. One that somebody has wrapped is left alone, as is one of a later
    # client that has no such attribute: it yields objects then, which LangChain takes as well.
    text = asked.keys() <= _TEXT and _MORE.isdisjoint(asked.get("extra_body") or ())
    if text and type(response) is stream and hasattr(response, "_cast_to"):
        response._cast_to = object
    return response
