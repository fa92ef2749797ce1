"""How Triton runs here: compiled on a GPU, interpreted elsewhere. No Triton is imported by importing this."""

from __future__ import annotations

import os
import sys

import torch


class NotInterpreted(Exception):
    """Triton was imported for a GPU, and a CPU is to interpret it."""


def prepare(device: torch.device) -> None:
    """Before the first import of a Triton kernel: on a CPU its interpreter is asked for, which Triton decides once a
    process. Raises ImportError if there is no Triton, NotInterpreted if it is too late to ask."""
    # What is the default today, said so that a later default changes no bits.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if device.type == "cpu":
        if "triton" in sys.modules and not interpreted():
            raise NotInterpreted("Triton was loaded without its interpreter (TRITON_INTERPRET=1), which a CPU needs")
        os.environ["TRITON_INTERPRET"] = "1"
    import triton  # noqa: F401


def interpreted() -> bool:
    """Whether kernels are interpreted in this process."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    return isinstance(tl.cdiv, InterpretedFunction)  # as everything that was decorated while Triton was imported


def refused_dtype(dtype: torch.dtype) -> str | None:
    """Why no kernel computes in `dtype`, or None."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{str(dtype).removeprefix('torch.')} tensors"
    if dtype == torch.bfloat16 and interpreted():
        return "bf16 in Triton's interpreter, whose products are wrong"
    return None
