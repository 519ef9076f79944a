"""Headers as they are met: what of them can be read, and the sky that they mean."""

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from skyset import headers
from skyset.extraction.config import pixel_scale
from skyset.extraction.world import celestial_wcs, sky_faults, world_columns
from skyset.extraction.world import pixel_scale as sky_scale

BASE = [
    "CTYPE1  = 'RA---TAN'",
    "CTYPE2  = 'DEC--TAN'",
    "CRVAL1  = 150.0",
    "CRVAL2  = 30.0",
    "CRPIX1  = 100.5",
    "CRPIX2  = 100.5",
    "CD1_1   = -0.001",
    "CD1_2   = 0.0",
    "CD2_1   = 0.0",
    "CD2_2   = 0.001",
]


def made(*cards: str | bytes) -> fits.Header:
    return headers.parse(b"".join((card.encode("latin-1") if isinstance(card, str) else card).ljust(80) for card in cards))


def place(*cards: str | bytes) -> tuple[float, float]:
    """Where the pixel (60, 40), as FITS counts, is on the sky."""
    wcs = celestial_wcs(made(*cards))
    return tuple(float(value) for value in wcs.all_pix2world(60, 40, 1))


@pytest.mark.parametrize(
    "card, value",
    [
        ("GAIN    = 1.5D+02 / e-", 150.0),
        ("GAIN    = 1.5d2", 150.0),
        ("GAIN    = -.5E-1", -0.05),
        ("GAIN    = 00012", 12),
        ("gain    =1.5", 1.5),
        ("GAIN    = NaN", "NaN"),
        ("GAIN    = 1,5 / no", "1,5"),
        ("GAIN    = 'a''b'", "a'b"),
        (b"GAIN    = 'a\tb\xe9\0'", "a b?"),
        ("GAIN    = 'open", "open"),
        ("GAIN    = T", True),
        ("GAIN    = 5.0\0", 5.0),
        ("HIERARCH ESO DET OUT = 1.5D3 / x", 1500.0),
        ("HIERARCH ESO DET OUT = inf", "inf"),
        ("GAIN    = - 1.5 E 02", -150.0),
    ],
)
def test_every_card_can_be_read(card, value):
    header = made("A       = 1", card, "Z       = 3")
    key = "ESO DET OUT" if "ESO" in str(card) else "GAIN"
    assert header[key] == value and type(header[key]) is type(value) and (header["A"], header["Z"]) == (1, 3)


@pytest.mark.parametrize("card", ["GA\tN   = 3", "GAIN(1) = 3", "HIERARCH no value", "X = 'open / x"])
def test_a_card_that_is_none_becomes_a_comment(card):
    header = made("A       = 1", card, "Z       = 3")
    assert list(header) == ["A", "COMMENT", "Z"] and headers.readable(header).tostring() == header.tostring()


def test_cleaning_keeps_length_and_what_is_legal():
    header = fits.Header([("SIMPLE", True), ("BITPIX", 16, "bits"), ("OBJECT", "it's"), ("RA", 1.25e-7, "deg")])
    header["COMPLEX"] = 1 + 2j
    header["LONGTEXT"] = "x" * 100
    header["HIERARCH ESO A"] = 1.5
    header.add_history("h = 1D5")
    text = header.tostring().encode("ascii")
    assert headers.clean(text) == text


@pytest.mark.parametrize(
    "value, number",
    [
        ("1.6", 1.6),
        ("1D2", 100),
        (" 2 ", 2),
        (2**63 - 1, 2**63 - 1),
        (3, 3),
        (2.5, 2.5),
        ("high", None),
        (True, None),
        (None, None),
        (math.nan, None),
        (math.inf, None),
        ("1E999", None),
        ("", None),
        ("1_0", None),
        (1j, None),
    ],
)
def test_what_is_a_number(value, number):
    assert headers.number(value) == number


# The sky; the values are those of SExtractor 2.25.0, ALPHA_J2000 and DELTA_J2000 of a source there, or of wcslib where said


PLAIN = (150.04673, 29.93948)


@pytest.mark.parametrize("number", ["1.5D+02", "1.5d+02", "1.5E2", "'150.0'", "1.500D2"])
def test_exponents_of_every_kind_are_the_same_sky(number):
    cards = [card if not card.startswith("CRVAL1") else f"CRVAL1  = {number}" for card in BASE]
    assert place(*cards) == pytest.approx(PLAIN, abs=2e-5)
    assert place(*cards, b"ORIGIN  = 'a\tb\nc\0d\xe9'", "BAD     = NaN") == pytest.approx(PLAIN, abs=2e-5)


SCAMP = ["PV1_0   = 0.01", "PV1_1   = 1.02", "PV1_2   = 0.03", "PV2_0   = 0.0", "PV2_1   = 1.01", "PV2_2   = 0.0"]


@pytest.mark.parametrize("more", [[], ["A_ORDER = 2", "A_2_0   = 1E-4", "B_ORDER = 2", "B_0_2   = 1E-4"]])
def test_linear_polynomials_of_scamp_under_tan_are_tpv(more):
    tpv = [card.replace("TAN'", "TPV'") for card in BASE]
    for cards in (BASE, tpv, [card.replace("TAN'", "TAN  '") for card in BASE]):
        assert place(*cards, *SCAMP, *more) == pytest.approx((150.05711, 29.93887), abs=2e-5)
    assert place(*BASE, *SCAMP[3:5], *more) == pytest.approx((150.04673, 29.938895), abs=2e-5)  # PV1_1 is 1 by default


def test_polynomials_that_are_all_zero_are_none():
    zero = [f"PV{axis}_{term}   = 0.0" for axis in (1, 2) for term in range(3)]
    assert place(*BASE, *zero) == pytest.approx(PLAIN, abs=2e-5)


def test_the_native_pole_of_the_longitude_axis_stays_tan():
    """Calabretta & Greisen 2002, 2.5: as wcslib has them."""
    pole = ["PV1_1   = 0.0", "PV1_2   = 90.0", "PV1_3   = 180.0"]
    assert place(*BASE, *pole) == pytest.approx(PLAIN, abs=2e-5)
    assert celestial_wcs(made(*BASE, *pole)).wcs.ctype[0] == "RA---TAN"


def test_cd_counts_where_pc_or_crota_stand_beside_it():
    pc = ["PC1_1   = 2.0", "PC1_2   = 0.0", "PC2_1   = 0.0", "PC2_2   = 2.0", "CDELT1  = -0.001", "CDELT2  = 0.001"]
    assert place(*BASE, *pc) == pytest.approx(PLAIN, abs=2e-5)
    assert place(*BASE, *pc[-2:], "CROTA2  = 30.0") == pytest.approx(PLAIN, abs=2e-5)
    assert place(*BASE[:6], *pc[-2:], "CROTA2  = 3.0D1") == pytest.approx((150.0754, 29.96782), abs=2e-5)


def test_sip_without_its_name_counts_as_with_astropy():
    sip = ["A_ORDER = 2", "A_2_0   = 1.0D-4", "B_ORDER = 2", "B_0_2   = 1.0D-4"]
    assert place(*BASE, *sip) == pytest.approx((150.046539, 29.939848), abs=2e-5)


@pytest.mark.parametrize("card", ["CRVAL1  = 15O.0", "CRVAL1  = NaN", "CD1_1   = 1,5", "CRPIX2  = 'x'", "CRVAL2  = 1E999"])
def test_a_sky_whose_numbers_are_none_is_no_sky(card):
    cards = [one for one in BASE if one[:8] != card[:8]]
    assert celestial_wcs(made(*cards, card)) is None and pixel_scale(made(*cards, card)) == 0


def test_headers_made_elsewhere_are_read_alike():
    """A header that astropy read, with what it can neither parse nor write."""
    odd = ["CRVAL1  = 1.5D+02", "OBJECT  = 'a\tb'", "GAIN    = NaN"]
    text = "".join(card.ljust(80) for card in [*BASE[:2], *BASE[3:], *odd])
    header = fits.Header.fromstring(text)
    assert tuple(float(one) for one in celestial_wcs(header).all_pix2world(60, 40, 1)) == pytest.approx(PLAIN, abs=2e-5)
    assert headers.readable(header)["GAIN"] == "NaN"
    np.testing.assert_allclose(WCS(headers.sky(header)).wcs.crval, [150, 30])


# What a header says of its HDU


@pytest.mark.parametrize(
    "cards, said",
    [
        (["BITPIX  = 12", "NAXIS   = 0"], "BITPIX is 12"),
        (["NAXIS   = 0"], "BITPIX is missing"),
        (["BITPIX  = 8"], "NAXIS is missing"),
        (["BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 3"], "NAXIS2 is missing"),
        (["BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = -3"], "NAXIS1 is -3: a whole number"),
        (["BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 2.5"], "NAXIS1 is 2.5"),
        (["BITPIX  = 8", "NAXIS   = 1000"], "NAXIS is 1000"),
        (["BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = NaN"], "NAXIS1 is 'NaN'"),
    ],
)
def test_a_header_that_does_not_say_where_its_data_end(cards, said):
    with pytest.raises(headers.HeaderError, match=said):
        headers.data_bytes(made(*cards))


def test_bytes_of_data():
    assert headers.data_bytes(made("BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 3", "NAXIS2  = 5")) == 60
    table = ["BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 3", "NAXIS2  = 5", "PCOUNT  = 7", "GCOUNT  = 1"]
    assert headers.data_bytes(made(*table)) == 22
    groups = ["BITPIX  = 16", "NAXIS   = 3", "NAXIS1  = 0", "NAXIS2  = 2", "NAXIS3  = 3", "GROUPS  = T"]
    assert headers.data_bytes(made(*groups, "PCOUNT  = 1", "GCOUNT  = 4")) == 56


# --- cards that a WCS can do without ------------------------------------------------------------------

SKY = {
    "NAXIS": 2,
    "NAXIS1": 100,
    "NAXIS2": 100,
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.2,
    "CRPIX1": 50.5,
    "CRPIX2": 50.5,
    "CD1_1": -5e-5,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 5e-5,
}


def measured_at(place: float) -> dict[str, np.ndarray]:
    """What a source of round shape at x = y = place has for the columns of the sky."""
    names = {"X_IMAGE_DBL": place, "Y_IMAGE_DBL": place, "X2_IMAGE": 1.0, "Y2_IMAGE": 1.0, "XY_IMAGE": 0.0}
    sizes = {"FWHM_IMAGE": 2.0, "ISOAREA_IMAGE": 9.0}
    return {name: np.array([value]) for name, value in (names | sizes).items()}


def sky_of(**cards):
    return fits.Header([(key, value) for key, value in (SKY | cards).items() if value != "gone"])


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"EQUINOX": "J2000"}, []),
        ({"EQUINOX": None}, []),
        ({"EQUINOX": " "}, []),
        ({"EQUINOX": "N/A"}, ["the header's EQUINOX is 'N/A', no number: it is left out of the WCS"]),
        ({"EQUINOX": True}, ["the header's EQUINOX is True, no number: it is left out of the WCS"]),
        ({"LONPOLE": "NaN"}, ["the header's LONPOLE is 'NaN', no number: it is left out of the WCS"]),
        ({"LATPOLE": "x"}, ["the header's LATPOLE is 'x', no number: it is left out of the WCS"]),
        ({"PV1_1": "abc"}, ["the header's PV1_1 is 'abc', no number: it is left out of the WCS"]),
        ({"CROTA2": "x"}, []),  # CD replaces it
        ({"CDELT1": "x"}, []),
        ({"PC1_1": "x"}, []),
        ({"CRPIX3": "x"}, []),  # of an axis that the image has not
        ({"RADESYS": "J2000"}, ["the header's RADESYS is 'J2000', no system of the sky: the usual one is taken"]),
        ({"RADESYS": "GAPPT"}, ["the header's RADESYS is 'GAPPT', no system of the sky: the usual one is taken"]),
    ],
)
def test_a_card_that_is_not_needed_does_not_cost_the_sky(card, said):
    header = sky_of(**card)
    wcs = celestial_wcs(header)
    assert sky_scale(wcs, (100, 100)) == pytest.approx(0.18)
    assert wcs.all_pix2world(49.5, 49.5, 0) == pytest.approx([150.0, 2.2])
    assert sky_faults(header) == said
    columns = world_columns(measured_at(50.5), wcs, windowed=())
    assert (columns["ALPHA_J2000"][0], columns["DELTA_J2000"][0]) == pytest.approx((150.0, 2.2))


def test_an_equinox_of_1950_is_heeded():
    wcs = celestial_wcs(sky_of(EQUINOX="B1950"))
    columns = world_columns(measured_at(50.5), wcs, windowed=())
    assert columns["ALPHA_J2000"][0] == pytest.approx(150.6456, abs=1e-3)  # FK4 B1950, precessed


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"CD1_1": "-5,0E-5"}, "the header's CD1_1 is '-5,0E-5', no number"),
        ({"CRVAL1": "150.0 deg"}, "the header's CRVAL1 is '150.0 deg', no number"),
        ({"CRVAL1": None}, "the header's CRVAL1 is blank, no number"),
        ({"CD1_1": 0.0, "CD2_2": 0.0}, "the header's CD matrix is 0"),
        ({"CUNIT1": "furlong"}, "the header's WCS is not understood"),
    ],
)
def test_a_sky_that_is_lost_is_said(cards, said):
    header = sky_of(**cards)
    assert celestial_wcs(header) is None
    text = "; ".join(sky_faults(header))
    assert text.startswith(said) and text.endswith("the image has no sky, and its pixel scale is not known")


def test_what_is_doubtful_is_said():
    header = sky_of()
    header.append(("CRVAL1", 151.0))
    assert sky_faults(header) == ["the header's CRVAL1 stands 2 times: the last counts"]
    assert celestial_wcs(header).wcs.crval[0] == 151
    bare = sky_of(CD1_1="gone", CD1_2="gone", CD2_1="gone", CD2_2="gone")
    assert sky_faults(bare) == ["the header has neither CD nor CDELT: pixels of 1 degree are taken"]
    assert sky_faults(fits.Header({"NAXIS": 2, "CTYPE1": "WAVE"})) == []
