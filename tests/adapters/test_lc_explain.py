"""`explain`: the tree, its graph and its page; and `parrot explain module:chain`."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from operator import itemgetter

import pytest
from langchain_core.output_parsers import CommaSeparatedListOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableGenerator, RunnableLambda, RunnableParallel
from lc_shapes import P, Pair, S, shout, step

from semantic_parrot.adapters.explanation import Shared
from semantic_parrot.adapters.langchain import ChatParrot, explain
from semantic_parrot.server.explain.command import ExplainOptions
from semantic_parrot.server.explain.command import explain as command

LLM = ChatParrot(temperature=0, model="m")
HERE = __file__


def opaque(x):
    x = [x]
    return x[0]


def pieces(chunks):
    yield from chunks


class Own(RunnableLambda):
    """A subclass is the app's."""


def line_of(text):
    with open(HERE) as file:
        return next(number for number, line in enumerate(file, 1) if line.startswith(text))


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        (RunnableLambda(opaque), "def opaque"),
        (RunnableLambda(partial(opaque)), "def opaque"),
        (RunnableGenerator(pieces), "def pieces"),
        (RunnableBranch((opaque, step("B {y}", LLM)), step("C {y}", LLM)), "def opaque"),
        (PromptTemplate.from_template("B {y} {n}", partial_variables={"n": opaque}), "def opaque"),
        (Own(lambda x: x), "class Own"),
    ],
)
def test_a_cut_names_the_code_that_caused_it(piece, text):
    (cut,) = explain(step("A {x}", LLM) | piece | LLM, {"x": "1"}).cuts
    assert cut.source is not None
    assert (cut.source.file, cut.source.line) == (HERE, line_of(text))
    assert f"({HERE}:{line_of(text)})" in cut.words()


def test_a_parser_is_cut_because_of_the_class_it_parses_into():
    (cut,) = explain(step("A {x}", LLM) | PydanticOutputParser(pydantic_object=Pair) | LLM, {"x": "1"}).cuts
    assert cut.source is not None
    assert cut.source.file.endswith("lc_shapes.py")


def test_what_is_cut_for_no_code_names_none():
    (cut,) = explain(step("A {x}", LLM) | P("{y!r}") | LLM, {"x": "1"}).cuts
    assert cut.source is None


def expert(text):
    return ChatPromptTemplate.from_messages([("system", "You know it."), ("human", text)]) | LLM | S()


CHAIN = {"a": expert("A {x}"), "b": expert("B {x}")} | P("J {a} {b}") | LLM


def test_what_calls_share_and_need():
    calls = {piece.call: piece for piece in explain(CHAIN, {"x": "1"}).root.walk() if piece.call}
    assert calls["text0"].shares == Shared(len("You know it."), (), ("text1",), 1)
    assert calls["text1"].shares == Shared(len("You know it."), (), ("text0",), 1)
    assert calls["text2"].shares is None
    assert calls["text2"].needs == ("text0", "text1")
    assert "shares" in str(explain(CHAIN, {"x": "1"}))


def test_a_prefix_goes_as_far_as_all_is_alike():
    first, second = P("Read {y}: what of {q}?") | LLM, P("Read {y}: what else?") | LLM
    chain = {"y": step("A {x}", LLM), "q": step("Q {x}", LLM)} | RunnableParallel(a=first, b=second, c=P("Re") | LLM)
    calls = {piece.call: piece for piece in explain(chain, {"x": "1"}).root.walk() if piece.call}
    assert calls["text2"].shares == Shared(len("Read : what "), ("text0",), ("text3",), 1)
    assert calls["text3"].shares == Shared(len("Read : what "), ("text0",), ("text2",), 1)
    assert calls["text4"].shares == Shared(len("Re"), (), ("text2", "text3"), 2)


def test_a_call_needs_what_its_values_are_made_of():
    made = P("[json a b] {x}") | LLM | JsonOutputParser() | {"a": itemgetter("a")} | P("{a}") | LLM
    calls = {piece.call: piece for piece in explain(made, {"x": "1"}).root.walk() if piece.call}
    assert calls["text1"].needs == ("text0",)
    assert calls["text1"].reads != ("text0",)
    mapped = (
        P("[list] {x}") | LLM | CommaSeparatedListOutputParser() | step("E {i}", LLM).map() | (lambda t: t[0]) | LLM
    )
    calls = {piece.call: piece for piece in explain(mapped, {"x": "1"}).root.walk() if piece.call}
    assert calls["text1"].repeated
    assert calls["text1"].needs == ("text0",)
    assert calls["text2"].needs == ("text1",)


def test_the_graph_has_the_tree_and_the_answers_that_are_read():
    chain = step("A {x}", LLM) | RunnableLambda(lambda y: {"y": y}) | P('B "{y}"') | LLM | shout | LLM
    graph = explain(chain, {"x": "1"}).to_mermaid().splitlines()
    assert graph[0] == "flowchart TD"
    assert '  n2["ChatParrot<br>call#44; makes text0"]:::call' in graph
    assert '  n6["ChatParrot<br>call#44; makes text1 reads text0"]:::call' in graph
    assert "  n2 -. text0 .-> n6" in graph
    assert [line for line in graph if line.startswith("  n0 --> ")] == [f"  n0 --> n{i}" for i in range(1, 9)]
    assert sum(line.endswith(":::cut") for line in graph) == 1
    assert graph[9].endswith(":::waits")


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone_and_names_are_text():
    chain = (step("A {x}", LLM) | opaque | LLM).with_config(run_name="<script>alert(1)</script>")
    explained = explain(chain, {"x": "1"})
    page = _Page(explained.to_html())
    assert page.open == ["html"]
    assert set(page.tags) <= set("html meta title style h1 p ul li b span h2 table tr th td".split())
    assert "light-dark(" in page.text
    assert "url(" not in page.text
    assert explained.summary() in page.text
    for piece in explained.root.walk():
        assert piece.name in page.text
        assert piece.words() in page.text
    assert f"{HERE}:{line_of('def opaque')}" in page.text


MODULE = """
from langchain_core.prompts import ChatPromptTemplate
from semantic_parrot.adapters.langchain import ChatParrot

chain = ChatPromptTemplate.from_template("A {x}") | ChatParrot() | (lambda m: {"y": m}) | (lambda d: d) | ChatParrot()
number = 1
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "an_app.py").write_text(MODULE)
    (tmp_path / "broken_app.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("an_app", "broken_app"):
        sys.modules.pop(name, None)


def test_a_chain_of_a_module_on_the_command_line(app, capsys):
    given = json.dumps({"x": "1"})
    assert command(ExplainOptions(what="an_app:chain", input=given)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("1 planned call, 2 round trips expected\nRunnableSequence\n")
    assert "call, makes text0" in shown
    assert command(ExplainOptions(what="an_app:chain", input=given, as_mermaid=True)) == 0
    assert capsys.readouterr().out.startswith("flowchart TD")
    assert command(ExplainOptions(what="an_app:chain", input=given, html=app / "x.html")) == 0
    assert (app / "x.html").read_text().startswith("<!doctype html>")
    assert command(ExplainOptions(what="an_app:chain")) == 0
    assert "variable 'x' is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"what": "no_app:chain"}, "No module named 'no_app'"),
        ({"what": "broken_app:chain"}, "broken_app can't be imported: ZeroDivisionError"),
        ({"what": "an_app:nothing"}, "an_app has no nothing"),
        ({"what": "an_app:number"}, "is a int, and no chain"),
        ({"what": "an_app:chain", "input": "{"}, "--input is no JSON"),
        ({"what": "an_app:chain", "as_json": True}, "--mermaid and --html"),
        ({"what": "run_1", "input": "{}"}, "--input is for a chain"),
    ],
)
def test_what_is_no_chain_is_refused_in_one_line(app, capsys, options, words):
    assert command(ExplainOptions(**options)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_the_command_as_a_user_runs_it(app):
    parrot = [sys.executable, "-m", "semantic_parrot.server.cli", "explain", "an_app:chain", "--input", '{"x": "1"}']
    done = subprocess.run(parrot, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "call, makes text0" in done.stdout
