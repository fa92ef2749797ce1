"""Who is compared: a server, and the model class with which the apps call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel

from peers import PEERS
from peers.parrot import Parrot
from peers.peer import Peer
from semantic_parrot.core.scheduling import OPTIMISATIONS
from workloads import Framework

OURS = "parrot"
WITHOUT = "without:"
BARE = ("--no-prefix-cache",)

#: (base URL, name) → what an app is handed.
Model = Callable[[str, str], Any]


def lowered(url: str, model: str) -> BaseChatModel:
    from semantic_parrot.adapters.langchain import ChatParrot

    return ChatParrot(base_url=url, model=model, **_settings())


def eager(url: str, model: str) -> BaseChatModel:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=url, model=model, stream_usage=True, **_own_client(), **_settings())


def strict(url: str, model: str) -> BaseChatModel:
    """For a server that refuses fields that it does not know. (The weights never end an answer by themselves.)"""
    from langchain_openai.chat_models.base import BaseChatOpenAI

    settings = _settings()
    del settings["extra_body"]
    return BaseChatOpenAI(base_url=url, model=model, **_own_client(), **settings)


def _own_client() -> dict[str, Any]:
    """Not the one that LangChain keeps for the whole process: this one is closed."""
    return {"api_key": "none", "http_async_client": _connections()}


def _connections() -> Any:
    """As the OpenAI client makes them, but none is kept so long that its server (uvicorn: after 5 s) ends it just when
    it is used. Where one does all the same (llama.cpp's at times), the request is sent once more, as any client does by
    default; these do not otherwise try again."""
    from openai import DefaultAsyncHttpxClient

    from semantic_parrot.adapters.openai_http import http

    class Again(http.AsyncHTTPTransport):
        async def handle_async_request(self, request: http.Request) -> http.Response:
            try:
                return await super().handle_async_request(request)
            except http.RemoteProtocolError:  # before an answer has begun
                return await super().handle_async_request(request)

    limits = http.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=3.0)
    return DefaultAsyncHttpxClient(timeout=None, transport=Again(limits=limits))


@dataclass(frozen=True, slots=True)
class KernelService:
    """A chat completion of Semantic Kernel. `attach`: what a kernel needs besides."""

    service: Any
    attach: Callable[[Any], None] = lambda _: None

    def into(self, kernel: Any) -> None:
        kernel.add_service(self.service)
        self.attach(kernel)

    def tokens(self) -> int:
        return int(self.service.completion_tokens)

    async def aclose(self) -> None:
        await self.service.client.close()


def lowered_kernel(url: str, model: str) -> KernelService:
    from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion, attach

    return KernelService(ParrotChatCompletion(model, base_url=url), attach)


def eager_kernel(url: str, model: str) -> KernelService:
    from openai import AsyncOpenAI
    from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion

    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=_connections())
    return KernelService(OpenAIChatCompletion(ai_model_id=model, async_client=client))


#: The same on Semantic Kernel. Its settings are the app's, and ask for nothing that a server could refuse.
KERNELS: dict[Model, Model] = {lowered: lowered_kernel, eager: eager_kernel, strict: eager_kernel}


async def close(model: Any) -> None:
    """Its connections."""
    await (model.aclose() if hasattr(model, "aclose") else model.root_async_client.close())


def _settings() -> dict[str, Any]:
    # A request that fails is to be seen, and none may end early.
    return {"temperature": 0, "max_retries": 0, "timeout": None, "extra_body": {"ignore_eos": True}}


@dataclass(frozen=True, slots=True)
class Comparator:
    """`server`: the key of what it runs on; those of one key share a process. `flags`: of our own server. `peer` None:
    ours."""

    name: str
    title: str
    server: str
    model: Model = eager
    flags: tuple[str, ...] = ()
    peer: type[Peer] | None = None

    def handed(self, framework: Framework, url: str, model: str) -> Any:
        """What an app of that framework is given."""
        return (self.model if framework == "langchain" else KERNELS[self.model])(url, model)

    def start_with(self, home: Path, flags: tuple[str, ...]) -> Peer:
        """`flags`: of our own servers, besides."""
        if self.peer is not None:
            return self.peer(home)
        return Parrot(home, f"parrot-{self.server.replace(':', '-')}", (*self.flags, *flags, "--dev"))


#: OpenVINO has no server with OpenAI's routes.
HTTP_PEERS = tuple(name for name in PEERS if name not in ("parrot", "openvino"))


def comparator(name: str) -> Comparator:
    """Raises ValueError with one line for a name that is none."""
    if name.startswith(WITHOUT):
        return _without(name.removeprefix(WITHOUT))
    known = {
        OURS: Comparator(OURS, "planned by ChatParrot, on our server", "own", lowered),
        "E0": Comparator("E0", "call by call, on our server without prefix cache", "bare", flags=BARE),
        "E1": Comparator("E1", "call by call, on our server", "own"),
    }
    if name in known:
        return known[name]
    if name not in HTTP_PEERS:
        there = ", ".join([*known, *HTTP_PEERS, f"{WITHOUT}NAME"])
        raise ValueError(f"nobody to compare with is called {name!r}; there is: {there}")
    model = strict if name == "transformers" else eager
    return Comparator(name, f"call by call, on {name}", name, model, peer=PEERS[name])


def _without(optimisation: str) -> Comparator:
    name, title = f"{WITHOUT}{optimisation}", f"planned by ChatParrot, {optimisation} off"
    if optimisation == "planning":
        return Comparator(name, "call by call, on our server", "own")
    if optimisation == "prefix-cache":
        return Comparator(name, title, "bare", lowered, BARE)
    if optimisation not in OPTIMISATIONS:
        there = ", ".join(["planning", "prefix-cache", *sorted(OPTIMISATIONS)])
        raise ValueError(f"no optimisation is called {optimisation!r}; there is: {there}")
    return Comparator(name, title, name, lowered, (f"--disable={optimisation}",))
