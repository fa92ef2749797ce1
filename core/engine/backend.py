"""Which kernels a model runs on: torch's, those of ours in C, or our Triton ones."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch

from semantic_parrot.core.engine import lean
from semantic_parrot.core.engine.kv import PagedCache
from semantic_parrot.core.engine.runner import Decode
from semantic_parrot.core.engines.protocol import ModelLoadError
from semantic_parrot.kernels import c_compiler, c_library, triton_setup
from semantic_parrot.kernels.dispatch import triton_how

logger = logging.getLogger(__name__)

KERNELS: Final = ("auto", "torch", "c", "triton")


def choose(asked: str, device: torch.device) -> str:
    """ "torch", "c" or "triton"; before a model is loaded, as transformers may import Triton with it. Raises
    ModelLoadError for what is not known, and for what was asked for and can't be had."""
    if asked not in KERNELS:
        raise ModelLoadError(f"there are no kernels {asked}: they are one of {', '.join(KERNELS)}")
    if asked == "torch":
        return "torch"
    if asked == "c" or (asked == "auto" and device.type == "cpu"):
        return _in_c(asked, device)
    if asked == "auto" and device.type != "cuda":
        return "torch"
    try:
        triton_setup.prepare(device)
    except (ImportError, triton_setup.NotInterpreted) as error:
        if asked == "triton":
            raise ModelLoadError(f"the Triton kernels can't be had: {error}") from error
        logger.warning("torch computes, more slowly than Triton would, which can't be had: %s", error)
        return "torch"
    return "triton"


def _in_c(asked: str, device: torch.device) -> str:
    if asked == "c" and device.type != "cpu":
        raise ModelLoadError(f"the kernels in C are for a CPU, not for {device.type}")
    try:
        c_library.compiled()
    except c_compiler.NotCompiled as error:
        if asked == "c":
            raise ModelLoadError(f"the kernels in C can't be had: {error}") from error
        logger.warning("torch computes, more slowly than kernels in C would, which can't be had: %s", error)
        return "torch"
    return "c"


def forward(kernels: str, model: Any, *, deterministic: bool) -> lean.Lean | None:
    """What computes `model`, whose weights are packed, in place of its modules, if anything does. In deterministic mode
    nothing: its bits are those of torch's kernels."""
    if kernels != "c" or deterministic or lean.refuses(model) is not None:
        return None
    return lean.Lean(model, c_library.compiled())


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
