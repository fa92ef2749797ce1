"""A claimed answer becomes a response without a way through the OpenAI client, which takes most of a call's CPU."""

from __future__ import annotations

from typing import Any, ClassVar

from semantic_kernel.connectors.ai.open_ai.services.open_ai_handler import OpenAIHandler

from semantic_parrot.adapters.answers import Finished
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.scope import SCOPE
from semantic_parrot.adapters.transport import TRIED, Tried, claim
from semantic_parrot.core.wire import content_key

#: Arguments of the OpenAI client that are no part of the body.
_BESIDE = ("extra_headers", "extra_query", "timeout")


class Fast(OpenAIHandler):
    """`_send_completion_request` of the stock services, where the scope's plans hold the answer. `RESPONSE`: the OpenAI
    client's class of it."""

    RESPONSE: ClassVar[Any]

    async def _send_completion_request(self, settings: Any) -> Any:
        tried = None if settings.stream else self._try(settings)
        if tried is not None and tried.answer is not None:
            seconds: Any = getattr(self.client.timeout, "read", self.client.timeout)
            tried.late = not await tried.answer.wait_async(None, seconds)
            if isinstance(tried.answer.outcome, Finished):
                # As the OpenAI client makes it of a response.
                response: Any = self.RESPONSE.construct(**tried.answer.outcome.response)
                self.store_usage(response)
                return response
        token = TRIED.set(tried)
        try:
            return await super()._send_completion_request(settings)
        finally:
            TRIED.reset(token)

    def fast_endpoint(self) -> Endpoint | None:
        """The server whose plans may answer its calls; None if every call takes the long way."""
        raise NotImplementedError

    def request_body(self, settings: Any) -> dict[str, Any]:
        """What the stock service gives the OpenAI client, as that sends it."""
        raise NotImplementedError

    def _try(self, settings: Any) -> Tried | None:
        """What came of looking for a planned answer; None if that is left to the transport."""
        scope, endpoint = SCOPE.get(), self.fast_endpoint()
        if scope is None or scope.closed or endpoint is None:
            return None
        try:
            body = self.request_body(settings)
            key = content_key(body)
        except (TypeError, ValueError):
            return None  # no JSON: the long way tells the app
        return None if any(name in body for name in _BESIDE) else Tried(claim(endpoint, key, body))
