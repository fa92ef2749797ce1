"""Llama 3: the answer is a JSON object with "name" and "parameters", after `<|python_tag|>` or not; more after `;`."""

from __future__ import annotations

import re

from semantic_parrot.core.engine.tool_format import ToolFormat

LLAMA = ToolFormat(
    name="llama3",
    template=re.compile(r"<\|python_tag\|>|Environment: ipython"),
    openings=("<|python_tag|>",),
    leading=True,
    bracket="",
    key="parameters",
    after={";": True},
    written=("", "; ", ""),
)
