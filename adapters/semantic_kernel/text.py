"""ParrotTextCompletion: OpenAITextCompletion for a Parrot server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from openai import AsyncOpenAI
from semantic_kernel.connectors.ai.open_ai import OpenAITextCompletion
from semantic_kernel.connectors.ai.open_ai.services.open_ai_model_types import OpenAIModelTypes
from semantic_kernel.connectors.ai.open_ai.services.open_ai_text_completion_base import OpenAITextCompletionBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.utils.telemetry.model_diagnostics.decorators import (
    trace_streaming_text_completion,
    trace_text_completion,
)

from semantic_parrot.adapters.semantic_kernel.connection import connect, model_of, refuse_both
from semantic_parrot.adapters.semantic_kernel.settings import ParrotTextPromptExecutionSettings

PROVIDER = "parrot"

_whole: Any = OpenAITextCompletionBase._inner_get_text_contents
_streamed: Any = OpenAITextCompletionBase._inner_get_streaming_text_contents


class ParrotTextCompletion(OpenAITextCompletion):
    """`OpenAITextCompletion` for a Parrot server; its arguments are ParrotChatCompletion's. Its calls are not planned:
    each goes out by itself."""

    MODEL_PROVIDER_NAME: ClassVar[str] = PROVIDER

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
    ) -> None:
        model = model_of(ai_model_id)
        refuse_both(async_client, base_url=base_url, api_key=api_key, org_id=org_id, default_headers=default_headers)
        client = async_client
        if client is None:
            _, client = connect(model, base_url, api_key, org_id, default_headers, embedded_flags)
        # Past OpenAITextCompletion's own, which reads OPENAI_* variables and .env files.
        super(OpenAITextCompletion, self).__init__(
            ai_model_id=model,
            api_key=None,
            org_id=None,
            service_id=service_id,
            ai_model_type=OpenAIModelTypes.TEXT,
            client=client,
        )

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> ParrotTextCompletion:
        """A service from a dictionary of its arguments."""
        return cls(**settings)

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return ParrotTextPromptExecutionSettings

    # The stock ones, below the decorators that name OpenAI as the provider.
    _inner_get_text_contents = trace_text_completion(PROVIDER)(_whole.__wrapped__)
    _inner_get_streaming_text_contents = trace_streaming_text_completion(PROVIDER)(_streamed.__wrapped__)
