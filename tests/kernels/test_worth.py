"""The measured table: read, kept, and never an unshared prefix where a shared one was faster by more than noise."""

from __future__ import annotations

import json

import pytest
from properties import given, st

from semantic_parrot.kernels import worth
from semantic_parrot.kernels.worth import Worth, fitted, regret

#: (rows, tokens) → seconds of (unshared, shared).
TOOK = st.dictionaries(
    st.tuples(st.sampled_from([2, 4, 16, 64]), st.sampled_from([64, 128, 512, 2048])),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    min_size=1,
)


def test_between_entries_the_one_with_fewer_rows_holds():
    found = Worth(((4, 512), (16, 128)))
    assert [found(rows, 511) for rows in (1, 3, 4, 15, 16, 99)] == [False, False, False, False, True, True]
    assert [found(rows, 512) for rows in (1, 3, 4, 15)] == [False, False, True, True]
    assert not found(16, 127)
    assert not Worth(())(1000, 1000)


@given(TOOK)
def test_a_fitted_table_asks_for_no_more_with_more_rows(took):
    found = fitted(took).least
    assert list(found) == sorted(found)
    assert [tokens for _, tokens in found] == sorted((tokens for _, tokens in found), reverse=True)


def test_a_fitted_table_makes_no_mistake_where_time_is_monotone():
    # Each way is a cost to begin with and one a token read; sharing begins dearer.
    took = {
        (rows, tokens): (1 + rows * tokens / 100, 6 + tokens / 100 + rows / 10)
        for rows in (2, 4, 16, 64)
        for tokens in (64, 128, 512, 2048)
    }
    found = fitted(took)
    assert regret(found, took)[1] == 1.0
    where, times = regret(Worth(()), took)
    assert where == (64, 2048)
    assert times > 5
    where, times = regret(Worth(((2, 0),)), took)
    assert where == (2, 64)
    assert times > 1.5


def test_noise_at_a_long_prefix_does_not_hide_a_short_one_that_is_slower():
    took = {(4, 64): (1.0, 2.0), (4, 128): (2.0, 1.0), (4, 512): (8.0, 1.0)}
    assert fitted(took) == Worth(((4, 128),))
    assert fitted({**took, (4, 512): (8.0, 9.0)}) == Worth(())


def test_what_is_written_is_read_for_that_device_alone(tmp_path):
    table = tmp_path / "worth.json"
    table.write_text(worth.TABLE.read_text())
    few, many = Worth(((2, 1024), (8, 64))), Worth(((4, 512),))
    worth.write("triton", "A GPU", {1: few, 8: many}, "today", table)
    found = {group: worth.read("triton", "A GPU", table, group=group) for group in (1, 2, 8, 9)}
    assert found == {1: few, 2: many, 8: many, 9: many}  # between two the one that asks for more tokens
    assert worth.read("triton", "another", table) == worth.read("triton", "another")
    assert json.loads(table.read_text())["triton"]["A GPU"]["measured"] == "today"


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_the_table_that_we_ship(kernels):
    for device, entry in json.loads(worth.TABLE.read_text())[kernels].items():
        groups = sorted(int(group) for group in entry["least"])
        for group in groups:
            found = worth.read(kernels, device, group=group)
            tokens = [least for _, least in found.least]
            assert tokens == sorted(tokens, reverse=True)
            assert not found(1, 1 << 20)  # nobody to share with
            assert found(64, 2048)
        assert entry["measured"]
    assert worth.read(kernels, "no such device") == worth.read(kernels, "default")


def test_on_a_cpu_more_query_heads_to_a_kv_head_ask_for_more_tokens():
    one, three, eight = (worth.read("torch", "cpu", group=group) for group in (1, 3, 8))
    assert one != three != eight
    for rows in range(2, 64):
        for tokens in range(16, 4096, 16):
            assert one(rows, tokens) >= three(rows, tokens) >= eight(rows, tokens)
