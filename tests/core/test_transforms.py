"""Each transform: what it gives, what it refuses, and that it agrees with the parser whose work it does."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.output_parsers import CommaSeparatedListOutputParser, JsonOutputParser
from pydantic import TypeAdapter

from semantic_parrot.core import regexes
from semantic_parrot.core.errors import InvalidProgram, NoMatch, TooLarge, TransformFailed, WrongType
from semantic_parrot.core.grammar import check_pattern
from semantic_parrot.core.operations import Transform
from semantic_parrot.core.transforms import apply, check
from semantic_parrot.core.value import MAX_DEPTH, MAX_SIZE, as_text, refuse_large, shown
from semantic_parrot.core.wire import render, template

TRANSFORM = TypeAdapter(Transform)


def make(op, **fields):
    found = TRANSFORM.validate_python(
        {"id": "t", "output": "y", "op": op, **({} if op == "template" else {"of": "x"}), **fields}
    )
    check(found, "transforms[0]")
    return found


def run(op, value, others=None, **fields):
    return apply(make(op, **fields), {"x": value, **(others or {})})


NO_XML_TEXT = ["a<b", "a & b", "&copy;", "x\x0b", "\ud800", "<b>x</b>", "<b/>", "</t><t>", "</t>", "]]>", "<!-- x"]


@pytest.mark.parametrize("text", NO_XML_TEXT)
def test_markup_and_what_xml_forbids_is_no_xml_text(text):
    with pytest.raises(NoMatch):
        run("xml_text", text)


DOC = {"items": [{"name": "a"}, {"name": "b"}], "n": 3}


@pytest.mark.parametrize(
    ("op", "value", "fields", "result"),
    [
        ("strip", " \u2003a b\n", {}, "a b"),
        ("strip", "--a-", {"chars": "-"}, "a"),
        ("strip", " a ", {"side": "left"}, "a "),
        ("strip", " a ", {"side": "right"}, " a"),
        ("escape", "<b> & \"q\" 'a' &amp;", {}, "&lt;b&gt; &amp; &quot;q&quot; &#x27;a&#x27; &amp;amp;"),
        ("unescape", "&lt;&amp;amp;&copy&#65;&nope;", {}, "<&amp;©A&nope;"),
        ("xml_text", "a\r\nb\rc &lt;&amp;amp;&#65; <!-- x --><![CDATA[<&]]>", {}, "a\nb\nc <&amp;A <&"),
        ("xml_text", "", {}, ""),
        ("json", '{"a": [1, 1.5, true, null]}', {}, {"a": [1, 1.5, True, None]}),
        ("json", '```json\n{"a": 1}\n```', {}, {"a": 1}),
        ("json", 'Here it is:\n```json\n["x"]\n```', {}, ["x"]),
        ("json", '```\n3\n```', {}, 3),
        ("json", '{"a": 1}', {"only": "object"}, {"a": 1}),
        ("json", '"a\nb"', {}, "a\nb"),
        ("json", '{"action_input": "a\tb"}', {}, {"action_input": "a\tb"}),
        ("get", DOC, {"path": ["items", 1, "name"]}, "b"),
        ("get", DOC, {"path": ["items", -1]}, {"name": "b"}),
        ("get", {"a": None}, {"path": ["a"]}, None),
        ("member", DOC, {"key": "items"}, DOC["items"]),
        ("member", ["items"], {"key": "items"}, ["items"]),
        ("member", "items", {"key": "items"}, "items"),
        ("regex", "Answer: 42.", {"pattern": r"(\d)(\d)"}, "42"),
        ("regex", "Answer: 42.", {"pattern": r"(\d)(?P<last>\d)", "group": "last"}, "2"),
        ("regex", "é 42", {"pattern": r"\d", "mode": "search"}, "4"),
        ("regex", "42", {"pattern": r"\d+", "mode": "match"}, "42"),
        ("regex", "42", {"pattern": r"\d+", "mode": "fullmatch"}, "42"),
        ("regex", "1. a\n2. b", {"pattern": r"\d+\.\s([^\n]+)", "mode": "findall", "group": 1}, ["a", "b"]),
        ("regex", "abc", {"pattern": r"(x)?b", "mode": "findall", "group": 1}, [""]),
        ("regex", "nothing", {"pattern": r"\d", "mode": "findall"}, []),
        ("regex", "é1ü2", {"pattern": r"\d", "mode": "replace", "replacement": r"\0"}, r"é\0ü\0"),
        ("regex", "ab", {"pattern": "", "mode": "replace", "replacement": "-"}, "-a-b-"),
        ("csv", 'a, "b, c",d', {}, ["a", "b, c", "d"]),
        ("csv", "", {}, []),
        ("split", " a  b ", {}, ["a", "b"]),
        ("split", "a||b||c", {"sep": "||", "maxsplit": 1}, ["a", "b||c"]),
        ("join", ["a", "b"], {"sep": ", "}, "a, b"),
        ("join", [], {}, ""),
        ("template", [1.0, None, {"b": True}], {"template": template("<", ("x",))}, "<[1.0, None, {'b': True}]"),
        ("compare", "yes", {"test": "equals", "to": {"value": "yes"}}, True),
        ("compare", 1, {"test": "equals", "to": {"value": 1.0}}, True),
        ("compare", None, {"test": "equals", "to": {"value": None}}, True),
        ("compare", "an anthropic", {"test": "contains", "to": {"value": "anthropic"}}, True),
        ("compare", [1, 2], {"test": "contains", "to": {"value": 3}}, False),
        ("compare", DOC, {"test": "contains", "to": {"value": "n"}}, True),
        ("compare", "yes", {"test": "starts_with", "to": {"value": "y"}}, True),
        ("compare", "yes", {"test": "ends_with", "to": {"value": "y"}}, False),
        ("compare", 1, {"test": "less", "to": {"value": 1.5}}, True),
        ("compare", "b", {"test": "greater_or_equal", "to": {"value": "a"}}, True),
        ("select", True, {"cases": [{"when": True, "var": "a"}], "default": "b"}, "A"),
        ("select", "x", {"cases": [{"when": "y", "var": "a"}], "default": "b"}, "B"),
    ],
)  # fmt: skip
def test_what_each_gives(op, value, fields, result):
    found = run(op, value, {"a": "A", "b": "B"}, **fields)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("op", "value", "fields", "error", "words"),
    [
        *((op, value, fields, WrongType, "expected a text, got")
          for op, fields in (("strip", {}), ("json", {}), ("csv", {}), ("split", {}), ("regex", {"pattern": "a"}))
          for value in (None, True, 7, 1.5, ["a"], {"a": 1})),
        ("join", "abc", {}, WrongType, "a list of texts, got a text: 'abc'"),
        ("join", ["a", 1], {}, WrongType, "member 1 is a number: '1'"),
        ("get", "text", {"path": [0]}, WrongType, "a list, got a text: 'text'"),
        ("get", [1], {"path": ["a"]}, WrongType, "an object, got a list"),
        ("get", DOC, {"path": ["items", 2]}, NoMatch, "no 2"),
        ("get", DOC, {"path": ["nobody"]}, NoMatch, "no 'nobody'"),
        ("member", DOC, {"key": "nobody"}, NoMatch, "no 'nobody'"),
        ("json", "no JSON here", {}, NoMatch, "no JSON here"),
        ("json", '[{"a": 1}]', {"only": "object"}, WrongType, "an object, got a list"),
        ("json", '{"action_input": "say "hi" "}', {}, NoMatch, "no valid JSON"),
        ("json", '{"a": 1', {}, NoMatch, "no valid JSON"),
        ("json", "", {}, NoMatch, "no valid JSON"),
        ("json", "NaN", {}, NoMatch, "NaN"),
        ("json", "1e999", {}, NoMatch, "out of range"),
        ("json", "9" * 5000, {}, NoMatch, "999"),
        ("json", r'"\ud800"', {}, NoMatch, "surrogate"),
        ("json", "[" * 100_000, {}, TooLarge, "too deep"),
        ("json", "[" * 200 + "]" * 200, {}, TooLarge, "deeper"),
        ("regex", "abc", {"pattern": "x"}, NoMatch, "'x' does not match a text: 'abc'"),
        ("regex", "b", {"pattern": "(a)?b", "group": 1}, NoMatch, "group 1"),
        ("regex", "a\ud800", {"pattern": "a"}, NoMatch, "surrogate"),
        ("regex", "a" * (regexes.MAX_TEXT + 1), {"pattern": "a"}, TooLarge, "100000"),
        ("regex", "a" * 50_000, {"pattern": "a", "mode": "findall"}, TooLarge, "too long"),
        ("regex", "ab" * 50_000, {"pattern": "(?:[ab]*a[ab]{190}){5}c{50}"}, TooLarge, "too long"),
        ("regex", "a" * 500, {"pattern": "a", "mode": "replace", "replacement": "b" * 9999}, TooLarge, "replacing"),
        ("strip", "a" * (MAX_SIZE + 1), {}, TooLarge, "aaa"),
        ("join", ["a" * 1000] * 1000, {"sep": "--"}, TooLarge, "more than"),
        ("template", "a" * 1000, {"template": template(*[("x",)] * 1001)}, TooLarge, "more than"),
        ("compare", "1", {"test": "less", "to": {"value": 1}}, WrongType, "two texts or two numbers"),
        ("compare", True, {"test": "less", "to": {"value": 2}}, WrongType, "two texts or two numbers"),
        ("compare", "1", {"test": "contains", "to": {"value": 1}}, WrongType, "a number can't"),
        ("compare", [], {"test": "starts_with", "to": {"value": "a"}}, WrongType, "a text"),
        ("select", "z", {"cases": [{"when": "y", "var": "x"}]}, NoMatch, "no case for a text: 'z'"),
    ],
)  # fmt: skip
def test_what_each_refuses(op, value, fields, error, words):
    with pytest.raises(TransformFailed) as caught:
        run(op, value, **fields)
    assert type(caught.value) is error
    assert words in caught.value.message
    assert caught.value.status == 422


@pytest.mark.parametrize("value", ["x" * 200, ["x" * 200], {"x" * 200: 1}])
def test_a_message_shows_the_first_80_characters_and_no_more(value):
    with pytest.raises(WrongType) as caught:
        run("get", value, path=[0] if isinstance(value, dict | str) else ["a"])
    assert repr(as_text(value)[:80])[1:-1] in caught.value.message
    assert "x" * 81 not in caught.value.message


def test_two_variables_are_compared():
    assert run("compare", 3, {"y": 2}, test="greater", to={"var": "y"}) is True


def test_re2_keeps_no_pattern_for_the_next_who_comes():
    """How long one takes to compile would tell whether another tenant has used it."""
    import re2

    re2.purge()
    check_pattern("of a schema [0-9]+", "f")
    assert run("regex", "it is of a transform 42", pattern="of a transform [0-9]+") == "of a transform 42"
    assert re2._Regexp._make.cache_info().currsize == 0


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(?<!a)b", "[", "a{2000}", "(((a{30}){30}){30})"])
def test_what_re2_refuses_is_refused_before_anything_runs(pattern):
    with pytest.raises(InvalidProgram) as caught:
        make("regex", pattern=pattern)
    assert caught.value.where == "transforms[0].pattern"


def test_a_pattern_that_explodes_elsewhere_takes_linear_time():
    with pytest.raises(NoMatch):
        run("regex", "a" * regexes.MAX_TEXT, pattern="(a+)+(a*)*$b")


def test_an_answer_may_have_many_matches():
    listed = [f"entry number {i}" for i in range(300)]
    text = "\n".join(f"{i}. {entry}" for i, entry in enumerate(listed))
    assert run("regex", text, pattern=r"\d+\.\s([^\n]+)", mode="findall", group=1) == listed


# LangChain is the oracle: the same value, or an error of ours.

fragments = st.sampled_from(
    ['{', '}', '[', ']', '"', '"a"', ':', ',', '1', '-', '0.5', 'true', 'null', 'NaN', '\\', '\\"', '\\n', '\n', '\t',
     '```', '```json', '`', ' ', 'text', '"action_input": "', '{"a": 1}', '[1, 2]', '\u2003', 'é', 'f', 'I', '\\u00e9']
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FAILED = object()


def attempt(parse, *args):
    try:
        return parse(*args)
    except Exception:
        return FAILED


@given(st.lists(fragments, max_size=12).map("".join) | st.text(max_size=30))
def test_json_never_gives_what_langchain_does_not(text):
    ours = attempt(run, "json", text)
    if ours is not FAILED:
        theirs = JsonOutputParser().parse(text)
        assert ours == theirs
        assert as_text(ours) == str(theirs)


around = st.sampled_from(
    [
        "{}",
        " {}\n",
        "```json\n{}\n```",
        "```\n{}\n```",
        "Sure! Here it is:\n```json\n{}\n```",
        "`{}`",
        "\n\n```json{}```",
    ]
)


@given(values, around, st.sampled_from([None, 2]), st.booleans())
def test_json_gives_what_langchain_gives_for_every_whole_answer(value, around, indent, ascii_only):
    text = around.replace("{}", json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    theirs = attempt(JsonOutputParser().parse, text)
    assert theirs is not FAILED
    # A text may hold fences or quotes of its own; then LangChain may read something else, and we may refuse.
    ours = attempt(run, "json", text)
    assert ours is FAILED or as_text(ours) == str(theirs)
    if not set(string.punctuation) & set("".join(c for c in str(value) if c not in "[]{}(),.:'-+_")):
        assert ours == theirs == value


@given(st.text(st.sampled_from("ab,\"\n\r '\0"), max_size=20) | st.text(max_size=30))
def test_csv_is_langchains(text):
    theirs = attempt(CommaSeparatedListOutputParser().parse, text)
    assert attempt(run, "csv", text) == theirs


def test_csv_is_langchains_where_python_refuses():
    text = "a, " + "b" * 140_000 + " ,c"
    assert run("csv", text) == CommaSeparatedListOutputParser().parse(text)


@given(values)
def test_a_value_in_a_prompt_reads_as_in_an_f_string(value):
    assert render({"prompt": template("<", ("x",), ">")}, {"x": value}) == {"prompt": f"<{value}>"}


def test_a_value_is_measured_however_much_of_it_is_shared():
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(TooLarge, match="members"):
        refuse_large(value)
    deep = "x"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(TooLarge, match="deeper"):
        refuse_large(deep)
    refuse_large(deep[0])
    refuse_large(["x" * 999] * 1000)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=60)),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(max_size=20), inner)),
    )
)
def test_a_value_is_shown_by_its_first_80_characters(value):
    assert shown(value).endswith(repr(as_text(value)[:80]))


def test_a_value_too_large_to_be_written_out_is_shown_too():
    huge = ["x" * 100]
    for _ in range(100):
        huge = [huge, huge]
    assert shown(huge) == f"a list: {'[' * 80!r}"
    with pytest.raises(TooLarge, match="more than 1000000 characters and members: a list: "):
        refuse_large(["x"] * (MAX_SIZE + 1))
