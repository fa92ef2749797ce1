"""Orchestrations of agents whose order is fixed beforehand, run as one program.

Who speaks after whom is read from the orchestration; then Semantic Kernel runs it as always, and its agents' calls
claim the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.contents import ChatHistory, ChatMessageContent
from semantic_kernel.contents.utils.author_role import AuthorRole

from semantic_parrot.adapters.marks import Ref
from semantic_parrot.adapters.plan import Plan
from semantic_parrot.adapters.planning import switched_off
from semantic_parrot.adapters.scope import SCOPE, SITE
from semantic_parrot.adapters.semantic_kernel.planner import PLANNER
from semantic_parrot.adapters.semantic_kernel.services import LowerableService
from semantic_parrot.adapters.semantic_kernel.templates import Cut, layout_of


@dataclass(frozen=True, slots=True)
class Turn:
    """An agent speaks, having heard what `heard` says: the task (None), and earlier turns by their number."""

    agent: Any
    heard: tuple[int | None, ...]


def is_orchestration(subject: object) -> bool:
    return type(subject).__module__.startswith("semantic_kernel.agents.orchestration.")


async def run_orchestration(orchestration: Any, task: Any) -> Any:
    """The result of ``orchestration.invoke(task)`` on a runtime of its own."""
    from semantic_kernel.agents.runtime import InProcessRuntime

    scope = None if switched_off() else PLANNER.new_scope(streaming=False)
    if scope is not None:
        with PLANNER.guarded():
            scope.submit(await _planned(orchestration, task))
    tokens = SCOPE.set(scope), SITE.set(None)
    runtime = InProcessRuntime()
    try:
        runtime.start()  # its task sees the scope
        result = await orchestration.invoke(task=task, runtime=runtime)
        try:
            return await result.get()
        finally:
            await runtime.stop_when_idle()
    finally:
        SITE.reset(tokens[1])
        SCOPE.reset(tokens[0])
        if scope is not None:
            scope.close()


async def _planned(orchestration: Any, task: Any) -> Plan:
    """The calls of its turns, as far as they can be told."""
    plan = Plan()
    said: list[ChatMessageContent] = []
    with suppress(Cut):
        asked = _task(task)
        for turn in _TURNS.get(type(orchestration).__name__, _unknown)(orchestration):
            heard = [asked if number is None else said[number] for number in turn.heard]
            ref = await _call(turn.agent, heard, plan)
            text = plan.marks.write([ref])
            said.append(ChatMessageContent(role=AuthorRole.ASSISTANT, content=text, name=turn.agent.name))
    return plan


def _task(task: Any) -> ChatMessageContent:
    if type(task) is str:
        return ChatMessageContent(role=AuthorRole.USER, content=task)
    if type(task) is ChatMessageContent:
        return task
    raise Cut("the task is neither a text nor a message")


async def _call(agent: Any, heard: list[ChatMessageContent], plan: Plan) -> Ref:
    """A call of `agent`, as it would be made now."""
    from semantic_kernel.agents import ChatCompletionAgent

    if type(agent) is not ChatCompletionAgent:
        raise Cut(f"{type(agent).__name__} is not lowered")
    if agent.prompt_template is not None and len(layout_of(agent.prompt_template).parts) > 1:
        raise Cut("its instructions are a template")
    arguments = agent._merge_arguments(None)
    service, settings = agent.kernel.select_ai_service(arguments=arguments, type=ChatCompletionClientBase)
    if any(list(plugin) for plugin in agent.kernel.plugins.values()):
        raise Cut("its model may call functions")
    if not isinstance(service, LowerableService):
        raise Cut(f"{type(service).__name__} is no service of Parrot")
    site = PLANNER.names.name(agent, "turn")
    reason = service.parrot_obstacle(settings) or PLANNER.ledger.reason(site)
    if reason is not None:
        raise Cut(reason)
    history = ChatHistory(messages=list(heard))
    prepared = await agent._prepare_agent_chat_history(history=history, kernel=agent.kernel, arguments=arguments)
    messages = service._prepare_chat_history_for_request(prepared)  # type: ignore[attr-defined]
    request = service.parrot_request(settings, {"messages": messages}, plan)
    return Ref(plan.add(request, service.parrot_endpoint, site))


def _sequential(orchestration: Any) -> Iterator[Turn]:
    for number, agent in enumerate(orchestration._members):
        yield Turn(agent, (number - 1 if number else None,))


def _concurrent(orchestration: Any) -> Iterator[Turn]:
    for agent in orchestration._members:
        yield Turn(agent, (None,))


def _group_chat(orchestration: Any) -> Iterator[Turn]:
    """Everyone hears everything, in the order in which it was said, when it is their turn."""
    manager, members = orchestration._manager, orchestration._members
    if type(manager).__name__ != "RoundRobinGroupChatManager" or manager.human_response_function is not None:
        raise Cut("its manager decides while it runs")
    if manager.max_rounds is None:
        raise Cut("it has no last round")
    for number in range(manager.max_rounds):
        agent = members[(manager.current_index + number) % len(members)]
        yield Turn(agent, (None, *range(number)))


def _unknown(orchestration: Any) -> Iterator[Turn]:
    raise Cut(f"{type(orchestration).__name__} decides while it runs")


_TURNS: Mapping[str, Callable[[Any], Iterator[Turn]]] = {
    "SequentialOrchestration": _sequential,
    "ConcurrentOrchestration": _concurrent,
    "GroupChatOrchestration": _group_chat,
}
