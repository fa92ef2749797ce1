"""Whose request it is."""

from __future__ import annotations

from fastapi import Request
from starlette.types import Scope

_FIELD = "parrot.tenant"


def tenant_of(request: Request) -> str:
    """The tenant that the request belongs to; "" where the server asks for no keys: then all are one."""
    found: str = request.scope.get(_FIELD, "")
    return found


def belongs(scope: Scope, tenant: str) -> None:
    """The request of `scope` is the tenant's: it had the tenant's key."""
    scope[_FIELD] = tenant
