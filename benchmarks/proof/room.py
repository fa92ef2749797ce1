"""Whether a scale fits this machine: asked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import FakeListChatModel

from workloads import Workload
from workloads.job import at_once
from workloads.texts import Outline

PROCESS = 1.0 * 2**30  # bytes of a server besides weights and KV: torch and what it loads
BATCH = 64  # calls that an engine of ours runs at once


class TooLarge(ValueError):
    """The message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Tokens: of the longest call, and of KV that the engines get together."""

    window: int
    kv: int


def needs(work: Workload) -> Needs:
    """Never less than what the jobs will ask for."""
    jobs = work.jobs(FakeListChatModel(responses=[""]), Outline(), work.scale, "room")
    sizes = sorted((call.prompt + call.tokens for job in jobs for call in job.calls), reverse=True)
    window = sizes[0] + 64
    held = min(sum(sizes[:BATCH]), sum(at_once(job.calls) for job in jobs))
    return Needs(window, max(window * work.engines, int(held * work.memory)) + 1024)


def kv_bytes(shape: dict[str, Any]) -> int:
    """Of a token, in fp32."""
    head = shape["hidden_size"] // shape["num_attention_heads"]
    return int(shape["num_hidden_layers"] * 2 * shape["num_key_value_heads"] * head * 4)


def weight_bytes(shape: dict[str, Any]) -> int:
    """Of a Llama of this shape, in fp32."""
    hidden, head = shape["hidden_size"], shape["hidden_size"] // shape["num_attention_heads"]
    attention = hidden * head * 2 * (shape["num_attention_heads"] + shape["num_key_value_heads"])
    layer = attention + 3 * hidden * shape["intermediate_size"]
    return int(4 * (shape["num_hidden_layers"] * layer + 2 * shape["vocab_size"] * hidden))


def check(works: Sequence[Workload], shape: dict[str, Any], servers: int, free: int) -> None:
    """`free`: bytes. Raises TooLarge."""
    for work in works:
        need = needs(work)
        if need.window > shape["max_position_embeddings"]:
            most = shape["max_position_embeddings"]
            raise TooLarge(
                f"{work.key} at scale {work.scale:g} has calls of {need.window:,} tokens; the model takes {most:,}"
            )
        each = work.engines * (weight_bytes(shape) + PROCESS) + need.kv * kv_bytes(shape)
        if servers * each > free:
            needed, there = servers * each / 2**30, free / 2**30
            raise TooLarge(
                f"{work.key} at scale {work.scale:g} needs {needed:.1f} GiB for {servers} servers; {there:.1f} GiB are"
                " free: a smaller --scale, or fewer in --against"
            )
