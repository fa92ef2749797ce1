"""The kernels on this machine's CPU against torch's, and Triton's on its GPU if it has one.

    python benchmarks/kernels.py [--threads 1] [--json FILE] [--only cpu | gpu]

The Triton kernels are measured by `kernels_gpu.py`. On a CPU:

One layer's decode attention, shared and not: `rows` sequences over one prefix, 40 tokens of their own each, fp32,
random inputs and shuffled blocks; in torch, and in C, where rows go together. Both ways take turns; ratios are of
medians. `bound`: the time that its multiplications take at the rate of a large matrix product measured in the same run.

Chunks of prompts: attention of `rows` rows at the end of `context` tokens, by torch's kernel and in C, in turn, for the
heads of that model's layers, in bf16; twelve layers with caches of their own, as in a step.

Products of few rows: those of a step of the model of 100 million parameters (`engines/model.py`), in C by plain weights
and oneDNN's by packed ones, in turn; each time by other weights, which no cache has.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from about import about
from semantic_parrot.kernels import c_rows, torch_attention, triton_setup
from semantic_parrot.kernels.dispatch import paged_attention
from semantic_parrot.kernels.paging import Scores, Segment

#: (in, out, how many of a step): queries, keys and values; attention's output; gate and up; down; the output layer.
PRODUCTS = ((768, 1280, 12), (768, 768, 12), (768, 2048, 24), (2048, 768, 12), (768, 16384, 1))
CACHE = 150 << 20  # bytes, more than a processor's cache
BLOCK = 16
OWN = 40
CPU = torch.device("cpu")
SHAPES = [(rows, prefix, 4, 3, 64) for rows in (2, 4, 8, 32) for prefix in (128, 512, 1024, 2048)]
CHUNKS = ((8, 208), (33, 240), (120, 120), (120, 320), (512, 512), (512, 2048))  # rows, context
LAYERS = 12
SHAPES += [(32, 2048, 8, 1, 64), (32, 2048, 2, 8, 64), (64, 4096, 4, 4, 128)]


def seconds(repeats: int, *functions: Callable[[], object]) -> list[float]:
    """The median time of each; they take turns."""
    took: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 2):
        for function, own in zip(functions, took, strict=True):
            begun = time.perf_counter()
            function()
            if repeat >= 2:
                own.append(time.perf_counter() - begun)
    return [statistics.median(own) for own in took]


@torch.inference_mode()
def measure(rows: int, prefix: int, kv_heads: int, group: int, dim: int, rate: float, repeats: int) -> dict[str, Any]:
    ids = list(range(1, prefix // BLOCK + rows * (OWN // BLOCK + 1) + 1))
    random.Random(1).shuffle(ids)
    shared = [ids.pop() for _ in range(prefix // BLOCK)]
    own = [[ids.pop() for _ in range(-(-OWN // BLOCK))] for _ in range(rows)]
    segments = [Segment(i, 1, prefix + OWN, shared + mine) for i, mine in enumerate(own)]
    blocks = 1 + prefix // BLOCK + rows * (OWN // BLOCK + 1)
    caches = [torch.randn(blocks, kv_heads, BLOCK, dim) for _ in range(2)]
    query = torch.randn(1, kv_heads * group, rows, dim)
    new = [torch.randn(1, kv_heads, rows, dim) for _ in range(2)]

    def attend(planner: Any) -> Callable[[], torch.Tensor]:
        plan = planner(segments, rows, BLOCK, CPU)
        return lambda: plan.attend(query, *new, *caches, Scores(dim**-0.5))

    plain, tree = attend(torch_attention.plan), attend(paged_attention("torch", CPU, deterministic=False))
    in_c = attend(paged_attention("c", CPU, deterministic=False))

    def alone() -> torch.Tensor:
        with mock.patch.object(c_rows, "MOST", 1):
            return in_c()

    error = max((plain() - other()).abs().max().item() for other in (tree, in_c))
    if not torch.equal(alone(), in_c()):
        raise AssertionError("in C, rows that go together have other bits than alone")
    # Not all four in turn: one is slower after another that leaves the processor's cache to itself.
    (unshared, once), (c_alone, c_together) = seconds(repeats, plain, tree), seconds(repeats, alone, in_c)
    flops = 4 * rows * (prefix + OWN) * kv_heads * group * dim
    shape = {"rows": rows, "prefix": prefix, "kv_heads": kv_heads, "queries_per_kv_head": group, "dim": dim}
    took = {"unshared_ms": unshared * 1e3, "tree_ms": once * 1e3, "bound_ms": flops / rate * 1e3}
    took |= {"c_alone_ms": c_alone * 1e3, "c_together_ms": c_together * 1e3}
    return {**shape, **took, "ratio": unshared / once, "c_ratio": c_alone / c_together, "difference": error}


@torch.inference_mode()
def chunks(rows: int, context: int, repeats: int, kv_heads: int = 4, group: int = 3, dim: int = 64) -> dict[str, Any]:
    """Milliseconds of all layers of a step."""
    width = -(-context // BLOCK)
    segments = [Segment(0, rows, context, random.Random(1).sample(range(1, width + 1), width))]
    caches = [[torch.randn(width + 1, kv_heads, BLOCK, dim) for _ in range(2)] for _ in range(LAYERS)]
    query = torch.randn(1, rows, kv_heads * group, dim).bfloat16().transpose(1, 2)
    new = [torch.randn(1, rows, kv_heads, dim).bfloat16().transpose(1, 2) for _ in range(2)]

    planners = {kernels: paged_attention(kernels, CPU, deterministic=False) for kernels in ("torch", "c")}

    def step(kernels: str) -> list[torch.Tensor]:
        plan = planners[kernels](segments, rows, BLOCK, CPU)
        return [plan.attend(query, *new, *pair, Scores(dim**-0.5)) for pair in caches]

    error = max((a.float() - b.float()).abs().max().item() for a, b in zip(step("torch"), step("c"), strict=True))
    in_torch, in_c = seconds(repeats, partial(step, "torch"), partial(step, "c"))
    took = {"torch_ms": in_torch * 1e3, "c_ms": in_c * 1e3, "ratio": in_torch / in_c, "difference": error}
    return {"rows": rows, "context": context, **took}


@torch.inference_mode()
def products(rows: int, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Milliseconds of all products of a step. So many rows as C does not take are oneDNN's both ways."""
    # Not every Python that measures a GPU can import these.
    from semantic_parrot.core.engine.packing import PackedLinear
    from semantic_parrot.kernels.c_library import compiled

    ops, took = compiled(), {"c_ms": 0.0, "packed_ms": 0.0}
    for inner, outer, count in PRODUCTS:
        copies = max(2, CACHE // (inner * outer * dtype.itemsize))
        layers = [torch.nn.Linear(inner, outer, bias=False, dtype=dtype) for _ in range(copies)]
        x = torch.randn(rows, inner).to(dtype)
        in_c, packed = (
            itertools.cycle([PackedLinear(layer, plain=plain, kernels=ops) for layer in layers])
            for plain in (True, False)
        )
        each = seconds(repeats, partial(_next, in_c, x), partial(_next, packed, x))
        for name, one in zip(took, each, strict=True):
            took[name] += count * one * 1e3
    return {"rows": rows, "dtype": str(dtype), **took, "ratio": took["packed_ms"] / took["c_ms"]}


def _next(layers: Iterator[torch.nn.Module], x: torch.Tensor) -> object:
    return next(layers)(x)


def matrix_rate() -> float:
    """Multiplications and additions a second, of a large product in fp32."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    (took,) = seconds(9, lambda: a @ b)
    return 2 * 1024**3 / took


def on_gpu(repeats: int) -> dict[str, Any]:
    """Without a GPU: interpreted, at small sizes, to see that it runs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    triton_setup.prepare(device)
    from kernels_gpu import tables

    return tables(device, repeats if device.type == "cuda" else 1)


def on_cpu(repeats: int) -> dict[str, Any]:
    rate = matrix_rate()
    print(f"{torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s in a large product")
    rows = []
    for shape in SHAPES:
        rows.append(found := measure(*shape, rate, repeats))
        print(
            f"{found['rows']:3} rows, prefix {found['prefix']:5}, {shape[2]} x {shape[3]} heads of {shape[4]}:"
            f" unshared {found['unshared_ms']:7.2f} ms, tree {found['tree_ms']:6.2f} ms, {found['ratio']:5.2f}x;"
            f" in C {found['c_alone_ms']:6.2f} ms, {found['c_together_ms']:6.2f} ms, {found['c_ratio']:5.2f}x"
            f" (bound {found['bound_ms']:.2f} ms)",
            flush=True,
        )
    filled = [chunks(*one, repeats) for one in CHUNKS]
    for one in filled:
        print(
            f"{one['rows']:3} rows of a prompt, {one['context']:5} tokens, attention of {LAYERS} layers:"
            f" torch {one['torch_ms']:6.2f} ms, in C {one['c_ms']:6.2f} ms, {one['ratio']:5.2f}x"
        )
    made = [products(n, dtype, repeats) for dtype in (torch.bfloat16, torch.float32) for n in (1, 2, 4, 8, 16, 32, 64)]
    for one in made:
        print(
            f"{one['rows']:3} rows, all products of a step in {one['dtype']}: in C {one['c_ms']:6.2f} ms,"
            f" packed {one['packed_ms']:6.2f} ms, {one['ratio']:5.2f}x"
        )
    return {"gflops": rate / 1e9, "rows": rows, "chunks": filled, "products": made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("cpu", "gpu"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {**about(), "threads": args.threads, "gpu": "not measured"}
    if args.only != "gpu":
        result |= on_cpu(args.repeats)
    if args.only == "gpu" or (args.only is None and torch.cuda.is_available()):
        result["gpu"] = on_gpu(max(args.repeats, 50))
    else:
        print("GPU: not measured")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
