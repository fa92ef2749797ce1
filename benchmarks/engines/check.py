"""Whether an engine computes the same model: greedy text in fp32, against transformers' own `generate`.

Two tokens whose logits are nearly equal may change places where sums are rounded in another order, and everything after
differs. So an answer is compared up to the first step at which the best two logits are closer than MARGIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MARGIN = 1e-3
PROMPTS, PROMPT_TOKENS, TOKENS = 4, 48, 32


@dataclass(frozen=True, slots=True)
class Expected:
    """`text` of the first `tokens` tokens, up to where rounding could decide; `whole`: that is the whole answer."""

    text: str
    tokens: int
    whole: bool


def reference(checkpoint: Path, prompts: Sequence[str], tokens: int = TOKENS) -> list[Expected]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()
    found = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = [step[0].topk(2).values for step in out.logits]
        sure = next((i for i, top in enumerate(best) if top[0] - top[1] < MARGIN), tokens)
        answer = out.sequences[0, ids.shape[1] :][:sure]
        found.append(Expected(tokenizer.decode(answer), sure, sure == tokens))
    return found


def difference(expected: Sequence[Expected], texts: Sequence[str]) -> str | None:
    """What is wrong with `texts`, None if nothing is."""
    for number, (want, text) in enumerate(zip(expected, texts, strict=True)):
        if (want.whole and text != want.text) or not text.startswith(want.text):
            at = next((i for i, (a, b) in enumerate(zip(want.text, text, strict=False)) if a != b), len(text))
            there = slice(at, at + 20)
            return f"answer {number} differs from character {at} on: {text[there]!r}, not {want.text[there]!r}"
    return None
