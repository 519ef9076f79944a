"""Cutouts against astropy, against the real service's, and what is said of those that cannot be used."""

import csv
import io
import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.building.cutouts.stamps import Tan, framed, read_psf, read_stamp
from skyset.errors import RecordError
from skyset.testing.hsc_blobs import BlobSky
from skyset.testing.hsc_sky import PLANES, cutout_fits, psf_fits, stamp_bytes, window

TEN = 10 / 3600
SKY = BlobSky(6, seed=4)
RA, DEC = SKY.table["ra"].tolist(), SKY.table["dec"].tolist()


def cutout(galaxy=0, band="i", planes=("image",), **more):
    where = window(RA[galaxy], DEC[galaxy], TEN, TEN)
    return cutout_fits(band, where, SKY.render(band, where.wcs, where.shape), planes, **more)


def changed(data, hdu=1, **cards):
    """The file with other cards; None takes one away."""
    with fits.open(io.BytesIO(data)) as hdus:
        for keyword, value in cards.items():
            if value is None:
                del hdus[hdu].header[keyword]
            else:
                hdus[hdu].header[keyword] = value
        file = io.BytesIO()
        hdus.writeto(file)
    return file.getvalue()


# --- the real ones ------------------------------------------------------------------------------------------


def test_the_real_cutouts_are_centred_within_half_a_pixel_and_have_their_catalogues_magnitudes(real):
    folder = real("hsc/das")
    with open(folder / "star_cat_correct.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    paths = sorted(folder.glob("*.fits"))
    assert len(paths) == 6
    shifts = []
    for path in paths:
        row = rows[int(path.name.partition("-")[0]) - 2]
        ra, dec = float(row["ira"]), float(row["idec"])
        stamp = read_stamp(path.read_bytes(), "i")
        assert (stamp.band, stamp.tract) == ("i", 8279)
        assert stamp.zero_point == pytest.approx(27, abs=1e-12)
        pixels, padded = framed(stamp, ra, dec)
        assert padded == 127 * 127 - stamp.image.size
        assert 27 - 2.5 * math.log10(pixels.sum(dtype=float)) == pytest.approx(float(row["imag_psf"]), abs=0.06)
        around = pixels[63 - 8 : 63 + 9, 63 - 8 : 63 + 9].astype(float)  # a star: its light's middle is its place
        steps = np.arange(-8, 9)
        middle = around.sum(axis=0) @ steps / around.sum(), around.sum(axis=1) @ steps / around.sum()
        x, y = stamp.pixel_of(ra, dec)
        inside = x - math.floor(x + 0.5), y - math.floor(y + 0.5)
        assert max(map(abs, inside)) <= 0.5
        shifts.append(np.subtract(middle, inside))
    # All six lie beside the places of their catalogue, which is of an earlier release, by the same tenth of an arcsec.
    common = np.mean(shifts, axis=0)
    assert np.hypot(*common) * 0.168 < 0.2
    assert np.abs(shifts - common).max() < 0.25


# --- against astropy ----------------------------------------------------------------------------------------

angle, tiny = st.floats(0, 2 * math.pi), st.floats(-1e-3, 1e-3)


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0, 360), st.floats(-89, 89), st.floats(-3e4, 3e4), st.floats(-3e4, 3e4), angle, st.booleans(),
    st.floats(1e-5, 1e-3), st.floats(-30, 30), st.floats(-30, 30), st.sampled_from(["CD", "CDELT", "PC"]),
)  # fmt: skip
def test_any_tan_is_that_of_astropy(ra, dec, x, y, turn, flipped, scale, east, north, form):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": x, "CRPIX2": y})
    steps = (-scale if flipped else scale, scale)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    if form == "CDELT":
        matrix = np.eye(2)
    else:
        for (row, column), value in np.ndenumerate(matrix):
            header[f"{form}{row + 1}_{column + 1}"] = value * (steps[row] if form == "CD" else 1)
    if form != "CD":
        header["CDELT1"], header["CDELT2"] = steps
    data = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((3, 4), "f4"), header)])
    data[0].header.update(FILTER="i", FLUXMAG0=63095734448.0194)
    file = io.BytesIO()
    data.writeto(file)
    stamp = read_stamp(file.getvalue(), "i")
    target = (ra + east / math.cos(math.radians(dec)) / 10) % 360, max(-90, min(90, dec + north / 10))
    expected = WCS(header).all_world2pix([target], 0)[0]
    np.testing.assert_allclose(stamp.pixel_of(*target), expected, rtol=1e-9, atol=2e-6)


@pytest.mark.parametrize("planes", [("image",), PLANES, ("image", "variance")])
def test_planes_are_those_that_astropy_reads_in_this_machines_order(planes):
    data = cutout(1, "g", planes)
    stamp = read_stamp(data, "g")
    with fits.open(io.BytesIO(data)) as hdus:
        for name, hdu in zip(PLANES, hdus[1:], strict=True):
            pixels = getattr(stamp, name)
            assert (pixels is None) == (name not in planes)
            if pixels is not None:
                np.testing.assert_array_equal(pixels, hdu.data)
                assert pixels.dtype.isnative and pixels.dtype == ("i4" if name == "mask" else "f4")
    assert (stamp.band, stamp.tract) == ("g", 9813)


def test_the_other_side_of_the_sky_has_no_pixel():
    with pytest.raises(RecordError, match="other side of the sky"):
        Tan(10, 0, 1, 1, (1e-4, 0, 0, 1e-4)).pixel_of(190, 0)


# --- frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("galaxy", range(6))
def test_the_target_is_at_the_middle_of_the_frame_to_the_nearest_pixel(galaxy):
    stamp = read_stamp(cutout(galaxy))
    pixels, padded = framed(stamp, RA[galaxy], DEC[galaxy])
    x, y = (round(value) for value in stamp.pixel_of(RA[galaxy], DEC[galaxy]))
    assert pixels.dtype == np.float32 and pixels.shape == (127, 127)
    np.testing.assert_array_equal(
        pixels[63 - y : 63 - y + stamp.image.shape[0], 63 - x : 63 - x + stamp.image.shape[1]], stamp.image
    )
    assert padded == 127**2 - stamp.image.size
    assert np.count_nonzero(pixels) == stamp.image.size  # no pixel of the noise is 0
    nan, _ = framed(stamp, RA[galaxy], DEC[galaxy], pad=math.nan)
    assert np.isnan(nan).sum() == padded
    small, few = framed(stamp, RA[galaxy], DEC[galaxy], size=64)
    np.testing.assert_array_equal(small, pixels[31:95, 31:95])
    assert few == 0


def test_the_published_centring_puts_the_same_border_around_every_stamp():
    stamp = read_stamp(cutout(2))
    height, width = stamp.image.shape
    pixels, _ = framed(stamp, RA[2], DEC[2], centring="published")
    low, left = int((127 - height) / 2), int((127 - width) / 2)
    np.testing.assert_array_equal(pixels[low : low + height, left : left + width], stamp.image)
    with pytest.raises(ValueError, match="centring"):
        framed(stamp, RA[2], DEC[2], centring="none")


def test_a_stamp_larger_than_the_frame_is_cut():
    where = window(RA[0], DEC[0], 2 * TEN, 2 * TEN)
    stamp = read_stamp(stamp_bytes(SKY, "r", where))
    pixels, padded = framed(stamp, RA[0], DEC[0], pad=math.nan)
    x, y = (round(value) for value in stamp.pixel_of(RA[0], DEC[0]))
    np.testing.assert_array_equal(pixels, stamp.image[y - 63 : y + 64, x - 63 : x + 64])
    assert padded == 0


def test_masks_and_variances_are_framed_alike():
    stamp = read_stamp(cutout(3, planes=PLANES))
    mask, _ = framed(stamp, RA[3], DEC[3], plane="mask")
    assert mask.dtype == np.int32 and mask[63, 63] == 32
    variance, _ = framed(stamp, RA[3], DEC[3], plane="variance")
    assert variance[63, 63] == stamp.variance[0, 0]
    with pytest.raises(RecordError, match="no mask"):
        framed(read_stamp(cutout(3)), RA[3], DEC[3], plane="mask")


def test_a_target_outside_of_the_stamp_is_refused():
    with pytest.raises(RecordError, match="outside of the cutout"):
        framed(read_stamp(cutout(0)), RA[0] + 0.01, DEC[0])


@pytest.mark.parametrize("size", [39, 41, 43, (40, 42)])
def test_psfs_have_their_middle_in_the_frames(size):
    shape = size if isinstance(size, tuple) else (size, size)
    psf = np.zeros(shape)
    psf[shape[0] // 2, shape[1] // 2] = 1
    frame = read_psf(psf_fits(psf, RA[0], DEC[0], 9813))
    assert frame.shape == (41, 41) and frame.dtype == np.float32
    assert (frame[20, 20], frame.sum()) == (1, 1)
    with pytest.raises(RecordError, match="no PSF"):
        read_psf(psf_fits(np.full(shape, np.nan), RA[0], DEC[0], 9813))


# --- files that cannot be used ------------------------------------------------------------------------------


def test_another_zero_point_is_scaled_to_27():
    usual, other = read_stamp(cutout(0, planes=PLANES)), read_stamp(cutout(0, planes=PLANES, fluxmag0=10 ** (30 / 2.5)))
    assert other.zero_point == pytest.approx(30)
    np.testing.assert_allclose(other.image, usual.image * 10**-1.2, rtol=1e-6)
    np.testing.assert_allclose(other.variance, usual.variance * 10**-2.4, rtol=1e-6)
    np.testing.assert_array_equal(other.mask, usual.mask)


@pytest.mark.parametrize("filter_, band", [("i", "i"), ("HSC-I", "i"), ("i2", "i"), ("HSC-R2", "r"), ("NB0816", "nb0816")])
def test_filters_have_their_bands_names(filter_, band):
    assert read_stamp(changed(cutout(), hdu=0, FILTER=filter_)).band == band


def of(value):
    where = window(RA[0], DEC[0], TEN, TEN)
    return cutout_fits("i", where, [np.full(where.shape, value)] * 3, ("image",))


def spoilt(value, x=0, y=0):
    """The file with another value in a pixel."""
    with fits.open(io.BytesIO(cutout())) as hdus:
        hdus[1].data[y, x] = value
        file = io.BytesIO()
        hdus.writeto(file)
    return file.getvalue()


def as_kind(kind):
    """The file with its image in another type."""
    with fits.open(io.BytesIO(cutout())) as hdus:
        hdus[1].data = hdus[1].data.astype(kind)
        file = io.BytesIO()
        hdus.writeto(file)
    return file.getvalue()


def test_a_target_whose_own_pixel_is_nan_is_refused():
    x, y = (math.floor(value + 0.5) for value in read_stamp(cutout()).pixel_of(RA[0], DEC[0]))
    with pytest.raises(RecordError, match=f"the target's pixel {x}, {y} is nan"):
        framed(read_stamp(spoilt(np.nan, x, y)), RA[0], DEC[0])
    frame, n_padded = framed(read_stamp(spoilt(np.nan, x + 1, y)), RA[0], DEC[0])
    assert np.isnan(frame[63, 64]) and np.isnan(frame).sum() == 1 and n_padded < frame.size


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "an empty file"),
        (b"<html>", "not a FITS file"),
        (cutout()[:1000], "truncated FITS file: 1,000 bytes, and it ends in a header"),
        (cutout()[:20000], "truncated FITS file: 20,000 bytes, and its data go on to"),
        (cutout()[:2880], "no image"),
        (cutout(band="r"), "of band r, not i"),
        (changed(cutout(), hdu=0, FILTER=None), "of band ?, not i"),
        (changed(cutout(), hdu=0, FLUXMAG0=None), "FLUXMAG0 is missing"),
        (changed(cutout(), hdu=0, FLUXMAG0=0.0), "zero point is not known"),
        (changed(cutout(), hdu=0, FLUXMAG0=1e-300), "its FLUXMAG0 is 1e-300: the zero point is not known"),
        (changed(cutout(), hdu=0, FLUXMAG0=1e300), "zero point is not known"),
        (spoilt(np.inf), "its image has infinite pixels"),
        (spoilt(-np.inf), "its image has infinite pixels"),
        (as_kind(np.int16), "its image is of BITPIX 16, not -32"),
        (as_kind(np.float64), "its image is of BITPIX -64, not -32"),
        (of(np.nan), "NaN everywhere"),
        (of(0), "0 everywhere"),
        (changed(cutout(), CTYPE1=None, CTYPE2=None), "no sky"),
        (changed(cutout(), CTYPE1="RA---SIN"), "not RA---TAN"),
        (changed(cutout(), CRVAL1=None), "CRVAL1 is missing"),
        (changed(cutout(), CRVAL2="abc"), "CRVAL2 is no number"),
        (changed(cutout(), CRVAL2=100.0), "declination 100"),
        (changed(cutout(), CD1_1=0.0), "no inverse"),
        (changed(cutout(), LONPOLE=90.0), "not a plain TAN"),
        (psf_fits(np.ones((3, 3)), RA[0], DEC[0], 9813), "no image"),
    ],
    ids=lambda value: value.replace(" ", "-")[:40] if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_in_words(data, words):
    with pytest.raises(RecordError, match=words.replace("?", r"\?")):
        read_stamp(data, "i")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 66_000), st.binary(min_size=1, max_size=40), st.booleans())
def test_damage_is_an_error_of_ours_or_an_image(at, more, cut):
    data = cutout(0, planes=("image",))
    data = data[:at] if cut else data[:at] + more + data[at + len(more) :]
    try:
        stamp = read_stamp(data, "i")
    except RecordError:
        return
    assert stamp.image.ndim == 2
