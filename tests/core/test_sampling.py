"""Sampling options of a body: each is obeyed, or refused by name."""

from __future__ import annotations

import pytest

from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.sampling import Sampling

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
COMPLETION = {"model": "m", "prompt": "x"}


@pytest.mark.parametrize("body", [CHAT, COMPLETION])
@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 101}, "repetition_penalty"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"frequency_penalty": "1"}, "frequency_penalty"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7"),
        ({"logit_bias": {"7": None}}, "logit_bias.7"),
        ({"logit_bias": {"the": 1}}, "logit_bias.the"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"07": 1}}, "logit_bias.07"),
        ({"logit_bias": {"7\n": 1}}, "logit_bias.7\n"),
        ({"logit_bias": [7]}, "logit_bias"),
        ({"seed": 1.0}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": 7}, "stop_token_ids"),
        ({"stop": ["x"] * 17}, None),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"best_of": 1}, "best_of"),
        ({"suffix": ""}, "suffix"),
        ({"echo": True}, "echo"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"length_penalty": 1}, "length_penalty"),
        ({"use_beam_search": True}, "use_beam_search"),
    ],
)
def test_what_is_refused_is_named(body, fields, place):
    with pytest.raises(InvalidRequest) as caught:
        parse_request({**body, **fields}, prefix="calls[0].request")
    assert caught.value.status == 400
    if place is not None:
        assert caught.value.where == f"calls[0].request.{place}"
        assert place.partition(".")[0].partition("[")[0] in caught.value.message


def test_min_tokens_is_held_against_the_default_of_completions():
    parse_request({**CHAT, "min_tokens": 17})
    with pytest.raises(InvalidRequest, match="min_tokens 17 is more than max_tokens, which is 16"):
        parse_request({**COMPLETION, "min_tokens": 17})


def test_everything_is_passed_on():
    fields = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 2,
        "presence_penalty": -1,
        "frequency_penalty": 1.5,
        "logit_bias": {"0": -100, "12": 2.5},
        "seed": -7,
        "max_tokens": 9,
        "min_tokens": 9,
        "stop": "x",
        "stop_token_ids": [4, 4, 3],
        "ignore_eos": True,
    }
    assert parse_request({**CHAT, **fields}).sampling == Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=7,
        min_p=0.1,
        repetition_penalty=2.0,
        presence_penalty=-1.0,
        frequency_penalty=1.5,
        logit_bias=((0, -100.0), (12, 2.5)),
        seed=-7,
        max_tokens=9,
        min_tokens=9,
        stop=("x",),
        stop_token_ids=(4, 3),
        ignore_eos=True,
    )


@pytest.mark.parametrize("top_k", [-1, 0, None])
def test_what_is_left_out_or_neutral_changes_nothing(top_k):
    names = "temperature top_p min_p repetition_penalty presence_penalty frequency_penalty logit_bias stop".split()
    neutral = {**dict.fromkeys(names), "top_k": top_k, "seed": 1, "min_tokens": None, "stop_token_ids": None}
    found = parse_request({**CHAT, **neutral}).sampling
    assert found == Sampling(seed=1)
    assert not found.penalised
    assert not found.cut
