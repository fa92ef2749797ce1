"""The HTTP application: a factory, and the routers that share its Service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server import completions, errors, meta, reports, responses, runs, sessions
from semantic_parrot.server.dashboard import routes as dashboard
from semantic_parrot.server.hosts import OwnNames
from semantic_parrot.server.openapi import describe
from semantic_parrot.server.service import Service, Settings
from semantic_parrot.server.slow import Punctual
from semantic_parrot.server.tenants.throttle import Throttle

if TYPE_CHECKING:
    from semantic_parrot.server.tenants.keys import Keyring
    from semantic_parrot.server.tenants.limits import Limits


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = describe(self)
        return self.openapi_schema


def create_app(
    runtime: Runtime,
    settings: Settings | None = None,
    keyring: Keyring | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """An application that starts `runtime` when it starts and closes it when it ends. `keyring` None: no keys are asked
    for, and all requests are one tenant's. `limits` None: none is refused for what others, or it, have asked before."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await runtime.start()
        try:
            yield
        finally:
            await runtime.close()

    app = _Application(
        title="Parrot",
        version=version("semantic-parrot"),
        lifespan=lifespan,
        redirect_slashes=False,
        # Its pages load scripts from elsewhere; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
    )
    service = Service(runtime, settings or Settings())
    # The busiest first: routes are looked through in their order.
    for room in (completions, runs, responses, reports, sessions, meta):
        app.include_router(room.routes(service))
    app.add_middleware(Punctual, service.settings.slow)
    if limits is not None:
        app.add_middleware(Throttle, limits)
    visits = None
    if keyring is not None:
        from semantic_parrot.server.dashboard.visits import Visits
        from semantic_parrot.server.tenants.gate import Gate

        visits = Visits(keyring)
        app.add_middleware(Gate, keyring, visits)
    else:
        app.add_middleware(OwnNames)
    app.include_router(dashboard.routes(service, visits))
    errors.install(app)
    app.add_middleware(errors.QuietEnd)
    return app
