"""A rendered prompt as the messages of a request, where it may hold marks.

Semantic Kernel itself parses it, marks and all; what that does to a text, the server must do to the value that a mark
stands for: as XML or as plain text, with white space stripped at the edges or not.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import XML
from semantic_kernel.contents import ChatHistory

from semantic_parrot.adapters.marks import Marks, Part, Ref
from semantic_parrot.adapters.semantic_kernel.templates import Cut


def messages_of(service: Any, prompt: str, marks: Marks) -> list[dict[str, Any]]:
    """What `service` sends for a function whose prompt is rendered as `prompt`. Raises Cut."""
    found: list[dict[str, Any]] = service._prepare_chat_history_for_request(ChatHistory.from_rendered_prompt(prompt))
    if not marks.marked(prompt):
        return found
    xml, stripped = _reading(prompt)
    if len(stripped) != len(found):
        raise Cut("its prompt has tags that are no messages")
    for message, strips in zip(found, stripped, strict=True):
        content = message["content"]
        for name, value in message.items():
            if name != "content" and marks.marked(str(value)):
                raise Cut("a value stands in an attribute of a message")
        if isinstance(content, str):
            parts = marks.read(content)
            message["content"] = marks.write([_read(part, i, len(parts), xml, strips) for i, part in enumerate(parts)])
        elif marks.marked(str(content)):
            raise Cut("a value stands in a message of several items")
    return found


def _reading(prompt: str) -> tuple[bool, Sequence[bool]]:
    """Whether the prompt is read as XML; for each message, whether its text is stripped."""
    try:
        root = XML(f"<root>{prompt.strip()}</root>")
    except ParseError:
        return False, [True]
    return True, list(_messages(root))


def _messages(root: Element) -> Iterator[bool]:
    if root.text and root.text.strip():
        yield True
    for item in root:
        if item.tag == "chat_history":
            yield from (False for _ in item)
        elif item.tag == "message":
            yield False
        else:
            raise Cut(f"its prompt has the tag {item.tag!r}")
        if item.tail and item.tail.strip():
            yield True


def _read(part: Part, index: int, count: int, xml: bool, strips: bool) -> Part:
    """What becomes of the value of a mark in a message's text, of which it is number `index`."""
    if not isinstance(part, Ref):
        return part
    if xml:
        part = part.then("xml_text")
    side = _SIDES.get((index == 0, index == count - 1))
    if strips and side:
        part = part.then("strip", side=side)
    return part.then("unescape")


_SIDES = {(True, True): "both", (True, False): "left", (False, True): "right"}


def escaped(part: Part) -> Part:
    """The value of a part as HTML."""
    if isinstance(part, Ref):
        return part.then("escape")
    assert isinstance(part, str), "no plan of Semantic Kernel is kept for other inputs"
    return html.escape(part)
