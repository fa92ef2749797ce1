"""Training batches: conversations packed into rows that do not see one another."""

import random
from dataclasses import dataclass
from typing import Final

import torch
from transformers import PreTrainedTokenizerFast

from semantic_parrot.core.demo_model import world
from semantic_parrot.core.demo_model.stages import Mixture

IGNORED: Final = -100
FILL: Final = 0.95  # of the places of a batch, before packing


@dataclass(frozen=True, slots=True)
class Batch:
    """All of shape (rows, length), but `mask`: (rows, 1, length, length), true where a query may look."""

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


class Conversations:
    """Draws conversations as tokens and labels; only what the assistant says is labelled."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, mixture: Mixture) -> None:
        self._mixture = mixture
        self._encode = tokenizer.backend_tokenizer.encode

    def draw(self, rng: random.Random, most: int) -> tuple[list[int], list[int]]:
        """One conversation: mostly one turn, some of two or three, some as a bare completion."""
        tokens: list[int] = []
        labels: list[int] = []

        def add(text: str, learn: bool) -> None:
            ids = self._encode(text).ids
            tokens.extend(ids)
            labels.extend(ids if learn else [IGNORED] * len(ids))

        kind = rng.random()
        if kind < self._mixture.completions:  # /v1/completions: no template, the answer follows on a line of its own
            prompt, answer = self._example(rng, most)
            add(prompt.rstrip("\n"), False)
            add(f"\n{answer}<|im_end|>", True)
            return tokens, labels
        system = world.system_message(rng)
        if system:
            add(f"<|im_start|>system\n{system}<|im_end|>\n", False)
        for _ in range(1 if kind < 0.88 else rng.choice((2, 3))):
            prompt, answer = self._example(rng, most)
            add(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", False)
            add(f"{answer}<|im_end|>", True)
            add("\n", False)
        return tokens, labels

    def _example(self, rng: random.Random, most: int) -> tuple[str, str]:
        weights = self._mixture.weights
        task = rng.choices(list(weights), list(weights.values()))[0]
        drawn = [world.example(task, rng, most) for _ in range(2 if self._mixture.prefer_long else 1)]
        return max(drawn, key=lambda example: len(example[1]))

    def batch(self, rng: random.Random, rows: int, length: int, most: int) -> Batch:
        """Whole conversations, longest first, each in the first row that has room."""
        drawn: list[tuple[list[int], list[int]]] = []
        while sum(len(ids) for ids, _ in drawn) < FILL * rows * length:
            conversation = self.draw(rng, most)
            if len(conversation[0]) <= length:
                drawn.append(conversation)
        drawn.sort(key=lambda conversation: -len(conversation[0]))

        tokens = torch.zeros(rows, length, dtype=torch.long)
        labels = torch.full((rows, length), IGNORED)
        positions = torch.zeros(rows, length, dtype=torch.long)
        owner = torch.full((rows, length), -1)  # which conversation a place belongs to; -1 is padding
        used = [0] * rows
        for number, (ids, wanted) in enumerate(drawn):
            row = next((row for row in range(rows) if used[row] + len(ids) <= length), None)
            if row is None:  # the few that fit nowhere are dropped
                continue
            here = slice(used[row], used[row] + len(ids))
            tokens[row, here] = torch.tensor(ids)
            labels[row, here] = torch.tensor(wanted)
            positions[row, here] = torch.arange(len(ids))
            owner[row, here] = number
            used[row] += len(ids)
        same = owner[:, :, None] == owner[:, None, :]  # padding sees padding: no row of the mask is empty
        return Batch(tokens, labels, positions, (same & torch.ones(length, length).tril().bool())[:, None])
