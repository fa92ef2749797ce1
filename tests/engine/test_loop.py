"""Requests through the loop: limits, ends, errors of one request only, cancellation, timings, counters."""

from __future__ import annotations

import pytest
from tiny_models import CONTEXT

from semantic_parrot.core.engine.messages import Text
from semantic_parrot.core.engines.protocol import Directions, Mark
from semantic_parrot.core.request import Message

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


@pytest.fixture
def b(tiny, bench):
    return bench(tiny("llama"), deterministic=True)


def test_deltas_add_up_to_the_text(b, ask):
    done = b.run(*(ask(LINE + str(n), 60) for n in range(4)))
    for id, d in enumerate(done, 1):
        assert "".join(b.deltas[id]) == d.text
        assert len(b.deltas[id]) > 10
        assert d.reason == "length"
        assert d.usage.completion == 60
        prompt = d.usage.prompt
        assert d.text == b.loop.text.decode(b.tokens(id)[prompt:])


def test_each_text_says_what_the_request_took_so_far(b, ask):
    b.submit(ask(LINE, 20))
    said, done = [], None
    while done is None:
        for reply in b.loop.step():
            if isinstance(reply, Text):
                said.append(reply.usage)
            else:
                done = reply.done
    counts = [usage.completion for usage in said]
    assert counts == sorted(set(counts))
    assert counts[0] < counts[-1] <= done.usage.completion == 20
    assert {(usage.prompt, usage.cached) for usage in said} == {(done.usage.prompt, done.usage.cached)}


def test_stop_string_across_tokens(b, ask):
    whole = b.run(ask(LINE, 60))[0]
    for start in (3, 11, 20):
        stop = whole.text[start : start + 6]
        d = b.run(ask(LINE, 60, stop=(stop, "never this")))[0]
        assert d.text == whole.text[: whole.text.index(stop)]
        assert d.reason == "stop"
        assert d.usage.completion < 60
        assert "".join(b.deltas[b.ids]) == d.text if d.text else b.ids not in b.deltas


def test_eos(b, ask):
    free = b.run(ask(LINE, 40))[0]
    generated = b.tokens(1)[free.usage.prompt :]
    b.loop._eos = frozenset({generated[10]})
    first = generated.index(generated[10])
    d = b.run(ask(LINE, 40, ignore_eos=False))[0]
    assert d.reason == "stop"
    assert d.usage.completion == first + 1
    assert d.text == b.loop.text.decode(generated[:first])
    assert b.run(ask(LINE, 40, ignore_eos=True))[0].text == free.text


def test_eos_comes_from_the_model_and_its_tokenizer(b):
    assert b.loop._eos == {2}


def test_context(b, ask):
    fits = ask("x" * 50, None)
    d = b.run(fits)[0]
    assert d.reason == "length"
    assert d.usage.prompt + d.usage.completion == CONTEXT

    exact = CONTEXT - d.usage.prompt
    assert b.run(ask("x" * 50, exact))[0].usage.completion == exact


@pytest.mark.parametrize(
    ("content", "max_tokens", "code", "says"),
    [
        ("", 5, "empty_prompt", "empty"),
        ((), 5, "empty_prompt", "empty"),
        ("x" * CONTEXT, None, "context_length_exceeded", f"{CONTEXT} tokens"),
        ("x" * 50, CONTEXT - 49, "context_length_exceeded", f"50 tokens and max_tokens {CONTEXT - 49}"),
    ],
)
def test_an_error_is_of_one_request_only(b, ask, content, max_tokens, code, says):
    good = b.submit(ask(LINE, 5))
    bad = b.submit(ask(content, max_tokens))
    b.drain()
    assert b.done[good].usage.completion == 5
    assert b.failed[bad].code == code
    assert says in b.failed[bad].message


def test_chat_without_a_template(tiny, bench, ask):
    b = bench(tiny("llama", chat=False))
    bad = b.submit(ask((Message("user", "Hello"),), 5))
    assert b.failed[bad].code == "invalid_request"
    assert b.run(ask("Hello", 5))[0].usage.completion == 5


def test_cancel_frees_blocks(b, ask):
    ids = [b.submit(ask(LINE + str(n), 500)) for n in range(3)]
    for _ in range(5):
        b.step()
    assert b.loop.stats().kv_blocks_used > 0
    for id in ids:
        b.loop.cancel(id)
    assert b.loop.stats().kv_blocks_used == 0
    assert b.loop.stats().kv_blocks_cached > 0
    assert not b.loop.busy
    b.loop.cancel(ids[0])  # again: nothing
    assert b.run(ask(LINE + "0", 5))[0].usage.cached > 0  # what was computed is not lost


def test_cancel_of_one_that_waits(tiny, bench, ask):
    b = bench(tiny("llama"), max_batch=1)
    first, second = b.submit(ask("one", 20)), b.submit(ask("two", 20))
    b.step()
    assert b.loop.stats().waiting == 1
    b.loop.cancel(second)
    b.drain()
    assert set(b.done) == {first}


def test_cancel_of_the_leader_lets_followers_go(tiny, bench, ask):
    b = bench(tiny("llama"), chunk=16)
    leader, follower = b.submit(ask(LINE * 3, 5)), b.submit(ask(LINE * 3, 5))
    b.step()
    b.step()
    assert b.loop.stats().waiting == 1
    b.loop.cancel(leader)
    b.drain()
    assert b.done[follower].usage.cached == 32  # what the leader had computed


def test_counters(b, ask):
    done = b.run(*(ask(LINE + str(n % 2), 7) for n in range(4)))
    stats = b.loop.stats()
    assert stats.prompt_tokens_computed + stats.prompt_tokens_reused == sum(d.usage.prompt for d in done)
    assert stats.prompt_tokens_reused == sum(d.usage.cached for d in done) > 0
    assert stats.generated_tokens == 28
    assert stats.kv_blocks_used == stats.running == stats.waiting == 0
    assert stats.steps >= 7


def test_forget_prefixes(b, ask):
    prompt = b.run(ask(LINE, 7))[0].usage.prompt
    b.submit(ask(LINE + "More", 20))
    b.step()
    b.loop.forget_prefixes()
    stats = b.loop.stats()
    assert stats.kv_blocks_cached == 0
    assert stats.kv_blocks_used > 0  # a live sequence keeps its own
    b.drain()
    b.loop.forget_prefixes()
    assert b.run(ask(LINE, 7))[0].usage.cached == 0
    assert b.run(ask(LINE, 7))[0].usage.cached == prompt - 1


def test_timings(b, ask):
    for d in b.run(*(ask(LINE + str(n), 7) for n in range(3))):
        assert d.timings.queued >= 0
        assert d.timings.prefill > 0
        assert d.timings.decode > 0


def test_a_long_prefill_does_not_hold_up_decoding(tiny, bench, ask):
    b = bench(tiny("llama"), chunk=16)
    short = b.submit(ask("short", 30))
    b.step()
    b.submit(ask(LINE * 6, 2))
    for _ in range(7):
        before = len(b.tokens(short))
        b.step()
        assert len(b.tokens(short)) == before + 1
    assert [*b.loop._planner.running][1].pending > 1  # the other was in prefill all that time


def test_marked_prefixes_are_told_as_they_come_and_go(tiny, bench, ask):
    b, held = bench(tiny("llama"), kv_tokens=512, kv_offload_tokens=0), set()

    def run(text, *marks):
        b.submit(ask(text, 4), Directions(marks=tuple(Mark(share, name) for share, name in marks)))
        b.drain()
        for reply in b.loop.changed():
            assert not held & set(reply.change.added)
            assert held >= set(reply.change.evicted)
            held.update(reply.change.added)
            held.difference_update(reply.change.evicted)
        return held

    begin = "The harbour master wrote down each ship. " * 4
    assert run(begin + "One.", (0.9, 1), (1.0, 2)) == {1, 2}
    assert run(begin + "Two.", (0.9, 1), (1.0, 3)) == {1, 2, 3}
    other = "Nothing of this"
    while len(b.loop.text.encode(other)) < 498:
        other += " was"
    assert run(other, (1.0, 4)) == {4}  # it takes all there is
    assert run("Nothing", (1.0, 5)) == {5}  # the end of a prompt is evicted before its beginning
    b.loop.forget_prefixes()
    assert [set(reply.change.evicted) for reply in b.loop.changed()] == [{5}]
    assert b.loop.changed() == []
