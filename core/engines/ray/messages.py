"""What the server and its process for Ray say to each other: a JSON message a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one replica: `cpus`, `gpus` and `resources` as Ray counts them. `env`: variables of its process."""

    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] | None = None
    env: Mapping[str, str] | None = None

    def __str__(self) -> str:
        every = {"CPU": self.cpus, "GPU": self.gpus, **(self.resources or {})}
        return ", ".join(f"{name} {amount:g}" for name, amount in every.items() if amount)


@dataclass(frozen=True, slots=True)
class Join:
    """The first message: which cluster."""

    address: str
    kind: Literal["join"] = "join"


@dataclass(frozen=True, slots=True)
class Place:
    """Start a replica, as soon as a node has room for it."""

    id: int
    needs: Needs
    kind: Literal["place"] = "place"


@dataclass(frozen=True, slots=True)
class Drop:
    """End a replica, or do not start it any more. A Gone follows."""

    id: int
    kind: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True)
class Joined:
    kind: Literal["joined"] = "joined"


@dataclass(frozen=True, slots=True)
class NoCluster:
    """It can't be joined, in one line; the process ends."""

    message: str
    kind: Literal["no-cluster"] = "no-cluster"


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica listens there, for whoever says the `secret`."""

    id: int
    host: str
    port: int
    secret: str
    pid: int
    kind: Literal["placed"] = "placed"


@dataclass(frozen=True, slots=True)
class Gone:
    """A replica is no more: it was dropped, ended or was lost."""

    id: int
    why: str
    kind: Literal["gone"] = "gone"


Order = Join | Place | Drop
Word = Joined | NoCluster | Placed | Gone


@cache
def _orders() -> TypeAdapter[Order]:
    return TypeAdapter(Annotated[Order, Field(discriminator="kind")])


@cache
def _words() -> TypeAdapter[Word]:
    return TypeAdapter(Annotated[Word, Field(discriminator="kind")])


def encode_order(order: Order) -> bytes:
    return _orders().dump_json(order) + b"\n"


def encode_word(word: Word) -> bytes:
    return _words().dump_json(word) + b"\n"


def decode_order(line: bytes) -> Order:
    return _orders().validate_json(line)


def decode_word(line: bytes) -> Word:
    return _words().validate_json(line)
