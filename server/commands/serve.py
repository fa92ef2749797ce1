"""`parrot serve`: its flags, which are the strongest of what says how to serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from semantic_parrot.server.commands.configured import read

if TYPE_CHECKING:
    from semantic_parrot.core.config import RaySection, RemoteSection

Kernels = Literal["auto", "torch", "c", "triton"]
LogFormat = Literal["text", "json"]


def serve(
    config: Annotated[
        Path | None, typer.Option(help="A TOML file; the environment (PARROT_SERVE_PORT, …) and flags win over it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model directory; the built-in demo model if left out.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8765; 0 takes a free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="What the server keeps; ~/.local/share/parrot.")] = None,
    api_keys: Annotated[bool | None, typer.Option(help="Ask for them; not on loopback, and always elsewhere.")] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(min=0, help="How long open requests may take after SIGTERM; 30.")
    ] = None,
    journal: Annotated[
        str | None, typer.Option(help="Of durable runs: a database URL, or memory; a file in the data directory.")
    ] = None,
    engines: Annotated[
        int | None, typer.Option(min=1, help="Engine processes of our own; 1, or none if there are remote ones.")
    ] = None,
    remote: Annotated[
        list[str] | None,
        typer.Option(help="An engine elsewhere, as vllm=http://127.0.0.1:8000/v1; may be repeated."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="A Ray cluster, of which this machine is a node, to run our engines in: auto, or HOST:PORT."),
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(metavar="N|MIN..MAX", help="How many there, by the load between two; 1.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="1: there is one server process; engines are processes of their own.")
    ] = 1,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic/--no-deterministic", help="Logits independent of the batch; no.")
    ] = None,
    kv_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of KV cache in each engine.")] = None,
    kv_offload_tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens of evicted KV kept in a temporary file; 0: none.")
    ] = None,
    prefix_cache: Annotated[bool | None, typer.Option(help="Share the KV of common prefixes; yes.")] = None,
    kernels: Annotated[
        Kernels | None,
        typer.Option(help="Torch's, ours in C for CPUs, or Triton's (on a CPU interpreted, for tests); auto."),
    ] = None,
    single_flight: Annotated[bool | None, typer.Option(help="Run identical greedy calls once; yes.")] = None,
    disable: Annotated[list[str] | None, typer.Option(help="An optimisation to do without; may be repeated.")] = None,
    enable: Annotated[
        list[str] | None, typer.Option(help="One that an engine must be able to do; may be repeated.")
    ] = None,
    tpot: Annotated[float | None, typer.Option(min=0, help="Milliseconds per token that latency calls keep.")] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="Of standard error: text, or json with a line for each run and call; text.")
    ] = None,
    log_prompts: Annotated[
        bool | None, typer.Option("--log-prompts/--no-log-prompts", help="Log what clients send and get, too; no.")
    ] = None,
    dev: Annotated[bool, typer.Option("--dev", help="Serve POST /reset_prefix_cache, for measurements.")] = False,
    announce: Annotated[bool, typer.Option("--announce", help="Print one JSON line on stdout when ready.")] = False,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="Stop when standard input ends.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print what would be served, as such a file, and end.")
    ] = False,
) -> None:
    """Serve a model: programs on /v1/runs, OpenAI's routes beside it."""
    from semantic_parrot.server.options import as_toml, merge
    from semantic_parrot.server.serve import serve as run

    if workers > 1:
        why = "one process owns all runs, sessions and queues"
        typer.echo(f"parrot: --workers {workers}: {why}; for more cores: --engines {workers}", err=True)
        raise typer.Exit(2)
    flags = {
        "model": model,
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "api_keys": api_keys,
        "drain_seconds": drain_seconds,
        "journal": journal,
        "engines": engines,
        "elsewhere": _elsewhere(remote, ray, replicas),
        "deterministic": deterministic,
        "kv_tokens": kv_tokens,
        "kv_offload_tokens": kv_offload_tokens,
        "prefix_cache": prefix_cache,
        "kernels": kernels,
        "tpot": None if tpot is None else tpot / 1e3,
        "log_format": log_format,
        "log_prompts": log_prompts,
        "dev": dev,
        "announce": announce,
        "exit_with_parent": exit_with_parent,
    }
    on, off = set(enable or ()), set(disable or ())
    if single_flight is not None:
        (on if single_flight else off).add("single-flight")
    options = merge(read(config), flags, on, off)
    if print_config:
        typer.echo(as_toml(options), nl=False)
        raise typer.Exit
    raise typer.Exit(run(options))


def _elsewhere(
    remote: list[str] | None, ray: str | None, replicas: str | None
) -> dict[str, RemoteSection | RaySection] | None:
    from semantic_parrot.core.config import ConfigError
    from semantic_parrot.server.options import ray_of, remotes_of

    try:
        return {**remotes_of(remote or ()), **ray_of(ray, replicas)} or None
    except ConfigError as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(2) from None
