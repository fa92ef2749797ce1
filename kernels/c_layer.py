"""What a layer gives to attention, as the kernels in C take it."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import torch
from torch import Tensor

from semantic_parrot.kernels.paging import Scores

#: The types of rows, by what they are called in C.
BF16: Final = {torch.float32: 0, torch.bfloat16: 1}


class _Layer(ctypes.Structure):
    """`Layer` in cache.h, which says what these are."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value")),
        *((name, ctypes.c_int64) for name in ("q_row", "q_head", "k_row", "k_head", "v_row", "v_head")),
        *((name, ctypes.c_void_p) for name in ("keys", "values", "sinks", "out", "blocks")),
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "dim", "size", "width", "window")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
        ("bf16", ctypes.c_int32),
    )


class Layer:
    """The step's rows, whose keys and values are stored before they are attended to, and where the result goes."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        scores: Scores,
        out: Tensor,
    ) -> None:
        """As `paging.Plan.attend` has them, and `CKernels.attends` to them; `out` [rows, heads, dim], as the query."""
        self.heads, self.kv_heads, self.size, self.dim = out.shape[1], *key_cache.shape[1:]
        self.window = scores.window
        sinks = None if scores.sinks is None else scores.sinks.float().contiguous()
        self._tensors = (query, key, value, key_cache, value_cache, out, sinks)  # whose memory the pointers are of
        self._given = _Layer(
            *(x.data_ptr() for x in (query, key, value)),
            *(x.stride(i) for x in (query, key, value) for i in (2, 1)),
            *(x.data_ptr() for x in (key_cache, value_cache)),
            None if sinks is None else sinks.data_ptr(),
            out.data_ptr(), None, self.heads, self.kv_heads, self.dim, self.size, 0, scores.window or 0,
            scores.scale, scores.softcap or 0.0, BF16[out.dtype],
        )  # fmt: skip

    def over(self, blocks: Tensor) -> Any:
        """For a call about sequences whose tokens lie in `blocks` [sequences, width], in int32; for this call only."""
        self._given.blocks, self._given.width = blocks.data_ptr(), blocks.shape[1]
        return ctypes.byref(self._given)
