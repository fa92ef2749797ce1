from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.core.errors import InvalidJSON
from semantic_parrot.server.body import MAX_DEPTH, parse_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES, st.booleans())
def test_what_json_says_is_what_is_read(value: Any, ascii_only: bool):
    # The content key depends on it: 0 must stay 0, and 1.0 stay 1.0.
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    read = parse_json(raw)
    assert read == value
    assert json.dumps(read) == json.dumps(value)


@given(st.binary())
def test_any_bytes_are_a_value_or_invalid_json(raw: bytes):
    with contextlib.suppress(InvalidJSON):
        json.dumps(parse_json(raw), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_the_depth_limit_is_exact(opens: str, closes: str):
    times = MAX_DEPTH // len(opens.replace('"a":', ""))
    fits = opens * times + "1" + closes * times
    parse_json(fits.encode())
    with pytest.raises(InvalidJSON, match="deeper"):
        parse_json(f"[{fits}]".encode())


def test_brackets_in_text_are_not_depth():
    assert parse_json(json.dumps({"a": "[{" * 10_000}).encode()) == {"a": "[{" * 10_000}


@pytest.mark.parametrize("text", ["\\ud83e\\udd9c", "\\u00e9", "\\\\ud800"])
def test_whole_characters_may_be_escaped(text: str):
    assert parse_json(f'"{text}"'.encode()) == json.loads(f'"{text}"')
