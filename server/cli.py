"""The command line. What a command needs is imported when it runs, so that --help answers at once."""

from __future__ import annotations

import typer

from semantic_parrot.server.commands import keys, others, runs, serve

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


app.command()(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(runs.app, name="runs")
for command in (others.doctor, others.demo, others.explain, others.simulate):
    app.command()(command)
app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)(others.bench)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
