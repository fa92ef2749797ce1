"""Between the host and a device, in the order of the device's stream, without waiting for what it has to do before.

A copy from or to memory that is not pinned makes the host wait for all that was launched; torch keeps a pinned piece
until the copy has used it. On a CPU there is nothing to copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def upload(values: Sequence[Any] | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`values`, of the host, on `device`."""
    host = values if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype)
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


class Download:
    """A tensor on its way to the host, as it is now."""

    def __init__(self, values: Tensor) -> None:
        self._event: Any = None
        self._host = values
        if values.device.type != "cpu":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._event = record(values.device)

    def read(self) -> Tensor:
        """Waits until it is there, and for nothing that was launched later."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def record(device: torch.device) -> Any:
    """An event of what was launched until now."""
    event = torch.get_device_module(device).Event()
    event.record()
    return event
