"""The HTTP of the thread that reads runs, against a server that says what it is told to, in pieces of any size."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic_parrot.adapters.http_connection import BrokenConnection, HttpConnections
from semantic_parrot.adapters.sse import EventReader
from semantic_parrot.core.events import CallAborted, RunStarted

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"


class Server:
    """Reads requests and gives one of `answers` after the other; None: it says nothing. Hangs up after the last piece
    if `hang_up`."""

    def __init__(self, *answers, size=1 << 20, hang_up=False):
        self.answers, self.size, self.hang_up = list(answers), size, hang_up
        self.requests, self.connections = [], 0
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def talk(self, reader, writer):
        self.connections += 1
        try:
            while True:
                parser = h11.Connection(h11.SERVER)
                request, body = None, b""
                while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        data = await reader.read(65536)
                        if not data:
                            return
                        parser.receive_data(data)
                    elif isinstance(event, h11.Request):
                        request = event
                    else:
                        body += event.data
                self.requests.append((request, body))
                self.asked.set()
                answer = self.answers.pop(0)
                for at in range(0, len(answer or b""), self.size):
                    writer.write(answer[at : at + self.size])
                    await writer.drain()
                if self.hang_up:
                    return
        except ConnectionError:
            pass
        finally:
            self.left.set()
            writer.close()

    @asynccontextmanager
    async def client(self, base="http://127.0.0.1:{}/v1", headers=None, params=None):
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = HttpConnections(base.format(port), headers or {}, params or {})
        try:
            yield client
        finally:
            client.close()
            server.close()


async def post(client, body=b"{}", **more):
    pieces = []
    status, refusal = await client.request("POST", "/runs", body, headers={}, feed=pieces.append, **more)
    return status, refusal, b"".join(pieces)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_a_body_comes_as_it_was_sent_and_the_connection_is_used_again(size):
    server = Server(CHUNKED, CHUNKED, size=size)
    async with server.client() as client:
        assert await post(client) == (200, b"", b"abcdefg")
        assert await post(client) == (200, b"", b"abcdefg")
    assert server.connections == 1


async def test_what_is_sent():
    server = Server(CHUNKED, CHUNKED)
    base = "http://me:se%20cret@127.0.0.1:{}/sub/v1"
    async with server.client(base, headers={"X-Own": "a"}, params={"q": "a b"}) as client:
        await post(client, b'{"x":1}')
        await client.request("DELETE", "/runs/r", b"{}", headers={"Authorization": "Bearer k", "traceparent": "t"})
    (first, body), (second, _) = server.requests
    assert (first.method, first.target, body) == (b"POST", b"/sub/v1/runs?q=a+b", b'{"x":1}')
    sent = dict(first.headers)
    assert sent[b"x-own"] == b"a"
    assert sent[b"authorization"] == b"Basic bWU6c2UgY3JldA=="
    assert sent[b"host"].startswith(b"127.0.0.1:")
    assert sent[b"content-type"] == b"application/json"
    assert (second.method, second.target) == (b"DELETE", b"/sub/v1/runs/r?q=a+b")
    assert dict(second.headers)[b"authorization"] == b"Bearer k"
    assert dict(second.headers)[b"traceparent"] == b"t"


async def test_a_refusal_is_given_back_and_not_fed():
    refusal = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    server = Server(refusal, CHUNKED)
    async with server.client() as client:
        assert await post(client) == (404, b"no", b"")
        assert await post(client) == (200, b"", b"abcdefg")
    assert server.connections == 1


@pytest.mark.parametrize("head", ["Connection: close\r\nContent-Length: 2", "X-None: 1"])
async def test_a_connection_that_the_server_closes_is_not_used_again(head):
    answer = f"HTTP/1.1 200 OK\r\n{head}\r\n\r\nab".encode()
    server = Server(answer, answer, hang_up=True)
    async with server.client() as client:
        assert await post(client) == (200, b"", b"ab")
        assert await post(client) == (200, b"", b"ab")
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "hang_up"),
    [(b"nonsense\r\n\r\n", False), (CHUNKED[:-8], True), (b"", True), (b"HTTP/1.1 200 OK\r\nContent-Le", True)],
)
async def test_what_breaks_off_or_is_no_http_is_an_error(answer, hang_up):
    server = Server(answer, CHUNKED, hang_up=hang_up)
    async with server.client() as client:
        with pytest.raises(BrokenConnection):
            await post(client)
        assert (await post(client))[2] == b"abcdefg"
    assert server.connections == 2


async def test_a_server_that_falls_silent_is_left():
    server = Server(CHUNKED[:-8])
    async with server.client() as client:
        with pytest.raises(BrokenConnection, match="silent"):
            await post(client, silence=0.01)
        await server.left.wait()


async def test_what_the_reader_raises_ends_it_and_the_server_learns():
    server = Server(CHUNKED[:-8])

    def fail(piece):
        raise ZeroDivisionError

    async with server.client() as client:
        with pytest.raises(ZeroDivisionError):
            await client.request("POST", "/runs", b"{}", headers={}, feed=fail)
        await server.left.wait()


async def test_who_is_cancelled_hangs_up():
    server = Server(None)
    async with server.client() as client:
        task = asyncio.create_task(post(client))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left.wait()


async def test_nobody_there_is_an_oserror():
    with pytest.raises(OSError, match=r"9|refused|failed"):
        await post(HttpConnections("http://127.0.0.1:9/v1", {}, {}))


@pytest.mark.parametrize("url", ["ftp://host/v1", "nowhere", "http://", "http://host:port/v1"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match=r"no URL|invalid literal|Port"):
        HttpConnections(url, {}, {})


STREAM = (
    b': heartbeat\n\nid: 1\nevent: run.started\ndata: {"type":"run.started","id":"r"}\n\n'
    b'id: 2\r\nevent: call.aborted\r\ndata: {"type":"call.aborted","id":"a","reason":"x\\u2028y"}\r\n\r\n: beat\n\n'
)


@given(st.lists(st.integers(0, len(STREAM))))
@settings(deadline=None)
def test_events_come_whole_however_the_stream_is_cut(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader()
    found = [e for a, b in pairwise(places) for e in reader.feed(STREAM[a:b])]
    assert found == [RunStarted(id="r"), CallAborted(id="a", reason="x\u2028y")]
