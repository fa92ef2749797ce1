"""A device that is not there: tensors that say they are on it, hold their numbers on the CPU, and compute them there.

What would make the host wait for a GPU is noted: reading a number, a shape that depends on numbers, and each copy
between the two that is not asynchronous from or to pinned memory. So the engine can be run as on a GPU, and what it
asks the device be counted. The name of the device is "meta", which every build of torch knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from semantic_parrot.core.engine.kv import PagedCache
from semantic_parrot.core.engine.static_decode import StaticDecode
from semantic_parrot.kernels import dispatch, merge_parts, rms_norm, rope, silu_mul, store_kv, tile_attention, transfer

DEVICE = torch.device("meta")
_ASKS = {
    f"aten::{name}"
    for name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "bincount")
}
_COPIES = {"aten::_to_copy", "aten::copy_"}


class OnDevice(torch.Tensor):
    """`held`: its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of a PretendDevice")


class PretendDevice(TorchDispatchMode):
    """`waits`: what made the host wait, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._pinned: dict[int, torch.Tensor] = {}  # by where their memory begins

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        with self:
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
        name = func.name().partition(".")[0]
        if name == "aten::is_pinned":
            return _memory(args[0]) in self._pinned
        if name == "aten::_pin_memory" or kwargs.pop("pin_memory", False):
            pinned = args[0].clone() if name == "aten::_pin_memory" else func(*args, **kwargs)
            self._pinned[_memory(pinned)] = pinned
            return pinned
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        here = [x for x in tensors if isinstance(x, OnDevice)]
        away = [x for x in tensors if not isinstance(x, OnDevice)]
        assert all(x.device != DEVICE for x in away), "torch copied numbers of the host to the device, which waits"
        asked = kwargs.get("device")
        if name == "aten::copy_":
            target = isinstance(args[0], OnDevice)
        else:
            target = bool(here) if asked is None else torch.device(asked) == DEVICE
        if here and name in _ASKS:
            self.waits.append(name)
        elif name in _COPIES:
            asynchronous = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2])
            crosses = bool(away) if name == "aten::copy_" and here else bool(here) != target
            if crosses and not (asynchronous and away and _memory(away[0]) in self._pinned):
                self.waits.append(name)
        elif here and any(x.dim() for x in away):
            self.waits.append(f"{name} with a tensor of the host")
        elif name.startswith("aten::index") and any(
            getattr(x, "dtype", None) == torch.bool for x in tree_leaves(args[1])
        ):
            self.waits.append(f"{name} by a mask")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        wrappers = {id(x.held): x for x in here}
        args, kwargs = tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
        found = func(*args, **kwargs)
        if not target:
            return found
        return tree_map_only(torch.Tensor, lambda x: wrappers[id(x)] if id(x) in wrappers else OnDevice(x), found)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def moved(cache: PagedCache) -> PagedCache:
    return PagedCache(tuple(map(OnDevice, cache.keys)), tuple(map(OnDevice, cache.values)))


def take(runner: Any) -> None:
    """Put the model and the cache of a runner on Triton's kernels on the device."""
    for module in runner._model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: OnDevice(x.data) for name, x in tensors.items() if x is not None})
    runner._cache, runner._device = moved(runner._cache), DEVICE
    runner._plan = dispatch.paged_attention("triton", DEVICE, deterministic=False)
    how = dispatch.triton_how(DEVICE, deterministic=False)
    runner._decode = StaticDecode(runner._model, runner._cache, runner._layers, how).run


class _Kernel:
    """Launches a Triton kernel on what tensors hold."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            with _disable_current_modes():
                held = [x.held if isinstance(x, OnDevice) else x for x in args]
                self._kernel[grid](*held, **options)

        return launch


class _Event:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def synchronize(self) -> None:
        self._log.append("read")


@contextmanager
def running(log: list[str]) -> Iterator[None]:
    """Kernels run there, in one stream, and events are noted in `log` when they are waited for."""
    modules = (merge_parts, rms_norm, rope, silu_mul, store_kv, tile_attention)
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "_kernel", _Kernel(module._kernel)))
        stack.enter_context(mock.patch.object(transfer, "stream", return_value=None))
        stack.enter_context(mock.patch.object(transfer, "record", return_value=_Event(log)))
        yield
