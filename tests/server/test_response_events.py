"""A response is made of whatever order an engine tells its parts in: some servers go on with calls side by side."""

from __future__ import annotations

import openai
import pytest
from openai.types.responses import Response

from semantic_parrot.core.engines.protocol import Delta, Done, Usage
from semantic_parrot.core.tools import CallDelta
from semantic_parrot.server.responses.body import parse_body
from semantic_parrot.server.responses.events import Events
from semantic_parrot.server.responses.resource import Resource


def calls(*deltas):
    return [Delta("", calls=(CallDelta(index, text, id, id and f"f{index}"),)) for index, text, id in deltas]


BESIDE = calls((0, '{"a"', "c0"), (1, '{"b"', "c1"), (0, ": 0}", None), (1, ": 1}", None))
INSIDE = [Delta("Well"), *calls((0, '{"a"', "c0")), Delta("\n"), Delta("!"), *calls((0, ": 0}", None))]


def told(deltas, reason="tool_calls"):
    events = Events(Resource(parse_body({"model": "default", "input": "x"}), id="resp_1", created=0))
    parts = [events.start(), *map(events.delta, deltas), events.finish(Done("", reason, Usage(1, 0, 9)))]
    return [event for part in parts for event in part]


@pytest.mark.parametrize(
    ("deltas", "output"),
    [(BESIDE, ['{"a": 0}', '{"b": 1}']), (INSIDE, ["Well", '{"a": 0}', "\n!"])],
)
def test_each_part_goes_where_it_belongs(deltas, output):
    events = told(deltas)
    response = Response.model_validate(events[-1]["response"])
    assert [getattr(item, "arguments", "") or item.content[0].text for item in response.output] == output
    grown = [""] * len(output)
    for event in events:
        if event["type"].endswith(".delta"):
            grown[event["output_index"]] += event["delta"]
            assert event["item_id"] == response.output[event["output_index"]].id
    assert grown == output
    done = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    assert sorted(done) == list(range(len(output)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_what_is_cut_off_is_the_last():
    *_, last = told(calls((0, "{}", "c0"), (1, "{", "c1")), "length")
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "incomplete"]


def test_a_mistake_is_where_the_client_made_it(site):
    """Not where it is in the chat that is made of the input."""
    items = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "c0", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "[]"},
    ]
    with (
        openai.OpenAI(base_url=site.server.url, api_key="any", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as refused,
    ):
        client.responses.create(model="default", instructions="Be brief.", input=items)
    assert refused.value.param == "input[2].arguments"
