"""Both paged-attention kernels against the formula, in odd shapes; the deterministic one bit for bit against itself."""

from __future__ import annotations

import pytest
import torch

from semantic_parrot.kernels import deterministic_attention, torch_attention
from semantic_parrot.kernels.dispatch import paged_attention
from semantic_parrot.kernels.paging import Scores, Segment

CPU = torch.device("cpu")
tree_plan = paged_attention("torch", CPU, deterministic=False)
SIZE = 16


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


class Step:
    """Sequences of `contexts` tokens of which the last `rows` are in the step, in shuffled blocks."""

    def __init__(self, shapes: list[tuple[int, int]], heads: int, kv_heads: int, dim: int, pad: int = 0) -> None:
        g = torch.Generator().manual_seed(len(shapes) * 1000 + heads)
        widths = [-(-context // SIZE) for _, context in shapes]
        ids = (torch.randperm(sum(widths), generator=g) + 1).tolist()
        self.segments, start = [], 0
        for (rows, context), width in zip(shapes, widths, strict=True):
            self.segments.append(Segment(start, rows, context, [ids.pop() for _ in range(width)]))
            start += rows
        self.rows = start + pad
        self.keys = [torch.randn(kv_heads, s.context, dim, generator=g) for s in self.segments]
        self.values = [torch.randn(kv_heads, s.context, dim, generator=g) for s in self.segments]
        self.query = torch.randn(1, heads, self.rows, dim, generator=g)
        self.dim, self.kv_heads = dim, kv_heads

    def run(self, planner, window=None, **extra) -> torch.Tensor:
        blocks = 1 + sum(len(s.blocks) for s in self.segments)
        caches = [torch.full((blocks, self.kv_heads, SIZE, self.dim), 7.0) for _ in range(2)]
        new = [torch.zeros(1, self.kv_heads, self.rows, self.dim) for _ in range(2)]
        for s, *kv in zip(self.segments, self.keys, self.values, strict=True):
            for cache, fresh, whole in zip(caches, new, kv, strict=True):
                for t in range(s.context - s.rows):
                    cache[s.blocks[t // SIZE], :, t % SIZE] = whole[:, t]
                fresh[0, :, s.start : s.start + s.rows] = whole[:, s.context - s.rows :]
        plan = planner(self.segments, self.rows, SIZE, CPU)
        return plan.attend(self.query, *new, *caches, Scores(self.dim**-0.5, window, **extra))

    def formula(self, window=None, softcap=None, sinks=None) -> torch.Tensor:
        out = torch.zeros(1, self.rows, self.query.shape[1], self.dim)
        group = self.query.shape[1] // self.kv_heads
        for s, k, v in zip(self.segments, self.keys, self.values, strict=True):
            for i in range(s.rows):
                p = s.context - s.rows + i
                low = 0 if window is None else max(0, p - window + 1)
                q = self.query[0, :, s.start + i].view(self.kv_heads, group, self.dim)
                score = q @ k[:, low : p + 1].transpose(1, 2) * self.dim**-0.5
                if softcap is not None:
                    score = softcap * (score / softcap).tanh()
                if sinks is not None:
                    score = torch.cat([score, sinks.view(self.kv_heads, group, 1)], -1)
                weight = score.softmax(-1)[..., : p + 1 - low]
                out[0, s.start + i] = (weight @ v[:, low : p + 1]).flatten(0, 1)
        return out


SHAPES = [
    [(1, 1)],
    [(1, 300), (1, 5), (1, 17), (1, 16)],
    [(1, 40), (7, 7), (33, 90), (1, 65), (16, 128)],
    [(65, 65), (1, 200)],
]


@pytest.mark.parametrize("planner", [torch_attention.plan, tree_plan, deterministic_attention.plan])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 8), (6, 2, 16), (20, 1, 24), (4, 2, 5)])
@pytest.mark.parametrize("window", [None, 1, 24, 1000])
def test_formula(planner, shapes, heads, kv_heads, dim, window):
    step = Step(shapes, heads, kv_heads, dim, pad=3)
    got = step.run(planner, window)
    torch.testing.assert_close(got, step.formula(window), atol=2e-6, rtol=1e-5)
    assert not got[:, -3:].any()  # padding


@pytest.mark.parametrize("planner", [torch_attention.plan, tree_plan, deterministic_attention.plan])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 8), (6, 2, 16), (3, 1, 5)])
@pytest.mark.parametrize("window", [None, 24])
@pytest.mark.parametrize("extra", [("softcap",), ("sinks",), ("softcap", "sinks")])
def test_formula_with_what_sdpa_lacks(planner, shapes, heads, kv_heads, dim, window, extra, monkeypatch):
    monkeypatch.setattr("semantic_parrot.kernels.capped_attention._SCORES", 1000)  # so that a prefill is cut in parts
    step = Step(shapes, heads, kv_heads, dim, pad=3)
    given = {"softcap": 0.7, "sinks": torch.linspace(-2, 3, heads)}
    given = {name: given[name] for name in extra}
    torch.testing.assert_close(step.run(planner, window, **given), step.formula(window, **given), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 64), (8, 2, 64), (6, 2, 32), (8, 1, 48)])
@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("extra", [False, True])
def test_deterministic_bits_do_not_depend_on_company(heads, kv_heads, dim, window, extra):
    given = {"softcap": 2.0, "sinks": torch.linspace(-2, 3, heads)} if extra else {}
    whole = Step([(150, 150), (1, 400), (9, 300)], heads, kv_heads, dim)
    together = whole.run(deterministic_attention.plan, window, **given)
    for n, s in enumerate(whole.segments):
        for rows in {1, s.rows}:  # alone: its last row only, then all of them
            alone = Step([(rows, s.context)], heads, kv_heads, dim)
            alone.keys, alone.values = [whole.keys[n]], [whole.values[n]]
            end = s.start + s.rows
            alone.query = whole.query[:, :, end - rows : end]
            got = alone.run(deterministic_attention.plan, window, **given)
            assert torch.equal(got, together[:, end - rows : end])
