"""Between the host and a device, in the order of the device's stream, without waiting for what it has to do before.

A copy from or to memory that is not pinned makes the host wait for all that was launched; torch keeps a pinned piece
until the copy has used it. On a CPU there is nothing to copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor


def upload(values: Sequence[Any] | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`values`, of the host, on `device`."""
    host = torch.as_tensor(values, dtype=dtype)
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


class Side:
    """A stream of copies beside the device's own; on a CPU there is none, and what is asked is done at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = stream(device)

    @contextmanager
    def after(self, *given: Tensor) -> Iterator[None]:
        """What is asked within comes after all that was launched until now; it uses `given`, of the device's stream."""
        if self._stream is not None:
            self._stream.wait_stream(self._current())
        with self.before():
            yield
        if self._stream is not None:
            for tensor in given:
                tensor.record_stream(self._stream)

    @contextmanager
    def before(self) -> Iterator[None]:
        """What is asked within waits for nothing but what was asked so before."""
        with nullcontext() if self._stream is None else torch.get_device_module(self._device).stream(self._stream):
            yield

    def join(self, *made: Tensor) -> None:
        """What is launched from now on comes after all of that; it uses `made`, of this stream."""
        if self._stream is not None:
            self._current().wait_stream(self._stream)
            for tensor in made:
                tensor.record_stream(self._current())

    def _current(self) -> Any:
        return torch.get_device_module(self._device).current_stream(self._device)


def stream(device: torch.device) -> Any:
    return None if device.type == "cpu" else torch.get_device_module(device).Stream(device)


def record(device: torch.device) -> Any:
    """An event of what was launched until now."""
    event = torch.get_device_module(device).Event()
    event.record()
    return event
