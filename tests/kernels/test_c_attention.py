"""Attention in C against the formula in fp64, over a cache whose unused tokens are no numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from c_kernels import PROCESSORS, kernels
from properties import given, st
from torch import Tensor

from semantic_parrot.kernels import c_attention, c_rows
from semantic_parrot.kernels.paging import Scores, Segment

CPU = torch.device("cpu")
SIZE = 16


def formula(query: Tensor, keys: Tensor, values: Tensor, scores: Scores) -> Tensor:
    """The last rows of a sequence: `query` [rows, heads, dim], `keys` and `values` [kv_heads, tokens, dim]."""
    rows, tokens, group = len(query), keys.shape[1], query.shape[1] // keys.shape[0]
    k, v = (x.double().repeat_interleave(group, 0) for x in (keys, values))
    s = torch.einsum("rhd,htd->rht", query.double(), k) * scores.scale
    if scores.softcap is not None:
        s = scores.softcap * torch.tanh(s / scores.softcap)
    behind = torch.arange(tokens - rows, tokens)[:, None] - torch.arange(tokens)
    hidden = behind < 0 if scores.window is None else (behind < 0) | (behind >= scores.window)
    s.masked_fill_(hidden[:, None], -torch.inf)
    total = s.logsumexp(-1)
    if scores.sinks is not None:
        total = torch.logaddexp(total, scores.sinks.double())
    return torch.einsum("rht,htd->rhd", (s - total[..., None]).exp(), v)


class Texts:
    """Sequences of (rows, tokens before them), their rows in the step in another order, with `pad` rows of nobody."""

    def __init__(self, lengths, kv_heads, group, dim, dtype, pad=0):
        g = torch.Generator().manual_seed(dim + sum(map(sum, lengths)))
        self.lengths, self.dtype = lengths, dtype
        width = max(-(-sum(one) // SIZE) for one in lengths)
        blocks = torch.randperm(width * len(lengths), generator=g).add(1).view(len(lengths), width).tolist()
        self.count = sum(rows for rows, _ in lengths) + pad
        start, self.segments = self.count, []
        for (rows, before), own in zip(lengths, blocks, strict=True):
            start -= rows
            self.segments.append(Segment(start, rows, before + rows, own[: -(-(before + rows) // SIZE)]))
        texts = [[torch.randn(kv_heads, sum(one), dim, generator=g).to(dtype) for one in lengths] for _ in range(2)]
        self.texts = list(zip(*texts, strict=True))
        self.blank = torch.full((width * len(lengths) + 1, kv_heads, SIZE, dim), torch.nan)
        self.query = torch.randn(self.count, kv_heads * group, dim, generator=g).to(dtype)
        self.new = torch.full((2, self.count, kv_heads, dim), torch.nan, dtype=dtype)
        for one, text in zip(self.segments, self.texts, strict=True):
            for to, whole in zip(self.new, text, strict=True):
                to[one.start : one.start + one.rows] = whole[:, one.context - one.rows :].transpose(0, 1)

    def run(self, scores, planner):
        caches = [self.blank.clone() for _ in range(2)]
        for one, text in zip(self.segments, self.texts, strict=True):
            for cache, whole in zip(caches, text, strict=True):
                for at in range(unseen(one, scores), one.context - one.rows):
                    cache[one.blocks[at // SIZE], :, at % SIZE] = whole[:, at].float()
        # As one product gives them: heads side by side in wider rows.
        wide = torch.cat([self.query.flatten(1), *self.new.flatten(2)], 1)
        parts = wide.split([self.query[0].numel(), *[self.new[0, 0].numel()] * 2], 1)
        tensors = [x.view(self.count, -1, self.query.shape[2]).transpose(0, 1)[None] for x in parts]
        plan = planner(self.segments, self.count, SIZE, CPU)
        return plan.attend(*tensors, *caches, scores)[0], caches

    def expected(self, scores):
        out = torch.zeros(self.query.shape, dtype=torch.float64)
        for one, text in zip(self.segments, self.texts, strict=True):
            here = slice(one.start, one.start + one.rows)
            out[here] = formula(self.query[here], *text, scores)
        return out


def unseen(segment, scores):
    """How many tokens from the beginning on no row sees."""
    return 0 if scores.window is None else max(0, segment.context - segment.rows - scores.window + 1)


def in_c(*given, processor="native"):
    def never(*_):
        raise AssertionError("torch was asked")

    return c_attention.plan(*given, kernels=kernels(processor), other=never)


@st.composite
def layers(draw):
    kv_heads, group = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 3, 5, 8, 40]))
    length = st.tuples(st.sampled_from([1, 1, 2, 3, 7, 16, 37]), st.integers(0, 70))
    return (
        Texts(
            draw(st.lists(length, min_size=1, max_size=4)),
            kv_heads,
            group,
            draw(st.sampled_from([8, 24, 64, 72, 128, 256])),
            draw(st.sampled_from([torch.float32, torch.bfloat16])),
            draw(st.sampled_from([0, 2])),
        ),
        draw(st.sampled_from([None, 1, 16, 33])),  # a window
        draw(st.sampled_from([None, 2.0])),  # soft-capping
        draw(st.booleans()),  # sinks
        draw(st.sampled_from([1, 2])),  # threads
        draw(st.sampled_from(PROCESSORS)),
    )


@given(layers())
@torch.inference_mode()
def test_formula(layer):
    texts, window, softcap, has_sinks, threads, processor = layer
    heads, dim = texts.query.shape[1:]
    sinks = torch.randn(heads, generator=torch.Generator().manual_seed(dim)) if has_sinks else None
    scores, before = Scores(dim**-0.5, window, softcap, sinks), torch.get_num_threads()
    torch.set_num_threads(threads)
    out, caches = texts.run(scores, partial(in_c, processor=processor))
    torch.set_num_threads(before)
    tolerance = 3e-6 if texts.dtype == torch.float32 else 1e-2
    torch.testing.assert_close(out.double(), texts.expected(scores), atol=tolerance, rtol=tolerance)
    for one, text in zip(texts.segments, texts.texts, strict=True):
        for cache, whole in zip(caches, text, strict=True):
            stored = cache[list(one.blocks)].transpose(0, 1).flatten(1, 2)
            first = unseen(one, scores)
            assert torch.equal(stored[:, first : one.context], whole[:, first:].float())
            assert stored[:, :first].isnan().all()
            assert stored[:, one.context :].isnan().all()
    assert caches[0][0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 20])
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_any_chunk_and_company(dtype, window):
    scores, total = Scores(0.125, window), 90
    whole = Texts([(total, 0)], 2, 3, 64, dtype)
    expected, _ = whole.run(scores, in_c)
    for first in (2, 5, 40, 70):
        texts = Texts([(33, 20), (total - first, first), (1, 50)], 2, 3, 64, dtype)
        mine = texts.segments[1]
        here = slice(mine.start, mine.start + mine.rows)
        texts.texts[1], texts.query[here] = whole.texts[0], whole.query[first:]
        for to, text in zip(texts.new, whole.texts[0], strict=True):
            to[here] = text[:, first:].transpose(0, 1)
        found, _ = texts.run(scores, in_c)
        assert torch.equal(found[here], expected[first:])


@torch.inference_mode()
def test_what_is_no_number_spoils_its_own_rows_only():
    texts = Texts([(20, 30), (10, 30), (1, 30), (1, 30)], 1, 2, 8, torch.float32)
    expected, _ = texts.run(Scores(1.0), in_c)
    for spoilt in (1, 3):
        texts.texts[spoilt][0][0, 3, 2] = torch.nan
    out, _ = texts.run(Scores(1.0), in_c)
    places = [slice(s.start, s.start + s.rows) for s in texts.segments]
    for n, here in enumerate(places):
        assert torch.equal(out[here], expected[here]) if n % 2 == 0 else out[here].isnan().all()


@pytest.mark.parametrize(("dim", "dtype"), [(12, torch.float32), (264, torch.float32), (8, torch.float64)])
@torch.inference_mode()
def test_what_it_does_not_take_is_others(dim, dtype):
    texts = Texts([(5, 20), (1, 3)], 2, 2, dim, dtype)
    found = []

    class Other:
        def attend(self, *given):
            found.append(given)
            return texts.query[None]

    texts.run(Scores(1.0), lambda *given: c_attention.plan(*given, kernels=kernels(), other=lambda *_: Other()))
    assert len(found) == 1


@st.composite
def forests(draw):
    return (
        draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 40)), min_size=2, max_size=9)),
        draw(st.sampled_from([1, 2, 3, 4, 8])),
        draw(st.sampled_from([None, 20, 1000])),
        draw(st.booleans()),
        draw(st.sampled_from([1, 2])),
    )


@given(forests())
@torch.inference_mode()
def test_rows_that_begin_alike_have_the_bits_that_each_has_alone(drawn):
    """Two levels of documents, and a suffix of each row's own."""
    leaves, group, window, capped, threads = drawn
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(len(leaves) + group)
    free = iter(torch.randperm(400, generator=g).add(1).tolist())
    upper = [[next(free) for _ in range(n)] for n in (0, 1, 3)]
    lower = [[[next(free) for _ in range(n)] for n in (0, 2, 5)] for _ in upper]
    segments = []
    for row, (one, two, tokens) in enumerate(leaves):
        common = [*upper[one], *lower[one][two]]
        own = [next(free) for _ in range(-(-tokens // SIZE))]
        segments.append(Segment(row, 1, len(common) * SIZE + tokens, common + own))
    caches = [torch.randn(401, 2, SIZE, 64, generator=g) for _ in range(2)]
    query = torch.randn(len(leaves), 2 * group, 64, generator=g)
    scores = Scores(0.125, window, 2.0 if capped else None, torch.randn(2 * group, generator=g) if capped else None)
    new = [torch.randn(len(leaves), 2, 64, generator=g) for _ in range(2)]

    def attend(segments, rows):
        tensors = [x[rows].transpose(0, 1)[None] for x in (query, *new)]
        return in_c(segments, len(query[rows]), SIZE, CPU).attend(*tensors, *caches, scores)[0]

    found = attend(segments, slice(None))
    for row, segment in enumerate(segments):
        assert torch.equal(found[row : row + 1], attend([replace(segment, start=0)], slice(row, row + 1)))
    torch.set_num_threads(before)


def test_runs():
    """Of rows in order, by how many blocks each has in common with the one before it."""
    assert c_rows.runs([0, 4, 4, 4, 4], 4) == [(0, 4, 4), (4, 5, 0)]
    assert c_rows.runs([0, 4, 4], 1) == [(0, 1, 0), (1, 2, 0), (2, 3, 0)]
    assert c_rows.runs([0, 0, 5, 3], 8) == [(0, 1, 0), (1, 4, 3)]
    assert c_rows.runs([0, 9, 2, 9], 8) == [(0, 2, 9), (2, 4, 9)]  # the third would cost the first two seven blocks
