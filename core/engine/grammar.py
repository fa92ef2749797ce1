"""Grammars of answers: compiled and cached beside the engine's loop, a mask of the tokens that may come next.

llguidance does both, in Rust and without the interpreter's lock, so masks are made while the model runs.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from semantic_parrot.core.engine.closing import Closer, Way
from semantic_parrot.core.errors import InvalidRequest
from semantic_parrot.core.grammar import Grammar

#: Compiled grammars that are kept, of all salts together; each takes up to some MiB.
CACHED = 256
#: Seconds for which a step waits for a mask at most: the grammar's request fails then, and the others go on.
PATIENCE = 2.0
#: What the library may spend, of its own units: about 4 ms for a mask, 10 MiB of automaton.
LIMITS = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 50_000,
    "precompute_large_lexemes": False,
    "verbose_errors": False,
}
#: Between the tokens of JSON. Bounded, or a model that likes line feeds would never come to its end.
WHITE_SPACE = r"[ \n\r\t]{0,20}"
#: The least room in which the end is watched, and how often it is looked at before.
WATCHED, EVERY = 48, 16


class Grammars:
    """`make_tokenizer` gives the library's tokenizer, which takes seconds for a large vocabulary, so it is made with
    the first grammar. Its methods are called on the loop's thread, and return at once."""

    def __init__(self, make_tokenizer: Callable[[], Any]) -> None:
        self._make_tokenizer = make_tokenizer
        self._cache: OrderedDict[tuple[str, str, str], Future[Any]] = OrderedDict()
        # One thread each: a grammar that takes long to compile holds up other new ones, and no mask.
        self._compiler = ThreadPoolExecutor(1, "grammar-compiler")
        self._masks = ThreadPoolExecutor(1, "grammar-masks")
        self._tokenizer: Any = None
        self._closer: Closer | None = None

    def compile(self, grammar: Grammar, salt: str = "") -> Future[Any]:
        """What `constraint` takes, when it is there; the future raises InvalidRequest for what the library refuses.
        `salt`: as in Directions. One that somebody with another salt has had compiled is compiled again."""
        key = (salt, grammar.kind, grammar.text)
        future = self._cache.get(key)
        if future is None:
            future = self._cache[key] = self._compiler.submit(self._compile, grammar)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return future

    def constraint(self, compiled: Any, grammar: Grammar, eos: frozenset[int], *, ignore_eos: bool) -> Constraint:
        """For one answer, which one of `eos` may end once it is complete (`ignore_eos`: none may)."""
        assert self._closer is not None, "compiled without a tokenizer"
        return Constraint(compiled.deep_copy(), grammar, eos, ignore_eos, self._masks, self._closer)

    def _compile(self, grammar: Grammar) -> Any:
        from llguidance import LLMatcher, LLParserLimits

        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
            self._closer = Closer(self._tokenizer)
        text = _in_library_terms(grammar)
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=LLParserLimits(**LIMITS))
        if not matcher.is_error():
            matcher.compute_bitmask()  # most of the work is done for the first one
        if matcher.is_error():
            raise InvalidRequest(f"the grammar is refused: {_why(matcher)}", where=grammar.where)
        return matcher


def grammar_tokenizer(tokenizer: Any, vocabulary: int, eos: int | None) -> Any:
    """llguidance's tokenizer for a `transformers` one; `vocabulary`: tokens that have a logit. Raises InvalidRequest
    where the model's tokenizer has no fast form."""
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=eos)
    except ValueError as error:
        raise InvalidRequest(f"the model's tokenizer does not take grammars: {error}") from error


def _in_library_terms(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    if grammar.kind == "regex":
        return str(LLMatcher.grammar_from_regex(grammar.text))
    if grammar.kind == "json":
        overrides: Any = {"whitespace_pattern": WHITE_SPACE, "lenient": False}
        return str(LLMatcher.grammar_from_json_schema(grammar.text, overrides=overrides))
    if grammar.kind == "choice":
        return "start: " + " | ".join(json.dumps(choice) for choice in json.loads(grammar.text))
    return grammar.text


def _why(matcher: Any) -> str:
    return " ".join(str(matcher.get_error()).split())[:300]


class Constraint:
    """The grammar of one answer: follows its tokens, and is not undone by a preemption, which takes none back."""

    def __init__(
        self,
        matcher: Any,
        grammar: Grammar,
        eos: frozenset[int],
        ignore_eos: bool,
        pool: ThreadPoolExecutor,
        closer: Closer,
    ) -> None:
        self._matcher = matcher
        self._grammar = grammar
        self._eos = eos
        self._ends: frozenset[int] = frozenset() if ignore_eos else eos
        self._pool = pool
        self._closer = closer
        self._way: Way | None = None  # from here to the end of the answer, where the end is near
        self._watched = WATCHED
        self._advanced = 0
        self._mask: Future[Tensor] | None = None
        self.prepare()

    def prepare(self) -> None:
        """Begin to compute the mask of the next token."""
        self._mask = self._pool.submit(self._compute)

    def mask(self) -> Tensor:
        """The tokens that may be next, as `core.engine.penalties.allow` takes them. Raises InvalidRequest where the
        grammar has become too much for the library."""
        assert self._mask is not None
        try:
            return self._mask.result(PATIENCE)
        except TimeoutError:
            raise self._refusal("computing its mask takes too long") from None

    def _compute(self) -> Tensor:
        bits = bytearray(self._matcher.compute_bitmask())
        if self._matcher.is_error():
            raise self._refusal(_why(self._matcher))
        may_end = bool(self._ends) and self._matcher.is_accepting()
        for token in self._eos:
            bits[token >> 3] = bits[token >> 3] & ~(1 << (token & 7)) | may_end << (token & 7)
        return torch.frombuffer(bits, dtype=torch.int32)

    def closing(self, token: int, left: int) -> int:
        """The token to take where `token` has been drawn and `left` tokens are left, it included: `token`, or, where
        the answer could not be completed any more after it, the first of the shortest known way to its end.

        A way is kept at any time from when one fits, so an answer that has one is complete when it ends.
        """
        if token in self._ends:
            return token
        if left > self._watched:
            self._way = None
            if self._advanced % EVERY:
                return token
        elif self._way is None:
            self._way = self._find(self._matcher, left)
        if self._way and self._way[0] == token:
            self._way = self._way[1:]
            return token
        after = self._matcher.deep_copy()
        if not after.consume_token(token):
            return token  # said by `advance`
        way = self._find(after, min(left - 1, 4 * WATCHED) if left > self._watched else left - 1)
        if way is None and self._way and left <= self._watched:
            first, self._way = self._way[0], self._way[1:]
            return first
        # Twice as far as it takes now: a token or two may open what takes long to close.
        self._watched = max(self._watched, WATCHED + 2 * len(way)) if way is not None else left
        self._way = way
        return token

    def _find(self, matcher: Any, room: int) -> Way | None:
        return self._closer.way(matcher, self._ends, room, json=self._grammar.kind in ("json", "lark"))

    def advance(self, token: int) -> bool:
        """The answer has got `token`, none of those that end it. Returns whether nothing can follow. Raises as `mask`
        does."""
        self._advanced += 1
        if not self._matcher.consume_token(token):
            raise self._refusal(_why(self._matcher))
        return bool(self._matcher.is_stopped())

    def _refusal(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"the grammar is too much after {self._advanced} tokens: {why}", where=self._grammar.where
        )
