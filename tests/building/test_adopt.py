"""Published files converted to partitions, and written again: the same rows, whatever happens in between."""

import re
import shutil

import numpy as np
import pytest

import skyset
from skyset.build_scripts.galaxiesml.build_parent_sample import main
from skyset.build_scripts.galaxiesml.single_files import write_single_files
from skyset.errors import UserError
from skyset.loaders.galaxiesml import CONFIGS, RECORD
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.published.galaxiesml import BANDS, file_name
from skyset.testing.zenodo import ZenodoServer
from tests.conftest import once
from tests.processes import steps_of
from tests.published import files

COUNTS = {"train": 8, "validation": 3, "test": 2}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Do not change it."""
    return once(tmp_path_factory, "adopt_published", lambda folder: files.write(folder, counts=COUNTS))


@pytest.fixture(scope="module")
def built(tmp_path_factory, published):
    """Its partitions, and the published form of these. Do not change it."""

    def make(folder):
        again = ("--single_files", folder / "again")
        assert build(folder / "gml", "--local_data_path", published, *again) == 0

    return once(tmp_path_factory, "adopt_built", make)


def build(root, *arguments):
    return main(["-o", str(root), "--num_processes", "1", *map(str, arguments)])


def rows(folder, config):
    return {
        split: {row["object_id"]: row for row in skyset.load("galaxiesml", config, data_dir=str(folder), split=split)}
        for split in COUNTS
    }


def check_same(one, other, almost=()):
    assert {split: set(each) for split, each in one.items()} == {split: set(each) for split, each in other.items()}
    for split, each in one.items():
        for key, row in each.items():
            assert set(row) == set(other[split][key])
            for name, value in row.items():
                compare = np.testing.assert_allclose if name in almost else np.testing.assert_array_equal
                compare(value, other[split][key][name], **({"rtol": 2e-7} if name in almost else {}))


def differences(root):
    return [line for config in CONFIGS for line in verify(root / config, CONFIGS[config])]


@pytest.mark.parametrize("config", CONFIGS)
def test_partitions_hold_the_rows_that_are_read_in_place(published, built, config):
    root = built / "gml"
    check_same(rows(published, config), rows(root, config))
    manifest = Manifest.load(root / config)
    assert manifest.config == config and {entry.path.split("/")[0] for entry in manifest.files} == set(COUNTS)
    assert list(verify(root / config, CONFIGS[config])) == []


@pytest.mark.parametrize("config", ["127", "64"])
def test_single_files_hold_the_rows_of_the_partitions(published, built, config):
    # The product of petro_rad's factor with a major axis that was rounded to float32 in between.
    check_same(rows(published, config), rows(built / "again", config), almost={f"{band}_petro_rad" for band in BANDS})


def test_single_files_are_sorted_by_id_and_left_where_they_are(built, capsys):
    ids = [int(row["object_id"]) for row in skyset.load("galaxiesml", "64", data_dir=str(built / "again"))]
    assert ids == sorted(ids) and len(ids) == COUNTS["train"]
    path = built / "again" / file_name(64, "test")
    before = path.stat().st_mtime_ns
    write_single_files(built / "gml", built / "again")
    assert path.stat().st_mtime_ns == before and "is there, and is left" in capsys.readouterr().out


def test_what_is_done_is_not_done_again_and_what_is_damaged_is(published, built, tmp_path):
    root = tmp_path / "gml"
    shutil.copytree(built / "gml", root)
    assert build(root, "--local_data_path", published) == 0
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("healpix=*/*.hdf5")}
    (gone, bent), *_ = zip(sorted(stamps)[::2], sorted(stamps)[1::2], strict=False)
    gone.unlink()
    bent.write_bytes(bent.read_bytes()[:-1])
    assert build(root, "--local_data_path", published) == 0 and differences(root) == []
    changed = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {gone, bent}


@pytest.mark.slow
def test_killed_at_any_step_it_goes_on(published, built, tmp_path):
    root, dead = tmp_path / "gml", 0
    wanted = rows(published, "64")
    for stop_at in (3, 12, 25, 45):
        dead += steps_of(root, lambda: build(root, "--local_data_path", published, "--configs", "64"), stop_at)
    assert dead >= 3
    assert build(root, "--local_data_path", published, "--configs", "64") == 0
    check_same(wanted, rows(root, "64"))
    assert list(verify(root / "64", CONFIGS["64"])) == []
    assert not [path for path in root.rglob("*") if path.name.endswith((".tmp", ".rows.npy"))]


def test_a_limit_takes_the_first_rows_and_may_grow(published, tmp_path):
    assert build(tmp_path, "--local_data_path", published, "--configs", "64", "--tiny") == 0
    assert Manifest.load(tmp_path / "64").rows == 5
    assert build(tmp_path, "--local_data_path", published, "--configs", "64", "--limit", "10") == 0
    assert {split: sum(e.rows for e in each) for split, each in Manifest.load(tmp_path / "64").splits.items()} == {
        "train": 8,
        "validation": 2,
    }
    assert build(tmp_path, "--local_data_path", published, "--configs", "64", "--limit", "3") == 2
    assert Manifest.load(tmp_path / "64").rows == 10


def test_rows_that_cannot_be_used_are_rejected_each_with_its_reason(tmp_path, capsys):
    source = files.write(tmp_path / "own", sizes=(64,), counts=COUNTS)

    def spoil(file):
        file["image"][3, 2] = np.nan
        file["image"][4, 2, 5:9, 5:9] = np.nan  # some pixels: a row
        file["image"][2, 4] = 0
        file["ra"][5] = np.nan
        file["object_id"][7] = file["object_id"][6]

    files.edit(source / file_name(64, "train"), spoil)
    assert build(tmp_path / "out", "--local_data_path", source, "--configs", "64") == 1
    rejected = (tmp_path / "out" / "64" / "rejected.csv").read_text().splitlines()[1:]
    assert len(rejected) == 4 and Manifest.load(tmp_path / "out" / "64").rows == sum(COUNTS.values()) - 4
    for number, words in (
        (2, "0 everywhere"),
        (3, "no pixel that is a number"),
        (5, "not on the sky"),
        (6, "the id is that of another row"),
    ):
        assert any(line.startswith(str(files.FIRST_ID + number)) and words in line for line in rejected), words
    assert list(verify(tmp_path / "out" / "64", CONFIGS["64"])) == []


def test_a_folder_without_published_files_and_one_that_is_cut_short(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert build(tmp_path / "out", "--local_data_path", tmp_path / "empty") == 2
    assert "has no published files (5x127x127_training_with_morphology.hdf5 and so on)" in capsys.readouterr().err
    source = files.write(tmp_path / "own", sizes=(64,), counts=COUNTS)
    path = source / file_name(64, "validation")
    path.write_bytes(path.read_bytes()[:-2000])
    assert build(tmp_path / "out", "--local_data_path", source) == 2
    assert re.search(r"5x64x64_validation_with_morphology.hdf5: is cut short", capsys.readouterr().err)


# --- Zenodo ---------------------------------------------------------------------------------------


def zenodo(root, server, *arguments):
    return build(root, "--published", "--zenodo_url", server.api_url, *arguments)


@pytest.mark.slow
def test_one_file_at_a_time_comes_from_zenodo_and_goes_again(published, built, tmp_path):
    with ZenodoServer(published, RECORD) as server:
        assert zenodo(tmp_path, server, "--configs", "64", "tabular") == 0
        names = [file_name(64, split) for split in COUNTS]
        assert [server.downloads(name) for name in names] == [1, 1, 1]
        assert not server.downloads(file_name(127, "train")) and not (tmp_path / "raw").exists()
        check_same(rows(published, "64"), rows(tmp_path, "64"))
        check_same(rows(published, "tabular"), rows(tmp_path, "tabular"))
        assert zenodo(tmp_path, server, "--configs", "64", "tabular") == 0
        assert [server.downloads(name) for name in names] == [1, 1, 1]
    manifest = Manifest.load(tmp_path / "64")
    assert len(manifest.sources) == 3 and manifest.sources[0].endswith(f"/{names[0]}/content")


def test_a_conversion_from_zenodo_that_ended_early_goes_on_with_the_next_file(published, tmp_path):
    with ZenodoServer(published, RECORD) as server:
        server.fault(f"*{file_name(64, 'validation')}*", "404", times=99)
        assert zenodo(tmp_path, server, "--configs", "64") == 2
        assert list(Manifest.load(tmp_path / "64").splits) == ["train"]
    with ZenodoServer(published, RECORD) as server:
        assert zenodo(tmp_path, server, "--configs", "64", "--keep_raw") == 0
        assert server.downloads(file_name(64, "train")) == 0
        check_same(rows(published, "64"), rows(tmp_path, "64"))
        assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [
            file_name(64, s) for s in ("test", "validation")
        ]


def test_few_rows_of_the_record_are_refused(published, tmp_path, capsys):
    with ZenodoServer(published, RECORD) as server:
        assert zenodo(tmp_path, server, "--tiny") == 2
    assert "whole files are downloaded" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no partitions with images"):
        from skyset.build_scripts.galaxiesml.single_files import write_single_files

        write_single_files(tmp_path, tmp_path / "again")


# --- What must not happen -------------------------------------------------------------------------


def with_ids(source, ids):
    """The training file's identifiers as text."""

    def change(file):
        numbers = [str(number).encode() for number in file["object_id"][:]]
        files.replace(file, "object_id", np.array(ids + numbers[len(ids) :], "S40"))

    files.edit(source / file_name(64, "train"), change)
    return source


@pytest.mark.parametrize("bad", [b"../../../../victim", b"/tmp/victim", b"1/2", b"abc", b"-5", b""])
def test_published_ids_that_are_no_numbers_are_refused_and_nothing_is_written(tmp_path, capsys, bad):
    source = with_ids(files.write(tmp_path / "own", sizes=(64,), counts=COUNTS), [b"1", bad])
    arguments = ("--local_data_path", source, "--configs", "64", "--files_per_object")
    assert build(tmp_path / "a" / "b" / "out", *arguments) == 2
    assert f"row 1: object_id is {bad!r}, not an integer" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*victim*")) and not list((tmp_path / "a").rglob("*-of-*"))


def test_a_csv_of_somebody_elses_is_not_replaced(built, tmp_path, capsys):
    mine = tmp_path / file_name(127, "validation", ".csv")
    mine.write_text("mine")
    with pytest.raises(UserError, match=f"{mine.name} is there without .*hdf5, and is left"):
        write_single_files(built / "gml", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name] and mine.read_text() == "mine"
    with (
        pytest.raises(UserError, match="and is left"),
        files.PublishedWriter(mine.with_suffix(".hdf5"), 64, 1) as one,
    ):
        one.append(files.published(0, 1, 64))
    assert [path.name for path in tmp_path.iterdir()] == [mine.name] and mine.read_text() == "mine"


@pytest.mark.parametrize("number", ["9223372036854775808", "12345678901234567890"])
def test_single_files_have_no_ids_of_more_than_64_bits(tmp_path, capsys, number):
    source = with_ids(files.write(tmp_path / "own", sizes=(64,), counts=COUNTS), [number.encode()])
    again = ("--single_files", tmp_path / "again")
    assert build(tmp_path / "out", "--local_data_path", source, "--configs", "64", *again) == 2
    assert f"{number!r}, which cannot be an object_id there" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["64", "127"])
def test_published_files_are_not_converted_into_a_folder_of_the_archives(published, tmp_path, capsys, config):
    (tmp_path / "64").mkdir()
    Manifest("galaxiesml", list(CONFIGS["64"].columns), "object_id", [], [], {"config": "64"}).save(tmp_path / "64")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert build(tmp_path, "--local_data_path", published, "--configs", config) == 2
    words = f"{tmp_path / '64'} was built from the archive, this is from published files: use the same, another folder"
    assert words in capsys.readouterr().err
    left = [path for path in tmp_path.rglob("*") if path not in before]
    assert [path.name for path in left if path.is_file()] == [".lock"]


def test_the_archives_galaxies_do_not_go_into_a_folder_of_published_files(built, capsys):
    arguments = ("--archive_url", "http://127.0.0.1:9", "--configs", "tabular")
    for more in ((), ("--overwrite",)):
        assert build(built / "gml", *arguments, *more) == 2
        assert f"{built / 'gml' / '127'} was built from published files, this is from the archive" in capsys.readouterr().err


def test_rows_with_values_that_no_column_holds_are_rejected_and_the_others_are_not(tmp_path):
    source = files.write(tmp_path / "own", sizes=(64,), counts=COUNTS)

    def spoil(file):
        names = file["specz_name"][:].astype("S40")
        names[2] = "Zürich".encode()
        files.replace(file, "specz_name", names)
        flags = file["specz_flag_homogeneous"][:].astype(float)
        flags[[3, 4]] = np.nan, 0.5
        files.replace(file, "specz_flag_homogeneous", flags)
        counts = file["g_central_image_pop_5px_rad"][:].astype(float)
        counts[6] = 1.5
        files.replace(file, "g_central_image_pop_5px_rad", counts)

    files.edit(source / file_name(64, "train"), spoil)
    for config in ("64", "tabular"):
        assert build(tmp_path / "out", "--local_data_path", source, "--configs", config) == 1
        rejected = (tmp_path / "out" / config / "rejected.csv").read_text().splitlines()[1:]
        assert len(rejected) == 3
        words = {
            2: "specz_name is 'Zürich', which is not ASCII",
            4: "is 0.5, which is neither",
            6: "pop_5px_rad is 1.5, which is no number",
        }
        for line, (number, each) in zip(rejected, words.items(), strict=True):
            assert line.startswith(str(files.FIRST_ID + number)) and each in line
        found = rows(tmp_path / "out", config)["train"]
        assert sorted(int(key) - files.FIRST_ID for key in found) == [0, 1, 3, 5, 7]
        assert not found[str(files.FIRST_ID + 3)]["specz_flag_homogeneous"]  # NaN is not secure
        assert found[str(files.FIRST_ID)]["specz_flag_homogeneous"]


def test_files_without_rows(tmp_path, capsys):
    source = files.write(tmp_path / "own", sizes=(64,), counts={"train": 3, "validation": 0})
    assert build(tmp_path / "out", "--local_data_path", source) == 0
    assert [Manifest.load(tmp_path / "out" / config).rows for config in ("64", "tabular")] == [3, 3]
    assert len(skyset.load("galaxiesml", "64", data_dir=str(source))) == 3


def test_a_conversion_that_is_refused_leaves_no_staged_rows(published, tmp_path, capsys):
    (tmp_path / "64" / "healpix=3").mkdir(parents=True)
    (tmp_path / "64" / "healpix=3" / "mine.hdf5").write_text("mine")
    assert build(tmp_path, "--local_data_path", published, "--configs", "64") == 2
    assert "not built by galaxiesml" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.rows.npy")) and (tmp_path / "64" / "healpix=3" / "mine.hdf5").read_text() == "mine"
