"""Simulated galaxies as published files: the loader takes them, the truth lies beside; what the command line says."""

import csv
import signal
import sys
import urllib.error
import urllib.request
from itertools import islice
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

pytest.importorskip("galsim", reason="GalSim is not installed: pip install galsim")

import skyset
from skyset.errors import MissingPackage, UserError
from skyset.testing.galaxiesml.__main__ import main, told
from skyset.testing.galaxiesml.colours import galsim
from skyset.testing.galaxiesml.population import draw
from skyset.testing.galaxiesml.published import make_galaxiesml, observe_block, truth_columns
from skyset.testing.galaxiesml.shapes import flux_within, half_light_radii
from skyset.testing.galaxiesml.sky import GalSimSky
from skyset.testing.hsc import Request
from skyset.testing.hsc_sky import window
from tests.conftest import once
from tests.processes import interruptible

GALAXIES, SEED = 21, 3


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    return once(
        tmp_path_factory, "simulated_published", lambda folder: make_galaxiesml(folder, GALAXIES, seed=SEED, sersic=False)
    )


def truth_of(folder) -> dict[int, dict[str, str]]:
    with open(folder / "truth.csv") as file:
        return {int(row["object_id"]): row for row in csv.DictReader(file)}


def test_files_are_as_published(published):
    for size in (127, 64):
        for split, rows in (("training", 15), ("validation", 3), ("testing", 3)):
            name = f"5x{size}x{size}_{split}_with_morphology"
            with h5py.File(published / f"{name}.hdf5") as file:
                assert file["image"].shape == (rows, 5, size, size)
                assert file["image"].dtype == np.float32
                assert file["image"].chunks is None
                assert file["object_id"].dtype == np.int64
                assert file["i_peak_surface_brightness"][:].max() < 0  # at the zero point 0
            with open(published / f"{name}.csv") as table:
                assert len(list(csv.DictReader(table))) == rows


def test_the_smaller_frame_is_cut_from_the_larger_one(published):
    with (
        h5py.File(published / "5x127x127_testing_with_morphology.hdf5") as large,
        h5py.File(published / "5x64x64_testing_with_morphology.hdf5") as small,
    ):
        assert np.array_equal(large["image"][:, :, 31:95, 31:95], small["image"][:])
        image = large["image"][0]
        assert (image[:, 0] == 0).all() and (image[:, :, -1] == 0).all() and (image[:, 60] != 0).any()


def test_the_loader_reads_them_and_they_are_what_the_truth_says(published):
    truth, found = truth_of(published), {}
    for split in ("train", "validation", "test"):
        rows = skyset.load("galaxiesml", "64", data_dir=str(published), split=split, streaming=True).with_format("numpy")
        for row in rows:
            found[int(row["object_id"])] = row
            assert truth[int(row["object_id"])]["split"] == split
            assert row["image"].shape == (5, 64, 64)
    assert found.keys() == truth.keys()
    assert len(found) == GALAXIES
    for identifier, row in found.items():
        true = truth[identifier]
        assert float(row["specz_redshift"]) == pytest.approx(float(true["redshift"]), rel=1e-6)
        error = 0.02 + 5 * float(row["i_cmodel_magsigma"])
        assert float(row["i_cmodel_mag"]) == pytest.approx(float(true["i_mag"]), abs=error)
    bright = [i for i, row in truth.items() if float(row["i_mag"]) < 20.5]
    radii = np.array([found[i]["i_half_light_radius"] / float(truth[i]["i_half_light_radius"]) for i in bright])
    assert len(bright) > 5
    assert 0.8 < np.median(radii) < 1.8  # the seeing makes them larger


def test_a_galaxy_is_the_same_in_any_block():
    together, one = (observe_block(np.array(numbers), GALAXIES, SEED, False) for numbers in ((4, 2, 9), (2,)))
    assert np.array_equal(together[0][1], one[0][0])
    assert all(np.array_equal(values[1], one[1][name][0], equal_nan=True) for name, values in together[1].items())


def test_pixels_are_those_that_the_archive_serves(published):
    with h5py.File(published / "5x127x127_training_with_morphology.hdf5") as file:
        image, identifier, ra, dec = (file[name][0] for name in ("image", "object_id", "ra", "dec"))
    sky = GalSimSky(GALAXIES, SEED)
    where = window(ra, dec, 10 / 3600, 10 / 3600)
    pixels = sky.render("r", where.wcs, where.shape)[0]
    low, left = (127 - where.height) // 2, (127 - where.width) // 2
    assert np.array_equal(image[1, low : low + where.height, left : left + where.width], pixels)
    assert identifier in sky.catalogue()["object_id"]


# --- Truth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0.5, 1, 2.5, 4, 6])
def test_half_of_the_light_of_a_round_profile_is_within_r_e(n):
    assert flux_within(np.array([7.0]), n, np.array([7.0]), np.array([1.0])) == pytest.approx(0.5, abs=1e-9)


def test_light_in_circles_is_that_of_a_gaussian():
    """n = 0.5 with axis ratio q: the two-dimensional Gaussian integral on a grid."""
    r_e, q, radius = 20.0, 0.4, 12.0
    sigma = r_e / np.sqrt(2 * np.log(2))
    y, x = np.mgrid[-400:401, -400:401] * 0.25
    light = np.exp(-((x / sigma) ** 2 + (y / sigma / q) ** 2) / 2)
    expected = light[np.hypot(x, y) < radius].sum() / light.sum()
    assert flux_within(np.array([radius]), 0.5, np.array([r_e]), np.array([q]))[0] == pytest.approx(expected, abs=2e-3)


def test_only_indices_with_a_finite_sum_are_integrated():
    with pytest.raises(ValueError, match="1/2"):
        flux_within(np.ones(1), 1.2, np.ones(1), np.ones(1))


def test_half_light_radii_lie_between_those_of_bulge_and_disc():
    truth = draw(200)
    radii, double = half_light_radii(truth), np.isnan(truth["n"])
    assert (radii <= truth["r_e"][:, None] + 1e-6).all()
    assert (radii[double] > (truth["bulge_r_e"] * truth["bulge_q"])[double, None]).all()
    assert np.allclose(radii[~double], radii[~double, :1])
    assert set(truth_columns(truth)) >= {"redshift", "n", "q", "pa", "i_mag", "y_bulge_share", "g_half_light_radius"}


# --- The command line -----------------------------------------------------------------------------


def test_nothing_is_overwritten(published, capsys):
    with pytest.raises(UserError, match="exists"):
        make_galaxiesml(published, 3)
    assert main(["--galaxies", "3", "-o", str(published)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [[], ["--serve", "-o", "x"], ["-o", "x", "--galaxies", "0"], ["-o", "x", "--sizes", "32"]])
def test_what_is_asked_wrongly_is_said(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        main(wrong)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_without_galsim_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(MissingPackage, match="pip install galsim"):
        galsim()


def test_what_is_missing_is_said_before_anything_is_done(tmp_path, monkeypatch, capsys):
    for name in ("galsim", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["-o", str(tmp_path / "out")]) == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == "skyset: simulated galaxies need galsim and scipy: pip install galsim scipy\n"


def test_jobs_and_lists_are_told_a_line_each():
    text = "#? rerun filter tract ra dec\n pdr2_wide HSC-G 9812 150 2\n pdr2_wide HSC-G 9812 151 2"
    asked = [
        Request("POST", "/datasearch/api/catalog_jobs/submit", 200),
        Request("POST", "/das_cutout/pdr2/cgi-bin/cutout", 503, text),
        Request("POST", "/das_cutout/pdr2/cgi-bin/cutout", 200, text),
        Request("POST", "/psf/pdr2/cgi/getpsf", 200, text),
    ]
    archive = SimpleNamespace(jobs=SimpleNamespace(submitted=[780001]), requests=asked)
    first = " a list of 2, pdr2_wide HSC-G 9812 150 2 ..."
    assert list(islice(told(archive), 3)) == ["job 780001", f"cutouts:{first}", f"PSFs:{first}"]


def test_the_archive_answers_until_ctrl_c():
    command = [sys.executable, "-m", "skyset.testing.galaxiesml", "--serve", "--port", "0", "--galaxies", "5"]
    with interruptible(command, stderr=None) as process:
        said = ""
        while "Ctrl-C" not in said:
            said += process.stdout.readline() or pytest.fail(f"it ended: {said}")
        assert "5 galaxies and 8 rows that cuts take away" in said
        assert "SSP_PDR_USR=" in said and "skyset build galaxiesml --tiny --archive_url http://127.0.0.1:" in said
        url = said.partition("--archive_url ")[2].split()[0]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/das_cutout/pdr2/cgi-bin/cutout?ra=30&dec=-5", timeout=20)
        with refused.value as answer:
            assert answer.code == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
