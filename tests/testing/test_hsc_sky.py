"""The simulated archive's windows and FITS, against answers of the real one and against astropy."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyset.archives.hsc_skymap import tract_at, tract_centre
from skyset.testing.hsc_blobs import SEEING, BlobSky
from skyset.testing.hsc_sky import MASK_BITS, PLANES, cutout_fits, psf_fits, stamp_bytes, target_of, window

REAL = Path(__file__).resolve().parents[3] / "shared/data/hsc/das"
real = pytest.mark.skipif(not REAL.exists(), reason="the real cutouts are not beside this checkout")
TEN = 10 / 3600


def real_cutouts():
    with open(REAL / "star_cat_correct.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for path in sorted(REAL.glob("*.fits")):
        row = rows[int(path.name.partition("-")[0]) - 2]
        yield path, float(row["ira"]), float(row["idec"])


@real
def test_windows_and_headers_are_those_of_the_real_service():
    count = 0
    for path, ra, dec in real_cutouts():
        data = path.read_bytes()
        with fits.open(path) as hdus:
            primary, image = hdus[0].header, hdus[1].data
        where = window(ra, dec, 2 / 3600, 2 / 3600)
        background = primary["BGMEAN"], primary["BGVAR"], primary["variance_scale"]
        archive = primary["AP_CORR_MAP_ID"]
        ours = cutout_fits("i", where, [image] * 3, background=background, archive=archive)
        digit = re.compile(rb"CD2_2   = 4.66666666666\d{3}E-05")  # its last three digits differ from patch to patch
        assert digit.sub(b"", ours) == digit.sub(b"", data), path.name
        count += 1
    assert count == 6


def test_tracts_are_those_of_the_survey():
    assert tract_centre(8279) == pytest.approx((29.8755186721992, -6.69421487603305), abs=1e-13)
    assert tract_at(150.1, 2.2) == 9813  # COSMOS
    assert tract_at(34.5, -5.0) == 8523  # UDS
    assert (tract_at(10, -90), tract_at(10, 90)) == (0, 18937)
    with pytest.raises(ValueError, match="no position"):
        tract_at(10, 91)
    with pytest.raises(ValueError, match="no tract"):
        tract_centre(18938)


def test_each_tract_lies_around_its_centre():
    for tract in np.random.default_rng(1).integers(1, 18937, 300).tolist():
        assert tract_at(*tract_centre(tract)) == tract


def test_windows_of_ten_arcsec_are_119_to_121_pixels_and_the_target_is_within_a_pixel_of_their_middle():
    """On the equator, where most of the survey is."""
    dice, shapes, far = np.random.default_rng(2), set(), 0.0
    for ra, dec in zip(dice.uniform(0, 360, 300), dice.uniform(-7, 7, 300), strict=True):
        where = window(ra, dec, TEN, TEN)
        shapes |= set(where.shape)
        x, y = where.wcs.all_world2pix([[ra, dec]], 0)[0]
        far = max(far, abs(x - (where.width - 1) / 2), abs(y - (where.height - 1) / 2))
        assert np.hypot(*(np.subtract(target_of(where.wcs, where.shape), (ra, dec)))) < 2 / 3600
    assert shapes == {119, 120, 121}
    assert 0.3 < far <= 1


@pytest.mark.parametrize("planes", [("image",), PLANES, ("image", "variance")])
def test_four_hdus_with_the_planes_asked_for(planes):
    sky = BlobSky(3)
    ra, dec = sky.table["ra"][1], sky.table["dec"][1]
    where = window(ra, dec, TEN, TEN)
    with fits.open(io.BytesIO(stamp_bytes(sky, "r", where, planes))) as hdus:
        hdus.verify("exception")
        assert [hdu.header["NAXIS"] for hdu in hdus] == [0, *(2 if name in planes else 0 for name in PLANES)]
        assert all("EXTNAME" not in hdu.header for hdu in hdus)
        assert [hdu.header.get("EXTTYPE") for hdu in hdus[1:]] == [
            name.upper() if name in planes else None for name in PLANES
        ]
        assert hdus[0].header["FILTER"] == "r"
        wcs, header = WCS(hdus[1].header), hdus[1].header
        image, mask, _ = sky.render("r", where.wcs, where.shape)
        np.testing.assert_array_equal(hdus[1].data, image)
        if "mask" in planes:
            np.testing.assert_array_equal(hdus[2].data, mask)
            assert {bit: hdus[2].header[f"MP_{bit}"] for bit in MASK_BITS} == MASK_BITS
        place = wcs.all_world2pix([[ra, dec]], 0)[0]
        np.testing.assert_allclose(place, where.wcs.all_world2pix([[ra, dec]], 0)[0], atol=1e-6)
        assert (header["CRVAL1A"], header["CRVAL2A"]) == (where.x, where.y) == (-header["LTV1"], -header["LTV2"])
        y, x = np.unravel_index(image.argmax(), image.shape)
        assert (x, y) == pytest.approx(place, abs=1.5)


def test_blobs_have_the_flux_of_their_magnitudes():
    sky = BlobSky(4, seed=3)
    for index in range(4):
        where = window(sky.table["ra"][index], sky.table["dec"][index], TEN, TEN)
        image, _, variance = sky.render("i", where.wcs, where.shape)
        noise = float(np.sqrt(variance.sum()) / image.sum())
        assert 27 - 2.5 * np.log10(image.sum()) == pytest.approx(sky.table["i_cmodel_mag"][index], abs=5 * noise + 0.001)


def test_holes_have_no_data():
    sky = BlobSky(2)
    sky.holes[int(sky.table["object_id"][1])] = "zy"
    ra, dec = sky.table["ra"][1], sky.table["dec"][1]
    assert [stamp_bytes(sky, band, window(ra, dec, TEN, TEN)) is None for band in "grizy"] == [False] * 3 + [True] * 2
    assert sky.psf("y", ra, dec) is None and sky.psf("g", ra, dec) is not None


def test_a_psf_is_one_hdu_of_float64_with_its_place():
    sky = BlobSky(1)
    ra, dec = sky.table["ra"][0], sky.table["dec"][0]
    with fits.open(io.BytesIO(psf_fits(sky.psf("g", ra, dec), ra, dec, 9813))) as hdus:
        assert len(hdus) == 1
        assert hdus[0].data.dtype == ">f8" and hdus[0].data.sum() == pytest.approx(1)
        inside = np.sum(hdus[0].data >= hdus[0].data.max() / 2)
        assert inside == pytest.approx(np.pi * (SEEING["g"] / 0.168 / 2) ** 2, rel=0.3)
        assert WCS(hdus[0].header, key="A").wcs.crval[0] == hdus[0].header["CRVAL1A"]


def test_rows_that_the_cuts_take_away_are_there_on_request():
    table = BlobSky(5, bad=True).catalogue()
    assert {len(values) for values in table.values()} == {13}
    ids, names = table["object_id"].tolist(), table["specz_name"].tolist()
    assert len(ids) - len(set(ids)) == 1 and len(names) - len(set(names)) == 1
