"""Hermes, Qwen 2.5, Qwen 3: `<tool_call>`, a JSON object, `</tool_call>`, for each call."""

from __future__ import annotations

import re

from semantic_parrot.core.engine.tool_format import ToolFormat

HERMES = ToolFormat(
    name="hermes",
    # Not Qwen3-Coder's, which writes XML inside.
    template=re.compile(r"<tool_call>(?!.*<function=)", re.DOTALL),
    openings=("<tool_call>",),
    leading=False,
    bracket="",
    key="arguments",
    after={"</tool_call>": False},
    written=("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
)
