"""A replayed stream, step by step: what is passed on, and what is left when the answer is lost."""

from __future__ import annotations

import json

import pytest

from semantic_parrot.adapters.answers import Answer, Failed, Finished, Lost
from semantic_parrot.adapters.endpoint import Endpoint
from semantic_parrot.adapters.plan import PlannedCall
from semantic_parrot.adapters.replay import AnswerLost, StreamReplay
from semantic_parrot.adapters.resume import Diverged, Rest

REQUEST = {"model": "m", "temperature": 0, "stream_options": {"include_usage": True}}
KEY = "k" * 64


def answer():
    found = Answer("c", PlannedCall("text0", {}, Endpoint("http://x/v1"), None), None)
    found.confirm(KEY)
    return found


def finished(text, **message):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
    return Finished(KEY, {"id": "x", "choices": [choice], "usage": {"completion_tokens": 2}})


def chunks(data):
    blocks = [line[6:] for line in data.decode().splitlines() if line]
    return [json.loads(block) if block != "[DONE]" else block for block in blocks]


def text(found):
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in found if c != "[DONE]" and c["choices"])


def test_deltas_then_the_end():
    source = answer()
    replay = StreamReplay(source, REQUEST)
    source.add("one")
    first = chunks(replay.advance())
    assert first[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text(first) == "one"
    source.add(" two")
    source.settle(finished("one two three"))
    last = chunks(replay.advance())
    assert text(last) == " two three"
    assert last[-1] == "[DONE]"
    assert last[-2]["usage"] == {"completion_tokens": 2}
    assert last[-3]["choices"][0]["finish_reason"] == "stop"
    assert replay.done


def test_without_deltas_the_whole_text_comes_at_once_with_tool_calls():
    source = answer()
    source.settle(finished("all", tool_calls=[{"id": "c", "type": "function", "function": {"name": "f"}}]))
    found = chunks(StreamReplay(source, REQUEST).advance())
    assert text(found) == "all"
    assert any(c["choices"][0]["delta"].get("tool_calls") for c in found if c != "[DONE]" and c["choices"])


def test_what_is_lost_is_what_was_not_passed_on():
    source = answer()
    replay = StreamReplay(source, REQUEST)
    source.add("one")
    replay.advance()
    source.add(" two")
    source.settle(Lost("gone"))
    with pytest.raises(AnswerLost) as error:
        replay.advance()
    assert error.value.text == "one"


def test_a_text_that_is_not_its_deltas_is_lost():
    source = answer()
    source.add("one")
    source.settle(finished("two"))
    with pytest.raises(AnswerLost) as error:
        StreamReplay(source, REQUEST).advance()
    assert error.value.text == ""


def test_a_failure_in_the_middle_is_an_error_block():
    source = answer()
    source.add("one")
    source.settle(Failed(KEY, 500, {"error": {"message": "no"}}))
    assert {"error": {"message": "no"}} in chunks(StreamReplay(source, REQUEST).advance())


@pytest.mark.parametrize("first", ["w" * 64, None])
def test_another_key_is_never_an_answer(first):
    source = Answer("c", PlannedCall("text0", {}, Endpoint("http://x/v1"), None), first)
    source.confirm(KEY)
    source.settle(Finished("z" * 64, {}))
    assert isinstance(source.outcome, Lost)


def lines(*texts):
    return [
        *(f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': t}}]})}" for t in texts),
        "data: [DONE]",
    ]


@pytest.mark.parametrize("sent", ["", "a", "ab", "abc d", "abc def"])
def test_the_rest_continues_anywhere(sent):
    rest = Rest(sent)
    found = chunks(b"".join(rest.feed(line) for line in lines("ab", "c", " def")))
    assert sent + text(found) == "abc def"


def told(*tokens):
    return {"content": [{"token": token} for token in tokens], "refusal": None}


def choice(index, text, *tokens):
    message = {"role": "assistant", "content": text}
    return {"index": index, "finish_reason": "stop", "message": message, "logprobs": told(*tokens)}


def tokens(found, index):
    mine = [c["choices"][0] for c in found if c != "[DONE]" and c["choices"] and c["choices"][0]["index"] == index]
    return [entry["token"] for c in mine if c["logprobs"] for entry in c["logprobs"]["content"]]


def test_logprobs_go_with_their_deltas_and_further_choices_follow():
    source = answer()
    replay = StreamReplay(source, {**REQUEST, "n": 2})
    source.add("ab", told("a", "b"))
    first = chunks(replay.advance())
    assert [c["choices"][0]["index"] for c in first] == [0, 1, 0]
    assert tokens(first, 0) == ["a", "b"]
    both = [choice(0, "abc", "a", "b", "c", ""), choice(1, "de", "d", "e")]
    source.settle(Finished(KEY, {"id": "x", "choices": both, "usage": {}}))
    last = chunks(replay.advance())
    assert tokens(last, 0) == ["c", ""]
    assert tokens(last, 1) == ["d", "e"]
    ends = [c["choices"][0] for c in last if c != "[DONE]" and c["choices"] and c["choices"][0]["finish_reason"]]
    assert [c["index"] for c in ends] == [0, 1]
    assert [c["choices"][0]["delta"].get("content") for c in last if c != "[DONE]" and c["choices"]][:2] == ["c", "de"]


def test_what_is_lost_is_resumed_without_the_logprobs_that_were_sent():
    source = answer()
    replay = StreamReplay(source, REQUEST)
    source.add("ab", told("a", "b"))
    replay.advance()
    source.settle(Lost("gone"))
    with pytest.raises(AnswerLost) as error:
        replay.advance()
    rest = Rest(error.value.text, error.value.told)
    again = [(0, "a", ["a"]), (1, "x", ["x"]), (0, "bc", ["b", "c"]), (1, "y", ["y"]), (0, "", [""])]
    made = [{"index": i, "delta": {"content": t}, "logprobs": told(*some)} for i, t, some in again]
    found = chunks(b"".join(rest.feed(f"data: {json.dumps({'choices': [c]})}") for c in made))
    assert [c["choices"][0]["delta"]["content"] for c in found] == ["", "x", "c", "y", ""]
    assert tokens(found, 0) == ["c", ""]
    assert tokens(found, 1) == ["x", "y"]


@pytest.mark.parametrize("sent", ["x", "abx", "abc def and more"])
def test_another_text_is_no_rest(sent):
    rest = Rest(sent)
    with pytest.raises(Diverged):
        [rest.feed(line) for line in lines("ab", "c", " def")]


def test_a_completion_has_texts_where_a_chat_has_deltas():
    source = answer()
    replay = StreamReplay(source, {"model": "m", "temperature": 0, "prompt": "p"})
    source.add("one")
    (first,) = chunks(replay.advance())
    assert (first["object"], first["id"][:5]) == ("text_completion", "cmpl-")
    assert first["choices"] == [{"index": 0, "text": "one", "logprobs": None, "finish_reason": None}]
    end = {"index": 0, "finish_reason": "stop", "text": "one two"}
    source.settle(Finished(KEY, {"id": "x", "choices": [end], "usage": {}}))
    *more, done = chunks(replay.advance())
    assert [c["choices"][0]["text"] for c in more] == [" two", ""]
    assert more[-1]["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


def test_the_rest_of_a_completion():
    rest = Rest("abc ")
    blocks = [rest.feed(f"data: {json.dumps({'choices': [{'index': 0, 'text': t}]})}") for t in ("ab", "c d", "ef")]
    assert [c["choices"][0]["text"] for c in chunks(b"".join(blocks))] == ["", "d", "ef"]
    with pytest.raises(Diverged):
        Rest("abc").feed('data: {"choices": [{"index": 0, "text": "x"}]}')
