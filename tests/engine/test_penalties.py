"""Penalties, biases and cuts against transformers' own processors and OpenAI's formulas; a row for itself only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from semantic_parrot.core.engine.penalties import Penalties, allow, penalise
from semantic_parrot.core.engine.sampler import NONE_LEFT, UNREADABLE, sample
from semantic_parrot.core.sampling import Sampling

VOCABULARY = 40
ENDS = frozenset({2, 5})


def penalties(sampling, prompt=(), answer=()):
    made = Penalties(sampling, prompt, ENDS)
    for token in answer:
        made.add(token)
    return made


def changed(sampling, logits, prompt=(), answer=()):
    after = logits.clone()[None]
    penalise(after, [0], [penalties(sampling, prompt, answer)])
    return after[0]


@pytest.fixture
def logits():
    return 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("penalty", [0.5, 1.3, 4.0])
def test_repetition_is_that_of_transformers(logits, penalty):
    prompt, answer = [1, 7, 7, 30], [8, 1, 39, 8, 8]
    found = changed(Sampling(repetition_penalty=penalty), logits, prompt, answer)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + answer]), logits[None].clone())[0]
    assert torch.equal(found, expected)
    assert not torch.equal(found, logits)


def test_presence_and_frequency_are_those_of_openai(logits):
    answer = [8, 1, 39, 8, 8]
    found = changed(Sampling(presence_penalty=0.7, frequency_penalty=-1.1), logits, [3, 8, 4], answer)
    expected = [
        mu - answer.count(token) * -1.1 - (answer.count(token) > 0) * 0.7 for token, mu in enumerate(logits.tolist())
    ]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert torch.equal(found[3:5], logits[3:5])  # the prompt does not count


def test_bias_is_added_once(logits):
    found = changed(Sampling(logit_bias=((4, 2.5), (9, -100.0))), logits)
    expected = logits.clone()
    expected[4] += 2.5
    expected[9] -= 100
    assert torch.equal(found, expected)


def test_ends_are_ruled_out_until_min_tokens(logits):
    for length in range(5):
        found = changed(Sampling(min_tokens=3), logits, answer=[2] * length)
        assert found[sorted(ENDS)].isneginf().all() == (length < 3)
        assert found.isfinite().sum() == VOCABULARY - 2 * (length < 3)


def test_many_tokens_are_all_counted(logits):
    answer = [n % VOCABULARY for n in range(500)]
    found = changed(Sampling(frequency_penalty=1.0), logits, [], answer)
    counts = torch.tensor([answer.count(n) for n in range(VOCABULARY)])
    torch.testing.assert_close(found, logits - counts)


def test_a_mask_comes_before_all_else(logits):
    allowed = [0, 31, 32, 37]
    mask = torch.tensor([1 | -(2**31), 1 | 1 << 5], dtype=torch.int32)  # 64 bits, of which 40 have a token
    rows = torch.stack([logits, logits])
    allow(rows, [1], [mask])
    assert rows[1].isfinite().nonzero().flatten().tolist() == allowed
    assert torch.equal(rows[1, allowed], logits[allowed])
    assert torch.equal(rows[0], logits)
    short = logits[None].clone()
    allow(short, [0], [mask[:1]])
    assert short[0].isfinite().nonzero().flatten().tolist() == [0, 31]
    # A token that the mask rules out stays so, whatever its bias; a greedy row takes the best of the others.
    biased = penalties(Sampling(temperature=0.0, logit_bias=((7, 100.0),)))
    (token,) = sample(logits[None].clone(), [biased.sampling], [0], {0: biased}, {0: mask})
    assert token == allowed[int(logits[allowed].argmax())]


@pytest.mark.parametrize(
    ("fields", "warper"),
    [
        ({"top_k": 5}, TopKLogitsWarper(5)),
        ({"top_k": 1000}, TopKLogitsWarper(1000)),
        ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
        ({"min_p": 0.15}, MinPLogitsWarper(0.15)),
        ({"min_p": 1.0}, MinPLogitsWarper(1.0)),
    ],
)
def test_what_is_cut_is_what_transformers_cuts(logits, fields, warper):
    drawn = draws(logits, 4000, **fields)
    expected = warper(torch.zeros(1, 0, dtype=torch.int64), logits[None].clone())[0].softmax(-1)
    assert chi_square(drawn, expected)


def test_cuts_compose_as_in_transformers(logits):
    scores = (logits / 1.5)[None]
    for warper in (TopKLogitsWarper(9), TopPLogitsWarper(0.8), MinPLogitsWarper(0.2)):
        scores = warper(torch.zeros(1, 0, dtype=torch.int64), scores)
    drawn = draws(logits, 4000, temperature=1.5, top_k=9, top_p=0.8, min_p=0.2)
    assert 1 < scores.isfinite().sum() < 9
    assert chi_square(drawn, scores[0].softmax(-1))


def test_a_penalised_row_is_drawn_from_its_penalised_distribution(logits):
    how = Sampling(presence_penalty=1.0, repetition_penalty=1.5, logit_bias=((0, 3.0),))
    drawn = draws(logits, 4000, penalties(how, [3], [4, 4]))
    assert chi_square(drawn, changed(how, logits, [3], [4, 4]).softmax(-1))


def test_top_k_of_equals_keeps_as_many_as_it_says():
    drawn = draws(torch.zeros(VOCABULARY), 2000, top_k=3)
    assert set(drawn.tolist()) == {0, 1, 2}


def draws(logits, count, of=None, **fields):
    how = of.sampling if of is not None else Sampling(seed=1, **fields)
    rows = {} if of is None else dict.fromkeys(range(count), of)
    return sample(logits.repeat(count, 1), [how] * count, range(count), rows)


def chi_square(drawn, expected):
    """Whether draws follow a distribution: nothing outside it, and a statistic that one seed in 10,000 exceeds."""
    seen = drawn.bincount(minlength=len(expected)).double()
    kept = expected > 0
    assert seen[~kept].sum() == 0
    mean = expected[kept].double() * len(drawn)
    statistic = ((seen[kept] - mean) ** 2 / mean).sum()
    freedom = int(kept.sum()) - 1
    # P(X > x) of a chi-square is the regularised upper incomplete gamma function.
    return freedom == 0 or torch.special.gammaincc(torch.tensor(freedom / 2), statistic / 2) > 1e-4


def samplings():
    return st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.0, 1e-300, 0.7, 1.0, 2.0]),
        top_p=st.sampled_from([1.0, 0.3, 0.9]),
        top_k=st.sampled_from([0, 0, 1, 7]),
        min_p=st.sampled_from([0.0, 0.2]),
        seed=st.integers(-(2**63), 2**63 - 1),
        repetition_penalty=st.sampled_from([1.0, 1.0, 0.01, 1.7, 100.0]),
        presence_penalty=st.sampled_from([0.0, 0.0, 2.0, -1.3]),
        frequency_penalty=st.sampled_from([0.0, 0.0, -2.0, 0.9]),
        logit_bias=st.lists(
            st.tuples(st.integers(0, VOCABULARY - 1), st.floats(-100, 100, width=32)),
            max_size=4,
            unique_by=lambda b: b[0],
        ).map(tuple),
        min_tokens=st.sampled_from([0, 0, 3]),
    )


tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)


@given(st.lists(st.tuples(samplings(), tokens, tokens, st.booleans()), min_size=1, max_size=20), st.integers(0, 2**32))
def test_a_row_does_not_depend_on_its_batch(rows, seed):
    noise = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(len(rows), VOCABULARY, generator=noise)
    logits[:, ::7] = logits[:, 1:2]  # ties
    masks = {
        i: torch.randint(-(2**31), 2**31, (2,), generator=noise).int()
        for i, (_, _, _, masked) in enumerate(rows)
        if masked
    }

    def run(chosen):
        made = {
            i: penalties(how, prompt, answer)
            for i, (how, prompt, answer, _) in enumerate(rows)
            if Penalties.needed(how)
        }
        return sample(
            logits[chosen].clone(),
            [rows[i][0] for i in chosen],
            [len(rows[i][1]) + len(rows[i][2]) for i in chosen],
            {n: made[i] for n, i in enumerate(chosen) if i in made},
            {n: masks[i] for n, i in enumerate(chosen) if i in masks},
        ).tolist()

    together = run(list(range(len(rows))))
    assert together == [run([i])[0] for i in range(len(rows))]
    assert run(list(reversed(range(len(rows))))) == together[::-1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("fields", [{}, {"temperature": 0.0}, {"top_p": 0.5}, {"min_tokens": 2}])
def test_what_is_no_number_gives_no_token(logits, fields, value):
    rows = logits.repeat(3, 1)
    rows[1, 17] = value
    how = Sampling(seed=3, **fields)
    made = {i: penalties(how) for i in range(3)} if Penalties.needed(how) else {}
    found = sample(rows, [how] * 3, [0] * 3, made)
    assert found[1] == UNREADABLE
    assert found[0] == found[2] >= 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_all_is_ruled_out_there_is_no_token(logits, temperature):
    rows = logits.repeat(2, 1)
    how = Sampling(temperature=temperature)
    assert sample(rows, [how] * 2, [0, 0], {}, {0: torch.zeros(2, dtype=torch.int32)})[0] == NONE_LEFT
    rows[1] = -torch.inf
    assert sample(rows, [how] * 2, [0, 0])[1] == UNREADABLE
