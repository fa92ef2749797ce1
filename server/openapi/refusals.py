"""With which statuses what is refused, and why, for the description of a route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from semantic_parrot.server.openapi.operations import Operation
from semantic_parrot.server.tenants.identity import OPEN
from semantic_parrot.server.tenants.throttle import WORK

#: (path, operation) -> whether it may be refused so.
Applies = Callable[[str, Operation], bool]

_WAIT = {
    "Retry-After": ("Seconds until another try may be let in.", {"type": "string", "pattern": "^[0-9]+$"}),
    "Retry-After-Ms": ("The same in milliseconds.", {"type": "string", "pattern": "^[0-9]+$"}),
}
_CLOSES = {"Connection": ("What is left of the body is not read.", {"const": "close"})}


@dataclass(frozen=True, slots=True)
class Refusal:
    """`headers`: of each such answer, what they say and their schema."""

    why: str
    applies: Applies
    headers: dict[str, tuple[str, dict[str, Any]]]

    def described(self, content: dict[str, Any]) -> dict[str, Any]:
        headers = {
            name: {"description": about, "required": True, "schema": schema}
            for name, (about, schema) in self.headers.items()
        }
        return {"description": self.why, "content": content, **({"headers": headers} if headers else {})}


def _takes_a_body(_: str, operation: Operation) -> bool:
    return operation.body is not None


def _makes_work(path: str, _: Operation) -> bool:
    return WORK.fullmatch(path) is not None


def _asks_for_a_key(path: str, _: Operation) -> bool:
    return path not in OPEN


#: What else is refused (4XX) is as particular as the request.
REFUSALS: dict[str, Refusal] = {
    "401": Refusal(
        "No API key, or one that is not known here or was revoked, where keys are asked for.",
        _asks_for_a_key,
        {"WWW-Authenticate": ("How to send one.", {"type": "string"})},
    ),
    "403": Refusal("An API key that is not for this: a tenant's or an operator's.", _asks_for_a_key, {}),
    "408": Refusal("The body had not come whole in time.", _takes_a_body, _CLOSES),
    "413": Refusal("The body is too large.", _takes_a_body, _CLOSES),
    "429": Refusal(
        "A rate, a quota or the length of a queue is used up; `code` says which.",
        _makes_work,
        _WAIT,
    ),
}
