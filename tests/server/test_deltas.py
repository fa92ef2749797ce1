"""The fast way to write a delta gives what the plain one does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_parrot.core.engines.protocol import Delta
from semantic_parrot.core.response import Chunks
from semantic_parrot.server.completions import Deltas
from semantic_parrot.server.streams import data

NASTY = st.text() | st.text(alphabet='\0"\\\u2028\u0085\ud800\U0001f99c', min_size=1)


@pytest.mark.parametrize("field", [{"messages": []}, {"prompt": "x"}])
@given(model=NASTY.filter(lambda name: "\0" not in name), deltas=st.lists(st.tuples(NASTY, st.integers(0, 3))))
def test_a_block_is_what_the_chunk_is_as_json(field, model, deltas):
    chunks = Chunks({"model": model, "logprobs": None, **field}, id="chatcmpl-1", created=1)
    blocks = Deltas(chunks)
    for text, index in deltas:
        delta = Delta(text, index=index)
        block = blocks.block(delta)
        assert block == f"data: {data(chunks.delta(delta))}\n\n"
        assert block.isascii()
        assert json.loads(block[6:])["choices"][0]["index"] == index
