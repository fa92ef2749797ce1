"""Orchestrations of agents: what Semantic Kernel makes of them eagerly, in one round trip where the order is fixed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live import LocalServer
from semantic_kernel.agents import (
    ChatCompletionAgent,
    ConcurrentOrchestration,
    GroupChatOrchestration,
    HandoffOrchestration,
    OrchestrationHandoffs,
    RoundRobinGroupChatManager,
    SequentialOrchestration,
)
from semantic_kernel.functions import kernel_function
from semantic_kernel.prompt_template import PromptTemplateConfig
from sk_engine import SkEngine, nasty_answer
from sk_pairs import parrot

from semantic_parrot.adapters.planning import disabled
from semantic_parrot.adapters.semantic_kernel import lower
from semantic_parrot.core.runtime import Runtime

ROLES = {"Writer": "You write & <draft>.", "Critic": "You criticize.", "Editor": "You edit."}


@pytest.fixture(scope="module")
def engine() -> SkEngine:
    return SkEngine(answers=nasty_answer)


@pytest.fixture(scope="module")
def server(engine) -> Iterator[LocalServer]:
    with LocalServer(Runtime([engine], disable={"single-flight"})) as running:
        yield running


class Sums:
    @kernel_function
    def add(self, a: int, b: int) -> int:
        return int(a) + int(b)


def agents(url, **more):
    service = parrot(url)
    return [
        ChatCompletionAgent(service=service, name=name, description=name, instructions=text, **more)
        for name, text in ROLES.items()
    ]


def group(rounds):
    def build(members):
        return GroupChatOrchestration(members=members, manager=RoundRobinGroupChatManager(max_rounds=rounds))

    return build


def sequential(members):
    return SequentialOrchestration(members=members)


def concurrent(members):
    return ConcurrentOrchestration(members=members)


def handoff(members):
    handoffs = OrchestrationHandoffs().add(source_agent="Writer", target_agent="Critic", description="when it is done")
    return HandoffOrchestration(members=members[:2], handoffs=handoffs)


async def observe(server, engine, build, members, task):
    trips, executed = server.requests(), len(engine.seen)
    try:
        found = await lower(build(members), task)
    finally:
        await members[0].service.client.close()
    said = sorted((m.name, m.role, m.content) for m in (found if isinstance(found, list) else [found]))
    return said, int(server.requests() - trips), len(engine.seen) - executed


SHAPES = {"sequential": (sequential, 3, 1), "concurrent": (concurrent, 3, 1), "round-robin": (group(5), 5, 1)}


@pytest.mark.parametrize("task", ["cats & <dogs>", "rain", "fog"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_agents_in_a_fixed_order_take_one_round_trip(shape, task, server, engine):
    build, trips, lowered = SHAPES[shape]
    with disabled():
        eager = await observe(server, engine, build, agents(server.url), task)
    found = await observe(server, engine, build, agents(server.url), task)
    assert found[0] == eager[0]
    assert (eager[1], eager[2]) == (trips, trips)
    assert (found[1], found[2]) == (lowered, trips)


@pytest.mark.parametrize("shape", [sequential, concurrent, group(3)], ids=["sequential", "concurrent", "group"])
async def test_agents_with_tools_or_templates_are_eager(shape, server, engine):
    template = PromptTemplateConfig(template="You are {{$who}}.", template_format="semantic-kernel")
    for more in ({"plugins": [Sums()]}, {"prompt_template_config": template}):
        with disabled():
            eager = await observe(server, engine, shape, agents(server.url, **more), "rain")
        found = await observe(server, engine, shape, agents(server.url, **more), "rain")
        assert found == eager


async def test_a_group_chat_without_a_last_round_or_with_a_person_plans_nothing(server):
    from semantic_parrot.adapters.semantic_kernel.orchestrations import _planned

    def person(history):
        raise AssertionError("nobody is asked while planning")

    for manager in (
        RoundRobinGroupChatManager(),
        RoundRobinGroupChatManager(max_rounds=2, human_response_function=person),
    ):
        orchestration = GroupChatOrchestration(members=agents(server.url), manager=manager)
        assert not (await _planned(orchestration, "rain")).calls
    assert not (await _planned(handoff(agents(server.url)), "rain")).calls
