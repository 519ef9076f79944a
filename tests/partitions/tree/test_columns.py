"""Trees of one dataset a column, by value against plain h5py: every layout, however it is stored, and bad files."""

import os
import re

import h5py
import numpy as np
import pytest

from skyset.errors import PartitionError
from skyset.partitions.tree.form import Source, TreeForm
from skyset.partitions.tree.opens import OpensTree
from skyset.partitions.tree.written import WRITTEN, write_times
from skyset.sky import healpix_cell
from skyset.survey import ANY, Column
from skyset.testing.mmu import KINDS, write
from tests.partitions.tree.hand import by_hand, expected, stored

BANDS = ("u", "g", "r", "i", "z", "Y")
#: What is made of plasticc's light curves beside the columns as they are.
CURVES = {
    "time": (Column("time", "float64", (ANY,)), Source(("lightcurve",), "part", (1, 0))),
    "flux": (Column("flux", "float32", (ANY,)), Source(("lightcurve",), "part", (1, 1))),
    "band": (Column("band", "S2", (ANY,)), Source((), "labels", BANDS, "flux")),
}


def check_file(path, form, columns, rows, order):
    """Whether some runs of rows of a file are those of plain h5py."""
    with h5py.File(path) as file:
        raw = {name: stored(file, s.of[0]) for name, s in form.sources.items() if s.of}
    with OpensTree(form, "")(str(path), columns, rows, path.stat().st_size) as opened:
        assert opened.rows == rows
        for start, stop in order:
            outs = {}
            for column in columns:
                shape = (stop - start, *column.shape)
                if column.is_ragged:
                    ends = opened.ends(column.name, start, stop)
                    assert (len(ends), ends[0], opened.size(column.name, start, stop)) == (stop - start + 1, 0, ends[-1])
                    shape = (ends[-1],)
                outs[column.name] = np.full(shape, 7, column.stored_dtype)
            opened.read_columns(outs, start, stop)
            for column in columns:
                if form.sources[column.name].of and form.sources[column.name].how != "labels":
                    values = raw[column.name]
                    want = [expected(form, column, None if values is None else values[k]) for k in range(start, stop)]
                    want = np.concatenate([np.zeros(0, column.stored_dtype), *want]) if column.is_ragged else np.array(want)
                    want = want.reshape(outs[column.name].shape)
                    np.testing.assert_array_equal(outs[column.name], want, f"{column.name} {start}:{stop}")


@pytest.mark.parametrize("kind", [name for name, layout in KINDS.items() if layout.form == "columns"])
def test_every_layout_is_read_by_value(tmp_path, kind):
    truth = write(kind, tmp_path / "tree", rows=7, cells=3)
    form, columns = by_hand(truth.folder, list(truth.files), "columns", **(CURVES if kind == "plasticc" else {}))
    for file, ids in truth.files.items():
        rows = len(ids)
        check_file(truth.folder / file, form, columns, rows, [(0, rows), (rows - 1, rows), (0, 1), (1, 1), (1, rows)])
        with OpensTree(form, "")(str(truth.folder / file), columns) as opened:
            assert [text.strip() for text in opened.text("object_id")] == [each.strip() for each in ids]
            np.testing.assert_array_equal(opened.read("healpix"), healpix_cell(opened.read("ra"), opened.read("dec")))
            assert {name: value.shape for name, value in opened.record(0).items() if not opened.columns[name].is_ragged} == {
                column.name: column.shape for column in columns if not column.is_ragged
            }


def test_bands_run_along_the_values_of_a_light_curve(tmp_path):
    truth = write("plasticc", tmp_path / "tree", rows=4, cells=1)
    form, columns = by_hand(truth.folder, list(truth.files), "columns", **CURVES)
    file, ids = next(iter(truth.files.items()))
    with OpensTree(form, "")(str(truth.folder / file), columns) as opened:
        for row, key in enumerate(ids):
            flux, band = opened.read("flux", row, row + 1), opened.read("band", row, row + 1)
            flat = truth.rows[key]["lightcurve"].flat()
            good = opened.read("time", row, row + 1) != 0
            np.testing.assert_array_equal(flux[good], flat["flux"].astype("f4"))
            assert band[good].astype(str).tolist() == flat["band"].tolist()


ROWS = 101
DICE = np.random.default_rng(5)
PIXELS = DICE.integers(0, 30000, (ROWS, 3, 10, 12)).astype("f4")
#: How the pixels may be stored.
LAYOUTS = {
    "contiguous": {},
    "chunks of rows": {"chunks": (4, 3, 10, 12)},
    "chunks across rows": {"chunks": (7, 2, 4, 5)},
    "resizable gzip": {"compression": "gzip", "chunks": True, "maxshape": (None, 3, 10, 12)},
    "gzip across rows": {"chunks": (7, 2, 4, 5), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (9, 1, 10, 7), "compression": "lzf"},
    "one chunk of all": {"chunks": (ROWS, 3, 10, 12), "compression": "gzip"},
}
COLUMNS = [
    Column("object_id", "S20"),
    Column("ra", "float64"),
    Column("dec", "float64"),
    Column("healpix", "int64"),
    Column("image", "float32", (3, 10, 12)),
    Column("flux", "float64", (ANY,)),
    Column("steps", "float32", (ANY,)),
    Column("kind", "S6"),
    Column("number", "int64"),
    Column("first", "int16"),
    Column("absent", "float32", (2,)),
    Column("gone", "int32", (ANY,)),
    Column("name", "S40"),
    Column("inner", "float32"),
    Column("camera", "S3", (ANY,)),
]
SOURCES = {
    "object_id": Source(("id",), "text"),
    "ra": Source(("hours",), "scaled", 15.0),
    "dec": Source(("Dec",)),
    "healpix": Source((), "cell"),
    "image": Source(("image",)),
    "flux": Source(("group/flux",)),
    "steps": Source(("steps",)),
    "kind": Source(("kind",)),
    "number": Source(("number",)),
    "first": Source(("table/first",), "member"),
    "absent": Source(("absent",)),
    "gone": Source(("gone",)),
    "name": Source((), "name"),
    "inner": Source(("group/table/inner",), "member"),
    "camera": Source(("cameras",), "labels", like="flux"),
}


def make(path, layout="contiguous", **changes):
    table = np.zeros(ROWS, [("name", h5py.string_dtype()), ("first", "i2"), ("second", "f8")])
    table["first"], table["name"] = np.arange(ROWS), "n"
    inner = np.zeros(ROWS, [("inner", ">f4")])
    inner["inner"] = np.arange(ROWS) / 2
    values = {
        "id": np.arange(ROWS, dtype="u8") + 2**63,
        "hours": np.linspace(0, 23, ROWS).astype(">f4"),
        "Dec": np.linspace(-80, 80, ROWS),
        "image": PIXELS,
        "group/flux": DICE.normal(size=(ROWS, 6)).astype(">f4"),
        "kind": np.array(["elliptical"[: 1 + row % 6] for row in range(ROWS)], object),
        "number": np.arange(ROWS, dtype=">i2"),
        "table": table,
        "group/table": inner,
        "cameras": np.array([[b"red", b"blu"]] * ROWS),
    }
    with h5py.File(path, "w") as file:
        for name, data in (values | changes).items():
            if data is not None:
                options = LAYOUTS[layout] if name == "image" else {}
                file.create_dataset(name, data=data, **options)
        if "steps" not in changes:
            steps = file.create_dataset("steps", (ROWS,), h5py.vlen_dtype("f8"))
            for row in range(ROWS):
                steps[row] = np.arange(row % 5, dtype="f8")
    return path


def form_at(tree):
    return TreeForm(str(tree), "columns", SOURCES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_are_the_same_however_they_are_stored_and_in_whatever_order_they_are_read(tmp_path, layout):
    order = [(a, min(a + 6, ROWS)) for a in range(0, ROWS, 6)]
    order += [(int(a), int(a) + 3) for a in np.random.default_rng(1).integers(0, ROWS - 3, 20)]
    check_file(
        make(tmp_path / "a.hdf5", layout), form_at(tmp_path), COLUMNS, ROWS, [*order, (0, ROWS), (50, 50), (100, 101)]
    )


def test_what_is_made_of_nothing_stored(tmp_path):
    (tmp_path / "part").mkdir()
    path = make(tmp_path / "part/a.hdf5")
    with OpensTree(form_at(tmp_path), "")(str(path), COLUMNS) as file:
        assert file.text("name", 3, 5) == ["part/a:3", "part/a:4"]
        assert file.text("object_id", 0, 1) == [str(2**63)]
        ra = np.linspace(0, 23, ROWS).astype("f4").astype("f8") * 15.0
        np.testing.assert_array_equal(file.read("ra"), ra)
        np.testing.assert_array_equal(file.read("healpix"), healpix_cell(ra, np.linspace(-80, 80, ROWS)))
        assert file.text("camera", 0, 2) == [*["red"] * 3, *["blu"] * 3] * 2


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image": PIXELS[:, :2]}, "row 0: image has shape (2, 10, 12), not (3, 10, 12)"),
        ({"image": PIXELS[:50]}, "columns have [50, 101] rows"),
        ({"number": np.arange(ROWS) + 0.5}, "row 0: number holds 0.5, which int64 cannot hold"),
        ({"number": np.where(np.arange(ROWS) == 77, 0.5, 1.0)}, "row 77: number holds 0.5"),
        ({"kind": np.array(["a text that is too long"] * ROWS, "S")}, "row 0: kind is longer than 6 characters"),
        ({"cameras": np.array([b"a,b,c,d"] * ROWS)}, "camera: 4 labels for 6 values"),
        ({"Dec": np.array(["north"] * ROWS, "S5")}, "dec"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    path = make(tmp_path / "a.hdf5", **change)

    def read_all():
        with OpensTree(form_at(tmp_path), "")(str(path), COLUMNS) as file:
            return [file.read(column.name) for column in COLUMNS]

    with pytest.raises(PartitionError, match=re.escape(words)) as caught:
        read_all()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_what_was_adopted_says_what_to_do(tmp_path):
    path = make(tmp_path / "a.hdf5")
    size, opens = path.stat().st_size, OpensTree(form_at(tmp_path), "")
    for rows, count in ((ROWS + 1, size), (ROWS, size + 1)):
        with pytest.raises(
            PartitionError, match=r"a.hdf5: has .*: it was changed since it was adopted: run `skyset adopt` again"
        ):
            opens(str(path), COLUMNS, rows, count)
    path.unlink()
    with pytest.raises(PartitionError, match=r"no such file: the tree lost it since it was adopted: run `skyset adopt`"):
        opens(str(path), COLUMNS, ROWS, size)
    moved = TreeForm(str(tmp_path / "gone"), "columns", SOURCES)
    with pytest.raises(
        PartitionError, match=r"the tree .*gone is not there: where it was moved to, run `skyset adopt` again"
    ):
        OpensTree(moved, "")(str(tmp_path / "gone/a.hdf5"), COLUMNS, ROWS, size)


def test_a_file_of_the_same_size_and_another_time_was_changed(tmp_path):
    path, other = make(tmp_path / "a.hdf5"), make(tmp_path / "b.hdf5")
    index, status = tmp_path / "index", path.stat()
    index.mkdir()
    write_times(index / WRITTEN, {"a.hdf5": status.st_mtime_ns})
    opens = OpensTree(form_at(tmp_path), str(index))
    for each in (path, other):  # of the other one no time is known
        opens(str(each), COLUMNS, ROWS, status.st_size).close()
    os.utime(path, ns=(0, status.st_mtime_ns + 1))
    words = "a.hdf5: has another time: it was changed since it was adopted: run `skyset adopt` again"
    with pytest.raises(PartitionError, match=re.escape(words)):
        opens(str(path), COLUMNS, ROWS, status.st_size)
    write_times(index / WRITTEN, {"a.hdf5": status.st_mtime_ns + 1})
    opens(str(path), COLUMNS, ROWS, status.st_size).close()


def test_a_file_that_is_written_to_while_it_is_read_is_noticed(tmp_path):
    path = make(tmp_path / "a.hdf5", "lzf")
    with OpensTree(form_at(tmp_path), "")(str(path), COLUMNS) as file:
        file.read("image", 0, 5)
        with h5py.File(path, "r+") as other:
            other["Dec"][0] = 3
        with pytest.raises(PartitionError, match="changed while it was being read"):
            file.read("dec")


@pytest.mark.parametrize("name", ["image", "group", "group/flux"])
def test_links_out_of_the_file_are_refused(tmp_path, name):
    make(tmp_path / "other.hdf5")
    path = make(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other.hdf5", name)
    with pytest.raises(PartitionError, match="is a soft or external link: refused"):
        OpensTree(form_at(tmp_path), "")(str(path), COLUMNS)


def test_a_file_cut_short_is_named(tmp_path):
    path = make(tmp_path / "a.hdf5")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PartitionError, match=r"a.hdf5: "):
        OpensTree(form_at(tmp_path), "")(str(path), COLUMNS)


def test_chunks_that_were_never_written_are_not_read_as_zeros(tmp_path):
    path = make(tmp_path / "a.hdf5", image=None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("image", (ROWS, 3, 10, 12), "f4", chunks=(4, 3, 10, 12))[:8] = 1
    with pytest.raises(PartitionError, match="image is not all there"):
        OpensTree(form_at(tmp_path), "")(str(path), COLUMNS)
