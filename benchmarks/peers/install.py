"""`make peers`: sets up every other engine, each in its own folder. What is there already is left alone, and one that
fails leaves the others usable."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from peers import PEERS
from peers.home import home
from peers.recipe import Failed, Step


def run(step: Step, log: Path) -> None:
    """One command, politely. Raises Failed with the last lines of what it said."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"\n$ {' '.join(map(str, step.argv))}\n".encode())
        out.flush()
        command = ["nice", "-n", "5", *map(str, step.argv)]
        code = subprocess.run(command, cwd=step.where, stdout=out, stderr=out, check=False).returncode
    if code:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise Failed(f"exit code {code}: {said[-1].strip()[-200:]}")


def install(name: str, root: Path) -> bool:
    """Whether it is usable now. Progress and errors are told line by line."""
    peer = PEERS[name](root)
    if peer.recipe is None:
        return True
    stamp, log = peer.folder / "installed", peer.folder / "install.log"
    if stamp.exists() and stamp.read_text() == peer.recipe.version:
        print(f"{name}: {peer.recipe.version} is there", flush=True)
        return True
    peer.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    try:
        for step in peer.recipe.steps(peer.folder):
            if not step.done():
                print(f"{name}: {step.what}", flush=True)
                run(step, log)
                step.after()
    except Failed as error:
        print(f"{name}: FAILED: {error}\n{name}: its log is {log}; `make peers` goes on from here", flush=True)
        return False
    stamp.write_text(peer.recipe.version)
    print(f"{name}: {peer.recipe.version} is ready, {time.monotonic() - begun:.0f} s", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    own = [name for name, peer in PEERS.items() if peer.recipe is not None]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(own)}; all if left out")
    names: Sequence[str] = parser.parse_args().names or own
    if unknown := [name for name in names if name not in own]:
        parser.error(f"no peer {unknown[0]!r}; there are {', '.join(own)}")
    root = home()
    print(f"peers live in {root} (PARROT_PEERS names another place)", flush=True)
    found: Mapping[str, bool] = {name: install(name, root) for name in names}
    missing = [name for name, usable in found.items() if not usable]
    if missing:
        print(f"not usable: {', '.join(missing)}; `benchmarks/engine.py` runs without, and says so", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
