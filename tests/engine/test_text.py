"""Streaming text: whole characters, held-back stop strings, and deltas that add up."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_tokenizer

from semantic_parrot.core.engine.text import TextModel, TextStream
from semantic_parrot.core.errors import EmptyPrompt, InvalidRequest
from semantic_parrot.core.request import Message

TEXT = "naïve café: 你好世界 🦜🦜 — zażółć gęślą jaźń"


@pytest.fixture(scope="module")
def text():
    return TextModel(make_tokenizer())


def stream(text, tokens, stop=()):
    s = text.stream(stop)
    deltas = []
    for token in tokens:
        deltas.append(s.push(token))
        if s.stopped:
            break
    deltas.append(s.finish())
    assert "".join(deltas) == s.text
    return deltas, s


def test_characters_stay_whole(text):
    tokens = text.encode(TEXT)
    assert len(tokens) > len(TEXT) // 2
    deltas, s = stream(text, tokens)
    assert s.text == TEXT
    assert not any("\ufffd" in d for d in deltas)
    assert sum(map(bool, deltas)) > 10  # and it does stream


@given(st.lists(st.integers(0, 399), max_size=40))
def test_any_tokens_add_up(tokens):
    text = _text()
    _, s = stream(text, tokens)
    assert s.text == text.decode(tokens)


@cache
def _text():
    return TextModel(make_tokenizer())


def test_bytes_that_make_no_character_are_shown_at_the_end(text):
    tokens = text.encode("é")[:1] if len(text.encode("é")) > 1 else text.encode("🦜")[:1]
    _, s = stream(text, tokens)
    assert s.text == text.decode(tokens)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("世界",), "naïve café: 你好"),
        (("café", "na"), ""),
        (("fé: 你", "café: 你"), "naïve "),  # of two that end together, the one that begins first
        (("fé: 你", "café: 你好"), "naïve ca"),  # the one that is whole first
        (("🦜🦜 — z",), "naïve café: 你好世界 "),
        (("nowhere",), TEXT),
        ((TEXT + "!",), TEXT),  # held back to the end, then shown
    ],
)
def test_stop(text, stop, expected):
    deltas, s = stream(text, text.encode(TEXT), stop)
    assert s.text == expected
    assert s.stopped == (expected != TEXT)
    assert "".join(deltas) == expected


@given(st.data())
def test_stop_at_any_place(data):
    pieces = data.draw(st.lists(st.text("ab ", min_size=1, max_size=4), max_size=12))
    stop = tuple(data.draw(st.lists(st.text("ab ", min_size=1, max_size=5), min_size=1, max_size=3)))
    s = TextStream(lambda tokens: "".join(pieces[t] for t in tokens), stop)
    shown = ""
    whole = ""
    for n, piece in enumerate(pieces):
        whole += piece
        shown += s.push(n)
        cut = min((at for at in map(whole.find, stop) if at >= 0), default=None)
        assert s.stopped == (cut is not None)
        if cut is not None:
            assert shown == s.text == whole[:cut]
            assert s.finish() == ""
            return
        assert whole.startswith(shown)
    assert shown + s.finish() == whole == s.text


def test_decoders_that_look_at_their_neighbours():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {"<unk>": 0, "▁the": 1, "▁quay": 2, "s": 3, "▁": 4, ".": 5}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    draw = random.Random(1)
    for _ in range(50):
        tokens = [draw.randrange(1, 6) for _ in range(12)]
        s = TextStream(lambda t: raw.decode(list(t)), ())
        for token in tokens:
            s.push(token)
        s.finish()
        assert s.text == raw.decode(tokens)


def test_encode(text):
    chat = (Message("system", "Be brief."), Message("user", "Hello"))
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert text.render(chat) == rendered
    assert text.encode(chat) == text.encode(rendered)
    with pytest.raises(EmptyPrompt):
        text.encode("")


def test_no_template():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InvalidRequest, match="no chat template"):
        TextModel(tokenizer).encode((Message("user", "Hello"),))


def test_template_that_refuses():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        TextModel(tokenizer).encode((Message("user", "Hello"),))
