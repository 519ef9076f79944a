"""Rows that come several times under one name, in batches of any size."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.tables.cuts import Counts, Cut, apply
from skyset.tables.repeats import first_named, not_repeated

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", "c", "d", None])), max_size=40)
ODD = Cut("odd", "id is odd", lambda batch: np.array(batch["id"]) % 2 == 1)


def batches(rows, size):
    table = pa.table({"id": pa.array([row[0] for row in rows], pa.int64()), "name": pa.array([row[1] for row in rows])})
    return table.cast(pa.schema([("id", pa.int64()), ("name", pa.string())])).to_batches(max_chunksize=size)


def passed(cuts, rows, size=3):
    counts = Counts()
    left = [(row["id"], row["name"]) for batch in apply(cuts, batches(rows, size), counts) for row in batch.to_pylist()]
    assert counts.rows == len(rows) and counts.left == len(left)
    return left, [cut.rows for cut in counts.cuts]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 7))
def test_of_a_repeated_number_no_row_is_left(rows, size):
    times = Counter(number for number, _ in rows)
    assert passed([not_repeated("id")], rows, size)[0] == [row for row in rows if times[row[0]] == 1]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 7))
def test_a_cut_sees_only_what_earlier_cuts_have_left(rows, size):
    named, seen = [], set()
    for row in (row for row in rows if row[0] % 2):
        if row[1] is None or row[1] not in seen:
            named.append(row)
        seen.add(row[1])
    times = Counter(number for number, _ in named)
    alone = [row for row in named if times[row[0]] == 1]
    few = Cut("few", "id < 9", lambda batch: np.array(batch["id"]) < 9)
    left, removed = passed([ODD, first_named("name"), not_repeated("id"), few, not_repeated("id")], rows, size)
    assert left == [row for row in alone if row[0] < 9]
    odd = sum(row[0] % 2 for row in rows)
    assert removed == [len(rows) - odd, odd - len(named), len(named) - len(alone), len(alone) - len(left), 0]


def test_rows_without_a_number_are_not_kept_and_ids_stay_exact():
    ids = [36407053045309821, 36407053045309822, 36407053045309821, None]  # equal as floats
    assert passed([not_repeated("id")], [(number, "x") for number in ids])[0] == [(36407053045309822, "x")]


@pytest.mark.parametrize("cut", [not_repeated("name"), first_named("id"), not_repeated("nosuch")])
def test_only_what_can_be_told_apart(cut):
    with pytest.raises(UserError, match=r"name is string|id is int64, not text|no column nosuch"):
        passed([cut], [(1, "x")])


def test_counts_add_up_while_the_rows_are_taken():
    counts = Counts()
    rows = apply([ODD, not_repeated("id")], batches([(1, "a"), (1, "b"), (3, "c"), (5, "d")], 1), counts)
    assert next(rows)["id"].to_pylist() == [3]
    rows.close()
    assert (counts.rows, [cut.rows for cut in counts.cuts]) == (4, [0, 2])
