"""Our Triton kernels beside torch's operations on a GPU: norms, rotary embedding, gated MLPs, the matrix product.

    python benchmarks/ops.py [--repeats 30] [--json FILE]

Shapes of an 8B Llama in bf16, at 1, 64 and 2,048 rows. `share`: bytes that have to be read and written once, a second,
of a large copy's in the same run; for the product, its rate of the library's. Several sets of inputs take turns, more
than the cache holds where it can be. Outputs are checked first. Without a GPU nothing is timed: shapes are small, the
kernels interpreted, and the table says "not measured".
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import copy_bandwidth, medians
from torch import Tensor

from about import about
from semantic_parrot.kernels import triton_setup


@dataclass(frozen=True)
class Op:
    """`ours` and `theirs` take one set of inputs, which `inputs` draws; `moved`: bytes to be moved at least."""

    name: str
    inputs: Callable[[], tuple[Tensor, ...]]
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    moved: int


def ops(rows: int, hidden: int, inner: int, device: torch.device, dtype: torch.dtype) -> list[Op]:
    from semantic_parrot.kernels import matmul, rms_norm, rope, silu_mul

    size = dtype.itemsize

    def new(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    def turned(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        rope.rope(query, key, cos, sin)
        return query, key

    heads, dim = max(hidden // 128, 1), min(hidden, 128)
    return [
        Op("rms_norm + residual", lambda: (new(rows, hidden), new(hidden), new(rows, hidden)),
           lambda x, w, r: rms_norm.rms_norm(x, w, 1e-5, r), lambda x, w, r: rms_norm.reference(x, w, 1e-5, r),
           4 * rows * hidden * size),
        Op("rope", lambda: (new(1, heads, rows, dim), new(1, heads, rows, dim), new(1, rows, dim), new(1, rows, dim)),
           turned, rope.reference, 2 * rows * dim * (2 * heads + 1) * size),
        Op("silu_mul", lambda: (new(rows, inner), new(rows, inner)), silu_mul.silu_mul, silu_mul.reference,
           3 * rows * inner * size),
        Op("matmul, batch-invariant", lambda: (new(rows, hidden), new(inner, hidden)), matmul.matmul, matmul.reference,
           (rows * (hidden + inner) + hidden * inner) * size),
    ]  # fmt: skip


@torch.inference_mode()
def measure(op: Op, device: torch.device, bandwidth: float | None, repeats: int) -> dict[str, Any]:
    first = op.inputs()
    found = (op.theirs(*(x.clone() for x in first)), op.ours(*(x.clone() for x in first)))
    for a, b in zip(*(one if isinstance(one, tuple) else (one,) for one in found), strict=True):
        scale = a.float().abs().max().item()
        torch.testing.assert_close(b.float(), a.float(), atol=2e-2 * scale, rtol=2e-2)
    row: dict[str, Any] = {"op": op.name}
    if bandwidth is not None:
        # A set is read again after what exceeds the cache, 50 MB, but for 32 sets at most.
        sets = itertools.cycle([first, *(op.inputs() for _ in range(min(31, (1 << 28) // op.moved + 1)))])
        ours, theirs = medians([lambda: op.ours(*next(sets)), lambda: op.theirs(*next(sets))], device, repeats)
        share = op.moved / ours / bandwidth
        row |= {"ours_us": ours * 1e6, "torch_us": theirs * 1e6, "ratio": theirs / ours, "share": share}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    triton_setup.prepare(device)
    gpu = device.type == "cuda"
    bandwidth = copy_bandwidth(device, args.repeats) if gpu else None
    print(f"copy: {bandwidth / 1e12:.2f} TB/s" if bandwidth else "no GPU here: checked, not measured")
    rows = []
    for count in (1, 64, 2048) if gpu else (3,):
        sizes = (4096, 14336) if gpu else (96, 160)
        for op in ops(count, *sizes, device, torch.bfloat16 if gpu else torch.float32):
            rows.append(found := {"rows": count, **measure(op, device, bandwidth, args.repeats)})
            said = "not measured"
            if gpu:
                said = (
                    f"{found['ours_us']:8.1f} us, torch {found['torch_us']:8.1f} us, {found['share']:.0%} of the copy"
                )
            print(f"{count:5} rows  {op.name:24} {said}", flush=True)
    if args.json:
        name = torch.cuda.get_device_name() if gpu else None
        args.json.write_text(json.dumps({**about(), "gpu": name, "copy": bandwidth, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
