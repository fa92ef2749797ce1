"""A step's work on the device: one buffer of int32, in sections of fixed size.

The sizes can be an upper bound, so that a buffer serves one step after another: kernels are launched over all of a
section, and a record of zeros means that there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from semantic_parrot.kernels.merge_parts import MERGE
from semantic_parrot.kernels.tile_attention import ITEM, ROW
from semantic_parrot.kernels.transfer import upload
from semantic_parrot.kernels.work import Work

#: Integers to a record of a section; those not named here are an operation's items.
_WIDTH = {"rows": ROW, "merges": MERGE, "slots": 1, "tables": 1}


def records(work: Work) -> dict[str, list[int]]:
    """The sections of `work`, flat."""
    firsts, slots = work.parts()
    found: dict[str, list[int]] = {
        operation: [*chain.from_iterable((*item, slot) for item, slot in zip(items, firsts[operation], strict=True))]
        for operation, items in work.items.items()
    }
    found["rows"] = [*chain.from_iterable(work.rows)]
    begins = accumulate((len(own) for own in slots), initial=0)
    merged = zip(work.rows, begins, slots, strict=False)
    found["merges"] = [*chain.from_iterable((row.query, begin, len(own)) for row, begin, own in merged if own)]
    found["slots"] = [*chain.from_iterable(slots)]
    found["tables"] = work.tables
    return found


def sizes(sections: Mapping[str, list[int]]) -> dict[str, int]:
    """How many records each section has."""
    return {name: len(flat) // _WIDTH.get(name, ITEM) for name, flat in sections.items()}


@dataclass(frozen=True, slots=True)
class WorkBuffer:
    """`sections`: by name [records, integers of a record], int32; views of `whole`."""

    whole: Tensor
    sections: Mapping[str, Tensor]

    @classmethod
    def allocate(cls, bounds: Mapping[str, int], device: torch.device) -> WorkBuffer:
        """`bounds`: how many records each section holds."""
        lengths = {name: count * _WIDTH.get(name, ITEM) for name, count in bounds.items()}
        whole = torch.zeros(sum(lengths.values()), dtype=torch.int32, device=device)
        views = torch.split(whole, list(lengths.values()))
        shaped = {n: v.view(-1, _WIDTH.get(n, ITEM)) for n, v in zip(lengths, views, strict=True) if len(v)}
        return cls(whole, shaped)

    def fill(self, sections: Mapping[str, list[int]]) -> bool:
        """Put another step's sections in place, in the order of the device's stream; False, and nothing done, where
        one is longer than its bound."""
        if any(
            flat and (n not in self.sections or len(flat) > self.sections[n].numel()) for n, flat in sections.items()
        ):
            return False
        flat: list[int] = []
        for name, view in self.sections.items():
            given = sections.get(name, [])
            flat += given
            flat += [0] * (view.numel() - len(given))
        self.whole.copy_(upload(flat, self.whole.device, torch.int32))
        return True
