"""`parrot serve` as a process, around scripted engines: how it starts, and all the ways it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import LiveServer

from semantic_parrot.server.engines import model_names
from semantic_parrot.server.listener import bind, url_of

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "support" / "scripted_serve.py"), "serve"]
ASK: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}


def scripted(*args: str) -> LiveServer:
    return LiveServer(*args, command=COMMAND)


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "--port", "0", *args], capture_output=True, text=True, timeout=60)


def test_it_announces_itself_in_one_line_and_ends_with_its_parent():
    with scripted() as server:
        assert server.model == "scripted"
        assert httpx.post(f"{server.url}/chat/completions", json=ASK).status_code == 200
        assert server.url in server.log()
        assert server.stop() == 0
        assert server.process.stdout.read() == b""
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_open_streams_get_an_end(number):
    with scripted("--model", "stuck", "--drain-seconds", "0") as server:
        program = {"calls": [{"id": "a", "output": "x", "request": ASK}], "stream": True, "deltas": "all"}
        with httpx.stream("POST", f"{server.url}/runs", json=program, timeout=20) as response:
            lines = response.iter_lines()
            assert "event: variable.delta" in lines
            server.process.send_signal(number)
            end = list(lines)
        assert "event: run.finished" in end
        assert '"status":"cancelled"' in "".join(end)
        assert server.wait() == 0
        assert "Traceback" not in server.log()


def test_an_open_call_gets_an_answer_even_from_an_engine_that_is_stuck():
    with scripted("--model", "stuck", "--drain-seconds", "0.1") as server:
        answers: list[httpx.Response] = []
        ask = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{server.url}/chat/completions", json=ASK, timeout=30))
        )
        with httpx.stream("POST", f"{server.url}/chat/completions", json={**ASK, "stream": True}) as response:
            lines = response.iter_lines()
            assert any("content" in line for line in lines)
            ask.start()
            while server.metrics()["parrot_calls_executed_total"] < 2:
                pass
            server.process.send_signal(signal.SIGTERM)
            list(lines)  # ends
        ask.join(30)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "engine_failed"
        assert server.wait() == 0
        assert "Traceback" not in server.log()


def test_a_second_interrupt_does_not_wait():
    with (
        scripted("--model", "stuck") as server,
        httpx.stream("POST", f"{server.url}/chat/completions", json={**ASK, "stream": True}) as response,
    ):
        lines = response.iter_lines()
        assert any("content" in line for line in lines)
        server.process.send_signal(signal.SIGINT)
        # The listening socket closes first: then the server is in its shutdown, waiting for this stream.
        while _accepts(server.base):
            pass
        server.process.send_signal(signal.SIGINT)
        assert server.wait(2.5) == 130


def _accepts(base: str) -> bool:
    host, port = base.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None])
def test_it_can_be_ended_while_its_model_loads(end):
    args = ["--port", "0", "--model", "slow", *(["--exit-with-parent"] if end is None else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *args], **pipes) as process:
        assert process.stderr.readline() == b"loading\n"
        if end is not None:
            process.send_signal(end)
        out, err = process.communicate(timeout=20)  # closes its standard input
    assert (process.returncode, out, err) == (0, b"", b"")


def test_without_the_flag_the_end_of_standard_input_does_not_matter():
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--announce"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        url = json.loads(process.stdout.readline())["url"]
        assert httpx.get(f"{url}/models").status_code == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_model_that_cannot_be_loaded_is_one_line_and_exit_code_2():
    ended = run("--model", "broken", "--announce")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "parrot: broken: no config.json\n")


def test_a_port_in_use_is_one_line_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"parrot: cannot listen on 127.0.0.1 port {port}: ")
    assert len(ended.stderr.splitlines()) == 1


def test_an_unknown_host_is_one_line_and_exit_code_2():
    ended = run("--host", "no.such.host.invalid")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("args", [["--engines", "0"], ["--port", "70000"], ["--kv-tokens", "-1"], ["--dta-dir", "x"]])
def test_a_bad_flag_is_refused_by_name(args):
    ended = run(*args)
    assert ended.returncode == 2
    assert args[0] in ended.stderr


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from semantic_parrot.server import cli;"
        "sys.argv = ['parrot', 'serve', '--help'];"
        "import contextlib;\nwith contextlib.suppress(SystemExit): cli.main()\n"
        "print([m for m in ('fastapi', 'uvicorn', 'prometheus_client', 'torch', 'transformers') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--engines" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def test_a_bound_port_takes_no_connections_before_the_model_is_loaded():
    with bind("127.0.0.1", 0) as sock:
        assert not _accepts(url_of(sock).removesuffix("/v1"))
        # Nagle's algorithm holds back the second of two small writes until the client acknowledges the first.
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_model_goes_by_its_directory_default_and_its_path(tmp_path, monkeypatch):
    path = tmp_path / "llama-tiny"
    path.mkdir()
    assert model_names(str(path)) == (str(path), ("llama-tiny", "default", str(path)))
    monkeypatch.chdir(tmp_path)
    assert model_names("llama-tiny") == ("llama-tiny", ("llama-tiny", "default"))
    assert model_names("./llama-tiny/") == ("./llama-tiny/", ("llama-tiny", "default", "./llama-tiny/"))
    directory, names = model_names(None)
    assert os.path.isabs(directory)
    assert names == ("parrot-demo", "default")


def test_a_configuration_file_and_flags_that_win_over_it(tmp_path):
    file = tmp_path / "parrot.toml"
    file.write_text(
        """
        [server]
        host = "127.0.0.2"
        port = 1
        [engine]
        engines = 2
        [scheduling]
        disable = ["retention", "preemption"]
        [prices.default]
        prompt = 2
        completion = 10
        """
    )
    with scripted("--config", str(file), "--host", "127.0.0.1") as server:  # and --port 0
        assert server.base.startswith("http://127.0.0.1:")
        engines = httpx.get(f"{server.url}/engines").json()["data"]
        assert [engine["without"] for engine in engines] == [[], []]
        assert "can't do" not in server.log()
        program = {"calls": [{"id": "a", "output": "x", "request": ASK}], "parrot": {"quota": {"cost": 1}}}
        usage = httpx.post(f"{server.url}/runs", json=program).json()["usage"]
        assert usage["cost"] == pytest.approx((usage["prompt_tokens"] * 2 + usage["completion_tokens"] * 10) / 1e6)


def test_the_environment_is_stronger_than_a_file_and_weaker_than_a_flag(tmp_path):
    file = tmp_path / "parrot.toml"
    file.write_text('[server]\nhost = "127.0.0.2"\nport = 1\n[engine]\nengines = 5\n')
    environment = os.environ | {
        "PARROT_SERVE_CONFIG": str(file), "PARROT_SERVE_ENGINES": "3", "PARROT_SERVE_PORT": "2",
        "PARROT_SERVE_DISABLE": "retention batch-cap",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "semantic_parrot.server.cli", "serve", "--print-config", "--port", "3"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    printed = tomllib.loads(ended.stdout)
    assert printed["server"].items() >= {"host": "127.0.0.2", "port": 3}.items()
    assert printed["engine"]["engines"] == 3
    assert printed["scheduling"]["disable"] == ["batch-cap", "retention"]


def test_what_an_engine_cannot_do_is_said_at_start_up():
    with scripted() as server:
        (engine,) = httpx.get(f"{server.url}/engines").json()["data"]
        lines = [line for line in server.log().splitlines() if "can't do" in line]
    assert lines == ["parrot: WARNING: engine scripted-0 can't do preemption, retention: no effect there"]
    assert engine == {
        "id": "scripted-0", "object": "engine", "model": "scripted", "up": True, "trouble": "",
        "abilities": ["prefill-ahead", "salt"], "without": ["preemption", "retention"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--enable", "retention"], "retention is enabled, and no engine can do it: scripted-0 can do prefill-ahead"),
        (["--enable", "magic"], "no optimisation 'magic' to enable; there is: "),
        (["--disable", "magic"], "no optimisation 'magic' to turn off; there is: "),
        (["--enable", "single-flight", "--no-single-flight"], "single-flight is both enabled and disabled"),
        (["--config", "/nowhere/parrot.toml"], "/nowhere/parrot.toml: No such file or directory"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_exit_code_2(args, message):
    ended = run(*args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"parrot: {message}")
    assert ended.stderr.count("\n") == 1


def test_an_enabled_optimisation_that_an_engine_can_do_starts():
    with scripted("--enable", "prefill-ahead") as server:
        assert httpx.get(f"{server.url}/models").status_code == 200


def test_prices_of_a_model_that_is_not_served_are_one_line_and_exit_code_2(tmp_path):
    file = tmp_path / "parrot.toml"
    file.write_text('[prices."gpt-9"]\nprompt = 1\ncompletion = 1\n')
    ended = run("--config", str(file))
    assert (ended.returncode, ended.stderr) == (
        2, "parrot: prices name the model 'gpt-9'; there is: default, scripted\n"
    )  # fmt: skip
