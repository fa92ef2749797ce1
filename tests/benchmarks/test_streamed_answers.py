"""Reading what a server streamed: events whole or in pieces, chunked or not, and what is no answer."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.workloads import Workload, check_counts, decode, prefill
from peers.client import Answer, read
from peers.process import PeerFailed

EVENTS = (
    b'data: {"choices": [{"text": " one"}]}\n\n'
    b'data: {"choices": [{"text": ""}]}\n\n'
    b': heartbeat\n\ndata: {"choices": [{"delta": {"content": " two"}}]}\r\n\r\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'
)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)] + [b""]
    return b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "\r\n")).encode() + body


@given(cuts=st.sets(st.integers(1, 600)), size=st.integers(1, 90), form=st.sampled_from(("chunked", "length", "close")))
def test_the_same_answer_however_it_was_cut(cuts: set[int], size: int, form: str) -> None:
    whole = {
        "chunked": response(chunked(EVENTS, size), "Transfer-Encoding: chunked"),
        "length": response(EVENTS, f"Content-Length: {len(EVENTS)}"),
        "close": response(EVENTS, "Connection: close"),
    }[form]
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    arrived = [(float(end), whole[begin:end]) for begin, end in itertools.pairwise(edges)]
    answer = read(0.5, arrived)
    assert (answer.text, answer.prompt, answer.tokens, answer.sent) == (" one two", 7, 3, 0.5)
    # A piece of text has the time at which its line's end came, which is after all that it is made of.
    assert len(answer.chunks) == 2
    for piece, at in zip((b" one", b" two"), answer.chunks, strict=True):
        begin = whole.find(piece)
        assert at in {float(e) for e in edges}
        assert begin < 0 or begin + len(piece) <= at


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (response(b"no such model", "Content-Length: 13", status="404 Not Found"), "404.*no such model"),
        (response(EVENTS, f"Content-Length: {len(EVENTS) + 5}"), "ended early"),
        (b"", "ended early"),
        (b"220 mail ready\r\n", "no HTTP"),
        (response(b"data: {oops}\n\n", "Content-Length: 14"), "no JSON"),
        (response(b'data: {"error": "worker is dead"}\n\n', "Connection: close"), "worker is dead"),
        (response(b"data: [DONE]\n\n", "Connection: close"), "no text"),
    ],
)
def test_what_is_no_answer_is_said(data: bytes, why: str) -> None:
    with pytest.raises(PeerFailed, match=why):
        read(0.0, [(1.0, data)])


def answer(*chunks: float, sent: float = 0.0, tokens: int | None = None, prompt: int | None = None) -> Answer:
    return Answer("text", sent, chunks, tokens, prompt)


def test_decode_counts_only_while_all_decode() -> None:
    work = Workload("w", "w", 2, 10, 5, decode)
    # The second begins at 4 and the first ends at 5: between them two tokens of one, one of the other.
    figure = decode([answer(1, 2, 3, 4.5, 5), answer(4, 4.8, 6, 7, 8)], work)
    assert figure == pytest.approx(3 / 1)
    # Text that came in half as many pieces counts for as many tokens.
    assert decode([answer(0, 2, 4, 6)], Workload("w", "w", 1, 10, 8, decode)) == pytest.approx(3 * 2 / 6)
    with pytest.raises(PeerFailed, match="never ran 2 requests at once"):
        decode([answer(1, 2), answer(3, 4)], work)


def test_prefill_ends_with_the_last_first_token() -> None:
    work = Workload("w", "w", 2, 100, 1, prefill, shared=20)
    assert prefill([answer(3, sent=1.0), answer(5, sent=1.5)], work) == pytest.approx(240 / 4)


def test_a_server_that_computed_something_else_is_no_figure() -> None:
    work = Workload("w", "w", 1, 10, 4, decode, shared=5)
    check_counts([answer(1, 2), answer(1, 2, tokens=4, prompt=15)], work)
    with pytest.raises(PeerFailed, match="prompt has 16 tokens instead of 15"):
        check_counts([answer(1, 2, prompt=16)], work)
    with pytest.raises(PeerFailed, match="answer has 2 tokens instead of 4"):
        check_counts([answer(1, 2, tokens=2)], work)


def test_prompts_are_new_each_time_and_share_only_their_prefix() -> None:
    words = [f"w{i}" for i in range(500)]
    work = Workload("w", "w", 3, 4, 1, decode, shared=6)
    first, second = work.prompts(words, 0), work.prompts(words, 1)
    assert work.prompts(words, 0) == first
    assert {len(text.split()) for text in (*first, *second)} == {10}
    assert len({tuple(text.split()[:6]) for text in first}) == 1
    assert len({tuple(text.split()[6:]) for text in first}) == 3
    assert first[0].split()[:6] != second[0].split()[:6]
    assert json.dumps(first)  # what is sent
