"""Real engines of other makers, each started once, on one small model. `make peers` installs them."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager

import pytest

from engines.model import SMALL, make
from peers import PEERS
from peers.home import home
from peers.peer import Setup
from peers.vllm import Vllm


class PatientVllm(Vllm):
    """As an operator would start it for Parrot: with priorities, and telling what it reused."""

    def command(self, setup, model, port):
        argv, env = super().command(setup, model, port)
        argv += ["--scheduling-policy", "priority", "--enable-prompt-tokens-details", "--max-num-seqs", "4"]
        return argv, {**env, "VLLM_SERVER_DEV_MODE": "1"}


KINDS = {**{name: PEERS[name] for name in ("llama.cpp", "transformers")}, "vllm": PatientVllm}


@pytest.fixture(scope="session")
def checkpoint():
    return make(home(), "float32", shape=SMALL)


@pytest.fixture(scope="session")
def words(checkpoint):
    return json.loads((checkpoint / "words.json").read_text())


def pytest_report_header():
    lacking = [name for name, kind in sorted(KINDS.items()) if kind(home()).missing() is not None]
    return f"not installed here (make peers), so not tested: {', '.join(lacking)}" if lacking else "all peers are here"


@pytest.fixture(scope="session")
def started(checkpoint):
    """Given a kind: (kind, url, model) of a server of that kind, in a `with`. PARROT_PEERS_REQUIRED: one that is not
    installed is a failure."""

    @contextmanager
    def start(kind):
        made = KINDS[kind](home())
        if (why := made.missing()) is not None:
            (pytest.fail if os.environ.get("PARROT_PEERS_REQUIRED") else pytest.skip)(f"{kind}: {why}")
        setup = Setup(checkpoint, "float32", 1)
        with made.start(setup) as process:
            yield kind, f"http://127.0.0.1:{process.port}/v1", str(made.convert(setup))

    return start


@pytest.fixture(scope="session", params=sorted(KINDS))
def peer(request, started):
    with started(request.param) as found:
        yield found
