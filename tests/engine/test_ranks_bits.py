"""Preempted, paused, resumed, by chunks and on shared blocks: a request's logits are the bits that it has alone."""

from __future__ import annotations

import random

import pytest
import torch

from semantic_parrot.core.engines.protocol import Directions, Keep

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


@pytest.mark.parametrize("seed", range(4))
def test_same_bits(tiny, bench, ask, seed):
    rng = random.Random(seed)
    alone = bench(tiny("llama"), deterministic=True)
    b = bench(tiny("llama"), deterministic=True, kv_tokens=24 * 16, chunk=32, max_batch=4)
    prompts = [LINE[: rng.randint(5, 90)] * rng.randint(1, 3) + str(n) for n in range(9)]
    preempted, paused = set(), 0
    for prompt in prompts:
        rank = rng.choice([0, 1, 2, 2])
        keep = (Keep(0.5, rng.uniform(0, 1e9)), Keep(1.0, None))
        b.submit(ask(prompt, 24), Directions(rank, cap=rng.choice([1, 2]) if rank < 2 else None, keep=keep))
        for _ in range(rng.randint(2, 8)):
            b.step()
            preempted |= {s.id for s in b.loop._planner.waiting if s.cached is not None}
            paused += any(s.held_up is not None for s in b.loop._planner.running)
    b.drain()
    assert preempted
    assert paused
    assert b.loop.stats().kv_blocks_used == 0
    for n, prompt in enumerate(prompts, 1):
        done = alone.run(ask(prompt, 24))[0]
        assert torch.equal(b.logits(n), alone.logits(n))
        assert "".join(b.deltas[n]) == b.done[n].text == done.text
