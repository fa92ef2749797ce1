"""The events of a run, read as a client reads them that comes back."""

from __future__ import annotations

import json
from typing import Any

import httpx


def followed(http: httpx.Client, run: str, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
    """(number, event) of those past `after`, to the end of the stream."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    found: list[tuple[int, dict[str, Any]]] = []
    with http.stream("GET", f"/v1/runs/{run}", headers=headers) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                found.append((number, json.loads(line[6:])))
    return found
