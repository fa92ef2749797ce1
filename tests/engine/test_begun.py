"""Tokens of a text that grows: those of the whole text, though only its end is tokenised each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_tokenizer

from semantic_parrot.core.engine.begun import TAIL
from semantic_parrot.core.engine.text import TextModel
from semantic_parrot.core.request import UNKNOWN

PROSE = "The harbour master wrote down each ship, its cargo (12,500 tons) and the hour. naïve café 你好 🦜🦜 — it's\n\n"
WORDS = PROSE.split(" ")


def metaspace() -> TextModel:
    """As Llama's first tokenizers were: merges go over the whole text, and each text begins with a space of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    bpe.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    alphabet = sorted(set("".join(WORDS)) | {"▁"})
    bpe.train_from_iterator(
        [" ".join(WORDS)] * 3,
        trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False),
    )
    return TextModel(PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>"))


def thousands() -> TextModel:
    """As Llama 3's: digits are taken three at a time, counted from where they begin."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["111 222 123 321 the quay"] * 3, trainer)
    return TextModel(PreTrainedTokenizerFast(tokenizer_object=bpe))


MODELS = {"thousands": thousands(), "byte-level": TextModel(make_tokenizer()), "metaspace": metaspace()}
prose = st.lists(st.sampled_from(WORDS), min_size=1, max_size=120).map(" ".join)
digits = st.text("123", min_size=100, max_size=300)
anything = st.one_of(prose, digits, st.text("ab 1\n'.", max_size=400), st.text(max_size=200))


@pytest.mark.parametrize("kind", MODELS)
@given(text=anything, cuts=st.lists(st.integers(0, 400), min_size=1, max_size=8))
def test_a_text_that_grows_has_the_tokens_of_the_whole(kind, text, cuts):
    model, before = MODELS[kind], None
    for end in sorted(cuts):
        known = text[:end]
        before = model.beginning(known + UNKNOWN, None, before)
        assert before.tokens == model._ids(known, special=True)
        assert before.sure == model.beginning(known + UNKNOWN).sure


def test_only_what_is_new_is_tokenised(monkeypatch):
    model, text, before, seen = MODELS["byte-level"], " ".join(WORDS * 8), None, []
    parts = model._parts
    monkeypatch.setattr(model, "_parts", lambda texts: seen.extend(map(len, texts)) or parts(texts))
    whole = model._ids
    monkeypatch.setattr(model, "_ids", lambda text, special: seen.append(len(text)) or whole(text, special=special))
    for end in range(200, len(text), 100):
        before = model.beginning(text[:end] + UNKNOWN, None, before)
    assert len(text) > 700
    assert sorted(seen)[-2:] == [100 + TAIL, 200]
    assert before.tokens == whole(before.text, special=True)


def test_another_text_is_tokenised_anew():
    model = MODELS["byte-level"]
    before = model.beginning("The harbour master wrote it down. " * 3 + UNKNOWN)
    other = "The harbour clerk wrote it down. " * 9
    assert model.beginning(other + UNKNOWN, None, before).tokens == model.encode(other)
