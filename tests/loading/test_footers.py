"""Footers of many Parquet files, and pieces of whole row groups."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyset.errors import PartitionError, UserError
from skyset.loading import footers
from skyset.loading.footers import Footer, digests_of, first_file, pieces_of, read_footers
from skyset.testing.server import ArchiveServer


def write(path, rows=10, group=4, **more):
    pq.write_table(pa.table({"n": np.arange(rows), **more}), path, row_group_size=group)
    return str(path)


def test_near_and_far_the_same(tmp_path):
    paths = [write(tmp_path / f"{n}.parquet", rows=n + 1) for n in range(5)]
    found = read_footers(paths, lambda schema: None)
    assert [each.rows for each in found] == [1, 2, 3, 4, 5] and [len(each.groups) for each in found] == [1, 1, 1, 1, 2]
    assert [each.bytes for each in found] == [(tmp_path / f"{n}.parquet").stat().st_size for n in range(5)]
    with ArchiveServer(tmp_path) as server:
        far = read_footers([f"{server.url}{n}.parquet" for n in range(5)], lambda schema: None)
        assert [(each.bytes, each.groups) for each in far] == [(each.bytes, each.groups) for each in found]
        assert first_file(f"{server.url}1.parquet").schema_arrow.names == ["n"]
        with pytest.raises(PartitionError, match=r"gone\.parquet"):
            read_footers([f"{server.url}gone.parquet"], lambda schema: None)


def test_a_footer_longer_than_what_is_fetched_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", **{f"column_{n}": np.arange(10) for n in range(40)})
    (whole,) = read_footers([path], lambda schema: None)
    monkeypatch.setattr(footers, "_TAIL", 64)
    assert read_footers([path], lambda schema: None) == [whole]


def test_each_schema_is_looked_at_once(tmp_path):
    paths = [write(tmp_path / f"{n}.parquet") for n in range(4)] + [write(tmp_path / "x.parquet", x=np.ones(10))]
    seen = []
    read_footers(paths, lambda schema: seen.append(schema.names))
    assert seen == [["n"], ["n", "x"]]


def test_missing_values_are_counted_but_paths_of_images(tmp_path):
    image = pa.array([{"bytes": b"x", "path": None}] * 10, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    path = write(tmp_path / "a.parquet", image=image, x=pa.array([None, *range(9)], pa.int8()), y=np.ones(10))
    assert read_footers([path], lambda schema: None)[0].missing == ("x",)


def test_pieces_are_whole_groups_and_have_each_row_once():
    dice = np.random.default_rng(3)
    for _ in range(50):
        groups = tuple((int(dice.integers(0, 9)), int(dice.integers(1, 20 << 20))) for _ in range(dice.integers(1, 12)))
        file = Footer("a.parquet", 1000, groups)
        pieces, ends = pieces_of([file]), {0, *np.cumsum([rows for rows, _ in groups]).tolist()}
        rows = [row for piece in pieces for row in range(piece.start, piece.stop)]
        assert rows == list(range(file.rows)) and all({each.start, each.stop} <= ends for each in pieces)
        assert all((each.rows, each.bytes) == (file.rows, 1000) for each in pieces)


def test_too_many_pieces_and_groups_that_are_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(footers, "MAX_PIECES", 2)
    with pytest.raises(UserError, match="too many"):
        pieces_of([Footer("a", 1, ((1, 9 << 20),) * 3)])
    monkeypatch.setattr(footers, "MAX_GROUP_BYTES", 10)
    with pytest.raises(PartitionError, match="a row group has more than 10 bytes"):
        read_footers([write(tmp_path / "a.parquet")], lambda schema: None)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 100, b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"])
def test_what_is_no_parquet(tmp_path, damage, capsys):
    good = write(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(damage)
    with pytest.raises(PartitionError, match=r"bad\.parquet: ") as error:
        read_footers([good, str(tmp_path / "bad.parquet")], lambda schema: None)
    assert "\n" not in str(error.value)
    (found,) = read_footers([good, str(tmp_path / "bad.parquet")], lambda schema: None, skip_bad=True)
    assert found.path == good and capsys.readouterr().out.startswith("skipped: ")


def test_files_that_may_change_are_not_kept(tmp_path):
    read_footers([write(tmp_path / "a.parquet")], lambda schema: None, kept_in=tmp_path / "kept")
    assert not (tmp_path / "kept").exists() and digests_of([str(tmp_path / "a.parquet")]) == {}


def test_what_is_kept_of_a_commit(tmp_path, monkeypatch):
    url = f"hf://datasets/user/name@{'0' * 40}/a.parquet"
    local = write(tmp_path / "a.parquet", x=pa.array([None, *range(9)]))
    (whole,) = read_footers([local], lambda schema: None)
    read = footers._read
    monkeypatch.setattr(footers, "_read", lambda path, lines: read(local, lines))
    first = read_footers([url], lambda schema: None, kept_in=tmp_path / "kept")
    monkeypatch.setattr(footers, "_read", lambda path, lines: pytest.fail("it is read again"))
    again = read_footers([url], lambda schema: None, kept_in=tmp_path / "kept")
    assert first == again == [Footer(url, whole.bytes, whole.groups, ("x",))]
    (kept,) = (tmp_path / "kept").iterdir()
    for damage in ("", "[]", "[[1]]", '[["a", [], []]]', json.dumps([[1, [["a", 2]], []]])):
        kept.write_text(damage)
        with pytest.raises(pytest.fail.Exception):
            read_footers([url], lambda schema: None, kept_in=tmp_path / "kept")
