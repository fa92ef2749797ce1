"""Our own server, as the peers are run. `python -m peers.parrot --model DIR …` is `parrot serve` with what its command
line does not set: the engines' threads and the type of their weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from about import about
from peers.peer import Peer, Setup
from semantic_parrot.core.engines.native import NativeEngine
from semantic_parrot.server.engines import model_names
from semantic_parrot.server.options import ServeOptions
from semantic_parrot.server.serve import serve


class Parrot(Peer):
    """`flags`: of `main` below. `name`: where several are to be told apart."""

    name = "parrot"
    health = "/healthz"

    def __init__(self, home: Path, name: str = "parrot", flags: Sequence[str] = ()) -> None:
        super().__init__(home)
        self.name, self._flags = name, tuple(flags)

    def version(self) -> str:
        return str(about()["commit"])

    def command(self, setup: Setup, model: Path, port: int) -> tuple[list[str], dict[str, str]]:
        options = {"model": model, "port": port, "threads": setup.threads, "dtype": setup.dtype}
        flags = [*(f"--{name}={value}" for name, value in options.items()), *self._flags]
        return [sys.executable, "-m", "peers.parrot", *flags], {"PYTHONPATH": str(Path(__file__).parents[1])}


def main() -> int:
    parser = argparse.ArgumentParser(description="parrot serve, with the engines' threads and dtype")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True, help="of all engines together")
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--kv-tokens", type=int, help="of all engines together")
    parser.add_argument("--no-prefix-cache", action="store_true")
    parser.add_argument("--disable", action="append", default=[])
    parser.add_argument("--dev", action="store_true")
    args = parser.parse_args()

    def build(options: ServeOptions) -> list[NativeEngine]:
        directory, names = model_names(options.model)
        return [
            NativeEngine(
                directory,
                names=names,
                name=f"native-{i}",
                threads=max(1, args.threads // args.engines),
                dtype=args.dtype,
                kv_tokens=None if args.kv_tokens is None else args.kv_tokens // args.engines,
                prefix_cache=not args.no_prefix_cache,
            )
            for i in range(args.engines)
        ]

    options = ServeOptions(
        model=args.model, port=args.port, dev=args.dev, disable=frozenset(args.disable), journal="memory"
    )
    return serve(options, build)


if __name__ == "__main__":
    sys.exit(main())
