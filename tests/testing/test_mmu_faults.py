"""What a tree is asked to be: larger, with other configurations, with faults, each in the files as the truth says."""

import re

import h5py
import numpy as np
import pytest

from skyset.errors import UserError
from skyset.sky import healpix_cell
from skyset.testing.mmu import FAULTS, KINDS, write
from skyset.testing.mmu.__main__ import main


def planted(tmp_path, kind, *faults, **more):
    """A tree with faults, and the same without."""
    return write(kind, tmp_path / "bad", faults=faults, **more), write(kind, tmp_path / "good", **more)


def opened(truth, number=0):
    return h5py.File(truth.folder / list(truth.files)[number], "r")


def by_config(truth, what):
    """Something of the first file of each configuration."""
    found = {}
    for number, name in enumerate(truth.files):
        with opened(truth, number) as file:
            found.setdefault(name.split("/")[0], what(file))
    return found


def test_without_faults_nothing_is_planted(tmp_path):
    assert write("jwst", tmp_path / "jwst").planted == []


@pytest.mark.parametrize(("kind", "key"), [("jwst", "object_id"), ("gaia", "source_id"), ("tess", "object_id")])
def test_rows_in_the_wrong_cell(tmp_path, kind, key):
    bad, good = planted(tmp_path, kind, "wrong_cell")
    assert [each.row for each in bad.planted] == [2, 3, 4]
    with opened(bad) as file:
        ra, dec = (file[next(name for name in (lower, lower.upper()) if name in file)][:] for lower in ("ra", "dec"))
        cells = healpix_cell(ra, dec)
        own = int(re.search(r"healpix=(\d+)", bad.planted[0].path)[1])
        assert (cells[:2] == own).all()
        assert (cells[2:] != own).all()
        assert (file["healpix"][:] == cells).all(), "as the builder's catalogue has it"
        assert [each.object_id for each in bad.planted] == [str(value) for value in file[key][2:]]
    moved = bad.rows[bad.planted[0].object_id]
    assert moved.get("ra", moved.get("RA")) == ra[2]
    assert set(bad.rows) == set(good.rows)


def test_an_object_or_a_group_in_the_wrong_cell(tmp_path):
    for kind in ("yse", "manga"):
        bad = write(kind, tmp_path / kind, faults=["wrong_cell"])
        row = bad.rows[bad.planted[0].object_id]
        own = int(re.search(r"healpix=(\d+)", bad.planted[0].path)[1])
        assert own != row["healpix"] == healpix_cell(row["ra"], row["dec"])


def test_ids_of_pythons_hash(tmp_path):
    bad, good = planted(tmp_path, "jwst", "hashed_ids")
    differences = {int(a) - int(b) for a, b in zip(bad.rows, good.rows, strict=True)}
    assert len(differences) == 1
    assert abs(differences.pop()) > 1 << 60
    with opened(bad) as file:
        assert file["object_id"].dtype == np.int64
        assert [str(value) for value in file["object_id"][:]] == next(iter(bad.files.values()))


def test_ids_that_begin_again(tmp_path):
    bad, _ = planted(tmp_path, "chandra", "restarting_ids")
    assert list(bad.files.values()) == [["0", "1", "2", "3", "4"]] * 4


def test_rows_of_zeros(tmp_path):
    bad, good = planted(tmp_path, "gaia", "zero_rows")
    assert set(bad.rows) == {*good.rows, "0"}
    assert [(each.row, each.object_id) for each in bad.planted] == [(5, "0"), (0, "0"), (1, "0")]
    for each in bad.planted:
        with h5py.File(bad.folder / each.path) as file:
            beside = healpix_cell(0.0, 0.0) if "everything but healpix" in each.what else 0
            assert all(not data[each.row].any() for name, data in file.items() if name != "healpix")
            assert file["healpix"][each.row] == beside
    assert bad.planted[1].path == f"gaia/healpix={healpix_cell(0.0, 0.0)}/001-of-001.hdf5"


def test_rows_of_zeros_have_text_and_lengths(tmp_path):
    bad = write("sdss", tmp_path / "sdss", faults=["zero_rows"])
    with opened(bad) as file:
        assert file["object_id"][5] == b""
        assert not file["spectrum_lambda"][5, : len(bad.rows[""]["spectrum_lambda"])].any()


def test_an_empty_band(tmp_path):
    bad, good = planted(tmp_path, "plasticc", "empty_band")
    for number in range(len(bad.files)):
        with opened(bad, number) as file:
            assert not file["lightcurve"][:, 5].any()
            assert file["lightcurve"][:, :5, 0].any()
    for object_id, row in good.rows.items():
        assert set(row["lightcurve"].flat()["band"]) - set(bad.rows[object_id]["lightcurve"].flat()["band"]) == {"Y"}
    assert bad.planted[0].what == "nothing in band Y"
    hsc = write("hsc", tmp_path / "hsc", faults=["empty_band"])
    with opened(hsc) as file:
        assert not file["image_array"][:, 4].any()
        assert file["image_array"][:, 3].any()


def test_ids_that_come_twice(tmp_path):
    bad, good = planted(tmp_path, "legacysurvey", "duplicate_ids")
    assert set(bad.rows) == set(good.rows)
    ids = next(iter(bad.files.values()))
    assert ids[5:] == ids[:2]
    with opened(bad) as file:
        np.testing.assert_array_equal(file["image_array"][5:], file["image_array"][:2])


@pytest.mark.parametrize(("kind", "flag"), [("hsc", ""), ("jwst", ""), ("sdss", "ZWARNING"), ("desi", "ZWARN")])
def test_inverted_masks_and_flags(tmp_path, kind, flag):
    bad, good = planted(tmp_path, kind, "inverted_mask")
    name = KINDS[kind].masks[0]
    for object_id, row in good.rows.items():
        np.testing.assert_array_equal(bad.rows[object_id][name], ~row[name])
        if flag:
            assert bad.rows[object_id][flag] == (not row[flag])
    with opened(bad) as file, opened(good) as before:
        index = 0
        length = len(next(iter(good.rows.values()))[name])
        np.testing.assert_array_equal(file[name][index, :length], ~before[name][index, :length])


def test_ivar_of_infinities(tmp_path):
    bad, good = planted(tmp_path, "hsc", "infinite_ivar")
    with opened(bad) as file, opened(good) as before:
        masked = ~before["image_mask"][:]
        assert masked.any()
        assert (file["image_ivar"][:][masked] == np.float32(3.4028235e38)).all()
        np.testing.assert_array_equal(file["image_ivar"][:][~masked], before["image_ivar"][:][~masked])


def test_a_position_that_is_nan(tmp_path):
    bad = write("gaia", tmp_path / "gaia", faults=["nan_position"])
    with opened(bad) as file:
        assert np.isnan(file["ra"][:]).tolist() == [True] + [False] * 4
    assert bad.planted[0].row == 0


@pytest.mark.parametrize("kind", ["gaia", "sdss", "yse", "manga"])
def test_columns_that_differ_between_files(tmp_path, kind):
    def members(truth, number):
        file = opened(truth, number)
        return next(iter(file.values())) if kind == "manga" else file

    for fault in ("two_dtypes", "clashing_dtypes", "missing_column"):
        bad = write(kind, tmp_path / fault, faults=[fault])
        name = bad.planted[0].what.split()[0]
        assert bad.planted[0].path == list(bad.files)[1]
        one, other = members(bad, 0), members(bad, 1)
        if fault == "missing_column":
            assert set(one) - set(other) == {name}
        elif fault == "two_dtypes":
            assert one[name].dtype.kind == other[name].dtype.kind == "f"
            assert one[name].dtype.itemsize != other[name].dtype.itemsize
        else:
            assert (one[name].dtype.kind, h5py.check_string_dtype(other[name].dtype) is not None) == ("f", True)


def test_folders_that_are_no_cells(tmp_path):
    bad = write("sdss", tmp_path / "sdss", faults=["not_healpix"])
    assert list(bad.files)[:2] == ["sdss/healpix=9999/001-of-001.hdf5", "sdss/tract=9813/001-of-001.hdf5"]
    assert len(bad.rows) == 20


@pytest.mark.parametrize(("fault", "of_ra", "of_dec"), [("radians", np.pi / 180, np.pi / 180), ("hours", 1 / 15, 1)])
@pytest.mark.parametrize("kind", ["sdss", "yse"])
def test_positions_in_other_units(tmp_path, kind, fault, of_ra, of_dec):
    bad, good = planted(tmp_path, kind, fault)
    object_id = next(iter(bad.files.values()))[0]
    with opened(bad) as file:
        ra, dec = (float(np.ravel(file[name])[0]) for name in ("ra", "dec"))
    assert ra == pytest.approx(good.rows[object_id]["ra"] * of_ra, rel=1e-6)
    assert dec == pytest.approx(good.rows[object_id]["dec"] * of_dec, rel=1e-6)
    assert bad.rows[object_id]["ra"] == good.rows[object_id]["ra"], "the truth is degrees"


def test_foreign_and_broken_files(tmp_path):
    faults = ("foreign_file", "foreign_hdf5", "not_hdf5", "truncated")
    bad, good = planted(tmp_path, "sdss", *faults)
    assert [each.kind for each in bad.planted] == ["foreign_file", *faults]
    paths = {each.kind: bad.folder / each.path for each in bad.planted}
    assert all(path.is_file() for path in paths.values())
    with h5py.File(paths["foreign_hdf5"]) as file:
        assert list(file) == ["matrix"]
    for kind in ("not_hdf5", "truncated"):
        with pytest.raises(OSError, match=r"Unable to .*open file"):
            h5py.File(paths[kind])
    lost = set(list(good.files.values())[-1])
    assert set(good.rows) - set(bad.rows) == lost
    assert list(bad.files) == list(good.files)[:-1]


def test_many_tiny_files(tmp_path):
    bad, good = planted(tmp_path, "sdss", "tiny_files")
    assert len(bad.files) == 20
    assert all(re.search(r"/00[1-5]-of-005\.hdf5", name) for name in bad.files)
    assert {ids[0] for ids in bad.files.values()} == set(good.rows)
    with opened(bad) as file:
        assert file["spectrum_flux"].shape[0] == 1
    plasticc = write("plasticc", tmp_path / "plasticc", cells=[246], faults=["tiny_files"])
    names = ["test_00", "test_01", "train_00", "train_01", "train_02"]
    assert sorted(plasticc.files) == [f"data/healpix=246/{name}.hdf5" for name in names]


def test_faults_together_are_where_the_truth_says(tmp_path):
    faults = ["duplicate_ids", "zero_rows", "wrong_cell", "infinite_ivar", "inverted_mask", "hashed_ids"]
    bad = write("hsc", tmp_path / "hsc", faults=faults)
    ids = next(iter(bad.files.values()))
    first = next(iter(bad.files))
    assert [each.row for each in bad.planted if each.path == first] == [2, 3, 4, 5, 6, 7]
    assert all(each.object_id == ids[each.row] for each in bad.planted if each.path == first)
    with opened(bad) as file:
        assert not file["image_ivar"][5].any()
        assert [str(value) for value in file["object_id"][:]] == ids


def test_every_fault_can_be_planted_somewhere(tmp_path):
    for name, fault in FAULTS.items():
        kind = {"objects": "yse", "columns": "jwst"}[fault.forms[0]]
        truth = write(kind, tmp_path / name, rows=2, cells=2, faults=[name])
        assert name == "tiny_files" or {each.kind for each in truth.planted} == {name}


def test_an_object_is_the_same_in_a_larger_tree(tmp_path):
    small, large = write("sdss", tmp_path / "small", rows=4, cells=3), write("sdss", tmp_path / "large", rows=7, cells=5)
    assert set(small.rows) < set(large.rows)
    for object_id, row in small.rows.items():
        np.testing.assert_array_equal(row["spectrum_flux"], large.rows[object_id]["spectrum_flux"])
    other = write("sdss", tmp_path / "other", seed=1)
    assert not any(
        np.array_equal(row["spectrum_flux"], other.rows.get(key, {}).get("spectrum_flux")) for key, row in small.rows.items()
    )


def test_configurations_have_their_own_ids_and_bands(tmp_path):
    truth = write("jwst", tmp_path / "jwst", 2, 1, configs=("ceers", "ngdeep"))
    shapes = by_config(truth, lambda file: file["image_flux"].shape)
    assert shapes == {"ceers": (2, 7, 24, 24), "ngdeep": (2, 6, 24, 24)}
    truth = write("sdss", tmp_path / "sdss", 2, 1, configs=("sdss", "segue1"))
    assert by_config(truth, lambda file: file["object_id"].dtype.kind) == {"sdss": "S", "segue1": "u"}
    assert len(truth.rows) == 4


def test_sizes_are_asked_for(tmp_path):
    truth = write("desi", tmp_path / "a", 1, 1, full_size=True)
    assert opened(truth)["spectrum_flux"].shape == (1, 7781)
    truth = write("hsc", tmp_path / "b", 1, [246], side=20, keep=False)
    assert opened(truth)["image_array"].shape == (1, 5, 20, 20)
    assert truth.rows == {}


def test_wrong_calls_are_one_line(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for arguments, said in [
        (("euclid", tmp_path / "a"), "'euclid' is no survey"),
        (("sdss", tmp_path / "full"), "not empty"),
        (("sdss", tmp_path / "a", 0), "1 to 1,000,000 rows"),
        (("sdss", tmp_path / "a", 1, 4000), "1 to 3,072 cells"),
        (("sdss", tmp_path / "a", 1, [3072]), "from 0 to 3,071"),
        (("sdss", tmp_path / "a", 1, 1, 0, ["holes"]), "'holes' is no fault"),
        (("sdss", tmp_path / "a", 1, 1, 0, ["empty_band"]), "has no bands"),
        (("gaia", tmp_path / "b", 1, 1, 0, ["inverted_mask"]), "cannot have the fault"),
        (("yse", tmp_path / "b", 1, 1, 0, ["zero_rows"]), "cannot have the fault"),
    ]:
        with pytest.raises(UserError, match=re.escape(said)):
            write(*arguments)
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match="no configuration 'eboss2'"):
        write("sdss", tmp_path / "a", configs=["eboss2"])


def test_command_line(tmp_path, capsys):
    assert main(["--kind", "gaia", "-o", str(tmp_path / "gaia"), "--rows", "3", "--faults", "zero_rows"]) == 0
    said = capsys.readouterr().out
    assert "16 rows of gaia in 5 files" not in said
    assert "15 rows of gaia in 5 files" in said
    assert "zero_rows: gaia/healpix=246/001-of-001.hdf5 row 3 0 everything is 0" in said
    assert main(["--kind", "all", "-o", str(tmp_path / "all"), "--rows", "1", "--cells", "1"]) == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == set(KINDS)
    capsys.readouterr()
    assert main(["--kind", "all", "-o", str(tmp_path / "all")]) == 2
    assert "not empty" in capsys.readouterr().err
