"""Our attention in transformers' attention interface.

The interface maps a name to a function, once per process; what a step needs comes with the forward's keyword
arguments (`parrot=`), so that nothing is kept in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from semantic_parrot.core.engine.kv import LayerShape, PagedCache
from semantic_parrot.kernels.paging import Plan, Scores

NAME = "parrot"
# What some architectures add to a score, and we have not got.
_LACKING = {
    "sinks": "attention sinks by token",
    "position_bias": "a position bias",
    "alibi": "ALiBi",
}
# What changes nothing here. Whatever else is handed over means something that we don't know.
_HARMLESS = {
    "dropout",
    "position_ids",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
}


class Unsupported(Exception):
    """The architecture needs what the engine lacks; the message says what."""


@dataclass(slots=True)
class Probe:
    """A first forward that notes what each layer asks for; attention gives zeros."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        if layer in self.shapes:
            raise Unsupported("several attentions in a layer")
        if query.shape[3] != key.shape[3] or key.shape != value.shape:
            raise Unsupported("keys and values of different sizes")
        if query.shape[1] % key.shape[1]:
            raise Unsupported("query heads that are no multiple of the KV heads")
        self.shapes[layer] = LayerShape(key.shape[1], key.shape[3])
        self.windows[layer] = scores.window
        return query.new_zeros(query.shape).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Step:
    """A step's attention over the paged cache. `layers`: from a model's layer index to the cache's."""

    plan: Plan
    cache: PagedCache
    layers: dict[int, int]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        index = self.layers[layer]
        keys, values = self.cache.keys[index], self.cache.values[index]
        return self.plan.attend(query, key, value, keys, values, scores)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    parrot: Probe | Step | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """transformers' signature: query [1, heads, rows, dim] → [1, rows, heads, dim]. Raises Unsupported."""
    for name, given in other.items():
        if given is not None and name not in _HARMLESS:
            raise Unsupported(_LACKING.get(name, f"an unknown argument of attention, {name}"))
    if is_causal is False:
        raise Unsupported("attention that is not causal")
    if parrot is None:
        raise Unsupported("attention that is not told which step it is in")
    if attention_mask is not None:
        raise Unsupported("an attention mask of its own")
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise Unsupported("attention layers without an index")
    if s_aux is not None and s_aux.shape != query.shape[1:2]:
        raise Unsupported("attention sinks that are not one a head")
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return parrot.attend(layer, query, key, value, Scores(scale, sliding_window, softcap, s_aux)), None


def register() -> None:
    """Make `attn_implementation="parrot"` known to transformers; again is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention_forward)
