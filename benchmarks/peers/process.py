"""A server in a process group of its own: started, waited for until it answers, stopped by its own id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any


class PeerFailed(Exception):
    """It did not start, died, or answered nonsense. The message is for the user."""


class Process:
    """`with Process(...) as p:` is up once `health` answers 200. Its output goes to `log`.

    `port`: what it listens on. Raises PeerFailed with the last lines of the log if it ends or is not up in `patience`
    seconds.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path, *, port: int, health: str, patience: float
    ) -> None:
        self._argv, self._env = list(argv), {**os.environ, **env}
        self._log, self.port = log, port
        self._health, self._patience = f"http://127.0.0.1:{port}{health}", patience

    def __enter__(self) -> Process:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ended(self) -> str | None:
        """How it ended, None while it runs."""
        code = self._process.poll()
        return None if code is None else f"it ended with exit code {code}: {self.last_words()}"

    def last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{' | '.join(lines[-2:])[-300:]} (log: {self._log})"

    def freeze(self) -> None:
        """None of its threads runs until `thaw`. Of one that has ended, nothing happens."""
        self._tell(signal.SIGSTOP)

    def thaw(self) -> None:
        self._tell(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM to the group, SIGKILL to what is left of it after 10 s."""
        for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            if not self._tell(sign):
                break
            self.thaw()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()

    def _tell(self, sign: signal.Signals) -> bool:
        """Whether there is anybody left in the group."""
        try:
            os.killpg(self._process.pid, sign)
        except ProcessLookupError:
            return False
        return True

    def _wait(self) -> None:
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            if (why := self.ended()) is not None:
                raise PeerFailed(why)
            try:
                with urllib.request.urlopen(self._health, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise PeerFailed(f"it was not up in {self._patience:.0f} s: {self.last_words()}")


def once(path: Path, command: Callable[[Path], Sequence[str]], *, patience: float = 600.0) -> None:
    """Make `path` by a command that is told where to write, if it is not there. Raises PeerFailed."""
    if path.exists():
        return
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        made = subprocess.run(command(new), capture_output=True, text=True, check=False, timeout=patience)
        if made.returncode or not new.exists():
            said = [line for line in f"{made.stdout}\n{made.stderr}".splitlines() if line.strip()]
            raise PeerFailed(f"the model can't be converted: {said[-1][-300:] if said else 'no word why'}")
        new.rename(path)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"converting the model took more than {patience:.0f} s") from None
    finally:
        shutil.rmtree(new, ignore_errors=True) if new.is_dir() else new.unlink(missing_ok=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: Any = sock.getsockname()[1]
        return int(port)
