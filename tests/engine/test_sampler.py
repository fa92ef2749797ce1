"""A sample depends on its seed and position, not on its batch; and follows the distribution."""

from __future__ import annotations

import pytest
import torch

from semantic_parrot.core.engine.sampler import sample, uniform
from semantic_parrot.core.sampling import Sampling


def sampling(temperature=1.0, top_p=1.0, seed=0):
    return Sampling(temperature=temperature, top_p=top_p, seed=seed)


def draws(logits, count, **fields):
    rows = torch.tensor(logits).expand(count, -1)
    return sample(rows, [sampling(**fields)] * count, range(count))


def test_greedy_is_the_maximum():
    logits = torch.randn(5, 50)
    assert sample(logits, [sampling(0.0)] * 5, range(5)).tolist() == logits.argmax(-1).tolist()


def test_frequencies():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    seen = draws(p.log().tolist(), 20_000).bincount(minlength=4) / 20_000
    torch.testing.assert_close(seen, p, atol=0.012, rtol=0)


def test_temperature():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    seen = draws(p.log().tolist(), 20_000, temperature=0.5).bincount(minlength=4) / 20_000
    torch.testing.assert_close(seen, p**2 / (p**2).sum(), atol=0.012, rtol=0)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, {0}), (0.51, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert set(draws(logits, 3000, top_p=top_p).tolist()) == kept


def test_tiny_top_p_is_greedy():
    assert set(draws([1.0, 3.0, 2.0], 100, top_p=1e-9).tolist()) == {1}


def test_batch_does_not_matter():
    logits = torch.randn(6, 80)
    how = [sampling(seed=n, temperature=0.3 * n, top_p=1 - 0.1 * n) for n in range(6)]
    together = sample(logits, how, [3 * n for n in range(6)]).tolist()
    alone = [sample(logits[n : n + 1], [how[n]], [3 * n])[0] for n in range(6)]
    assert together == alone


def test_noise_is_a_function_of_seed_and_position():
    values = [uniform(seed, position) for seed in (-(2**63), -1, 0, 2**63 - 1) for position in range(500)]
    assert len(set(values)) == len(values)
    assert all(0 <= v < 1 for v in values)
    assert 0.45 < sum(values) / len(values) < 0.55
    assert uniform(7, 9) == uniform(7, 9)


def test_seed_is_reproducible_in_any_batch(tiny, bench, ask):
    how = {"temperature": 1.0, "top_p": 0.95}
    one = bench(tiny("llama"), deterministic=True)
    expected = one.run(ask("The quay", 24, seed=5, **how))[0].text
    crowd = bench(tiny("llama"), deterministic=True, chunk=8)
    texts = [d.text for d in crowd.run(*(ask("The quay", 24, seed=s, **how) for s in range(8)))]
    assert texts[5] == expected
    assert len(set(texts)) == 8
