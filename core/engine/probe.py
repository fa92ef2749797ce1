"""Tries a model once before it is served: does it compute in our flattened step what it computes by itself?

One check for all that could be wrong with an architecture we have never seen: attention that bypasses the interface,
layers that mix neighbouring tokens (convolutions, state spaces), positions taken from elsewhere than `position_ids`.
"""

from __future__ import annotations

from typing import Any

import torch

from semantic_parrot.core.engine.attention import NAME, Probe, Step, Unsupported
from semantic_parrot.core.engine.kv import BLOCK_SIZE, LayerShape, PagedCache
from semantic_parrot.kernels.dispatch import paged_attention
from semantic_parrot.kernels.paging import Segment

_LENGTHS = (5, 21)


@torch.inference_mode()
def probe(model: Any, long_after: int | None) -> dict[int, LayerShape]:
    """The KV shape of each layer. Raises Unsupported if our forward and the model's own disagree."""
    config = model.config.get_text_config()
    device = model.device
    lengths = [n if long_after is None else min(n, long_after) for n in _LENGTHS]
    sequences = [[(7 * n + 3 * i + 1) % config.vocab_size for i in range(n)] for n in lengths]
    tokens = torch.tensor([[token for s in sequences for token in s]], device=device)
    positions = torch.tensor([[i for n in lengths for i in range(n)]], device=device)

    rows = torch.arange(tokens.shape[1], device=device).flip(0)  # as the runner asks for some rows, in its order

    def forward(how: Probe | Step) -> torch.Tensor:
        output = model(input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=rows, parrot=how)
        logits: torch.Tensor = output.logits[0].float().flip(0)
        return logits

    noted = Probe()
    forward(noted)
    if len(noted.shapes) != config.num_hidden_layers:
        raise Unsupported(f"{config.num_hidden_layers - len(noted.shapes)} layers that are no plain attention")
    kinds = getattr(config, "layer_types", None) or []
    for layer, kind in enumerate(kinds):
        if kind == "sliding_attention" and noted.windows.get(layer) is None:
            raise Unsupported("sliding windows that its attention is not told of")

    blocks = [list(range(1, 3)), list(range(3, 5))]
    segments = [Segment(sum(lengths[:n]), length, length, blocks[n]) for n, length in enumerate(lengths)]
    shapes = [noted.shapes[layer] for layer in sorted(noted.shapes)]
    cache = PagedCache.allocate(shapes, 4, torch.float32 if device.type == "cpu" else model.dtype, device)
    planner = paged_attention("torch", device, deterministic=False)
    plan = planner(segments, sum(lengths), BLOCK_SIZE, device)
    ours = forward(Step(plan, cache, {layer: n for n, layer in enumerate(sorted(noted.shapes))}))

    model.set_attn_implementation("eager")
    try:
        alone = [model(input_ids=torch.tensor([s], device=device), use_cache=False).logits[0] for s in sequences]
    finally:
        model.set_attn_implementation(NAME)
    theirs = torch.cat(alone).float()
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    if not (ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp_min(1e-6):
        raise Unsupported("something that a flattened batch over paged KV does not give it")
    return noted.shapes
