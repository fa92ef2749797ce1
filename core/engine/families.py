"""Which model families are tested, by transformers' `model_type`: what tests/engine/test_families.py runs, no more.

Any other family is served only if the probe agrees with the model's own forward, and the log says that it is untested.
"""

from __future__ import annotations

from typing import Final

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
