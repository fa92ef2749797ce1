"""A claimed answer becomes a message without a way through the OpenAI client, which takes most of a call's client CPU.

What that client would make of the request and of the response is known; where it is not, the call takes the long way.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import openai
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI

from semantic_parrot.adapters.answers import Answer, Finished
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.langchain.plain_response import dumped
from semantic_parrot.adapters.scope import SCOPE
from semantic_parrot.adapters.transport import TRIED, Tried, claim, hopeless
from semantic_parrot.core.wire import IGNORED, content_key

#: Arguments that the OpenAI client does more with than put them into the body.
_MORE = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "response_format"}


@cache
def _plain_arguments() -> frozenset[str]:
    from openai.resources.chat.completions import Completions  # which the OpenAI client loads when it is used

    return frozenset(inspect.signature(Completions.create).parameters) - _MORE


class Fast(ChatOpenAI):
    """`_generate` and `_agenerate` of ChatOpenAI, where the scope's plans hold the answer."""

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        tried = self._try(messages, stop, kwargs)
        if tried is not None and tried.answer is not None:
            tried.late = not tried.answer.wait(None, _patience(self.root_client))
            found = self._result(tried.answer)
            if found is not None:
                return found
        token = TRIED.set(tried)
        try:
            return super()._generate(messages, stop, run_manager, **kwargs)
        finally:
            TRIED.reset(token)

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        tried = self._try(messages, stop, kwargs)
        if tried is not None and tried.answer is not None:
            tried.late = not await tried.answer.wait_async(None, _patience(self.root_async_client))
            found = self._result(tried.answer)
            if found is not None:
                return found
        token = TRIED.set(tried)
        try:
            return await super()._agenerate(messages, stop, run_manager, **kwargs)
        finally:
            TRIED.reset(token)

    def fast_endpoint(self) -> Endpoint | None:
        """The server whose plans may answer its calls; None if every call takes the long way."""
        raise NotImplementedError

    def _try(self, messages: Any, stop: Any, kwargs: Mapping[str, Any]) -> Tried | None:
        """What came of looking for a planned answer; None if that is left to the transport."""
        scope, endpoint = SCOPE.get(), self.fast_endpoint()
        if scope is None or scope.closed or endpoint is None or self.include_response_headers:
            return None
        if hopeless():
            return Tried(None)
        payload = self._get_request_payload(messages, stop=stop, **kwargs)
        more = payload.get("extra_body")
        if more is not None and more.keys() <= IGNORED:
            del payload["extra_body"]  # as our own hints: no part of what is asked
        if "messages" not in payload or not payload.keys() <= _plain_arguments():
            return None
        try:
            key = content_key(payload)
        except (TypeError, ValueError):
            return None  # no JSON
        return Tried(claim(endpoint, key, payload))

    def _result(self, answer: Answer) -> ChatResult | None:
        if not isinstance(answer.outcome, Finished):
            return None
        plain = dumped(answer.outcome.response)
        if plain is not None:
            result = self._create_chat_result(plain, {})
            # Which is read of the class's object alone.
            result.generations[0].message.additional_kwargs["refusal"] = plain["choices"][0]["message"]["refusal"]
            return result
        from openai.types.chat import ChatCompletion

        # As the OpenAI client makes it of a response.
        return self._create_chat_result(ChatCompletion.construct(**answer.outcome.response), {})


def _patience(client: openai.OpenAI | openai.AsyncOpenAI) -> float | None:
    """Seconds that the client would wait for an ordinary response."""
    seconds: Any = getattr(client.timeout, "read", client.timeout)
    return None if seconds is None else float(seconds)
