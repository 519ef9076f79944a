"""Published files read where they lie: every way of loading gives the rows that the files hold, or says what is wrong."""

import io
import os
import re
import warnings
from itertools import islice

import h5py
import numpy as np
import pytest
from datasets import load_dataset

import skyset
from skyset.errors import PartitionError, UserError
from skyset.explore.objects import object_figure
from skyset.loading.in_place import lying_in, published_in
from skyset.published.galaxiesml import file_name
from tests.conftest import once
from tests.published import files

pytestmark = pytest.mark.filterwarnings("error::UserWarning:skyset")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Published files of both sizes, and their CSV. Do not change it."""
    return once(tmp_path_factory, "galaxiesml_published", files.write)


@pytest.fixture
def small(tmp_path):
    """64-pixel files of one's own to change."""
    return files.write(tmp_path / "own", sizes=(64,), counts={"train": 12, "test": 3})


def load(folder, config="64", **options):
    return skyset.load("galaxiesml", config, data_dir=str(folder), **options)


def ids(rows):
    return [int(row["object_id"]) - files.FIRST_ID for row in rows]


def check(row, size=64):
    """One row by what its number makes it."""
    number = int(row["object_id"]) - files.FIRST_ID
    stored = files.published(number, 1, size)
    if size:
        assert row["image"].dtype == np.float32 and row["image"].shape == (5, size, size)
        np.testing.assert_array_equal(row["image"], stored["image"][0])
    assert row["ra"] == stored["ra"][0] and row["specz_redshift"] == stored["specz_redshift"][0]
    assert row["specz_name"] == f"specz_name {number}" and row["specz_flag_homogeneous"] == (number % 2 == 0)
    assert row["g_cmodel_mag"] == np.float32(stored["g_cmodel_mag"][0])
    assert np.isnan(row["r_ellipticity"]) == (number % files.UNSEEN == 2)
    assert row["g_peak_surface_brightness"] == np.float32(stored["g_peak_surface_brightness"][0] + 27)


@pytest.mark.parametrize("config", ["127", "64", "tabular"])
@pytest.mark.parametrize("streaming", [True, False])
def test_every_row_of_every_split(folder, config, streaming, tmp_path):
    start = 0
    for split, count in files.COUNTS.items():
        rows = load(folder, config, split=split, streaming=streaming, cache_dir=str(tmp_path))
        assert len(rows) == count and ids(rows) == list(range(start, start + count))
        for row in islice(iter(rows), 0, 6):
            check(row, 0 if config == "tabular" else int(config))
        start += count


def test_the_largest_size_is_the_default(folder):
    assert next(iter(skyset.load("galaxiesml", data_dir=str(folder))))["image"].shape == (5, 127, 127)


def test_shuffle_state_take_and_select(folder):
    rows = load(folder)
    mixed = rows.shuffle(seed=3)
    seen = list(mixed)
    assert sorted(ids(seen)) == list(range(30)) != ids(seen)
    for row in seen[:4]:
        check(row)
    first = iter(mixed)
    for _ in range(7):
        next(first)
    again = load(folder).shuffle(seed=3)
    again.load_state_dict(mixed.state_dict())
    assert ids(again) == ids(seen)[7:]
    assert ids(rows.skip(4).take(3)) == [4, 5, 6]
    (row,) = rows.select_columns(["g_petro_rad", "healpix"]).take(1)
    assert set(row) == {"g_petro_rad", "healpix"}


def test_formats_and_crops(folder):
    torch = pytest.importorskip("torch")
    row = next(iter(load(folder, format="torch")))
    assert row["image"].dtype == torch.float32 and row["g_x_image"].dtype == torch.float64
    whole, middle = next(iter(load(folder))), next(iter(load(folder, image_size=32)))
    np.testing.assert_array_equal(middle["image"], whole["image"][:, 16:48, 16:48])
    batch = next(load(folder).iter(8))
    assert batch["image"].shape == (8, 5, 64, 64)
    assert len(next(iter(load(folder, format="arrow").iter(5)))) == 5


@pytest.mark.slow
def test_workers_share_the_rows(folder):
    data = pytest.importorskip("torch.utils.data")
    rows = load(folder, "127", format="torch").shuffle(seed=1)
    seen = [int(one) for batch in data.DataLoader(rows, batch_size=4, num_workers=2) for one in batch["object_id"]]
    assert sorted(seen) == [files.FIRST_ID + number for number in range(30)]


def test_a_folder_with_some_of_the_files_has_those_splits(small):
    assert set(load_dataset("galaxiesml", "64", data_dir=str(small), streaming=True)) == {"train", "test"}
    with pytest.raises(ValueError, match="validation"):
        load(small, split="validation")
    with pytest.raises(UserError, match="own has the published files of config 64, tabular, not of 127"):
        load(small, "127")


def test_csv_files_alone_are_the_table(small):
    wanted = list(load(small, "tabular"))
    for path in small.glob("*.hdf5"):
        path.unlink()
    rows = list(load(small, "tabular"))
    assert ids(rows) == list(range(12)) and set(rows[0]) == set(wanted[0])
    for row, same in zip(rows, wanted, strict=True):
        check(row, 0)
        for name in row:
            np.testing.assert_array_equal(row[name], same[name], name)


def test_an_id_that_was_a_float_in_a_csv_is_named(small):
    for path in small.glob("*.hdf5"):
        path.unlink()
    path = small / file_name(64, "train", ".csv")
    path.write_text(path.read_text().replace(str(files.FIRST_ID + 3), "4.3158722E+16"))
    with pytest.raises(
        UserError, match=r"training_with_morphology.csv: object_id holds 4.3158722E\+16 in row 4: identifiers"
    ):
        load(small, "tabular")


@pytest.mark.parametrize(
    "old, new, words",
    [
        (str(files.FIRST_ID + 3), "1" * 25, f"object_id holds {'1' * 25} in row 4: not an integer of 64 bits"),
        (str(files.FIRST_ID + 3), "9223372036854775808", "in row 4: not an integer of 64 bits"),
        ("specz_name 5", "Zürich", "specz_name .*Z.*rich"),
    ],
)
def test_values_of_a_csv_that_no_column_holds_are_named(small, old, new, words):
    for path in small.glob("*.hdf5"):
        path.unlink()
    path = small / file_name(64, "train", ".csv")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=words):
        load(small, "tabular")


def test_text_that_is_not_ascii_is_refused_by_name_and_not_changed(small):
    def change(file):
        names = file["specz_name"][:].astype("S40")
        names[2] = "Zürich".encode()
        files.replace(file, "specz_name", names)

    files.edit(small / TRAIN, change)
    with pytest.raises(PartitionError, match=f"{TRAIN}: row 2: specz_name is 'Zürich', which is not ASCII"):
        list(load(small))


def test_rows_of_other_order_or_number_are_another_dataset(small):
    """Also for the cache of tables: an edited file is read again."""
    before = load(small, streaming=False)
    files.edit(
        small / file_name(64, "train"), lambda file: file["object_id"].write_direct(file["object_id"][:][::-1].copy())
    )
    assert ids(before) == list(range(12)) and ids(load(small, streaming=False)) == list(range(12))[::-1]


TRAIN = file_name(64, "train")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda file: file.__delitem__("object_id"), "has no object_id: not a file of GalaxiesML"),
        (lambda file: file.__delitem__("image"), "has no image"),
        (
            lambda file: files.replace(file, "object_id", file["object_id"][:].astype(float)),
            "object_id is stored as float64",
        ),
        (lambda file: files.replace(file, "image", file["image"][:].astype("f8")), "image is float64"),
        (lambda file: files.replace(file, "image", file["image"][:, :, 1:]), "image is float32(rows, 5, 63, 64)"),
        (lambda file: files.replace(file, "image", file["image"][:-1]), "columns have"),
        (lambda file: files.replace(file, "g_petro_rad", np.array([b"a"] * 12)), "g_petro_rad is |S1"),
        (lambda file: files.replace(file, "x_coord_x", file["x_coord_x"][:, 0]), "x_coord_x is float64"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(small, change, words):
    files.edit(small / TRAIN, change)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        load(small)
    assert TRAIN in str(caught.value)


def test_a_file_cut_short_is_named_and_may_not_be_skipped_silently(small):
    os.truncate(small / TRAIN, os.path.getsize(small / TRAIN) * 2 // 3)
    with pytest.raises(UserError, match=rf"{TRAIN}: is cut short"):
        load(small, on_bad_partition="skip")


def test_a_file_that_changes_after_it_was_found(small):
    rows = load(small)
    files.write(small, sizes=(64,), counts={"train": 14})
    with pytest.raises(PartitionError, match=rf"{TRAIN}: has \d+ bytes"):
        list(rows)


def test_a_key_less_is_a_column_less(small):
    files.edit(small / TRAIN, lambda file: file.__delitem__("y_coord_y"))
    with pytest.warns(UserWarning, match="training_with_morphology.hdf5: has no y_coord_y: rows come without these"):
        rows = load(small)
    row = next(iter(rows))
    assert "g_y_image" in row and not {"r_x_image", "i_y_image"} & set(row)


def test_planes_that_are_alike_are_told(small):
    def repeat(file: h5py.File) -> None:
        file["image"][:, 1:] = file["image"][:, :1]

    files.edit(small / TRAIN, repeat)
    with pytest.warns(UserWarning, match=r"training.*: r, i, z, y are the g image again in 5 of 5 rows looked at"):
        load(small)


def test_pixels_of_a_band_that_are_nan_or_0_are_handed_out_as_they_are_unless_all_are(small):
    def change(value, *where):
        files.edit(small / TRAIN, lambda file: file["image"].__setitem__(where, value))

    change(np.nan, 2, 1, slice(20, 40))
    change(0, 3, 1, slice(20, 40))
    rows = list(load(small))
    assert np.isnan(rows[2]["image"][1]).sum() == 20 * 64 and (rows[3]["image"][1] == 0).sum() == 20 * 64
    for row, value in ((2, np.nan), (3, 0), (4, np.inf)):
        change(value, row, 1)
        with pytest.raises(
            PartitionError, match=rf"{TRAIN}: row {row}.*: the image of a band has no pixel that is a number"
        ):
            list(load(small))
        with pytest.warns(UserWarning):
            assert not {2, row} & set(ids(load(small, on_bad_partition="skip")))
        change(1, row, 1)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda file: file["ra"].__setitem__(5, np.nan), "row 5 \\(43158722000000006\\): no position on the sky"),
        (lambda file: file["dec"].__setitem__(0, 91), "row 0 .*: no position on the sky"),
        (lambda file: file["object_id"].__setitem__(3, files.FIRST_ID), "row 3 .*: the id of another row: convert"),
        (lambda file: file["object_id"].__setitem__(3, files.FIRST_ID + 13), "43158722000000014 is in .*training.* too"),
    ],
)
@pytest.mark.parametrize("config", ["64", "tabular"])
def test_rows_without_a_position_and_repeated_ones_are_refused_by_name(small, config, change, words):
    files.edit(small / TRAIN, change)
    for _ in range(2):
        with pytest.raises(UserError, match=words):
            load(small, config)


def test_chunks_are_read_too(tmp_path):
    files.write(tmp_path, sizes=(64,), counts={"train": 12}, chunks=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in load(tmp_path):
            check(row)


def test_checksums_there_are_none(folder):
    with pytest.raises(UserError, match="verify needs the checksums"):
        load(folder, verify=True)


def test_a_galaxy_is_drawn_where_it_lies(folder):
    root, survey, manifest = published_in("galaxiesml", str(folder))
    figure = object_figure(survey, root, str(files.FIRST_ID + 31), None, manifest)
    assert str(files.FIRST_ID + 31) in figure.get_suptitle() and len(figure.axes) == 6
    with pytest.raises(UserError, match="no object 7"):
        object_figure(survey, root, "7", None, manifest)


# --- The commands ---------------------------------------------------------------------------------


def command(*words):
    from tests.test_cli import skyset as run

    return run(*words)


def test_show_draws_and_info_tells_of_files_that_lie_in_a_folder(small, tmp_path):
    status, text = command("show", small, "--object", str(files.FIRST_ID + 5), "-o", tmp_path / "x.png")
    assert status == 0 and (tmp_path / "x.png").stat().st_size > 10_000
    status, text = command("info", small)
    assert status == 0 and "train 12, test 3" in text and "read where they lie" in " ".join(text.split())
    assert "in the same folder: tabular" in text and "sky" not in text.split()
    status, text = command("info", small, "--json")
    assert status == 0 and '"rows": 15' in text and '"dec": [' not in text


def test_verify_of_published_files_says_what_to_run(small):
    status, text = command("verify", small)
    assert status == 2
    assert f"`skyset build galaxiesml --local_data_path {small} -o DIR`" in text and "manifest" not in text


def test_all_values_of_a_row_without_images_are_legible(folder):
    root, survey, manifest = lying_in(folder)["tabular"]
    number = files.FIRST_ID + 4  # no float has it
    figure = object_figure(survey, root, str(number), manifest=manifest)
    blocks = [axes.texts[0].get_text().splitlines() for axes in figure.axes]
    lines = [line for block in blocks for line in block]
    assert f"object_id: {number}" in lines and str(number) in figure.get_suptitle() and len(lines) >= len(survey.columns)
    assert len(blocks) > 1 and max(map(len, blocks)) <= 60
    figure.savefig(io.BytesIO())  # lays it out
    for axes in figure.axes:
        box, whole = axes.texts[0].get_window_extent(), figure.bbox
        assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 - 1, axes.texts[0].get_text()
