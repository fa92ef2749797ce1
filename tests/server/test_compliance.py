"""llm-comply: requests of its own, and answers held against OpenAI's and Open Responses' schemas, which it carries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import llm_comply
import pytest
from live import LocalServer
from llm_comply import ComplianceConfig, SpecLoader
from llm_comply.runner import TestRunner as Runner
from llm_comply.test_case import TestCase as Case
from llm_comply.tests.open_responses import OPEN_RESPONSES_TESTS
from llm_comply.tests.openai_chat import OPENAI_CHAT_TESTS
from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import UNDIRECTED, Delta, Directions, Done, Usage
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.core.tools import CallDelta, ToolCall

SPECS = Path(llm_comply.__file__).parent / "specs"

#: What we do not claim, and refuse by name (images, reasoning, phases) or have no route for: there llm-comply takes a
#: 404 for an answer.
NOT_CLAIMED = frozenset(
    "chat-image-input chat-reasoning-summary image-input reasoning-summary assistant-phase compact-response "
    "compact-missing-model".split()
)
SUITES = ((OPENAI_CHAT_TESTS, "openai_chat.json"), (OPEN_RESPONSES_TESTS, "openresponses.json"))
CASES = [pytest.param(case, spec, id=case.id) for cases, spec in SUITES for case in cases if case.id not in NOT_CLAIMED]


class Caller(ScriptedEngine):
    """Calls the first tool where it must."""

    async def generate(
        self, request: ModelRequest, directions: Directions = UNDIRECTED
    ) -> AsyncGenerator[Delta | Done, None]:
        if request.tools is None or not request.tools.forced:
            async for item in super().generate(request, directions):
                yield item
            return
        name, arguments = request.tools.names[0], '{"location": "Harbour"}'
        yield Delta("", calls=(CallDelta(0, "", "call_1", name),))
        yield Delta("", calls=(CallDelta(0, arguments),))
        yield Done("", "tool_calls", Usage(5, 0, 5), calls=(ToolCall("call_1", name, arguments),))


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(Runtime([Caller()])) as server:
        yield server


@pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")
@pytest.mark.parametrize(("case", "spec"), CASES)
def test_it_complies(server: LocalServer, case: Case, spec: str):
    runner = Runner(ComplianceConfig(server.url, "any", model="default"), [case], SpecLoader(str(SPECS / spec)))
    (result,) = runner.run_all().results
    assert (result.status.value, result.errors) == ("passed", [])
