"""The options of `parrot serve`, wherever they were set: defaults, configuration file, environment, flags; the later
wins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from semantic_parrot.core.config import Config, ConfigError, EngineElsewhere, PriceSection, RaySection, RemoteSection
from semantic_parrot.core.model import Value
from semantic_parrot.core.public import PublicPrefix
from semantic_parrot.core.tenants import Terms
from semantic_parrot.core.usage import Price

#: What the server keeps is here, unless it is told another place.
DATA_DIR = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "parrot"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`data_dir` None: `DATA_DIR`. `api_keys` None: they are asked for unless the server listens on loopback alone.
    `journal`, `drain_seconds`, `keep_…`: as in the configuration. `model` None: the built-in demo model.
    `kv_tokens`, `kv_offload_tokens` None: the engine's choice. `kernels`: the NativeEngine's. `disable`, `enable`,
    `tpot` and `prices` are the Runtime's. `engines`: of our own, on this machine; one unless there are others:
    `elsewhere`, by name."""

    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    data_dir: str | None = None
    journal: str | None = None
    drain_seconds: float = 30.0
    keep_days: float = 7.0
    keep_runs: int = 10_000
    log_format: str = "text"
    log_prompts: bool = False
    api_keys: bool | None = None
    engines: int | None = None
    deterministic: bool = False
    kv_tokens: int | None = None
    kv_offload_tokens: int | None = None
    prefix_cache: bool = True
    kernels: str = "auto"
    disable: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    tpot: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    elsewhere: Mapping[str, EngineElsewhere] = field(default_factory=dict)
    public: tuple[PublicPrefix, ...] = ()
    terms: Terms = field(default_factory=Terms)
    dev: bool = False
    announce: bool = False
    exit_with_parent: bool = False

    @property
    def data(self) -> Path:
        """The data directory; it need not be there yet."""
        return DATA_DIR if self.data_dir is None else Path(self.data_dir)

    @property
    def journal_url(self) -> str:
        """SQLAlchemy's. Servers that were told no directory share one, so there each port has a journal of its own; one
        that takes any free port would never find it again."""
        if self.journal is not None:
            return "sqlite:///:memory:" if self.journal == "memory" else self.journal
        if self.data_dir is None and self.port == 0:
            return "sqlite:///:memory:"
        name = "journal.db" if self.data_dir is not None else f"journal-{self.port}.db"
        return f"sqlite:///{self.data.absolute() / name}"

    @property
    def natives(self) -> int:
        """Engines of our own to start on this machine. Of a `model` and a Ray cluster, the cluster has the model."""
        if self.engines is not None:
            return self.engines
        clustered = any(section.kind == "ray" for section in self.elsewhere.values())
        return 0 if clustered or (self.elsewhere and self.model is None) else 1


def remotes_of(flags: Sequence[str]) -> dict[str, RemoteSection]:
    """Engines as the command line names them, kind=URL each. Raises ConfigError."""
    found = {}
    for index, flag in enumerate(flags):
        kind, _, url = flag.partition("=")
        try:
            found[f"remote-{index}"] = RemoteSection.model_validate({"kind": kind, "url": url})
        except ValidationError as error:
            kinds = ", ".join(get_args(RemoteSection.model_fields["kind"].annotation))
            fault = error.errors(include_url=False)[0]["msg"]
            message = (
                f"--remote {flag}: {fault}; it is KIND=URL, as in vllm=http://127.0.0.1:8000/v1, KIND one of {kinds}"
            )
            raise ConfigError(message) from None
    return found


def ray_of(address: str | None, replicas: str | None) -> dict[str, RaySection]:
    """The engine of --ray and --replicas. Raises ConfigError."""
    if address is None:
        if replicas is not None:
            raise ConfigError("--replicas is of --ray ADDRESS; engine processes on this machine: --engines")
        return {}
    try:
        section = RaySection.model_validate({"kind": "ray", "address": address, "replicas": replicas or 1})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(f"--ray {address} --replicas {replicas}: {fault}; it is N, or MIN..MAX") from None
    return {"ray": section}


def merge(file: Config, flags: Mapping[str, Any], enable: Set[str], disable: Set[str]) -> ServeOptions:
    """`flags` by field of ServeOptions, None where they were not given; `enable` and `disable` win name by name."""
    journal = {"journal" if key == "url" else key: value for key, value in dict(file.journal).items()}
    stated = {**dict(file.server), **dict(file.engine), **journal, "elsewhere": file.engines}
    stated |= {k: v for k, v in flags.items() if v is not None}
    if stated.get("tpot") is None and file.scheduling.tpot_ms is not None:
        stated["tpot"] = file.scheduling.tpot_ms / 1e3
    return replace(
        ServeOptions(),
        **{name: value for name, value in stated.items() if value is not None},
        enable=frozenset({*file.scheduling.enable} - disable | enable),
        disable=frozenset({*file.scheduling.disable} - enable | disable),
        prices={name: section.price() for name, section in file.prices.items()},
        public=tuple(file.public_prefixes),
        terms=Terms(file.limits, file.tenant_defaults, file.tenants),
    )


def as_toml(options: ServeOptions) -> str:
    """A configuration file that says the same, but for what no file can say. Every key is in it; one that the server
    chooses for itself is a comment."""
    stated = {
        "tpot_ms": None if options.tpot is None else options.tpot * 1e3,
        "disable": sorted(options.disable),
        "enable": sorted(options.enable),
        "url": options.journal,
    }
    lines: list[str] = []
    for section in ("server", "engine", "scheduling", "journal"):
        lines.append(f"[{section}]")
        for key in type(getattr(Config(), section)).model_fields:
            value = stated[key] if key in stated else getattr(options, key)
            lines.append(f"# {key}: not set" if value is None else f"{key} = {_toml(value)}")
    for model, price in options.prices.items():
        lines.append(f"[prices.{_toml(model)}]")
        lines += [f"{key} = {_toml(getattr(price, key))}" for key in PriceSection.model_fields]
    for name, remote in options.elsewhere.items():
        lines.append(f"[engines.{_toml(name)}]")
        lines += [f"{key} = {_toml(value)}" for key, value in remote.model_dump(exclude_none=True).items()]
    for prefix in options.public:
        lines.append("[[public_prefixes]]")
        lines += [f"{key} = {_toml(value)}" for key, value in prefix.model_dump(exclude_none=True).items()]
    terms = options.terms
    sections: dict[str, Value] = {"limits": terms.limits, "tenant_defaults": terms.defaults}
    for title, one in (sections | {f"tenants.{_toml(name)}": one for name, one in terms.tenants.items()}).items():
        lines.append(f"[{title}]")
        lines += [f"{key} = {_toml(value)}" for key, value in one.model_dump(exclude_none=True).items()]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """TOML writes texts, numbers and truth values as JSON does, but for one character. What is null is left out."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_toml(key)} = {_toml(member)}" for key, member in value.items() if member is not None)
        return f"{{{', '.join(pairs)}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
