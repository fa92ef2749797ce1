"""ParrotLLM: completion models, planned as chat models are."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import get_executor_for_config
from langchain_openai import OpenAI
from pydantic import Field, PrivateAttr

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.hints import stated_in
from semantic_parrot.adapters.langchain import instrument
from semantic_parrot.adapters.langchain.lower import Kwargs
from semantic_parrot.adapters.langchain.placed import Placed
from semantic_parrot.adapters.langchain.planner import PLANNER
from semantic_parrot.adapters.langchain.requests import FOR_TRACERS, obstacle, planned_request
from semantic_parrot.adapters.langchain.served import PARROT, Closing, count_tokens
from semantic_parrot.adapters.langchain.settings import CLIENT_ARGUMENTS, endpoint_of, settings_of
from semantic_parrot.adapters.langchain.values import Cut, Text, Value
from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.openai_http import forget_environment
from semantic_parrot.adapters.plan import Plan, Site
from semantic_parrot.adapters.transport import claiming_clients

#: A subclass that overrides one of these may send another request than the one we would plan.
REQUEST_BUILDING = (
    "_invocation_params",
    "_default_params",
    "_convert_input",
    "_generate",
    "_agenerate",
    "_stream",
    "_astream",
    "get_sub_prompts",
    "parrot_request",
)


class ParrotLLM(Placed, Closing, OpenAI):
    """LangChain's `OpenAI` for a Parrot server. `base_url`, `model` and `api_key` default as those of `ChatParrot`: no
    OPENAI_* variable is read. What is not planned of several prompts goes out at the same time.
    """

    embedded_flags: tuple[str, ...] = Field(default=(), exclude=True)

    _endpoint: Endpoint = PrivateAttr()
    _own_clients: bool = PrivateAttr()

    def __init__(self, **kwargs: Any) -> None:
        settings = settings_of(kwargs)
        endpoint = endpoint_of(settings)
        own = not any(settings.get(name) for name in CLIENT_ARGUMENTS)
        if own:
            settings["http_client"], settings["http_async_client"] = claiming_clients(endpoint)
        super().__init__(**settings)
        self._endpoint = endpoint
        self._own_clients = own
        if settings.get("openai_organization") is None:
            self.openai_organization = None
        for resource in (self.client, self.async_client):
            forget_environment(resource._client, self.openai_organization, self.default_headers)
        instrument.install()

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    # What the lowering asks of a model.

    @property
    def parrot_endpoint(self) -> Endpoint:
        return self._endpoint

    def parrot_obstacle(self) -> str | None:
        if not self._own_clients:
            return "it was given an HTTP client or a proxy of its own"
        if inspect.iscoroutinefunction(self._endpoint.api_key):
            return "its API key is an asynchronous function"
        return obstacle(self, ParrotLLM, REQUEST_BUILDING)

    def parrot_answer(self, text: Ref) -> Value:
        return Text((text,))

    def parrot_request(self, given: Any, kwargs: Kwargs, plan: Plan, site: Site) -> dict[str, Any]:
        reason = self.parrot_obstacle() or PLANNER.ledger.reason(site)
        if reason is not None:
            raise Cut(reason)
        kwargs = {name: value for name, value in kwargs.items() if name not in FOR_TRACERS}
        stop = kwargs.pop("stop", None)
        body = {"prompt": self._convert_input(given).to_string(), **self._invocation_params, **kwargs}
        if body.get("max_tokens") == -1:
            raise Cut("how long its answer may be depends on the tokens of its prompt")
        if body.get("logprobs") is not None:
            raise Cut("log-probabilities of completions are not replayed")
        self.get_sub_prompts(body, [body["prompt"]], stop)  # which adds the stop words
        return planned_request(body, self._endpoint, plan)

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
