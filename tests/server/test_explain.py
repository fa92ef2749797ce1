"""`parrot explain`: runs of a served engine, programs in files, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from semantic_parrot.core.errors import CyclicProgram, InvalidRequest
from semantic_parrot.core.plan import plan
from semantic_parrot.core.program import parse_program
from semantic_parrot.core.wire import template
from semantic_parrot.server.explain.command import ExplainOptions, explain
from semantic_parrot.server.explain.mermaid import mermaid
from semantic_parrot.server.explain.timeline import ticks
from semantic_parrot.server.explain.words import seconds

SYSTEM = "You are the clerk of the harbour, and you never invent a ship."


def chat(*parts: str | tuple[str], tokens: int = 20) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template(*parts)}]
    return {"model": "default", "temperature": 0, "max_tokens": tokens, "messages": messages}


PROGRAM: dict[str, Any] = {
    "calls": [
        {"id": "map0", "output": "s0", "request": chat("0: ", ("d0",))},
        {"id": "map1", "output": "s1", "request": chat("1: ", ("d1",))},
        {"id": "reduce", "output": "report", "request": chat("Merge: ", ("joined",), tokens=40)},
        {"id": "long", "output": "polished", "request": chat("Here is a report:\n", ("report",), "\nPolish it.")},
        {"id": "short", "output": "title", "request": chat("Here is a report:\n", ("report",), "\nGive a title.")},
    ],
    "transforms": [
        {"id": "join", "op": "template", "template": template(("s0",), "\n", ("s1",)), "output": "joined"},
        {"id": "cut", "op": "split", "of": "d0", "output": "words"},
    ],
    "branches": [
        {"id": "judge", "on": "title", "output": "verdict",
         "arms": [{"when": "good", "result": "praise", "calls": [
             {"id": "say", "output": "praise", "request": chat("Praise ", ("title",))}]}],
         "default": {"result": "title"}},
    ],
    "maps": [{"id": "each", "over": "joined", "item": "line", "bound": 9, "output": "notes", "result": "note",
              "calls": [{"id": "note", "output": "note", "request": chat("Note ", ("line",))}]}],
    "inputs": {"d0": "the tug left", "d1": "the ferry came"},
    "outputs": ["polished", "verdict"],
    "parrot": {"objectives": {"polished": "throughput", "verdict": "latency"}},
}  # fmt: skip

GOLDEN = """\
5 calls in 3 stages; outputs: polished, verdict
critical path 1.71 s: map0 → reduce → short
assumed, before anything is measured: 4 characters a token, 128 tokens an answer unless max_tokens says less, \
0.5 ms a token of prompt and 21 ms of answer, idle engines; the values of variables are not counted
done at once: cut

stage 1: 2 calls
  map0 → s0  ◆ critical
    needs      no other call
    objective  latency: stated for 'verdict', which needs this call
    group      1: map0, map1
    start      from 0.00 s, at the latest at 0.00 s; takes 0.43 s with 20 tokens
    prefix     static, 62 characters, with map1, reduce, long, short
  map1 → s1
    needs      no other call
    objective  latency: stated for 'verdict', which needs this call
    group      1: map0, map1
    start      from 0.00 s, at the latest at 0.00 s; takes 0.43 s with 20 tokens
    prefix     static, 62 characters, with map0, reduce, long, short

stage 2: 1 call
  reduce → report  ◆ critical
    needs      map0, map1
    objective  latency: stated for 'verdict', which needs this call
    start      from 0.43 s, at the latest at 0.43 s; takes 0.85 s with 40 tokens
    prefix     static, 62 characters, with map0, map1, long, short

stage 3: 2 calls
  long → polished
    needs      reduce
    objective  throughput: stated for 'polished'
    start      from 1.28 s, at the latest at 1.28 s; takes 0.43 s with 20 tokens
    prefix     dynamic, 80 characters and report, with short
    prefix     static, 62 characters, with map0, map1, reduce, short
  short → title  ◆ critical
    needs      reduce
    objective  latency: stated for 'verdict', which needs this call
    start      from 1.28 s, at the latest at 1.28 s; takes 0.43 s with 20 tokens
    prefix     dynamic, 80 characters and report, with long
    prefix     static, 62 characters, with map0, map1, reduce, long

between calls, in the server:
  transform join → joined, reads s0, s1
  map each → notes, reads joined; up to 9 times: note
  branch judge → verdict, reads title; 'good': say; default: no call
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "program.json"
    path.write_text(json.dumps(PROGRAM))
    return path


def told(capsys: pytest.CaptureFixture[str], what: Any = None, **more: Any) -> tuple[int, str, str]:
    code = explain(ExplainOptions(what=None if what is None else str(what), **more))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_plan_of_a_program(file, capsys):
    assert told(capsys, file) == (0, GOLDEN, "")


def test_the_plan_is_what_the_server_does(site):
    expected = plan(parse_program(PROGRAM))
    run = site.http.post("/v1/runs", json=PROGRAM).json()["id"]
    real = {call["id"]: call for call in site.http.get(f"/v1/runs/{run}/report").json()["calls"]}
    for call in expected["calls"]:
        for field in ("objective", "because", "needs", "reads"):
            assert real[call["id"]][field] == call[field], (call["id"], field)
        group = call["task_group"]
        assert (real[call["id"]]["task_group"] or {}).get("calls") == (group or {}).get("calls")


def test_a_deadline_sets_the_latest_starts(file):
    body = {**PROGRAM, "parrot": {"deadline_ms": 60_000}}
    calls = {call["id"]: call for call in plan(parse_program(body))["calls"]}
    assert {call["objective"] for call in calls.values()} == {"deadline"}
    assert calls["long"]["latest_start"] == pytest.approx(60 - calls["long"]["seconds"], abs=0.1)
    late = min(calls[name]["latest_start"] for name in ("long", "short")) - calls["reduce"]["seconds"]
    assert calls["reduce"]["latest_start"] == pytest.approx(late)


def test_what_fails_as_it_stands_is_said(capsys, tmp_path):
    body = {
        "calls": [{"id": "a", "output": "x", "request": chat("Tell me of ", ("names",))}],
        "transforms": [{"id": "cut", "op": "join", "sep": ",", "of": "text", "output": "names"}],
        "inputs": {"text": "no list"},
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(body))
    code, out, _ = told(capsys, path)
    assert code == 0
    assert "fails as it stands: names: transform 'cut': " in out
    assert "0 calls in 0 stages" in out


def test_the_plan_as_json_and_as_a_graph(file, capsys):
    code, out, _ = told(capsys, file, as_json=True)
    assert code == 0
    assert json.loads(out) == plan(parse_program(PROGRAM))
    code, out, _ = told(capsys, file, as_mermaid=True)
    lines = out.splitlines()
    assert lines[0] == "flowchart LR"
    assert '    n0["map0<br>430 ms"]:::latency' in lines
    assert {"  n0 ==> n2", "  n1 --> n2", "  n2 --> n3", "  n2 ==> n4"} <= set(lines)


def test_many_calls_of_a_stage_are_folded(capsys, tmp_path):
    calls = [{"id": f"c{i}", "output": f"v{i}", "request": chat(f"{i}")} for i in range(40)]
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"calls": calls}))
    _, out, _ = told(capsys, path)
    assert "… and 28 more; --json has them all" in out
    assert len(json.loads(told(capsys, path, as_json=True)[1])["calls"]) == 40


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not valid JSON: "),
        ("[]", "a program is a JSON object"),
        ("{}", "calls is empty"),
        ('{"calls": 1}', "calls: Input should be a valid list"),
        ('{"calls": [], "color": 1}', "unknown or unsupported field 'color'"),
        (json.dumps({**PROGRAM, "inputs": {"d0": "x"}}), "call 'map1' reads the unknown variable 'd1'"),
        (json.dumps({**PROGRAM, "inputs": {"d0": None, "d1": "x"}}), "an input without a value needs a session"),
        (json.dumps({**PROGRAM, "outputs": ["gone"]}), "outputs names the unknown variable 'gone'"),
        ("\ud800", ""),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(capsys, tmp_path, text, words):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    code, out, err = told(capsys, path)
    assert (code, out) == (2, "")
    assert err.startswith(f"parrot: {path}: ")
    assert words in err
    assert len(err.splitlines()) == 1


def test_errors_of_a_plan_are_the_servers_own():
    loop = {
        "calls": [
            {"id": "a", "output": "x", "request": chat(("y",))},
            {"id": "b", "output": "y", "request": chat(("x",))},
        ]
    }
    with pytest.raises(CyclicProgram, match="cycle"):
        plan(parse_program(loop))
    bad = {"calls": [{"id": "a", "output": "x", "request": {**chat("hi"), "temperature": 9}}]}
    with pytest.raises(InvalidRequest, match="temperature"):
        plan(parse_program(bad))


@pytest.mark.parametrize(
    ("what", "more", "words"),
    [
        ("nowhere.json", {}, "nowhere.json: No such file or directory"),
        (".", {}, "Is a directory"),
        ("app.chains:summary", {}, "app.chains can't be imported: ModuleNotFoundError"),
        ("x.json", {"as_json": True, "as_mermaid": True}, "give one of --json, --mermaid and --html"),
        ("run_1", {"url": "http://127.0.0.1:1"}, "http://127.0.0.1:1/v1/runs/run_1/report: "),
        ("run_1", {"url": "ftp://x"}, "ftp://x/v1/runs/run_1/report: "),
        (None, {"url": "http://["}, "http://["),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(capsys, tmp_path, monkeypatch, what, more, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = told(capsys, what, **more)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_program_has_no_page(capsys, file, tmp_path):
    code, _, err = told(capsys, file, html=tmp_path / "x.html")
    assert code == 2
    assert "--html" in err
    assert not (tmp_path / "x.html").exists()


def test_a_run_in_the_terminal(site, capsys):
    run = site.http.post("/v1/runs", json=PROGRAM).json()["id"]
    code, out, err = told(capsys, run, url=site.server.url)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == run
    assert lines[1].startswith("  finished, took ")
    assert max(map(len, lines)) <= 120
    assert [line for line in lines if line != line.rstrip()] == []
    for words in (
        "latency: stated for 'verdict', which needs this call",
        "throughput: stated for 'polished'",
        "map0, map1",
        "with map1, reduce, long, short",
        "scripted-0, task-group: its task group was placed as one",
        "critical path",
        "waited for",
    ):
        assert words in out
    assert told(capsys, None, url=site.server.base) == (0, out, "")


def test_a_run_for_machines_and_as_a_page(site, capsys, tmp_path):
    run = site.http.post("/v1/runs", json=PROGRAM).json()["id"]
    code, out, _ = told(capsys, run, url=site.server.base, as_json=True)
    report = site.http.get(f"/v1/runs/{run}/report").json()
    assert (code, json.loads(out)) == (0, report)
    _, out, _ = told(capsys, run, url=site.server.base, as_mermaid=True)
    assert out == mermaid(report) + "\n"
    page = tmp_path / "run.html"
    assert told(capsys, run, url=site.server.base, html=page) == (0, "", f"wrote {page}\n")
    assert page.read_text() == site.http.get(f"/v1/runs/{run}/report?format=html").text
    code, _, err = told(capsys, run, url=site.server.base, html=tmp_path / "no" / "run.html")
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_run_that_never_was(site, capsys):
    code, out, err = told(capsys, "run_../../metrics", url=site.server.base)
    assert (code, out) == (2, "")
    assert "no run" in err or "no route" in err


def test_names_cannot_steer_a_terminal_or_a_graph(site, capsys):
    name = 'a\x1b[2J"]\n  n9["x<b>\u202e'
    calls = [{"id": name, "output": "x", "request": chat("hi")}, {"id": "b", "output": "y", "request": chat(("x",))}]
    run = site.http.post("/v1/runs", json={"calls": calls}).json()["id"]
    _, out, _ = told(capsys, run, url=site.server.base)
    assert not {c for c in out if not c.isprintable()} - {"\n"}
    assert r"a\x1b[2J" in out
    _, out, _ = told(capsys, run, url=site.server.base, as_mermaid=True)
    assert out.count("\n") == 4 + 4
    assert '"a#27;#91;2J#34;#93;#10;  n9#91;#34;x#60;b#62;#8238;<br>' in out


def test_the_command_as_a_user_runs_it(file):
    command = [sys.executable, "-m", "semantic_parrot.server.cli", "explain"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, GOLDEN, "")
    refused = subprocess.run([*command, "app:chain"], capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("parrot: app can't be imported")


@pytest.mark.parametrize("longest", [0.0, 0.0004, 0.003, 0.9, 1.0, 7.3, 100.0, 86400.0])
def test_the_axis_has_a_few_round_times(longest):
    marks = ticks(longest)
    assert marks[0] == 0
    assert marks[-1] <= longest
    assert longest == 0 or 4 <= len(marks) <= 10
    assert len(set(marks)) == len(marks)


def test_times_read_well():
    shown = [seconds(value) for value in (None, 0.0, 0.0004, 0.0123, 0.9996, 61.0)]
    assert shown == ["–", "0.0 ms", "0.4 ms", "12 ms", "1.00 s", "61.00 s"]


def test_calls_that_came_alone_and_what_they_carried(site, capsys, tmp_path):
    def asked(path, **body):
        return site.http.post(path, json={"model": "default", **body}).json()["id"]

    first = asked("/v1/chat/completions", messages=[{"role": "user", "content": "hi"}])
    run = site.http.post("/v1/runs", json=PROGRAM).json()["id"]
    sources = [{"call": first}, {"run": run, "call": "long"}, {"call": "chatcmpl-nobody"}]
    second = asked("/v1/completions", prompt="and then", parrot={"sources": sources})
    third = asked("/v1/responses", input="and so", parrot={"sources": [{"call": second}]})
    for id, carried in ((first, []), (second, [first, f"long of {run}"]), (third, [second])):
        code, out, err = told(capsys, id, url=site.server.base)
        assert (code, err) == (0, "")
        assert out.startswith(f"{id}\n  finished, took ")
        begins = [i for i, line in enumerate(out.splitlines()) if line.startswith("  values from")]
        lines = out.splitlines()[begins[0] : begins[0] + len(carried)] if begins else []
        assert [line.removeprefix("  values from").strip() for line in lines] == carried
    page = tmp_path / "call.html"
    assert told(capsys, second, url=site.server.base, html=page) == (0, "", f"wrote {page}\n")
    assert f"<dt>values from</dt><dd>{first}, long of {run}</dd>" in page.read_text()
    shown = site.http.get(f"/dashboard/runs/{second}")
    assert (shown.status_code, f'href="/dashboard/runs/{first}"' in shown.text) == (200, True)


def test_a_call_that_streamed_is_there_too(site, capsys):
    body = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with site.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
    code, out, _ = told(capsys, json.loads(chunks[0])["id"], url=site.server.base)
    assert (code, "values from" in out) == (0, False)
