"""Requests that ask for another protocol are answered in HTTP/1.1. Java's own client asks for HTTP/2 with every one."""

from __future__ import annotations

import json
import socket

import pytest

BODY = json.dumps({"model": "default", "messages": [{"role": "user", "content": "hello"}]}).encode()
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
SOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def connect(site):
    host, port = site.server.base.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answers(sock):
    """All that comes until the server hangs up."""
    found = b""
    while more := sock.recv(65536):
        found += more
    return found


@pytest.mark.parametrize("wish", [H2C, SOCKET])
@pytest.mark.parametrize("body", [LENGTH + BODY, CHUNKED])
@pytest.mark.parametrize("together", [True, False])
def test_the_body_is_read(site, wish, body, together):
    sent = CHAT + wish + body
    with connect(site) as sock:
        for piece in [sent * 3 + LAST] if together else [sent[i : i + 7] for i in range(0, len(sent), 7)] + [LAST]:
            sock.sendall(piece)
        found = answers(sock)
    assert found.count(b"HTTP/1.1 200 OK") == 1 + (3 if together else 1)
    assert found.count(b'"object":"chat.completion"') == (3 if together else 1)
    assert len(site.engine.seen) == (3 if together else 1)


def test_a_request_without_a_body_is_answered(site):
    with connect(site) as sock:
        sock.sendall((b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + SOCKET + b"\r\n") * 2000 + LAST)
        assert answers(sock).count(b'"object":"list"') == 2000


def test_there_are_no_tunnels(site):
    with connect(site) as sock:
        sock.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        found = answers(sock)
    assert found.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"no proxy" in found
