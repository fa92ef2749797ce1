"""Tools: what a request offers, what an answer calls, and calls in a chat's history, in OpenAI's shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.grammar import MAX_CHARACTERS, schema_grammar

MAX_TOOLS = 128


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments`: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str

    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the call at `index`: first its id and name, then pieces of its arguments."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None

    def body(self) -> dict[str, Any]:
        if self.id is None:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": self.index, "id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Tool:
    """`body`: the whole tool as JSON, for the chat template; `parameters`: the JSON schema of its arguments."""

    name: str
    body: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Tools:
    """`forced`: the answer is a call (or several, if `parallel`) of one of `names`; else it may be."""

    tools: tuple[Tool, ...]
    forced: bool
    names: tuple[str, ...]
    parallel: bool


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class _Function(_Body):
    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(_Body):
    type: Literal["function"]
    function: _Function


class _Named(_Body):
    name: str


class ChoiceBody(_Body):
    type: Literal["function"]
    function: _Named


class _CalledFunction(_Body):
    name: str
    arguments: str


class CallBody(_Body):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"]
    function: _CalledFunction

    def call(self, where: str) -> ToolCall:
        """Raises InvalidRequest: a template writes the arguments as the JSON object that they are."""
        try:
            # Nothing at all stands for a value that is still to come, where a program is checked.
            fine = not self.function.arguments or isinstance(json.loads(self.function.arguments), dict)
        except ValueError:
            fine = False
        if not fine:
            raise InvalidRequest("the arguments of a tool call must be a JSON object", where=where)
        return ToolCall(self.id, self.function.name, self.function.arguments)


ToolChoice = Literal["none", "auto", "required"] | ChoiceBody


def tools_of(
    bodies: list[ToolBody] | None, choice: ToolChoice | None, parallel: bool | None, *, constrained: bool
) -> Tools | None:
    """What the request offers, None if that is nothing. `constrained`: the answer has a grammar of its own. Raises
    InvalidRequest, `where` the field."""
    if not bodies:
        for name, given in (("tool_choice", choice not in (None, "none", "auto")), ("parallel_tool_calls", parallel)):
            if given:
                raise InvalidRequest(f"{name} needs tools", where=name)
        return None
    names = tuple(body.function.name for body in bodies)
    if len(set(names)) < len(names):
        raise InvalidRequest("two tools have the same name", where="tools")
    if isinstance(choice, ChoiceBody) and choice.function.name not in names:
        raise InvalidRequest(f"there is no tool {choice.function.name!r}", where="tool_choice.function.name")
    if choice == "none":
        return None
    if constrained:
        raise InvalidRequest("an answer can't both follow a format and call tools", where="tools")
    forced = choice == "required" or isinstance(choice, ChoiceBody)
    tools = tuple(_tool(body, i, forced) for i, body in enumerate(bodies))
    if sum(len(tool.body) for tool in tools) > 4 * MAX_CHARACTERS:
        raise InvalidRequest("the tools are too large", where="tools")
    chosen = (choice.function.name,) if isinstance(choice, ChoiceBody) else names
    return Tools(tools, forced, chosen, parallel is not False and not isinstance(choice, ChoiceBody))


def _tool(body: ToolBody, index: int, forced: bool) -> Tool:
    where = f"tools[{index}].function"
    if body.function.strict and not forced:
        message = "strict is not there with tool_choice auto: use required, or the tool's name"
        raise InvalidRequest(message, where=f"{where}.strict")
    none: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    given = body.function.parameters
    parameters = schema_grammar(none if given is None else given, f"{where}.parameters").text
    whole = json.dumps(body.model_dump(exclude_none=True), separators=(",", ":"))
    return Tool(body.function.name, whole, parameters)


ToolList = Annotated[list[ToolBody], Field(min_length=1, max_length=MAX_TOOLS)]
