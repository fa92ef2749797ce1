"""Prompts filled before the rest of them is known: found by the request itself, never in anybody's way."""

from __future__ import annotations

import random
import time

import pytest
import torch

from semantic_parrot.core.engines.protocol import Keep
from semantic_parrot.core.request import UNKNOWN, Message

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


@pytest.fixture
def b(tiny, bench):
    return bench(tiny("llama"), deterministic=True)


def chat(text):
    return (Message("system", "You are the harbour's clerk."), Message("user", text))


def test_the_request_finds_what_was_filled(b, bench, tiny, ask):
    whole = ask(chat("Report: " + LINE + "Give the title."), 16)
    alone = bench(tiny("llama"), deterministic=True)
    expected = alone.run(whole)[0]
    b.loop.prefill(900, ask(chat("Report: " + LINE + UNKNOWN), 16))
    b.drain()
    assert b.loop.stats().kv_blocks_used == 0
    done = b.run(whole)[0]
    assert done.text == expected.text
    assert expected.usage.cached == 0
    known = len(b.loop.text.encode("Report: " + LINE))
    assert done.usage.cached >= known - 4
    assert torch.equal(b.logits(1), alone.logits(1))


def test_growing_text_is_filled_step_by_step_and_only_once(b, ask):
    text = "".join(f"{LINE}{n}. " for n in range(6))
    for end in range(100, len(text), 100):
        b.loop.prefill(900, ask(chat("Merge: " + text[:end] + UNKNOWN + " in one"), 8))
        b.drain()
    filled = b.loop.stats().prompt_tokens_computed
    done = b.run(ask(chat("Merge: " + text + " in one"), 8))[0]
    assert filled <= done.usage.prompt + 6 * 2  # the last token of each beginning is computed again
    assert done.usage.cached > done.usage.prompt * 0.7


def test_it_yields_to_a_request_and_goes_on_afterwards(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True, chunk=16)
    long = "".join(f"{LINE}{n}. " for n in range(8))
    b.loop.prefill(900, ask(long + UNKNOWN, 1))
    b.step()
    b.step()
    assert b.loop.stats().prompt_tokens_computed == 32
    b.submit(ask("A word: ", 4))
    while not b.done:
        b.step()
        # The request's own prefill is over in one step; from then on it decodes beside the filling.
        assert b.loop.stats().waiting == 0
    b.drain()
    done = b.run(ask(long + "end", 1))[0]
    assert done.usage.cached >= done.usage.prompt - 8


def test_what_is_replaced_or_cancelled_holds_nothing(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True, chunk=16)
    for n in range(3):
        b.loop.prefill(900, ask(f"{n} {LINE}{LINE}" + UNKNOWN, 1))
        b.step()
        assert b.loop.stats().kv_blocks_used > 0
    b.loop.cancel(900)
    assert b.loop.stats().kv_blocks_used == 0
    assert not b.loop.busy
    assert not b.loop._begun


def test_what_does_not_fit_is_given_up(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True, kv_tokens=12 * 16)
    b.submit(ask(LINE, 60))
    b.step()
    b.loop.prefill(900, ask("".join(f"{LINE}{n}" for n in range(3)) + UNKNOWN, 1))
    b.drain()
    assert b.done[1].usage.completion == 60
    assert b.loop.stats().kv_blocks_used == 0


def test_without_a_prefix_cache_it_is_ignored(tiny, bench, ask):
    b = bench(tiny("llama"), prefix_cache=False)
    b.loop.prefill(900, ask(LINE + UNKNOWN, 1))
    assert not b.loop.busy


def test_a_prompt_that_begins_unknown_has_nothing_to_fill(b, ask):
    b.loop.prefill(900, ask(UNKNOWN + LINE, 1))
    b.drain()
    assert b.loop.stats().prompt_tokens_computed <= 2


@pytest.mark.parametrize("seed", range(4))
def test_same_bits_whatever_is_filled_beside(tiny, bench, ask, seed):
    rng = random.Random(seed)
    alone = bench(tiny("llama"), deterministic=True)
    b = bench(tiny("llama"), deterministic=True, kv_tokens=40 * 16, chunk=32)
    prompts = [LINE[: rng.randint(5, 90)] * rng.randint(1, 3) + str(n) for n in range(6)]
    for n, prompt in enumerate(prompts):
        for key in rng.sample(range(900, 904), rng.randint(0, 3)):
            other = rng.choice(prompts)
            b.loop.prefill(key, ask(other[: rng.randint(1, len(other))] + UNKNOWN, 1))
        if rng.random() < 0.3:
            b.loop.cancel(rng.randint(900, 903))
        b.submit(ask(prompt, 12))
        for _ in range(rng.randint(0, 8)):
            b.step()
        assert b.loop.stats().kv_blocks_used <= b.loop.stats().kv_blocks_total, n
    b.drain()
    assert b.loop.stats().kv_blocks_used == 0
    for n, prompt in enumerate(prompts, 1):
        alone.run(ask(prompt, 12))
        assert torch.equal(b.logits(n), alone.logits(n))


@pytest.mark.parametrize("said", [True, False])
def test_what_was_filled_stays_for_its_request(tiny, bench, ask, said):
    """Where a next use is said, it outlives what was read since and will not be again; else the oldest goes first."""
    b = bench(tiny("llama"), deterministic=True, kv_tokens=512)
    whole = "Report: " + "".join(f"{LINE}{n}. " for n in range(3))
    keep = (Keep(1.0, time.monotonic() + 5.0),) if said else ()
    b.loop.prefill(900, ask(whole + UNKNOWN, 4), keep)
    b.drain()
    filled = b.loop.stats().prompt_tokens_computed
    assert 64 < filled < 256
    for n in range(20):
        b.run(ask(f"{n}: " + LINE, 4))
    done = b.run(ask(whole + "The end.", 4))[0]
    assert (done.usage.cached > filled // 2) == said
