"""Small random-weight checkpoints, one per model family, with a byte-level BPE tokenizer and a chat template.

No network and no fixtures here: a test session caches them in a fixture of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tool_templates import add_tools

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS: Final = (
    "The harbour master wrote down each ship, its cargo and the hour at which it left the quay.",
    "Summarise the following text in one sentence: a parrot repeats what it has heard before.",
    "system user assistant 0123456789 {}[]()<>.,;:!?'\"",
    "zażółć gęślą jaźń, naïve café, 你好世界, 🦜🦜 наречие",
)
CONTEXT: Final = 1024
LONGROPE_ORIGINAL: Final = 96  # phi3_longrope switches to its long factors past this many tokens
WINDOW: Final = 40  # mistral's sliding window, shorter than the tests' prompts

_BASE: Final[dict[str, Any]] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    # Wider than usual: logits of a stock initialisation are nearly flat, and every comparison would be a tie.
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
}
_LOCAL: Final = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_LLAMA3_ROPE: Final = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "llama": ("LlamaConfig", {}),
    # Its tokenizer's class adds a token of its own.
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 4, "tie_word_embeddings": True, "vocab_size": 408}),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW}),
    "phi3": ("Phi3Config", {"original_max_position_embeddings": CONTEXT}),
    "phi3_longrope": (
        "Phi3Config",
        {
            "original_max_position_embeddings": LONGROPE_ORIGINAL,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0 + 0.05 * i for i in range(8)],
                "long_factor": [2.0 + 0.5 * i for i in range(8)],
            },
        },
    ),
}
_MOE: Final = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
# More families, for tests of families alone.
_MORE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "llama3": ("LlamaConfig", {"rope_parameters": _LLAMA3_ROPE, "hidden_size": 60, "num_attention_heads": 6}),
    "qwen3": ("Qwen3Config", {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 24}),
    "gemma2": ("Gemma2Config", {"attn_logit_softcapping": 2.0, "head_dim": 24, "query_pre_attn_scalar": 20, **_LOCAL}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 24, "tie_word_embeddings": True, **_LOCAL}),
    "gpt_oss": ("GptOssConfig", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, **_LOCAL}),
    "granite_swa": ("GraniteSWAConfig", {"attention_multiplier": 0.2, **_LOCAL}),
    "granite": ("GraniteConfig", {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 0.5}),
    "olmo2": ("Olmo2Config", {"num_attention_heads": 8}),
    "smollm3": ("SmolLM3Config", {"no_rope_layers": [1, 0], "tie_word_embeddings": True}),
    "phi": ("PhiConfig", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "cohere": ("CohereConfig", {"logit_scale": 1.0, "use_qk_norm": True}),
    "glm4": ("Glm4Config", {"head_dim": 16, "partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2Config", {"sliding_window": WINDOW}),
    "gpt2": ("GPT2Config", {"num_key_value_heads": None}),
    "gpt_neox": ("GPTNeoXConfig", {"num_key_value_heads": None}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3MoeConfig", {"num_experts": 4, "head_dim": 16, **_MOE}),
}
FAMILIES: Final = tuple(_FAMILIES)
MORE_FAMILIES: Final = tuple(_MORE)
#: Mixtures of experts.
MOE_FAMILIES: Final = ("gpt_oss", "mixtral", "qwen3_moe")


def make_tokenizer() -> Any:
    """A byte-level BPE tokenizer of about 400 tokens with `<|im_start|>`, `<|im_end|>` (EOS) and a pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(
    family: str, directory: Path, *, seed: int = 0, chat: bool = True, tools: str | None = None, **config: Any
) -> Path:
    """Write a checkpoint of `family` (one of FAMILIES or MORE_FAMILIES) into `directory`, which is made; returns it.

    `config` overrides fields of the model's configuration; without `chat` the tokenizer has no chat template;
    with `tools` it has the one of that format of tool calls (see `tool_templates`).
    """
    import torch
    import transformers

    tokenizer = make_tokenizer()
    if not chat:
        tokenizer.chat_template = None
    if tools is not None:
        add_tools(tokenizer, tools)
    name, special = {**_FAMILIES, **_MORE}[family]
    fields: dict[str, Any] = {
        **_BASE,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **special,
        **config,
    }
    directory.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**fields))
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
