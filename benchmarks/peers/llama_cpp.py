"""llama.cpp's server, built from the sources that llama-cpp-python's sdist has."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.peer import Peer, Setup
from peers.process import once
from peers.recipe import Recipe, Step, environment, pip, python

VERSION = "0.3.36"
OFF = (
    "LLAMA_BUILD_TESTS LLAMA_BUILD_EXAMPLES LLAMA_BUILD_APP LLAMA_BUILD_UI LLAMA_USE_PREBUILT_UI LLAMA_OPENSSL".split()
)


def steps(folder: Path) -> Sequence[Step]:
    source = folder / f"llama_cpp_python-{VERSION}"
    fetch = [python(folder), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    fetch += ["--dest", folder / "sdist", f"llama-cpp-python=={VERSION}"]

    def unpack() -> None:
        shutil.unpack_archive(folder / "sdist" / f"llama_cpp_python-{VERSION}.tar.gz", folder, filter="data")

    configure = ["cmake", "-S", source / "vendor" / "llama.cpp", "-B", folder / "build", "-G", "Ninja"]
    configure += ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF"]
    configure += [f"-D{name}=OFF" for name in OFF]
    build = ["ninja", "-C", folder / "build", "llama-server"]
    return [
        environment(folder),
        pip(folder, "small", "gguf", "safetensors", "numpy"),
        Step("fetching the sources (77 MB)", fetch, folder, done=source.exists, after=unpack),
        Step("configuring (needs cmake and ninja)", configure, folder, done=(folder / "build" / "build.ninja").exists),
        Step("building (206 files, some 11 minutes on two cores)", build, folder),
    ]


class LlamaCpp(Peer):
    name = "llama.cpp"
    recipe = Recipe(VERSION, steps)

    def convert(self, setup: Setup) -> Path:
        path = setup.checkpoint.with_name(f"{setup.checkpoint.name}.gguf")
        script = Path(__file__).with_name("to_gguf.py")
        once(path, lambda new: [str(python(self.folder)), "-P", str(script), str(setup.checkpoint), str(new)])
        return path

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        argv = [str(self.folder / "build" / "bin" / "llama-server"), "--model", str(model), "--port", str(port)]
        argv += ["--parallel", str(setup.batch), "--ctx-size", str(setup.batch * setup.window)]
        if not setup.reuse:  # without the cache of prompts that have ended
            argv += ["--cache-ram", "0", "--no-cache-prompt"]
        if setup.dtype == "float32":  # its cache is fp16 unless told, and its flash attention in any case
            argv += ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
        return [*argv, "--threads", str(setup.threads), "--threads-batch", str(setup.threads)], {}

    def body(self, setup: Setup, prompt: str, tokens: int) -> dict[str, Any]:
        return {**super().body(setup, prompt, tokens), "cache_prompt": setup.reuse}
