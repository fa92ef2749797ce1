"""Answers within a grammar: of models with random weights, at temperature 1, so that nothing but the grammar helps."""

from __future__ import annotations

import json
import re
from concurrent.futures import Future
from dataclasses import replace
from threading import Event
from typing import Any

import jsonschema
import pytest

from semantic_parrot.core.engine import grammar, preparing
from semantic_parrot.core.engines.protocol import Directions
from semantic_parrot.core.grammar import Grammar, schema_grammar

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "object": PERSON,
    "any object": {"type": "object"},
    "anything": {},
    "nested arrays": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "number"}, {"$ref": "#"}]}},
    "recursion": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["v", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "enum": {"enum": ["red", "green", 3, None, {"a": [1]}]},
    "const": {"type": "object", "properties": {"kind": {"const": "zażółć 🦜"}}, "required": ["kind"]},
    "bounds": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 100, "maximum": 9000}, "minItems": 2},
    "pattern": {
        "type": "object",
        "properties": {"p": {"type": "string", "pattern": "^[a-z]{3,8}-[0-9]+$"}},
        "required": ["p"],
    },
    "format": {"type": "string", "format": "date"},
    "tuple": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "string"}], "items": False, "minItems": 2},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            PERSON | {"additionalProperties": True},
        ]
    },
    "keys": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 0},
}
EXPLODES = {
    "allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(6)]} for i in range(8)]
}
FORMATS = jsonschema.FormatChecker()


@pytest.fixture
def constrained(ask):
    """constrained(grammar, seed, max_tokens, **sampling): a request at temperature 1."""

    def make(grammar: Grammar, seed: int = 0, max_tokens: int | None = 80, **sampling: Any):
        options = {"temperature": 1.0, "seed": seed, "ignore_eos": False, **sampling}
        return replace(ask(f"Write {seed}", max_tokens, **options), grammar=grammar)

    return make


@pytest.fixture(scope="module")
def b(tiny, bench):
    return bench(tiny("llama"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schema(b, constrained, name):
    schema = SCHEMAS[name]
    done = b.run(*(constrained(schema_grammar(schema, "f"), seed, room) for seed in range(4) for room in (60, 200)))
    assert {d.reason for d in done} == {"stop"}
    for d in done:
        jsonschema.validate(json.loads(d.text), schema, format_checker=FORMATS)
    if name == "object":
        assert len({d.text for d in done}) > 1


def test_what_cannot_close_ends_with_length(b, constrained):
    schema = {"type": "string", "minLength": 100}
    done = b.run(*(constrained(schema_grammar(schema, "f"), seed, 20) for seed in range(3)))
    assert [(d.reason, d.usage.completion) for d in done] == [("length", 20)] * 3
    assert all(d.text.lstrip().startswith('"') for d in done if d.text.strip())


def test_a_short_limit_closes_as_a_long_one_begins(b, constrained):
    """Near its end an answer is held to a way that closes it; before that, the limit changes nothing."""
    long = b.run(constrained(schema_grammar({"type": "array", "items": {"type": "integer"}}, "f"), 5, 400))[0]
    short = b.run(constrained(schema_grammar({"type": "array", "items": {"type": "integer"}}, "f"), 5, 40))[0]
    assert short.reason == "stop"
    assert json.loads(short.text) is not None
    assert long.text[:10] == short.text[:10]


@pytest.mark.parametrize(
    "pattern", ["[a-z]{3}-[0-9]{2,4}", "(foo|bar)+[0-9]?", "é+x*", "(?i)yes|no", r"\d{4}-\d{2}-\d{2}T.*Z"]
)
def test_regex(b, constrained, pattern):  # fmt: skip
    for d in b.run(*(constrained(Grammar("regex", pattern, "f"), seed, 40) for seed in range(6))):
        assert d.reason == "stop"
        assert re.fullmatch(pattern, d.text)


def test_choice(b, constrained):
    choices = ["yes", "no", 'a "quoted"\nline', "🦜 zażółć"]
    seen = {d.text for d in b.run(*(constrained(Grammar("choice", json.dumps(choices), "f"), s) for s in range(24)))}
    assert seen <= set(choices)
    assert len(seen) > 1


def test_a_stop_string_still_stops(b, constrained):
    d = b.run(constrained(Grammar("regex", "abc[0-9]+xyz", "f"), stop=("bc",)))[0]
    assert (d.text, d.reason) == ("a", "stop")


def test_ignore_eos_ends_where_nothing_can_follow(b, constrained):
    d = b.run(constrained(Grammar("regex", "[ab]{20}", "f"), ignore_eos=True))[0]
    assert len(d.text) == 20
    d = b.run(constrained(Grammar("regex", "[ab]{2,}", "f"), max_tokens=30, ignore_eos=True))[0]
    assert (d.reason, d.usage.completion) == ("length", 30)


def test_free_rows_are_what_they_are_alone(tiny, bench, ask, constrained):
    b = bench(tiny("llama"), deterministic=True)
    free = [ask(f"free {n}", 30, temperature=t, seed=n) for n, t in enumerate((0.0, 1.0, 0.7))]
    alone = [d.text for d in b.run(*free)]
    bound = [constrained(schema_grammar(PERSON, "f"), seed) for seed in range(3)]
    bound_alone = [b.run(r)[0].text for r in bound]
    mixed = b.run(*(r for pair in zip(free, bound, strict=True) for r in pair))
    assert [d.text for d in mixed[::2]] == alone
    assert [d.text for d in mixed[1::2]] == bound_alone


def test_preemption_does_not_redo_the_grammar(tiny, bench, constrained):
    schema = schema_grammar({"type": "array", "items": {"type": "integer"}, "minItems": 30}, "f")
    requests = [constrained(schema, n, 150) for n in range(4)]
    roomy, tight = bench(tiny("llama"), deterministic=True), bench(tiny("llama"), deterministic=True, kv_tokens=256)
    preempted = []
    put_back = tight.loop._planner._roster.put_back
    tight.loop._planner._roster.put_back = lambda s, now: (preempted.append(s.constraint), put_back(s, now))
    texts = [d.text for d in tight.run(*requests)]
    assert any(preempted)
    assert texts == [d.text for d in roomy.run(*requests)]


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        (schema_grammar({"type": "strin"}, "f"), "strin"),
        (schema_grammar({"type": "string", "minLength": 5, "maxLength": 2}, "f"), "minLength"),
        (schema_grammar({"type": "array", "uniqueItems": True}, "f"), "uniqueItems"),
        (schema_grammar({"$ref": "http://example.org/x"}, "f"), "example.org"),
        (schema_grammar(EXPLODES, "f"), "too large"),
        (Grammar("regex", "x(?=y)", "f"), "look-around"),
    ],
)
def test_what_the_library_refuses_is_an_error_of_one_request(b, ask, constrained, grammar, says):
    good, bad = b.submit(ask("Hello", 5)), b.submit(constrained(grammar))
    before = b.loop.stats().prompt_tokens_computed
    b.drain()
    assert b.done[good].usage.completion == 5
    assert b.failed[bad].code == "invalid_request"
    assert b.failed[bad].where == "f"
    assert says in b.failed[bad].message
    usage = b.done[good].usage
    assert b.loop.stats().prompt_tokens_computed - before == usage.prompt - usage.cached
    assert b.loop.stats().kv_blocks_used == 0


def test_one_that_takes_too_long_to_compile(b, ask, constrained, monkeypatch):
    monkeypatch.setattr(preparing, "COMPILING", 0.2)
    gate = Event()
    grammars = b.loop._grammars
    compile = grammars._compile
    monkeypatch.setattr(grammars, "_compile", lambda g: (gate.wait(), compile(g))[1])
    bad, good = b.submit(constrained(Grammar("regex", "never seen", "f"))), b.submit(ask("Hello", 5))
    b.drain()
    gate.set()
    assert "too long to compile" in b.failed[bad].message
    assert b.done[good].usage.completion == 5


def test_a_mask_that_takes_too_long_ends_its_request_only(b, ask, constrained, monkeypatch):
    prepare = grammar.Constraint.prepare

    def stuck(self):
        prepare(self)
        if self._advanced == 3:
            self._mask = Future()

    monkeypatch.setattr(grammar.Constraint, "prepare", stuck)
    monkeypatch.setattr(grammar, "PATIENCE", 0.2)
    bad, good = b.submit(constrained(Grammar("regex", "[a-z]{300}", "f"))), b.submit(ask("Hello", 5))
    b.drain()
    assert "3 tokens" in b.failed[bad].message
    assert b.done[good].usage.completion == 5
    assert b.loop.stats().kv_blocks_used == 0


@pytest.fixture
def compiled(b, monkeypatch):
    """The texts of the grammars that are compiled."""
    made = []
    compile = b.loop._grammars._compile
    monkeypatch.setattr(b.loop._grammars, "_compile", lambda g: (made.append(g.text), compile(g))[1])
    return made


def test_equal_grammars_are_compiled_once(b, constrained, compiled):
    b.run(*(constrained(Grammar("regex", "unique[0-9]{3}", "f"), seed) for seed in range(4)))
    assert compiled == ["unique[0-9]{3}"]


def test_a_tenants_grammar_is_compiled_for_nobody_else(b, constrained, compiled, monkeypatch):
    """How soon an answer begins would tell who has used the same schema; and what is kept has one bound for all."""
    request = constrained(Grammar("regex", "secret[0-9]{3}", "f"))
    for i, salt in enumerate(("ann", "bob", "", "ann", "bob", "ann"), 1):
        b.submit(request, Directions(salt=salt))
        b.drain()
        assert len(compiled) == min(i, 3)
    kept = b.loop._grammars._cache
    kept.clear()
    monkeypatch.setattr(grammar, "CACHED", 4)
    for i in range(6):
        b.submit(request, Directions(salt=f"tenant {i}"))
        b.drain()
    assert [salt for salt, _, _ in kept] == ["tenant 2", "tenant 3", "tenant 4", "tenant 5"]


def test_cancel_while_it_compiles(b, constrained):
    bad = b.submit(constrained(Grammar("regex", "cancelled[0-9]", "f")))
    b.loop.cancel(bad)
    assert not b.loop.busy
    b.drain()
    assert bad not in b.done
    assert bad not in b.failed


def test_a_number_may_have_any_digits_where_more_follows():
    """Without a way to the end from behind its first digit, that was replaced by 0, however much room was left."""
    from tiny_models import make_tokenizer

    tokenizer = make_tokenizer()
    numbers = {key: {"type": "integer"} for key in ("a", "b")}
    schema = {"type": "object", "properties": numbers, "required": ["a", "b"], "additionalProperties": False}
    eos = tokenizer.eos_token_id
    grammars = grammar.Grammars(lambda: grammar.grammar_tokenizer(tokenizer, len(tokenizer), eos))
    asked = schema_grammar(schema, "test")
    answer = grammars.constraint(grammars.compile(asked).result(), asked, frozenset({eos}), ignore_eos=False)
    tokens = tokenizer('{"a": 76, "b": 5}', add_special_tokens=False).input_ids
    for left, token in zip(range(60, 0, -1), tokens, strict=False):
        answer.mask()
        assert answer.closing(token, left) == token, tokenizer.decode([token])
        answer.advance(token)
        answer.prepare()
