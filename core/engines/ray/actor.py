"""What runs in a Ray worker: one engine, spoken to over a socket as the engine's process on this machine is.

Ray decides where it runs and says when it is gone. Its arguments and results, which Ray pickles, are the server's own;
what clients sent comes over the socket, as JSON.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import time
from typing import Any

#: Seconds in which whoever connects must have said the secret.
PATIENCE = 60.0
#: Times that the clock is told; the one that took least counts.
LOOKS = 5


class EngineActor:
    """Listens on its node's address. Whoever connects first with the secret has the engine."""

    def listen(self) -> tuple[str, int, str, int]:
        """(host, port, secret, process id)"""
        import ray

        host: str = ray.util.get_node_ip_address()
        self._secret = secrets.token_hex(32)
        self._listener = socket.create_server((host, 0))
        return host, self._listener.getsockname()[1], self._secret, os.getpid()

    def serve(self) -> int:
        """The engine, until the other end closes."""
        with self._listener:
            sock = self._accept()
        with sock:
            # Not before: it loads torch, which on a busy node takes longer than whoever connects has patience for.
            from semantic_parrot.core.engine import process

            try:
                return process.serve(process.Channel(sock))
            except (EOFError, ConnectionError):
                return 0

    def _accept(self) -> socket.socket:
        while True:
            sock, _ = self._listener.accept()
            try:
                sock.settimeout(PATIENCE)
                if hmac.compare_digest(_line(sock, len(self._secret) + 1), f"{self._secret}\n".encode()):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for _ in range(LOOKS):
                        sock.sendall(f"{time.monotonic()!r}\n".encode())
                        if not _line(sock, 1):
                            raise EOFError
                    sock.settimeout(None)
                    return sock
            except (OSError, EOFError):
                pass
            sock.close()


def _line(sock: socket.socket, length: int) -> bytes:
    """So many bytes, or less if no more come."""
    found = b""
    while len(found) < length and (data := sock.recv(length - len(found))):
        found += data
    return found


def remote_class(ray: Any) -> Any:
    """Of Ray's; the nodes import this module, and get no code from here."""
    return ray.remote(EngineActor)
