"""Our own server, as the peers are run. `python -m peers.parrot --model DIR …` is `parrot serve` with what its command
line does not set: the engine's threads and the type of its weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from about import about
from peers.peer import Peer, Setup
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.server.engines import model_names
from semantic_parrot.server.options import ServeOptions
from semantic_parrot.server.serve import serve


class Parrot(Peer):
    name = "parrot"
    health = "/healthz"

    def version(self) -> str:
        return str(about()["commit"])

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        options = {"model": model, "port": port, "threads": setup.threads, "dtype": setup.dtype}
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "peers.parrot", *flags], {"PYTHONPATH": str(Path(__file__).parents[1])}


def main() -> int:
    parser = argparse.ArgumentParser(description="parrot serve, with the engine's threads and dtype")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    args = parser.parse_args()

    def build(options: ServeOptions) -> list[NativeEngine]:
        directory, names = model_names(options.model)
        return [NativeEngine(directory, names=names, threads=args.threads, dtype=args.dtype)]

    return serve(ServeOptions(model=args.model, port=args.port), build)


if __name__ == "__main__":
    sys.exit(main())
