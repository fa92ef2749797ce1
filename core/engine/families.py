"""Which model families are tested, by transformers' `model_type`: what tests/engine/test_families.py runs, no more.

Any other family is served only if the probe agrees with the model's own forward, and the log says that it is untested.
"""

from __future__ import annotations

from typing import Final

#: Families whose layers are h = x + attention(norm(x)), y = h + mlp(norm(h)), with RMS norms, RoPE in two halves over a
#: whole head, and a gated MLP with SiLU.
LLAMA_SHAPED: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})

TESTED: Final = frozenset(
    {
        "cohere",
        "gemma2",
        "gemma3_text",
        "glm4",
        "gpt2",
        "gpt_neox",
        "gpt_oss",
        "granite",
        "granite_swa",
        "llama",
        "mistral",
        "mixtral",
        "olmo2",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "smollm3",
        "starcoder2",
    }
)
