"""Models of Llama's shape on a CPU without their modules: each layer is a plain function of products and kernels in C.

At few rows a step is as long as what Python and torch do around the products. So a layer is ten calls here, where the
modules make some sixty; a residual is added in the pass of the norm after it; and queries, keys and values come out of
one product where they are packed so. What is computed is the same, but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from semantic_parrot.core.engine.attention import Step
from semantic_parrot.core.engine.families import LLAMA_SHAPED
from semantic_parrot.core.engine.packing import Part
from semantic_parrot.kernels.c_library import CKernels
from semantic_parrot.kernels.paging import Scores

Product = Callable[[Tensor], Tensor]


def refuses(model: Any) -> str | None:
    """Why `model` is not for `Lean`, or None."""
    config = model.config
    if config.model_type not in LLAMA_SHAPED:
        return f"the family {config.model_type}"
    if config.hidden_act != "silu":
        return f"{config.hidden_act} in MLPs"
    return CKernels.refuses(model.dtype)


class Lean:
    """A `model` that `refuses` has nothing against, and whose weights are packed already, if they are to be."""

    def __init__(self, model: Any, kernels: CKernels) -> None:
        assert refuses(model) is None
        body = model.model
        self._embed: Product = body.embed_tokens
        self._angles: Callable[..., tuple[Tensor, Tensor]] = body.rotary_emb
        self._layers = [_Layer(layer, kernels) for layer in body.layers]
        self._norm = _Norm(body.norm, kernels)
        self._head: Product = model.lm_head

    def __call__(self, tokens: Tensor, positions: Tensor, wanted: Tensor, step: Step) -> Tensor:
        """`tokens` and `positions` [rows]; the logits of the rows `wanted`, [len(wanted), vocabulary]."""
        hidden = self._embed(tokens)
        cos, sin = self._angles(hidden, position_ids=positions[None])
        cos, sin = cos[0].contiguous(), sin[0].contiguous()
        rest: Tensor | None = None  # what is still to be added to `hidden`
        for layer in self._layers[:-1]:
            rest, hidden = layer(hidden, rest, cos, sin, step)
        fewer = wanted if len(wanted) < len(tokens) else None
        rest, hidden = self._layers[-1](hidden, rest, cos, sin, step, wanted=fewer)
        return self._head(self._norm(hidden, rest)[0])


class _Norm:
    def __init__(self, norm: Any, kernels: CKernels) -> None:
        self._rms_norm = kernels.rms_norm
        self._weight, self._eps = norm.weight.detach(), float(norm.variance_epsilon)

    def __call__(self, x: Tensor, rest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The norm of their sum, and the sum."""
        return self._rms_norm(x, self._weight, self._eps, rest)


class _Layer:
    """h = x + attention(norm(x)), y = h + mlp(norm(h)); y is returned as its two terms."""

    def __init__(self, layer: Any, kernels: CKernels) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._kernels = kernels
        self._first = _Norm(layer.input_layernorm, kernels)
        self._second = _Norm(layer.post_attention_layernorm, kernels)
        self._norms = [
            _Norm(getattr(attention, name), kernels) for name in ("q_norm", "k_norm") if hasattr(attention, name)
        ]
        self._project = _projections(attention)
        self._output: Product = attention.o_proj.forward
        self._gate, self._up, self._down = mlp.gate_proj.forward, mlp.up_proj.forward, mlp.down_proj.forward
        self._dim: int = attention.head_dim
        self._index: int = attention.layer_idx
        config = attention.config
        # Qwen's layers say it each; Mistral's have it from the configuration; Llama has none.
        common = config.sliding_window if config.model_type == "mistral" else None
        self._scores = Scores(attention.scaling, getattr(attention, "sliding_window", common))

    def __call__(
        self,
        x: Tensor,
        rest: Tensor | None,
        cos: Tensor,
        sin: Tensor,
        step: Step,
        *,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`x` and `rest` [rows, hidden size], the two terms of what comes in. Returns those of what goes out, the MLP's
        first, of the rows `wanted` (None: all): of the others, a last layer has but their keys and values to give."""
        normed, hidden = self._first(x, rest)
        query, key, value = (part.view(len(x), -1, self._dim) for part in self._project(normed))
        if self._norms:
            query, key = self._norms[0](query)[0], self._norms[1](key)[0]
        self._kernels.rope(query, key, cos, sin)
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
        out = step.attend(self._index, query, key, value, self._scores).reshape(len(x), -1)
        if wanted is not None:
            out, hidden = out[wanted], hidden[wanted]
        normed, hidden = self._second(self._output(out), hidden)
        return self._down(self._kernels.silu_mul(self._gate(normed), self._up(normed))), hidden


def _projections(attention: Any) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """From rows to their queries, keys and values."""
    if isinstance(attention.q_proj, Part):
        together = attention.q_proj.together
        product, sizes = together.packed.forward, together.sizes
        return lambda x: torch.split(product(x), sizes, -1)
    each = (attention.q_proj.forward, attention.k_proj.forward, attention.v_proj.forward)
    return lambda x: tuple(project(x) for project in each)
