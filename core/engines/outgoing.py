"""A ModelRequest as the body that a remote engine is sent, in its dialect. What it can't be told is refused by name."""

from __future__ import annotations

import json
from typing import Any

from semantic_parrot.core.engines.dialects import Dialect
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.errors import Unsupported
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.request import Message, ModelRequest
from semantic_parrot.core.sampling import Sampling
from semantic_parrot.core.tools import Tools

NEUTRAL = Sampling()
#: Fields of Sampling that are written as they stand, or nearly; of the others below.
_PLAIN = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("stop", "ignore_eos", "min_tokens", "stop_token_ids", "logit_bias", "n"),
)


def refuse_untold(request: ModelRequest, dialect: Dialect) -> None:
    """Raises Unsupported, `where` the field, for what a server of this kind can't be told. Nothing is built."""
    sampling, grammar, tools = request.sampling, request.grammar, request.tools
    for name in _PLAIN:
        if name not in dialect.fields and getattr(sampling, name) != getattr(NEUTRAL, name):
            raise Unsupported(f"an engine that serves this model can't be told {name}", where=name)
    if sampling.logprobs is not None and not dialect.logprobs:
        raise Unsupported("an engine that serves this model has no logprobs", where="logprobs")
    if grammar is not None and grammar.kind not in dialect.grammars:
        message = f"an engine that serves this model has no grammar of the kind {grammar.kind}"
        raise Unsupported(message, where=grammar.where)
    if tools is not None and not dialect.choose_tools and (tools.forced or not tools.parallel):
        where = "tool_choice" if tools.parallel else "parallel_tool_calls"
        raise Unsupported(f"an engine that serves this model can't be told {where}", where=where)


def outgoing(request: ModelRequest, dialect: Dialect, model: str) -> dict[str, Any]:
    """The body for /v1/chat/completions if the request has messages, else for /v1/completions; it asks for a stream.

    Raises Unsupported, `where` the field.
    """
    refuse_untold(request, dialect)
    sampling = request.sampling
    body: dict[str, Any] = {"model": model, "stream": True, **dialect.fixed}
    if dialect.usage:
        body["stream_options"] = {"include_usage": True}
    if request.messages is None:
        body["prompt"] = request.prompt
    else:
        body["messages"] = [_message(message) for message in request.messages]
    for name in _PLAIN:
        value = getattr(sampling, name)
        if value != getattr(NEUTRAL, name) or name in dialect.always:
            body[dialect.fields[name]] = _written(value)
    if sampling.temperature > 0:
        body[dialect.fields["seed"]] = sampling.seed % dialect.seeds
    if sampling.max_tokens is not None:
        body[dialect.limit if request.messages is not None else "max_tokens"] = sampling.max_tokens
    if sampling.logprobs is not None:
        chat = {"logprobs": True, "top_logprobs": sampling.logprobs}
        body |= {"logprobs": sampling.logprobs} if request.messages is None else chat
    if request.grammar is not None:
        body |= _grammar(request.grammar, dialect)
    if request.tools is not None:
        body |= _tools(request.tools)
    return body


def directed(body: dict[str, Any], dialect: Dialect, directions: Directions, *, priority: bool) -> dict[str, Any]:
    """`body` with what the scheduler knows, as far as the dialect has words for it. No answer depends on it."""
    if priority and dialect.priority:
        # Smaller ranks first, then the longer path: 16 bits hold what of it can matter.
        first = (directions.rank << 16) - min(max(directions.priority, 0), 0xFFFF)
        body["priority"] = -dialect.priority * first
    if dialect.salt and directions.salt:
        body["cache_salt"] = directions.salt
    return body


def _written(value: Any) -> Any:
    if isinstance(value, tuple):  # stop strings, token ids; biases are pairs
        pairs = value and isinstance(value[0], tuple)
        return {str(token): bias for token, bias in value} if pairs else list(value)
    return value


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        body |= {"content": message.content or None, "tool_calls": [call.body() for call in message.calls]}
    if message.call_id is not None:
        body["tool_call_id"] = message.call_id
    if message.name is not None:
        body["name"] = message.name
    return body


def _grammar(grammar: Grammar, dialect: Dialect) -> dict[str, Any]:
    if dialect.style == "sglang" and grammar.kind == "regex":
        return {"regex": grammar.text}
    if grammar.kind == "json" and dialect.style != "structured_outputs":
        schema = {"name": "answer", "schema": json.loads(grammar.text), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    content = grammar.text if grammar.kind == "regex" else json.loads(grammar.text)
    return {"structured_outputs": {grammar.kind: content}}


def _tools(tools: Tools) -> dict[str, Any]:
    named = tools.forced and len(tools.names) == 1 and len(tools.tools) > 1
    choice: Any = {"type": "function", "function": {"name": tools.names[0]}} if named else "required"
    return {
        "tools": [json.loads(tool.body) for tool in tools.tools],
        **({"tool_choice": choice} if tools.forced else {}),
        **({} if tools.parallel else {"parallel_tool_calls": False}),
    }
