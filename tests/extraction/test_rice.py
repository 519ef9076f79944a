"""Rows in Rice's code against astropy's decoder, whatever the pixels; damaged tiles are named."""

import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.extraction import images
from skyset.extraction.rice import decode


def pixels(kind: str, shape: tuple[int, int], seed: int, dtype) -> np.ndarray:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    made = {
        "noise": rng.normal(1000, 25, shape),
        "flat": np.full(shape, 1200),
        "wild": rng.integers(info.min, info.max, shape, endpoint=True),
        "spikes": np.where(rng.random(shape) < 0.02, info.max, 1100 + rng.integers(0, 2, shape)),
        "steps": np.repeat(rng.integers(0, 30000, (shape[0], -(-shape[1] // 32))), 32, axis=1)[:, : shape[1]],
    }[kind]
    return np.clip(made, info.min, info.max).astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["noise", "flat", "wild", "spikes", "steps"]),
    rows=st.integers(1, 5),
    columns=st.integers(4, 101),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.uint16, np.int16]),
)
def test_pixels_are_those_that_astropy_wrote(tmp_path_factory, kind, rows, columns, seed, dtype):
    wanted = pixels(kind, (rows, columns), seed, dtype)
    path = tmp_path_factory.mktemp("rice") / "one.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(wanted, compression_type="RICE_1")]).writeto(path)
    image = images.contents(path).images[0]
    with fits.open(path, disable_image_compression=True) as opened:
        header = opened[1].header
    assert images._rows_by_rice(header) == (header["TFIELDS"] == 1)
    got = image.pixels()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wanted)


def test_scaled_numbers_are_scaled(tmp_path):
    stored = pixels("noise", (20, 64), 1, np.int16)
    hdu = fits.CompImageHDU(stored, compression_type="RICE_1")
    hdu.header["BZERO"], hdu.header["BSCALE"] = 33651.13, 1.03
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "p.fits.fz")
    got = images.contents(tmp_path / "p.fits.fz").images[0].pixels()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, stored * 1.03 + 33651.13, rtol=2e-7)


def tile() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    file = io.BytesIO()
    wanted = pixels("noise", (6, 200), 2, np.int16)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(wanted, compression_type="RICE_1")]).writeto(file)
    raw = np.frombuffer(file.getvalue(), np.uint8)
    where = raw[5760 : 5760 + 48].view(">i4").reshape(6, 2).astype(np.int64)
    return wanted, raw[5760 + 48 :], where[:, 1], where[:, 0]


def test_a_tile_that_ends_early_is_named():
    wanted, data, starts, lengths = tile()
    np.testing.assert_array_equal(decode(data, starts, lengths, 200), wanted)
    for cut in (0, 1, 2, 40, lengths[3] - 8):
        short = lengths.copy()
        short[3] = cut
        with pytest.raises(ValueError, match="tile 4 ends"):
            decode(data, starts, short, 200)


@pytest.mark.parametrize("start", [-1, 1 << 40])
def test_a_tile_elsewhere_is_named(start):
    _, data, starts, lengths = tile()
    starts = starts.copy()
    starts[1] = start
    with pytest.raises(ValueError, match="tile 2 lies"):
        decode(data, starts, lengths, 200)


@pytest.mark.parametrize("seed", range(5))
def test_damaged_bytes_never_do_more_than_give_other_pixels(seed):
    wanted, data, starts, lengths = tile()
    rng = np.random.default_rng(seed)
    data = data.copy()
    data[rng.integers(0, int((starts + lengths).max()), 30)] = rng.integers(0, 256, 30)
    try:
        assert decode(data, starts, lengths, 200).shape == wanted.shape
    except ValueError as error:
        assert "ends before" in str(error)


def test_an_image_is_refused_in_one_line(tmp_path):
    path = tmp_path / "one.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels("noise", (40, 64), 1, np.int16))]).writeto(path)
    raw = bytearray(path.read_bytes())
    raw[5760:5764] = (3).to_bytes(4, "big")  # the first tile's length
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"one\.fits\.fz\[1\]: the image cannot be read: tile 1 ends before its pixels do"):
        images.contents(path).images[0].pixels()


def test_walking_through_a_packed_file_gives_what_reading_each_image_does(tmp_path):
    planes = [pixels("noise", (30, 40), seed, np.uint16) for seed in range(3)]
    path = tmp_path / "three.fits.gz"
    fits.HDUList([fits.PrimaryHDU(), *map(fits.ImageHDU, planes)]).writeto(path)
    walked = [(image.hdu, image.pixels(file)) for image, file in images.walk(path)]
    assert [hdu for hdu, _ in walked] == [1, 2, 3]
    for plane, (_, got), image in zip(planes, walked, images.contents(path).images, strict=True):
        np.testing.assert_array_equal(got, plane)
        np.testing.assert_array_equal(image.pixels(), plane)
