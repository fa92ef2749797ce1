"""Attention of decode rows in C against the formula in fp64, over a cache whose unused tokens are no numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from c_kernels import kernels
from properties import given, st
from torch import Tensor

from semantic_parrot.kernels import c_rows, torch_rows
from semantic_parrot.kernels.paging import Scores, Segment, Slots

CPU = torch.device("cpu")
SIZE = 16


def formula(query: Tensor, keys: Tensor, values: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
    """One row: `query` [heads, dim], `keys` and `values` [kv_heads, tokens, dim]."""
    group = query.shape[0] // keys.shape[0]
    k, v = (x.double().repeat_interleave(group, 0) for x in (keys, values))
    s = torch.einsum("hd,htd->ht", query.double(), k) * scores.scale
    if scores.softcap is not None:
        s = scores.softcap * torch.tanh(s / scores.softcap)
    if scores.window is not None:
        s[:, : max(s.shape[1] - scores.window, 0)] = -torch.inf
    weight = s.logsumexp(-1)
    total = weight if scores.sinks is None else torch.logaddexp(weight, scores.sinks.double())
    return torch.einsum("ht,htd->hd", (s - total[:, None]).exp(), v), weight


@st.composite
def layers(draw):
    return (
        draw(st.sampled_from([1, 2, 3])),  # KV heads
        draw(st.sampled_from([1, 2, 3, 4, 5, 8])),  # query heads to each
        draw(st.sampled_from([8, 24, 64, 72, 128])),
        draw(st.lists(st.integers(1, 70), min_size=1, max_size=5)),  # each row's tokens
        draw(st.sampled_from([None, 1, 16, 30])),  # a window
        draw(st.sampled_from([None, 2.0])),  # soft-capping
        draw(st.booleans()),  # sinks
        draw(st.sampled_from([torch.float32, torch.bfloat16])),
        draw(st.sampled_from([1, 2])),  # threads
    )


@given(layers())
@torch.inference_mode()
def test_formula(layer):
    kv_heads, group, dim, contexts, window, softcap, has_sinks, dtype, threads = layer
    ops, before = kernels(), torch.get_num_threads()
    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(dim + sum(contexts))
    rows, heads = len(contexts), kv_heads * group
    blocks = torch.randperm(5 * rows, generator=g).add(1).view(rows, 5).tolist()
    segments = [Segment(i, 1, n, blocks[i][: -(-n // SIZE)]) for i, n in enumerate(contexts)]
    scores = Scores(dim**-0.5, window, softcap, torch.randn(heads, generator=g) if has_sinks else None)
    caches = [torch.full((5 * rows + 1, kv_heads, SIZE, dim), torch.nan) for _ in range(2)]
    texts = [[torch.randn(kv_heads, n, dim, generator=g).to(dtype).float() for n in contexts] for _ in range(2)]
    for cache, text in zip(caches, texts, strict=True):
        for segment, one in zip(segments, text, strict=True):
            for at in range(segment.context - 1):  # the last one is the step's own
                cache[segment.blocks[at // SIZE], :, at % SIZE] = one[:, at]
    query = torch.randn(1, rows, heads, dim, generator=g).to(dtype)
    # As one product gives them: heads side by side in wider rows.
    new = torch.cat([torch.stack([one[:, -1] for one in text]).to(dtype).flatten(1) for text in texts], 1)
    key, value = (part.view(rows, kv_heads, dim).transpose(0, 1)[None] for part in new.chunk(2, 1))
    own = c_rows.Rows(segments, SIZE, CPU, kernels=ops)

    def never() -> Slots:
        raise AssertionError("torch was asked to store")

    out = own.step(query.transpose(1, 2), key, value, *caches, scores, never)
    wide, weight = own.attend(query[0].float(), *caches, scores, weighed=True)
    torch.set_num_threads(before)
    for row, one in enumerate(zip(*texts, strict=True)):
        expected, total = formula(query[0, row], *one, scores)
        torch.testing.assert_close(wide[row].double(), expected, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(weight[row].double(), total, atol=2e-6, rtol=1e-5)
        tolerance = 2e-6 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(out[0, row].double(), expected, atol=tolerance, rtol=tolerance)


@torch.inference_mode()
def test_what_is_no_number_spoils_its_own_row_only():
    caches = [torch.ones(4, 1, SIZE, 8) for _ in range(2)]
    segments = [Segment(i, 1, 20, [1 + i, 3]) for i in range(2)]
    caches[0][2, 0, 3, 2] = torch.nan  # a key of the second row's first block
    out, _ = c_rows.Rows(segments, SIZE, CPU, kernels=kernels()).attend(torch.ones(2, 2, 8), *caches, Scores(1.0))
    torch.testing.assert_close(out[0], torch.ones(2, 8))
    assert out[1].isnan().all()


@pytest.mark.parametrize(("dim", "dtype"), [(12, torch.float32), (8, torch.float64)])
@torch.inference_mode()
def test_what_it_does_not_take_is_torchs(dim, dtype, monkeypatch):
    ops = kernels()
    g = torch.Generator().manual_seed(dim)
    caches = [torch.randn(4, 2, SIZE, dim, generator=g, dtype=dtype) for _ in range(2)]
    segments = [Segment(i, 1, 20 + i, [1 + i, 3]) for i in range(2)]
    query = torch.randn(2, 4, dim, generator=g, dtype=dtype)
    found = []
    real = torch_rows.Rows.attend
    monkeypatch.setattr(torch_rows.Rows, "attend", lambda *a, **k: found.append(1) or real(*a, **k))
    if dtype == torch.float64:
        monkeypatch.setattr(torch_rows.Rows, "attend", lambda *a, **k: found.append(1) or (query, None))
    c_rows.Rows(segments, SIZE, CPU, kernels=ops).attend(query, *caches, Scores(dim**-0.5))
    assert found == [1]


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
    ops, before = kernels(), torch.get_num_threads()
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
    found, weight = c_rows.Rows(segments, SIZE, CPU, kernels=ops).attend(query, *caches, scores, weighed=True)
    for row, segment in enumerate(segments):
        alone = c_rows.Rows([replace(segment, start=0)], SIZE, CPU, kernels=ops)
        expected, total = alone.attend(query[row : row + 1], *caches, scores, weighed=True)
        assert torch.equal(found[row : row + 1], expected)
        assert torch.equal(weight[row : row + 1], total)
    torch.set_num_threads(before)


def test_runs():
    """Of rows in order, by how many blocks each has in common with the one before it."""
    assert c_rows.runs([0, 4, 4, 4, 4], 4) == [(0, 4, 4), (4, 5, 0)]
    assert c_rows.runs([0, 4, 4], 1) == [(0, 1, 0), (1, 2, 0), (2, 3, 0)]
    assert c_rows.runs([0, 0, 5, 3], 8) == [(0, 1, 0), (1, 4, 3)]
    assert c_rows.runs([0, 9, 2, 9], 8) == [(0, 2, 9), (2, 4, 9)]  # the third would cost the first two seven blocks
