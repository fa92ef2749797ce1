"""What is cached of one tenant's requests is found by that tenant, and by nobody else; what is public, by all."""

from __future__ import annotations

import random

import pytest
import torch
from books import check

from semantic_parrot.core.engine.kv import BLOCK_SIZE
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.request import UNKNOWN, Message

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


def chat(text, system="You are the harbour's clerk. " + LINE):
    return (Message("system", system), Message("user", text))


def run(b, request, salt=""):
    """The answer, and how many prompt tokens were found."""
    id = b.submit(request, Directions(salt=salt))
    b.drain()
    return b.done[id], b.done[id].usage.cached


def settled(b, public=()):
    offload, tree = b.loop._offload, b.loop._planner._tables._tree._tree
    reserved = 0 if offload is None else offload._storage._file._reserved
    check(b.loop._pool, tree, offload, [list(public)], reserved)


def test_a_tenant_finds_its_own_and_nobody_elses(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True)
    request = ask(chat("Report the Dorada."), 8)
    first, none = run(b, request, "ann")
    again, own = run(b, request, "ann")
    other, foreign = run(b, request, "bob")
    _, nobodys = run(b, request, "")
    _, late = run(b, request, "bob")
    assert (none, foreign, nobodys) == (0, 0, 0)
    assert own == late >= first.usage.prompt - BLOCK_SIZE
    assert first.text == again.text == other.text
    for id in (2, 3):
        assert torch.equal(b.logits(id), b.logits(1))
    settled(b)


def test_nobody_waits_for_another_tenants_prefill(tiny, bench, ask):
    """Of one tenant, who comes second waits for the shared prefix; of two, both compute it, at once."""
    counts = {}
    for second in ("ann", "bob"):
        b = bench(tiny("llama"), deterministic=True, chunk=256)
        for salt in ("ann", second):
            b.submit(ask(LINE * 4 + "Report.", 2), Directions(salt=salt))
        b.step()
        counts[second] = len(b.loop._planner.running)
        b.drain()
        cached = b.done[2].usage.cached
        assert (cached > 0) == (second == "ann")
    assert counts == {"ann": 1, "bob": 2}


def test_what_is_filled_ahead_is_its_tenants(tiny, bench, ask):
    b = bench(tiny("llama"))
    b.loop.prefill(900, ask(LINE * 2 + UNKNOWN, 1), (), "ann")
    b.drain()
    assert run(b, ask(LINE * 2 + "Report.", 2), "bob")[1] == 0
    assert run(b, ask(LINE * 2 + "Report.", 2), "ann")[1] > 2 * BLOCK_SIZE


def test_evicted_blocks_come_back_to_their_tenant_alone(tiny, bench, ask):
    b = bench(tiny("llama"), kv_tokens=256, kv_offload_tokens=2048)
    request = ask(LINE * 4, 2)
    run(b, request, "ann")
    for n in range(3):
        run(b, ask(f"{n} " + LINE * 6, 2), "eve")
    assert b.loop.stats().kv_blocks_offloaded
    assert run(b, request, "bob")[1] == 0
    for n in range(3):
        run(b, ask(f"{n} " + LINE * 6, 2), "eve")
    restored = b.loop.stats().kv_blocks_restored
    assert run(b, request, "ann")[1] > 0
    assert b.loop.stats().kv_blocks_restored > restored


def test_a_public_prefix_is_everybodys_and_the_rest_is_not(tiny, bench, ask):
    b = bench(tiny("llama"), deterministic=True)
    plain = bench(tiny("llama"), deterministic=True)
    size = b.loop.publish(1, ask(chat(UNKNOWN), 1))
    assert size % BLOCK_SIZE == 0 < size
    public = tuple(b.loop._planner._tables.public)
    assert len(public) == size // BLOCK_SIZE
    request = ask(chat("Report the Dorada, and what she carried " + LINE), 8)
    answers = [run(b, request, salt) for salt in ("ann", "ann", "bob", "")]
    assert [found for _, found in answers] == [size, answers[1][1], size, size]
    assert answers[1][1] >= answers[0][0].usage.prompt - BLOCK_SIZE
    expected = plain.run(request)[0]
    for id, (done, _) in enumerate(answers, 1):
        assert done.text == expected.text
        assert torch.equal(b.logits(id), plain.logits(1))
    settled(b, public)


def test_a_public_prefix_stays_whatever_comes(tiny, bench, ask):
    b = bench(tiny("llama"), kv_tokens=512, kv_offload_tokens=0)
    size = b.loop.publish(1, ask(LINE * 3 + UNKNOWN, 1))
    for n in range(8):
        run(b, ask(f"{n} " + LINE * 6, 2), f"tenant {n % 3}")
    b.loop.forget_prefixes()
    assert run(b, ask(LINE * 3 + "Report.", 2), "ann")[1] == size
    settled(b, b.loop._planner._tables.public)
    assert b.loop.stats().kv_blocks_cached >= 0


def test_public_prefixes_may_share_and_a_prompt_may_end_in_one(tiny, bench, ask):
    b = bench(tiny("llama"))
    long = b.loop.publish(1, ask(LINE * 4 + UNKNOWN, 1))
    short = b.loop.publish(2, ask(LINE * 2 + UNKNOWN, 1))
    assert short < long
    assert len(b.loop._planner._tables.public) == long // BLOCK_SIZE
    request = ask(LINE * 2, 24)
    length = run(b, request, "ann")[0].usage.prompt
    for salt in ("ann", "bob"):
        found = run(b, request, salt)[1]
        assert found == (length - 1 if salt == "ann" else (length - 1) // BLOCK_SIZE * BLOCK_SIZE)
    settled(b, b.loop._planner._tables.public)


@pytest.mark.parametrize(
    ("prefix", "reason"), [("Hi " + UNKNOWN, "a block has 16"), (LINE * 40 + UNKNOWN, "no room for")]
)
def test_a_public_prefix_that_cannot_be_kept_is_refused(tiny, bench, ask, prefix, reason):
    b = bench(tiny("llama"), kv_tokens=256)
    with pytest.raises(InvalidRequest, match=reason):
        b.loop.publish(1, ask(prefix, 1))
    settled(b)


def test_nothing_is_lost_in_a_storm_of_tenants(tiny, bench, ask):
    """Preemption, eviction, restoring and prefills ahead, with a public prefix: same answers, and the books balance."""
    rng = random.Random(7)
    b = bench(tiny("llama"), deterministic=True, kv_tokens=640, kv_offload_tokens=512, max_batch=6)
    alone = bench(tiny("llama"), deterministic=True)
    b.loop.publish(1, ask(LINE + UNKNOWN, 1))
    public = tuple(b.loop._planner._tables.public)
    asked = {}
    for n in range(40):
        text = LINE + f"{rng.randrange(4)} " + LINE * rng.randrange(1, 5)
        if rng.random() < 0.3:
            b.loop.prefill(900 + n, ask(text[: rng.randrange(1, len(text))] + UNKNOWN, 1), (), rng.choice("ab"))
        request = ask(text, rng.randrange(1, 12))
        asked[b.submit(request, Directions(rank=rng.randrange(3), salt=rng.choice("ab")))] = request
        for _ in range(rng.randrange(4)):
            b.step()
    b.drain()
    settled(b, public)
    for id, request in rng.sample(sorted(asked.items()), 8):
        assert b.done[id].text == alone.run(request)[0].text


def test_a_probe_tells_its_own_tenants_prompts_from_new_ones_and_not_anothers(tiny, bench, ask):
    """The side channel itself, without a clock: time to first token goes by the prompt tokens that are computed. Half
    of the probes are of prompts that somebody has sent; the area under the ROC curve."""
    b = bench(tiny("llama"), kv_tokens=1 << 16, kv_offload_tokens=0)
    rng = random.Random(3)

    def computed(texts, salt):
        ids = [b.submit(ask(text, 1), Directions(salt=salt)) for text in texts]
        b.drain()
        return [b.done[id].usage.prompt - b.done[id].usage.cached for id in ids]

    def area(victim, prober, count):
        sent, new = ([f"{rng.random()} {LINE[rng.randrange(20) :]}" for _ in range(count)] for _ in range(2))
        computed(sent, victim)
        probes = rng.sample(sent + new, 2 * count)  # probes find beginnings of each other, the more the later
        took = dict(zip(probes, computed(probes, prober), strict=True))
        pairs = [(took[miss] > took[hit]) - (took[miss] < took[hit]) for miss in new for hit in sent]
        return (pairs.count(1) + 0.5 * pairs.count(0)) / len(pairs)

    assert area("ann", "ann", 100) >= 0.95
    assert 0.45 <= area("ann", "bob", 500) <= 0.55
