"""What the lowering asks of a service, and what ours have in common: the server, and the requests to it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.marks import Marks, Ref
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.semantic_kernel.fast import Fast
from semantic_parrot.adapters.semantic_kernel.templates import Cut
from semantic_parrot.core.wire import IGNORED

PROVIDER = "parrot"


class LowerableService(ABC):
    """A service whose calls can be planned."""

    @property
    @abstractmethod
    def parrot_endpoint(self) -> Endpoint:
        """The server that its calls go to."""

    @abstractmethod
    def parrot_obstacle(self, settings: Any) -> str | None:
        """Why a call of this service with `settings` can't be planned, or None."""

    @abstractmethod
    def parrot_content(self, prompt: str, marks: Marks) -> dict[str, Any]:
        """What a request of it says of a function whose prompt is rendered as `prompt`. Raises Cut."""

    @abstractmethod
    def parrot_request(self, settings: Any, content: dict[str, Any], plan: Plan) -> dict[str, Any]:
        """The body of the request that it would send, with templates where `content` holds marks. Raises Cut."""


class ParrotService(Fast, LowerableService):
    """A service of a Parrot server, or, with a client of the app, of whatever server that has."""

    MODEL_PROVIDER_NAME: ClassVar[str] = PROVIDER

    if TYPE_CHECKING:
        # Theirs to declare: here, pydantic would call its own `model_post_init` in place of Semantic Kernel's.
        _endpoint: Endpoint | None

    def fast_endpoint(self) -> Endpoint | None:
        return self._endpoint

    @property
    def parrot_endpoint(self) -> Endpoint:
        assert self._endpoint is not None, "nothing is planned without"
        return self._endpoint

    def parrot_request(self, settings: Any, content: dict[str, Any], plan: Plan) -> dict[str, Any]:
        body = {**self.request_body(settings), "model": settings.ai_model_id or self.ai_model_id}
        return planned_request(body, content, self.parrot_endpoint, plan)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """A service from a dictionary of its arguments."""
        return cls(**settings)


def overridden(service: object, own: type, building: Sequence[str]) -> str | None:
    """Why a subclass of `own` can't be planned: it may send another request than the one we would plan."""
    for name in building if type(service) is not own else ():
        if getattr(type(service), name) is not getattr(own, name):
            return f"{type(service).__name__} overrides {name}"
    return None


def planned_request(body: dict[str, Any], content: dict[str, Any], endpoint: Endpoint, plan: Plan) -> dict[str, Any]:
    """`body` with `content`, as a request of `plan`. Raises Cut."""
    try:
        request: dict[str, Any] = json.loads(json.dumps({k: v for k, v in body.items() if k not in IGNORED}))
    except (TypeError, ValueError):
        raise Cut("a setting is no JSON") from None

    def name(ref: Ref) -> str:
        if plan.server_of(ref.variable) != endpoint:
            raise Cut("its prompt needs an answer of another server")
        return plan.name(ref)

    request.update(plan.marks.templates(content, name))
    return request
