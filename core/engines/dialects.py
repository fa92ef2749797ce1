"""How servers with OpenAI's routes differ: a table of what each can be told, and under which name.

From their published request schemas: vLLM 0.32, SGLang (main, November 2026), llama.cpp's server (of llama-cpp-python
0.3.36), `transformers serve` 5.23, Ollama's compatibility page, OpenAI's reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

_OPENAI = {
    name: name
    for name in ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias", "n")
}
_BEYOND = {
    name: name for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos", "min_tokens", "stop_token_ids")
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """`fields`: by the name of a field of Sampling, the server's; it can't be told of others. `always`: those that are
    sent even where they change nothing, as the server's own defaults would. `fixed`: sent with every request.

    `health`: a path beside /v1 that says whether it is up, where /v1/models does not; it is then told its model, too.
    `limit`: the name of max_tokens. `usage`: it takes stream_options. `choose_tools`: it takes tool_choice and
    parallel_tool_calls (tools, every one does). `logprobs`: it takes those. `grammars`: kinds of Grammar, written as
    `style` has it. `priority`: the sign of the number that goes first, 0 where there is none. `salt`: it takes
    cache_salt. `tokenize`, `forget`: paths beside /v1, "" where there are none; what is to be tokenised is a
    `text_field`, or messages if it takes `chat_tokens`. `seeds`: how many there are.
    """

    fields: Mapping[str, str]
    always: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    health: str = ""
    limit: str = "max_tokens"
    usage: bool = True
    choose_tools: bool = True
    logprobs: bool = True
    grammars: frozenset[str] = frozenset({"json"})
    style: Literal["response_format", "structured_outputs", "sglang"] = "response_format"
    priority: Literal[-1, 0, 1] = 0
    salt: bool = False
    tokenize: str = ""
    text_field: str = "prompt"
    chat_tokens: bool = True
    forget: str = ""
    seeds: int = 2**63


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        # A hosted API, or any server of which nothing more is known.
        "openai": Dialect(_OPENAI, limit="max_completion_tokens"),
        "parrot": Dialect(
            _OPENAI | _BEYOND,
            grammars=frozenset({"json", "regex", "choice"}),
            style="structured_outputs",
            tokenize="/tokenize",
            forget="/reset_prefix_cache",
        ),
        # Its defaults come from the model's generation_config.json.
        "vllm": Dialect(
            _OPENAI | _BEYOND,
            always=frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}),
            grammars=frozenset({"json", "regex", "choice"}),
            style="structured_outputs",
            priority=-1,
            salt=True,
            tokenize="/tokenize",
            forget="/reset_prefix_cache",
        ),
        "sglang": Dialect(
            _OPENAI | _BEYOND,
            always=frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}),
            grammars=frozenset({"json", "regex"}),
            style="sglang",
            priority=1,
            salt=True,
            tokenize="/tokenize",
            forget="/flush_cache",
        ),
        # Its own defaults are top_k 40, top_p 0.95, min_p 0.05; penalties look at 64 tokens unless told.
        "llama.cpp": Dialect(
            _OPENAI
            | {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty", "ignore_eos": "ignore_eos"},
            always=frozenset({"temperature", "top_p", "top_k", "min_p"}),
            fixed=MappingProxyType({"repeat_last_n": 1 << 16}),
            tokenize="/tokenize",
            text_field="content",
            chat_tokens=False,
            seeds=2**31,
        ),
        # With continuous batching it takes `stop`, and does not stop.
        "transformers": Dialect(
            {name: name for name in ("temperature", "top_p", "seed", "frequency_penalty", "logit_bias")},
            always=frozenset({"temperature", "top_p"}),
            health="/health",
            usage=False,
            choose_tools=False,
            logprobs=False,
            grammars=frozenset(),
            seeds=2**31,
        ),
        # Its own defaults are top_p 0.9 and, beyond what these routes can be told, top_k 40.
        "ollama": Dialect(
            {name: name for name in ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")},
            always=frozenset({"temperature", "top_p"}),
            choose_tools=False,
            logprobs=False,
            seeds=2**31,
        ),
    }
)
