"""Fields that OpenAI has and Parrot has not: refused by name, unless they are null, as clients send what is not set."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator


def _refuse(value: object) -> None:
    if value is not None:
        raise ValueError("this is not supported")


Unserved = Annotated[None, BeforeValidator(_refuse)]
