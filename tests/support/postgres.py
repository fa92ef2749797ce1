"""A PostgreSQL of its own: a cluster in a temporary folder, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: Seconds that starting and stopping may take.
PATIENCE = 60


def _tool(name: str) -> str:
    """Debian keeps the server's programs out of the path."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    path = shutil.which(name)
    assert path is not None, f"there is no {name} here: run `make test-real`, which installs PostgreSQL"
    return path


@dataclass(frozen=True, slots=True)
class Cluster:
    """`url`: of its database, for a superuser without a password."""

    url: str
    folder: Path
    user: str | None

    def control(self, *args: str) -> None:
        """pg_ctl, which waits until it is done."""
        command = [_tool("pg_ctl"), "-D", str(self.folder / "data"), "-w", "-t", str(PATIENCE), *args]
        subprocess.run(command, user=self.user, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def stop(self) -> None:
        """At once: as when its machine is lost, but that the disk is whole."""
        self.control("stop", "-m", "immediate")

    def start(self) -> None:
        self.control("start", "-l", str(self.folder / "log"))


@contextmanager
def cluster() -> Iterator[Cluster]:
    """initdb refuses root: then all is done as the user that Debian's package makes."""
    user = "postgres" if os.geteuid() == 0 else None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="parrot-postgres-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        initdb = [_tool("initdb"), "-D", str(folder / "data"), "-U", "parrot", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, user=user, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\n")
        made = Cluster(f"postgresql://parrot@127.0.0.1:{port}/postgres", folder, user)
        made.start()
        try:
            yield made
        finally:
            with suppress(subprocess.CalledProcessError):  # a test may have stopped it
                made.stop()
    finally:
        shutil.rmtree(folder)
