"""GalSim's sky of galaxies: colours, light, PSF and noise as formulas say; the same galaxy in any window and process."""

import dataclasses
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

pytest.importorskip("galsim", reason="GalSim is not installed: pip install galsim")

from skyset.extraction.morphology import HSC_SEEING, measure_cutouts
from skyset.testing.galaxiesml import catalogue
from skyset.testing.galaxiesml.colours import BANDS, TEMPLATES, light, passband_file, spectrum_file
from skyset.testing.galaxiesml.neighbours import COMPONENT, draw_neighbours
from skyset.testing.galaxiesml.population import DEPTH, TRUTH, draw
from skyset.testing.galaxiesml.sky import GalSimSky, draw_components, noise_of
from skyset.testing.hsc_sky import Window, window


@pytest.fixture(scope="module")
def sky() -> GalSimSky:
    return GalSimSky(40, seed=5)


def around(sky: GalSimSky, number: int) -> Window:
    return window(sky.truth["ra"][number], sky.truth["dec"][number], 10 / 3600, 10 / 3600)


# --- Colours --------------------------------------------------------------------------------------


def own_light(template: float, redshift: float) -> np.ndarray:
    """AB flux densities relative to i by integrals of photons: nothing of GalSim but its two kinds of files."""
    first = min(int(template), len(TEMPLATES) - 2)
    total = np.zeros(len(BANDS))
    for weight, name in ((1 - (template - first), TEMPLATES[first]), (template - first, TEMPLATES[first + 1])):
        wave, flambda = np.loadtxt(spectrum_file(name), unpack=True)
        total += weight * mean_fnu(wave, flambda, redshift) / mean_fnu(wave, flambda, 0)[2]
    return total / total[2]


def mean_fnu(wave: np.ndarray, flambda: np.ndarray, redshift: float) -> np.ndarray:
    result = []
    for band in BANDS:
        nm, throughput = np.loadtxt(passband_file(band), unpack=True)
        fine = np.arange(10 * nm[0], 10 * nm[-1], 1.0)  # Angstrom, observed
        response = np.interp(fine, 10 * nm, throughput)
        source = np.interp(fine / (1 + redshift), wave, flambda)
        result.append((source * response * fine).sum() / (response / fine).sum())
    return np.array(result)


@pytest.mark.parametrize("template", [0, 0.4, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("redshift", [0.0, 0.3333, 0.9, 1.5012, 3.1])
def test_colours_are_the_spectrum_through_the_passbands(template, redshift):
    ours = light(np.array([template]), np.array([redshift]))[0]
    magnitudes = 2.5 * np.log10(ours / own_light(template, redshift))
    assert np.abs(magnitudes).max() < 0.01


def test_the_break_at_4000_angstrom_goes_from_band_to_band():
    colours = -2.5 * np.log10(light(np.zeros(3), np.array([0.2, 0.5, 0.8])))
    g_r, r_i, i_z, _ = -np.diff(colours, axis=1).T
    assert g_r[0] > r_i[0] + 0.5
    assert r_i[1] > r_i[0] + 0.3
    assert r_i[2] > r_i[1] and i_z[2] > i_z[1] + 0.3


# --- Light ----------------------------------------------------------------------------------------


def one(n: float, r_e: float, q: float = 0.6, pa: float = 25.0, flux: float = 100.0) -> np.ndarray:
    source = np.zeros(1, COMPONENT)
    source["n"], source["r_e"], source["q"], source["pa"], source["flux"] = n, r_e, q, pa, flux
    return source


def drawn(source: np.ndarray, size: int = 255, at: float = 0.0) -> np.ndarray:
    image = np.zeros((len(BANDS), size, size), np.float32)
    draw_components(image, BANDS, source, size // 2 + at, size // 2)
    return image.astype(float)


def moments(image: np.ndarray) -> tuple[float, float, float, float]:
    """Barycentre and second moments along x, y and the diagonal."""
    y, x = np.indices(image.shape) - image.shape[0] // 2
    total = image.sum()
    mean = (image * x).sum() / total
    return mean, (image * (x - mean) ** 2).sum() / total, (image * y**2).sum() / total, (image * x * y).sum() / total


@pytest.mark.parametrize(("n", "r_e"), [(0.5, 3.0), (1.0, 5.0), (2.5, 3.0), (4.0, 4.0), (6.0, 2.0), (0.0, 0.0)])
def test_all_light_is_in_the_picture(n, r_e):
    assert drawn(one(n, r_e)).sum(axis=(1, 2)) == pytest.approx(100, rel=0.02)


def test_half_of_an_exponential_disc_is_within_its_half_light_ellipse():
    image = drawn(one(1, 30.0, q=0.5, pa=90))[2]
    y, x = np.indices(image.shape) - 127
    assert image[np.hypot(x / 0.5, y) < 30].sum() == pytest.approx(50, abs=1)  # less the seeing's blur


def test_second_moments_are_those_of_the_gaussian_and_the_psf():
    """n = 0.5 is a Gaussian with sigma = r_e / sqrt(2 ln 2) along the major axis; moments of a convolution add up."""
    source, star = drawn(one(0.5, 8.0, q=0.5, pa=30))[2], drawn(one(0, 0))[2]
    major = 8.0**2 / (2 * np.log(2))
    minor = major / 4
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    expected = major * cos**2 + minor * sin**2, major * sin**2 + minor * cos**2, (major - minor) * cos * sin
    # Wings of the PSF are cut by the stamp that a source has: both within the same circle.
    y, x = np.indices(source.shape) - source.shape[0] // 2
    near = np.hypot(x, y) < 32
    seen = np.array(moments(source * near)[1:]) - np.array(moments(star * near)[1:])
    assert seen == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("band", BANDS)
def test_the_psf_has_the_width_of_the_seeing(sky, band):
    psf = sky.psf(band, 30.0, -5.0)
    assert psf.dtype == np.float64
    assert psf.shape == (41, 41)
    assert psf.sum() == pytest.approx(1, abs=1e-12)
    assert np.allclose(psf, psf[::-1]) and np.allclose(psf, psf.T)
    scale = HSC_SEEING[band] / 0.168 / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    radius = np.arange(41) - 20
    moffat = (1 + (radius[:, None] ** 2 + radius**2) / scale**2) ** -3.5
    assert psf == pytest.approx(moffat / moffat.sum(), abs=1e-4 * psf.max())


def test_stamps_end_where_nothing_is_seen(sky):
    for number in range(12):
        for source in sky.components(number)[:2, None]:
            source["dx"] = source["dy"] = 0
            image = drawn(source, 301)
            lit = np.flatnonzero(image[0, 150])
            if lit[0] > 23:  # the largest stamps are wider than any window around their middle
                edge = np.concatenate([image[:, :, lit[0]], image[:, :, lit[-1]]], axis=1).max(axis=1)
                assert (edge < 0.1 * np.array([noise_of(band)[0] for band in BANDS])).all()


def test_shifts_are_parts_of_a_pixel():
    here, there = moments(drawn(one(1, 3.0))[0])[0], moments(drawn(one(1, 3.0), at=0.25)[0])[0]
    assert there - here == pytest.approx(0.25, abs=0.01)


# --- The sky --------------------------------------------------------------------------------------


def test_a_galaxy_is_the_same_in_any_window(sky):
    where = around(sky, 3)
    moved = dataclasses.replace(where, x=where.x + 13, y=where.y - 9, width=90)
    image, mask, variance = sky.render_bands(BANDS, where.wcs, where.shape)
    again = sky.render_bands(BANDS, moved.wcs, moved.shape)
    for ours, theirs in zip((image, mask, variance), again, strict=True):
        assert np.array_equal(ours[:, :-9, 13:103], theirs[:, 9:])
    alone = sky.render("z", where.wcs, where.shape)
    assert np.array_equal(alone[0], image[3])
    assert [plane.dtype for plane in alone] == [np.float32, np.int32, np.float32]


def test_a_galaxy_is_the_same_in_a_larger_sky_and_another_process(sky):
    code = (
        "import zlib; from skyset.testing.galaxiesml.sky import GalSimSky; from skyset.testing.hsc_sky import window\n"
        "sky = GalSimSky(60, seed=5); t = sky.truth[2]; w = window(t['ra'], t['dec'], 10 / 3600, 10 / 3600)\n"
        "images = sky.light('i', w.wcs, w.shape), sky.render('i', w.wcs, w.shape)[0]\n"
        "print(*(zlib.crc32(image.tobytes()) for image in images))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ.copy())
    where = around(sky, 2)
    ours = sky.light("i", where.wcs, where.shape), sky.render("i", where.wcs, where.shape)[0]
    assert answer.stdout.split() == [str(zlib.crc32(image.tobytes())) for image in ours]


def test_another_seed_is_another_sky():
    assert not np.isclose(draw(5, 0)["ra"], draw(5, 1)["ra"]).any()
    assert len(draw_neighbours(0, 0)) != len(draw_neighbours(1, 0)) or (draw_neighbours(0, 0) != draw_neighbours(1, 0)).any()


def test_noise_is_white_and_as_deep_as_hsc(sky):
    where = around(sky, 0)
    image, _, variance = sky.render_bands(BANDS, where.wcs, where.shape)
    noise = (image - sky.light(BANDS, where.wcs, where.shape)) / np.sqrt(variance)
    assert noise.std(axis=(1, 2)) == pytest.approx(1, abs=0.03)
    assert noise.mean(axis=(1, 2)) == pytest.approx(0, abs=0.04)
    flat = np.corrcoef(noise.reshape(5, -1)) - np.eye(5)
    along = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    assert np.abs(flat).max() < 0.05
    assert abs(along) < 0.02
    for band in BANDS:  # a star at the depth has 5 sigma through the PSF
        flux, psf = 10 ** (-0.4 * (DEPTH[band] - 27)), sky.psf(band, 0, 0)
        assert flux * np.sqrt((psf**2).sum()) / noise_of(band)[0] == pytest.approx(5)


def test_light_of_a_galaxy_is_its_magnitude(sky):
    quiet = GalSimSky(40, seed=5, neighbours=False, noise=False)
    table = sky.catalogue()
    for number in np.flatnonzero(sky.truth["r_e"][:40] < 4)[:6]:
        where = around(sky, number)
        seen = 27 - 2.5 * np.log10(quiet.render_bands(BANDS, where.wcs, where.shape)[0].sum(axis=(1, 2)))
        row = np.flatnonzero(sky.numbers == number)[0]
        for band, magnitude in zip(BANDS, seen, strict=True):
            error = table[f"{band}_cmodel_magsigma"][row]
            assert magnitude == pytest.approx(table[f"{band}_cmodel_mag"][row], abs=float(0.05 + 4 * error))


def test_sersic_fits_find_the_truth_in_bright_galaxies():
    """GalSim and our fits share nothing but the PSF's name."""
    sources = [one(n, r_e, q, pa, 3000.0) for n, r_e, q, pa in ((1, 5, 0.5, 30), (2.5, 4, 0.8, -60), (4, 5, 0.6, 80))]
    images = np.stack([drawn(source, 127) for source in sources])
    images += np.random.default_rng(0).normal(0, 0.03, images.shape)
    found = measure_cutouts(images, BANDS, fitted=True)
    for band in BANDS:
        assert found[f"{band}_sersic_index"] == pytest.approx([1, 2.5, 4], rel=0.02)
        assert found[f"{band}_sersic_r_e"] == pytest.approx([5, 4, 5], rel=0.02)
        assert found[f"{band}_sersic_q"] == pytest.approx([0.5, 0.8, 0.6], abs=0.01)
        assert found[f"{band}_sersic_pa"] == pytest.approx([30, -60, 80], abs=1)


# --- The catalogue --------------------------------------------------------------------------------


def test_each_cut_takes_the_rows_that_were_planted_for_it():
    sky = GalSimSky(200, seed=1)
    table, planted = sky.catalogue(), sky.planted
    z = table["specz_redshift"]
    magnitudes = np.stack([table[f"{band}_cmodel_mag"] for band in BANDS])
    cuts = {
        "flag": table["specz_flag_homogeneous"],
        "error": table["specz_redshift_err"] < 0.005 * (1 + z),
        "redshift": (z > 0.01) & (z < 4),
        "magnitude": ((magnitudes > 0) & (magnitudes < 50)).all(axis=0),
        "specz_mag_i": (table["specz_mag_i"] > 0) & (table["specz_mag_i"] < 28),
    }
    assert {name: np.count_nonzero(~kept) for name, kept in cuts.items()} == {name: planted[name] for name in cuts}
    kept = np.flatnonzero(np.all(list(cuts.values()), axis=0))
    _, first = np.unique(table["specz_name"][kept], return_index=True)
    assert len(kept) - len(first) == planted["specz_name"]
    kept = kept[np.sort(first)]
    names, counts = np.unique(table["object_id"][kept], return_counts=True)
    left = kept[np.isin(table["object_id"][kept], names[counts == 1])]
    assert len(kept) - len(left) == planted["object_id"]
    assert sorted(sky.numbers[left]) == list(range(200))
    assert len(sky.truth) == 200 + catalogue.spare(200)


def test_the_catalogue_has_the_columns_of_the_query(sky):
    table = sky.catalogue()
    assert {values.shape for values in table.values()} == {sky.numbers.shape}
    assert table["object_id"].dtype == table["skymap_id"].dtype == np.int64
    assert (table["object_id"] >> 42 == table["skymap_id"] // 10_000).all()  # both name the tract
    assert (np.diff(table["object_id"]) >= 0).all()
    good = np.isin(sky.numbers, np.arange(40))
    z = table["specz_redshift"][good]
    assert ((table["specz_redshift_err"][good] > 0) & (table["specz_redshift_err"][good] < 1) & (z > 0) & (z < 9.999)).all()


def test_few_galaxies_are_far_away_and_those_are_faint():
    truth = draw(5000)
    assert truth.dtype == TRUTH
    assert truth["redshift"].min() > 0.01 and truth["redshift"].max() < 4
    assert 0.005 < (truth["redshift"] > 2.5).mean() < 0.06
    magnitude = 27 - 2.5 * np.log10(truth["flux"][:, 2])
    assert np.median(magnitude[truth["redshift"] < 0.2]) + 3 < np.median(magnitude[truth["redshift"] > 1])
