"""GalaxiesML's columns are those of the galaxy in the middle, by the truth of simulations, and NaN where there is none."""

import dataclasses
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.extraction import morphology
from skyset.extraction.morphology import GALAXIESML, NAMES, measure_cutout, measure_cutouts
from skyset.extraction.sersic import Gaussian, Moffat, fit_sersic
from skyset.extraction.settings import read_kernel
from skyset.extraction.simulate import gaussian_psf, moffat_psf, render, simulate_cutouts, sources
from tests.extraction import sextractor

NOISE = 0.07
PSF = moffat_psf(0.65 / 0.168, 3.5, 65)
SHARP = gaussian_psf(1.8, 25)
COUNTS = ("total_galaxies", "central_image_pop_5px_rad", "central_image_pop_10px_rad", "central_image_pop_15px_rad")
SHAPES = tuple(name for name in NAMES if name not in COUNTS)


def drawn(table, shape=(127, 127), psf=PSF, seed=0):
    return render(shape, table, psf) + NOISE * np.random.default_rng(seed).standard_normal(shape)


def galaxy(x=63.2, y=62.9, flux=2000.0, r_e=8.0, n=1.0, q=0.5, pa=30.0):
    return sources(x, y, flux, r_e, n, q, pa)


def without_band(row):
    return {name.partition("_")[2]: value for name, value in row.items()}


def values(image, psf=PSF, **how):
    return without_band(measure_cutout(image, "i", psf, **how))


@pytest.fixture(scope="module")
def cutouts():
    return simulate_cutouts(60, seed=11, mag=(18.0, 20.5))


@pytest.fixture(scope="module")
def measured(cutouts):
    return without_band(measure_cutouts(cutouts.images[:, None], "i", cutouts.psf))


# --- The columns ----------------------------------------------------------------------------------


def test_the_columns_are_those_that_are_published():
    published = {
        "ellipticity",
        "half_light_radius",
        "isophotal_area",
        "major_axis",
        "minor_axis",
        "peak_surface_brightness",
        "petro_rad",
        "pos_angle",
        "sersic_index",
        "total_galaxies",
        "central_image_pop_5px_rad",
        "central_image_pop_10px_rad",
        "central_image_pop_15px_rad",
    }
    columns = morphology.columns("grizy")
    assert {column.name for column in columns} == {f"{band}_{name}" for band in "grizy" for name in published}
    assert len(columns) == 65 and {column.dtype for column in columns} == {"float32"}
    assert all(column.description for column in columns)
    units = {column.name: column.unit for column in columns}
    assert (units["g_petro_rad"], units["y_pos_angle"], units["i_ellipticity"]) == ("pix", "deg", "")
    assert units["z_peak_surface_brightness"] == "mag.arcsec-2"


def test_a_survey_can_declare_them_without_the_packages_that_measure():
    code = "import sys; from skyset.extraction.morphology import columns; columns('g'); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_the_kernel_is_the_one_that_the_paper_names():
    theirs = read_kernel(sextractor.standard_file("gauss_1.5_3x3.conv"))
    ours = GALAXIESML.kernel / GALAXIESML.kernel.sum()
    np.testing.assert_allclose(ours, theirs / theirs.sum(), rtol=1e-5)


# --- Values ---------------------------------------------------------------------------------------


def test_a_large_disc_by_its_picture_without_noise():
    clean = render((127, 127), galaxy(), PSF)
    row = values(drawn(galaxy()))
    y, x = np.indices(clean.shape)
    dx, dy = x - 63.2, y - 62.9
    # Moments above the threshold, half of the light, and the radius where the light is 0.2 of the mean within.
    inside = clean > 3 * NOISE
    moments = [np.average(a * b, weights=clean * inside) for a, b in ((dx, dx), (dy, dy), (dx, dy))]
    eigenvalues, axes = np.linalg.eigh([[moments[0], moments[2]], [moments[2], moments[1]]])
    b, a = np.sqrt(eigenvalues)
    assert row["isophotal_area"] == pytest.approx(inside.sum(), rel=0.05)
    assert row["major_axis"] == pytest.approx(a, rel=0.02)
    assert row["minor_axis"] == pytest.approx(b, rel=0.02)
    assert row["ellipticity"] == pytest.approx(1 - b / a, abs=0.02)
    assert row["pos_angle"] == pytest.approx(30, abs=1)
    assert row["peak_surface_brightness"] == pytest.approx(27 - 2.5 * np.log10(clean.max() / 0.168**2), abs=0.02)
    order = np.argsort(np.hypot(dx, dy), axis=None)
    grown = np.cumsum(clean.ravel()[order]) / 2000
    assert row["half_light_radius"] == pytest.approx(np.hypot(dx, dy).ravel()[order][np.searchsorted(grown, 0.5)], rel=0.05)
    major = np.abs(axes[:, 1] @ np.stack([dx.ravel(), dy.ravel()])), np.abs(axes[:, 0] @ np.stack([dx.ravel(), dy.ravel()]))
    radius = np.hypot(major[0], major[1] * a / b)
    petrosian = next(
        r
        for r in np.arange(3, 60, 0.25)
        if clean.ravel()[np.abs(radius - r) < 1].mean() < 0.2 * clean.ravel()[radius < r].mean()
    )
    assert row["petro_rad"] == pytest.approx(petrosian, abs=0.33 * a + 0.25)
    assert row["sersic_index"] == pytest.approx(1, abs=0.03)
    assert {row[name] for name in COUNTS} == {1}


def test_simulated_galaxies_have_their_true_indices_and_angles(cutouts, measured):
    truth = cutouts.truth
    good = ~truth["blended"] & (measured["central_image_pop_5px_rad"] > 0)
    assert good.sum() > 40
    relative = measured["sersic_index"][good] / truth["n"][good] - 1
    assert abs(np.median(relative)) < 0.02
    assert 1.4826 * np.median(np.abs(relative - np.median(relative))) < 0.03
    # The PSF makes galaxies rounder, not others.
    assert np.median((1 - measured["ellipticity"] - truth["q"])[good]) == pytest.approx(0.06, abs=0.06)
    long = good & (truth["q"] < 0.7) & (truth["r_e"] > 3)
    turned = (measured["pos_angle"][long] - truth["pa"][long] + 90) % 180 - 90
    assert long.sum() > 10 and np.median(np.abs(turned)) < 1
    # Through the PSF, and its wings, it is that of a circle; of profiles with long wings the Kron flux misses some.
    discs = good & (truth["n"] < 1.5)
    ratio = (measured["half_light_radius"] / np.hypot(truth["r_e"] * np.sqrt(truth["q"]), 0.5 * 0.65 / 0.168))[discs]
    assert len(ratio) > 10 and 1.05 < np.median(ratio) < 1.2 and ratio.min() > 0.95


def test_neighbours_light_does_not_change_the_index():
    table = np.concatenate([galaxy(r_e=4.0, n=2.0), sources([90, 45], [75, 35], [300.0, 200.0], [3.0, 0.0])])
    crowded, alone = drawn(table), values(drawn(galaxy(r_e=4.0, n=2.0)))
    found = values(crowded)
    assert (alone["total_galaxies"], found["total_galaxies"]) == (1, 3)
    assert alone["sersic_index"] == pytest.approx(2, rel=0.015)
    assert found["sersic_index"] == pytest.approx(alone["sersic_index"], rel=0.01)
    assert fit_sersic(crowded, PSF, x=63, y=63, r_e=4, sigma=NOISE).n[0] > 1.02 * alone["sersic_index"]


def test_fits_leave_out_other_detections_and_four_pixels_around_them():
    segments = np.zeros((9, 40), np.int32)
    segments[3:6, 8:16], segments[3:6, 18:20], segments[4, 30] = 2, 1, 3
    unused = morphology._others(segments, 2)
    assert not unused[3:6, 8:16].any() and not unused[:, :8].any()
    assert unused[4, 16:24].all() and not unused[4, 24:26].any()
    assert np.flatnonzero(unused[4, 25:]).tolist() == list(range(1, 10))  # 26 to 34
    assert np.flatnonzero(unused[:, 30]).tolist() == list(range(9))
    assert not morphology._others(np.where(segments == 2, 2, 0), 2).any()


def test_detections_are_counted_by_their_distance_from_the_middle():
    away = np.array([0, 4.4, 5.6, 9.4, 10.6, 14.4, 15.6, 40])
    angle = np.radians([0, 30, 210, 120, 300, 0, 180, 45])
    x, y = 63 + away * np.cos(angle), 63 + away * np.sin(angle)
    row = values(drawn(sources(x, y, [60.0] + [30.0] * 7), psf=SHARP), SHARP)
    assert [row[name] for name in COUNTS] == [8, 2, 4, 6]
    assert row["peak_surface_brightness"] < 27 - 2.5 * np.log10(30 * SHARP.max() / 0.168**2)  # that of the central one


def test_the_nearest_to_the_middle_is_measured_not_the_brightest():
    near, far = galaxy(x=72, y=60, flux=300.0, r_e=3.0, q=0.4, pa=-50.0), galaxy(x=95, y=95, flux=8000.0, q=0.8, pa=20.0)
    both, alone = values(drawn(np.concatenate([near, far]))), values(drawn(near))
    assert (both["total_galaxies"], alone["total_galaxies"]) == (2, 1)
    for name in ("ellipticity", "major_axis", "half_light_radius", "sersic_index"):
        assert both[name] == pytest.approx(alone[name], rel=0.15)
    assert both["pos_angle"] == pytest.approx(-50, abs=5)
    # Where nothing is near the middle, what is far away is measured, and the circles are empty.
    only = values(drawn(far))
    assert only["pos_angle"] == pytest.approx(20, abs=5)
    assert [only[name] for name in COUNTS] == [1, 0, 0, 0]


def test_the_middle_of_an_image_of_even_sides_lies_between_pixels():
    # Both are 3 pixels from pixel 10 on a side, but not from the middle at 9.5.
    table = sources([6.0, 14.0], [10.0, 10.0], [20.0, 40.0])
    row = values(drawn(table, (20, 20), SHARP), SHARP)
    assert row["total_galaxies"] == 2
    assert row["peak_surface_brightness"] == pytest.approx(27 - 2.5 * np.log10(20 * SHARP.max() / 0.168**2), abs=0.1)


@settings(max_examples=8, deadline=None)
@given(factor=st.floats(0.01, 1e4), level=st.floats(-100, 100), dtype=st.sampled_from(["f8", ">f4"]))
def test_units_and_sky_change_nothing_but_the_magnitude(factor, level, dtype):
    image = drawn(galaxy(r_e=4.0))
    before, after = values(image), values(((image + level * NOISE) * factor).astype(dtype))
    before["peak_surface_brightness"] -= 2.5 * np.log10(factor)
    for name in set(NAMES) - {"peak_surface_brightness", "pos_angle", "ellipticity", "isophotal_area"}:
        assert after[name] == pytest.approx(before[name], rel=0.01)
    assert after["isophotal_area"] == pytest.approx(before["isophotal_area"], abs=3)
    assert after["peak_surface_brightness"] == pytest.approx(before["peak_surface_brightness"], abs=0.005)
    assert after["pos_angle"] == pytest.approx(before["pos_angle"], abs=0.5)


def test_a_turned_image_has_a_turned_angle():
    image = drawn(galaxy(r_e=4.0))
    before, after = values(image), values(image.T)
    assert after["pos_angle"] == pytest.approx(90 - before["pos_angle"], abs=0.5)
    assert after["sersic_index"] == pytest.approx(before["sersic_index"], rel=0.01)


@sextractor.needs_program
def test_values_are_those_of_sextractor(cutouts, tmp_path):
    quantities = {
        "ellipticity": "ELLIPTICITY",
        "half_light_radius": "FLUX_RADIUS",
        "isophotal_area": "ISOAREA_IMAGE",
        "major_axis": "A_IMAGE",
        "minor_axis": "B_IMAGE",
        "peak_surface_brightness": "MU_MAX",
        "pos_angle": "THETA_IMAGE",
    }
    how = dataclasses.replace(GALAXIESML, saturation=50000.0)  # it reads no infinity
    wanted = ["X_IMAGE", "Y_IMAGE", "PETRO_RADIUS", *quantities.values()]
    ours, theirs, same = [], [], 0
    for k, image in enumerate(cutouts.images[:16]):
        table, _ = sextractor.run(image, tmp_path / str(k), how, wanted)
        central = table[np.hypot(table["X_IMAGE"] - 64, table["Y_IMAGE"] - 64).argmin()]
        row = values(image, sersic=False)
        same += len(table) == row["total_galaxies"]
        ours.append([*(row[name] for name in quantities), row["petro_rad"]])
        theirs.append([*(central[name] for name in quantities.values()), central["PETRO_RADIUS"] / 2 * central["A_IMAGE"]])
    close = np.isclose(ours, theirs, rtol=0.01, atol=0.02)
    assert same >= 15
    assert (close.mean(0) > 0.92).all(), dict(zip([*quantities, "petro_rad"], close.mean(0), strict=True))


# --- Not measured ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n, petro, half", [(1.0, 1.07, 0.96), (2.5, 1.20, 0.955), (4.0, 1.18, 0.90), (5.5, 1.27, 0.86)])
def test_how_far_radii_are_from_their_definitions(n, petro, half):
    """As the docstring says: Petrosian radii too large, half-light radii short of the light that Kron ellipses miss."""
    image = render((301, 301), galaxy(x=150, y=150, flux=20000.0, r_e=4.0, n=n, q=1.0), PSF)
    y, x = np.mgrid[:301, :301] - 150
    away, light = np.hypot(x, y).ravel(), image.ravel()
    grown = np.cumsum(light[np.argsort(away)])
    radii = np.arange(5, 20, 0.25)
    fainter = [light[np.abs(away - r) < 0.5].mean() < 0.2 * light[away < r].mean() for r in radii]
    noise = NOISE * np.random.default_rng(0).standard_normal((127, 127))
    found = values(image[87:214, 87:214] + noise, sersic=False)
    assert found["petro_rad"] / radii[np.argmax(fainter)] == pytest.approx(petro, abs=0.08)
    assert found["half_light_radius"] / np.sort(away)[np.searchsorted(grown, 10000)] == pytest.approx(half, abs=0.03)


def test_faint_point_sources_have_no_index():
    """At magnitude 22 a quarter of them had one."""
    given = [np.isfinite(values(drawn(sources(63.2, 62.9, 100.0), seed=seed))["sersic_index"]) for seed in range(40)]
    assert sum(given) <= 2


def test_a_star_has_no_index_and_profiles_beyond_the_bounds_have_the_bound():
    assert np.isnan(values(drawn(sources(63.2, 62.9, 2000.0)))["sersic_index"])
    assert values(drawn(galaxy(n=0.2)))["sersic_index"] == pytest.approx(0.3)
    assert values(drawn(galaxy(n=9.5, r_e=5.0)))["sersic_index"] == pytest.approx(8)


@pytest.mark.parametrize("shape", [(127, 127), (21, 21), (3, 40)])
def test_where_nothing_is_detected_counts_are_0_and_all_else_is_nan(shape):
    row = values(NOISE * np.random.default_rng(1).standard_normal(shape))
    assert [row[name] for name in COUNTS] == [0, 0, 0, 0]
    assert all(np.isnan(row[name]) for name in SHAPES)


@pytest.mark.parametrize("image", [np.full((50, 50), np.nan), np.zeros((50, 50)), np.ones((1, 1)), np.full((9, 9), np.inf)])
def test_where_there_is_nothing_to_see_everything_is_nan_without_warnings(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(np.isnan(value) for value in values(image).values())


def test_an_image_smaller_than_the_psf():
    row = values(drawn(galaxy(x=12, y=12, flux=300.0, r_e=2.0, q=0.7), (25, 25)))
    assert row["sersic_index"] == pytest.approx(1, abs=0.2)
    assert row["central_image_pop_5px_rad"] == 1


def test_masked_pixels_are_not_used():
    image = drawn(galaxy(r_e=4.0))
    spoilt, mask = image.copy(), np.zeros(image.shape, bool)
    spoilt[:, 80:83], mask[:, 80:83] = 1e4, True
    spoilt[60:63, 50:53], mask[60:63, 50:53] = -1e4, True
    whole, masked = values(image), values(spoilt, mask=mask)
    assert masked["total_galaxies"] == 1
    assert masked["sersic_index"] == pytest.approx(whole["sersic_index"], abs=0.03)
    for other in (values(np.where(mask, np.nan, spoilt)), values(np.ma.masked_array(spoilt, mask))):
        assert other == masked
    assert values(spoilt) != masked


# --- Many at once ---------------------------------------------------------------------------------


class Sliced:
    """Gives arrays for slices of rows, as an HDF5 dataset."""

    def __init__(self, array):
        self.shape, self._array = array.shape, array

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self._array[rows]


def batch(cutouts):
    images = cutouts.images[:12].reshape(6, 2, 127, 127).copy()
    images[3, 1] = np.nan
    images[4, 0] = NOISE * np.random.default_rng(2).standard_normal((127, 127))
    return images


def equal(a, b, rtol=1e-4):
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, err_msg=name)


def test_a_batch_has_the_values_of_each_image(cutouts, monkeypatch):
    images = batch(cutouts)
    found = measure_cutouts(images, ["g", "r"], cutouts.psf)
    assert [column.name for column in morphology.columns("gr")] == list(found)
    assert all(column.dtype == np.float32 and column.shape == (6,) for column in found.values())
    for i in range(6):
        for k, band in enumerate("gr"):
            for name, value in measure_cutout(images[i, k], band, cutouts.psf).items():
                np.testing.assert_allclose(found[name][i], value, rtol=1e-3, err_msg=name)
    assert all(np.isnan(found[f"r_{name}"][3]) for name in NAMES)
    assert [found[f"g_{name}"][4] for name in COUNTS] == [0, 0, 0, 0]
    monkeypatch.setattr(morphology, "_BLOCK", 4)
    equal(measure_cutouts(Sliced(images), "gr", cutouts.psf), found)


def test_without_sersic_only_the_index_is_missing(cutouts):
    images = batch(cutouts)
    found, without = measure_cutouts(images, "gr", cutouts.psf), measure_cutouts(images, "gr", sersic=False)
    for band in "gr":
        assert np.isnan(without.pop(f"{band}_sersic_index")).all()
        assert np.isfinite(found.pop(f"{band}_sersic_index")).sum() == 5
    equal(found, without, rtol=0)


def test_what_else_the_fits_found_comes_with_the_index(cutouts):
    """The values of `fit_sersic` itself; NaN where the index is, flags where a fit was made."""
    images = batch(cutouts)
    images[5, 0] = render((127, 127), sources(63.0, 63.0, 800.0, 0.05, 1.0, 1.0, 0.0), cutouts.psf) + NOISE * (
        np.random.default_rng(3).standard_normal((127, 127))
    )
    found = measure_cutouts(images, "gr", cutouts.psf, fitted=True)
    assert [column.name for column in morphology.columns("gr", fitted=True)] == list(found)
    for name, column in measure_cutouts(images, "gr", cutouts.psf).items():
        np.testing.assert_array_equal(found[name], column)
    for band in "gr":
        row = {name: found[f"{band}_{name}"] for name in morphology.FITTED}
        unknown = np.isnan(found[f"{band}_sersic_index"])
        for name in ("sersic_r_e", "sersic_q", "sersic_pa"):
            assert row[name].dtype == np.float32 and (np.isnan(row[name]) == unknown).all()
        assert row["sersic_flags"].dtype == np.int32
    assert found["r_sersic_flags"][3] == found["g_sersic_flags"][4] == -1
    assert np.isnan(found["g_sersic_index"][5]) and found["g_sersic_flags"][5] >= 0 and found["g_sersic_chi2"][5] > 0
    without = measure_cutouts(images, "gr", sersic=False, fitted=True)
    assert (without["g_sersic_flags"] == -1).all() and np.isnan(without["g_sersic_chi2"]).all()


def test_size_and_shape_of_a_fit_are_the_galaxys():
    image = drawn(galaxy(flux=20000.0))
    found = measure_cutouts(image[None, None], "i", PSF, fitted=True)
    row = {name.removeprefix("i_"): float(values[0]) for name, values in found.items()}
    for name, true, error in (("index", 1.0, "n_err"), ("r_e", 8.0, "r_e_err")):
        assert abs(row[f"sersic_{name}"] - true) < 5 * row[f"sersic_{error}"] < 0.1 * true
    assert row["sersic_q"] == pytest.approx(0.5, abs=0.02) and row["sersic_pa"] == pytest.approx(30, abs=1)
    assert row["sersic_chi2"] == pytest.approx(1, abs=0.2)


def test_the_psf_may_be_one_or_one_a_band_or_one_an_image(cutouts):
    images = batch(cutouts)
    wide = moffat_psf(1.3 * 0.65 / 0.168, 3.5, cutouts.psf.shape[0])
    bands = np.stack([cutouts.psf, wide])
    each = np.broadcast_to(bands, (6, *bands.shape))
    found = measure_cutouts(images, "gr", bands)
    equal(measure_cutouts(images, "gr", each), found)
    equal(measure_cutouts(images, "gr", {"r": each[:, 1], "g": cutouts.psf, "i": None}), found)
    narrow = measure_cutouts(images, "gr", cutouts.psf)
    np.testing.assert_array_equal(narrow["g_sersic_index"], found["g_sersic_index"])
    assert np.nanmedian(np.abs(found["r_sersic_index"] / narrow["r_sersic_index"] - 1)) > 0.1
    analytic = measure_cutouts(images, "gr", Moffat(0.65 / 0.168))
    np.testing.assert_allclose(analytic["g_sersic_index"], found["g_sersic_index"], rtol=0.15)
    many = measure_cutouts(images, "gr", {"g": Moffat(np.full(6, 0.65 / 0.168)), "r": Gaussian(4.0)})
    np.testing.assert_allclose(many["g_sersic_index"], analytic["g_sersic_index"], rtol=1e-3)


def test_each_image_has_its_own_psf(cutouts, monkeypatch):
    images = cutouts.images[:6][:, None]
    psfs = np.stack([moffat_psf(fwhm, 3.5, 41) for fwhm in (2.5, 3.0, 3.87, 4.2, 3.5, 2.8)])
    monkeypatch.setattr(morphology, "_BLOCK", 4)
    for psf in (psfs[:, None], {"g": psfs}):
        found = measure_cutouts(images, "g", psf)["g_sersic_index"]
        alone = [measure_cutout(image[0], "g", psf)["g_sersic_index"] for image, psf in zip(images, psfs, strict=True)]
        np.testing.assert_allclose(found, alone, rtol=1e-3)


def test_without_a_psf_it_is_that_of_the_bands_median_seeing(cutouts):
    images = cutouts.images[:3][:, None]
    found = measure_cutouts(images, "z")
    equal(found, measure_cutouts(images, "z", Moffat(0.68 / 0.168)))
    with pytest.raises(ValueError, match=r"band 'u'.*give psf="):
        measure_cutouts(images, "u")
    assert np.isnan(measure_cutouts(images, "u", sersic=False)["u_sersic_index"]).all()


def test_an_arrow_table_has_units(cutouts):
    images = batch(cutouts)
    table = measure_cutouts(images, "gr", sersic=False, output="arrow")
    found = measure_cutouts(images, "gr", sersic=False)
    equal({name: table[name].to_numpy() for name in table.column_names}, found, rtol=0)
    assert table.schema.field("g_petro_rad").metadata[b"unit"] == b"pix"
    assert b"Petrosian" in table.schema.field("g_petro_rad").metadata[b"description"]


def test_no_images_make_empty_columns():
    found = measure_cutouts(np.zeros((0, 2, 30, 30)), "gr", PSF)
    assert len(found) == 26 and all(len(values) == 0 for values in found.values())


def test_a_mask_for_all_or_for_each(cutouts):
    images = batch(cutouts)
    mask = np.zeros((127, 127), bool)
    mask[:, :40] = True
    one = measure_cutouts(images, "gr", mask=mask, sersic=False)
    equal(measure_cutouts(images, "gr", mask=np.broadcast_to(mask, images.shape), sersic=False), one, rtol=0)
    assert np.nansum(one["g_total_galaxies"]) < np.nansum(measure_cutouts(images, "gr", sersic=False)["g_total_galaxies"])


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "bands", "how", "message"),
    [
        (np.zeros((3, 2, 9, 9)), "grz", {}, r"images have shape \(3, 2, 9, 9\): \(count, 3, rows, columns\)"),
        (np.zeros((3, 9, 9)), "grz", {}, r"images have shape \(3, 9, 9\)"),
        (np.zeros((3, 1, 0, 9)), "g", {}, "no pixels"),
        (np.zeros((3, 1, 9, 9)), "", {}, "bands are"),
        (np.zeros((3, 2, 9, 9)), "gg", {}, "each once"),
        (np.zeros((3, 1, 9, 9)), "g", {"mask": np.zeros((9, 8), bool)}, r"the mask has shape \(9, 8\)"),
        (np.zeros((3, 1, 9, 9)), "g", {"output": "pandas"}, "output is 'pandas'"),
        (np.zeros((3, 2, 9, 9)), "gr", {"psf": np.ones((3, 9, 9))}, r"the PSF has shape \(3, 9, 9\)"),
        (np.zeros((3, 2, 9, 9)), "gr", {"psf": {"g": PSF}}, "no PSF for band r"),
        (np.zeros((3, 1, 9, 9)), "g", {"psf": {"g": np.ones((2, 9, 9))}}, "2 PSFs in band g for 3 images"),
        (np.zeros((3, 1, 9, 9)), "g", {"psf": Moffat(np.full(2, 4.0))}, "2 PSFs in band g for 3 images"),
        (np.zeros((3, 1, 9, 9), complex), "g", {}, "complex128"),
    ],
)
def test_what_does_not_fit_together_is_named(images, bands, how, message):
    with pytest.raises(ValueError, match=message):
        measure_cutouts(images, bands, **how)


def test_one_cutout_is_an_image():
    with pytest.raises(ValueError, match=r"shape \(5, 9, 9\)"):
        measure_cutout(np.zeros((5, 9, 9)), "g", PSF)
    with pytest.raises(ValueError, match="mask has shape"):
        measure_cutout(np.zeros((9, 9)), "g", PSF, mask=np.zeros(9, bool))
    with pytest.raises(ValueError, match="PSF"):
        measure_cutout(drawn(galaxy()), "g", np.full((9, 9), np.nan))


# --- Real images ----------------------------------------------------------------------------------


def test_a_real_galaxy_looks_alike_in_hscs_bands(real):
    with np.load(real("hsc/scarlet_hsc_cosmos.npz")) as file:
        images, psfs, catalogue = file["images"], file["psfs"], file["catalog"]
    found = measure_cutouts(images[None], "grizy", psfs)
    # The published catalogue, made from all bands, knows these objects: how far they are from the middle.
    away = np.hypot(catalogue["x"] - (images.shape[2] - 1) / 2, catalogue["y"] - (images.shape[1] - 1) / 2)
    for radius in morphology.RADII:
        assert found[f"i_central_image_pop_{radius}px_rad"][0] == np.count_nonzero(away <= radius)
    central = catalogue[away.argmin()]
    for band in "riz":
        row = {name: found[f"{band}_{name}"][0] for name in NAMES}
        assert row["ellipticity"] == pytest.approx(1 - central["b"] / central["a"], abs=0.1)
        assert row["major_axis"] < central["a"]  # its threshold is lower
        assert row["pos_angle"] == pytest.approx(np.degrees(central["theta"]), abs=25)
        assert 0.6 * central["tnpix"] > row["isophotal_area"] > 0.2 * central["tnpix"]
        assert 3 < row["half_light_radius"] < 4 and 1.75 < row["petro_rad"] / row["major_axis"] < 5.3
        assert row["sersic_index"] > 4  # an early-type galaxy
    # It is red, and the faint image of the g band tells nothing of its profile.
    brightness = [found[f"{band}_peak_surface_brightness"][0] for band in "griz"]
    assert (np.diff(brightness) < 0).all()
    assert found["g_isophotal_area"] < found["r_isophotal_area"] < found["i_isophotal_area"]
    assert np.isnan(found["g_sersic_index"][0])


def test_a_real_spiral_is_a_disc(real):
    from astropy.io import fits

    images = fits.getdata(real("hsc/scarlet_Cut_HSC.fits"))
    found = measure_cutouts(images[None], "grizy", fits.getdata(real("hsc/scarlet_PSF_HSC.fits")))
    for band in "grizy":
        row = {name: found[f"{band}_{name}"][0] for name in NAMES}
        assert row["central_image_pop_5px_rad"] == 1 and row["sersic_index"] < 1.5
        assert row["minor_axis"] == pytest.approx(2.8, abs=0.15)
