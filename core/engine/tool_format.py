"""How a family of models writes tool calls: recognised in text as it comes, and as a grammar that forces one."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from semantic_parrot.core.engine.call_body import CallBody
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.tools import CallDelta, Tools

#: Between the parts of a call.
_GAP = " \n\r\t"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """A call is an opening, perhaps a `bracket`, then a JSON object with the function's name and its arguments.

    `template`: what a chat template of this format has in it. `openings`: the first is the one that models write;
    `leading`: it begins the answer, and may be missing. `key`: the name of the arguments. `after`: what may follow an
    object, and whether another one comes then. `written`: what a forced call has around each object, and between two.
    `ids`: how an id begins, and how many hexadecimal digits follow.
    """

    name: str
    template: re.Pattern[str]
    openings: tuple[str, ...]
    leading: bool
    bracket: str
    key: str
    after: Mapping[str, bool]
    written: tuple[str, str, str]
    ids: tuple[str, int] = ("call_", 24)

    def grammar(self, tools: Tools, special: Callable[[str], int | None]) -> Grammar:
        """Calls of `tools.names` and nothing else. `special`: the id of a text that is a token of its own."""
        before, between, behind = (self._lark(text, special) for text in self.written)
        calls = [(n, tool) for n, tool in enumerate(tools.tools) if tool.name in tools.names]
        more = f" ({between} call)*" if tools.parallel else ""
        lines = [f"start: {before} call{more} {behind}", "call: " + " | ".join(f"call_{n}" for n, _ in calls)]
        for n, tool in calls:
            head = json.dumps(f'{{"name": {json.dumps(tool.name)}, "{self.key}": ')
            schema = json.loads(tool.parameters) | {"x-guidance": {"whitespace_pattern": r"[ \n\r\t]{0,20}"}}
            lines += [f'call_{n}: {head} arguments_{n} "}}"', f"arguments_{n}: %json {json.dumps(schema)}"]
        return Grammar("lark", "\n".join(lines) + "\n", "tools")

    def new_id(self) -> str:
        start, digits = self.ids
        return start + uuid.uuid4().hex[:digits]

    def _lark(self, text: str, special: Callable[[str], int | None]) -> str:
        parts = re.split("(" + "|".join(map(re.escape, self.openings + tuple(self.after))) + ")", text)
        found = [(part, special(part)) for part in parts if part]
        return " ".join(json.dumps(part) if id is None else f"<[{id}]>" for part, id in found)


class ToolParser:
    """Splits an answer into content and calls. `live`: the answer is within `ToolFormat.grammar`, so arguments are told
    as they come; else a call is told when it is whole, and what is none stays content."""

    def __init__(self, format: ToolFormat, names: Collection[str], *, live: bool) -> None:
        self.calls = 0  # how many have been told, or begun
        self.whole = 0  # how many are complete
        self._format = format
        self._names = names
        self._live = live
        self._buffer = ""
        self._raw = ""  # of the open call: content again, should it be none
        self._body: CallBody | None = None
        self._begun = False  # some content has been told
        self._after = False  # an object has just ended

    def feed(self, text: str, *, last: bool = False) -> Iterator[str | CallDelta]:
        """What can be said now. `last`: no more text will come."""
        self._buffer += text
        while (step := self._step(last)) is not None:
            yield from step
        if last and self._body is not None and (not self._live or self._body.name is None):
            yield from self._content(self._raw + self._body.text)
            self._body = None

    def _step(self, last: bool) -> list[str | CallDelta] | None:
        """Take something from the buffer; None if that needs more text."""
        if self._body is not None:
            return self._go_on(self._body)
        if self._after:
            return self._behind(last)
        start, opening = self._opening()
        if opening is None:
            keep = 0 if last else self._undecided()
            text, self._buffer = self._buffer[: len(self._buffer) - keep], self._buffer[len(self._buffer) - keep :]
            return self._content(text) if text else None
        inside = self._buffer[start + len(opening) :].lstrip(_GAP)
        if self._format.bracket and inside:
            bracket, inside = inside[:1] == self._format.bracket, inside[1:].lstrip(_GAP)
            inside = inside if bracket else "!"
        if not inside and not last:
            return None
        end = len(self._buffer) - len(inside)
        if inside[:1] != "{":
            end = start + max(len(opening), 1)
            text, self._buffer = self._buffer[:end], self._buffer[end:]
            return self._content(text)
        content = self._buffer[:start].rstrip(_GAP)
        self._raw, self._buffer = self._buffer[len(content) : end], inside
        self._body = CallBody(self._format.key, self._names, live=self._live)
        return self._content(content)

    def _opening(self) -> tuple[int, str | None]:
        if self._format.leading:
            if self._begun or self.calls:
                return 0, None
            text = self._buffer.lstrip(_GAP)
            start = len(self._buffer) - len(text)
            found = next((o for o in self._format.openings if text.startswith(o)), "" if text[:1] == "{" else None)
            return start, found
        places = [(self._buffer.find(o), o) for o in self._format.openings if o in self._buffer]
        return min(places) if places else (0, None)

    def _undecided(self) -> int:
        """Characters at the end of the buffer that may belong to a call."""
        text = self._buffer
        if self._format.leading and (self._begun or self.calls):
            return len(text) - len(text.rstrip(_GAP))
        for opening in self._format.openings:
            for size in range(min(len(opening) - 1, len(text)), 0, -1):
                if text.endswith(opening[:size]):
                    return len(text) - len(text[:-size].rstrip(_GAP))
        return len(text) - len(text.rstrip(_GAP))

    def _go_on(self, body: CallBody) -> list[str | CallDelta] | None:
        if not self._buffer:
            return None
        known = body.name
        piece, rest = body.feed(self._buffer)
        self._buffer = rest or ""
        if body.wrong:
            self._body = None
            return self._content(self._raw + body.text)
        found: list[str | CallDelta] = []
        if body.name is not None and known is None:
            self.calls += 1
            found.append(CallDelta(self.calls - 1, piece, self._format.new_id(), body.name))
        elif piece:
            found.append(CallDelta(self.calls - 1, piece))
        if rest is not None:
            self._body, self._after = None, True
            self.whole += 1
        return found

    def _behind(self, last: bool) -> list[str | CallDelta] | None:
        text = self._buffer.lstrip(_GAP)
        for follows, another in self._format.after.items():
            if text.startswith(follows):
                inside = text[len(follows) :].lstrip(_GAP)
                if another and not inside and not last:
                    return None
                self._after, self._buffer = False, text[len(follows) :]
                if another and inside[:1] == "{":
                    self._raw, self._buffer = text[: len(text) - len(inside)], inside
                    self._body = CallBody(self._format.key, self._names, live=self._live)
                return []
            if follows.startswith(text) and not last:
                return None
        self._after = False
        return []

    def _content(self, text: str) -> list[str | CallDelta]:
        if self.calls and not text.strip(_GAP):
            return []
        self._begun = self._begun or bool(text.strip(_GAP))
        return [text] if text else []
