"""Whose request it is."""

from __future__ import annotations

from fastapi import Request
from starlette.types import Scope

#: Whether the server lives, and nothing else: for load balancers, which have no key.
OPEN = frozenset({"/healthz", "/readyz"})

_TENANT, _OPERATOR = "parrot.tenant", "parrot.operator"


def tenant_of(request: Request) -> str:
    """The tenant that the request belongs to; "" where the server asks for no keys: then all are one."""
    found: str = request.scope.get(_TENANT, "")
    return found


def operates(request: Request) -> bool:
    """Whether the request may see what is about the whole server: it had an operator's key, or no key is asked for."""
    found: bool = request.scope.get(_OPERATOR, True)
    return found


def belongs(scope: Scope, tenant: str, *, operator: bool = False) -> None:
    """The request of `scope` is the tenant's: it had the tenant's key, or an operator's."""
    scope[_TENANT], scope[_OPERATOR] = tenant, operator
