"""Which kernels a model runs on: torch's, or our Triton ones."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch

from semantic_parrot.core.engine.kv import PagedCache
from semantic_parrot.core.engine.runner import Decode
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.kernels import triton_setup
from semantic_parrot.kernels.dispatch import triton_how

logger = logging.getLogger(__name__)

KERNELS: Final = ("auto", "torch", "triton")


def choose(asked: str, device: torch.device) -> str:
    """ "torch" or "triton"; before a model is loaded, as transformers may import Triton with it. Raises ModelLoadError
    for what is not known, and for Triton where it was asked for and can't be had."""
    if asked not in KERNELS:
        raise ModelLoadError(f"there are no kernels {asked}: they are one of {', '.join(KERNELS)}")
    if asked == "torch" or (asked == "auto" and device.type != "cuda"):
        return "torch"
    try:
        triton_setup.prepare(device)
    except (ImportError, triton_setup.NotInterpreted) as error:
        if asked == "triton":
            raise ModelLoadError(f"the Triton kernels can't be had: {error}") from error
        logger.warning("torch computes, more slowly than Triton would, which can't be had: %s", error)
        return "torch"
    return "triton"


def decode(
    kernels: str, model: Any, cache: PagedCache, layers: dict[int, int], *, deterministic: bool
) -> Decode | None:
    """What runs decode steps apart from others: none, but where a CUDA graph could."""
    if kernels != "triton":
        return None
    from semantic_parrot.core.engine import static_decode

    if not static_decode.suits(model, cache):
        return None
    how = triton_how(cache.keys[0].device, deterministic=deterministic)
    return static_decode.StaticDecode(model, cache, layers, how).run


def apply(kernels: str, model: Any, *, deterministic: bool) -> None:
    """Put the kernels into a loaded model. Raises ModelLoadError for a model whose bits would then depend on the batch,
    in deterministic mode."""
    if kernels != "triton":
        return
    from semantic_parrot.core.engine import fusing

    why = fusing.refuses(model)
    if why is None:
        fusing.fuse(model, deterministic=deterministic)
    elif deterministic:
        raise ModelLoadError(f"deterministic mode on the Triton kernels is not for {why}: torch's can do it on a CPU")
    else:
        logger.warning("the fused Triton kernels do not take %s: torch computes its layers, but for attention", why)
