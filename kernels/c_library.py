"""The kernels in C (`kernels/c/`), as functions of tensors.

They take what torch is slow at on a CPU, where an operation costs some microseconds whatever it computes: a decoder
layer's small operations in one pass each, attention without a copy of keys and values, and products of few rows
(AVX-512 with bf16), which read their weights as fast as memory gives them. Larger products stay torch's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semantic_parrot.kernels.c_compiler import COMPILERS, NotCompiled, library
from semantic_parrot.kernels.c_layer import BF16, Layer

_LANES, _MOST_DIM = 8, 256  # as in cache.h
_LINE, _COLUMNS = 64, 4  # as in product.c
#: Rows up to which `product` is faster than oneDNN's on packed weights, by type (two Zen 4 cores).
_FEW = {torch.float32: 8, torch.bfloat16: 64}


class CKernels:
    """The compiled operations, on tensors in fp32 or bf16. Sums are in fp32, and what is rounded is rounded as Llama's
    modules in torch do it. Threads are torch's own."""

    def __init__(self, path: Path) -> None:
        """`path`: of the compiled library."""
        code = ctypes.CDLL(str(path))
        self._norm = _function(code.rms_norm, "pppppiiiifnpn")
        self._rope = _function(code.rope, "ppppiiiiiiinpn")
        self._silu_mul = _function(code.silu_mul, "pppinpn")
        self._attend_rows = _function(code.attend_rows, "ppppppiiipn")
        self._attend_chunks = _function(code.attend_chunks, "pppiipn")
        #: Queries of a part of `attend_chunks`: as many as this processor's registers hold.
        self.part_queries = ctypes.c_int64.in_dll(code, "part_queries").value
        # Not on every processor.
        self._few_rows = _function(code.few_rows, "ppppiiinpn") if hasattr(code, "few_rows") else None
        self._fork = _fork()

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """s = x + residual; out = weight * s / sqrt(mean(s^2) + eps). `x` [rows, dim], or [rows, heads, dim] with rows
        apart by any stride and heads one after the other; `weight` [dim]; `residual` as `x`, contiguous. Returns out,
        contiguous, and s (`x` itself without a residual)."""
        rows, dim = x.shape[0], x.shape[-1]
        out = torch.empty(x.shape, dtype=x.dtype)
        total = x if residual is None else torch.empty_like(out)
        assert x.stride(-1) == 1
        assert x.dim() == 2 or x.stride(1) == dim
        assert residual is None or residual.is_contiguous()
        self._norm(
            x.data_ptr(), 0 if residual is None else residual.data_ptr(), weight.data_ptr(), total.data_ptr(),
            out.data_ptr(), rows, 1 if x.dim() == 2 else x.shape[1], x.stride(0), dim, eps, BF16[x.dtype], self._fork,
            torch.get_num_threads(),
        )  # fmt: skip
        return out, total

    def rope(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> None:
        """x cos + (-x2, x1) sin in place, x1 and x2 the halves of a head's first dimensions, as many as `cos` has.
        `query` [rows, heads, dim], `key` [rows, kv_heads, dim], rows apart by any stride, heads one after the other;
        `cos` and `sin` [rows, rotated], contiguous, of the same dtype."""
        rows, heads, dim = query.shape
        assert query.stride(2) == key.stride(2) == 1
        assert query.stride(1) == key.stride(1) == dim
        assert all(x.is_contiguous() and x.dtype == query.dtype for x in (cos, sin))
        self._rope(
            query.data_ptr(), key.data_ptr(), cos.data_ptr(), sin.data_ptr(), rows, heads, query.stride(0),
            key.shape[1], key.stride(0), dim, cos.shape[1] // 2, BF16[query.dtype], self._fork,
            torch.get_num_threads(),
        )  # fmt: skip

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up, both contiguous."""
        assert all(x.is_contiguous() for x in (gate, up))
        out = torch.empty_like(gate)
        self._silu_mul(
            gate.data_ptr(), up.data_ptr(), out.data_ptr(), gate.numel(), BF16[gate.dtype], self._fork,
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    def few(self, weight: Tensor) -> int:
        """Up to how many rows `product` is the one to take, for a `weight` [out, in]; 0: never."""
        outer, inner = weight.shape
        fits = outer % _COLUMNS == 0 and inner * weight.itemsize % _LINE == 0 and weight.is_contiguous()
        return _FEW.get(weight.dtype, 0) if self._few_rows is not None and fits else 0

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b for `x` [..., in], `weight` [out, in] and `bias` [out], contiguous, of a type and size that `few`
        takes. Sums are in fp32, in an order that does not depend on the number of rows."""
        outer, inner = weight.shape
        if x.shape[-1] != inner or x.dtype != weight.dtype or self._few_rows is None:
            raise ValueError(f"rows of {x.shape[-1]} numbers in {x.dtype}, not {inner} in {weight.dtype}")
        x = x.contiguous()
        out = x.new_empty(*x.shape[:-1], outer)
        self._few_rows(
            x.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), out.data_ptr(),
            x.numel() // inner, inner, outer, BF16[x.dtype], self._fork, torch.get_num_threads(),
        )  # fmt: skip
        return out

    @staticmethod
    def refuses(dtype: torch.dtype) -> str | None:
        """Why a model of that type is not for these kernels, or None."""
        return None if dtype in BF16 else f"{dtype}"

    @staticmethod
    def attends(query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor) -> bool:
        """Whether there is attention for a layer's tensors, which are as `paging.Plan.attend` has them."""
        size, dim = key_cache.shape[2:]
        return (
            all(x.dtype == query.dtype and x.stride(3) == 1 for x in (query, key, value))
            and query.dtype in BF16
            and key_cache.dtype == value_cache.dtype == torch.float32
            and key_cache.shape == value_cache.shape
            and dim % _LANES == size % _LANES == 0
            and dim <= _MOST_DIM
        )

    def attend_rows(
        self, layer: Layer, starts: Tensor, blocks: Tensor, contexts: Tensor, longest: int, order: Tensor, runs: Tensor
    ) -> None:
        """Rows `starts` [rows] of a step, each the last one of its own sequence.

        `blocks` [rows, width] and `contexts` [rows], each row's blocks and tokens, `longest` of them at most; `order`
        [rows] and `runs` [runs, 3] (first, last, common): rows `order[first]` to `order[last - 1]` begin with the same
        `common` blocks, none of which is stored to (0 where a window cuts). All in int32."""
        longest = -(-longest // layer.size) * layer.size
        scratch = torch.empty(len(starts) * layer.heads * (longest + 2 * layer.dim))
        self._attend_rows(
            layer.over(blocks), scratch.data_ptr(), starts.data_ptr(), contexts.data_ptr(), order.data_ptr(),
            runs.data_ptr(), len(starts), len(runs), longest, self._fork, torch.get_num_threads(),
        )  # fmt: skip

    def attend_chunks(self, layer: Layer, blocks: Tensor, chunks: Tensor, parts: Tensor) -> None:
        """Chunks of prompts: `chunks` [chunks, 3] (start, rows, context), rows of the step that are the last ones of a
        sequence, whose blocks are `blocks` [chunks, width]; `parts` [parts, 2] (chunk, first): all of a chunk's rows
        times the query heads of a KV head, `part_queries` to each. All in int32."""
        self._attend_chunks(
            layer.over(blocks), chunks.data_ptr(), parts.data_ptr(), len(chunks), len(parts), self._fork,
            torch.get_num_threads(),
        )  # fmt: skip


def compiled(cache: Path | None = None, *, compilers: Sequence[str] = COMPILERS) -> CKernels:
    """The kernels, compiled if `cache` (the user's cache directory) does not have them yet. Raises NotCompiled."""
    try:
        return CKernels(library(cache, compilers))
    except (OSError, RuntimeError) as error:
        raise NotCompiled(str(error)) from error


def _fork() -> int | None:
    """GOMP_parallel of the OpenMP that torch runs on; None: these kernels run on one thread."""
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(found, ctypes.c_void_p).value


def _function(found: Any, signature: str) -> Any:
    kinds = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float, "n": ctypes.c_int}
    found.argtypes, found.restype = [kinds[kind] for kind in signature], None
    return found
