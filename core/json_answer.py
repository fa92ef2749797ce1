"""A model's answer as JSON: what LangChain's JsonOutputParser gives for a complete text, or an error.

LangChain reads the text strictly; else it repairs it (`parse_partial_json`: closes brackets, drops characters from the
end); only when even that fails, it looks behind the first code fence. We repair nothing, so we may look behind the
fence only where LangChain's repair of the whole text is sure to fail, and fail wherever it might give a value.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from semantic_parrot.core.errors import NoMatch, TooLarge
from semantic_parrot.core.value import shown

_STRIPPED = " \n\r\t`"
_FENCE = re.compile(r"```(?:json)?(.*)", re.DOTALL)
_ACTION_INPUT = re.compile(r'("action_input":\s*")(.*?)(")', re.DOTALL)
_UNESCAPED_QUOTE = re.compile(r'(?<!\\)"')
#: What every text begins with of which some beginning is JSON.
_JSON_START = re.compile(r'[{\["0-9-]|true|false|null|NaN|Infinity')
#: Of all characters, the surrogates alone have no UTF-8, so a value that holds one can't be sent on.
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json_answer(text: str) -> Any:
    """Raises NoMatch where there is no JSON, or only with repairs; TooLarge where it is nested too deep for Python."""
    whole = text.strip()
    found, value = _strict(whole, text)
    if not found and not _repairable(_prepared(whole)):
        fence = _FENCE.search(whole)
        if fence is not None:
            found, value = _strict(fence.group(1), text)
    if not found:
        raise NoMatch(f"no valid JSON: {text[:80]!r}")
    return value


def _prepared(text: str) -> str:
    """LangChain's stripping, and its escaping inside a field named action_input."""
    return _ACTION_INPUT.sub(_escape, text.strip(_STRIPPED))


def _escape(match: re.Match[str]) -> str:
    value = match.group(2).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return match.group(1) + _UNESCAPED_QUOTE.sub(r"\"", value) + match.group(3)


def _strict(text: str, answer: str) -> tuple[bool, Any]:
    try:
        # strict=False, as in LangChain, lets control characters stand in texts.
        value = json.loads(_prepared(text), strict=False, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
            raise NoMatch(f"half of a surrogate pair, which is no character: {shown(answer)}")
    except json.JSONDecodeError:
        return False, None
    except RecursionError:
        raise TooLarge(f"nested too deep: {shown(answer)}") from None
    except ValueError as error:
        raise NoMatch(f"{error}: {shown(answer)}") from None
    return True, value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:32]} is out of range")
    return value


def _repairable(text: str) -> bool:
    """Whether LangChain's repair might give a value for `text`, which is no JSON."""
    return _JSON_START.match(text) is not None or _closes_too_much(text)


def _closes_too_much(text: str) -> bool:
    """Whether a bracket closes that is not the one open, quotes respected: LangChain then takes the text for null."""
    expected: list[str] = []
    quoted = escaped = False
    for char in text:
        if quoted:
            if char == '"' and not escaped:
                quoted = False
            elif char != "\n" or escaped:
                escaped = char == "\\" and not escaped
        elif char == '"':
            quoted, escaped = True, False
        elif char in "{[":
            expected.append("}" if char == "{" else "]")
        elif char in "}]" and (not expected or expected.pop() != char):
            return True
    return False
