"""Which kernel serves which device: one table."""

from __future__ import annotations

from semantic_parrot.kernels import deterministic_attention, torch_attention, torch_tree
from semantic_parrot.kernels.paging import Planner


def paged_attention(device: str, *, deterministic: bool) -> Planner:
    """The planner of paged attention on a torch device type ("cpu", "cuda" …)."""
    # The references run anywhere; a device without a kernel of its own gets them.
    reference = deterministic_attention.plan if deterministic else torch_attention.plan
    table: dict[tuple[str, bool], Planner] = {("cpu", False): torch_tree.plan}
    return table.get((device, deterministic), reference)
