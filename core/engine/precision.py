"""In which type a model computes."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from semantic_parrot.core.engine.checkpoint import DTYPES
from semantic_parrot.core.engine.memory import free_memory
from semantic_parrot.core.engines.protocol import ModelLoadError

logger = logging.getLogger(__name__)


def choose(asked: str, stored: torch.dtype, path: Path, *, device: torch.device, deterministic: bool) -> torch.dtype:
    """`asked`: "auto" or a dtype's name. "auto": as the weights in `path` are `stored`, and on a CPU what it multiplies
    well. Raises ModelLoadError for an unknown name."""
    if asked != "auto":
        if asked not in DTYPES:
            raise ModelLoadError(f"there is no dtype {asked}: it is auto or one of {', '.join(DTYPES)}")
        chosen: torch.dtype = getattr(torch, asked)
        return chosen
    # Bit-identical logits are only promised in fp32; fp16 products are slow on every CPU.
    if stored == torch.float64 or (device.type == "cpu" and (deterministic or stored == torch.float16)):
        return torch.float32
    if device.type == "cpu" and stored == torch.bfloat16 and not multiplies_bf16():
        # Emulated: at 32 rows it takes 2.6 times as long as in fp32, which has to fit, though.
        if 2 * sum(file.stat().st_size for file in path.glob("*.safetensors")) < 0.8 * free_memory():
            return torch.float32
        logger.warning("%s runs in bf16, which this CPU multiplies slowly: in fp32 it would not fit the memory", path)
    return stored


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for products in bf16."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # torch before 2.10
        return bool(torch.cpu._is_avx512_bf16_supported())
    names = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")
    found = capabilities()
    return any(found.get(name) for name in names)
