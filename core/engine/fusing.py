"""Models through our Triton kernels: decoder layers of Llama's shape, and in deterministic mode every product.

The modules keep their weights; what they compute is the same but for rounding, in fewer passes over memory.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from semantic_parrot.core.engine import attention
from semantic_parrot.core.engine.families import LLAMA_SHAPED
from semantic_parrot.kernels import matmul, rms_norm, rope, silu_mul
from semantic_parrot.kernels.triton_setup import refused_dtype


def refuses(model: Any) -> str | None:
    """Why `model` is not for `fuse`, or None."""
    config = model.config
    if config.model_type not in LLAMA_SHAPED:
        return f"the family {config.model_type}"
    if config.hidden_act != "silu":
        return f"{config.hidden_act} in MLPs"
    if config.hidden_size > rms_norm.WIDEST:
        return f"a hidden size of {config.hidden_size}"
    return refused_dtype(model.dtype)


def fuse(model: Any, *, deterministic: bool) -> None:
    """Replace the modules of a model that `refuses` has nothing against. `deterministic`: also every matrix product, by
    one whose rows do not depend on the batch."""
    assert refuses(model) is None
    if deterministic:
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if type(child) is nn.Linear:
                    setattr(module, name, Product(child))
    body = model.model
    body.norm = Norm(body.norm)
    for index, layer in enumerate(body.layers):
        body.layers[index] = Layer(layer)


def forward(model: Any, tokens: Tensor, positions: Tensor, step: attention.Step) -> Tensor:
    """A fused model without what transformers' own forward does around its layers: `tokens` and `positions` [1, rows] →
    logits of every row, [rows, vocabulary]. Asks the device nothing."""
    body = model.model
    hidden = body.embed_tokens(tokens)
    angles = body.rotary_emb(hidden, position_ids=positions)
    for layer in body.layers:
        hidden = layer(hidden, position_embeddings=angles, parrot=step)
    logits: Tensor = model.lm_head(body.norm(hidden)[0])
    return logits


class Product(nn.Module):
    """`nn.Linear` by `kernels.matmul`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return matmul.matmul(x, self.weight, self.bias)


class Norm(nn.Module):
    """RMS norm, of a sum if there is a residual: the norm and the sum."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, float(norm.variance_epsilon)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return rms_norm.rms_norm(x, self.weight, self.eps, residual)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm.rms_norm(x, self.weight, self.eps)[0]


class Layer(nn.Module):
    """A decoder layer in the place of transformers' own, as its model calls it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.first, self.second = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        for name in ("q_norm", "k_norm"):
            if hasattr(self.attention, name):
                setattr(self.attention, name, Norm(getattr(self.attention, name)))
        config = self.attention.config
        # Qwen's layers say it each; Mistral's have it from the configuration; Llama has none.
        common = config.sliding_window if config.model_type == "mistral" else None
        self.window: int | None = getattr(self.attention, "sliding_window", common)

    def forward(self, hidden: Tensor, *, position_embeddings: tuple[Tensor, Tensor], parrot: Any, **_: Any) -> Tensor:
        """`hidden` [1, rows, hidden size]; returns the same."""
        a = self.attention
        x = self.first(hidden)
        shape = (1, x.shape[1], -1, a.head_dim)
        query, key, value = (project(x).view(shape) for project in (a.q_proj, a.k_proj, a.v_proj))
        if hasattr(a, "q_norm"):
            query, key = a.q_norm(query), a.k_norm(key)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        rope.rope(query, key, *position_embeddings)
        out, _weights = attention.attention_forward(
            a, query, key, value, None, scaling=a.scaling, sliding_window=self.window, parrot=parrot
        )
        x, hidden = self.second.add(a.o_proj(out.reshape(hidden.shape[0], hidden.shape[1], -1)), hidden)
        m = self.mlp
        down: Tensor = m.down_proj(silu_mul.silu_mul(m.gate_proj(x), m.up_proj(x)))
        return hidden + down
