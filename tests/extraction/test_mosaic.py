"""Images of a file with their weights, flags, world coordinates and warnings, measured here or by other processes."""

import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyset.errors import UserError
from skyset.extraction.config import pixel_scale, read_config
from skyset.extraction.detect import extract, measure
from skyset.extraction.mosaic import extract_file
from skyset.extraction.settings import Settings

#: Where the sources are, x and y of FITS.
X, Y = np.array([[30.2, 90.7, 60.4, 25.8], [25.3, 40.6, 80.1, 110.4]])
HOW = Settings(threshold=5, pixel_scale=0)


def draw(seed: int = 0) -> np.ndarray:
    """Galaxies of 5 and 2 pixels, 30 degrees from +x, on a sky of 100 with noise 1; float32 (140, 120)."""
    y, x = np.mgrid[1:141, 1:121]
    image = np.random.default_rng(seed).normal(100, 1, x.shape)
    cosine, sine = np.cos(np.radians(30)), np.sin(np.radians(30))
    for one, other in zip(X, Y, strict=True):
        along, across = (x - one) * cosine + (y - other) * sine, (y - other) * cosine - (x - one) * sine
        image += 300 * np.exp(-0.5 * ((along / 5) ** 2 + (across / 2) ** 2))
    return image.astype(np.float32)


def sky(*ctype: str, **more) -> WCS:
    """0.36 arcsec per pixel, turned by 20 degrees, around (0.001, 55)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = list(ctype)
    wcs.wcs.crpix = more.get("crpix", [60, 70])
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    cd = 1e-4 * np.array([[-cosine, sine], [sine, cosine]])
    first = ctype[0].startswith(("RA", "GLON"))
    wcs.wcs.crval, wcs.wcs.cd = ([0.001, 55], cd) if first else ([55, 0.001], cd[::-1])
    return wcs


@pytest.fixture
def mosaic(tmp_path) -> Path:
    """Three images, the second constant, with a table between them: HDUs 1, 2 and 4."""
    path = tmp_path / "mosaic.fits"
    header = sky("RA---TAN", "DEC--TAN").to_header()
    parts = [
        fits.PrimaryHDU(),
        fits.ImageHDU(draw(0), header),
        fits.ImageHDU(np.full((140, 120), 7, "f4"), header),
        fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])]),
        fits.ImageHDU(draw(1), header),
    ]
    fits.HDUList(parts).writeto(path)
    return path


def write(path: Path, *images: np.ndarray) -> Path:
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(image) for image in images)]).writeto(path)
    return path


# The sky


@pytest.mark.parametrize(
    "ctype", [("RA---TAN", "DEC--TAN"), ("DEC--TAN", "RA---TAN"), ("GLON-CAR", "GLAT-CAR"), ("GLAT-CAR", "GLON-CAR")]
)
def test_world_coordinates_are_astropys_whichever_axis_comes_first(ctype):
    wcs = sky(*ctype)
    columns = [
        "X_IMAGE_DBL",
        "Y_IMAGE_DBL",
        "XWIN_IMAGE",
        "YWIN_IMAGE",
        "A_IMAGE",
        "B_IMAGE",
        "X_WORLD",
        "Y_WORLD",
        "XWIN_WORLD",
        "YWIN_WORLD",
        "ALPHA_SKY",
        "DELTA_SKY",
        "ALPHA_J2000",
        "DELTA_J2000",
        "ALPHAWIN_J2000",
        "DELTAWIN_J2000",
        "A_WORLD",
        "B_WORLD",
        "THETA_J2000",
        "THETA_IMAGE",
    ]
    found = {name: np.asarray(values, float) for name, values in measure(draw(), HOW, columns, wcs=wcs).columns.items()}
    assert len(found["X_WORLD"]) == len(X)
    assert found["ALPHA_SKY"].max() - found["ALPHA_SKY"].min() > 359  # they lie on both sides of longitude 0
    for x, y, win in (("X_IMAGE_DBL", "Y_IMAGE_DBL", ""), ("XWIN_IMAGE", "YWIN_IMAGE", "WIN")):
        place = wcs.pixel_to_world(found[x] - 1, found[y] - 1)
        j2000 = place if place.name == "icrs" else place.fk5
        np.testing.assert_allclose(found[f"ALPHA{win}_J2000"], j2000.ra.deg, atol=1e-7)
        np.testing.assert_allclose(found[f"DELTA{win}_J2000"], j2000.dec.deg, atol=1e-7)
        axes = [place.spherical.lon.deg, place.spherical.lat.deg]
        first, second = axes if ctype[0].startswith(("RA", "GLON")) else axes[::-1]
        np.testing.assert_allclose([found[f"X{win}_WORLD"], found[f"Y{win}_WORLD"]], [first, second], atol=1e-9)
    place = wcs.pixel_to_world(found["X_IMAGE_DBL"] - 1, found["Y_IMAGE_DBL"] - 1)
    np.testing.assert_allclose(
        [found["ALPHA_SKY"], found["DELTA_SKY"]], [place.spherical.lon.deg, place.spherical.lat.deg], atol=1e-9
    )
    if "TAN" in ctype[0]:
        # Pixels of 1e-4 degrees that are square on the sky.
        np.testing.assert_allclose(found["A_WORLD"], found["A_IMAGE"] * 1e-4, rtol=1e-4)
        np.testing.assert_allclose(found["B_WORLD"], found["B_IMAGE"] * 1e-4, rtol=1e-4)
        angle = np.radians(found["THETA_IMAGE"])
        tip = wcs.pixel_to_world(found["X_IMAGE_DBL"] - 1 + np.cos(angle), found["Y_IMAGE_DBL"] - 1 + np.sin(angle))
        turned = found["THETA_J2000"] - place.position_angle(tip).deg
        np.testing.assert_allclose((turned + 90) % 180 - 90, 0, atol=0.05)


@pytest.mark.parametrize("processes", (1, 2))
def test_the_scale_from_the_header_does_not_hang_on_the_columns(mosaic, processes):
    columns = ["MU_MAX", "CLASS_STAR"]
    few, more, other = (
        next(extract_file(mosaic, how, [*columns, *world], extensions=[1], processes=processes)).measured.columns
        for how, world in ((HOW, []), (HOW, ["ALPHA_J2000"]), (Settings(threshold=5, pixel_scale=0.36), []))
    )
    for name in columns:
        np.testing.assert_array_equal(few[name], more[name])
        np.testing.assert_allclose(few[name], other[name], atol=1e-4)


def test_one_scale_for_headers_and_wcs():
    """That at the image's centre: 10 degrees off the reference point it differs."""
    wcs = sky("RA---TAN", "DEC--TAN", crpix=[100_000, 0])
    header = wcs.to_header()
    header["NAXIS1"], header["NAXIS2"] = 120, 140
    scale = pixel_scale(header)
    corners = wcs.pixel_to_world([58.5, 59.5, 59, 59], [69, 69, 68.5, 69.5])
    sides = [corners[k].separation(corners[k + 1]).arcsec for k in (0, 2)]
    angle = corners[0].position_angle(corners[1]) - corners[2].position_angle(corners[3])
    assert scale == pytest.approx(np.sqrt(sides[0] * sides[1] * abs(np.sin(angle.rad))), rel=1e-5)
    assert abs(scale / 0.36 - 1) > 0.01
    columns = ["MU_MAX", "MU_THRESHOLD"]
    by_wcs = measure(draw(), HOW, columns, wcs=wcs).columns
    by_number = measure(draw(), Settings(threshold=5, pixel_scale=scale), columns).columns
    for name in columns:
        np.testing.assert_array_equal(by_wcs[name], by_number[name])


@pytest.mark.parametrize(
    "wcs, said",
    [
        (WCS(naxis=2), r"needs a celestial WCS with two axes, and wcs= has 2 \(\(none\), \(none\)\)$"),
        (
            WCS(fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CTYPE3": "FREQ", "NAXIS": 3})),
            r"wcs= has 3 \(RA---TAN, DEC--TAN, FREQ\); wcs\.celestial has those of the sky",
        ),
    ],
)
def test_a_wcs_without_a_sky_of_two_axes_is_named(wcs, said):
    with pytest.raises(UserError, match=said):
        extract(draw(), threshold=5, wcs=wcs, columns=["ALPHA_J2000"])
    assert len(extract(draw(), threshold=5, wcs=wcs, columns=["X_IMAGE"])) == len(X)


# Flag images


@pytest.mark.parametrize(
    "flags, said",
    [
        (np.full((140, 120), 0x80000001, np.uint32), "has 2147483649: IMAFLAGS_ISO holds -2147483648 to 2147483647"),
        (np.full((140, 120), 2**40 + 1), "has 1099511627777"),
        (np.full((140, 120), -(2**40)), "has -1099511627776"),
        (np.full((140, 120), 1.0), "the flag image is of float64: it must be of integers"),
    ],
)
def test_flags_that_the_column_cannot_hold_are_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        measure(draw(), HOW, ["IMAFLAGS_ISO"], flag_image=flags)


@pytest.mark.parametrize("dtype", ("bool", "u1", "i2", ">i4", "u4", "i8"))
def test_flags_of_every_integer_that_fits(dtype):
    highest = 1 if dtype == "bool" else min(np.iinfo(dtype).max, 2**31 - 1)
    found = measure(draw(), HOW, ["IMAFLAGS_ISO"], flag_image=np.full((140, 120), highest, dtype))
    assert found.columns["IMAFLAGS_ISO"].tolist() == [highest] * len(X)


# Some images of a file


def test_an_image_keeps_its_number_whichever_are_chosen(mosaic):
    with pytest.warns(UserWarning, match="no noise"):
        every = list(extract_file(mosaic, HOW, ["EXT_NUMBER", "X_IMAGE"], processes=1))
    assert [one.number for one in every] == [1, 2, 3]
    chosen = list(extract_file(mosaic, HOW, ["EXT_NUMBER", "X_IMAGE"], extensions=[4, 1], processes=1))
    assert [one.number for one in chosen] == [1, 3]
    for one, other in zip(chosen, (every[0], every[2]), strict=True):
        assert (one.measured.columns["EXT_NUMBER"] == one.number).all()
        np.testing.assert_array_equal(one.measured.columns["X_IMAGE"], other.measured.columns["X_IMAGE"])
        assert one.settings is HOW


def test_weights_and_flags_belong_to_an_image_by_its_place_in_the_file(mosaic, tmp_path):
    """The first image's weights hide the two sources at its bottom, the third's the one at its top."""
    weights = [np.ones((140, 120), "f4") for _ in range(3)]
    weights[2][95:], weights[0][:60] = 0, 0
    weight = write(tmp_path / "weight.fits", *weights)
    flags = write(tmp_path / "flags.fits", *(np.full((140, 120), 2**k, "i2") for k in range(3)))
    columns = ["Y_IMAGE", "IMAFLAGS_ISO"]
    seen = {}
    for extensions in ([1], [4], [1, 4]):
        for one in extract_file(mosaic, HOW, columns, extensions=extensions, weight=weight, flag_image=flags, processes=1):
            found = one.measured.columns
            assert set(found["IMAFLAGS_ISO"].tolist()) == {2 ** (one.number - 1)}
            seen.setdefault(one.number, set()).add(tuple(np.round(found["Y_IMAGE"]).astype(int)))
    assert [[sorted(rows) for rows in seen[number]] for number in (1, 3)] == [[[80, 110]], [[25, 41, 80]]]
    two = write(tmp_path / "two.fits", *weights[:2])
    with pytest.raises(UserError, match=r"two\.fits: 2 images of weights for the 3 of mosaic\.fits"):
        extract_file(mosaic, HOW, columns, extensions=[1, 4], weight=two)
    one = write(tmp_path / "one.fits", weights[2])
    found = extract_file(mosaic, HOW, ["Y_IMAGE"], extensions=[1, 4], weight=one, processes=1)
    assert [len(extension.measured) for extension in found] == [3, 3]


@pytest.mark.parametrize("how", [{"processes": 0}, {"processes": -1}, {"extensions": []}])
def test_numbers_of_processes_and_extensions_that_cannot_be_meant(mosaic, how):
    with pytest.raises(ValueError, match=f"{next(iter(how))} is "):
        extract_file(mosaic, HOW, ["X_IMAGE"], **how)


# Other processes


@pytest.mark.parametrize("processes", (1, 2))
def test_warnings_come_with_file_and_image(mosaic, processes):
    how = partial(type(read_config()).for_header, read_config(overrides=[("DETECT_THRESH", "5"), ("GAIN", "2")]))
    with fits.open(mosaic, mode="update") as file:
        file[4].header["GAIN"] = "high"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(extract_file(mosaic, how, ["X_IMAGE"], processes=processes))
    assert [len(one.measured) for one in found] == [4, 0, 4] and found[2].settings.gain == 2
    said = [str(one.message) for one in caught]
    assert len(said) == 2 and {one.category for one in caught} == {UserWarning}
    assert said[0].startswith(f"{mosaic}[2]: ") and "no noise" in said[0]
    assert said[1] == f"{mosaic}[4]: the header's GAIN is 'high', no number: 2 is used"
    assert {one.filename for one in caught} == {__file__}


def test_settings_that_cannot_be_sent_are_named(mosaic):
    with pytest.raises(ValueError, match=r"settings cannot be given to other processes .* or processes=1"):
        extract_file(mosaic, lambda header: HOW, ["X_IMAGE"], processes=2)
    assert len(next(extract_file(mosaic, lambda header: HOW, ["X_IMAGE"], processes=1)).measured) == len(X)


def test_a_script_without_a_guard_is_told_so(mosaic, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from skyset.errors import UserError\n"
        "from skyset.extraction.mosaic import extract_file\n"
        "from skyset.extraction.settings import Settings\n"
        "try:\n"
        f"    print(len(list(extract_file({str(mosaic)!r}, Settings(threshold=5), ['X_IMAGE'], processes=2))))\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert 'below `if __name__ == "__main__":`' in done.stdout and "--processes 1; in Python processes=1" in done.stdout


def test_a_background_that_is_given_is_subtracted_and_the_images_own_reported():
    """As with SExtractor 2.25: BACKGROUND and MINIBACKGROUND are measured, the BACKGROUND image is what was subtracted, and
    pixels are saturated by their own counts."""
    checks = ["BACKGROUND", "-BACKGROUND", "MINIBACKGROUND", "BACKGROUND_RMS"]
    columns = ["X_IMAGE", "Y_IMAGE", "BACKGROUND", "FLUX_MAX", "FLAGS"]
    found = measure(draw(), Settings(threshold=50, back_value=90, back_size=128), columns, check=checks)
    assert len(found) == len(X) and found.background == 90
    np.testing.assert_allclose(found.columns["BACKGROUND"], 100, atol=3)
    level = {kind: float(np.median(image)) for kind, image in found.check.items()}
    assert level["BACKGROUND"] == 90 and level["-BACKGROUND"] == pytest.approx(10, abs=1)
    assert level["MINIBACKGROUND"] == pytest.approx(100, abs=3)
    measured = measure(draw(), Settings(threshold=50, back_size=128), columns, check=checks)
    np.testing.assert_array_equal(found.columns["BACKGROUND"][0], measured.columns["BACKGROUND"][0])
    np.testing.assert_array_equal(found.check["BACKGROUND_RMS"], measured.check["BACKGROUND_RMS"])
    for limit, flag in ((90 + found.columns["FLUX_MAX"].min() - 1, 4), (90 + found.columns["FLUX_MAX"].max() + 1, 0)):
        again = measure(draw(), Settings(threshold=50, back_value=90, back_size=128, saturation=float(limit)), columns)
        assert set(again.columns["FLAGS"] & 4) == {flag}
