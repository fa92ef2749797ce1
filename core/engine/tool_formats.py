"""The formats of tool calls that are known, and whose a model's is: by its chat template."""

from __future__ import annotations

from typing import Any

from semantic_parrot.core.engine.tool_format import ToolFormat
from semantic_parrot.core.engine.tools_hermes import HERMES
from semantic_parrot.core.engine.tools_llama import LLAMA
from semantic_parrot.core.engine.tools_mistral import MISTRAL

FORMATS = {format.name: format for format in (HERMES, MISTRAL, LLAMA)}


def tool_format(tokenizer: Any) -> ToolFormat | None:
    """Of a `transformers` tokenizer; None if it has no template, or one of another format."""
    if not tokenizer.chat_template:
        return None
    template = tokenizer.get_chat_template(tools=[{}])
    return next((format for format in FORMATS.values() if format.template.search(template)), None)
