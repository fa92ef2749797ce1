"""A server's runs, asked for over HTTP by the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx


class Refused(Exception):
    """The command can't be done. The message is one line."""


@dataclass(frozen=True, slots=True)
class Server:
    """`url`: with /v1 or without. `key`: an API key, if the server asks for one. Each method raises Refused."""

    url: str
    key: str | None = None

    def listing(self, most: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._ask("GET", f"?limit={most}")["data"]
        return rows

    def run(self, run: str) -> dict[str, Any]:
        return self._ask("GET", f"/{quote(run, safe='')}")

    def cancel(self, run: str) -> dict[str, Any]:
        return self._ask("DELETE", f"/{quote(run, safe='')}")

    def trace(self, run: str) -> dict[str, Any]:
        """For Perfetto."""
        return self._ask("GET", f"/{quote(run, safe='')}/trace")

    def events(self, run: str) -> Iterator[str]:
        """Its events as JSON, each in one line, to its end."""
        place = f"/{quote(run, safe='')}"
        with self._stream(place) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield line.removeprefix("data: ")

    @property
    def _base(self) -> str:
        return f"{self.url.rstrip('/').removesuffix('/v1')}/v1/runs"

    def _headers(self, accept: str) -> dict[str, str]:
        return {"Accept": accept} | ({} if self.key is None else {"Authorization": f"Bearer {self.key}"})

    def _ask(self, method: str, place: str) -> dict[str, Any]:
        with _explained(self._base):
            response = httpx.request(method, self._base + place, headers=self._headers("application/json"), timeout=30)
        return _object(response)

    @contextmanager
    def _stream(self, place: str) -> Iterator[httpx.Response]:
        headers = self._headers("text/event-stream")
        with _explained(self._base), httpx.stream("GET", self._base + place, headers=headers, timeout=60) as response:
            if response.status_code != 200:
                response.read()
                _object(response)
            yield response


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.InvalidURL, httpx.HTTPError) as error:
        raise Refused(f"{url}: {str(error) or type(error).__name__}") from None


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(f"{response.url}: no JSON object, so this is no Parrot server")
    if response.status_code != 200:
        fault = body.get("error")
        message = fault.get("message") if isinstance(fault, dict) else None
        raise Refused(f"{response.url}: {message or response.status_code}")
    return body
