"""`str(result)` passed on to the next `kernel.invoke`: as many round trips as stock, and the server is told of it."""

from __future__ import annotations

import httpx
import pytest
from live import LocalServer
from scripted import ScriptedEngine, answer
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from sk_pairs import parrot, stock

from semantic_parrot.adapters.semantic_kernel.filters import attach
from semantic_parrot.core.runtime import Runtime

STEPS = {"draft": "Draft {{$text}}", "review": "Review this: {{$text}}!", "title": "{{$text}}"}


@pytest.fixture(scope="module")
def server():
    engine = ScriptedEngine(answers=lambda request: f"{answer(request)} and so on, at length")
    with LocalServer(Runtime([engine], disable={"single-flight"})) as running:
        yield running


async def chained(service, stream=False):
    """The ids of the answers of a chain by str(), and the last text."""
    kernel = Kernel()
    kernel.add_service(service)
    attach(kernel)
    text, ids = "a draft of something", []
    for name, prompt in STEPS.items():
        function = kernel.add_function(plugin_name="w", function_name=name, prompt=prompt)
        if stream:
            pieces = [piece[0] async for piece in kernel.invoke_stream(function, text=text)]
            text, inner = "".join(map(str, pieces)), pieces[0].inner_content
        else:
            result = await kernel.invoke(function, text=text)
            text, inner = str(result), result.value[0].inner_content
        ids.append(inner.id)
    await service.client.close()
    return ids, text


def outside(server, id):
    [call] = httpx.get(f"{server.url}/runs/{id}/report").json()["calls"]
    return call["outside"]


@pytest.mark.parametrize("stream", [False, True])
async def test_three_round_trips_and_each_cites_the_one_before(server, stream):
    before = server.requests()
    ids, text = await chained(parrot(server.url), stream)
    assert server.requests() - before == 3
    cited = [[{"run": id, "call": id}] for id in ids]
    assert [outside(server, id) for id in ids] == [[], *cited[:2]]
    assert text == (await chained(stock(server.url)))[1]


async def test_another_service_of_the_same_server_says_nothing_of_it(server):
    ids, _ = await chained(stock(server.url))
    assert [outside(server, id) for id in ids] == [[], [], []]


async def test_an_agents_second_turn_cites_its_first(server):
    service = parrot(server.url)
    agent = ChatCompletionAgent(service=service, name="clerk", instructions="Be brief.")
    first = await agent.get_response(messages="What came in today, and from where?")
    second = await agent.get_response(messages="And yesterday?", thread=first.thread)
    ids = [answer.message.inner_content.id for answer in (first, second)]
    assert [outside(server, id) for id in ids] == [[], [{"run": ids[0], "call": ids[0]}]]
    await service.client.close()
