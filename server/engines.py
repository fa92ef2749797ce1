"""The engines of `parrot serve`, as its options have them; none is started here."""

from __future__ import annotations

import os
from pathlib import Path

from semantic_parrot.core.config import ConfigError, RemoteSection
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


def all_engines(options: ServeOptions) -> list[Engine]:
    """Our own first. Raises ConfigError."""
    return [*native_engines(options), *(_remote(name, section) for name, section in options.remotes.items())]
