"""A journal in a file: its lock, its settings, and what a look at it says after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes of the header of a write-ahead log, and of that of each frame in it (sqlite.org/fileformat2.html, §4).
HEADER, FRAME = 32, 24


class FileLock:
    """One server at a time: two would run the same runs. The kernel takes it back from a process that is gone."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise

    def release(self) -> None:
        os.close(self._file)


def configure(connection: Any) -> None:
    """A new connection. A commit is on the disk before it is told (`synchronous`: also when the power fails); what
    is deleted is overwritten."""
    for setting in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


@dataclass(frozen=True, slots=True)
class Findings:
    """`lost`: transactions that stand in the write-ahead log and that SQLite does not read. `fault`: what is wrong with
    the file, as SQLite says; None if it is sound."""

    lost: int
    fault: str | None


def examine(path: Path) -> Findings:
    """Of a database that nobody has open, before anybody does."""
    commits = _commits(Path(f"{path}-wal"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            lost = _lost(connection, commits)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return Findings(0, str(error))
    return Findings(lost, None if found == "ok" else str(found))


def _commits(log: Path) -> list[int]:
    """The numbers, from 1, of the frames of a write-ahead log that end a transaction."""
    found: list[int] = []
    try:
        file = log.open("rb")
    except FileNotFoundError:
        return found
    with file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(HEADER)
        page, number = int.from_bytes(header[8:12], "big"), 0
        generation: bytes | None = None  # frames of an older one are what the log was used for before
        while len(head := file.read(FRAME)) == FRAME:
            number += 1
            generation = generation or head[8:16]
            whole = file.seek(page, os.SEEK_CUR) <= size
            if whole and head[8:16] == generation and head[4:8] != bytes(4):
                found.append(number)
    return found


def _lost(connection: sqlite3.Connection, commits: Sequence[int]) -> int:
    """SQLite takes the log up to its first damaged frame and is silent about the rest. A frame that ends a transaction
    is written last, so one behind that point was whole once: what it says may have been told."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not commits:
        return 0
    _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return sum(number > frames for number in commits)
