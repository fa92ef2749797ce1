"""Weights in the layouts that the CPU's matrix products read: packed once at load, not again at every step, and plain.

A step multiplies few rows by large weights. Packed beforehand, oneDNN's product of 4 to 32 rows takes 0.6 to 0.9 of the
time in fp32 and 0.5 to 0.8 in bf16 (AVX-512); a small one gains nothing, for the way to the operation is longer. The
operations are those that torch's own compiler uses when it freezes a model.

The kernels in C multiply few rows by plain weights in 0.6 to 0.9 of the time of that, one to 32 rows in bf16 and one to
eight in fp32. Without them one row alone has a product of its own in bf16: torch's plain matrix-vector product reads
plain weights 1.2 to 1.7 times as fast as oneDNN reads packed ones (two Zen 4 cores, weights in no cache). So both forms
are kept, if there is memory for it.

Queries, keys and values are products of the same rows, so their weights become one: the first of the three calls
computes all.

Rounding depends on the number of rows and on the product's shape, so deterministic mode does without all of this.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic_parrot.core.engine.memory import free_memory
from semantic_parrot.kernels.c_library import CKernels

logger = logging.getLogger(__name__)

#: Weights of a layer from which packing pays, by the type in which it multiplies.
LEAST = {torch.float32: 1 << 20, torch.bfloat16: 1 << 16}
#: Layers that are given one tensor, in the order of their calls. (Of gate and up, as large as they are, one product
#: gains nothing.)
SIBLINGS = ("q_proj", "k_proj", "v_proj")
_SHARE = 0.25  # of the free memory, for weights in both forms


class PackedLinear(nn.Module):
    """y = x W^T + b for x [..., in], W packed, plain or both."""

    def __init__(
        self, *layers: nn.Linear, packed: bool = True, plain: bool = False, kernels: CKernels | None = None
    ) -> None:
        """Of several `layers` with the same input: their outputs, one after the other. In which forms weights are kept:
        `packed`, and `plain`, which products of few rows read, those of `kernels` if they take such weights."""
        super().__init__()
        self.in_features = layers[0].in_features
        self.out_features = sum(layer.out_features for layer in layers)
        weights = [layer.weight.detach() for layer in layers]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if packed else None
        self.plain = weight if plain else None
        self._kernels = kernels
        self._few = kernels.few(weight) if kernels is not None and plain else 0
        self.bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        if self.plain is not None:
            rows = x.numel() // self.in_features
            if self._kernels is not None and 0 < rows <= self._few:
                return self._kernels.product(x, self.plain, self.bias)
            if rows == 1:
                return _one_row(x, self.plain, self.bias)
            if self.weight is None:
                return functional.linear(x, self.plain, self.bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


def _one_row(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # torch asks oneDNN wherever it may; `torch.backends.mkldnn.flags` says the same, fifty times as slowly.
    allowed = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return functional.linear(x, weight, bias)
    finally:
        torch._C._set_mkldnn_enabled(allowed)


class Together(nn.Module):
    """Layers with the same input as one product. Its `parts` take their places: whichever is called with a tensor that
    is not the one at hand computes all, and each takes its part, the last one leaving nothing behind."""

    def __init__(self, *layers: nn.Linear, **how: Any) -> None:
        """`how`: as PackedLinear is told."""
        super().__init__()
        self.packed = PackedLinear(*layers, **how)
        self.sizes = [layer.out_features for layer in layers]
        # (input, outputs), in a list: setting a module's attributes is slow.
        self._held: list[tuple[Tensor | None, tuple[Tensor, ...]]] = [(None, ())]

    def part(self, number: int, x: Tensor) -> Tensor:
        given, outputs = self._held[0]
        if x is not given:
            outputs = self.packed(x).split(self.sizes, -1)
        self._held[0] = (None, ()) if number == len(self.sizes) - 1 else (x, outputs)
        return outputs[number]


class Part(nn.Module):
    def __init__(self, together: Together, number: int) -> None:
        super().__init__()
        self.together = together
        self._number = number

    def forward(self, x: Tensor) -> Tensor:
        return self.together.part(self._number, x)


def pack(model: nn.Module, room: int | None = None, kernels: CKernels | None = None) -> int:
    """Replace the model's large linear layers where torch can pack them; how many. `room`: bytes that weights in both
    forms may take, a share of the free memory if it is not given. If that does not suffice, weights are in one form:
    plain if something else reads them too (tied embeddings), or in bf16 if `kernels` multiply by them; else packed."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    tied = {key for key, count in uses.items() if count > 1}
    found = [(module, names) for module in model.modules() for names in _packable(module, tied)]
    few, twice = {}, 0
    for module, names in found:
        weights = [getattr(module, name).weight for name in names]
        few[module, names] = kernels is not None and all(map(kernels.few, weights))
        plain = few[module, names] or weights[0].dtype == torch.bfloat16
        twice += sum(w.nbytes for w in weights if plain or id(w) in tied)
    both = twice <= (int(free_memory() * _SHARE) if room is None else room)
    if not both:
        logger.warning(
            "weights are kept in one form: in two, which is faster, they would take %d MiB more", twice >> 20
        )
    count = 0
    for module, names in found:
        layers = [getattr(module, name) for name in names]
        narrow = layers[0].weight.dtype == torch.bfloat16
        plain = (both and narrow) or (few[module, names] and (both or narrow))
        how: dict[str, Any] = {"packed": both or not plain, "plain": plain, "kernels": kernels}
        if len(layers) > 1:
            together = Together(*layers, **how)
            for number, name in enumerate(names):
                setattr(module, name, Part(together, number))
        elif plain or both or id(layers[0].weight) not in tied:
            setattr(module, names[0], PackedLinear(*layers, **how))
        else:
            continue
        count += len(layers)
    return count


def _packable(module: nn.Module, tied: set[int]) -> Iterator[tuple[str, ...]]:
    """Names of the layers in `module` that can be packed, those together that become one product."""
    left = dict(module.named_children())
    siblings = [left[name] for name in SIBLINGS if name in left]
    if len(siblings) == len(SIBLINGS) and _fit(siblings) and all(id(layer.weight) not in tied for layer in siblings):
        yield SIBLINGS
        for name in SIBLINGS:
            del left[name]
    for name, child in left.items():
        if _fit([child]):
            yield (name,)


def _fit(layers: list[nn.Module]) -> bool:
    """Whether they can be packed as one, and are large enough."""
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    kinds = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in linear}
    if len(linear) < len(layers) or len(kinds) > 1:
        return False
    dtype = linear[0].weight.dtype
    known = dtype in LEAST and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return known and sum(layer.weight.numel() for layer in linear) >= LEAST[dtype]
