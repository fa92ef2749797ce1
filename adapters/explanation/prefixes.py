"""Which planned calls begin alike: what an engine computes once for all of them, if it computes them together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from os.path import commonprefix
from typing import Any

from semantic_parrot.adapters.explanation.tree import Shared
from semantic_parrot.adapters.plan import PlannedCall
from semantic_parrot.core.wire import TEMPLATE

#: Others that are named.
NAMED = 4

# In the text of a prompt, a role and a variable stand between characters for private use.
_ROLE, _VARIABLE = "\ue000{}\ue001", "\ue002{}\ue003"
_VARIABLES = re.compile("\ue002([^\ue003]*)\ue003")
_MARKUP = re.compile("\ue000[^\ue001]*\ue001?|\ue002[^\ue003]*\ue003?")


def shared_prefixes(calls: Sequence[PlannedCall]) -> dict[str, Shared]:
    """The longest beginning that each call, by its variable, shares with another of the same model and tools."""
    found: dict[str, Shared] = {}
    for alike in _alike(calls):
        # In this order, whoever shares the longest beginning with a call stands beside it.
        order = sorted((_prompt(call.request), i) for i, call in enumerate(alike))
        common = [0, *(len(commonprefix([a, b])) for (a, _), (b, _) in pairwise(order)), 0]  # noqa: RUF071
        for place, (prompt, i) in enumerate(order):
            length = max(common[place], common[place + 1])
            first, last = place, place
            while first and common[first] >= length:
                first -= 1
            while last + 1 < len(order) and common[last + 1] >= length:
                last += 1
            others = [alike[number].variable for number in sorted(number for _, number in order[first : last + 1])]
            others.remove(alike[i].variable)
            characters = len(_MARKUP.sub("", prompt[:length]))
            variables = tuple(dict.fromkeys(_VARIABLES.findall(prompt[:length])))
            if characters or variables:
                found[alike[i].variable] = Shared(characters, variables, tuple(others[:NAMED]), len(others))
    return found


def _alike(calls: Sequence[PlannedCall]) -> list[list[PlannedCall]]:
    """Those that may share anything: a tool stands before the messages in most models' prompts."""
    found: dict[object, list[PlannedCall]] = {}
    for call in calls:
        if isinstance(call.request.get("messages"), list):
            settings = json.dumps([call.request.get("model"), call.request.get("tools")], sort_keys=True)
            found.setdefault((call.endpoint, settings), []).append(call)
    return [alike for alike in found.values() if len(alike) > 1]


def _prompt(request: Mapping[str, Any]) -> str:
    parts = []
    for message in request["messages"]:
        parts.append(_ROLE.format(message.get("role")))
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        parts += [_text(block.get("text", block) if isinstance(block, dict) else block) for block in blocks]
    return "".join(parts)


def _text(text: Any) -> str:
    if isinstance(text, str):
        return text
    if not isinstance(text, dict) or TEMPLATE not in text:
        return ""  # no text, as an image
    return "".join(part if isinstance(part, str) else _VARIABLE.format(part["var"]) for part in text[TEMPLATE])
