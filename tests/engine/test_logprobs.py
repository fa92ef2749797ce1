"""Log-probabilities are those of the model's own distribution, and streams carry those of whole answers."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from tiny_models import make_tokenizer

from semantic_parrot.core.engine.vocabulary import Vocabulary
from semantic_parrot.core.logprobs import LOWEST

LINE = "The harbour master wrote down each ship, its cargo and the hour at which it left the quay. "


@pytest.fixture
def b(tiny, bench):
    return bench(tiny("llama"), deterministic=True)


def told(b, id):
    return [t for some in b.logprobs[id] for t in some]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 1.7, "top_k": 3, "seed": 5},
        {"repetition_penalty": 1.5, "logit_bias": ((9, 50.0),), "min_tokens": 3},
    ],
)
def test_they_are_of_the_models_own_distribution(b, ask, fields):
    id, _ = b.submit(ask(LINE, 30, logprobs=4, **fields)), b.submit(ask(LINE, 30))
    b.drain()
    expected = b.logits(id).double().log_softmax(-1)
    tokens = b.tokens(id)[b.done[id].usage.prompt :]
    found = told(b, id)
    assert [t.logprob for t in found] == pytest.approx([float(row[t]) for row, t in zip(expected, tokens, strict=True)])
    for t, row, token in zip(found, expected, tokens, strict=True):
        assert [o.logprob for o in t.top] == pytest.approx(row.topk(4).values.tolist())
        assert t.token == b.loop.text.vocabulary.spell(token)[0]
    assert all(t.logprob <= t.top[0].logprob for t in found)
    if not fields:
        assert all(t.token == t.top[0].token for t in found)


def test_bytes_are_the_text(b, ask):
    id = b.submit(ask(LINE, 60, logprobs=0, temperature=1.0, seed=2))
    b.drain()
    found = told(b, id)
    raw = b"".join(bytes(t.bytes) for t in found)
    assert raw.decode("utf-8", "replace") == b.done[id].text
    assert any(len(t.bytes) == 1 and t.bytes[0] > 127 for t in found)  # parts of characters
    assert all(t.top == () for t in found)


def test_offsets_and_chunks_go_with_the_text(b, ask):
    spell = b.loop.text.vocabulary.spell
    parts = tuple((token, -100.0) for token in range(400) if "\ufffd" in spell(token)[0])
    id = b.submit(ask(LINE, 60, logprobs=1, temperature=1.0, seed=2, stop=("never this",), logit_bias=parts))
    b.drain()
    shown = ""
    for text, some in zip(b.deltas[id], b.logprobs[id], strict=True):
        assert [t.offset < len(shown + text) for t in some] == [True] * len(some)
        shown += text
    assert shown == b.done[id].text
    found = told(b, id)
    assert len(found) == 60
    for t in found:
        assert shown[t.offset :].startswith(t.token) or t.token == "<|im_end|>"  # which has no text


def test_of_a_stop_string_there_are_none(b, ask):
    whole = b.submit(ask(LINE, 60, logprobs=0))
    b.drain()
    text = b.done[whole].text
    stop = text[20:26]
    cut = b.submit(ask(LINE, 60, logprobs=0, stop=(stop,)))
    b.drain()
    kept = told(b, cut)
    assert kept == [t for t in told(b, whole) if t.offset < text.index(stop)]
    assert b.done[cut].usage.completion > len(kept)


def test_the_end_token_has_none(b, ask):
    free = b.submit(ask(LINE, 30))
    b.drain()
    tokens = b.tokens(free)[b.done[free].usage.prompt :]
    id = b.submit(ask(LINE, 30, logprobs=0, stop_token_ids=(tokens[7],)))
    b.drain()
    assert len(told(b, id)) == tokens.index(tokens[7])


def test_a_row_without_is_the_same_beside_rows_with(b, ask):
    plain = ask(LINE, 20, temperature=0.9, seed=4)
    expected = b.run(plain)[0].text
    alone = b.submit(ask(LINE, 20, logprobs=20, temperature=0.9, seed=4))
    b.drain()
    b.submit(ask(LINE + "other", 20, logprobs=2))
    with_others = b.submit(ask(LINE, 20, logprobs=3, temperature=0.9, seed=4))
    last = b.submit(plain)
    b.drain()
    assert b.done[alone].text == b.done[with_others].text == b.done[last].text == expected
    assert [(t.logprob, t.top[:3]) for t in told(b, alone)] == [(t.logprob, t.top) for t in told(b, with_others)]
    assert last not in b.logprobs or not told(b, last)


def test_minus_infinity_is_a_number(b, ask):
    real = b.recorded.runner.run

    def run(batch):
        work, logits = real(batch)
        return work, torch.where(torch.arange(400) < 3, logits, -torch.inf)

    b.recorded.runner.run = run
    id = b.submit(ask(LINE, 2, logprobs=5))
    b.drain()
    assert [o.logprob for o in told(b, id)[0].top][3:] == [LOWEST] * 2


def test_every_token_is_spelled():
    tokenizer = make_tokenizer()
    vocabulary = Vocabulary(tokenizer)
    for token in range(len(tokenizer)):
        text, raw = vocabulary.spell(token)
        assert bytes(raw).decode("utf-8", "replace") == text == tokenizer.decode([token])
    assert vocabulary.spell(len(tokenizer) + 5) == ("", ())
    for text in ("zażółć 🦜 你好", "a b"):
        ids = tokenizer(text).input_ids
        assert b"".join(bytes(vocabulary.spell(id)[1]) for id in ids).decode() == text


class Pieces:
    """A SentencePiece vocabulary, as far as a Vocabulary looks at one."""

    all_special_ids = (0,)
    added_tokens_decoder = MappingProxyType({0: "<s>"})
    pieces = ("<s>", "▁the", "<0xE4>", "a")

    def convert_ids_to_tokens(self, token):
        return self.pieces[token] if token < len(self.pieces) else None


def test_pieces_with_byte_fallback():
    vocabulary = Vocabulary(Pieces())
    assert [vocabulary.spell(n) for n in range(5)] == [
        ("<s>", tuple(b"<s>")),
        (" the", tuple(b" the")),
        ("\ufffd", (0xE4,)),
        ("a", tuple(b"a")),
        ("", ()),
    ]
