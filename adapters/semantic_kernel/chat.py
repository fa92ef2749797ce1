"""ParrotChatCompletion: OpenAIChatCompletion whose calls are planned together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from openai import AsyncOpenAI
from pydantic import PrivateAttr
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.connectors.ai.open_ai.services.open_ai_chat_completion_base import OpenAIChatCompletionBase
from semantic_kernel.connectors.ai.open_ai.services.open_ai_model_types import OpenAIModelTypes
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.utils.telemetry.model_diagnostics.decorators import (
    trace_chat_completion,
    trace_streaming_chat_completion,
)

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.semantic_kernel.connection import connect, model_of, refuse_both
from semantic_parrot.adapters.semantic_kernel.fast import Fast
from semantic_parrot.adapters.semantic_kernel.filters import attach
from semantic_parrot.adapters.semantic_kernel.lower import LowerableService
from semantic_parrot.adapters.semantic_kernel.settings import ParrotChatPromptExecutionSettings
from semantic_parrot.adapters.semantic_kernel.templates import Cut
from semantic_parrot.core.wire import IGNORED

PROVIDER = "parrot"

#: A subclass that overrides one of these may send another request than the one we would plan.
REQUEST_BUILDING = (
    "get_chat_message_contents",
    "get_prompt_execution_settings_class",
    "_inner_get_chat_message_contents",
    "_prepare_chat_history_for_request",
    "_handle_structured_output",
    "_send_request",
    "_send_completion_request",
    "parrot_request",
)

_whole: Any = OpenAIChatCompletionBase._inner_get_chat_message_contents
_streamed: Any = OpenAIChatCompletionBase._inner_get_streaming_chat_message_contents


class ParrotChatCompletion(Fast, LowerableService):
    """`OpenAIChatCompletion` for a Parrot server.

    `base_url`: the server, else PARROT_BASE_URL, else http://127.0.0.1:8765/v1; "embedded" starts a server for the
    directory `ai_model_id` as a child process (`embedded_flags`: its further flags). `api_key`: else PARROT_API_KEY,
    else none. `ai_model_id`: else PARROT_MODEL, else "default". No OPENAI_* variable is read. `attach_to`: the kernel
    whose prompt functions are to be planned. With an `async_client` of the app every call goes out by itself.
    """

    MODEL_PROVIDER_NAME: ClassVar[str] = PROVIDER

    _endpoint: Endpoint | None = PrivateAttr(default=None)

    def __init__(
        self,
        ai_model_id: str | None = None,
        service_id: str | None = None,
        api_key: str | None = None,
        org_id: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        async_client: AsyncOpenAI | None = None,
        *,
        instruction_role: str | None = None,
        base_url: str | None = None,
        embedded_flags: Sequence[str] = (),
        attach_to: Kernel | None = None,
    ) -> None:
        model = model_of(ai_model_id)
        refuse_both(async_client, base_url=base_url, api_key=api_key, org_id=org_id, default_headers=default_headers)
        endpoint, client = None, async_client
        if client is None:
            endpoint, client = connect(model, base_url, api_key, org_id, default_headers, embedded_flags)
        # Past OpenAIChatCompletion's own, which reads OPENAI_* variables and .env files.
        super(OpenAIChatCompletion, self).__init__(
            ai_model_id=model,
            api_key=None,
            org_id=None,
            service_id=service_id,
            ai_model_type=OpenAIModelTypes.CHAT,
            client=client,
            instruction_role=instruction_role,
        )
        self._endpoint = endpoint
        if attach_to is not None:
            attach(attach_to)

    def fast_endpoint(self) -> Endpoint | None:
        return self._endpoint

    # What the lowering asks of a service.

    @property
    def parrot_endpoint(self) -> Endpoint:
        assert self._endpoint is not None, "nothing is planned without"
        return self._endpoint

    def parrot_obstacle(self, settings: Any) -> str | None:
        for name in REQUEST_BUILDING:
            if getattr(type(self), name) is not getattr(ParrotChatCompletion, name):
                return f"{type(self).__name__} overrides {name}"
        if self._endpoint is None:
            return "it was given an OpenAI client of its own"
        return None if settings.function_choice_behavior is None else "its model may call functions"

    def parrot_request(self, settings: Any, messages: list[dict[str, Any]], plan: Plan) -> dict[str, Any]:
        body = self.request_body(settings)
        body["model"] = settings.ai_model_id or self.ai_model_id
        body.pop("messages", None)
        try:
            request: dict[str, Any] = json.loads(json.dumps({k: v for k, v in body.items() if k not in IGNORED}))
        except (TypeError, ValueError):
            raise Cut("a setting is no JSON") from None

        def name(ref: Ref) -> str:
            if plan.server_of(ref.variable) != self._endpoint:
                raise Cut("its prompt needs an answer of another server")
            return plan.name(ref)

        request["messages"] = plan.marks.templates(messages, name)
        return request

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> ParrotChatCompletion:
        """A service from a dictionary of its arguments."""
        return cls(**settings)

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return ParrotChatPromptExecutionSettings

    # The stock ones, below the decorators that name OpenAI as the provider.
    _inner_get_chat_message_contents = trace_chat_completion(PROVIDER)(_whole.__wrapped__)
    _inner_get_streaming_chat_message_contents = trace_streaming_chat_completion(PROVIDER)(_streamed.__wrapped__)
