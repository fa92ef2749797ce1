"""OpenVINO GenAI's continuous batching, as the ceiling on a CPU. It has no server with OpenAI's routes: its pipeline
runs in a process of its own, which takes all prompts at once and tells when each token came."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from peers.client import PATIENCE, Answer
from peers.peer import Peer, Setup
from peers.process import PeerFailed, Process, once
from peers.recipe import Recipe, Step, environment, pip, python, without

VERSION = "2026.4.1.0"
PRECISION = {"float32": "f32", "bfloat16": "bf16"}


def steps(folder: Path) -> Sequence[Step]:
    packages = (f"openvino-genai=={VERSION}", "optimum-intel[openvino]", "torch==2.13.0")
    return [environment(folder), pip(folder, "2 GB, some 4 minutes", *packages), without(folder, "torchvision")]


class OpenVino(Peer):
    name = "openvino"
    recipe = Recipe(VERSION, steps)

    def convert(self, setup: Setup) -> Path:
        """Weights in fp32 (both checkpoints hold the same numbers); in what they are computed is chosen at load."""
        checkpoint = setup.checkpoint.with_name(setup.checkpoint.name.replace(setup.dtype, "float32"))
        path = checkpoint.with_name(f"{checkpoint.name}.openvino")
        tool = str(self.folder / "venv" / "bin" / "optimum-cli")
        model = ["--model", str(checkpoint), "--task", "text-generation-with-past", "--weight-format", "fp32"]
        once(path, lambda new: [tool, "export", "openvino", *model, str(new)])
        return path

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        script = Path(__file__).with_name("openvino_worker.py")
        # -P: without it, files beside the script hide packages of their name.
        argv = [str(python(self.folder)), "-P", str(script), str(model), str(port), str(setup.threads)]
        return [*argv, PRECISION[setup.dtype]], {}

    def ask(self, process: Process, setup: Setup, prompts: Sequence[str], tokens: int) -> list[Answer]:
        data = json.dumps({"prompts": list(prompts), "tokens": tokens}).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/", data, timeout=PATIENCE) as answer:
                found = json.load(answer)
        except (urllib.error.URLError, OSError) as error:
            raise PeerFailed(f"no answer: {error}") from None
        return [
            Answer(one["text"], found["sent"], tuple(one["chunks"]), len(one["chunks"]), one["prompt"])
            for one in found["answers"]
        ]
