"""ParrotTextCompletion: OpenAITextCompletion for a Parrot server."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from openai import AsyncOpenAI
from openai.types import Completion
from pydantic import PrivateAttr
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.open_ai import OpenAITextCompletion
from semantic_kernel.connectors.ai.open_ai.services.open_ai_model_types import OpenAIModelTypes
from semantic_kernel.connectors.ai.open_ai.services.open_ai_text_completion_base import OpenAITextCompletionBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.utils.telemetry.model_diagnostics.decorators import (
    trace_streaming_text_completion,
    trace_text_completion,
)

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.marks import Marks, Ref
from semantic_parrot.adapters.semantic_kernel.connection import connect, model_of
from semantic_parrot.adapters.semantic_kernel.filters import attach
from semantic_parrot.adapters.semantic_kernel.services import PROVIDER, ParrotService, overridden
from semantic_parrot.adapters.semantic_kernel.settings import ParrotTextPromptExecutionSettings

_whole: Any = OpenAITextCompletionBase._inner_get_text_contents
_streamed: Any = OpenAITextCompletionBase._inner_get_streaming_text_contents


#: A subclass that overrides one of these may send another request than the one we would plan.
REQUEST_BUILDING = (
    "get_text_contents",
    "get_prompt_execution_settings_class",
    "_inner_get_text_contents",
    "_send_request",
    "_send_completion_request",
    "parrot_request",
)


class ParrotTextCompletion(ParrotService, OpenAITextCompletion):
    """`OpenAITextCompletion` for a Parrot server; its arguments are ParrotChatCompletion's."""

    RESPONSE: ClassVar[Any] = Completion

    _endpoint: Endpoint | None = PrivateAttr(default=None)

    def __init__(
        self,
        ai_model_id: str | None = None,
        api_key: str | None = None,
        org_id: str | None = None,
        service_id: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        async_client: AsyncOpenAI | None = None,
        *,
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
        # Past OpenAITextCompletion's own, which reads OPENAI_* variables and .env files.
        super(OpenAITextCompletion, self).__init__(
            ai_model_id=model,
            api_key=None,
            org_id=None,
            service_id=service_id,
            ai_model_type=OpenAIModelTypes.TEXT,
            client=client,
        )
        self._endpoint = endpoint
        if attach_to is not None:
            attach(attach_to)

    def parrot_obstacle(self, settings: Any) -> str | None:
        if self._endpoint is None:
            return "it was given an OpenAI client of its own"
        return overridden(self, ParrotTextCompletion, REQUEST_BUILDING)

    def parrot_content(self, prompt: str, marks: Marks) -> dict[str, Any]:
        parts = [p.then("unescape") if isinstance(p, Ref) else html.unescape(str(p)) for p in marks.read(prompt)]
        return {"prompt": marks.write(parts)}

    def request_body(self, settings: Any) -> dict[str, Any]:
        body: dict[str, Any] = settings.prepare_settings_dict()
        return body | (body.pop("extra_body", None) or {})

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return ParrotTextPromptExecutionSettings

    # The stock ones, below the decorators that name OpenAI as the provider.
    _inner_get_text_contents = trace_text_completion(PROVIDER)(_whole.__wrapped__)
    _inner_get_streaming_text_contents = trace_streaming_text_completion(PROVIDER)(_streamed.__wrapped__)
