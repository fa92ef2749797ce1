"""ParrotChatCompletion: OpenAIChatCompletion whose calls are planned together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
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
from semantic_parrot.adapters.marks import Marks
from semantic_parrot.adapters.semantic_kernel.connection import connect, model_of
from semantic_parrot.adapters.semantic_kernel.filters import attach
from semantic_parrot.adapters.semantic_kernel.messages import messages_of
from semantic_parrot.adapters.semantic_kernel.services import PROVIDER, ParrotService, overridden
from semantic_parrot.adapters.semantic_kernel.settings import ParrotChatPromptExecutionSettings

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


class ParrotChatCompletion(ParrotService, OpenAIChatCompletion):
    """`OpenAIChatCompletion` for a Parrot server.

    `base_url`: the server, else PARROT_BASE_URL, else http://127.0.0.1:8765/v1; "embedded" starts a server for the
    directory `ai_model_id` as a child process (`embedded_flags`: its further flags). `api_key`: else PARROT_API_KEY,
    else none. `ai_model_id`: else PARROT_MODEL, else "default". No OPENAI_* variable is read. `attach_to`: the kernel
    whose prompt functions are to be planned. With an `async_client` of the app every call goes out by itself.
    """

    RESPONSE: ClassVar[Any] = ChatCompletion

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
        endpoint, client = connect(
            model,
            async_client,
            base_url=base_url,
            api_key=api_key,
            org_id=org_id,
            default_headers=default_headers,
            embedded_flags=embedded_flags,
        )
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

    def parrot_obstacle(self, settings: Any) -> str | None:
        if self._endpoint is None:
            return "it was given an OpenAI client of its own"
        if settings.function_choice_behavior is not None:
            return "its model may call functions"
        return overridden(self, ParrotChatCompletion, REQUEST_BUILDING)

    def parrot_content(self, prompt: str, marks: Marks) -> dict[str, Any]:
        return {"messages": messages_of(self, prompt, marks)}

    def request_body(self, settings: Any) -> dict[str, Any]:
        body: dict[str, Any] = settings.prepare_settings_dict()
        self._handle_structured_output(settings, body)
        if settings.tools is None:
            body.pop("parallel_tool_calls", None)
        return body | (body.pop("extra_body", None) or {})

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return ParrotChatPromptExecutionSettings

    # The stock ones, below the decorators that name OpenAI as the provider.
    _inner_get_chat_message_contents = trace_chat_completion(PROVIDER)(_whole.__wrapped__)
    _inner_get_streaming_chat_message_contents = trace_streaming_chat_completion(PROVIDER)(_streamed.__wrapped__)
