"""Weights in the layout that the CPU's matrix products read: packed once at load, not again at every step.

A step multiplies few rows by large weights. Packed beforehand, a product of 4 to 32 rows takes 0.6 to 0.9 of the time
in fp32 and 0.5 to 0.8 in bf16 (AVX-512); a small one gains nothing, for the way to the operation is longer. The
operations are those that torch's own compiler uses when it freezes a model.

Queries, keys and values are products of the same rows, so their weights become one: the first of the three calls
computes all.

Rounding depends on the number of rows and on the product's shape, so deterministic mode does without all of this.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Weights of a layer from which packing pays, by the type in which it multiplies.
LEAST = {torch.float32: 1 << 20, torch.bfloat16: 1 << 16}
#: Layers that are given one tensor, in the order of their calls.
SIBLINGS = ("q_proj", "k_proj", "v_proj")


class PackedLinear(nn.Module):
    """y = x W^T + b for x [..., in], W packed."""

    def __init__(self, *layers: nn.Linear) -> None:
        """Of several `layers` with the same input: their outputs, one after the other."""
        super().__init__()
        self.out_features = sum(layer.out_features for layer in layers)
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


class Together(nn.Module):
    """Layers with the same input as one product. Its `parts` take their places: whichever is called with a tensor that
    is not the one at hand computes all, and each takes its part, the last one leaving nothing behind."""

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        self.packed = PackedLinear(*layers)
        self._sizes = [layer.out_features for layer in layers]
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def part(self, number: int, x: Tensor) -> Tensor:
        if x is not self._input:
            self._input, self._outputs = x, self.packed(x).split(self._sizes, -1)
        output = self._outputs[number]
        if number == len(self._sizes) - 1:
            self._input, self._outputs = None, ()
        return output


class Part(nn.Module):
    def __init__(self, together: Together, number: int) -> None:
        super().__init__()
        self.together = together
        self._number = number

    def forward(self, x: Tensor) -> Tensor:
        return self.together.part(self._number, x)


def pack(model: nn.Module) -> int:
    """Replace the model's large linear layers where torch can pack them; how many. Weights that something else reads
    too (tied embeddings) stay as they are."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    types = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        types.add(torch.bfloat16)
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1

    def packable(modules: list[nn.Module]) -> list[nn.Linear]:
        """`modules` if they can be packed, as one."""
        layers = [layer for layer in modules if type(layer) is nn.Linear and uses[id(layer.weight)] == 1]
        if not layers or len(layers) < len(modules):
            return []
        kinds = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}
        dtype = layers[0].weight.dtype
        enough = dtype in types and sum(layer.weight.numel() for layer in layers) >= LEAST[dtype]
        return layers if len(kinds) == 1 and enough else []

    count = 0
    for module in list(model.modules()):
        children = dict(module.named_children())
        siblings = [children[name] for name in SIBLINGS if name in children]
        if len(siblings) == len(SIBLINGS) and (layers := packable(siblings)):
            together = Together(*layers)
            for number, name in enumerate(SIBLINGS):
                setattr(module, name, Part(together, number))
                del children[name]
            count += len(SIBLINGS)
        for name, child in children.items():
            if layers := packable([child]):
                setattr(module, name, PackedLinear(*layers))
                count += 1
    return count
