"""What a request's options do to its logits before a token is drawn: what is ruled out, penalties, biases.

State is kept per sequence, a token an entry; the work is done for all rows of a batch that want it in a few products.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from semantic_parrot.core.sampling import Sampling
from semantic_parrot.kernels.transfer import upload


class Penalties:
    """Of one sequence. `ends`: the token ids that end its answer, ruled out while it is shorter than `min_tokens`.

    Repetition counts the tokens of prompt and answer, presence and frequency those of the answer.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int], ends: Collection[int]) -> None:
        self.sampling = sampling
        self._slots: dict[int, int] = {}
        self._ids = torch.zeros(0, dtype=torch.int64)
        self._counts = torch.zeros(0)
        self._made = 0
        self._ends = torch.tensor(sorted(ends), dtype=torch.int64)
        self.bias = (
            torch.tensor([token for token, _ in sampling.logit_bias], dtype=torch.int64),
            torch.tensor([bias for _, bias in sampling.logit_bias], dtype=torch.float32),
        )
        if sampling.repetition_penalty != 1:
            known = list(dict.fromkeys(prompt))
            self._slots = {token: slot for slot, token in enumerate(known)}
            self._ids = torch.tensor(known, dtype=torch.int64)
            self._counts = torch.zeros(len(known))

    @staticmethod
    def needed(sampling: Sampling) -> bool:
        return sampling.penalised or bool(sampling.logit_bias) or sampling.min_tokens > 0

    def add(self, token: int) -> None:
        """The answer goes on with `token`."""
        self._made += 1
        if not self.sampling.penalised:
            return
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == len(self._ids):
            self._ids = torch.cat([self._ids, self._ids.new_zeros(slot + 64)])
            self._counts = torch.cat([self._counts, self._counts.new_zeros(slot + 64)])
        self._ids[slot] = token
        self._counts[slot] += 1

    @property
    def seen(self) -> tuple[Tensor, Tensor]:
        """The tokens that count, each once, and how often each was generated: both [tokens]."""
        return self._ids[: len(self._slots)], self._counts[: len(self._slots)]

    @property
    def ruled_out(self) -> Tensor:
        return self._ends if self._made < self.sampling.min_tokens else self._ends[:0]


def penalise(logits: Tensor, rows: Sequence[int], penalties: Sequence[Penalties]) -> None:
    """Change `logits` [rows, vocabulary] in place, at `rows`, as the `penalties` of each say.

    First repetition as Hugging Face defines it (a positive logit is divided, a negative one multiplied), then OpenAI's
    presence and frequency (subtracted), then the bias (added), then what is ruled out.
    """
    where = upload(rows, logits.device)
    row, ids, counts = _joined([p.seen for p in penalties], logits.device)
    if len(row):
        each = [p.sampling for p in penalties]
        repetition = upload([s.repetition_penalty for s in each], logits.device)[row]
        frequency = upload([s.frequency_penalty for s in each], logits.device)[row]
        presence = upload([s.presence_penalty for s in each], logits.device)[row]
        value = logits[where[row], ids]
        value = torch.where(value < 0, value * repetition, value / repetition)
        logits[where[row], ids] = value - counts * frequency - (counts > 0) * presence
    row, ids, bias = _joined([p.bias for p in penalties], logits.device)
    logits[where[row], ids] += bias
    row, ids, _ = _joined([(p.ruled_out, p.ruled_out) for p in penalties], logits.device)
    logits[where[row], ids] = -torch.inf


def allow(logits: Tensor, rows: Sequence[int], masks: Sequence[Tensor]) -> None:
    """Rule out at `rows` of `logits`, in place, every token whose bit is 0 in the row's mask: int32, of 32 tokens each,
    the lowest bit first, as grammar libraries make them. Tokens past a mask's end are ruled out too."""
    packed = upload(torch.stack(list(masks)), logits.device)
    bits = (packed[:, :, None] >> torch.arange(32, dtype=torch.int32, device=logits.device)) & 1
    allowed = torch.zeros(len(rows), logits.shape[-1], dtype=torch.bool, device=logits.device)
    known = min(bits[0].numel(), logits.shape[-1])
    allowed[:, :known] = bits.flatten(1)[:, :known].bool()
    where = upload(rows, logits.device)
    logits[where] = logits[where].masked_fill(~allowed, -torch.inf)


def _joined(pairs: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs one after the other, each entry with the index of its pair."""
    sizes = torch.tensor([len(ids) for ids, _ in pairs])
    row = torch.repeat_interleave(torch.arange(len(pairs)), sizes)
    ids, values = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
    return upload(row, device), upload(ids, device), upload(values, device)
