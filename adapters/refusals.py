"""What a response that is no success stands for, whichever HTTP library brought it."""

from __future__ import annotations

import json

from semantic_parrot.core.errors import InternalError, NotFound, ParrotError, UnknownModel, from_code


class NotParrot(NotFound):
    """The server has no `/v1/runs`: it may well speak OpenAI's protocol, but it runs no programs."""

    code = "not_parrot"


def error_of(status: int, url: str, body: bytes) -> ParrotError:
    """The error that a response with a `status` of 300 or more stands for."""
    try:
        error = json.loads(body)["error"]
        return from_code(str(error.get("code")), str(error["message"]), error.get("param"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return InternalError(f"HTTP {status} from {url}: {body[:200].decode(errors='replace')}")


def error_of_run(status: int, url: str, body: bytes) -> ParrotError:
    """The error of a POST to runs; a missing route is told from a missing model."""
    found = error_of(status, url, body)
    if status in (404, 405, 501) and not isinstance(found, UnknownModel):
        return NotParrot(f"{url} is not there: no Parrot server")
    return found
