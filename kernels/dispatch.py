"""Which kernel attends: one table by kernels, device and mode, and what one does not take goes to torch, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from semantic_parrot.kernels import c_attention, deterministic_attention, torch_attention, torch_tree, worth
from semantic_parrot.kernels.c_library import compiled
from semantic_parrot.kernels.paging import Plan, Planner, Scores, Segment

if TYPE_CHECKING:
    from semantic_parrot.kernels.triton_attention import How

logger = logging.getLogger(__name__)


def paged_attention(kernels: str, device: torch.device, *, deterministic: bool, group: int = 1) -> Planner:
    """The planner of paged attention with `kernels`, "torch", "c" or "triton", on a device, for a model with `group`
    query heads to a KV head. For "triton", `triton_setup.prepare` comes first; for "c", `c_library.compiled` can be
    had."""
    # The references run anywhere; a device without a kernel of its own gets them.
    reference = deterministic_attention.plan if deterministic else torch_attention.plan

    def tree() -> Planner:
        return partial(torch_tree.plan, worth=worth.read("torch", "cpu", group=group))

    table: dict[tuple[str, str, bool], Callable[[], Planner]] = {
        ("torch", "cpu", False): tree,
        ("c", "cpu", False): lambda: partial(c_attention.plan, kernels=compiled(), other=tree()),
        ("triton", device.type, False): lambda: _triton(device, reference, deterministic=False),
        ("triton", device.type, True): lambda: _triton(device, reference, deterministic=True),
    }
    return table.get((kernels, device.type, deterministic), lambda: reference)()


def device_name(device: torch.device) -> str:
    """By which name `worth.json` knows a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def triton_how(device: torch.device, *, deterministic: bool) -> How:
    """What is shared and how it is cut, for the Triton kernels on a device."""
    from semantic_parrot.kernels import triton_attention

    if deterministic:
        return triton_attention.DETERMINISTIC
    return triton_attention.How(worth=worth.read("triton", device_name(device)))


def _triton(device: torch.device, reference: Planner, *, deterministic: bool) -> Planner:
    from semantic_parrot.kernels import triton_attention

    how = triton_how(device, deterministic=deterministic)
    said: set[str] = set()

    def planner(segments: Sequence[Segment], rows: int, block_size: int, device: torch.device) -> Plan:
        plan = triton_attention.plan(segments, rows, block_size, device, how=how)
        return Guarded(plan, lambda: reference(segments, rows, block_size, device), said)

    return planner


@dataclass(frozen=True)
class Guarded:
    """`plan` for the layers that it takes, and what `other` gives for those that it does not; `said`: the reasons that
    the log has been told."""

    plan: Plan
    other: Callable[[], Plan]
    said: set[str]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, scores: Scores
    ) -> Tensor:
        from semantic_parrot.kernels.triton_attention import refuses

        why = refuses(query.shape[1], key.shape[1], query.shape[3], key_cache.dtype, scores.window)
        if why is not None and why not in self.said:
            self.said.add(why)
            logger.warning("the Triton kernels of attention do not take %s: torch computes it", why)
        plan = self.plan if why is None else self._other
        return plan.attend(query, key, value, key_cache, value_cache, scores)

    @cached_property
    def _other(self) -> Plan:
        return self.other()
