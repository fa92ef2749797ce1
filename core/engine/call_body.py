"""The JSON object of one tool call, as its text comes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

_HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_DELIMITERS = re.compile(r'[{}"\\]')


class CallBody:
    """`text` so far, from its `{` on; `name`: of the function, once that is told. `wrong`: it is no call.

    `live`: the text is known to be a call, its name first; arguments are told as they come. Else they are told with the
    name, when all is there and is a call of one of `names`.
    """

    def __init__(self, key: str, names: Collection[str], *, live: bool) -> None:
        self.text = ""
        self.name: str | None = None
        self.wrong = False
        self._key = key
        self._names = names
        self._live = live
        self._depth = 0
        self._quoted = False
        self._read = 0
        self._told = 0  # up to where the arguments have been told
        self._end: int | None = None  # of the arguments

    def feed(self, more: str) -> tuple[str, str | None]:
        """More of the arguments, and what follows the object (None while it is open)."""
        self.text += more
        rest = self._scan()
        if self._live:
            return self._tell(), rest
        return (self._whole() if rest is not None else ""), rest

    def _scan(self) -> str | None:
        while (found := _DELIMITERS.search(self.text, self._read)) is not None:
            self._read = found.end()
            match found.group():
                case "\\":
                    if self._read == len(self.text):  # what it escapes is still to come
                        self._read = found.start()
                        return None
                    self._read += 1
                case '"':
                    self._quoted = not self._quoted
                case "{" if not self._quoted:
                    self._depth += 1
                case "}" if not self._quoted:
                    self._depth -= 1
                    if self._depth == 1 and self._end is None:
                        self._end = self._read
                    if self._depth == 0:
                        self.text, rest = self.text[: self._read], self.text[self._read :]
                        return rest
        self._read = len(self.text)
        return None

    def _tell(self) -> str:
        if self.name is None:
            head = _HEAD.match(self.text)
            if head is None:
                return ""
            self.name, self._told = json.loads(head.group(1)), head.end()
        start, self._told = self._told, self._end or len(self.text)
        return self.text[start : self._told]

    def _whole(self) -> str:
        try:
            value = json.loads(self.text)
            arguments = value.get(self._key, value.get("arguments"))
            if isinstance(arguments, str):  # some models quote them
                arguments = json.loads(arguments)
            if isinstance(arguments, dict) and value.get("name") in self._names:
                self.name = value["name"]
                return json.dumps(arguments, ensure_ascii=False)
        except (ValueError, RecursionError, TypeError):
            pass
        self.wrong = True
        return ""
