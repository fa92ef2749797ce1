"""What every value of the wire is built on: a frozen pydantic model, and names."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

#: The instances of a map's or a branch's body are named ``output[3].local``; nobody else's name may look so.
RESERVED = "]."


def _unreserved(name: str) -> str:
    if RESERVED in name:
        raise ValueError(f"a name may not contain {RESERVED!r}: the instances of maps and branches are named so")
    return name


#: A name that is referred to; it may be that of an instance, which an earlier program of the session made.
Reference = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
#: A name that is given.
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_unreserved)]


class Value(BaseModel):
    """A frozen value of the wire: unknown fields are refused, nothing is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
