"""The GPU's part of `benchmarks/kernels.py`: Triton's attention against its bytes, its products and SDPA.

Each call is a CUDA graph, replayed once over poisoned results before it is timed; enough input sets take turns to
overflow the cache; the ways take turns; medians of event times. Bytes: keys and values of a shared segment counted
once, queries and results. Copy bandwidth (bytes read and written) and the rate of a large product are measured in the
same run. On a CPU the interpreter runs the same code at small sizes: that shows that it is right, and nothing of its
speed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from semantic_parrot.kernels import store_kv, triton_attention
from semantic_parrot.kernels.paging import Scores, Segment

BLOCK = 16
OWN = 40
#: (sequences, prefix, KV heads, queries of each, dim): decode. Llama 8B's heads, a model with MHA, and few sequences.
DECODE = [(rows, prefix, 8, 4, 128) for rows in (1, 8, 64, 128) for prefix in (128, 512, 2048, 4096, 8192)]
DECODE += [(64, 4096, 32, 1, 64), (16, 32768, 8, 4, 128)]
#: (sequences, rows of each, cached before, KV heads, queries of each, dim): prefill.
PREFILL = [(1, 2048, 0, 8, 4, 128), (1, 2048, 6144, 8, 4, 128), (8, 256, 2048, 8, 4, 128), (32, 16, 4096, 8, 4, 128)]
STORE = [(128, 8, 128), (4096, 8, 128)]
WAYS = {
    "tree": triton_attention.How(worth=lambda sequences, tokens: True),
    "unshared": triton_attention.UNSHARED,
    "deterministic": triton_attention.DETERMINISTIC,
}


@dataclass
class Inputs:
    query: torch.Tensor
    new: list[torch.Tensor]
    caches: list[torch.Tensor]

    def attend(self, plan: Any) -> torch.Tensor:
        scale = self.query.shape[3] ** -0.5
        return plan.attend(self.query, *self.new, *self.caches, Scores(scale))


def segments(sequences: int, prefix: int, rows: int, own: int) -> tuple[list[Segment], int]:
    """Sequences of `rows` new among `own` tokens behind a common prefix, in shuffled blocks; and how many blocks."""
    width = -(-own // BLOCK)
    blocks = 1 + prefix // BLOCK + sequences * width
    ids = random.Random(1).sample(range(1, blocks), blocks - 1)
    shared = [ids.pop() for _ in range(prefix // BLOCK)]
    found = [
        Segment(i * rows, rows, prefix + own, [*shared, *(ids.pop() for _ in range(width))]) for i in range(sequences)
    ]
    return found, blocks


def draw(
    blocks: int, rows: int, kv_heads: int, group: int, dim: int, dtype: torch.dtype, device: torch.device
) -> Inputs:
    def random_(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    return Inputs(
        random_(1, rows, kv_heads * group, dim).transpose(1, 2),
        [random_(1, kv_heads, rows, dim) for _ in range(2)],
        [random_(blocks, kv_heads, BLOCK, dim) for _ in range(2)],
    )


def seconds(device: torch.device, repeats: int, *ways: Sequence[Callable[[], object]]) -> list[float]:
    """The median time of each way, over its input sets in turn."""
    runs = [[_captured(f) if device.type == "cuda" else f for f in way] for way in ways]
    took: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats + 3):
        for own, way in zip(took, runs, strict=True):
            passed = _timed(way[repeat % len(way)], device)
            if repeat >= 3:
                own.append(passed)
    return [statistics.median(own) for own in took]


def _captured(function: Callable[[], object]) -> Callable[[], object]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()  # compiles, and puts the plan's buffer on the device
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = function()
    if isinstance(kept, torch.Tensor):
        kept.fill_(torch.nan)
        graph.replay()
        assert not kept.isnan().any()
    return lambda: (graph.replay(), kept)


def _timed(function: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        begun = time.perf_counter()
        function()
        return time.perf_counter() - begun
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second, read and written, of a large copy."""
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    (took,) = seconds(device, 20, [lambda: target.copy_(source)])
    return 2 * size / took


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    (took,) = seconds(device, 20, [lambda: a @ b])
    return 2 * size**3 / took


def counted(sequences: int, prefix: int, own: int, kv_heads: int, dim: int, itemsize: int) -> tuple[int, int]:
    """Bytes of keys and values that one layer's decode step reads: (shared prefix once, for each row again)."""
    token = 2 * kv_heads * dim * itemsize
    return (prefix + sequences * own) * token, sequences * (prefix + own) * token


def decode(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, repeats: int, cache: int
) -> dict[str, Any]:
    """`cache`: bytes that the input sets together exceed."""
    sequences, prefix, kv_heads, group, dim = shape
    listed, blocks = segments(sequences, prefix, 1, OWN)
    once, again = counted(sequences, prefix, OWN, kv_heads, dim, dtype.itemsize)
    sets = [
        draw(blocks, sequences, kv_heads, group, dim, dtype, device) for _ in range(min(1 + cache // max(once, 1), 16))
    ]
    plans = {name: triton_attention.plan(listed, sequences, BLOCK, device, how=how) for name, how in WAYS.items()}
    ways = {name: [lambda x=x, plan=plan: x.attend(plan) for x in sets] for name, plan in plans.items()}
    if again < 1 << 33:
        ways["sdpa"] = [_sdpa(listed, sets[0])]
    results = {name: way[0]() for name, way in ways.items()}
    took = dict(zip(ways, seconds(device, repeats, *ways.values()), strict=True))
    small = 2 * sequences * kv_heads * group * dim * dtype.itemsize
    return {
        **dict(zip(("sequences", "prefix", "kv_heads", "group", "dim"), shape, strict=True)),
        "bytes_shared": once + small, "bytes_unshared": again + small, "seconds": took,
        "difference": (results["tree"] - results["unshared"]).abs().max().item(),
    }  # fmt: skip


def _sdpa(listed: Sequence[Segment], x: Inputs) -> Callable[[], torch.Tensor]:
    """With keys and values that stand expanded for each sequence, outside of what is timed."""
    tables = torch.tensor([list(s.blocks) for s in listed], device=x.query.device)
    k, v = (c[tables].transpose(1, 2).flatten(2, 3)[:, :, : listed[0].context].contiguous() for c in x.caches)
    q = x.query[0].transpose(0, 1)[:, :, None].contiguous()
    return lambda: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def prefill(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, repeats: int) -> dict[str, Any]:
    sequences, rows, cached, kv_heads, group, dim = shape
    listed, blocks = segments(sequences, cached, rows, rows)
    x = draw(blocks, sequences * rows, kv_heads, group, dim, dtype, device)
    plans = [triton_attention.plan(listed, sequences * rows, BLOCK, device, how=WAYS[n]) for n in ("tree", "unshared")]
    took = seconds(device, repeats, *([lambda plan=plan: x.attend(plan)] for plan in plans))
    pairs = sequences * (rows * cached + rows * (rows + 1) // 2)
    names = ("sequences", "rows", "cached", "kv_heads", "group", "dim")
    return {
        **dict(zip(names, shape, strict=True)), "operations": 4 * pairs * kv_heads * group * dim,
        "seconds": dict(zip(("tree", "unshared"), took, strict=True)),
    }  # fmt: skip


def store(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, repeats: int) -> dict[str, Any]:
    rows, kv_heads, dim = shape
    x = draw(1 + -(-rows // BLOCK), rows, kv_heads, 1, dim, dtype, device)
    slots = torch.randperm(rows, dtype=torch.int32, device=device) + BLOCK
    (took,) = seconds(device, repeats, [lambda: store_kv.store_kv(x.new[0][0], x.new[1][0], *x.caches, slots)])
    names = ("rows", "kv_heads", "dim")
    return {
        **dict(zip(names, shape, strict=True)), "bytes": 4 * rows * kv_heads * dim * dtype.itemsize,
        "seconds": {"store": took},
    }  # fmt: skip


@torch.inference_mode()
def tables(device: torch.device, repeats: int) -> dict[str, Any]:
    """Measures and prints; what the result file holds."""
    full = device.type == "cuda"
    dtype = torch.bfloat16 if full else torch.float16
    copy = copy_bandwidth(device, 1 << 32 if full else 1 << 24)
    rate = matrix_rate(device, dtype, 8192 if full else 64)
    name = torch.cuda.get_device_name(device) if full else "interpreted on a CPU: times mean nothing"
    print(f"{name}: copies {copy / 1e9:.0f} GB/s, products {rate / 1e12:.0f} TFLOP/s")
    cache = 200_000_000 if full else 0
    shapes: tuple[Any, ...] = (DECODE, PREFILL, STORE)
    if not full:
        shapes = ([(3, 32, 2, 2, 16)], [(2, 5, 16, 2, 2, 16)], [(5, 2, 16)])
    found: dict[str, Any] = {"device": name, "copy_bandwidth": copy, "matrix_rate": rate}
    found["decode"] = [decode(shape, dtype, device, repeats, cache) for shape in shapes[0]]
    for row in found["decode"]:
        took, share = row["seconds"], row["bytes_shared"] / row["seconds"]["tree"] / copy
        against = ", ".join(f"{took[n] / took['tree']:.2f}x {n}" for n in took if n != "tree")
        print(
            f"decode {row['sequences']:3} x prefix {row['prefix']:5}, {row['kv_heads']} x {row['group']} heads of"
            f" {row['dim']}: tree {took['tree'] * 1e6:7.1f} us, {share:.0%} of copy bandwidth; {against}"
        )
    found["prefill"] = [prefill(shape, dtype, device, repeats) for shape in shapes[1]]
    for row in found["prefill"]:
        took = row["seconds"]
        print(
            f"prefill {row['sequences']:2} x {row['rows']:4} rows after {row['cached']:4}: {took['tree'] * 1e6:8.1f}"
            f" us, {row['operations'] / took['tree'] / rate:.0%} of the matrix rate;"
            f" {took['unshared'] / took['tree']:.2f}x unshared"
        )
    found["store"] = [store(shape, dtype, device, repeats) for shape in shapes[2]]
    for row in found["store"]:
        passed = row["seconds"]["store"]
        print(
            f"store {row['rows']:4} rows: {passed * 1e6:6.1f} us, {row['bytes'] / passed / copy:.0%} of copy bandwidth"
        )
    return found
