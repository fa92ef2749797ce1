"""Decode steps of a Llama-8B-shaped model, its weights made on the GPU: beside the bandwidth, and with a shared prefix.

    python benchmarks/engine_gpu.py [--steps 64] [--repeats 5] [--json FILE]

A step is what the engine launches for decode on Triton's kernels (`static_decode`: the plan made up on the host, copied
over, a CUDA graph replayed) and the greedy tokens, which the next step takes on the device and the host reads one step
late, as the engine's overlap does. Time: of the wall clock, over all steps of a run. Keys and values are random.

- Batch 1: how much of the copy bandwidth of the same run the weights alone take (`share`).
- W3: 64 users over a common prefix of 6,000 tokens, read once a step, and by each row for itself (blocks shared all the
  same: a prefix cache alone), in turn. `ratio`: of their times per token.
- Deterministic mode beside that, at a batch of 16 without a prefix.

Of the first step of each, logits are compared. `waits`: how often the host waited for the device in a step, but for the
tokens. It needs torch, triton and transformers. Without a GPU the shape is small, the kernels are interpreted, and the
table says "not measured".
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import copy_bandwidth
from torch import Tensor

from about import about
from semantic_parrot.kernels import triton_setup
from semantic_parrot.kernels.paging import Segment

BLOCK, OWN = 16, 40
LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
}
SMALL = {
    **LLAMA_8B,
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True)
class Work:
    """`rows` sequences, each with OWN tokens behind a common prefix."""

    rows: int
    prefix: int


def build(shape: dict[str, Any], device: torch.device, dtype: torch.dtype, *, deterministic: bool) -> Any:
    """The fused model; the same weights each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from semantic_parrot.core.engine import attention, fusing

    attention.register()
    config = LlamaConfig(**shape, attn_implementation=attention.NAME, dtype=dtype, max_position_embeddings=8192)
    torch.manual_seed(0)
    with device:
        model = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    fusing.fuse(model, deterministic=deterministic)
    return model


def weight_bytes(model: Any) -> int:
    """What a step reads of them: all but the input embeddings, of which it reads a row."""
    return sum(p.nbytes for name, p in model.named_parameters() if "embed_tokens" not in name)


class Decoding:
    """The state of one way to decode: its cache, block tables and static tensors."""

    def __init__(self, model: Any, work: Work, steps: int, how: Any, device: torch.device) -> None:
        from semantic_parrot.core.engine.kv import LayerShape, PagedCache
        from semantic_parrot.core.engine.static_decode import StaticDecode

        config = model.config
        shared, own = work.prefix // BLOCK, -(-(OWN + steps) // BLOCK)
        layers = [LayerShape(config.num_key_value_heads, config.head_dim)] * config.num_hidden_layers
        cache = PagedCache.allocate(layers, shared + work.rows * own, model.dtype, device)
        torch.manual_seed(1)
        for tensor in cache.tensors:
            tensor.normal_()
        prefix = [*range(1, 1 + shared)]
        self._tables = [[*prefix, *range(1 + shared + i * own, 1 + shared + (i + 1) * own)] for i in range(work.rows)]
        self._work, self._device = work, device
        self._decode = StaticDecode(model, cache, {n: n for n in range(len(layers))}, how).run
        self.first = torch.arange(2, 2 + work.rows, device=device) % config.vocab_size

    @torch.inference_mode()
    def step(self, tokens: Tensor, number: int) -> Tensor:
        """Logits [rows, vocabulary] of the `number`-th token of each, counted from 0."""
        position = self._work.prefix + OWN + number - 1
        segments = [Segment(i, 1, position + 1, table) for i, table in enumerate(self._tables)]
        return self._decode(tokens, [position] * len(segments), segments)

    @torch.inference_mode()
    def run(self, steps: int) -> float:
        """Seconds a step."""
        from semantic_parrot.kernels.transfer import Download

        tokens, read = self.first, None
        _finish(self._device)
        begun = time.perf_counter()
        for number in range(steps):
            tokens = self.step(tokens, number).argmax(-1)
            latest, read = read, Download(tokens)
            if latest is not None:
                latest.read()
        assert read is not None
        read.read()
        return (time.perf_counter() - begun) / steps


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waits(decoding: Decoding, steps: int, device: torch.device) -> float | None:
    """Per step; None where there is no GPU to say so."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            decoding.run(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in said) / steps


def compared(ways: dict[str, Decoding], steps: int, repeats: int) -> dict[str, float]:
    """Median seconds a step of each; they take turns, after a run that does not count."""
    first, *others = [way.step(way.first, 0) for way in ways.values()]
    scale = first.abs().max().item()
    for other in others:
        assert (first - other).abs().max().item() <= 0.1 * scale, "the ways to compute differ"
    took: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            seconds = way.run(steps)
            if repeat:
                took[name].append(seconds)
    return {name: statistics.median(own) for name, own in took.items()}


def measure(device: torch.device, steps: int, repeats: int) -> dict[str, Any]:
    from semantic_parrot.kernels.triton_attention import DETERMINISTIC, UNSHARED, How

    gpu = device.type == "cuda"
    shape, dtype = (LLAMA_8B, torch.bfloat16) if gpu else (SMALL, torch.float32)
    one, many, some = (Work(1, 0), Work(64, 6000), Work(16, 0)) if gpu else (Work(1, 0), Work(3, 32), Work(2, 0))
    sharing = How(worth=lambda rows, tokens: True)
    bandwidth = copy_bandwidth(device, 20 if gpu else 1)
    model = build(shape, device, dtype, deterministic=False)
    size = weight_bytes(model)
    alone = Decoding(model, one, steps, sharing, device)
    batch1 = compared({"step": alone}, steps, repeats)["step"]
    w3 = compared(
        {
            name: Decoding(model, many, steps, how, device)
            for name, how in (("shared", sharing), ("unshared", UNSHARED))
        },
        steps,
        repeats,
    )
    exact = build(shape, device, dtype, deterministic=True)
    modes = {"default": (model, sharing), "deterministic": (exact, DETERMINISTIC)}
    cost = compared({n: Decoding(m, some, steps, how, device) for n, (m, how) in modes.items()}, steps, repeats)
    return {
        "copy_bandwidth": bandwidth,
        "weight_bytes": size,
        "batch_1": {"seconds": batch1, "share": size / bandwidth / batch1, "waits": waits(alone, steps, device)},
        "w3": {"rows": many.rows, "prefix": many.prefix, "seconds": w3, "ratio": w3["unshared"] / w3["shared"]},
        "deterministic": {"rows": some.rows, "seconds": cost, "ratio": cost["deterministic"] / cost["default"]},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    if importlib.util.find_spec("transformers") is None:
        print("not run: benchmarks/engine_gpu.py needs transformers")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    triton_setup.prepare(device)
    found = measure(device, args.steps, args.repeats)
    batch1, w3, cost = found["batch_1"], found["w3"], found["deterministic"]
    print(f"copies {found['copy_bandwidth'] / 1e9:.0f} GB/s, weights {found['weight_bytes'] / 1e9:.2f} GB")
    for what, seconds, said in (
        ("batch 1", batch1["seconds"], f"{batch1['share']:.0%} of the bandwidth, {batch1['waits']} waits"),
        (f"batch {w3['rows']}, prefix {w3['prefix']} shared", w3["seconds"]["shared"], f"{w3['ratio']:.2f} x sooner"),
        (f"batch {cost['rows']}, deterministic", cost["seconds"]["deterministic"], f"{cost['ratio']:.2f} x as long"),
    ):
        print(f"{what:32} {seconds * 1e3:8.2f} ms a step, {said}" if device.type == "cuda" else f"{what}: not measured")
    if args.json:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        args.json.write_text(json.dumps({**about(), "gpu": name, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
