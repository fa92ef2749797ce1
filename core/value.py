"""What a Semantic Variable may hold: text or JSON. How it reads as text, how it is shown, how large it may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from semantic_parrot.core.errors import TooLarge

JSON = Any
"""A text, list, dict with text keys, number, boolean or None; no NaN, no infinity."""

#: Characters and members together that a value may have which a transform reads or makes.
MAX_SIZE = 1_000_000
#: As deep as a request body may be; Python's own recursion limit is far.
MAX_DEPTH = 128

_KINDS = {str: "text", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}


def as_text(value: JSON) -> str:
    """`value` inside a prompt: text as it is, everything else as Python's ``str`` has it, as in a framework's f-string.

    >>> as_text([1.0, None, "a"])
    "[1.0, None, 'a']"
    """
    return value if isinstance(value, str) else str(value)


def kind(value: JSON) -> str:
    return "null" if value is None else f"a {_KINDS[type(value)]}".replace("a object", "an object")


def shown(value: JSON) -> str:
    """What `value` is and its first 80 characters, for messages. It looks no further: a value may be huge."""
    return f"{kind(value)}: {_beginning(value, 80)!r}"


def _beginning(value: JSON, most: int) -> str:
    """``as_text(value)[:most]``."""
    if isinstance(value, str):
        return value[:most]
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) >= most:
            break
    return text[:most]


def _pieces(value: JSON) -> Iterator[str]:
    """What ``str(value)`` is made of; lazily, and no deeper than anybody reads, as each level begins with a bracket."""
    if isinstance(value, list):
        yield "["
        for i, member in enumerate(value):
            yield ", " if i else ""
            yield from _pieces(member)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for i, (key, member) in enumerate(value.items()):
            yield f"{', ' if i else ''}{key!r}: "
            yield from _pieces(member)
        yield "}"
    else:
        yield repr(value)


def refuse_large(value: JSON) -> None:
    """Raises TooLarge past MAX_SIZE or MAX_DEPTH. Stops counting there: members may be shared, so that a value can
    be exponentially larger than what it takes in memory."""
    size, level = 0, [value]
    for _ in range(MAX_DEPTH):
        inner: list[JSON] = []
        for node in level:
            if isinstance(node, str):
                size += len(node)
            elif isinstance(node, list):
                size += len(node)
                inner += node
            elif isinstance(node, dict):
                size += len(node) + sum(map(len, node))
                inner += node.values()
            if size > MAX_SIZE:
                raise TooLarge(f"a value of more than {MAX_SIZE} characters and members: {shown(value)}")
        level = inner
        if not level:
            return
    raise TooLarge(f"a value nested deeper than {MAX_DEPTH} levels: {shown(value)}")
