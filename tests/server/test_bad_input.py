from __future__ import annotations

import copy
import json
import logging
import queue
import socket
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Any

import httpx
import pytest

GOOD: dict[str, Any] = {
    "calls": [
        {
            "id": f"c{i}",
            "output": f"v{i}",
            "request": {"model": "default", "messages": [{"role": "user", "content": "hello"}]},
        }
        for i in range(3)
    ],
    "inputs": {"doc": "text"},
}


def reads(program: Any, call: int, name: str) -> None:
    program["calls"][call]["request"]["messages"][0]["content"] = {"$t": ["Read: ", {"var": name}]}


def cycle(program: Any) -> None:
    for call, name in enumerate(("v2", "v0", "v1")):
        reads(program, call, name)


def put(path: str, value: Any) -> Callable[[Any], None]:
    """Sets the place that `path` names, as in calls.0.id."""

    def apply(program: Any) -> None:
        *steps, last = path.split(".")
        node = program
        for step in steps:
            node = node[int(step)] if step.isdecimal() else node[step]
        node[last] = value

    return apply


def transform(op: str, **fields: Any) -> Callable[[Any], None]:
    """A program with one good transform and one that is not."""
    good = {"id": "t0", "op": "strip", "of": "v0", "output": "stripped"}
    return put("transforms", [good, {"id": "t1", "op": op, "output": "made", **({"of": "v0"} | fields)}])


def mapped(**fields: Any) -> Callable[[Any], None]:
    call = {**GOOD["calls"][0], "id": "each", "output": "e"}
    good = {"id": "m", "output": "all", "over": "doc", "item": "one", "bound": 3, "calls": [call], "result": "e"}
    return put("maps", [{**good, **fields}])


def branched(*arms: dict[str, Any], **fields: Any) -> Callable[[Any], None]:
    return put("branches", [{"id": "b", "output": "taken", "on": "doc", "arms": arms, **fields}])


#: name → (what is wrong, the error's code, what its message or place names)
FAULTS: dict[str, tuple[Callable[[Any], None], str, list[str]]] = {
    "cycle": (cycle, "cyclic_program", ["c0", "c1", "c2", "v0"]),
    "reads itself": (lambda p: reads(p, 0, "v0"), "cyclic_program", ["c0", "v0"]),
    "unknown variable": (lambda p: reads(p, 1, "nobody"), "dangling_reference", ["c1", "nobody"]),
    "two producers": (put("calls.1.output", "v0"), "duplicate_producer", ["v0", "c0", "c1"]),
    "produces an input": (put("calls.1.output", "doc"), "duplicate_producer", ["doc", "c1"]),
    "unknown model": (put("calls.2.request.model", "gpt-9"), "model_not_found", ["calls[2]", "gpt-9"]),
    "negative max_tokens": (put("calls.1.request.max_tokens", -1), "invalid_request", ["calls[1]", "max_tokens"]),
    "zero max_tokens": (put("calls.1.request.max_tokens", 0), "invalid_request", ["calls[1]", "max_tokens"]),
    "fractional max_tokens": (put("calls.1.request.max_tokens", 1.5), "invalid_request", ["calls[1]", "max_tokens"]),
    "text max_tokens": (put("calls.1.request.max_tokens", "5"), "invalid_request", ["calls[1]", "max_tokens"]),
    "too much presence": (
        put("calls.1.request.presence_penalty", 3),
        "invalid_request",
        ["calls[1]", "presence_penalty"],
    ),
    "bias of no token": (put("calls.1.request.logit_bias", {"the": 1}), "invalid_request", ["calls[1]", "logit_bias"]),
    "min over max": (
        put("calls.1.request", {"model": "default", "prompt": "x", "min_tokens": 17}),
        "invalid_request",
        ["calls[1].request.min_tokens"],
    ),
    "hot": (put("calls.1.request.temperature", 3), "invalid_request", ["calls[1]", "temperature"]),
    "huge integer": (put("calls.1.request.temperature", 10**400), "invalid_request", ["calls[1]", "temperature"]),
    "true for a number": (put("calls.1.request.top_p", True), "invalid_request", ["calls[1]", "top_p"]),
    "unknown field": (put("surprise", 1), "invalid_request", ["surprise"]),
    "unknown field of a call": (put("calls.0.surprise", 1), "invalid_request", ["calls[0].surprise"]),
    "unknown field of a request": (put("calls.0.request.tools", []), "invalid_request", ["calls[0]", "tools"]),
    "unknown hint": (put("parrot", {"surprise": 1}), "invalid_request", ["parrot.surprise"]),
    "unknown objective": (put("parrot", {"objectives": {"v0": "speed"}}), "invalid_request", ["objectives", "v0"]),
    "unknown session": (put("parrot", {"session": "ses_x"}), "not_found", ["ses_x"]),
    "unknown output": (put("outputs", ["nobody"]), "invalid_request", ["nobody"]),
    "unknown deltas": (put("deltas", ["nobody"]), "dangling_reference", ["deltas[0]", "nobody"]),
    "no calls": (put("calls", []), "invalid_request", ["calls"]),
    "calls is a text": (put("calls", "all"), "invalid_request", ["calls"]),
    "a call is null": (put("calls", [None]), "invalid_request", ["calls[0]"]),
    "id is a number": (put("calls.1.id", 7), "invalid_request", ["calls[1].id"]),
    "same id": (put("calls.1.id", "c0"), "invalid_program", ["calls[1].id", "c0"]),
    "empty name": (put("calls.1.output", ""), "invalid_request", ["calls[1].output"]),
    "input named as an instance": (put("inputs", {"m[0].v": ""}), "invalid_request", ["inputs.m[0].v"]),
    "input without value or session": (put("inputs", {"doc": None}), "invalid_request", ["inputs.doc"]),
    "no messages": (put("calls.0.request", {"model": "default"}), "invalid_request", ["calls[0]", "prompt"]),
    "messages is a text": (put("calls.0.request.messages", "hi"), "invalid_request", ["calls[0]", "messages"]),
    "unknown role": (put("calls.0.request.messages", [{"role": "boss", "content": "x"}]), "invalid_request", ["role"]),
    "bad template": (put("calls.0.request.messages", [{"role": "user", "content": {"$t": [1]}}]), "", ["$t[0]"]),
    "unknown op": (transform("eval", code="1"), "invalid_request", ["transforms[1]", "eval"]),
    "no op": (put("transforms", [{"id": "t", "of": "v0", "output": "x"}]), "invalid_request", ["transforms[0]", "op"]),
    "unknown field of an op": (transform("csv", sep=";"), "invalid_request", ["transforms[1].sep"]),
    "missing field of an op": (transform("get"), "invalid_request", ["transforms[1].path"]),
    "empty path": (transform("get", path=[]), "invalid_request", ["transforms[1].path"]),
    "look-ahead": (transform("regex", pattern="(?=a)"), "invalid_program", ["transforms[1].pattern", "RE2", "(?=a)"]),
    "open bracket": (transform("regex", pattern="["), "invalid_program", ["transforms[1].pattern", "RE2"]),
    "huge pattern": (transform("regex", pattern="(((.{30}){30}){30})"), "invalid_program", ["transforms[1].pattern"]),
    "no such group": (transform("regex", pattern="(a)", group=2), "invalid_program", ["transforms[1].group", "2"]),
    "no named group": (transform("regex", pattern="a", group="x"), "invalid_program", ["transforms[1].group", "'x'"]),
    "replace by nothing": (transform("regex", pattern="a", mode="replace"), "invalid_request", ["transforms[1]"]),
    "no template": (
        put("transforms", [{"id": "t", "op": "template", "output": "x", "template": {}}]),
        "invalid_request",
        ["transforms[0].template", "$t"],
    ),
    "bad template of an op": (
        put("transforms", [{"id": "t", "op": "template", "output": "x", "template": {"$t": [7]}}]),
        "invalid_program",
        ["'t'", "$t[0]"],
    ),
    "transform reads nothing": (transform("strip", of="nobody"), "dangling_reference", ["t1", "nobody"]),
    "transform and call": (transform("csv", output="v1"), "duplicate_producer", ["v1", "call 'c1'", "transform 't1'"]),
    "id of a call": (transform("csv", id="c0"), "invalid_program", ["transforms[1].id", "c0"]),
    "transform reads itself": (transform("csv", of="made"), "cyclic_program", ["made", "t1"]),
    "negative bound": (mapped(bound=-1), "invalid_request", ["maps[0].bound"]),
    "no bound": (mapped(bound=None), "invalid_request", ["maps[0].bound"]),
    "huge bound": (mapped(bound=10**9), "invalid_request", ["maps[0].bound"]),
    "map over nothing": (mapped(over="nobody"), "dangling_reference", ["map 'm'", "nobody"]),
    "map without result": (mapped(result="nobody"), "dangling_reference", ["map 'm'", "nobody"]),
    "map over itself": (mapped(over="all"), "cyclic_program", ["map 'm'", "all"]),
    "a body reads its map": (mapped(result="all"), "cyclic_program", ["map 'm'", "all"]),
    "a body makes its item": (mapped(item="e"), "invalid_program", ["maps[0].item"]),
    "bad call in a body": (
        mapped(calls=[{**GOOD["calls"][0], "request": {"model": "gpt-9", "prompt": ""}}]),
        "model_not_found",
        ["maps[0].calls[0].request.model"],
    ),
    "cycle in a body": (
        mapped(transforms=[{"id": "t", "op": "csv", "of": "x", "output": "x"}]),
        "cyclic_program",
        ["transform 't'", "x -> x"],
    ),
    "unknown variable in a body": (
        mapped(transforms=[{"id": "t", "op": "csv", "of": "nobody", "output": "x"}]),
        "dangling_reference",
        ["transform 't' in map 'm'", "nobody"],
    ),
    "bad regex in an arm": (
        branched(
            {
                "when": 1,
                "result": "x",
                "transforms": [{"id": "t", "op": "regex", "pattern": "(?!a)", "of": "doc", "output": "x"}],
            }
        ),
        "invalid_program",
        ["branches[0].arms[0].transforms[0].pattern"],
    ),
    "no arms": (branched(), "invalid_request", ["branches[0].arms"]),
    "two arms for one value": (
        branched({"when": "a", "result": "doc"}, {"when": "a", "result": "doc"}),
        "invalid_program",
        ["branches[0].arms[1].when"],
    ),
    "default without result": (
        branched({"when": 1, "result": "doc"}, default={}),
        "invalid_request",
        ["default.result"],
    ),
    "stream is a text": (put("stream", "yes"), "invalid_request", ["stream"]),
}


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The OpenAI error object of a typed refusal."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    return dict(error)


def nothing_ran(site: Any) -> None:
    assert site.engine.seen == []
    assert site.counted("parrot_requests_total") == 0
    assert site.http.get("/readyz").status_code == 200
    assert site.http.post("/v1/runs", json=GOOD).json()["status"] == "finished"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_program_is_refused_where_it_is_bad(site, fault, stream):
    break_it, code, named = FAULTS[fault]
    program = {**copy.deepcopy(GOOD), "stream": stream}
    break_it(program)
    error = refused(site.http.post("/v1/runs", json=program), 404 if code in ("not_found", "model_not_found") else 400)
    assert error["code"] == code or not code
    for name in named:
        assert name in f"{error['param']} {error['message']}"
    nothing_ran(site)


ROUTES = ["/v1/runs", "/v1/chat/completions", "/v1/completions", "/tokenize"]
RAW = {
    "nothing": b"",
    "half an object": b'{"calls": [',
    "two objects": b"{}{}",
    "NaN": b'{"model": NaN}',
    "minus infinity": b'{"model": -Infinity}',
    "a number out of range": b'{"model": 1e999}',
    "an integer of 5000 digits": b'{"model": ' + b"1" * 5000 + b"}",
    "deep lists": b'{"model": ' + b"[" * 200_000,
    "deep lists, closed": b'{"model": ' + b"[" * 300 + b"]" * 300 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "not UTF-8": b'{"model": "\xff"}',
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "half a surrogate pair": b'{"model": "\\ud800"}',
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_json_is_refused(site, route, raw):
    assert refused(site.http.post(route, content=RAW[raw]))["code"] == "invalid_json"
    nothing_ran(site)


def test_invalid_json_names_its_position(site):
    error = refused(site.http.post("/v1/runs", content=b'{"calls":\n [}'))
    assert "line 2 column 3" in error["message"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", ["[]", "null", "1", '"text"', "true"])
def test_json_that_is_no_object_is_refused(site, route, body):
    assert refused(site.http.post(route, content=body))["code"] == "invalid_request"


def test_no_content_type_is_needed(site):
    response = site.http.post("/v1/runs", content=json.dumps(GOOD).encode())
    assert "content-type" not in response.request.headers
    assert response.json()["status"] == "finished"


def test_an_encoded_body_is_refused_by_name(site):
    response = site.http.post("/v1/runs", content=b"x", headers={"Content-Encoding": "gzip"})
    assert refused(response)["param"] == "Content-Encoding"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_fifty_megabytes_are_refused(site, route, chunked):
    block = b"x" * 1_000_000
    content = (block for _ in range(50)) if chunked else block * 50
    assert refused(site.http.post(route, content=content), 413)["code"] == "body_too_large"
    nothing_ran(site)


def _answer(site: Any, head: bytes, until: bytes = b"body_too_large") -> bytes:
    """What the server says to the head of a request whose body never comes."""
    host, port = site.server.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(head)
        answer = b""
        while until not in answer:
            more = sock.recv(65536)
            assert more, answer
            answer += more
    return answer


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(site, expect):
    head = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n" + expect + b"\r\n"
    assert _answer(site, head).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(site):
    head = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"f4300\r\n" + b"x" * 0xF4300 + b"\r\n"
    assert _answer(site, head + chunk).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
)
def test_what_is_no_http_gets_a_typed_error_too(site, head):
    answer = _answer(site, head + b"\r\n" * 2, until=b"invalid_request_error")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/json" in answer
    nothing_ran(site)


def test_a_body_of_exactly_the_limit_is_read(site):
    assert refused(site.http.post("/v1/runs", content=b" " * 1_000_000))["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/runs/", 404, "not_found"),
        ("PUT", "/v1/runs", 405, "method_not_allowed"),
        ("DELETE", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/runs/run_x", 404, "not_found"),
        ("DELETE", "/v1/runs/run_x", 404, "not_found"),
        ("GET", "/v1/models/gpt-9", 404, "model_not_found"),
        ("POST", "/v1/embeddings", 400, "unsupported"),
        ("POST", "/v1/runs?dry=1", 400, "invalid_request"),
    ],
)
def test_what_no_route_serves_is_a_typed_error(site, method, path, status, code):
    response = site.http.request(method, path)
    assert refused(response, status)["code"] == code
    assert ("allow" in response.headers) == (status == 405)


def test_a_bug_is_a_typed_500_and_is_logged(gated):
    gated.engine.stats = None
    logged: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = QueueHandler(logged)
    logging.getLogger("uvicorn.error").addHandler(handler)
    try:
        assert refused(gated.http.get("/metrics"), 500)["code"] == "internal_error"
        assert "TypeError" in logged.get(timeout=10).getMessage()
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)
    assert gated.http.get("/healthz").status_code == 200
