"""A tool-calling agent: the model calls a function, reads what it gave back, and answers.

    python examples/langchain/agent.py          # against `parrot serve` (make serve)

A model that was trained for tools decides by itself when to call one. The demo model was not, so its first step is
made to be a call, whose arguments are of the tool's schema whatever the model; and its last words are beside the point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, tool


@wrap_model_call
def call_first(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
    """A tool first, whatever the model would rather do."""
    called = any(isinstance(message, ToolMessage) for message in request.messages)
    return handler(request.override(tool_choice="none" if called else "any"))


def look_up(entries: list[str]) -> BaseTool:
    """The tool: a berth's entry."""

    @tool
    def entry_of(ordinal: Literal["first", "second", "third"]) -> str:
        """An entry of today's log."""
        return entries[("first", "second", "third").index(ordinal)]

    return entry_of


def agent(llm: BaseChatModel, entries: list[str]) -> Any:
    """{"messages": […]} -> the same, with the call, its result and the answer."""
    return create_agent(llm, [look_up(entries)], middleware=[call_first])


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot
    from semantic_parrot.core.demo_model import world

    llm = ChatParrot(temperature=0, max_tokens=60)
    asked = {"messages": [("human", "Summarise this entry in one sentence: the first one of today's log")]}
    messages: list[BaseMessage] = agent(llm, world.day(seed=7, n=3).split("\n\n")).invoke(asked)["messages"]
    for message in messages:
        calls = getattr(message, "tool_calls", None)
        print(f"{message.type}: {[(call['name'], call['args']) for call in calls] if calls else message.text}")


if __name__ == "__main__":
    main()
