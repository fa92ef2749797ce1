"""Mistral up to tokenizer v7: `[TOOL_CALLS]`, then a JSON list of calls."""

from __future__ import annotations

import re

from semantic_parrot.core.engine.tool_format import ToolFormat

MISTRAL = ToolFormat(
    name="mistral",
    # Later tokenizers write the name outside of JSON, before [ARGS].
    template=re.compile(r"\[TOOL_CALLS\](?!.*\[ARGS\])", re.DOTALL),
    openings=("[TOOL_CALLS]",),
    leading=False,
    bracket="[",
    key="arguments",
    after={",": True, "]": False},
    written=("[TOOL_CALLS] [", ", ", "]"),
    ids=("", 9),  # its template takes no others
)
