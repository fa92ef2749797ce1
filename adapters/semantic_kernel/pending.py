"""The result of a deferred invocation: whoever reads it before it is there gets an error, never a placeholder."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from pydantic import PrivateAttr
from semantic_kernel.functions import FunctionResult

from semantic_parrot.core.errors import ResultPending


class Waiting(Protocol):
    """What a pending result stands for."""

    def explanation(self) -> str:
        """Why it can't be read, and what to do."""

    async def arrive(self) -> None:
        """Until the result is there. Raises what its invocation raised."""


class PendingResult(FunctionResult):
    """A FunctionResult that is not there yet: reading it (its fields, ``str``, ``==``, formatting, iteration, copies,
    pickling) raises ResultPending. `await` it, or leave the block that deferred it, and it is an ordinary one."""

    _waiting: Waiting | None = PrivateAttr(default=None)

    def __getattribute__(self, name: str) -> Any:
        if name in _READS:
            _check(self)
        return super().__getattribute__(name)

    def __hash__(self) -> int:
        _check(self)
        raise TypeError("unhashable type: 'FunctionResult'")

    def __bool__(self) -> bool:
        _check(self)
        return True

    def __await__(self) -> Generator[Any, None, PendingResult]:
        waiting = _waiting(self)
        if waiting is not None:
            yield from waiting.arrive().__await__()
        return self


def pending(function: Any, waiting: Waiting) -> PendingResult:
    found: PendingResult = PendingResult.model_construct(function=function.metadata, value=None)
    found._waiting = waiting
    return found


def is_pending(value: object) -> bool:
    return type(value) is PendingResult and _waiting(value) is not None


def settle(result: PendingResult, real: FunctionResult) -> None:
    """`result` is `real` from now on."""
    object.__setattr__(result, "__dict__", dict(real.__dict__))
    object.__setattr__(result, "__pydantic_fields_set__", set(real.model_fields_set))
    result._waiting = None


#: What hands out the value, whatever is done with it.
_READS = frozenset(
    ("value", "rendered_prompt", "metadata", "get_inner_content", "model_dump", "model_dump_json", "model_copy", "copy")
) | frozenset(("dict", "json", "__dict__", "__iter__"))


def _waiting(result: PendingResult) -> Waiting | None:
    private = object.__getattribute__(result, "__pydantic_private__")
    found: Waiting | None = private["_waiting"] if private else None
    return found


def _check(result: PendingResult) -> None:
    waiting = _waiting(result)
    if waiting is not None:
        raise ResultPending(waiting.explanation())


def _checked(name: str) -> Any:
    inherited = getattr(FunctionResult, name)

    def method(self: PendingResult, *args: Any) -> Any:
        _check(self)
        return inherited(self, *args)

    method.__name__ = name
    return method


# Python looks these up in the class, past __getattribute__.
for _name in (
    "__str__",
    "__repr__",
    "__eq__",
    "__ne__",
    "__iter__",
    "__format__",
    "__copy__",
    "__deepcopy__",
    "__reduce_ex__",
    "__getstate__",
    "__rich_repr__",
):
    setattr(PendingResult, _name, _checked(_name))
