"""A remote engine that is down, slow, lies, breaks off or answers garbage: a typed error, or the work done elsewhere.

The server is scripted, on a real socket: no real one misbehaves on demand.
"""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from scripted import ScriptedEngine

from semantic_parrot.core.engines import reachable, remote
from semantic_parrot.core.engines.protocol import Done, ModelLoadError
from semantic_parrot.core.engines.remote import RemoteEngine
from semantic_parrot.core.errors import ContextOverflow, EngineFailed, InvalidRequest, ParrotError, Unsupported
from semantic_parrot.core.request import parse_request
from semantic_parrot.core.runtime import Runtime

CHAT = {"model": "theirs", "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
MODELS = {"data": [{"id": "theirs", "max_model_len": 4096}]}


def chunk(text=None, reason=None, **fields):
    delta = {} if text is None else {"content": text}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **fields}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


WHOLE = chunk("Hel") + chunk("lo") + chunk(None, "stop") + b"data: [DONE]\n\n"


class Site:
    """`models`, `answers`: what it says, (status, headers, body) each; a body of None never comes. Of the answers the
    last stays. `asked`: the bodies of requests. `came`, `gone`: set when a reader waits for what never comes, and when
    it left."""

    def __init__(self):
        self.models = (200, {}, json.dumps(MODELS).encode())
        self.answers = [(200, {}, WHOLE)]
        self.asked = []
        self.came, self.gone = asyncio.Event(), asyncio.Event()
        self.url = ""

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                length = next(
                    (int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")), 0
                )
                body = await reader.readexactly(length)
                if lines[0].startswith("GET"):
                    status, headers, content = self.models
                else:
                    self.asked.append(json.loads(body))
                    status, headers, content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                rows = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in headers.items()), "connection: close", "", ""]
                writer.write("\r\n".join(rows).encode() + (content or b""))
                await writer.drain()
                if content is None:
                    self.came.set()
                    await reader.read()
                    self.gone.set()
                break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def site(start=True, **options):
    """(the site, an engine that talks to it, started unless told otherwise)"""
    there = Site()
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    there.server = server
    engine = RemoteEngine(there.url, dialect="vllm", **options)
    try:
        if start:
            await engine.start()
        yield there, engine
    finally:
        await engine.close()
        server.close()


async def ask(engine, **fields):
    items = [item async for item in engine.generate(parse_request({**CHAT, **fields}))]
    assert isinstance(items[-1], Done)
    return items[-1]


async def test_an_answer():
    async with site() as (there, engine):
        done = await ask(engine)
        assert (done.text, done.reason) == ("Hello", "stop")
        assert there.asked[0]["messages"] == [{"role": "user", "content": "hello"}]
        assert engine.model.names == ("theirs",)
        assert engine.model.context == 4096


@pytest.mark.parametrize(
    ("models", "options", "why"),
    [
        ((200, {}, b"{}"), {}, "no model"),
        ((200, {}, json.dumps(MODELS).encode()), {"model": "mine"}, "no model 'mine'; there is: theirs"),
        (
            (200, {}, json.dumps(MODELS).encode()),
            {"context": 8192},
            "its context is 4096 tokens, and 8192 are configured",
        ),
        ((200, {}, b"<html>"), {}, "no JSON"),
        ((200, {}, b"[]"), {}, "no object"),
        ((401, {}, b'{"error": {"message": "bad key"}}'), {}, "401: bad key"),
        ((503, {}, b""), {}, "503"),
    ],
)
async def test_it_does_not_start(models, options, why):
    async with site(start=False, **options) as (there, engine):
        there.models = models
        with pytest.raises(ModelLoadError, match=why):
            await engine.start()
        assert not engine.healthy


async def test_nobody_is_there():
    engine = RemoteEngine("http://127.0.0.1:9/v1")
    with pytest.raises(ModelLoadError, match=r"127\.0\.0\.1:9"):
        await engine.start()
    await engine.close()


@pytest.mark.parametrize("models", [(503, {}, b"loading"), (429, {}, b"")])
async def test_one_that_is_down_at_the_start_is_used_once_it_is_up(models, monkeypatch):
    monkeypatch.setattr(reachable, "LOOK_SECONDS", 0.01)
    async with site(start=False, names=("theirs",)) as (there, engine):
        there.models = models
        other = ScriptedEngine(answers=lambda _: "mine")
        runtime = Runtime([other, engine])
        await runtime.start()
        changed = asyncio.Event()
        engine.watch(changed.set)
        assert (engine.healthy, engine.coming, engine.model.names) == (False, True, ("theirs",))
        assert engine.trouble
        with pytest.raises(EngineFailed, match="no engine is up"):
            _ = [item async for item in runtime.generate(CHAT)]
        there.models = (200, {}, json.dumps(MODELS).encode())
        async with asyncio.timeout(120):
            await changed.wait()
        assert engine.model.context == 4096
        assert [item async for item in runtime.generate(CHAT)][-1].text == "Hello"
        await runtime.close()


@pytest.mark.parametrize(
    ("models", "options", "others"),
    [
        ((503, {}, b""), {}, 1),  # nobody knows what it serves
        ((401, {}, b""), {"names": ["theirs"]}, 1),
        ((200, {}, b'{"data": []}'), {"names": ["theirs"]}, 1),
        ((503, {}, b""), {"names": ["theirs"]}, 0),  # none is up
    ],
)
async def test_what_does_not_start_without_an_engine(models, options, others):
    async with site(start=False, **options) as (there, engine):
        there.models = models
        runtime = Runtime([engine, *(ScriptedEngine() for _ in range(others))])
        with pytest.raises(ModelLoadError, match="remote-0"):
            await runtime.start()
        assert not engine.healthy
        assert not engine.coming


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (chunk("Hel"), "ended in the middle"),
        (b"", "ended in the middle"),
        (b"data: {nonsense\n\n", "no chunk"),
        (b"data: [1]\n\n", "no chunk"),
        (b'data: {"choices": 3}\n\n', "no chunk"),
        (b'data: {"choices": [{"index": 4, "delta": {}}]}\n\n', "no chunk"),
        (b'data: {"choices": [{"index": 0, "delta": {"content": 3}}]}\n\n', "no chunk"),
        (chunk("a", usage={"prompt_tokens": "many"}), "no chunk"),
        (chunk("a", "abort"), "ended an answer with 'abort'"),
        (b'data: {"error": {"message": "out of memory", "code": 500}}\n\n', "out of memory"),
    ],
)
async def test_what_is_no_answer_is_an_error(body, why):
    async with site() as (there, engine):
        there.answers = [(200, {}, body), (200, {}, WHOLE)]
        with pytest.raises(EngineFailed, match=why):
            await ask(engine)
        assert (await ask(engine)).text == "Hello"
        assert (await engine.stats()).running == 0


@pytest.mark.parametrize(
    ("status", "body", "kind", "why"),
    [
        (400, {"error": {"message": "This model's maximum context length is 4096 tokens"}}, ContextOverflow, "4096"),
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, ContextOverflow, "x"),
        (400, {"error": {"message": "top_k must be positive"}}, InvalidRequest, "top_k must be positive"),
        (422, {"detail": "no"}, InvalidRequest, "no"),
        (404, {"error": {"message": "no such model"}}, EngineFailed, "no such model"),
        (500, "<html>", EngineFailed, "500"),
    ],
)
async def test_http_errors_keep_their_meaning(status, body, kind, why):
    async with site() as (there, engine):
        there.answers = [(status, {}, json.dumps(body).encode())]
        with pytest.raises(kind, match=why) as caught:
            await ask(engine)
        assert type(caught.value) is kind


async def test_a_server_that_is_busy_is_given_the_time_it_asks_for():
    async with site() as (there, engine):
        there.answers = [(429, {"retry-after": "0.05"}, b""), (429, {"retry-after": "soon"}, b""), (200, {}, WHOLE)]
        waits = []
        rest = engine._reachable.rest
        engine._reachable.rest = lambda seconds: (waits.append(seconds), rest("0"))
        assert (await ask(engine)).text == "Hello"
        assert waits == ["0.05", "soon"]
    async with site() as (there, engine):
        engine._idle = 0.0
        there.answers = [(429, {"retry-after": "0"}, b'{"error": {"message": "quota"}}')]
        with pytest.raises(EngineFailed, match="429: quota"):
            await ask(engine)


async def test_silence_ends():
    async with site(idle_seconds=0.05) as (there, engine):
        there.answers = [(200, {}, None)]
        with pytest.raises(EngineFailed, match="ReadTimeout"):
            await ask(engine)


async def test_a_process_that_stalls_connects_again(monkeypatch):
    """While it connected: its time is up before it sees that the connection stands. Which of the loop's steps that is
    depends on the client: the stalls fall on several."""
    monkeypatch.setattr(remote, "CONNECT_SECONDS", 1.0)
    async with site() as (there, engine):
        for steps in range(2, 6):
            task = asyncio.create_task(ask(engine))
            for _ in range(steps):
                await asyncio.sleep(0)
            time.sleep(1.2)  # noqa: ASYNC251 -- the stall
            assert (await task).text == "Hello"
        assert len(there.asked) == 4
        assert engine.healthy


async def test_a_reader_that_leaves_hangs_up():
    async with site() as (there, engine):
        there.answers = [(200, {}, None)]
        task = asyncio.create_task(ask(engine))
        async with asyncio.timeout(20):
            await there.came.wait()
            task.cancel()
            await there.gone.wait()


async def test_an_engine_that_dies_is_noticed_and_found_again(monkeypatch):
    monkeypatch.setattr(reachable, "LOOK_SECONDS", 0.01)
    async with site() as (there, engine):
        changed = asyncio.Event()
        engine.watch(changed.set)
        there.models = (503, {}, b"loading")
        async with asyncio.timeout(20):
            await changed.wait()
            assert not engine.healthy
            assert engine.coming
            assert "loading" in engine.trouble
            changed.clear()
            there.models = (200, {}, json.dumps(MODELS).encode())
            await changed.wait()
        assert engine.healthy


async def test_an_engine_that_fails_at_everything_is_left_alone():
    async with site() as (there, engine):
        there.answers = [(500, {}, b"")]
        for _ in range(reachable.FAILURES):
            with pytest.raises(EngineFailed):
                await ask(engine)
        assert not engine.healthy
        assert "in a row" in engine.trouble


async def test_what_it_breaks_off_is_finished_elsewhere():
    async with site(names=("scripted", "default")) as (there, engine):
        there.answers = [(200, {}, chunk("Hel"))]
        other = ScriptedEngine(answers=lambda _: "Hello there")
        runtime = Runtime([engine, other])
        await runtime.start()
        body = {**CHAT, "model": "default"}
        items = [item async for item in runtime.generate(body)]
        assert "".join(item.text for item in items[:-1]) == items[-1].text == "Hello there"
        assert items[-1].placed.engine == other.name
        assert there.asked
        await runtime.close()


async def test_what_one_of_the_engines_can_not_do_is_refused_before_anything_runs():
    async with site(names=("scripted", "default")) as (_, vllm):
        other = RemoteEngine("http://127.0.0.1:9/v1", dialect="ollama")
        vllm.check(parse_request({**CHAT, "top_k": 3}))
        with pytest.raises(Unsupported) as caught:
            other.check(parse_request({**CHAT, "top_k": 3}))
        assert caught.value.where == "top_k"
        await other.close()
        runtime = Runtime([vllm])
        await runtime.start()
        vllm.check = other.check
        with pytest.raises(ParrotError, match="top_k"):
            runtime.generate({**CHAT, "model": "default", "top_k": 3})
        await runtime.close()
