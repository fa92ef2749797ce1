"""The command line. What a command needs is imported when it runs, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from semantic_parrot.core.config import Config, RaySection, RemoteSection

Kernels = Literal["auto", "torch", "c", "triton"]
LogFormat = Literal["text", "json"]

app = typer.Typer(
    name="parrot",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # --port of `parrot serve` is PARROT_SERVE_PORT: stronger than a file, weaker than a flag.
    context_settings={"auto_envvar_prefix": "PARROT"},
)


@app.callback()
def root() -> None:
    """Parrot serves LLM applications: programs of calls joined by Semantic Variables."""


@app.command()
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
        Kernels | None, typer.Option(help="Torch's, or Triton's (on a CPU interpreted, for tests); auto.")
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
    options = merge(_read(config), flags, on, off)
    if print_config:
        typer.echo(as_toml(options), nl=False)
        raise typer.Exit
    raise typer.Exit(run(options))


keys_app = typer.Typer(
    no_args_is_help=True, help="API keys: who may use the server. A server that runs notices at once."
)
app.add_typer(keys_app, name="keys")

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="PARROT_SERVE_DATA_DIR", help="The server's; ~/.local/share/parrot, or what --config says."),
]
ConfigFile = Annotated[Path | None, typer.Option(envvar="PARROT_SERVE_CONFIG", help="The file that the server reads.")]


def _data(data_dir: Path | None, config: Path | None) -> Path:
    from semantic_parrot.server.options import merge

    return merge(_read(config), {"data_dir": data_dir and str(data_dir)}, set(), set()).data


@keys_app.command("add")
def keys_add(
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="The tenant; it may have several keys.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="A key for /metrics and the engines' page, and no tenant's.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, this once: what is kept is its hash."""
    from semantic_parrot.server.tenants import command

    raise typer.Exit(command.add(_data(data_dir, config), tenant, operator=operator))


@keys_app.command("ls")
def keys_ls(
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List the keys, by their ids."""
    from semantic_parrot.server.tenants import command

    raise typer.Exit(command.ls(_data(data_dir, config), as_json=json))


@keys_app.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="The id of a key, or a tenant: all of its keys.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Let a key open nothing any more."""
    from semantic_parrot.server.tenants import command

    raise typer.Exit(command.revoke(_data(data_dir, config), name))


runs_app = typer.Typer(no_args_is_help=True, help="The runs that a server knows.")
app.add_typer(runs_app, name="runs")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.")]
Url = Annotated[str, typer.Option(envvar="PARROT_URL", help="The server.")]
ApiKey = Annotated[str | None, typer.Option(envvar="PARROT_API_KEY", help="If the server asks for one.")]
LOCAL = "http://127.0.0.1:8765"


@runs_app.command("ls")
def runs_ls(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The so many newest.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """List runs, the newest last."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.ls(client.Server(url, api_key), limit, as_json=json))


@runs_app.command("show")
def runs_show(
    run: RunId,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Show what a run has come to."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.show(client.Server(url, api_key), run, as_json=json))


@runs_app.command("cancel")
def runs_cancel(run: RunId, url: Url = LOCAL, api_key: ApiKey = None) -> None:
    """Cancel what is left of a run."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.cancel(client.Server(url, api_key), run))


@runs_app.command("export")
def runs_export(
    run: RunId,
    form: Annotated[
        Literal["json", "events", "perfetto"],
        typer.Option("--format", help="Its result, its events (JSON lines, to its end), or a trace for Perfetto."),
    ] = "json",
    out: Annotated[Path | None, typer.Option(help="A file; standard output if left out.")] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Write down a run."""
    from semantic_parrot.server.runs_cli import client, command

    raise typer.Exit(command.export(client.Server(url, api_key), run, form, out))


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option(help="The file that the server is to read.")] = None,
    model: Annotated[str | None, typer.Option(help="Model directory; the built-in demo model if left out.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8765.")] = None,
    host: Annotated[str | None, typer.Option(help="127.0.0.1.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Look at the packages, the machine, the model and the address, and say what to do about what is missing."""
    from semantic_parrot.server.doctor.command import doctor as run
    from semantic_parrot.server.options import merge

    raise typer.Exit(
        run(merge(_read(config), {"model": model, "port": port, "host": host}, set(), set()), as_json=json)
    )


@app.command()
def demo(
    file: Annotated[Path | None, typer.Argument(help="A text; a day of the demo model's world if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="Model directory; the built-in demo model if left out.")] = None,
    rtt: Annotated[float, typer.Option(min=0, help="Network round trip to put in between, in milliseconds.")] = 0.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each way; the median is shown.")] = 3,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 200,
    report: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("report.html"),
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON and nothing else.")] = False,
) -> None:
    """Run a LangChain map-reduce and a chain over a text, eagerly and lowered, and show what each took."""
    try:
        from semantic_parrot.server.demo.command import DemoOptions
        from semantic_parrot.server.demo.command import demo as run
    except ModuleNotFoundError as error:
        typer.echo(f"parrot: the demo needs {error.name}: pip install 'semantic-parrot[all]'", err=True)
        raise typer.Exit(2) from None

    options = DemoOptions(
        file=file, model=model, rtt=rtt, repeats=repeats, max_tokens=max_tokens, report=report, as_json=json
    )
    raise typer.Exit(run(options))


@app.command()
def explain(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A run's id, a file with a program, or a LangChain chain as module:name; else the latest run."
        ),
    ] = None,
    input: Annotated[str | None, typer.Option("--input", help="What the chain is given, as JSON; {}.")] = None,
    url: Annotated[str, typer.Option(help="The server that knows the run.")] = "http://127.0.0.1:8765",
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the graph as a Mermaid flowchart.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report of a run, or of a chain, to this file.")] = None,
) -> None:
    """Say what a run did and why, what the server would make of a program, or what planning makes of a chain."""
    from semantic_parrot.server.explain.command import ExplainOptions
    from semantic_parrot.server.explain.command import explain as run

    raise typer.Exit(run(ExplainOptions(what=what, input=input, url=url, as_json=json, as_mermaid=mermaid, html=html)))


@app.command()
def simulate(
    workload: Annotated[str, typer.Option(help="W1 to W7, tenants, or a file of programs (JSON lines).")] = "W2",
    engines: Annotated[int, typer.Option(min=1, help="Modelled engines.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the generated workload.")] = 0,
    calls: Annotated[int, typer.Option(min=1, help="Calls that arrive, at least; their programs are finished.")] = 1000,
    rate: Annotated[float, typer.Option(min=1e-6, help="Arrivals, as a multiple of the workload's own.")] = 1.0,
    load: Annotated[float | None, typer.Option(min=1e-6, help="Or as a part of what the engines can do.")] = None,
    costs: Annotated[str, typer.Option(help="What engines take: default, gpu, cpu, or a JSON file.")] = "default",
    cache: Annotated[int | None, typer.Option(min=0, help="Prompt tokens that stay in an engine after use.")] = None,
    tpot: Annotated[float | None, typer.Option(min=0, help="Milliseconds per token that latency calls keep.")] = None,
    disable: Annotated[list[str] | None, typer.Option(help="An optimisation to do without; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Run the analysis and the scheduler against modelled engines, on a virtual clock."""
    from semantic_parrot.core.simulator import simulate as run
    from semantic_parrot.core.simulator.report import as_text

    try:
        found = run(
            workload,
            engines=engines,
            seed=seed,
            calls=calls,
            rate=rate,
            at_load=load,
            costs=costs,
            cache=cache,
            tpot=None if tpot is None else tpot / 1e3,
            disable=frozenset(disable or ()),
        )
    except ValueError as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(as_text(found, machine=json))


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
def bench(context: typer.Context) -> None:
    """Run the project's workloads beside other servers (`parrot bench --help`); in a checkout of the repository."""
    import os
    import sys

    # Not in the wheel: they are a user's to read and to change, and need what a server does not.
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "bench.py"
    if not script.exists():
        typer.echo(
            "parrot: the benchmarks are in the repository: clone it, `make setup`, .venv/bin/parrot bench", err=True
        )
        raise typer.Exit(2)
    os.execv(sys.executable, [sys.executable, str(script), *context.args])


def _read(config: Path | None) -> Config:
    """The configuration file, if there is one; its first mistake ends the command."""
    from semantic_parrot.core.config import Config, ConfigError, read_config

    try:
        return Config() if config is None else read_config(config)
    except ConfigError as error:
        typer.echo(f"parrot: {error}", err=True)
        raise typer.Exit(2) from None


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


def main() -> None:
    app()


if __name__ == "__main__":
    main()
