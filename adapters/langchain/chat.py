"""ChatParrot: ChatOpenAI whose calls are planned together."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_openai import ChatOpenAI
from pydantic import Field, PrivateAttr

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.hints import HINTS, Hints
from semantic_parrot.adapters.langchain import instrument
from semantic_parrot.adapters.langchain.fast import Fast
from semantic_parrot.adapters.langchain.frames import FRAME, caller_of
from semantic_parrot.adapters.langchain.lower import Kwargs, LowerableModel
from semantic_parrot.adapters.langchain.planner import PLANNER, ModelSite, enter_calls, hints_for
from semantic_parrot.adapters.langchain.served import Served
from semantic_parrot.adapters.langchain.settings import CLIENT_ARGUMENTS, endpoint_of, settings_of
from semantic_parrot.adapters.langchain.values import Cut
from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.openai_http import forget_environment
from semantic_parrot.adapters.plan import Plan, Site
from semantic_parrot.adapters.scope import SCOPE, SITE
from semantic_parrot.adapters.transport import AsyncClient, SyncClient, claiming_clients
from semantic_parrot.core.wire import IGNORED

#: A subclass that overrides one of these may send another request than the one we would plan.
REQUEST_BUILDING = (
    "_get_request_payload",
    "_default_params",
    "_convert_input",
    "_generate",
    "_agenerate",
    "_stream",
    "_astream",
    "parrot_request",
)


class ChatParrot(Fast, Served, ChatOpenAI, LowerableModel):
    """`ChatOpenAI` for a Parrot server: it takes every argument of that class, and chains that contain it run as one
    program on the server.

    `base_url`: the server, else PARROT_BASE_URL, else http://127.0.0.1:8765/v1. "embedded" starts a server for the
    directory `model` as a child process (`embedded_flags`: its further flags). `api_key`: else PARROT_API_KEY, else
    none. `model`: else PARROT_MODEL, else "default". No OPENAI_* variable is read.
    """

    embedded_flags: tuple[str, ...] = Field(default=(), exclude=True)

    _endpoint: Endpoint = PrivateAttr()
    _own_clients: bool = PrivateAttr()

    def __init__(self, **kwargs: Any) -> None:
        settings = settings_of(kwargs)
        endpoint = endpoint_of(settings)
        given = [settings.get(name) for name in CLIENT_ARGUMENTS]
        own = all(value is None or isinstance(value, SyncClient | AsyncClient) for value in given)
        if not any(given):
            settings["http_client"], settings["http_async_client"] = claiming_clients(endpoint)
        # ChatOpenAI asks servers other than OpenAI's for no usage; a Parrot server tells it.
        if settings.get("stream_usage") is None:
            settings["stream_usage"] = True
        super().__init__(**settings)
        self._endpoint = endpoint
        self._own_clients = own
        if settings.get("openai_organization") is None:
            self.openai_organization = None
        for client in (self.root_client, self.root_async_client):
            forget_environment(client, self.openai_organization, self.default_headers)
        instrument.install()

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    # What the lowering asks of a model.

    @property
    def parrot_endpoint(self) -> Endpoint:
        return self._endpoint

    def parrot_obstacle(self) -> str | None:
        own = type(self)
        if own is not ChatParrot:
            for name in REQUEST_BUILDING:
                if getattr(own, name) is not getattr(ChatParrot, name):
                    return f"{own.__name__} overrides {name}"
        if not self._own_clients:
            return "it was given an HTTP client or a proxy of its own"
        if inspect.iscoroutinefunction(self._endpoint.api_key):
            return "its API key is an asynchronous function"
        if self.cache or (self.cache is None and get_llm_cache() is not None):
            return "its answers are cached on the client"
        if self.rate_limiter is not None:
            return "it has a rate limiter"
        return None

    def parrot_request(self, given: Any, kwargs: Kwargs, plan: Plan, site: Site) -> dict[str, Any]:
        obstacle = self.parrot_obstacle() or PLANNER.ledger.reason(site)
        if obstacle is not None:
            raise Cut(obstacle)
        # LangChain's own, for its tracers; it takes them out before it builds a request.
        kwargs = {name: value for name, value in kwargs.items() if name not in _FOR_TRACERS}
        body: dict[str, Any] = self._get_request_payload(given, **kwargs)
        if "messages" not in body:
            raise Cut("it uses the Responses API")
        if any(body.pop(name, None) for name in ("extra_headers", "extra_query")):
            raise Cut("the call has headers or a query of its own")
        body.pop("timeout", None)
        if isinstance(body.get("response_format"), type):
            # As the OpenAI client does when it sends it; private, but Semantic Kernel imports it from there too.
            from openai.lib._parsing._completions import type_to_response_format_param

            body["response_format"] = type_to_response_format_param(body["response_format"])
        body |= body.pop("extra_body", None) or {}
        try:
            body = json.loads(json.dumps({key: value for key, value in body.items() if key not in IGNORED}))
        except (TypeError, ValueError):
            raise Cut("an argument of the call is no JSON") from None
        if plan.repeating not in (None, self._endpoint):
            raise Cut("it is called for each item of a list of another server")

        def name(ref: Ref) -> str:
            if plan.server_of(ref.variable) != self._endpoint:
                raise Cut("its prompt needs an answer of another server")
            return plan.name(ref)

        request: dict[str, Any] = plan.marks.templates(body, name)
        return request

    def fast_endpoint(self) -> Endpoint | None:
        return self._endpoint if self._own_clients else None

    # Where a call sits is known only here.

    @contextmanager
    def _sited(self, config: Any, hints: Hints) -> Iterator[None]:
        instrument.catch_up()
        frame = FRAME.get() if SCOPE.get() is not None else None
        site = SITE.set(None if frame is None else ModelSite(PLANNER, self, frame, caller_of(config)))
        told = HINTS.set(hints)
        try:
            yield
        finally:
            HINTS.reset(told)
            SITE.reset(site)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._sited(config, hints_for(config)):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._sited(config, hints_for(config)):
            return await super().ainvoke(input, config, **kwargs)

    # Calls that go out one by one are planned together.

    @contextmanager
    def _together(self, inputs: Any, config: Any, kwargs: Kwargs) -> Iterator[None]:
        instrument.catch_up()
        configs = config if isinstance(config, list) else [config] * len(inputs)
        bound = {name: value for name, value in kwargs.items() if name not in _OF_THE_RUN}
        visit = enter_calls(self, inputs, configs, bound)
        if visit is None:
            yield
            return
        try:
            with visit.inside():
                yield
        finally:
            visit.close()

    def batch(self, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._together(inputs, config, kwargs):
            return super().batch(inputs, config, **kwargs)

    async def abatch(self, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        with self._together(inputs, config, kwargs):
            return await super().abatch(inputs, config, **kwargs)

    def generate_prompt(self, prompts: Any, stop: Any = None, callbacks: Any = None, **kwargs: Any) -> Any:
        with self._together(prompts, None, {"stop": stop, **kwargs}):
            return super().generate_prompt(prompts, stop, callbacks, **kwargs)

    async def agenerate_prompt(self, prompts: Any, stop: Any = None, callbacks: Any = None, **kwargs: Any) -> Any:
        with self._together(prompts, None, {"stop": stop, **kwargs}):
            return await super().agenerate_prompt(prompts, stop, callbacks, **kwargs)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        chunks: Any = super().stream(input, config, **kwargs)
        hints = hints_for(config)
        try:
            while True:
                with self._sited(config, hints):
                    try:
                        chunk = next(chunks)
                    except StopIteration:
                        return
                yield chunk
        finally:
            chunks.close()

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        chunks: Any = super().astream(input, config, **kwargs)
        hints = hints_for(config)
        try:
            while True:
                with self._sited(config, hints):
                    try:
                        chunk = await anext(chunks)
                    except StopAsyncIteration:
                        return
                yield chunk
        finally:
            await chunks.aclose()


_OF_THE_RUN = ("return_exceptions", "tags", "metadata", "run_name", "run_id")
_FOR_TRACERS = ("ls_structured_output_format", "structured_output_format")
