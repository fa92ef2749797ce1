"""From how many tokens on a shared prefix is read once: measures both ways, and with --write keeps what it found.

    python benchmarks/dispatch.py [--repeats 15] [--write] [--table FILE] [--json FILE]

One layer's decode attention: rows over one prefix, 40 tokens of their own each; Triton's kernels on a GPU, on a CPU
torch's (one thread; those in C ask no table). For each number of rows and length of prefix both ways take turns. On a
CPU there is a table for each number of query heads to a KV head; on a GPU one is fitted to the geometric mean over the
shapes of heads. `regret`: how much slower than the better way the table's choice is at worst, for each shape. What is
read and written there: `kernels/worth.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import medians

from about import about
from semantic_parrot.kernels import torch_attention, torch_tree, triton_setup, worth
from semantic_parrot.kernels.dispatch import device_name
from semantic_parrot.kernels.paging import Scores, Segment

BLOCK, OWN = 16, 40
SHAPES = {"cpu": [(4, 3, 64), (8, 1, 64), (2, 8, 64)], "cuda": [(8, 4, 128), (32, 1, 128), (4, 7, 128)]}
ROWS = {"cpu": (2, 4, 8, 16, 32), "cuda": (2, 4, 8, 16, 32, 64, 128)}
TOKENS = {"cpu": (32, 64, 128, 256, 512, 1024, 2048), "cuda": (64, 128, 256, 512, 1024, 2048, 4096, 8192)}


def planners(device: torch.device) -> tuple[Any, Any]:
    """(each row reads for itself, shared once)"""
    if device.type == "cpu":
        return torch_attention.plan, partial(torch_tree.plan, worth=lambda rows, tokens: True)
    triton_setup.prepare(device)
    from semantic_parrot.kernels import triton_attention

    always = triton_attention.How(worth=lambda rows, tokens: True)
    return triton_attention.plan, partial(triton_attention.plan, how=always)


@torch.inference_mode()
def measure(
    rows: int, tokens: int, heads: tuple[int, int, int], device: torch.device, repeats: int
) -> tuple[float, float]:
    """Seconds: (unshared, shared)."""
    kv_heads, group, dim = heads
    each = -(-OWN // BLOCK)
    ids = list(range(1, 1 + tokens // BLOCK + rows * each))
    random.Random(rows).shuffle(ids)
    prefix = [ids.pop() for _ in range(tokens // BLOCK)]
    segments = [Segment(i, 1, tokens + OWN, prefix + [ids.pop() for _ in range(each)]) for i in range(rows)]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    blocks = 1 + tokens // BLOCK + rows * each
    caches = [torch.randn(blocks, kv_heads, BLOCK, dim, device=device).to(dtype) for _ in range(2)]
    query = torch.randn(1, kv_heads * group, rows, dim, device=device).to(dtype)
    new = [torch.randn(1, kv_heads, rows, dim, device=device).to(dtype) for _ in range(2)]
    plans = [planner(segments, rows, BLOCK, device) for planner in planners(device)]
    ways = [partial(p.attend, query, *new, *caches, Scores(dim**-0.5)) for p in plans]
    torch.testing.assert_close(
        *(way().float() for way in ways), atol=2e-2 if device.type == "cuda" else 1e-5, rtol=2e-2
    )
    unshared, shared = medians(ways, device, repeats)
    return unshared, shared


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="keep what was found in the table")
    parser.add_argument("--table", type=Path, default=worth.TABLE)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    kernels = "torch" if device.type == "cpu" else "triton"
    took = {
        heads: {
            (rows, tokens): measure(rows, tokens, heads, device, args.repeats)
            for rows in ROWS[device.type]
            for tokens in TOKENS[device.type]
        }
        for heads in SHAPES[device.type]
    }
    common = {
        at: (1.0, math.prod(one[at][1] / one[at][0] for one in took.values()) ** (1 / len(took)))
        for at in next(iter(took.values()))
    }
    print("unshared / shared, geometric mean over", *took)
    print(f"{'rows':>6}", *(f"{tokens:>6}" for tokens in TOKENS[device.type]))
    for rows in ROWS[device.type]:
        print(f"{rows:6}", *(f"{1 / common[rows, tokens][1]:6.2f}" for tokens in TOKENS[device.type]))
    # On a CPU the planner is told how many query heads share a KV head; on a GPU one table is for all.
    on_cpu = device.type == "cpu"
    found = {heads[1]: worth.fitted(one) for heads, one in took.items()} if on_cpu else {1: worth.fitted(common)}
    for size, least in sorted(found.items()):
        print(f"least tokens by rows{f', {size} query heads to a KV head' if on_cpu else ''}:", dict(least.least))
    for heads, one in took.items():
        at, times = worth.regret(found[heads[1] if on_cpu else 1], one)
        now = worth.read(kernels, device_name(device), args.table, group=heads[1] if on_cpu else 1)
        print(f"regret at {heads}: {times:.3f}, worst at {at}; of the table as it was {worth.regret(now, one)[1]:.3f}")
    if args.write:
        worth.write(kernels, device_name(device), found, json.dumps(about()), args.table)
    if args.json:
        rows_found = [
            {"heads": heads, "rows": r, "tokens": t, "unshared_ms": u * 1e3, "shared_ms": s * 1e3}
            for heads, one in took.items()
            for (r, t), (u, s) in one.items()
        ]
        least_found = {size: dict(one.least) for size, one in found.items()}
        args.json.write_text(json.dumps({**about(), "least": least_found, "rows": rows_found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
