"""The request that a model would send, as a call of a plan."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.globals import get_llm_cache

from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.langchain.values import Cut
from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.core.wire import IGNORED

#: LangChain's own arguments, for its tracers; it takes them out before it builds a request.
FOR_TRACERS = ("ls_structured_output_format", "structured_output_format")


def obstacle(model: Any, own: type, building: tuple[str, ...]) -> str | None:
    """Why no call of `model` can be planned, as far as its settings tell. A subclass of `own` that overrides one of the
    methods `building` may send another request than the one that we would plan."""
    for name in building if type(model) is not own else ():
        if getattr(type(model), name) is not getattr(own, name):
            return f"{type(model).__name__} overrides {name}"
    if model.cache or (model.cache is None and get_llm_cache() is not None):
        return "its answers are cached on the client"
    return None


def planned_request(body: dict[str, Any], endpoint: Endpoint, plan: Plan) -> dict[str, Any]:
    """`body`, the arguments of the OpenAI client, as it would send them, with templates. Raises Cut."""
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
    if plan.repeating not in (None, endpoint):
        raise Cut("it is called for each item of a list of another server")

    def name(ref: Ref) -> str:
        if plan.server_of(ref.variable) != endpoint:
            raise Cut("its prompt needs an answer of another server")
        return plan.name(ref)

    request: dict[str, Any] = plan.marks.templates(body, name)
    return request
