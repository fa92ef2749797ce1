"""Exact match of saved weights, by task, on seeds that training never draws."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from semantic_parrot.core.demo_model import world


@dataclass(frozen=True, slots=True)
class Score:
    """How many of `total` greedy answers equal the right one, and the first that does not."""

    task: str
    right: int
    total: int
    miss: str | None = None

    @property
    def exact_match(self) -> float:
        return self.right / self.total


def held_out(task: str, seed: int, count: int) -> list[tuple[list[dict[str, str]], str]]:
    """Chats and right answers of one task; about half of the chats open with a system message.

    Raises:
        ValueError: the seed is one that training may draw.
    """
    if seed not in world.HELD_OUT_SEEDS:
        raise ValueError(f"seed {seed} is not in {world.HELD_OUT_SEEDS}")
    rng = random.Random(seed)
    drawn = []
    for _ in range(count):
        system = world.system_message(rng)
        prompt, answer = world.example(task, rng)
        chat = [{"role": "system", "content": system}] if system else []
        drawn.append(([*chat, {"role": "user", "content": prompt}], answer))
    return drawn


class Evaluator:
    """Loads a model directory in float32, without the network."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()

    def answers(self, chats: list[list[dict[str, str]]], max_new_tokens: int = 192) -> list[str]:
        """Greedy answers, all in one left-padded batch."""
        inputs = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        return list(self.tokenizer.batch_decode(new, skip_special_tokens=True))

    def score(self, task: str, seed: int, count: int, batch: int = 32) -> Score:
        """Exact match of `count` held-out examples of one task."""
        examples = held_out(task, seed, count)
        right, miss = 0, None
        for start in range(0, count, batch):
            part = examples[start : start + batch]
            for (chat, answer), got in zip(part, self.answers([chat for chat, _ in part]), strict=True):
                right += got == answer
                if got != answer and miss is None:
                    miss = f"{chat[-1]['content']}\n  wanted {answer}\n  got    {got}"
        return Score(task, right, count, miss)
