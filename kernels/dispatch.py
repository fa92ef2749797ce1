"""Which kernel serves which device: one table."""

from __future__ import annotations

from semantic_parrot.kernels import deterministic_attention, torch_attention
from semantic_parrot.kernels.paging import Planner


def paged_attention(device: str, *, deterministic: bool) -> Planner:
    """The planner of paged attention on a torch device type ("cpu", "cuda" …)."""
    table: dict[tuple[str, bool], Planner] = {
        ("cpu", True): deterministic_attention.plan,
        ("cpu", False): torch_attention.plan,
    }
    # The reference runs anywhere; a device without a kernel of its own gets it.
    return table.get((device, deterministic), table["cpu", deterministic])
