"""Chat templates with tools, in each format of tool calls that is known, as small as they get."""

from __future__ import annotations

from typing import Any, Final

_CALLS: Final = (
    "{% for call in message['tool_calls'] or [] %}BEFORE{{ {'name': call['function']['name'], 'KEY': "
    "call['function']['arguments']} | tojson }}BEHIND{% endfor %}"
)
_TEMPLATE: Final = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "Call with TOKEN{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}CALLS"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: What opens a call, is it special, what stands before a call's JSON and behind it, the name of its arguments.
_FORMATS: Final = {
    "hermes": ("<tool_call>", False, "<tool_call>\n", "\n</tool_call>", "arguments"),
    "llama3": ("<|python_tag|>", True, "", "", "parameters"),
    "mistral": ("[TOOL_CALLS]", True, "[TOOL_CALLS] [", "]", "arguments"),
}
TOOLS: Final = tuple(_FORMATS)


def opening(format: str) -> tuple[str, bool]:
    """What opens a call, and whether that is a special token."""
    return _FORMATS[format][:2]


def add_tools(tokenizer: Any, format: str) -> None:
    """Give a tokenizer the template of `format`, and the token that opens a call."""
    token, special, before, behind, key = _FORMATS[format]
    calls = _CALLS.replace("BEFORE", before).replace("BEHIND", behind).replace("KEY", key)
    tokenizer.chat_template = _TEMPLATE.replace("CALLS", calls).replace("TOKEN", token)
    tokenizer.add_tokens([token], special_tokens=special)
