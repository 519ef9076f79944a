"""MegaCam files as frames: bias, amplifiers, turning, scaling and masks by value; real files; files that cannot be used."""

import gzip
import math
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

pytest.importorskip("numba", reason="exposures are simulated with numba")

from skyset.build_scripts.megacam_iqa import bias, detector, geometry
from skyset.build_scripts.megacam_iqa.frames import ccds, exposure, frames
from skyset.errors import RecordError
from skyset.testing.megacam import headers, layout, make_exposures, pixels
from skyset.testing.megacam.conditions import background
from skyset.testing.megacam.exposures import observe

SHAPE = (192, 96)
EXPOSURE = {"shape": SHAPE, "classes": ("BGP",), "seed": 1, "density": 0.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file for each kind of layout, of the same exposure."""
    folder = tmp_path_factory.mktemp("exposures")
    return {
        "raw": make_exposures(folder / "o", 1, ccds=4, **EXPOSURE)[0],
        "processed": make_exposures(folder / "p", 1, ccds=4, kind="p", **EXPOSURE)[0],
        "plain": make_exposures(folder / "plain", 1, ccds=4, suffix=".fits", **EXPOSURE)[0],
        "packed": make_exposures(folder / "gz", 1, ccds=4, suffix=".fits.gz", **EXPOSURE)[0],
        "amplifiers": make_exposures(folder / "8", 1, ccds=8, **EXPOSURE)[0],
        "amplifiers packed": make_exposures(folder / "8z", 1, ccds=8, suffix=".fits.gz", **EXPOSURE)[0],
        "36": make_exposures(folder / "36", 1, ccds=36, **(EXPOSURE | {"shape": (64, 64)}))[0],
    }


def fixed(ccd: int) -> tuple[layout.Detector, pixels.Amplifiers]:
    found = next(each for each in layout.detectors(4, SHAPE) if each.ccd == ccd)
    return found, pixels.amplifiers(found)


# --- What is done to the pixels -------------------------------------------------------------------


def test_the_bias_of_each_amplifier_is_found(made):
    for frame in frames(made["raw"]):
        truth = fixed(frame.ccd)[1].bias
        assert frame.overscan == pytest.approx(
            (truth[0] + 3, truth[1] - 1.5), abs=0.6
        )  # the bias rises by 6 ADU, falls by 3
        assert frame.saturation == 65535 - max(frame.overscan)


def test_raw_frames_over_their_flats_are_the_processed_ones(made):
    for raw, processed in zip(frames(made["raw"]), frames(made["processed"]), strict=True):
        flat = fixed(raw.ccd)[1].flat
        flat = flat[::-1, ::-1] if raw.turned else flat
        good = ~processed.bad
        difference = (raw.pixels / flat - processed.pixels)[good]
        assert np.abs(difference).max() < 3 and np.abs(np.median(difference)) < 0.7  # whole ADU, and the overscan's noise
        assert raw.gain == pytest.approx(sum(fixed(raw.ccd)[1].gain) / 2)
        assert raw.header["GAIN"] == pytest.approx(raw.gain, abs=1e-4)


def test_processed_pixels_are_scaled_and_what_elixir_masked_is_bad(made):
    with fits.open(made["processed"]) as opened:
        for frame, hdu in zip(frames(made["processed"]), opened[1:], strict=True):
            found, truth = fixed(frame.ccd)
            mask = np.zeros(SHAPE, bool)
            for column, first in truth.columns:
                mask[first:, column] = True
            wanted = hdu.data[: SHAPE[0], 32:-32]
            if found.turned:
                mask, wanted = mask[::-1, ::-1], wanted[::-1, ::-1]
            np.testing.assert_allclose(frame.pixels, wanted, rtol=1e-6, atol=0.01)
            assert (frame.bad & ~(frame.pixels >= frame.saturation) == mask).all()
            assert frame.overscan == (pytest.approx(math.nan, nan_ok=True),) * 2


def test_amplifiers_make_the_same_frames_as_spliced_ccds(made):
    whole, joined, packed = (list(frames(made[name])) for name in ("raw", "amplifiers", "amplifiers packed"))
    for each in (whole, joined, packed):
        assert [frame.ccd for frame in each] == [12, 13, 21, 22]
    for one, *others in zip(whole, joined, packed, strict=True):
        for other in others:
            np.testing.assert_array_equal(one.pixels, other.pixels)
            for key in ("CRPIX1", "CRPIX2", "CD1_1", "CD2_2", "CRVAL1", "NAXIS1", "NAXIS2"):
                assert one.header[key] == other.header[key], key
            assert (one.gain, one.turned, one.overscan) == (other.gain, other.turned, other.overscan)
            assert one.read_noise == other.read_noise


def test_positions_on_the_sky_are_those_of_the_file(made):
    with fits.open(made["raw"]) as opened:
        for frame, hdu in zip(frames(made["raw"]), opened[1:], strict=True):
            x, y = np.array([1.0, 20.5, SHAPE[1]]), np.array([3.0, 100.0, SHAPE[0]])
            stored = (SHAPE[1] + 1 - x, SHAPE[0] + 1 - y) if frame.turned else (x, y)
            wanted = WCS(hdu.header).wcs_pix2world(stored[0] + 32, stored[1], 1)
            np.testing.assert_allclose(WCS(frame.header).wcs_pix2world(x, y, 1), wanted, atol=1e-9)
            assert frame.header["CD1_1"] < 0 < frame.header["CD2_2"], "x runs west, y north"
            assert frame.turned == (frame.ccd < 18)
            assert "DATASEC" not in frame.header and "BZERO" not in frame.header and frame.header["NAXIS1"] == SHAPE[1]


def test_a_pattern_of_the_sky_has_one_sense_over_the_mosaic():
    calm = observe(0, "o", 4, SHAPE, 1, "GOOD")
    conditions = calm.conditions._replace(background="scattered", amplitude=1.0)
    pattern = int(np.random.default_rng([1, 0, 999]).integers(1 << 31))
    for found in layout.detectors(4, SHAPE):
        raw = pixels.read(conditions, found, (1, 0), density=0.2).raw
        frame = detector.frame(found.ccd, [(raw, headers.ccd(calm, found, pixels.amplifiers(found)))])
        wanted = background(conditions, *found.field(), pattern, np.zeros(SHAPE[1], int))

        def blocks(image):
            return np.median(image.reshape(8, SHAPE[0] // 8, 4, SHAPE[1] // 4).swapaxes(1, 2), axis=(2, 3)).ravel()

        right, turned = (np.corrcoef(blocks(each), blocks(frame.pixels))[0, 1] for each in (wanted, wanted[::-1, ::-1]))
        assert right > 0.95 > 0 > turned


def test_all_kinds_of_file_give_the_same(made):
    raw = list(frames(made["raw"]))
    for other in ("plain", "packed"):
        for one, two in zip(raw, frames(made[other]), strict=True):
            np.testing.assert_array_equal(one.pixels, two.pixels)
            assert dict(one.header) == dict(two.header)


def test_a_bleed_trail_in_the_overscan_does_not_draw_a_line():
    rng = np.random.default_rng(0)
    strip = np.rint(1000 + np.linspace(0, 6, 640)[:, None] + rng.normal(0, 3, (640, 32)))
    clean = bias.bias_level(strip)
    np.testing.assert_allclose(clean, 1000 + np.linspace(0, 6, 640), atol=0.6)
    strip[200:205] = 60000
    assert np.abs(bias.bias_level(strip) - clean).max() < 1.5


def test_saturated_pixels_are_bad_at_the_files_own_limit(made, tmp_path):
    path = tmp_path / "1001000o.fits"
    with fits.open(made["plain"]) as opened:
        opened[1].data[50, 60] = 65535
        opened[1].data[51, 60] = 65534
        opened.writeto(path)
    frame = next(frames(path))
    assert np.argwhere(frame.bad).tolist() == [[SHAPE[0] - 1 - 50, SHAPE[1] - 1 - (60 - 32)]]


def test_zeros_of_a_sky_near_zero_are_no_mask():
    rng = np.random.default_rng(0)
    header = fits.Header({"EXTVER": 20, "SATURATE": 60000, "IMRED_OP": "FLAT-FIELD"})
    dark = np.rint(rng.normal(0, 3, (100, 100))).astype(np.float32)
    assert detector.frame(20, [(dark, header)]).bad is None
    masked = dark + 50
    masked[:, 7] = 0
    assert (detector.frame(20, [(masked, header)]).bad == (masked == 0)).all()


# --- Which CCD ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cards", "wanted"),
    [
        ({"EXTNAME": "ccd07", "EXTVER": 3}, (7, "")),
        ({"EXTVER": 22}, (22, "")),
        ({"FILENAME": "979412p31"}, (31, "")),
        ({"EXTNAME": "amp00", "EXTVER": 0}, (0, "b")),
        ({"EXTNAME": "amp01"}, (0, "a")),
        ({"EXTNAME": "amp36"}, (18, "a")),
        ({"EXTNAME": "amp73"}, (36, "a")),
        ({"EXTNAME": "amp76", "AMPNAME": "38a"}, (38, "a")),
    ],
)
def test_a_ccd_is_known_by_its_name_or_else_by_its_number(cards, wanted):
    assert geometry.identify(fits.Header(cards)) == wanted


def test_an_image_of_no_ccd_is_refused():
    with pytest.raises(ValueError, match="which CCD"):
        geometry.identify(fits.Header({"EXTNAME": "SCI"}))


def test_a_file_of_another_camera_is_rejected_by_name(tmp_path):
    """A fault of the record: a build goes on with the others."""
    path = tmp_path / "1001000o.fits"
    fits.PrimaryHDU(np.ones((30, 30), np.float32)).writeto(path)
    packed = tmp_path / "1001001o.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for read, each in ((ccds, path), (lambda each: list(frames(each)), path), (lambda each: list(frames(each)), packed)):
        with pytest.raises(RecordError, match=rf"{re.escape(each.name)}: no image of MegaCam: .* says which CCD it is"):
            read(each)


def test_what_another_pipeline_turned_is_left_as_it_is():
    turned = fits.Header({"DETSEC": "[6279:4232,14317:9706]", "CD1_1": 5e-5, "CD2_2": -5e-5})
    assert geometry.is_turned(10, turned)
    assert not geometry.is_turned(10, fits.Header({"DETSEC": "[6279:4232,14317:9706]", "CD1_1": -5e-5, "CD2_2": 5e-5}))
    assert geometry.is_turned(40, fits.Header({"DETSEC": "[6279:4232,14317:9706]"}))
    assert geometry.is_turned(36, fits.Header()) and not geometry.is_turned(38, fits.Header())


def test_a_distortion_is_turned_with_the_pixels():
    header = fits.Header({"NAXIS": 2, "NAXIS1": 100, "NAXIS2": 80, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"})
    header.update(
        {"CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 30.0, "CRPIX2": 40.0, "CD1_1": 5e-5, "CD1_2": 1e-6, "CD2_1": 2e-6}
    )
    header.update({"CD2_2": -5e-5, "A_ORDER": 3, "A_2_0": 1e-4, "A_1_2": 1e-6, "A_0_3": 2e-6, "B_1_1": -2e-4, "B_ORDER": 2})
    header["DETSEC"] = "[100:1,80:1]"
    made = geometry.oriented(header, (0, 0), (80, 100), True)
    x, y = np.array([1.0, 17, 100]), np.array([2.0, 44, 80])
    np.testing.assert_allclose(
        WCS(made).all_pix2world(101 - x, 81 - y, 1), WCS(header).all_pix2world(x, y, 1), rtol=0, atol=1e-11
    )
    assert made["DETSEC"] == "[1:100,1:80]"


# --- Exposures ------------------------------------------------------------------------------------


def test_an_exposure_is_what_its_headers_say(made):
    said, truth = exposure(made["raw"]), observe(0, "o", 4, SHAPE, 1, "BGP")
    assert (said.fits_id, said.kind, said.filter) == ("1001000o", "o", truth.conditions.filter)
    assert said.exptime == truth.conditions.exptime and said.airmass == pytest.approx(truth.airmass, abs=1e-3)
    assert (said.ra, said.dec) == pytest.approx((truth.ra, truth.dec), abs=1e-5)
    assert said.seeing["WDSEEMED"] == pytest.approx(truth.site[0], abs=0.01) and math.isnan(said.seeing["DDSEEMED"])
    assert said.notes == () and said.expected == ()
    assert exposure(made["36"]).expected == tuple(range(36))
    assert math.isnan(exposure(made["36"]).seeing["WDSEEMED"]), "headers of 2008 have none"


def changed(path: Path, target: Path, change) -> Path:
    with fits.open(path) as opened:
        change(opened)
        opened.writeto(target)
    return target


def test_without_exptime_it_is_nan_and_noted(made, tmp_path):
    def change(hdus):
        for hdu in hdus:
            del hdu.header["EXPTIME"]

    said = exposure(changed(made["plain"], tmp_path / "1001000o.fits", change))
    assert math.isnan(said.exptime) and said.notes == ("the header has no EXPTIME",)


def test_a_name_that_contradicts_the_header_is_noted(made, tmp_path):
    path = shutil.copy(made["raw"], tmp_path / "979412o.fits.fz")
    assert exposure(path)[:2] == ("979412o", "o")
    assert exposure(path).notes == ("the file is called 979412o, its EXPNUM is 1001000",)
    assert exposure(shutil.copy(made["raw"], tmp_path / "mine.fits.fz")).fits_id == "1001000o"


def test_a_ccd_can_be_read_again(made):
    one = ccds(made["raw"])[0]
    first, again = one.frame(), one.frame()
    assert first.header.tostring() == again.header.tostring() and one.header["CRPIX1"] != first.header["CRPIX1"]
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_a_ccd_can_be_read_by_another_process(made):
    one = pickle.loads(pickle.dumps(ccds(made["raw"])[2]))
    np.testing.assert_array_equal(one.frame().pixels, list(frames(made["raw"]))[2].pixels)


# --- Real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ccd", "gain"), [("1616687p", 10, 1.645), ("1616690p", 21, 1.55)])
def test_real_cutouts_are_frames(real, name, ccd, gain):
    path = real(f"megacam/ossos_cutout-{name}.fits")
    said, (frame,) = exposure(path), frames(path)
    assert (said.fits_id, frame.ccd, frame.gain, frame.turned) == (name, ccd, gain, False)
    assert said.seeing["WDSEEMED"] > 0.3 and said.filter == "r.MP9601"
    np.testing.assert_array_equal(frame.pixels, fits.getdata(path).astype(np.float32))
    assert frame.notes == ("no overscan in it: the bias level is not subtracted",)
    assert frame.header["CRPIX1"] == fits.getheader(path)["CRPIX1"]


def test_a_real_cutout_of_cadc_is_turned(real):
    path = real("megacam/cadc/query_images.fits")
    (frame,) = frames(path)
    assert frame.ccd == 10 and frame.turned and exposure(path).fits_id == "806045o"
    np.testing.assert_array_equal(frame.pixels, fits.getdata(path)[::-1, ::-1].astype(np.float32))


def test_corrupt_cards_stop_nothing(real):
    path = real("megacam/corrupt_header_871034p00.fits")
    (frame,) = frames(path)
    said = exposure(path)
    assert (said.fits_id, frame.ccd, frame.turned, frame.saturation) == ("871034p", 0, True, 65435)
    assert frame.bad.sum() == 256 and frame.usable


# --- What cannot be used --------------------------------------------------------------------------


def test_a_truncated_file_is_refused_before_its_first_frame(made, tmp_path):
    path = tmp_path / "1001000o.fits.fz"
    content = made["raw"].read_bytes()
    path.write_bytes(content[: int(len(content) * 0.7)])
    with pytest.raises(RecordError, match=r"1001000o\.fits\.fz: truncated: the data of HDU 3 \(ccd21\) end after"):
        next(frames(path))


def test_a_packed_file_that_is_cut_is_refused_where_it_ends(made, tmp_path):
    path = tmp_path / "1001000o.fits.gz"
    content = made["packed"].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    got = []
    with pytest.raises(RecordError, match=r"1001000o\.fits\.gz: "):
        got += [frame.ccd for frame in frames(path)]
    assert got in ([], [12]) or got == [12, 13]


def test_damaged_tiles_name_the_ccd(made, tmp_path):
    path = tmp_path / "1001000o.fits.fz"
    content = bytearray(made["raw"].read_bytes())
    second = ccds(made["raw"])[1].parts[0]
    content[second.start : second.start + 4] = (1).to_bytes(4, "big")
    path.write_bytes(content)
    reading = frames(path)
    assert next(reading).ccd == 12
    with pytest.raises(RecordError, match=r"fits\.fz: ccd13: the image cannot be read: tile 1 ends"):
        next(reading)


def test_no_fits_file_is_one_line(tmp_path):
    path = tmp_path / "1001000o.fits"
    path.write_text("<html>503</html>")
    for read in (exposure, ccds, lambda each: list(frames(each))):
        with pytest.raises(RecordError, match=r"1001000o\.fits: "):
            read(path)
    path = tmp_path / "1001001o.fits.gz"
    path.write_bytes(gzip.compress(b"no FITS"))
    with pytest.raises(RecordError, match=r"1001001o\.fits\.gz: "):
        list(frames(path))


def test_a_ccd_of_zeros_has_no_usable_pixel(made, tmp_path):
    def change(hdus):
        hdus[2].data[:] = 0

    all_frames = list(frames(changed(made["plain"], tmp_path / "1001000o.fits", change)))
    assert [frame.usable for frame in all_frames] == [True, False, True, True]
    assert all_frames[1].notes == ("all pixels are the same: no light",)


def test_35_ccds_and_a_lonely_amplifier_are_used_as_they_are(made, tmp_path):
    def change(hdus):
        del hdus[8]

    path = changed(made["36"], tmp_path / "1001000o.fits", change)
    assert sorted(set(exposure(path).expected) - {ccd.number for ccd in ccds(path)}) == [7]
    assert exposure(path).expected == tuple(range(36))
    path = changed(made["amplifiers"], tmp_path / "1001001o.fits", change)
    assert [frame.ccd for frame in frames(path)] == [12, 13, 21]


def test_a_ccd_twice_is_refused(made, tmp_path):
    def change(hdus):
        hdus[2].header["EXTNAME"] = "ccd12"

    with pytest.raises(RecordError, match="ccd12 is there twice"):
        ccds(changed(made["plain"], tmp_path / "1001000o.fits", change))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
@pytest.mark.parametrize("subtract", [bias.subtraction(), bias.subtract_by_numpy], ids=["numba", "numpy"])
def test_levels_are_subtracted_alike_with_and_without_numba(subtract, dtype, turned):
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 30000, (53, 40)).astype(dtype)
    level, out = rng.normal(1000, 1, 50).astype(np.float32), np.zeros((50, 39), np.float32)
    least, most = subtract(stored, (2, 3), level, np.float32(1.02), out, (1, 38), turned)
    sky = stored[2:52, 3:]
    assert (least, most) == (sky.min(), sky.max())
    frame = out[::-1, ::-1] if turned else out
    np.testing.assert_allclose(frame[:, 1:38], (sky - level[:, None].astype("f8")) * 1.02, rtol=1e-5, atol=2e-3)
    assert not frame[:, [0, 38]].any(), "nothing is written beside it"
