"""What deploy/ names is there: the image and the unit are not built and started in tests."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from live import LocalServer
from scripted import ScriptedEngine

from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server import cli
from semantic_parrot.server.options import ServeOptions
from semantic_parrot.server.serve import SHUTDOWN_SECONDS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONS = set(inspect.signature(cli.serve.serve).parameters)


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile, lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy/Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def of(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "deploy/parrot.service")
    return parser


def test_what_the_image_copies_is_there_and_not_ignored():
    sources = [source for rest in of("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert set(sources) == allowed
    assert all((ROOT / source).exists() for source in sources)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    assert {str(package).split("/")[0] for package in packages} <= set(sources)


def test_what_the_image_installs_and_runs_is_there():
    extras = next(rest.partition("=")[2] for rest in of("ARG") if rest.startswith("EXTRAS="))
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert json.loads(of("ENTRYPOINT")[0])[0] in PROJECT["scripts"]
    (command,) = json.loads(of("CMD")[0])
    assert command in {(c.name or c.callback.__name__) for c in cli.app.registered_commands}
    variables = re.findall(r"PARROT_SERVE_(\w+)=", " ".join(of("ENV")))
    assert len(variables) == 3
    assert {name.lower() for name in variables} <= OPTIONS


def test_the_image_runs_as_nobody_special_and_ends_when_told():
    users = of("USER")
    assert users == ["parrot"]
    assert (
        f"useradd --system --user-group --uid 10001 --home-dir /var/lib/parrot --shell /usr/sbin/nologin {users[0]}"
        in of("RUN")[1]
    )
    assert of("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("up", [True, False])
def test_the_health_check_tells_a_server_that_is_ready(up):
    check = json.loads(of("HEALTHCHECK")[0].partition(" CMD ")[2])
    engine = ScriptedEngine()
    with LocalServer(Runtime([engine])) as server:
        engine.healthy = up
        port = server.base.rpartition(":")[2]
        done = subprocess.run([sys.executable, *check[1:]], env={"PARROT_SERVE_PORT": port}, capture_output=True)
    assert (done.returncode == 0) == up, done.stderr


def test_the_unit_starts_what_there_is():
    command = shlex.split(unit()["Service"]["ExecStart"])
    assert command[1] == "serve"
    flags = [word for word in command if word.startswith("--")]
    assert {flag[2:].replace("-", "_") for flag in flags} <= OPTIONS
    state = unit()["Service"]["StateDirectory"]
    assert command[command.index("--data-dir") + 1] == f"/var/lib/{state}"


def test_the_unit_leaves_time_to_drain_and_does_not_repeat_a_mistake():
    service = unit()["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert service["KillMode"] == "mixed"  # engines are the server's to end
    assert int(service["TimeoutStopSec"]) > ServeOptions().drain_seconds + SHUTDOWN_SECONDS
    assert service["RestartPreventExitStatus"] == "2"


def test_more_than_one_server_process_is_refused():
    command = [sys.executable, "-m", "semantic_parrot.server.cli", "serve", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--engines 2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
