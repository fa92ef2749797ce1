"""Runs programs for the courier: `AsyncParrotClient.stream` and `cancel`, for less of the app's CPU time."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from semantic_parrot.adapters.http_connection import HttpConnections
from semantic_parrot.adapters.refusals import error_of, error_of_run
from semantic_parrot.adapters.sse import EventReader
from semantic_parrot.core.events import Event
from semantic_parrot.core.program import Program


class RunClient:
    """For one event loop. Server errors are raised as the class of `core.errors` that the error body names; failures of
    the connection as OSError, what is no event as pydantic.ValidationError."""

    def __init__(
        self, base_url: str, api_key: str | None, headers: Mapping[str, str], params: Mapping[str, Any]
    ) -> None:
        self._url = base_url.rstrip("/")
        key = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = HttpConnections(self._url, {**key, **headers}, params)

    async def stream(self, program: Program, headers: Mapping[str, str], told: Callable[[Event], None]) -> None:
        """Execute `program`; `told` of each event as it comes, to the last. Cancelling ends a prefetch run."""
        body = program.model_dump_json(exclude_defaults=True).encode()
        reader = EventReader()

        def feed(piece: bytes) -> None:
            for event in reader.feed(piece):
                told(event)

        status, refusal = await self._http.request("POST", "/runs", body, headers=headers, feed=feed)
        if status >= 300:
            raise error_of_run(status, f"{self._url}/runs", refusal)

    async def cancel(self, run_id: str, unclaimed: Collection[str]) -> None:
        """End a run. `unclaimed`: calls whose results nobody used, for the server's count of wasted tokens."""
        path, body = f"/runs/{run_id}", json.dumps({"unclaimed": list(unclaimed)}).encode()
        status, refusal = await self._http.request("DELETE", path, body, headers={})
        if status >= 300:
            raise error_of(status, f"{self._url}{path}", refusal)

    def close(self) -> None:
        self._http.close()
