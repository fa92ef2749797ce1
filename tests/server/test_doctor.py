"""`parrot doctor`: what would keep `parrot serve` from working is found, named, and comes with what to do."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from importlib import metadata

import pytest

from semantic_parrot.core.demo_model import MODEL_DIR
from semantic_parrot.server.doctor.command import doctor, examine
from semantic_parrot.server.options import ServeOptions


def found(**options):
    return {finding.about: finding for finding in examine(ServeOptions(**({"port": 0} | options)))}


def test_a_machine_that_serves():
    ended = subprocess.run(
        [sys.executable, "-m", "semantic_parrot.server.cli", "doctor", "--port", "0", "--json"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    findings = {finding["about"]: finding for finding in json.loads(ended.stdout)}
    assert {"package", "extra server", "extra engine", "Python", "GPU", "memory", "model", "address"} <= findings.keys()
    assert "llama" in findings["model"]["found"]
    assert "chat" not in findings


def test_a_port_that_is_taken(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert doctor(ServeOptions(port=port), as_json=False) == 1
    said = capsys.readouterr().out
    assert f"✗ address: cannot listen on 127.0.0.1 port {port}: Address already in use" in said
    assert "--port 0" in said
    assert "1 of these keep parrot serve from working" in said
    assert found()["address"].level == "good"


def test_a_directory_that_is_no_model(tmp_path):
    finding = found(model=str(tmp_path))["model"]
    assert (finding.level, finding.found) == ("bad", f"{tmp_path} has no config.json")
    assert finding.advice


def test_a_model_of_a_family_that_is_not_tested_and_without_a_chat_template(tmp_path):
    path = tmp_path / "model"
    shutil.copytree(MODEL_DIR, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "olmo"}))
    (path / "chat_template.jinja").unlink(missing_ok=True)
    stated = json.loads((path / "tokenizer_config.json").read_text())
    stated.pop("chat_template", None)
    (path / "tokenizer_config.json").write_text(json.dumps(stated))
    findings = found(model=str(path))
    assert findings["model"].level == "note"
    assert "olmo" in findings["model"].found
    assert "qwen3" in findings["model"].advice
    assert "no chat template" in findings["chat"].found


def test_a_model_that_the_memory_does_not_hold(monkeypatch):
    monkeypatch.setattr("semantic_parrot.core.engine.memory.free_memory", lambda: 1000)
    assert found()["model"].level == "bad"
    assert "more than" in found()["model"].found


@pytest.mark.parametrize(
    ("package", "version", "about", "level", "said", "advice"),
    [
        ("fastapi", None, "extra server", "bad", "not installed: fastapi", "pip install -U 'semantic-parrot[server]'"),
        (
            "llguidance",
            "0.1",
            "extra engine",
            "bad",
            "llguidance 0.1 (wanted: >=",
            "pip install -U 'semantic-parrot[engine]'",
        ),
        ("httpx", "0.1", "package", "bad", "httpx 0.1 (wanted: >=0.28)", "pip install -U semantic-parrot"),
        ("langchain-openai", None, "extra langchain", "note", "not installed: langchain-openai", "if you need it"),
        ("langchain-core", "0.2.0", "extra langchain", "bad", "langchain-core 0.2.0 (wanted: ", "[langchain]"),
    ],
)
def test_a_package_that_is_missing_or_too_old(monkeypatch, package, version, about, level, said, advice):
    real = metadata.version

    def pretended(name):
        if name != package:
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", pretended)
    finding = found()[about]
    assert finding.level == level
    assert said in finding.found
    assert advice in finding.advice


def test_what_cannot_be_looked_at_is_a_finding_and_the_rest_is_looked_at(monkeypatch):
    def broken():
        raise RuntimeError("the driver is gone\nfor good")

    monkeypatch.setattr("torch.cuda.is_available", broken)
    findings = found()
    assert (findings["machine"].level, findings["machine"].found) == ("bad", "RuntimeError: the driver is gone")
    assert findings["address"].level == "good"


@pytest.mark.parametrize("module", ["uvicorn", "torch"])
def test_a_library_that_is_not_there_is_a_finding(module):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from semantic_parrot.server.cli import app; app(['doctor', '--port', '0', '--json'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert any(
        "not looked at" in finding["found"] and module in finding["found"] for finding in json.loads(ended.stdout)
    )
