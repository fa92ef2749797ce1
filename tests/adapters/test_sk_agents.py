"""What is eager by its nature: processes, handoff, Magentic. As stock, and the server is told where texts came from."""

from __future__ import annotations

import itertools
import json
from typing import ClassVar

import httpx
import pytest
from live import LocalServer
from scripted import answer, text_of
from semantic_kernel import Kernel
from semantic_kernel.agents import (
    ChatCompletionAgent,
    HandoffOrchestration,
    MagenticOrchestration,
    OrchestrationHandoffs,
    StandardMagenticManager,
)
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.contents import AuthorRole, ChatMessageContent
from semantic_kernel.functions import kernel_function
from semantic_kernel.processes import ProcessBuilder
from semantic_kernel.processes.kernel_process import KernelProcessStep, KernelProcessStepContext
from semantic_kernel.processes.local_runtime.local_event import KernelProcessEvent
from semantic_kernel.processes.local_runtime.local_kernel_process import start
from semantic_kernel.processes.process_function_target_builder import ProcessFunctionTargetBuilder
from sk_engine import SkEngine
from sk_pairs import parrot, stock

from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion
from semantic_parrot.adapters.semantic_kernel.filters import attach
from semantic_parrot.core.engines.protocol import UNDIRECTED
from semantic_parrot.core.runtime import Runtime

# Of what Semantic Kernel reads of the steps of a process.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


INSTRUCTION = "Write the sentence that the plan asks for, with its facts."
GOOD = "It is good now."


def ledger(request):
    """Of Magentic's manager: first the writer is to do something, then nothing is left to do."""
    said = {
        "is_request_satisfied": INSTRUCTION in text_of(request),
        "is_in_loop": False,
        "is_progress_being_made": True,
        "next_speaker": "Writer",
        "instruction_or_question": INSTRUCTION,
    }
    return json.dumps({name: {"reason": "so it is", "answer": value} for name, value in said.items()})


class Engine(SkEngine):
    """Says what is long enough to be recognised. The writer hands over; the critic ends when all is good."""

    def __init__(self):
        super().__init__(answers=lambda request: ledger(request) if request.grammar else self._say(request))

    @staticmethod
    def _say(request):
        return f"{answer(request)} & so on, at <length>"

    def generate(self, request, directions=UNDIRECTED):
        for sign, self.arguments in (GOOD, '{"task_summary": "all of it"}'), ("You are the writer", "{}"):
            if sign in text_of(request):
                return super().generate(request, directions)
        return super(SkEngine, self).generate(request, directions)


@pytest.fixture(scope="module")
def server():
    with LocalServer(Runtime([Engine()], disable={"single-flight"})) as running:
        yield running


@pytest.fixture
def ids(monkeypatch):
    """The ids of the answers of our service, in the order in which they came."""
    found = {}
    whole = ParrotChatCompletion._inner_get_chat_message_contents
    pieces = ParrotChatCompletion._inner_get_streaming_chat_message_contents

    async def kept(self, *args, **kwargs):
        contents = await whole(self, *args, **kwargs)
        found[contents[0].inner_content.id] = None
        return contents

    async def streamed(self, *args, **kwargs):
        async for piece in pieces(self, *args, **kwargs):
            found[piece[0].inner_content.id] = None
            yield piece

    monkeypatch.setattr(ParrotChatCompletion, "_inner_get_chat_message_contents", kept)
    monkeypatch.setattr(ParrotChatCompletion, "_inner_get_streaming_chat_message_contents", streamed)
    return found


class Step(KernelProcessStep):
    """Asks the model, and hands its text on as an event."""

    @kernel_function
    async def run(self, context: KernelProcessStepContext, kernel: Kernel, text: str) -> None:
        made = await kernel.invoke_prompt(f"{type(self).__name__} this: {{{{$text}}}}", text=text)
        await context.emit_event(process_event="done", data=str(made))


class Draft(Step):
    pass


class Review(Step):
    pass


class Keep(KernelProcessStep):
    kept: ClassVar[list[str]] = []

    @kernel_function
    async def run(self, text: str) -> None:
        self.kept.append(text)


def target(step):
    return ProcessFunctionTargetBuilder(step, function_name="run", parameter_name="text")


async def process(service):
    kernel = Kernel()
    kernel.add_service(service)
    attach(kernel)
    builder = ProcessBuilder(name="Papers")
    steps = [builder.add_step(kind) for kind in (Draft, Review, Keep)]
    builder.on_input_event("start").send_event_to(target(steps[0]))
    for one, after in itertools.pairwise(steps):
        one.on_event("done").send_event_to(target(after))
    Keep.kept.clear()
    async with await start(builder.build(), kernel, KernelProcessEvent(id="start", data="cats & <dogs>")):
        return list(Keep.kept)


async def orchestrated(orchestration):
    runtime = InProcessRuntime()
    runtime.start()
    found = await (await orchestration.invoke(task="A sentence on cats & <dogs>", runtime=runtime)).get()
    await runtime.stop_when_idle()
    return found.content


def members(service):
    return [
        ChatCompletionAgent(service=service, name=name, description=name, instructions=f"You are the {name.lower()}.")
        for name in ("Writer", "Critic")
    ]


async def handoff(service):
    heard = []
    orchestration = HandoffOrchestration(
        members=members(service),
        handoffs=OrchestrationHandoffs().add("Writer", "Critic", "when it is written"),
        human_response_function=lambda: ChatMessageContent(role=AuthorRole.USER, content=GOOD),
        agent_response_callback=lambda message: heard.append((message.name, message.content)),
    )
    return await orchestrated(orchestration), heard


async def magentic(service):
    manager = StandardMagenticManager(chat_completion_service=service)
    return await orchestrated(MagenticOrchestration(members=members(service), manager=manager))


async def observed(server, make, work):
    service = make(server.url)
    before = server.requests()
    try:
        return await work(service), server.requests() - before
    finally:
        await service.client.close()


#: For each call, those before it whose texts stand in its prompt. The writer's first answer is a tool's call, no text;
#: Magentic's manager says the facts (0) and the plan (1), then a ledger, which nobody reads, and the writer writes (3).
CITED = {
    process: [set(), {0}],
    handoff: [set(), set(), {1}],
    magentic: [set(), {0}, {0, 1}, {0, 1}, {0, 1, 3}, {0, 1, 3}],
}


@pytest.mark.parametrize("work", CITED)
async def test_it_is_as_stock(work, server):
    found, trips = await observed(server, parrot, work)
    assert (found, trips) == await observed(server, stock, work)
    assert found
    assert trips == len(CITED[work])


def outside(server, id):
    [call] = httpx.get(f"{server.url}/runs/{id}/report").json()["calls"]
    return [source["call"] for source in call["outside"]]


@pytest.mark.parametrize("work", CITED)
async def test_its_calls_cite_those_whose_texts_they_carry(work, server, ids):
    await observed(server, parrot, work)
    numbers = {id: number for number, id in enumerate(ids)}
    assert [{numbers[cited] for cited in outside(server, id)} for id in ids] == CITED[work]
