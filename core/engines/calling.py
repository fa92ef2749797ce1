"""An answer with tools: its text split into content and calls, as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from semantic_parrot.core.engine.tool_format import ToolFormat, ToolParser
from semantic_parrot.core.engines.protocol import Delta, Done
from semantic_parrot.core.tools import CallDelta, ToolCall, Tools

Items = AsyncGenerator[Delta | Done, None]


async def calling(items: Items, tools: Tools, format: ToolFormat) -> Items:
    """`items`, whose text is what the model wrote, as an answer to a request with `tools`.

    What is no call of one of them, as `format` has it, is content. Without `parallel`, what follows the first call is
    left out.
    """
    parser = ToolParser(format, tools.names, live=tools.forced)
    made = _Made()
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Delta):
                if tools.parallel or not parser.whole:
                    for delta in made.told(parser.feed(item.text), item):
                        yield delta
                continue
            if tools.parallel or not parser.whole:
                for delta in made.told(parser.feed("", last=True), Delta("", item.usage)):
                    yield delta
            complete = item.reason == "stop" or (not tools.parallel and parser.whole)
            reason = "tool_calls" if made.calls and complete else item.reason
            yield replace(item, text="".join(made.text), reason=reason, calls=tuple(made.calls))


@dataclass(slots=True)
class _Made:
    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def told(self, found: Iterable[str | CallDelta], of: Delta) -> list[Delta]:
        deltas: list[Delta] = []
        for part in found:
            if isinstance(part, str):
                self.text.append(part)
                deltas.append(Delta(part, of.usage))
                continue
            if part.id is not None:
                self.calls.append(ToolCall(part.id, part.name or "", part.arguments))
            else:
                call = self.calls[part.index]
                self.calls[part.index] = replace(call, arguments=call.arguments + part.arguments)
            deltas.append(Delta("", of.usage, calls=(part,)))
        if of.logprobs:  # all that was generated has them, what became no text too
            deltas = [replace((deltas or [Delta("", of.usage)])[0], logprobs=of.logprobs), *deltas[1:]]
        return deltas
