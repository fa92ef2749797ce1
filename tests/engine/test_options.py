"""Sampling options through the whole engine: obeyed, refused before anything runs, in the company of other requests."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


@pytest.fixture
def b(tiny, bench):
    return bench(tiny("llama"), deterministic=True)


def answer(b, id):
    return b.tokens(id)[b.done[id].usage.prompt :]


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty_as_generate(tiny, b, ask, penalty):
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    prompt = AutoTokenizer.from_pretrained(tiny("llama"))(LINE, return_tensors="pt").input_ids
    made = model.generate(
        prompt, do_sample=False, max_new_tokens=40, min_new_tokens=40, repetition_penalty=penalty, pad_token_id=0
    )
    expected = made[0, prompt.shape[1] :].tolist()
    assert 2 not in expected
    id = b.submit(ask(LINE, 40, repetition_penalty=penalty))
    plain = b.submit(ask(LINE, 40))
    b.drain()
    assert answer(b, id) == expected != answer(b, plain)


def test_bias_forces_and_forbids(b, ask):
    forced = b.submit(ask(LINE, 6, logit_bias=((17, 100.0),)))
    plain = b.submit(ask(LINE, 6))
    b.drain()
    assert answer(b, forced) == [17] * 6
    first = answer(b, plain)[0]
    forbidden = b.submit(ask(LINE, 6, logit_bias=((first, -100.0),)))
    b.drain()
    assert first not in answer(b, forbidden)


def test_stop_token_ids_and_min_tokens(b, ask):
    free = b.submit(ask(LINE, 30))
    b.drain()
    whole = answer(b, free)
    stop = next(token for token in whole[4:] if token not in whole[:4])
    at = whole.index(stop)
    d = b.run(ask(LINE, 30, stop_token_ids=(stop,)))[0]
    assert (d.reason, d.usage.completion, d.text) == ("stop", at + 1, b.loop.text.decode(whole[:at]))
    late = b.submit(ask(LINE, 30, stop_token_ids=(stop,), min_tokens=at + 5))
    b.drain()
    assert answer(b, late)[:at] == whole[:at]
    assert stop not in answer(b, late)[: at + 5]


def test_min_tokens_of_the_models_own_end(b, ask):
    b.loop._eos = frozenset(range(10, 400))  # nearly all of them
    d = b.run(ask(LINE, 30, ignore_eos=False))[0]
    assert d.usage.completion == 1
    d = b.run(ask(LINE, 30, ignore_eos=False, min_tokens=7))[0]
    assert 7 < d.usage.completion < 30
    assert d.reason == "stop"
    assert b.run(ask(LINE, 30, ignore_eos=True, min_tokens=7))[0].usage.completion == 30


def test_a_stop_string_counts_after_min_tokens(b, ask):
    whole = b.run(ask(LINE, 60))[0].text
    stop = whole[3:6]
    d = b.run(ask(LINE, 60, stop=(stop,), min_tokens=20))[0]
    head = b.loop.text.decode(b.tokens(2)[d.usage.prompt :][:20])
    assert d.text.startswith(head)
    assert stop not in d.text[len(head) :]
    assert "".join(b.deltas[2]) == d.text


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"logit_bias": ((399, 1.0), (400, 1.0))}, "invalid_request", "logit_bias"),
        ({"stop_token_ids": (2**31 - 1,)}, "invalid_request", "stop_token_ids"),
        ({"min_tokens": 1000}, "context_length_exceeded", "min_tokens"),
    ],
)
def test_what_only_the_model_can_tell_is_refused_before_it_runs(b, ask, fields, code, field):
    bad = b.submit(ask(LINE, None, **fields))
    assert (b.failed[bad].code, b.failed[bad].where) == (code, field)
    assert field in b.failed[bad].message
    assert not b.loop.busy


MIXED = [
    {"temperature": 0.0, "repetition_penalty": 1.2},
    {"temperature": 0.9, "frequency_penalty": 0.5, "seed": 3},
    {"temperature": 1.3, "top_k": 20, "min_p": 0.05, "seed": 4},
    {"temperature": 1.0, "presence_penalty": -1.0, "logit_bias": ((9, 4.0),), "seed": 5},
    {"temperature": 0.0},
    {"temperature": 0.8, "top_p": 0.9, "min_tokens": 5, "ignore_eos": False, "seed": 6},
]


def test_a_request_gets_the_same_alone_and_in_a_crowd(tiny, b, bench, ask):
    requests = [ask(LINE + "Ship" * (n % 3), 20, **how) for n, how in enumerate(MIXED)]
    alone = [b.run(r)[0].text for r in requests]
    crowd = bench(tiny("llama"), deterministic=True, chunk=16, kv_tokens=512)  # too small for all: some are preempted
    assert [d.text for d in crowd.run(*requests)] == alone
    assert len(set(alone)) == len(alone)


def poison(b, text, *healthy):
    """The first token of `text` gives no numbers from now on; none of the `healthy` requests has it."""
    token = b.loop.text.encode(text)[0]
    assert all(token not in b.tokens(id) for id in healthy)
    with torch.no_grad():
        b.recorded.runner._model.get_input_embeddings().weight[token] = torch.nan


def test_logits_that_are_no_numbers_end_their_request_only(b, ask):
    healthy = [LINE + name for name in ("one", "two", "three")]
    expected = [d.text for d in b.run(*(ask(text, 30) for text in healthy))]
    b.loop.forget_prefixes()
    poison(b, "¬", 1, 2, 3)
    ids = [b.submit(ask(text, 30)) for text in healthy]
    for _ in range(5):
        b.step()
    sick = [b.submit(ask(LINE + "¬" + str(n), 30, temperature=float(n))) for n in range(2)]
    b.drain()
    assert [b.done[id].text for id in ids] == expected
    for id in sick:
        assert b.failed[id].code == "bad_logits"
        assert "not finite" in b.failed[id].message
        assert id not in b.deltas
    assert b.loop.stats().kv_blocks_used == 0
    # Blocks that held what was no number are taken by others in time, and no trace of it is left.
    b.loop.forget_prefixes()
    assert [d.text for d in b.run(*(ask(text, 30) for text in healthy))] == expected


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("end", ["fails", "is cancelled in prefill"])
def test_blocks_that_held_no_numbers_are_as_good_as_new(tiny, bench, ask, deterministic, end):
    b = bench(tiny("llama"), deterministic=deterministic, kv_tokens=256, chunk=64)
    healthy, after = ask(LINE * 2, 30), ask(LINE + "A", 30)
    expected = [b.run(r)[0].text for r in (healthy, after)]
    b.loop.forget_prefixes()
    poison(b, "¬", 1, 2)
    sick = b.submit(ask(LINE + "¬" * 50, 5))
    if end == "fails":
        b.drain()
        assert b.failed[sick].code == "bad_logits"
    else:
        b.step()
        b.step()
        assert b.loop.busy
        b.loop.cancel(sick)
    # What they share was computed in one product with what was no number, and may be none either.
    assert b.run(after)[0].text == expected[1]
    b.loop.forget_prefixes()
    assert b.run(healthy)[0].text == expected[0]


def test_a_copied_beginning_of_a_block_brings_nothing_else(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True, chunk=17)
    after = ask(LINE + "A", 30)
    expected = b.run(after)[0]
    shared = len(b.loop.text.encode(LINE))
    assert shared == 34  # two chunks, and two tokens into a block
    b.loop.forget_prefixes()
    poison(b, "¬", 1)
    sick = b.submit(ask(LINE + "¬" * 20, 5))
    for _ in range(3):
        b.step()
    b.loop.cancel(sick)
    steps = b.loop.stats().steps
    found = b.run(after)[0]
    assert found.usage.cached == shared
    assert found.text == expected.text
    assert b.loop.stats().steps - steps == 30  # a token each: it was not computed a second time


def test_a_fan_out_outlives_its_sick_leader(b, ask):
    healthy = [ask(LINE + name, 20) for name in ("one", "two", "three")]
    expected = [d.text for d in b.run(*healthy)]
    b.loop.forget_prefixes()
    poison(b, "¬", 1, 2, 3)
    sick = b.submit(ask(LINE + "¬", 20))
    assert [d.text for d in b.run(*healthy)] == expected
    assert b.failed[sick].code == "bad_logits"
    assert b.loop.stats().kv_blocks_used == 0
