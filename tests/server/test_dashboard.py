"""The dashboard without a browser: whom it lets in, where it draws what, and what it sends as a run goes on."""

from __future__ import annotations

import json

import httpx
import pytest
from followed import followed
from hypothesis import given
from hypothesis import strategies as st
from live import LocalServer
from programs import request
from scripted import ScriptedEngine

from semantic_parrot.core.errors import JournalUnavailable
from semantic_parrot.core.journal.journal import Journal
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.dashboard import graph
from semantic_parrot.server.dashboard.visits import LASTS, MOST, Visits
from semantic_parrot.server.tenants.keys import Keyring, make
from semantic_parrot.server.tenants.store import TenantStore

CHAIN = {
    "calls": [
        {"id": "one", "output": "a", "request": request("one")},
        {"id": "two", "output": "b", "request": request("two ", ("a",))},
    ]
}


@pytest.fixture
def store(tmp_path):
    store = TenantStore(tmp_path)
    yield store
    store.close()


def scope(cookie: str = "") -> dict:
    return {"type": "http", "scheme": "http", "headers": [(b"cookie", f"parrot_visit={cookie}".encode())]}


def test_a_visit_ends_with_its_time_its_key_and_its_log_out(store):
    secret, key = make(store, "ann")
    now = [0.0]
    visits = Visits(Keyring(store), lambda: now[0])
    first, second, third = (visits.begin(secret) for _ in range(3))
    assert visits.find(scope(first)) == key
    assert visits.find(scope()) is None
    assert visits.find(scope(secret)) is None
    visits.end(scope(first))
    assert visits.find(scope(first)) is None
    now[0] = LASTS - 1
    assert visits.find(scope(second)) == key
    now[0] = LASTS
    assert visits.find(scope(second)) is None
    now[0] = 0
    assert visits.find(scope(third)) == key
    other = TenantStore(store._path.parent)  # the command line's
    other.revoke("ann")
    other.close()
    assert visits.find(scope(third)) is None


def test_visits_are_bounded(store):
    secret, _ = make(store, "ann")
    visits = Visits(Keyring(store))
    cookies = [visits.begin(secret) for _ in range(MOST + 1)]
    assert visits.find(scope(cookies[0])) is None
    assert visits.find(scope(cookies[1])) is not None


def test_forms_need_to_come_from_its_own_pages(store):
    secret, _ = make(store, "ann")
    with (
        LocalServer(Runtime([ScriptedEngine()]), keyring=Keyring(store)) as server,
        httpx.Client(base_url=server.base) as http,
    ):
        own = {"Origin": server.base}
        form = {"key": secret}
        for headers in (
            {},
            {"Origin": "null"},
            {"Origin": "http://evil.example"},
            {**own, "Sec-Fetch-Site": "same-site"},
            {**own, "Sec-Fetch-Site": "cross-site"},
        ):
            refused = http.post("/dashboard/login", data=form, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert http.post("/dashboard/login", data={"key": "wrong"}, headers=own).status_code == 401
        assert http.post("/dashboard/login", data={"key": "x" * 5000}, headers=own).status_code == 413
        assert http.get("/dashboard", headers={"Accept": "text/html"}).headers["location"] == "/dashboard/login"
        assert http.get("/dashboard/live/runs").status_code == 401
        entered = http.post("/dashboard/login", data=form, headers=own)
        assert entered.status_code == 303
        said = entered.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=strict" in said
        assert "secure" not in said
        page = http.get("/dashboard")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert http.post("/dashboard/logout", headers={"Origin": "http://evil.example"}).status_code == 403
        assert http.get("/dashboard").status_code == 200
        http.post("/dashboard/logout", headers=own)
        assert http.get("/dashboard/live/runs").status_code == 401


def test_a_run_that_only_the_journal_knows_is_listed_and_has_its_pages(tmp_path, store):
    """Of its tenant, after a restart; and what the journal does not keep is said."""
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    keyring = Keyring(store)
    ann, bob = ({"Authorization": f"Bearer {make(store, name)[0]}"} for name in ("ann", "bob"))
    sent = {**CHAIN, "inputs": {"unused": "a <b>given</b> text"}, "parrot": {"lifetime": "background"}}
    with (
        LocalServer(Runtime([ScriptedEngine()], journal=Journal(url)), keyring=keyring) as server,
        httpx.Client(base_url=server.base, headers=ann, timeout=60) as http,
    ):
        run = http.post("/v1/runs", json=sent).json()["id"]
        result = followed(http, run)[-1][1]
    with (
        LocalServer(runtime := Runtime([ScriptedEngine()], journal=Journal(url)), keyring=keyring) as server,
        httpx.Client(base_url=server.base, headers=ann, timeout=60) as http,
    ):
        new = http.post("/v1/runs", json=sent).json()["id"]
        followed(http, new)
        listed = http.get("/dashboard").text
        assert listed.index(f"/dashboard/runs/{new}") < listed.index(f"/dashboard/runs/{run}")
        assert listed.count("/dashboard/runs/run_") == 2
        page = http.get(f"/dashboard/runs/{run}").text
        for said in ("This is from the journal", "box-0", "box-1", "bar-1", "a &lt;b&gt;given&lt;/b&gt; text"):
            assert said in page
        assert result["outputs"]["b"] in page
        assert "Cancel run" not in page
        assert 'data-live=""' in page  # nothing more comes
        assert "from the journal" not in http.get(f"/dashboard/runs/{new}").text
        assert "from the journal" in http.get(f"/dashboard/runs/{run}/report").text
        for path in (f"/dashboard/runs/{run}/trace", f"/v1/runs/{run}/trace"):
            names = [event["name"] for event in http.get(path).json()["traceEvents"]]
            assert {"one", "two", "needs"} <= set(names)
        told = http.get(f"/v1/runs/{run}/report").json()
        assert [(call["id"], call["needs"], call["state"]) for call in told["calls"]] == [
            ("one", [], "finished"),
            ("two", ["one"], "finished"),
        ]
        for path in ("", "/report", "/trace"):
            assert http.get(f"/dashboard/runs/{run}{path}", headers=bob).status_code == 404
        assert run not in http.get("/dashboard", headers=bob).text

        async def away(*_):
            raise JournalUnavailable("the journal can't be used: it is away")

        runtime._durable.listing = away
        listed = http.get("/dashboard").text
        assert "missing: the journal can&#39;t be used: it is away" in listed
        assert new in listed


def test_a_run_page_is_sent_what_has_changed_until_the_run_ends(gated):
    with gated.http.stream("POST", "/v1/runs", json={**CHAIN, "stream": True}) as response:
        lines = response.iter_lines()
        run = json.loads(next(line for line in lines if line.startswith("data: "))[6:])["id"]
        with gated.http.stream("GET", f"/dashboard/live/runs/{run}") as live:
            sent = (line for line in live.iter_lines() if line.startswith(("data: ", "event: ")))
            first = json.loads(next(sent)[6:])
            assert set(first) == {"status", "graph", "timeline", "values", "calls"}
            assert "Cancel run" in first["status"]
            gated.open_gate()
            rest = list(sent)
        end = json.loads([line for line in lines if line.startswith("data: ")][-1][6:])
    assert rest[-2:] == ["event: end", "data: {}"]
    last = {}
    for line in rest[:-2]:
        last |= json.loads(line[6:])
    assert "Cancel run" not in last["status"]
    assert end["outputs"]["b"] in last["values"]


def test_nothing_is_at_other_names(site):
    for path in ("/dashboard/runs/run_0", "/dashboard/live/runs/run_0", "/dashboard/static/../routes.py",
                 "/dashboard/static/style.css.bak"):  # fmt: skip
        assert site.http.get(path).status_code == 404
    assert site.http.get("/dashboard?x=1").status_code == 400
    assert site.http.get("/dashboard/static/script.js").headers["content-type"].startswith("text/javascript")


@st.composite
def reports(draw):
    """Calls of a DAG, in any order."""
    size = draw(st.integers(0, 30))
    order = draw(st.permutations(range(size)))
    calls: list[dict] = [{} for _ in range(size)]
    for rank, i in enumerate(order):
        needs = draw(st.lists(st.sampled_from(order[:rank]), max_size=4, unique=True)) if rank else []
        group = draw(st.none() | st.integers(0, 2))
        prefix = draw(st.none() | st.sampled_from("xyz"))
        calls[i] = {
            "id": f"c{i}",
            "needs": [f"c{j}" for j in needs],
            "state": draw(st.sampled_from(["finished", "failed", "waiting"])),
            "critical": draw(st.booleans()),
            "waited_for": f"c{needs[0]}" if needs else None,
            "task_group": None if group is None else {"id": group},
            "outside": [{"run": "r", "call": "o"}] if draw(st.booleans()) else [],
            "prefixes": [] if prefix is None else [{"id": prefix, "characters": 9, "own": 2, "count": 3}],
        }
    return {"calls": calls}


@given(reports())
def test_boxes_lie_on_no_other_and_right_of_what_they_need(report):
    drawing = graph.draw(report)
    calls = report["calls"]
    at = {calls[box.number]["id"]: (box.x, box.y) for box in drawing.boxes}
    assert len(at) == len(calls)
    places = [*at.values(), *((stub.x, stub.y) for stub in drawing.stubs)]
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= drawing.width - graph.WIDTH
        assert 0 <= y <= drawing.height - graph.HEIGHT
        for other_x, other_y in places[i + 1 :]:
            assert abs(x - other_x) >= graph.WIDTH or abs(y - other_y) >= graph.HEIGHT
    for call in calls:
        assert all(at[name][0] + graph.WIDTH < at[call["id"]][0] for name in call["needs"])
    kinds = [line.kind for line in drawing.lines]
    assert len(kinds) == sum(len(call["needs"]) + len(call["outside"]) for call in calls)
    assert kinds.count("cut") == sum(len(call["outside"]) for call in calls)
    for letter, *_ in drawing.letters:
        assert {box.letter for box in drawing.boxes} >= {letter}
    # An outline has its group's calls in it and nobody else's.
    for group, x, y, width, height in drawing.groups:
        inside = [name for name, (bx, by) in at.items() if x <= bx < x + width and y <= by < y + height]
        found = [call["task_group"] for call in calls if call["id"] in inside]
        assert len(found) > 1
        assert all(own == {"id": group} for own in found)


def test_what_is_too_much_to_draw_is_counted():
    call = {"needs": [], "state": "finished", "critical": False, "waited_for": None, "task_group": None,
            "outside": [], "prefixes": []}  # fmt: skip
    drawing = graph.draw({"calls": [{**call, "id": f"c{i}"} for i in range(graph.MOST + 7)]})
    assert (len(drawing.boxes), drawing.more) == (graph.MOST, 7)
