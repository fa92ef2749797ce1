"""The model that engines are compared on: Llama-shaped, 100M parameters, seeded random weights, its own tokenizer.

Weights are of a spread at which attention is not flat and the best token leads by much more than fp32's rounding. They
are rounded to bf16 before they are stored, so that the fp32 and the bf16 checkpoint hold the same numbers. The output
rows of the special tokens are zero: greedy decoding never ends an answer, for whichever engine.

The tokenizer is a byte-level BPE of GPT-2's kind over printable ASCII, trained on made-up words. Every token is valid
text by itself, so engines can be compared by text, and every word of `words.json` is one token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import string
from pathlib import Path
from typing import Any, Final

SHAPE: Final[dict[str, Any]] = {
    "vocab_size": 16_384,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "initializer_range": 0.05,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
SMALL: Final = {
    **SHAPE,
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DTYPES: Final = ("float32", "bfloat16")
PAD, END = "<|pad|>", "<|end|>"
#: A chat whose only message is the prompt: what it renders is the prompt itself, as for a completion.
TEMPLATE: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
_VERSION = 1  # of what this file makes


def make(home: Path, dtype: str, *, seed: int = 0, shape: dict[str, Any] = SHAPE) -> Path:
    """The checkpoint's directory under `home`, made if it is not there. Its name says what is in it."""
    known = json.dumps([_VERSION, seed, shape], sort_keys=True)
    name = f"llama-{hashlib.sha256(known.encode()).hexdigest()[:8]}"
    path = home / "models" / f"{name}-{dtype}"
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _write(unfinished, dtype, seed, shape)
            with contextlib.suppress(OSError):  # somebody else was faster
                unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return path


def decode_bytes(path: Path) -> int:
    """Bytes of weights that one decode step reads: all but the input embeddings, of which it reads a row."""
    from safetensors import safe_open

    size, width = 0, {"F32": 4, "BF16": 2}
    with safe_open(path / "model.safetensors", framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            part = file.get_slice(name)
            count = 1
            for n in part.get_shape():
                count *= n
            size += 0 if "embed_tokens" in name else count * width[part.get_dtype()]
    return size


def _write(path: Path, dtype: str, seed: int, shape: dict[str, Any]) -> None:
    import torch
    import transformers

    tokenizer, words = _tokenizer(seed, shape["vocab_size"])
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = transformers.LlamaConfig(**shape, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight[[tokenizer.pad_token_id, tokenizer.eos_token_id]] = 0
    model.to(torch.bfloat16).to(getattr(torch, dtype)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "words.json").write_text(json.dumps(words))


def _tokenizer(seed: int, size: int) -> tuple[Any, list[str]]:
    """Exactly `size` tokens, and the words that are one token when a space stands before them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = list(dict.fromkeys("".join(rng.choices(syllables, k=rng.choice((2, 3, 3)))) for _ in range(size * 2)))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(set(string.ascii_letters + string.digits + string.punctuation) | {"Ġ", "Ċ"})
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((f" {word}" for word in words), trainer)
    assert bpe.get_vocab_size() == size, bpe.get_vocab_size()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=PAD, model_max_length=4096)
    tokenizer.chat_template = TEMPLATE
    return tokenizer, [word for word in words if len(bpe.encode(f" {word}").ids) == 1]


def prompt(words: list[str], tokens: int, *seed: object) -> str:
    """Text of exactly `tokens` tokens."""
    rng = random.Random("/".join(map(str, seed)))
    return "".join(f" {word}" for word in rng.choices(words, k=tokens))
