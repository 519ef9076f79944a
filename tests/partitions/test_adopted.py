"""Other people's HDF5 files read as partitions: however they are stored, whatever order they are read in, and bad ones."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from skyset.errors import PartitionError
from skyset.partitions.adopted import AdoptedFile, Form, stored_in, warn_of_equal_planes
from skyset.survey import Column

ROWS = 101
COLUMNS = (
    Column("image", "float32", (3, 10, 12)),
    Column("double", "float32"),
    Column("name", "S8"),
    Column("pair", "int32", (2,)),
)


def convert(stored, names):
    made = {
        "double": lambda: 2 * stored["value"],
        "name": lambda: stored["name"].reshape(len(stored["name"])),
        "pair": lambda: stored["pair"],
        "image": lambda: stored["image"],
    }
    return {name: made[name]() for name in names}


FORM = Form(
    "toy", {"image": ("image",), "double": ("value",), "name": ("name",), "pair": ("pair",)}, convert, plain=("image",)
)
DICE = np.random.default_rng(5)
STORED = {
    "image": DICE.normal(0, 1, (ROWS, 3, 10, 12)).astype("f4"),
    "value": DICE.normal(0, 1, ROWS),
    "name": np.array([f"n{row}" for row in range(ROWS)], "S4").reshape(-1, 1),
    "pair": DICE.integers(0, 100, (ROWS, 2)),
}
WANTED = {
    "image": STORED["image"],
    "double": (2 * STORED["value"]).astype("f4"),
    "name": STORED["name"][:, 0].astype("S8"),
    "pair": STORED["pair"].astype("i4"),
}
#: How the pixels may be stored.
LAYOUTS = {
    "contiguous": {},
    "chunks of rows": {"chunks": (4, 3, 10, 12)},
    "chunks across rows": {"chunks": (7, 2, 4, 5)},
    "h5py's own": {"chunks": True},
    "gzip across rows": {"chunks": (7, 2, 4, 5), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (9, 1, 10, 7), "compression": "lzf"},
}


def make(path: Path, layout: str = "contiguous", **changes) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in (STORED | changes).items():
            if values is not None:
                file.create_dataset(name, data=values, **(LAYOUTS[layout] if name == "image" else {}))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_are_the_same_however_they_are_stored_and_in_whatever_order_they_are_read(tmp_path, layout):
    order = [(a, min(a + 6, ROWS)) for a in range(0, ROWS, 6)]
    order += [(int(a), int(a) + 3) for a in np.random.default_rng(1).integers(0, ROWS - 3, 30)]
    order += [(0, ROWS), (50, 50), (100, 101)]
    with AdoptedFile(make(tmp_path / "a.hdf5", layout), COLUMNS, ROWS, form=FORM) as file:
        for start, stop in order:
            outs = {column.name: np.empty((stop - start, *column.shape), column.dtype) for column in COLUMNS}
            file.read_columns(outs, start, stop)
            for name, values in outs.items():
                np.testing.assert_array_equal(values, WANTED[name][start:stop], f"{name} {start}:{stop}")


def test_a_key_that_is_not_there_takes_only_its_columns_away(tmp_path):
    path = make(tmp_path / "a.hdf5", value=None)
    assert FORM.available(stored_in(path, FORM)) == ["image", "name", "pair"]
    with pytest.raises(PartitionError, match="column double cannot be made of what is there"):
        AdoptedFile(path, COLUMNS, form=FORM)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image": STORED["image"].astype("f8")}, r"image is float64(rows, 3, 10, 12), not float32(rows, 3, 10, 12)"),
        ({"image": STORED["image"][:, :2]}, r"image is float32(rows, 2, 10, 12), not"),
        ({"image": STORED["image"].astype(">f4")}, r"image is >f4(rows, 3, 10, 12), not"),
        ({"value": STORED["value"][:-1]}, "columns have [100, 101] rows"),
        ({"pair": STORED["pair"] + 0.5}, "pair holds"),
        ({"name": np.array([["a text that is too long"]] * ROWS, "S")}, "name is longer than 8 characters"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    path = make(tmp_path / "a.hdf5", **change)
    with pytest.raises(PartitionError, match=re.escape(words)) as caught, AdoptedFile(path, COLUMNS, form=FORM) as file:
        file.read("image")
        file.read("pair")
        file.read("name")
    assert str(path) in str(caught.value)


def test_big_endian_numbers_and_narrow_text_are_read(tmp_path):
    path = make(tmp_path / "a.hdf5", value=STORED["value"].astype(">f8"), pair=STORED["pair"].astype(">i2"))
    with AdoptedFile(path, COLUMNS, form=FORM) as file:
        np.testing.assert_array_equal(file.read("double"), WANTED["double"])
        np.testing.assert_array_equal(file.read("pair", 3, 9), WANTED["pair"][3:9])
        assert file.text("name", 10, 12) == ["n10", "n11"]


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = make(tmp_path / "a.hdf5")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PartitionError, match=r"a.hdf5: is cut short, [\d,]+ bytes are there: download it again"):
        AdoptedFile(path, COLUMNS, form=FORM)


def test_values_that_were_never_written_are_not_read_as_zeros(tmp_path):
    path = make(tmp_path / "a.hdf5", image=None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("image", (ROWS, 3, 10, 12), "f4", chunks=(4, 3, 10, 12))[:8] = 1
    with pytest.raises(PartitionError, match="image is not all there"):
        AdoptedFile(path, COLUMNS, form=FORM)


def test_what_lies_outside_of_the_file_is_refused(tmp_path):
    make(tmp_path / "other.hdf5")
    path = make(tmp_path / "a.hdf5", value=None)
    with h5py.File(path, "r+") as file:
        file["value"] = h5py.ExternalLink("other.hdf5", "value")
    with pytest.raises(PartitionError, match="value is a soft or external link: refused"):
        stored_in(path, FORM)


def test_text_of_any_length_is_refused(tmp_path):
    path = make(tmp_path / "a.hdf5", name=None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("name", data=["a"] * ROWS, dtype=h5py.string_dtype())
    with pytest.raises(PartitionError, match="column name"):
        stored_in(path, FORM)


def test_planes_that_are_all_alike_are_noticed(tmp_path):
    images = STORED["image"].copy()
    images[[3, 50], 1:] = images[[3, 50], :1]
    images[7] = 0  # blank: nothing to be told of it
    path = make(tmp_path / "a.hdf5", image=images)
    key = Column("image", "float32", (3, 10, 12))
    with pytest.warns(UserWarning, match=r"a.hdf5: r, i are the g image again in 2 of 4 rows looked at \(3, 50\)"):
        warn_of_equal_planes(path, key, "gri", [3, 7, 8, 50])
