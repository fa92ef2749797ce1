"""The configuration file of `parrot serve`: what the flags say, and what is too long for one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, StringConstraints, Tag, ValidationError, field_validator

from semantic_parrot.core.model import Value
from semantic_parrot.core.public import PublicPrefix
from semantic_parrot.core.tenants import LimitsSection, TenantSection
from semantic_parrot.core.usage import Price

Finite = Field(ge=0, allow_inf_nan=False)
#: Of replicas: N, or MIN..MAX.
RANGE = r"^[0-9]{1,5}(\.\.[0-9]{1,5})?$"


class ConfigError(ValueError):
    """What is configured can't be had. The message is one line."""


class ServerSection(Value):
    """`data_dir`: a directory, from where the server is started. `api_keys`: whether they are asked for. `log_prompts`:
    whether what clients send, and what they get, may stand in the log. `drain_seconds`: that open requests have after
    SIGTERM."""

    host: str | None = None
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    data_dir: str | None = None
    drain_seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] | None = None
    api_keys: bool | None = None
    log_format: Literal["text", "json"] | None = None
    log_prompts: bool | None = None


class EngineSection(Value):
    """`model`: a directory, from where the server is started."""

    model: str | None = None
    engines: Annotated[int, Field(ge=1)] | None = None
    deterministic: bool | None = None
    kv_tokens: Annotated[int, Field(ge=1)] | None = None
    kv_offload_tokens: Annotated[int, Field(ge=0)] | None = None
    prefix_cache: bool | None = None
    kernels: Literal["auto", "torch", "c", "triton"] | None = None


class SchedulingSection(Value):
    """`disable`, `enable`: names of optimisations. `tpot_ms`: milliseconds per token that latency calls keep."""

    disable: list[str] = Field(default=[])
    enable: list[str] = Field(default=[])
    tpot_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class JournalSection(Value):
    """`url`: of a database, or "memory". How long runs that have ended are kept: `keep_days`, and as one of so many
    `keep_runs`."""

    url: str | None = None
    keep_days: Annotated[float, Field(ge=0, le=36500, allow_inf_nan=False)] | None = None
    keep_runs: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None


class PriceSection(Value):
    """Of 10^6 tokens; `cached` ones cost what others do, unless it is said."""

    prompt: Annotated[float, Finite]
    completion: Annotated[float, Finite]
    cached: Annotated[float, Finite] | None = None

    def price(self) -> Price:
        return Price(self.prompt, self.prompt if self.cached is None else self.cached, self.completion)


class RemoteSection(Value):
    """An engine behind OpenAI's routes: see RemoteEngine. `key_env`: the environment variable that holds its key."""

    kind: Literal["openai", "parrot", "vllm", "sglang", "llama.cpp", "transformers", "ollama"]  # or one of SPECIAL
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^/]+")]
    model: str | None = None
    names: list[Annotated[str, StringConstraints(min_length=1)]] = Field(default=[])
    window: Annotated[int, Field(ge=1)] = 64
    context: Annotated[int, Field(ge=1)] | None = None
    priority: bool = False
    key_env: str | None = None
    idle_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0


class RaySection(Value):
    """Replicas of our own engine in a Ray cluster: see RayPool. `replicas`: so many, or "MIN..MAX". `num_cpus`,
    `num_gpus`, `resources`: of each, as Ray counts them. `model`: a directory, the same on every node; what [engine]
    says, if left out."""

    kind: Literal["ray"]
    address: Annotated[str, StringConstraints(min_length=1)] = "auto"
    replicas: Annotated[int, Field(ge=1, le=10_000)] | Annotated[str, StringConstraints(pattern=RANGE)] = 1
    model: str | None = None
    names: list[Annotated[str, StringConstraints(min_length=1)]] = Field(default=[])
    num_cpus: Annotated[float, Finite] = 1.0
    num_gpus: Annotated[float, Finite] = 0.0
    resources: dict[str, Annotated[float, Finite]] = Field(default={})
    window: Annotated[int, Field(ge=1)] = 64
    scale_down_seconds: Annotated[float, Finite] = 60.0

    @field_validator("replicas")
    @classmethod
    def _in_order(cls, value: int | str) -> int | str:
        least, most = bounds(value)
        if not 1 <= least <= most <= 10_000:
            raise ValueError("from 1 to 10000, the lower one first")
        return value


def bounds(replicas: int | str) -> tuple[int, int]:
    """(at least, at most) so many, of what RaySection's `replicas` says."""
    if isinstance(replicas, int):
        return replicas, replicas
    least, _, most = replicas.partition("..")
    return int(least), int(most or least)


class OpenVinoSection(Value):
    """OpenVINO in a process here: see OpenVinoEngine. `model`: a directory, from where the server is started. `window`:
    sequences that it runs together."""

    kind: Literal["openvino"]
    model: Annotated[str, StringConstraints(min_length=1)]
    names: list[Annotated[str, StringConstraints(min_length=1)]] = Field(default=[])
    window: Annotated[int, Field(ge=1)] = 64
    threads: Annotated[int, Field(ge=1)] | None = None
    kv_tokens: Annotated[int, Field(ge=1)] | None = None
    prefix_cache: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"


#: Engines beside our own whose sections are like no other's, by kind.
SPECIAL: Mapping[str, type[Value]] = {"ray": RaySection, "openvino": OpenVinoSection}
KINDS = (*get_args(RemoteSection.model_fields["kind"].annotation), *SPECIAL)


def _kind(section: Any) -> str:
    kind = str(section.get("kind") if isinstance(section, dict) else getattr(section, "kind", None))
    return kind if kind in SPECIAL else "remote"


#: An engine beside our own: which it is, its kind says.
EngineElsewhere = Annotated[
    Annotated[RemoteSection, Tag("remote")]
    | Annotated[RaySection, Tag("ray")]
    | Annotated[OpenVinoSection, Tag("openvino")],
    Discriminator(_kind),
]


class Config(Value):
    """`prices` by model, under any name that requests may use for it; `engines` by the engine's name."""

    server: ServerSection = ServerSection()
    engine: EngineSection = EngineSection()
    scheduling: SchedulingSection = SchedulingSection()
    journal: JournalSection = JournalSection()
    prices: dict[str, PriceSection] = Field(default={})
    engines: dict[str, EngineElsewhere] = Field(default={})
    public_prefixes: list[PublicPrefix] = Field(default=[])
    limits: LimitsSection = LimitsSection()
    tenant_defaults: TenantSection = TenantSection()
    tenants: dict[str, TenantSection] = Field(default={})


#: Sections of which there are several, by name or one after the other.
NAMED: Mapping[str, type[Value]] = {
    "prices": PriceSection,
    "engines": RemoteSection,
    "public_prefixes": PublicPrefix,
    "tenants": TenantSection,
}


def read_config(path: Path) -> Config:
    """Raises ConfigError, in one line that names the file, the line and the place in it."""
    try:
        text = path.read_text("utf-8")
        return Config.model_validate(tomllib.loads(text))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{path}:{_first_fault(error, text)}") from None


def _first_fault(error: ValidationError, text: str) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    said = "Input should be a table" if fault["type"] in ("model_type", "dict_type") else fault["msg"]
    where, named = fault["loc"], NAMED.get(str(fault["loc"][0]))
    if where[0] == "engines" and len(where) > 2:  # the third says as which kind it was read
        named = SPECIAL.get(str(where[2]), RemoteSection)
        where = (*where[:2], *(part for part in where[3:] if not str(part).startswith("constrained-")))
    line = _line(text, where)
    place = [str(part) for part in where]
    depth = 1 if named is None else 2
    section = f"[{place[0]}]"
    if len(place) > 1 and named is not None:
        section = f'[{place[0]}."{place[1]}"]' if isinstance(where[1], str) else f"[[{place[0]}]]"
    key = ".".join(place[depth:])
    if fault["type"] != "extra_forbidden":
        if where[0] == "engines" and key == "kind":  # it was read as one of RemoteSection's
            return f"{line}: {section} kind: Input should be one of {', '.join(map(repr, KINDS))}"
        return f"{line}: {section} {key}: {said}" if key else f"{line}: {section}: {said}"
    if not key:
        return f"{line}: no section or key {place[0]!r}; there is: {', '.join(Config.model_fields)}"
    known: Any = named or Config.model_fields[place[0]].annotation
    return f"{line}: {section} has no key {key!r}; it may have: {', '.join(known.model_fields)}"


def _line(text: str, place: Sequence[str | int]) -> int:
    """Where what stands at `place` is whole; of a key that is missing, where its section begins. The parser does not
    say: it is the first beginning of the text that has it."""
    lines, deepest, found = text.splitlines(), 0, 1
    for count in range(1, len(lines) + 1):
        try:
            value: Any = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value
        depth = 0
        while depth < len(place) and _has(value, place[depth]):
            value, depth = value[place[depth]], depth + 1
        if depth > deepest:
            deepest, found = depth, count
    return found


def _has(value: object, key: str | int) -> bool:
    return key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))
