"""Small columns in runs: read once where slabs follow each other, and every row of a run is handed out once."""

import numpy as np
import pytest

from skyset.errors import PartitionError
from skyset.loading import runs
from skyset.loading.reader import Piece, PieceReader, joined
from skyset.loading.runs import Runs
from skyset.partitions.writer import PartitionWriter
from skyset.survey import Column, Survey, plain_features

ROWS = 101
COLUMNS = (
    Column("image", "float32", (3, 20, 20)),
    Column("value", "float32"),
    Column("name", "S8"),
    Column("pair", "int32", (2,)),
)
SMALL = {"value", "name", "pair"}


class Source:
    """A file of numbers that tell their row; notes what is read of it."""

    def __init__(self, bad=()):
        self.rows, self.read, self.bad = ROWS, [], bad

    def read_columns(self, outs, start, stop):
        assert set(outs) == SMALL
        self.read.append((start, stop))
        if any(start <= row < stop for row in self.bad):
            raise PartitionError(f"rows {start} to {stop} are bad")
        for name, out in outs.items():
            numbers = np.arange(start, stop)
            out[...] = np.stack([numbers, -numbers], 1) if name == "pair" else numbers.astype(out.dtype)


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr(runs, "RUN_ROWS", 20)
    monkeypatch.setattr(runs, "GAP_ROWS", 5)


def check(values, start, stop):
    numbers = np.arange(start, stop)
    np.testing.assert_array_equal(values["value"], numbers.astype("f4"))
    np.testing.assert_array_equal(values["pair"], np.stack([numbers, -numbers], 1))
    assert values["name"].tolist() == [str(number).encode() for number in numbers]


def test_slabs_in_order_are_read_once_a_run():
    source, columns = Source(), Runs(COLUMNS)
    found = [columns.take(lambda: source, "a", start, start + 4) for start in range(0, 100, 4)]
    assert found[0] == {}  # the first slab may be all that is wanted
    for number, values in enumerate(found[1:], 1):
        check(values, 4 * number, 4 * number + 4)
    assert source.read == [(4, 24), (24, 44), (44, 64), (64, 84), (84, 101)]
    assert columns.names == SMALL


def test_slabs_with_those_of_other_workers_between_them_follow_each_other():
    source, columns = Source(), Runs(COLUMNS)
    for start in range(0, 90, 7):  # every second one of 3 or 4 rows
        if values := columns.take(lambda: source, "a", start, start + 3):
            check(values, start, start + 3)
    assert len(source.read) < 8


@pytest.mark.parametrize(
    "slabs",
    [
        [(0, 4), (50, 54), (10, 14), (90, 94)],  # from here and there
        [(0, 6), (6, 12), (12, 18)],  # so long that a run would be few of them
    ],
)
def test_others_are_not_in_runs(slabs):
    source, columns = Source(), Runs(COLUMNS)
    assert [columns.take(lambda: source, "a", *slab) for slab in slabs] == [{}] * len(slabs)
    assert source.read == []


def test_a_row_that_was_handed_out_is_never_handed_out_again():
    """What reads a slab once more, as after a failure in its pixels, must not see what was written to its rows."""
    source, columns = Source(), Runs(COLUMNS)
    columns.take(lambda: source, "a", 0, 4)
    columns.take(lambda: source, "a", 4, 8)["value"][:] = -1
    assert columns.take(lambda: source, "a", 4, 8) == {}
    check(columns.take(lambda: source, "a", 8, 12), 8, 12)
    columns.forget()
    assert columns.take(lambda: source, "a", 12, 16) == {}


def test_another_file_begins_anew():
    one, other, columns = Source(), Source(), Runs(COLUMNS)
    for start in (0, 4, 8):
        columns.take(lambda: one, "a", start, start + 4)
    assert columns.take(lambda: other, "b", 12, 16) == {} and other.read == []
    check(columns.take(lambda: other, "b", 16, 20), 16, 20)


def test_a_bad_row_is_left_to_the_slab_that_has_it():
    source, columns = Source(bad=[17]), Runs(COLUMNS)
    assert not any(columns.take(lambda: source, "a", start, start + 4) for start in range(0, 40, 4))
    assert source.read == [(4, 24)]


def test_nothing_small_is_no_run():
    source, columns = Source(), Runs(COLUMNS[:1])
    assert [columns.take(lambda: source, "a", start, start + 1) for start in range(4)] == [{}] * 4


def test_pieces_that_follow_each_other_are_one():
    pieces = [Piece("a", 0, 4, 9), Piece("a", 4, 9, 9), Piece("b", 0, 2, 8), Piece("b", 3, 4, 8), Piece("a", 0, 1, 9)]
    assert joined(pieces) == [Piece("a", 0, 9, 9), *pieces[2:]]
    assert joined(pieces[:1]) == pieces[:1] and joined([]) == []


def test_a_reader_gives_the_same_values_with_and_without_runs(tmp_path):
    columns = (Column("object_id", "S8"), Column("healpix", "int64"), *COLUMNS[:2], COLUMNS[3])
    dice = np.random.default_rng(3)
    records = [
        {
            "object_id": np.bytes_(f"o{row}"),
            "healpix": np.int64(7),
            "image": dice.normal(size=(3, 20, 20)).astype("f4"),
            "value": np.float32(dice.normal()),
            "pair": dice.integers(0, 9, 2).astype("i4"),
        }
        for row in range(ROWS)
    ]
    path = tmp_path / "a.hdf5"
    with PartitionWriter(path, columns, ROWS) as writer:
        for record in records:
            writer.append(record)
    survey = Survey("toy", "A toy.", "", "", "", "", columns, plain_features(columns, {}))
    pieces = [Piece(str(path), start, min(start + 4, ROWS), ROWS) for start in range(0, ROWS, 4)]
    names = [column.name for column in columns]
    with PieceReader(survey, names) as runs_too, PieceReader(survey, names, new_block=lambda n: np.empty(n, "u1")) as apart:
        for piece in pieces:
            a, b = runs_too.read([piece]), apart.read([piece])
            assert list(a) == list(b) == names
            for name in names:
                wanted = [record[name] for record in records[piece.start : piece.stop]]
                wanted = [value.decode() for value in wanted] if name == "object_id" else wanted
                np.testing.assert_array_equal(a[name], wanted)
                np.testing.assert_array_equal(b[name], wanted)
                if isinstance(a[name], np.ndarray):
                    a[name][...] = 0  # a row may be written to
