"""The demo model before training: a small Llama whose attention starts out inclined to copy."""

from typing import Final

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaAttention

HIDDEN: Final = 256
HEADS: Final = 4
KV_HEADS: Final = 2
HEAD_SIZE: Final = HIDDEN // HEADS  # 64: one head has the rank to carry any word of the world
EMBEDDING_SPREAD: Final = 0.05


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model of 3.3 million parameters; draws from torch's global generator."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_SPREAD)
    for layer in model.model.layers:
        _incline_to_copy(layer.self_attn)
    return model


@torch.no_grad()
def _incline_to_copy(attention: LlamaAttention) -> None:
    """Start with queries like keys and outputs that undo values: look at equal tokens, write what was read.

    After Trockman and Kolter, "Mimetic initialization of self-attention layers" (2023). All five tasks copy
    words from the prompt; from the usual random start, names stayed near chance for hundreds of steps.
    """
    nn.init.orthogonal_(attention.k_proj.weight, gain=0.5)
    attention.q_proj.weight.copy_(_for_each_head(attention.k_proj.weight))
    nn.init.orthogonal_(attention.v_proj.weight, gain=0.7)
    attention.o_proj.weight.copy_(_for_each_head(attention.v_proj.weight).T)


def _for_each_head(weight: torch.Tensor) -> torch.Tensor:
    """(KV_HEADS * HEAD_SIZE, HIDDEN) to (HEADS * HEAD_SIZE, HIDDEN), as grouped-query attention shares."""
    heads = weight.view(KV_HEADS, HEAD_SIZE, HIDDEN)
    return heads.repeat_interleave(HEADS // KV_HEADS, dim=0).reshape(HEADS * HEAD_SIZE, HIDDEN)
