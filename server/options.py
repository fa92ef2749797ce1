"""The options of `parrot serve`, wherever they were set: defaults, configuration file, environment, flags; the later
wins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semantic_parrot.core.config import Config, PriceSection
from semantic_parrot.core.usage import Price

#: What the server keeps is here, unless it is told another place.
DATA_DIR = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "parrot"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`data_dir` None: `DATA_DIR`. `api_keys` None: they are asked for unless the server listens on loopback alone.
    `model` None: the built-in demo model. `kv_tokens`, `kv_offload_tokens` None: the engine's choice. `kernels`: the
    NativeEngine's. `disable`, `enable`, `tpot` and `prices` are the Runtime's."""

    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    log_format: str = "text"
    log_prompts: bool = False
    data_dir: str | None = None
    api_keys: bool | None = None
    engines: int = 1
    deterministic: bool = False
    kv_tokens: int | None = None
    kv_offload_tokens: int | None = None
    prefix_cache: bool = True
    kernels: str = "auto"
    disable: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    tpot: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    dev: bool = False
    announce: bool = False
    exit_with_parent: bool = False

    @property
    def data(self) -> Path:
        """The data directory; it need not be there yet."""
        return DATA_DIR if self.data_dir is None else Path(self.data_dir)


def merge(file: Config, flags: Mapping[str, Any], enable: Set[str], disable: Set[str]) -> ServeOptions:
    """`flags` by field of ServeOptions, None where they were not given; `enable` and `disable` win name by name."""
    stated = {**dict(file.server), **dict(file.engine), **{k: v for k, v in flags.items() if v is not None}}
    if stated.get("tpot") is None and file.scheduling.tpot_ms is not None:
        stated["tpot"] = file.scheduling.tpot_ms / 1e3
    return replace(
        ServeOptions(),
        **{name: value for name, value in stated.items() if value is not None},
        enable=frozenset({*file.scheduling.enable} - disable | enable),
        disable=frozenset({*file.scheduling.disable} - enable | disable),
        prices={name: section.price() for name, section in file.prices.items()},
    )


def as_toml(options: ServeOptions) -> str:
    """A configuration file that says the same, but for what no file can say. Every key is in it; one that the server
    chooses for itself is a comment."""
    stated = {
        "tpot_ms": None if options.tpot is None else options.tpot * 1e3,
        "disable": sorted(options.disable),
        "enable": sorted(options.enable),
    }
    lines: list[str] = []
    for section in ("server", "engine", "scheduling"):
        lines.append(f"[{section}]")
        for key in type(getattr(Config(), section)).model_fields:
            value = stated[key] if key in stated else getattr(options, key)
            lines.append(f"# {key}: not set" if value is None else f"{key} = {_toml(value)}")
    for model, price in options.prices.items():
        lines.append(f"[prices.{_toml(model)}]")
        lines += [f"{key} = {_toml(getattr(price, key))}" for key in PriceSection.model_fields]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A text, a number, a truth value, a list: TOML writes them as JSON does, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
