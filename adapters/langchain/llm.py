"""ParrotLLM: completion models, of which every call goes out by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import get_executor_for_config
from langchain_openai import OpenAI
from pydantic import Field

from semantic_parrot.adapters.hints import stated_in
from semantic_parrot.adapters.langchain.served import PARROT, Closing, count_tokens
from semantic_parrot.adapters.langchain.settings import CLIENT_ARGUMENTS, endpoint_of, settings_of
from semantic_parrot.adapters.openai_http import forget_environment
from semantic_parrot.adapters.transport import claiming_clients


class ParrotLLM(Closing, OpenAI):
    """LangChain's `OpenAI` for a Parrot server. `base_url`, `model` and `api_key` default as those of `ChatParrot`: no
    OPENAI_* variable is read. Its calls are not planned; several prompts go out at the same time.
    """

    embedded_flags: tuple[str, ...] = Field(default=(), exclude=True)

    def __init__(self, **kwargs: Any) -> None:
        settings = settings_of(kwargs)
        if not any(settings.get(name) for name in CLIENT_ARGUMENTS):
            settings["http_client"], settings["http_async_client"] = claiming_clients(endpoint_of(settings))
        super().__init__(**settings)
        if settings.get("openai_organization") is None:
            self.openai_organization = None
        for resource in (self.client, self.async_client):
            forget_environment(resource._client, self.openai_organization, self.default_headers)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        kwargs = self._hinted(run_manager, kwargs)
        generate = super()._generate

        def one(prompt: str) -> LLMResult:
            return generate([prompt], stop, run_manager, **kwargs)

        if len(prompts) == 1:
            return one(prompts[0])
        with get_executor_for_config(None) as executor:
            return _joined(list(executor.map(one, prompts)))

    async def _agenerate(
        self, prompts: list[str], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> LLMResult:
        kwargs = self._hinted(run_manager, kwargs)
        calls = [super(ParrotLLM, self)._agenerate([prompt], stop, run_manager, **kwargs) for prompt in prompts]
        return _joined(await asyncio.gather(*calls))

    def get_sub_prompts(self, params: dict[str, Any], prompts: list[str], stop: list[str] | None = None) -> Any:
        """A request takes one prompt, and that as a text; a stream takes it out of its list by itself."""
        lists = super().get_sub_prompts(params, prompts, stop)
        return lists if self.streaming or params.get("stream") else prompts

    def _stream(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        return super()._stream(prompt, stop, run_manager, **self._hinted(run_manager, kwargs))

    def _astream(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        return super()._astream(prompt, stop, run_manager, **self._hinted(run_manager, kwargs))

    def _hinted(self, run_manager: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        told = stated_in(getattr(run_manager, "metadata", None)).told()
        if not told:
            return kwargs
        body = {**(self.extra_body or {}), **(kwargs.get("extra_body") or {})}
        return {**kwargs, "extra_body": {**body, PARROT: {**told, **(body.get(PARROT) or {})}}}

    def get_token_ids(self, text: str) -> list[int]:
        if self.custom_get_token_ids is None:
            tokens = count_tokens(self.client._client, model=self.model_name, prompt=text)
            if tokens is not None:
                return tokens
        return super().get_token_ids(text)


def _joined(results: Sequence[LLMResult]) -> LLMResult:
    """The results of one prompt each as one of all; tokens are added up."""
    usage: Counter[str] = Counter()
    for result in results:
        usage.update((result.llm_output or {}).get("token_usage") or {})
    output = {**(results[0].llm_output or {}), "token_usage": dict(usage)}
    return LLMResult(generations=[result.generations[0] for result in results], llm_output=output)
