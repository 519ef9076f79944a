"""A build's folder that holds other things: what is a build's own is replaced and removed, all else stays."""

import csv
import shutil

import pytest
from astropy.io import fits

pytest.importorskip("numba", reason="MegaCam's sources are measured and grouped with numba")

from skyset.build_scripts.megacam_iqa.build_parent_sample import main
from skyset.build_scripts.megacam_iqa.grouping import pictures
from skyset.build_scripts.megacam_iqa.wanted import local
from skyset.partitions.manifest import Manifest
from skyset.testing.megacam import make_exposures
from tests.conftest import once

#: All but those of `built`.
pytestmark = pytest.mark.usefixtures("undrawn")


def build(root, *arguments):
    options = "--num_processes", "1", "--allow_few_exposures"
    return main(["-o", str(root), *options, *map(str, arguments)])


@pytest.fixture(scope="module")
def exposures(tmp_path_factory):
    """Four exposures of one class, of four small CCDs each."""

    def make(folder):
        make_exposures(folder, 4, ccds=4, suffix=".fits", shape=(256, 128), classes=("GOOD",), density=8)

    return once(tmp_path_factory, "megacam_four", make)


def asked(folder):
    return "--local_data_path", folder, "--labels", folder / "labels.json", "--map", "1x2"


@pytest.fixture(scope="module")
def built(exposures, tmp_path_factory):
    return once(tmp_path_factory, "megacam_four_built", lambda folder: build(folder / "o", *asked(exposures))) / "o"


def contents(root):
    """Every file but locks, by path."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def names(exposures):
    return sorted(path.name.partition(".")[0] for path in exposures.glob("*.fits"))


def test_what_somebody_keeps_in_staged_stays(exposures, tmp_path):
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "mine.f16").write_text("a week's work")
    assert build(tmp_path, *asked(exposures)) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "staged").iterdir()} == {"mine.f16": "a week's work"}


@pytest.mark.parametrize(
    "place", ["LDAC/{}.ldac", "staged/{}.f16", "objects_catalog.parquet", "som/som.npz", "som/planes.png"]
)
def test_a_file_that_no_build_made_is_not_replaced(exposures, tmp_path, capsys, place):
    path = tmp_path / place.format(names(exposures)[2])
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert build(tmp_path, *asked(exposures)) == 2
    error = capsys.readouterr().err
    assert f"{path} was made by no build of this folder: move it" in error and "measuring" not in error
    assert path.read_text() == "mine" and not (tmp_path / "sources").exists()
    assert build(tmp_path, *asked(exposures), "--overwrite") == 2 and path.read_text() == "mine"


def test_exposures_whose_names_would_be_cut_are_rejected_by_name(exposures, tmp_path):
    [source, *_] = sorted(exposures.glob("*.fits"))
    with fits.open(source) as file:
        for hdu in file:
            for key in ("FILENAME", "EXPNUM", "OBSID"):
                hdu.header.remove(key, ignore_missing=True)
        for name in ("field_of_stars_1", "field_of_stars_2", "étoile_été", ".", "a b", "field_1"):
            file.writeto(tmp_path / f"{name}.fits")
    (tmp_path / "5000000p.fits").symlink_to("nowhere")
    wanted, every = local(tmp_path)
    [gone], rejected = ([each for each in every if (each.key == "5000000p") == link] for link in (True, False))
    assert gone.reason.endswith("No such file or directory")
    assert [each.fits_id for each in wanted] == ["field_1"]
    assert {each.key for each in rejected} == {"field_of_stars_1", "field_of_stars_2", "étoile_été", "..fits", "a b"}
    assert all("no exposure can be called" in each.reason for each in rejected)


def test_an_exposure_without_any_light_is_rejected_and_the_others_are_built(exposures, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(exposures, raw)
    with fits.open(raw / f"{names(exposures)[1]}.fits", mode="update") as file:
        for hdu in file[1:]:
            hdu.data[:] = 0
    assert build(tmp_path / "o", *asked(raw)) == 1
    with open(tmp_path / "o" / "representative" / "rejected.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["key"] == names(exposures)[1] and row["reason"] == "no CCD of it has any light"
    assert {path.stem for path in (tmp_path / "o" / "LDAC").iterdir()} == set(names(exposures)) - {row["key"]}


def test_an_ldac_file_that_is_gone_or_cut_is_made_again(built, exposures, tmp_path):
    root, (first, second, *_) = tmp_path / "o", names(exposures)
    shutil.copytree(built, root)
    paths = [root / "LDAC" / f"{name}.ldac" for name in (first, second)]
    paths[0].unlink()
    with open(paths[1], "r+b") as file:
        file.truncate(5000)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.hdf5")}
    assert build(root, *asked(exposures)) == 0
    for path in paths:
        with fits.open(path) as new, fits.open(built / "LDAC" / path.name) as old:
            assert [hdu.name for hdu in new[1:]] == ["LDAC_IMHEAD", "LDAC_OBJECTS"] * 4
            assert all((a.data == b.data).all() for a, b in zip(new[2::2], old[2::2], strict=True))
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.hdf5")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--map", "1x3"), "with --map 1x2, this is with --map 1x3"),
        (("--seed", "1"), "with --seed 0, this is with --seed 1"),
        (("--features", "ISO0"), "this is with --features ISO0"),
        (("--set", "DETECT_THRESH=3"), "without --set, this is with --set DETECT_THRESH=3"),
        (("-c", "{tmp}/a.sex"), "without -c, this is with -c a.sex ("),
        (("--map", "4x5", "--som", "{built}/som/som.npz"), "without --som, this is with --som som.npz ("),
        (("--limit", "2"), "holds exposures that this selection leaves out, such as {last} (2 in all)"),
    ],
)
def test_other_options_over_a_finished_folder_are_refused_before_it_changes(
    built, exposures, tmp_path, capsys, options, words
):
    root = tmp_path / "o"
    shutil.copytree(built, root)
    (tmp_path / "a.sex").write_text("DETECT_THRESH 3\n")
    before = contents(root)
    given = [each.format(tmp=tmp_path, built=built) for each in options]
    assert build(root, *asked(exposures), *given) == 2
    error = capsys.readouterr().err
    assert words.format(last=names(exposures)[2]) in error and "--overwrite" in error
    assert contents(root) == before


def test_a_map_that_is_given_is_the_folders(built, exposures, tmp_path):
    given = built / "som" / "som.npz"
    assert build(tmp_path, "--local_data_path", exposures, "--labels", exposures / "labels.json", "--som", given) == 0
    assert (tmp_path / "som" / "som.npz").read_bytes() == given.read_bytes()
    notes = Manifest.load(tmp_path / "sources").build
    assert notes["map"]["units"] == "1x2" and notes["asked"]["--som"].startswith("som.npz (")


def test_a_map_of_ones_own_in_the_folder_is_taken_and_stays(built, exposures, tmp_path):
    mine = tmp_path / "som" / "som.npz"
    mine.parent.mkdir()
    shutil.copy(built / "som" / "som.npz", mine)
    labels = exposures / "labels.json"
    assert build(tmp_path, "--local_data_path", exposures, "--labels", labels, "--limit", "1", "--som", mine) == 0
    assert mine.read_bytes() == (built / "som" / "som.npz").read_bytes()


def test_too_few_sources_for_a_map_say_which_option(exposures, tmp_path, capsys):
    assert build(tmp_path, *asked(exposures), "--map", "60x60") == 2
    assert "too few for a map of 60 x 60 units: a smaller --map" in capsys.readouterr().err


def test_the_pictures_of_a_map_are_known_before_they_are_drawn(built):
    assert set(pictures(built, clustered=False)) == set((built / "som").glob("*.png"))


def test_what_a_build_says_is_said_once_and_counts_are_as_people_say_them(exposures, tmp_path, capsys):
    raw, [name, *_] = tmp_path / "raw", names(exposures)
    raw.mkdir()
    shutil.copy(exposures / f"{name}.fits", raw)
    (raw / "notes.fits").write_text("no FITS")
    assert build(tmp_path / "o", "--local_data_path", raw, "--map", "1x2", "--split_by_object") == 1
    out, error = capsys.readouterr()
    assert out.count("objects were rejected") == 1 and "1 exposures" not in out
    assert f"1 exposure has no label (-1): {name}" in out and "sources of 1 exposure\n" in out
    assert "measuring 1 exposure: workers start first" in error


def test_help_says_what_tiny_builds_and_what_psfex_needs(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "20 simulated exposures" in words and "the first 5 objects" not in words
    assert "which PSFEx and SCAMP read if --for_psfex was said" in words
    assert "--dates FIRST LAST" in words and "--seed N " in words
