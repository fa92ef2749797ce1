"""The dashboard in a browser: what it shows, that it follows what happens, and that no text or page can abuse it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from live import LocalServer
from playwright.sync_api import expect
from programs import request
from scripted import ScriptedEngine

from semantic_parrot.core.engines.protocol import CachedPrefix, Stats
from semantic_parrot.core.runtime import Runtime
from semantic_parrot.server.tenants.keys import Keyring, make
from semantic_parrot.server.tenants.store import TenantStore

HOSTILE = '<script>alert(1)</script><img src="x" onerror="alert(2)"></pre></details>{{7*7}}'
SYSTEM = "You are a careful harbour clerk who writes short sentences about ships. "
FAN = [
    *({"id": f"map{i}", "output": f"s{i}", "request": request(f"{SYSTEM}Part ", (f"d{i}",))} for i in range(3)),
    {"id": "reduce", "output": "report", "request": request(SYSTEM, "All: ", ("s0",), ("s1",), ("s2",))},
]
PROGRAM = {"calls": FAN, "inputs": {f"d{i}": f"entry {i}" for i in range(3)}}


class Site:
    """A server whose answers stop after their first word until `open_gate`."""

    def __init__(self, server: LocalServer, gate: asyncio.Event) -> None:
        self.server, self.base, self._gate = server, server.base, gate

    def open_gate(self) -> None:
        self.server.call(self._gate.set)

    @contextmanager
    def running(self, program=PROGRAM):
        """The id of a run, whose client reads along."""
        with httpx.stream("POST", f"{self.base}/v1/runs", json={**program, "stream": True}, timeout=30) as response:
            lines = response.iter_lines()
            yield next(line for line in lines if line.startswith("data: ")).split('"id":"')[1].split('"')[0]
            self.open_gate()
            list(lines)


@pytest.fixture
def site():
    gate = asyncio.Event()
    with LocalServer(Runtime([ScriptedEngine(gate=gate)], grace=30)) as server:
        yield Site(server, gate)
        server.call(gate.set)


@pytest.fixture(scope="module")
def hostile():
    """(a server that has run a program in which everything is hostile, that run's id)"""
    calls = [
        {"id": HOSTILE, "output": f"out {HOSTILE}", "request": request("one ", (HOSTILE,))},
        {"id": "two", "output": "b", "request": request("two ", (f"out {HOSTILE}",))},
    ]
    transforms = [{"id": "cut", "op": "json", "of": "b", "output": "c"}]
    program = {"calls": calls, "transforms": transforms, "inputs": {HOSTILE: HOSTILE}}
    engine = ScriptedEngine(answers=lambda _: HOSTILE)
    with LocalServer(Runtime([engine], grace=600)) as server:
        response = httpx.post(f"{server.base}/v1/runs", json=program)
        assert response.status_code == 200, response.text
        yield server, response.json()["id"]


def no_script(page) -> None:
    assert page.evaluate("[...document.scripts].map((s) => s.getAttribute('src'))") == ["/dashboard/static/script.js"]
    assert page.evaluate("[...document.images].map((i) => i.getAttribute('src'))") == ["/dashboard/static/icon.svg"]
    assert page.locator("[onerror]").count() == 0


def test_hostile_prompts_names_and_answers_are_text(hostile, page):
    server, run = hostile
    page.goto(f"{server.base}/dashboard/runs/{run}")
    expect(page.locator("#link")).to_have_text("ended")  # so its parts have come twice: with the page, and by script
    texts = page.locator("details.value pre").all_text_contents()
    assert texts.count(HOSTILE) == 3
    assert any("alert(1)" in text for text in texts if text != HOSTILE)  # the error that quotes the value
    expect(page.locator("section.call h3").first).to_contain_text(HOSTILE)
    expect(page.locator("svg a.node").first).to_have_attribute("aria-label", f"{HOSTILE}, finished, latency: nothing"
                                                               " was stated: somebody may be waiting")  # fmt: skip
    no_script(page)
    page.goto(f"{server.base}/dashboard")
    no_script(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_fits_and_can_be_read(hostile, page, scheme, width):
    server, run = hostile
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("", f"/runs/{run}", "/engines"):
        page.goto(f"{server.base}/dashboard{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        faint = page.evaluate(CONTRAST)
        assert faint == [], path


#: Texts whose colour is too near to that of what is behind them (WCAG AA: 4.5 : 1).
CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3) return c;
    }
  };
  const found = [];
  for (const e of document.querySelectorAll("main *, header *")) {
    if (e.closest("svg") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio]);
  }
  return found;
}"""


def test_the_list_and_a_run_follow_what_happens_without_a_reload(site, page):
    page.goto(f"{site.base}/dashboard")
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator(".empty")).to_contain_text("No run yet")
    with site.running() as run:
        row = page.locator("tbody tr")
        expect(row).to_have_count(1)
        expect(row.locator(".status")).to_have_text("running")
        row.locator("a").click()
        assert page.url.endswith(run)
        streaming = page.locator("details.value.streaming")
        expect(streaming).to_have_count(3)
        first = streaming.first.locator("pre").text_content()
        assert first
        assert " " not in first
        expect(page.locator("svg a.node.waiting")).to_have_count(1)
        page.evaluate("window.mine = 1")
        site.open_gate()
        expect(page.locator("#part-status .status")).to_have_text("finished")
        assert page.evaluate("window.mine") == 1
    report = page.locator("details.value", has_text="report").first.locator("pre").text_content()
    answer = httpx.get(f"{site.base}/v1/runs/{run}").json()
    assert report == answer["outputs"]["report"]
    expect(page.locator("#link")).to_have_text("ended")
    expect(page.locator("#cancel")).to_have_count(0)
    expect(page.locator("#part-timeline figcaption")).to_have_text("scripted-0")
    expect(page.locator("#part-timeline a.node")).to_have_count(4)


def test_the_graph_shows_objective_group_prefix_and_critical_path(site, page):
    program = {**PROGRAM, "parrot": {"objectives": {"report": "throughput"}}}
    site.open_gate()
    run = httpx.post(f"{site.base}/v1/runs", json=program).json()["id"]
    page.goto(f"{site.base}/dashboard/runs/{run}")
    graph = page.locator("#part-graph")
    expect(graph.locator("a.node.throughput")).to_have_count(4)
    expect(graph.locator("path.line")).to_have_count(3)
    expect(graph.locator("path.line.critical")).to_have_count(1)
    expect(graph.locator("text.letter")).to_have_count(3)  # reduce begins otherwise
    expect(graph.locator(".legend")).to_contain_text("shared by 3 calls")
    expect(graph.locator("rect.group")).to_have_count(0)


def test_a_value_of_another_run_of_the_session_is_a_cut_edge(site, page):
    site.open_gate()
    session = httpx.post(f"{site.base}/v1/sessions").json()["id"]
    hint = {"parrot": {"session": session}}
    first = [{"id": "first", "output": "x", "request": request("one")}]
    second = [{"id": "second", "output": "y", "request": request("two ", ("x",))}]
    source = httpx.post(f"{site.base}/v1/runs", json={"calls": first, **hint}).json()["id"]
    run = httpx.post(f"{site.base}/v1/runs", json={"calls": second, **hint}).json()["id"]
    page.goto(f"{site.base}/dashboard/runs/{run}")
    expect(page.locator("path.line.cut")).to_have_count(1)
    page.locator("a.stub").click()
    assert page.url.endswith(source)


def test_the_keyboard_reaches_everything_and_a_live_update_takes_no_focus(site, page):
    with site.running() as run:
        page.goto(f"{site.base}/dashboard/runs/{run}")
        expect(page.locator("#link")).to_have_text("live")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = []
        while page.evaluate("document.activeElement.id") != "box-0":
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
            page.keyboard.press("Tab")
            assert len(reached) < 30
        assert {"cancel", "to-report", "to-trace", "FIGURE"} <= set(reached)
        site.open_gate()
        expect(page.locator("#part-status .status")).to_have_text("finished")
        assert page.evaluate("document.activeElement.id") == "box-0"
        page.keyboard.press("Enter")
        assert page.url.endswith("#call-0")


def test_the_cancel_button_cancels(site, page):
    with site.running() as run:
        page.goto(f"{site.base}/dashboard/runs/{run}")
        page.locator("#cancel").press("Enter")
        expect(page.locator("#part-status .status")).to_have_text("cancelled")
        assert page.url.endswith(run)
        assert httpx.get(f"{site.base}/v1/runs/{run}").json()["status"] == "cancelled"


def test_a_page_of_another_site_cancels_nothing(site, browser):
    class Attacker(BaseHTTPRequestHandler):
        def do_GET(self):
            form = f'<form method="post" action="{site.base}/dashboard/runs/{run}/cancel"></form>'
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f"{form}<script>document.forms[0].submit()</script>".encode())

        def log_message(self, *_):
            pass

    other = ThreadingHTTPServer(("127.0.0.1", 0), Attacker)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        with site.running() as run, browser.new_context() as context:
            page = context.new_page()
            with page.expect_response("**/cancel") as answer:
                page.goto(f"http://127.0.0.1:{other.server_port}/")
            assert answer.value.status == 403
            assert httpx.get(f"{site.base}/v1/runs/{run}").json()["status"] == "running"
    finally:
        other.shutdown()
        thread.join()
        other.server_close()


def test_engines_show_how_their_cache_is_used(page):
    engine = ScriptedEngine()

    async def stats() -> Stats:
        return Stats(kv_blocks_used=10, kv_blocks_cached=30, kv_blocks_total=100, running=2)

    async def outline(*, text: bool) -> tuple[CachedPrefix, ...]:
        leaves = (CachedPrefix(16, 1, 2, HOSTILE), CachedPrefix(32, 2, 0, "another"))
        return (CachedPrefix(48, 3, 2, HOSTILE if text else "", leaves if text else (), 4),)

    engine.stats, engine.outline = stats, outline
    with LocalServer(Runtime([engine])) as server:
        page.goto(f"{server.base}/dashboard/engines")
        expect(page.locator("svg.meter")).to_have_attribute(
            "aria-label", "10 blocks used by sequences, 30 hold cached prefixes, of 100"
        )
        tree = page.locator("ul.tree").first
        expect(tree).to_contain_text("48 tokens in 3 blocks, 2 reading")
        assert tree.locator("code").all_text_contents() == [HOSTILE, HOSTILE, "another"]
        expect(tree).to_contain_text("and 4 more")
        no_script(page)
        width = page.locator("svg.meter .used").evaluate("(e) => e.getBoundingClientRect().width")
        whole = page.locator("svg.meter .room").evaluate("(e) => e.getBoundingClientRect().width")
        assert width == pytest.approx(whole / 10, rel=0.01)


def test_where_keys_are_asked_for_one_logs_in_and_sees_ones_own(tmp_path, page):
    store = TenantStore(tmp_path)
    ann, bob, operator = (make(store, name, operator=name == "boss")[0] for name in ("ann", "bob", "boss"))
    with LocalServer(Runtime([ScriptedEngine()], grace=600), keyring=Keyring(store)) as server:
        runs = {
            name: httpx.post(f"{server.base}/v1/runs", json=PROGRAM, headers={"Authorization": f"Bearer {key}"}).json()
            for name, key in (("ann", ann), ("bob", bob))
        }

        def log_in(key):
            page.goto(f"{server.base}/dashboard")
            assert page.url.endswith("/dashboard/login")
            expect(page.locator("#key")).to_be_focused()
            page.keyboard.type(key)
            page.keyboard.press("Enter")

        log_in(ann)
        expect(page.locator(".who")).to_have_text("ann")
        expect(page.locator("tbody a")).to_have_attribute("href", f"/dashboard/runs/{runs['ann']['id']}")
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/dashboard")
        page.locator("tbody a").click()
        expect(page.locator("#part-status .status")).to_have_text("finished")
        assert page.request.get(f"{server.base}/dashboard/runs/{runs['ann']['id']}/report").status == 200
        for path in ("", "/report", "/trace"):
            assert page.request.get(f"{server.base}/dashboard/runs/{runs['bob']['id']}{path}").status == 404
        assert page.request.get(f"{server.base}/dashboard/live/runs/{runs['bob']['id']}").status == 404
        assert page.request.get(f"{server.base}/v1/runs").status == 401  # the cookie is the dashboard's alone
        page.goto(f"{server.base}/dashboard/engines")
        expect(page.locator("svg.meter")).to_have_count(0)
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        log_in(operator)
        expect(page.locator(".empty")).to_contain_text("No run yet")
        page.goto(f"{server.base}/dashboard/engines")
        expect(page.locator("svg.meter")).to_have_count(1)
    store.close()
