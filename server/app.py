"""The HTTP application: a factory, and the routers that share its Service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

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


class Application(Starlette):
    """FastAPI describes its routes; no request passes through FastAPI."""

    _document: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        if self._document is None:
            self._document = describe("Parrot", version("semantic-parrot"), self.routes)
        return self._document


def create_app(
    runtime: Runtime,
    settings: Settings | None = None,
    keyring: Keyring | None = None,
    limits: Limits | None = None,
) -> Application:
    """An application that starts `runtime` when it starts and closes it when it ends. `keyring` None: no keys are asked
    for, and all requests are one tenant's. `limits` None: none is refused for what others, or it, have asked before."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await runtime.start()
        try:
            yield
        finally:
            await runtime.close()

    async def openapi(_: Request) -> Response:
        return JSONResponse(app.openapi())

    app = Application(lifespan=lifespan)
    app.router.redirect_slashes = False
    service = Service(runtime, settings or Settings())
    # The busiest first: routes are looked through in their order.
    for room in (completions, runs, responses, reports, sessions, meta):
        app.routes.extend(room.routes(service).routes)
    app.add_route("/openapi.json", openapi)
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
    app.routes.extend(dashboard.routes(service, visits).routes)
    errors.install(app)
    app.add_middleware(errors.QuietEnd)
    return app
