"""Trees of one object a file or a group, by value against plain h5py: every layout, types that differ by file, bad files."""

import os
import re

import h5py
import numpy as np
import pytest

from skyset.errors import PartitionError
from skyset.partitions.tree.form import Source, TreeForm
from skyset.partitions.tree.units import UNITS
from skyset.survey import ANY, Column
from skyset.testing.mmu import KINDS, write
from tests.partitions.tree.hand import by_hand, expected, opens_by_hand, stored

#: Light curves as flat arrays, and a label for each point.
CURVES = {
    name: (Column(name, "float32", (ANY,)), Source((name,))) for name in ("time", "flux", "flux_err", "mag", "mag_err")
}
CURVES["band"] = Column("band", "S8", (ANY,)), Source(("bands",), "labels", like="time")


def entries_of(files):
    """Files by entry: those of a folder together, two at most."""
    entries = {}
    for file in sorted(files):
        folder = [name for name, some in entries.items() if os.path.dirname(name) == os.path.dirname(file) and len(some) < 2]
        entries.setdefault(folder[-1] if folder else file, []).append(file)
    return entries


def objects_in(tree, files):
    """By plain h5py: for each object a function that gives the values of a dataset."""
    for file in files:
        with h5py.File(tree / file) as opened:
            groups = list(opened.values()) if file.endswith("of-0001.hdf5") else [opened]
            yield from (lambda path, group=group: stored(group, path) for group in groups)


def check_entry(opens, form, columns, tree, entry, files):
    path = str(tree / entry)
    size = sum((tree / file).stat().st_size for file in files)
    with opens(path, columns, None, size) as opened:
        outs = {c.name: np.empty(s, c.stored_dtype) for c in columns if (s := shape_of(opened, c, 0, opened.rows))}
        opened.read_columns(outs, 0, opened.rows)
        count = 0
        for row, values in enumerate(objects_in(tree, files)):
            count += 1
            for column in columns:
                if form.sources[column.name].how in ("stored", "text", "member", "part", "scaled"):
                    want = expected(form, column, values(form.sources[column.name].of[0]))
                    one = opened.read(column.name, row, row + 1)
                    np.testing.assert_array_equal(one.reshape(want.shape), want, column.name)
                    if column.is_ragged:
                        first, last = opened.ends(column.name)[row : row + 2]
                        np.testing.assert_array_equal(outs[column.name][first:last], want, column.name)
                    else:
                        np.testing.assert_array_equal(outs[column.name][row], want, column.name)
        assert opened.rows == count


def shape_of(opened, column, start, stop):
    return (opened.size(column.name, start, stop),) if column.is_ragged else (stop - start, *column.shape)


@pytest.mark.parametrize("kind", [name for name, layout in KINDS.items() if layout.form != "columns"])
def test_every_layout_is_read_by_value(tmp_path, kind):
    truth = write(kind, tmp_path / "tree", rows=3, cells=3)
    structure = KINDS[kind].form
    form, columns = by_hand(truth.folder, list(truth.files), structure, **(CURVES if structure == "objects" else {}))
    entries = entries_of(truth.files) if structure == "objects" else {file: [file] for file in truth.files}
    opens = opens_by_hand(tmp_path, form, columns, entries)
    for entry, files in entries.items():
        check_entry(opens, form, columns, truth.folder, entry, files)


def test_bands_run_along_the_points_of_a_light_curve(tmp_path):
    truth = write("csp", tmp_path / "tree", rows=4, cells=1)
    form, columns = by_hand(truth.folder, list(truth.files), "objects", **CURVES)
    entries = {sorted(truth.files)[0]: sorted(truth.files)}
    with opens_by_hand(tmp_path, form, columns, entries)(str(truth.folder / next(iter(entries))), columns) as opened:
        for row, file in enumerate(sorted(truth.files)):
            flat = truth.rows[truth.files[file][0]]["lightcurve"].flat()
            time = opened.read("time", row, row + 1)
            np.testing.assert_array_equal(time[time > 0], flat["time"])
            assert opened.read("band", row, row + 1)[time > 0].astype(str).tolist() == flat["band"].tolist()
        assert len(opened.read("band")) == opened.size("time", 0, opened.rows)


def test_the_two_real_files(tmp_path, real):
    folder = real("mmu/SN2007bc.hdf5").parent
    files = ["SN2007bc.hdf5", "example_SN2004dt.hdf5"]
    form, columns = by_hand(folder, files, "objects", **CURVES)
    assert {c.name: c.shape for c in columns}["mag"] == (ANY,)
    opens = opens_by_hand(tmp_path, form, columns, {files[0]: files})
    check_entry(opens, form, columns, folder, files[0], files)
    with opens(str(folder / files[0]), columns) as opened:
        assert opened.text("object_id") == ["SN2007bc", "SN2004dt"]
        np.testing.assert_allclose(opened.read("redshift"), [0, 0.0197], rtol=1e-6)
        assert (opened.size("band", 0, 1), opened.size("mag", 1, 2)) == (7 * 19, 12 * 46)


COLUMNS = [
    Column("object_id", "S8"),
    Column("ra", "float64"),
    Column("dec", "float64"),
    Column("healpix", "int64"),
    Column("flux", "float32", (ANY,)),
    Column("packed", "float64", (ANY, 30)),
    Column("steps", "float64", (ANY,)),
    Column("image", "float32", (40, 40)),
    Column("pixels", "float32", (ANY, 50, 60)),
    Column("names", "S4", (ANY,)),
    Column("x", "int32", (ANY,)),
]
SOURCES = {
    "object_id": Source((), "name"),
    "ra": Source(("ra",)),
    "dec": Source(("dec",)),
    "healpix": Source((), "cell"),
    "flux": Source(("curve",), "part", (1, 1)),
    "packed": Source(("deep/packed",)),
    "steps": Source(("steps",)),
    "image": Source(("image",)),
    "pixels": Source(("maps/pixels",), "member"),
    "names": Source(("maps/name",), "member"),
    "x": Source(("maps/x",), "member"),
}
DICE = np.random.default_rng(8)
MAP = np.dtype([("name", h5py.string_dtype()), ("pixels", "f4", (50, 60)), ("gap", "V30000"), ("x", "i2")])


def write_object(place, number: int) -> None:
    place["ra"], place["dec"] = float(number), -float(number)
    place["curve"] = DICE.normal(size=(4, 2, 5 + number)).astype("f8" if number == 1 else ">f4")
    place.create_dataset("deep/packed", data=DICE.normal(size=(number, 30)), **({"compression": "gzip"} if number else {}))
    place.create_dataset("steps", (), h5py.vlen_dtype("f8"))[()] = DICE.normal(size=100 * number)
    if number != 2:
        place["image"] = DICE.normal(size=(40, 40)).astype("f4")
    data = np.zeros(2 + number, MAP)
    data["pixels"], data["x"] = DICE.normal(size=(2 + number, 50, 60)), np.arange(2 + number)
    data["name"] = ["g", "r", "i", "z", "Y"][: 2 + number]
    place["maps"] = data


@pytest.fixture(params=["objects", "groups"])
def tree(request, tmp_path):
    """A tree of three odd objects, (folder, opener, files by entry)."""
    folder = tmp_path / "tree"
    folder.mkdir()
    names = [f"n{number}.hdf5" for number in range(3)] if request.param == "objects" else ["0001-of-0001.hdf5"]
    for number in range(3):
        with h5py.File(folder / names[number % len(names)], "a") as file:
            write_object(file if len(names) > 1 else file.create_group(f"n{number}"), number)
    form = TreeForm(str(folder), request.param, SOURCES)
    form.check(COLUMNS)
    return folder, opens_by_hand(tmp_path, form, COLUMNS, {names[0]: names}), names


def test_packed_missing_and_compound_values(tree):
    folder, opens, names = tree
    check_entry(opens, opens.form, COLUMNS, folder, names[0], names)
    with opens(str(folder / names[0]), COLUMNS) as opened:
        assert opened.text("object_id") == ["n0", "n1", "n2"]
        assert np.isnan(opened.read("image", 2, 3)).all()
        assert opened.read("names").astype(str).tolist() == ["g", "r", "g", "r", "i", "g", "r", "i", "z"]
        assert opened.read("x").tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3]
        assert opened.record(1)["pixels"].shape == (3, 50, 60)


def test_a_file_that_is_not_what_was_adopted_says_what_to_do(tree):
    folder, opens, names = tree
    path = folder / names[-1]
    status = path.stat()
    with opens(str(folder / names[0]), COLUMNS) as opened:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(PartitionError, match=re.escape(f"{path}: has another size or time: it was changed since")):
            opened.read("flux")
        assert opened.read("ra").tolist() == [0, 1, 2]  # which is not read from the tree
    path.unlink()
    lost = re.escape(f"{path}: no such file: the tree lost it since it was adopted: run `skyset adopt` again")
    with opens(str(folder / names[0]), COLUMNS) as opened, pytest.raises(PartitionError, match=lost):
        opened.read("flux")
    folder.rename(folder.with_name("moved"))
    moved = r"the tree .* is not there: where it was moved to, run `skyset adopt` again"
    with opens(str(folder / names[0]), COLUMNS) as opened, pytest.raises(PartitionError, match=moved):
        opened.read("flux")


def test_an_index_that_is_not_the_manifests_says_what_to_do(tree):
    folder, opens, names = tree
    for rows, size in ((4, None), (None, 5)):
        with pytest.raises(PartitionError, match="in the manifest: run `skyset adopt` again"):
            opens(str(folder / names[0]), COLUMNS, rows, size)
    with pytest.raises(PartitionError, match=r"has no other.hdf5: run `skyset adopt` again"):
        opens(str(folder / "other.hdf5"), COLUMNS)
    os.unlink(f"{opens.index}/{UNITS}")
    with pytest.raises(PartitionError, match="no such file: run `skyset adopt` again"):
        opens(str(folder / names[0]), COLUMNS)


def test_an_index_written_anew_is_read_anew(tree, tmp_path):
    folder, opens, names = tree
    with opens(str(folder / names[0]), COLUMNS) as opened:
        first = opened.stamp
    opens_by_hand(tmp_path, opens.form, COLUMNS, {names[0]: names})
    with opens(str(folder / names[0]), COLUMNS) as opened:
        assert opened.stamp != first


def test_values_that_do_not_fit_are_named_by_file(tmp_path):
    for number, value in enumerate((1.0, 2.5)):
        with h5py.File(tmp_path / f"n{number}.hdf5", "w") as file:
            file["ra"], file["dec"], file["counts"] = 1.0, 1.0, np.full(200, value)
    columns = [*COLUMNS[:4], Column("counts", "int32", (ANY,))]
    form = TreeForm(str(tmp_path), "objects", SOURCES | {"counts": Source(("counts",))})
    opens = opens_by_hand(tmp_path, form, columns, {"n0.hdf5": ["n0.hdf5", "n1.hdf5"]})
    with opens(str(tmp_path / "n0.hdf5"), columns) as opened:
        with pytest.raises(PartitionError, match=r"n1.hdf5: counts holds 2.5, which int32 cannot hold"):
            opened.read("counts")
        assert opened.read("counts", 0, 1).tolist() == [1] * 200


def test_values_that_were_never_written_are_named_by_file(tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"n{number}.hdf5", "w") as file:
            file["ra"], file["dec"] = 1.0, 1.0
            counts = file.create_dataset("counts", (200,), "int32")
            if number == 0:
                counts[...] = 7
    columns = [*COLUMNS[:4], Column("counts", "int32", (ANY,))]
    form = TreeForm(str(tmp_path), "objects", SOURCES | {"counts": Source(("counts",))})
    opens = opens_by_hand(tmp_path, form, columns, {"n0.hdf5": ["n0.hdf5", "n1.hdf5"]})
    with opens(str(tmp_path / "n0.hdf5"), columns) as opened:
        with pytest.raises(PartitionError, match=re.escape(f"{tmp_path}/n1.hdf5: counts is not all there")):
            opened.read("counts")
        assert opened.read("counts", 0, 1).tolist() == [7] * 200
