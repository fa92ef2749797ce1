"""Weights in the layout that the CPU's matrix products read: packed once at load, not again at every step.

A step multiplies few rows by large weights. Packed beforehand, a product of 4 to 32 rows takes 0.6 to 0.9 of the time
(fp32, AVX-512), and one of a single row some 50 µs more, for the way to the operation is longer: so only large layers
are packed. The operations are those that torch's own compiler uses when it freezes a model. Their rounding depends on
the number of rows, so deterministic mode does without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Weights of a layer from which packing pays.
LEAST = 1 << 20


class PackedLinear(nn.Module):
    """y = x W^T + b for x [..., in], W packed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features = linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


def pack(model: nn.Module) -> int:
    """Replace the model's large linear layers where torch can pack them; how many. Weights that something else reads
    too (tied embeddings) stay as they are."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    packable = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        packable.add(torch.bfloat16)
    uses: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.Linear:
                continue
            alone = uses[id(child.weight)] == 1
            if alone and child.weight.numel() >= LEAST and child.weight.dtype in packable:
                setattr(module, name, PackedLinear(child))
                count += 1
    return count
