"""Folders of HDF5 that follow nobody's layout: adopted, loaded, and compared with what was written."""

import h5py
import numpy as np
import pytest

import skyset
from skyset.adopting.adopt import adopt
from skyset.adopting.fields import Names
from skyset.adopting.fold import Fold
from skyset.adopting.making import Making
from skyset.errors import UserError
from skyset.partitions.tree.form import Source
from skyset.sky import healpix_cell
from skyset.survey import Column

DICE = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_CACHE", str(tmp_path / "cache"))


def loaded(tmp_path, make, files=3):
    """What was made of some files: the dataset, and its rows by id."""
    (tmp_path / "tree").mkdir()
    for number in range(files):
        with h5py.File(tmp_path / "tree" / f"f{number}.h5", "w") as file:
            make(file, number)
    dataset = adopt(tmp_path / "tree", tmp_path / "index").datasets[0]
    rows = skyset.load(str(tmp_path / "index"), split="train", streaming=True).with_format("numpy")
    found = {row["object_id"]: row for row in rows}
    assert len(found) == dataset.rows
    return dataset, found


def places(number, rows=5):
    return np.linspace(100, 120, rows) + number, np.linspace(-5, 60, rows)


def test_one_table_of_records(tmp_path):
    def make(file, number):
        table = np.zeros(5, [("id", ">i8"), ("ra", "f8"), ("dec", "f8"), ("flux", ">f4", (4,)), ("name", "S6")])
        table["id"], (table["ra"], table["dec"]) = np.arange(5) * 7 + 100 * number + 1000, places(number)
        table["flux"], table["name"] = np.arange(20).reshape(5, 4) + number, b"star"
        file["table"] = table

    dataset, rows = loaded(tmp_path, make)
    assert dataset.findings.lines() == [] and dataset.inferred.form.kind == "columns"
    row = rows["1214"]
    assert row["table"]["flux"].tolist() == [10, 11, 12, 13] and row["table"]["name"] == "star"
    assert (row["ra"], row["dec"]) == (112, 27.5)


def test_datasets_in_groups_and_ids_of_any_length(tmp_path):
    def make(file, number):
        file["meta/ra"], file["meta/dec"] = places(number)
        file["meta/id"] = np.array([f"g{number}-{row}" for row in range(5)], h5py.string_dtype())
        file["images/data"] = np.arange(5 * 64, dtype="f4").reshape(5, 8, 8) + number
        file["wave"] = np.arange(30.0)

    dataset, rows = loaded(tmp_path, make)
    assert dataset.findings.lines() == ["1 dataset left out"]  # wavelengths of all rows are no column
    np.testing.assert_array_equal(rows["g2-3"]["images_data"], np.arange(192, 256).reshape(8, 8) + 2)
    assert rows["g2-3"]["ra"] == 117


def test_sizes_that_differ_along_one_axis_and_along_two(tmp_path):
    images = {k: DICE.random((5, 6 + k, 7 + k)).astype("f4") for k in range(3)}
    cubes = {k: DICE.random((5, 2 + k, 4)).astype("f4") for k in range(3)}

    def make(file, number):
        file["ra"], file["dec"] = places(number)
        file["image"], file["cube"] = images[number], cubes[number]

    dataset, rows = loaded(tmp_path, make)
    assert dataset.findings.lines() == ["1 column of different shapes"]
    assert dataset.inferred.survey.column("cube").shape == (-1, 4)
    for number in range(3):
        row = rows[f"f{number}:3"]  # no ids: file and row
        np.testing.assert_array_equal(row["cube"], cubes[number][3])
        np.testing.assert_array_equal(row["image"], images[number][3].ravel())


def test_other_names_of_positions_and_other_bytes(tmp_path):
    spectra = DICE.random((5, 30))

    def make(file, number):
        file["RAJ2000"], file["DEJ2000"] = places(number)
        file["ID"] = np.arange(5, dtype=">i4") + 10 * number
        file["spec"] = spectra.astype(">f4")
        file["spec"].attrs["unit"] = "mJy"
        file["note"] = np.array(["é"] * 5, h5py.string_dtype())

    dataset, rows = loaded(tmp_path, make)
    column = dataset.inferred.survey.column("spec")
    assert (column.dtype, column.unit) == ("float32", "mJy")
    np.testing.assert_array_equal(rows["23"]["spec"], spectra[3].astype("f4"))
    assert rows["23"]["RAJ2000"] == rows["23"]["ra"] == 117


def test_dtypes_that_do_not_fit_each_other(tmp_path):
    def make(file, number):
        file["ra"], file["dec"] = places(number)
        file["id"] = np.arange(5) * 3 + 100 * number + 5
        file["code"] = np.arange(5) if number else np.array([b"a"] * 5)
        file["size"] = np.arange(5.0) if number else np.array([b"a"] * 5)
        file["count"] = np.arange(5, dtype="i8") if number else np.arange(5, dtype="f4")
        file["none"] = np.zeros((5, 0))

    dataset, rows = loaded(tmp_path, make)
    assert dataset.findings.lines() == ["2 columns of different dtypes", "2 datasets left out"]
    names = {column.name for column in dataset.inferred.survey.columns}
    assert not {"size", "none"} & names
    assert rows["8"]["code"] == "a" and rows["208"]["code"] == "1" and rows["208"]["count"] == 1.0


def test_one_object_a_file_with_images_of_any_size(tmp_path):
    images = {k: DICE.random((3, 10 + k, 10)).astype("f4") for k in range(3)}
    packed = DICE.random((40, 40))

    def make(file, number):
        file["ra"], file["dec"], file["name"] = 100.0 + number, 1.0, f"obj{number}"
        file["image"], file["good"] = images[number], np.ones((10, 10), bool)
        file.create_dataset("packed", data=packed, chunks=(7, 9), compression="gzip")

    dataset, rows = loaded(tmp_path, make)
    assert dataset.inferred.form.kind == "objects" and dataset.findings.lines() == []
    np.testing.assert_array_equal(rows["obj2"]["image"], images[2])
    np.testing.assert_array_equal(rows["obj2"]["packed"], packed)
    assert rows["obj2"]["good"].shape == (10, 10) and rows["obj2"]["ra"] == 102


def test_objects_without_an_id_are_called_by_their_files(tmp_path):
    def make(file, number):
        file["ra"], file["dec"], file["z"] = 100.0 + number, 1.0, 0.5

    _, rows = loaded(tmp_path, make)
    assert set(rows) == {"f0", "f1", "f2"}


def test_columns_that_cannot_be_streamed_are_left_out(tmp_path):
    def make(file, number):
        file["ra"], file["dec"] = places(number)
        file["good"] = np.arange(5)
        file.create_dataset("never", (5, 10**6, 10**6), "f8", chunks=(1, 1000, 1000), compression="gzip")
        file.create_dataset("scaled", data=np.arange(5.0), chunks=(5,), scaleoffset=3)
        file.create_dataset("some", (5, 4), "f4", chunks=(1, 4))[0] = 1

    dataset, rows = loaded(tmp_path, make)
    assert dataset.findings.lines() == ["3 datasets left out"] and dataset.files == 3
    assert rows["f1:2"].keys() == {"object_id", "ra", "dec", "healpix", "good"} and rows["f1:2"]["good"] == 2


def test_a_file_that_lacks_rows_of_a_column_that_others_have_is_named(tmp_path):
    def make(file, number):
        file["ra"], file["dec"] = places(number)
        file["flux"] = np.arange(5 + (number == 1))
        file["wave"] = np.arange(5 if number == 0 else 7)  # no column, though in one file it is as long as there are rows

    dataset, rows = loaded(tmp_path, make)
    assert (dataset.files, dataset.broken) == (2, 1)
    assert dataset.findings.lines() == ["1 dataset left out", "1 broken file"]
    assert 'f1.h5,,,"flux, which most files have as a column: 6 rows, not 5"' in dataset.findings.text()
    assert rows["f2:4"].keys() == {"object_id", "ra", "dec", "healpix", "flux"}


def test_right_ascensions_from_minus_180_and_positions_off_the_sky(tmp_path):
    def make(file, number):
        file["ra"], file["dec"] = np.array([-180.0, -20, 0, 170, 1e30]) + number, np.array([-5.0, 60, 30, 20, 0])

    dataset, rows = loaded(tmp_path, make)
    assert dataset.findings.lines() == ["3 rows without a position"]
    for number in range(3):
        found = [rows[f"f{number}:{row}"] for row in range(4)]
        assert [row["ra"] for row in found] == [180 + number, 340 + number, number, 170 + number]
        assert [row["healpix"] for row in found] == [healpix_cell(row["ra"], row["dec"]) for row in found]
        assert rows[f"f{number}:4"]["healpix"] == -1


def test_ids_that_are_not_ascii_are_as_wide_as_their_bytes(tmp_path):
    def make(file, number):
        for row, (ra, dec) in enumerate(zip(*places(number), strict=True)):
            file[f"é☃{number}-{row}/ra"], file[f"é☃{number}-{row}/dec"] = ra, dec

    dataset, rows = loaded(tmp_path, make)
    assert dataset.inferred.form.kind == "groups" and dataset.rows == len(rows) == 15


@pytest.mark.parametrize("single", [True, False])
def test_members_that_some_tables_lack(tmp_path, single):
    def make(file, number):
        table = np.zeros(5, [("a", "f4"), ("b" if number else "c", "i4")])
        table["a"] = np.arange(5) + 10 * number
        if number:
            table["b"] = 7 * number
        file["object_id"], (file["ra"], file["dec"]) = (
            (number, (10.0 + number, 5.0)) if single else (np.arange(5) + 10 * number, places(number))
        )
        file["tab"] = table

    _, rows = loaded(tmp_path, make)
    first, last = rows["0"], rows["2" if single else "20"]
    if single:
        first, last = ({f"tab_{name}": value for name, value in row["tab"].items()} for row in (first, last))
    assert np.ravel(last["tab_a"])[0] == 20 and np.ravel(last["tab_b"])[0] == 14 and np.ravel(first["tab_c"])[0] == 0
    assert (first["tab_b"] == -1).all() and (last["tab_c"] == -1).all()


@pytest.mark.parametrize("single", [True, False])
def test_ids_that_are_neither_text_nor_integers_in_one_file(tmp_path, single):
    def make(file, number):
        ids = [np.arange(5) + 10, np.arange(5).astype("S3"), np.arange(5) + 0.5][number]
        if single:
            file["object_id"], file["ra"], file["dec"] = ids[0], 10.0, number
        else:
            file["object_id"], (file["ra"], file["dec"]) = ids, places(number)

    dataset, rows = loaded(tmp_path, make)
    assert set(rows) == ({"10", "0"} if single else {"10", "11", "12", "13", "14", "0", "1", "2", "3", "4"})
    assert "float64, where ids are text or integers" in dataset.findings.text()


def test_light_curves_of_more_bands_than_are_named(tmp_path):
    def make(file, number):
        file["object_id"], file["ra"], file["dec"] = f"o{number}", 10.0 + number, 5.0
        file["bands"] = ["g,r,i", "g,r", "", "i,r,g"][number]
        file["time"] = np.arange(1.0, 13).reshape(3, 4)
        file["flux"] = np.arange(12.0).reshape(3, 4)

    dataset, rows = loaded(tmp_path, make, 4)
    assert dataset.findings.lines() == ["2 objects left out"]
    assert "bands names 2 bands, time has 3: it is left out" in dataset.findings.text()
    assert set(rows) == {"o0", "o3"} and rows["o3"]["lightcurve"]["band"][4:9] == ["r"] * 4 + ["g"]


def test_no_row_has_a_position(tmp_path):
    def make(file, number):
        file["object_id"], file["ra"], file["dec"] = np.arange(5), np.full(5, np.nan), np.zeros(5)

    with pytest.raises(UserError, match="no row has a position"):
        loaded(tmp_path, make)


def test_ten_thousand_columns(tmp_path):
    making = Making(Fold("columns"), Names("", "ra", "dec"))
    for number in range(20_000):
        name = making.free("same" if number % 2 else f"c{number}")
        making.put("", Column(name, "int8"), Source((), "cell"))
    assert len(making.columns) == 20_000 and "same_10000" in making.columns


def test_files_at_the_root_beside_folders_and_folders_called_as_the_index_files(tmp_path):
    for number, folder in enumerate(("", "all", "manifest.json", "units.arrow")):
        (tmp_path / "tree" / folder).mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / "tree" / folder / "f.h5", "w") as file:
            file["ra"], file["dec"] = places(number)
    found = adopt(tmp_path / "tree", tmp_path / "index").datasets
    assert [each.name for each in found] == ["root", "all", "manifest.json_2", "units.arrow_2"]
    for number, each in enumerate(found):
        rows = list(skyset.load(str(tmp_path / "index"), each.name, split="train", streaming=True))
        assert [row["ra"] for row in rows] == places(number)[0].tolist()
