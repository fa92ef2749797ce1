"""The engines of `parrot serve`, as its options have them; none is started here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from semantic_parrot.core.config import ConfigError, OpenVinoSection, RaySection, RemoteSection, bounds
from semantic_parrot.core.engines.protocol import Engine
from semantic_parrot.server.options import ServeOptions


def model_names(model: str | None) -> tuple[str, tuple[str, ...]]:
    """(directory, what requests may call its model): the directory's name, "default", and the path as given."""
    if model is None:
        from semantic_parrot.core.demo_model import MODEL_DIR

        return str(MODEL_DIR), ("parrot-demo", "default")
    own = Path(model).resolve().name
    return model, tuple(dict.fromkeys((own, "default", model)))


def native_engines(options: ServeOptions) -> list[Engine]:
    if not options.natives:
        return []
    from semantic_parrot.core.engines.native import NativeEngine
    from semantic_parrot.core.engines.threads import default_threads

    directory, names = model_names(options.model)
    return [
        NativeEngine(
            Path(directory),
            names=names,
            deterministic=options.deterministic,
            name=f"native-{i}",
            threads=default_threads(options.natives),
            kv_tokens=options.kv_tokens,
            kv_offload_tokens=options.kv_offload_tokens,
            prefix_cache=options.prefix_cache,
            kernels=options.kernels,
            public=[prefix.request() for prefix in options.public],
        )
        for i in range(options.natives)
    ]


def _remote(name: str, section: RemoteSection) -> Engine:
    from semantic_parrot.core.engines.remote import RemoteEngine

    key = None
    if section.key_env is not None:
        key = os.environ.get(section.key_env)
        if not key:
            raise ConfigError(f"engines.{name}: the environment variable {section.key_env} is not set")
    return RemoteEngine(
        section.url,
        dialect=section.kind,
        model=section.model,
        names=section.names,
        name=name,
        window=section.window,
        context=section.context,
        priority=section.priority,
        key=key,
        idle_seconds=section.idle_seconds,
    )


def _ray(name: str, section: RaySection, options: ServeOptions) -> Sequence[Engine]:
    if find_spec("ray") is None:
        raise ConfigError(f"engines.{name}: Ray is not installed: pip install 'semantic-parrot[ray]'")
    from semantic_parrot.core.engine.messages import Options
    from semantic_parrot.core.engines.ray.messages import Needs
    from semantic_parrot.core.engines.ray.pool import RayPool

    directory, names = model_names(section.model or options.model)
    threads = max(1, int(section.num_cpus))
    pool = RayPool(
        section.address,
        bounds(section.replicas),
        Needs(section.num_cpus, section.num_gpus, section.resources),
        Options(
            model_dir=str(Path(directory).absolute()),
            deterministic=options.deterministic,
            threads=threads,
            kv_tokens=options.kv_tokens,
            kv_offload_tokens=options.kv_offload_tokens,
            max_batch=section.window,
            prefix_cache=options.prefix_cache,
            kernels=options.kernels,
            public=tuple(prefix.request() for prefix in options.public),
        ),
        name=name,
        names=section.names or names,
        scale_down_seconds=section.scale_down_seconds,
    )
    return pool.engines


def _openvino(name: str, section: OpenVinoSection) -> Engine:
    if find_spec("openvino_genai") is None:
        raise ConfigError(f"engines.{name}: OpenVINO is not installed: pip install 'semantic-parrot[engine,openvino]'")
    from semantic_parrot.core.engines.openvino import OpenVinoEngine

    directory, names = model_names(section.model)
    return OpenVinoEngine(
        directory,
        names=section.names or names,
        name=name,
        threads=section.threads,
        kv_tokens=section.kv_tokens,
        max_batch=section.window,
        prefix_cache=section.prefix_cache,
        dtype=section.dtype,
    )


#: Options of engines of our own alone. Others have theirs in their sections, or where they run.
OWN = ("deterministic", "kv_tokens", "kv_offload_tokens", "prefix_cache", "kernels", "public")


def _refuse_unread(options: ServeOptions) -> None:
    """Raises ConfigError for one of OWN where no engine is our own."""
    if options.natives or any(isinstance(section, RaySection) for section in options.elsewhere.values()):
        return
    for name in OWN:
        if getattr(options, name) != getattr(ServeOptions(), name):
            said = {"public": "public_prefixes"}.get(name, name)
            raise ConfigError(f"{said} is for engines of our own, and none is started (--engines starts one)")


def all_engines(options: ServeOptions) -> list[Engine]:
    """Our own first. Raises ConfigError."""
    _refuse_unread(options)
    found = native_engines(options)
    for name, section in options.elsewhere.items():
        if isinstance(section, RaySection):
            found += _ray(name, section, options)
        else:
            found.append(_openvino(name, section) if isinstance(section, OpenVinoSection) else _remote(name, section))
    return found
