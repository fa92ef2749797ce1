"""ChatParrot: ChatOpenAI whose calls are planned together."""

from __future__ import annotations

import inspect
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import Field, PrivateAttr

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.langchain import instrument
from semantic_parrot.adapters.langchain.fast import Fast
from semantic_parrot.adapters.langchain.lower import Kwargs
from semantic_parrot.adapters.langchain.placed import Placed
from semantic_parrot.adapters.langchain.plain_stream import resources
from semantic_parrot.adapters.langchain.planner import PLANNER
from semantic_parrot.adapters.langchain.requests import FOR_TRACERS, obstacle, planned_request
from semantic_parrot.adapters.langchain.served import Served
from semantic_parrot.adapters.langchain.settings import CLIENT_ARGUMENTS, endpoint_of, settings_of
from semantic_parrot.adapters.langchain.values import Cut
from semantic_parrot.adapters.openai_http import forget_environment
from semantic_parrot.adapters.plan import Plan, Site
from semantic_parrot.adapters.transport import AsyncClient, SyncClient, claiming_clients

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


#: Arguments by which an app hands in what sends its requests.
RESOURCES = ("client", "async_client", "root_client", "root_async_client")


class ChatParrot(Placed, Fast, Served, ChatOpenAI):
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
        if not any(settings.get(name) for name in RESOURCES):
            plain = resources()
            self.client = self.client and plain.blocking(self.root_client)
            self.async_client = plain.asynchronous(self.root_async_client)
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
        if self.rate_limiter is not None:
            return "it has a rate limiter"
        return obstacle(self, ChatParrot, REQUEST_BUILDING)

    def parrot_request(self, given: Any, kwargs: Kwargs, plan: Plan, site: Site) -> dict[str, Any]:
        reason = self.parrot_obstacle() or PLANNER.ledger.reason(site)
        if reason is not None:
            raise Cut(reason)
        kwargs = {name: value for name, value in kwargs.items() if name not in FOR_TRACERS}
        body: dict[str, Any] = self._get_request_payload(given, **kwargs)
        if "messages" not in body:
            raise Cut("it uses the Responses API")
        return planned_request(body, self._endpoint, plan)

    def fast_endpoint(self) -> Endpoint | None:
        return self._endpoint if self._own_clients else None
