"""Compiles every Triton kernel for a GPU of compute capability 9.0, on any machine: a process of its own, for Triton
decides once a process whether it interprets. Prints one line for each variant.

The kernels' own functions are called, with tensors that stand on a CPU; where they would launch, the kernel is compiled
for just these arguments.
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from semantic_parrot.kernels import (
    matmul,
    merge_parts,
    rms_norm,
    rope,
    silu_mul,
    store_kv,
    tile_attention,
    triton_attention,
    triton_setup,
)  # fmt: skip
from semantic_parrot.kernels.paging import Scores, Segment

TARGET = GPUTarget("cuda", 90, 32)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip


class Compiled:
    """Stands where a kernel is launched: `kernel[grid](...)`."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.variants: set[str] = set()

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self._compile

    def _compile(self, *args: Any, **options: Any) -> None:
        names = self._kernel.arg_names
        given = {name: options.pop(name) for name in list(options) if name in names}
        given = inspect.signature(self._kernel.fn).bind(*args, **given).arguments
        fixed = {name for name, p in zip(names, self._kernel.params, strict=True) if p.is_constexpr}
        fixed |= {name for name, value in given.items() if value is None}
        signature = {name: "constexpr" if name in fixed else _type(given[name]) for name in names}
        constants = {(names.index(name),): given[name] for name in fixed}
        # As at a launch, memory begins at a multiple of 16 bytes: that decides whether loads are wide and asynchronous.
        aligned = {(n,): [["tt.divisibility", 16]] for n, kind in enumerate(signature.values()) if kind[0] == "*"}
        source = ASTSource(self._kernel, signature, constants, aligned)
        compiled = triton.compile(source, target=TARGET, options=options)
        assert len(compiled.asm["cubin"]) > 0
        self.variants.add(" ".join([*signature.values(), *(str(value) for value in constants.values()), str(options)]))


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def calls(dtype: torch.dtype) -> None:
    """Each public function, in every variant that is a kernel of its own."""

    def new(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    for dim in (64, 4096):
        rms_norm.rms_norm(new(2, dim), new(dim), 1e-6)
        rms_norm.rms_norm(new(2, dim), new(dim), 1e-6, new(2, dim))
    silu_mul.silu_mul(new(3, 5), new(3, 5))
    rope.rope(new(1, 32, 2, 128), new(1, 8, 2, 128), new(1, 2, 128), new(1, 2, 128))
    for bias in (None, new(7)):
        matmul.matmul(new(2, 5), new(7, 5), bias)


def attention(dtype: torch.dtype, dim: int, window: int | None, softcap: float | None, sinks: bool) -> None:
    """A step with a shared segment, suffixes and a chunk, as the engine has it: four query heads to a KV head."""
    above = list(range(1, 17))
    segments = [Segment(0, 1, 260, [*above, 17]), Segment(1, 1, 260, [*above, 18]), Segment(2, 40, 40, [19, 20, 21])]
    plan = triton_attention.plan(segments, 42, 16, torch.device("cpu"), how=triton_attention.How(lambda *_: True))
    query, new = torch.zeros(1, 8, 42, dim, dtype=dtype), torch.zeros(1, 2, 42, dim, dtype=dtype)
    cache = torch.zeros(22, 2, 16, dim, dtype=dtype)
    given = torch.zeros(8, dtype=dtype) if sinks else None
    plan.attend(query, new, new, cache, cache, Scores(0.1, window, softcap, given))


def main() -> None:
    """With `--all` attention in every variant, which takes minutes."""
    triton_setup.prepare(torch.device("cuda"))
    assert not triton_setup.interpreted()
    modules = (rms_norm, silu_mul, rope, matmul, tile_attention, merge_parts, store_kv)
    kernels = {module: Compiled(module._kernel) for module in modules}
    for module, kernel in kernels.items():
        module._kernel = kernel
    for dtype in DTYPES:
        calls(dtype)
    attention(torch.bfloat16, 64, None, None, False)
    attention(torch.bfloat16, 64, 100, 30.0, True)
    if "--all" in sys.argv:
        for dtype, dim, window, softcap, sinks in itertools.product(
            DTYPES, (24, 64, 128, 256), (None, 100), (None, 30.0), (False, True)
        ):
            attention(dtype, dim, window, softcap, sinks)
    for module, kernel in kernels.items():
        print(module.__name__.rpartition(".")[2], len(kernel.variants))


if __name__ == "__main__":
    main()
