"""A server behind a proxy with TLS, whose certificate an authority of the app's own has signed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import threading

import httpx
import openai
import pytest
import trustme
from lc_shapes import P, step

from semantic_parrot.adapters.client import ParrotClient
from semantic_parrot.adapters.courier import COURIERS
from semantic_parrot.adapters.langchain import ChatParrot


async def relay(reader, writer):
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def behind_tls(server, authority):
    """The base URL of `server` behind such a proxy."""
    port = int(httpx.URL(server.url).port)
    trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(trusted)
    loop, up = asyncio.new_event_loop(), threading.Event()

    async def connected(reader, writer):
        inside = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, inside[1]), relay(inside[0], writer))

    async def start():
        proxy = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=trusted)
        up.port = proxy.sockets[0].getsockname()[1]
        up.set()
        async with proxy:
            await up.closed.wait()

    up.closed = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(start()))
    thread.start()
    assert up.wait(60)
    yield f"https://localhost:{up.port}/v1"
    loop.call_soon_threadsafe(up.closed.set)
    thread.join()
    loop.close()


@pytest.mark.parametrize("named", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_authority_that_the_environment_names_is_trusted(
    named, server, behind_tls, authority, tmp_path, monkeypatch
):
    pem = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(pem)
    if named == "SSL_CERT_DIR":
        if shutil.which("openssl") is None:
            pytest.skip("no openssl, which names the files of such a directory")
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
    monkeypatch.setenv(named, str(pem if named == "SSL_CERT_FILE" else tmp_path))
    llm = ChatParrot(base_url=behind_tls, temperature=0, max_retries=0)
    before = server.requests()
    assert (step("A {x}", llm) | P("B {y}") | llm).invoke({"x": "1"}).content
    assert server.requests() - before == 1
    assert llm.invoke("x").content
    llm.close()
    COURIERS.close()
    with ParrotClient(behind_tls) as client:
        assert "default" in client.models()


def test_another_one_is_not(behind_tls):
    llm = ChatParrot(base_url=behind_tls, temperature=0, max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        (step("A {x}", llm) | P("B {y}") | llm).invoke({"x": "1"})
    with ParrotClient(behind_tls) as client, pytest.raises(httpx.ConnectError):
        client.models()
