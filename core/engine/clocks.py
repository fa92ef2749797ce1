"""Times in what is said to an engine on another machine, whose time.monotonic() is not ours."""

from __future__ import annotations

from dataclasses import replace

from semantic_parrot.core.engine.messages import Command, Generate, Prefill
from semantic_parrot.core.engines.protocol import Keep


def shifted(command: Command, seconds: float) -> Command:
    """`command` for a process whose clock is so many seconds ahead of ours."""
    if isinstance(command, Generate):
        directions = replace(command.directions, keep=_later(command.directions.keep, seconds))
        return replace(command, arrived=command.arrived + seconds, directions=directions)
    if isinstance(command, Prefill):
        return replace(command, keep=_later(command.keep, seconds))
    return command


def _later(keeps: tuple[Keep, ...], seconds: float) -> tuple[Keep, ...]:
    return tuple(k if k.next_use is None else replace(k, next_use=k.next_use + seconds) for k in keeps)
