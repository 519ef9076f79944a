"""The same file has the same pixels, whether a build stores them or they are looked at when they are loaded."""

import io
import itertools
import zlib

import numpy as np
import PIL.Image
import pytest
from datasets import load_dataset
from numpy.testing import assert_array_equal
from PIL import ImageOps

import skyset
from skyset.archives.hips import MIRROR, hips2fits_url
from skyset.builder import SurveyBuilder
from skyset.building.imagefiles import Place, pixels_of, read_image
from skyset.errors import PartitionError, RecordError, UserError
from skyset.explore.description import as_bands
from skyset.figures import image_figure
from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.writer import PartitionWriter
from skyset.pixels import MAX_PIXELS, ImageError, check_image, decode, decoded_image, rgb
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Feature, Survey

COLUMNS = (
    Column("object_id", "S40"),
    Column("ra", "float64", (), "deg"),
    Column("dec", "float64", (), "deg"),
    HEALPIX,
    Column("image", "bytes", typical_bytes=2000),
)
SURVEY = Survey(
    name="every_mode",
    title="",
    homepage="",
    citation="",
    license="",
    base_url="",
    columns=COLUMNS,
    features=(Feature("object_id", "object_id"), Feature("image", "image", encoded=True)),
)


class EveryMode(SurveyBuilder):
    """An image of each mode."""

    SURVEY = SURVEY


skyset.register("every_mode", __name__)

WIDTH, HEIGHT = 24, 16
COLOUR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
ALPHA = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
DEEP = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 170
PICTURE, DEEP_PICTURE = PIL.Image.fromarray(COLOUR), PIL.Image.fromarray(DEEP)
#: A picture, how it is saved, and the options with which it is.
PICTURES = {
    "1": (PICTURE.convert("1"), "PNG", {}),
    "L": (PICTURE.convert("L"), "PNG", {}),
    "L with a transparent level": (PICTURE.convert("L"), "PNG", {"transparency": 100}),
    "LA": (PIL.Image.merge("LA", [PICTURE.convert("L"), PIL.Image.fromarray(ALPHA)]), "PNG", {}),
    "P": (PICTURE.quantize(16), "PNG", {}),
    "P with a transparent entry": (PICTURE.quantize(16), "PNG", {"transparency": 3}),
    "P with half transparent entries": (PICTURE.quantize(16), "PNG", {"transparency": bytes(range(0, 250, 25))}),
    "RGB": (PICTURE, "PNG", {}),
    "RGB with a transparent colour": (PICTURE, "PNG", {"transparency": tuple(COLOUR[3, 4].tolist())}),
    "RGBA": (PIL.Image.fromarray(np.dstack([COLOUR, ALPHA])), "PNG", {}),
    "I;16": (DEEP_PICTURE, "PNG", {}),
    "I;16 with a transparent level": (DEEP_PICTURE, "PNG", {"transparency": 170 * 300}),
    "1 as JPEG": (PICTURE.convert("1"), "JPEG", {}),
    "L as JPEG": (PICTURE.convert("L"), "JPEG", {}),
    "RGB as JPEG": (PICTURE, "JPEG", {}),
    "YCbCr as JPEG": (PICTURE.convert("YCbCr"), "JPEG", {}),
    "CMYK as JPEG": (PICTURE.convert("CMYK"), "JPEG", {}),
}
CASES = {f"{name}, {turn}": (name, turn) for name, turn in itertools.product(PICTURES, range(1, 9))}


def saved(name: str, orientation: int) -> bytes:
    picture, format, options = PICTURES[name]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, format, exif=exif, **options)
    return file.getvalue()


def expected(data: bytes) -> np.ndarray:
    """Pillow's own image, upright, float (H, W, 3): alpha over black, and the upper 8 of 16 bits."""
    image = ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    if image.mode in ("I", "I;16"):
        levels = np.asarray(image).astype(float)
        clear = image.info.get("transparency", -1)
        return np.repeat(np.where(levels == clear, 0, levels // 256)[..., None], 3, -1)
    bands = np.asarray(image.convert("RGBA"), float)
    return bands[..., :3] * (bands[..., 3:] / 255)


@pytest.fixture(scope="module")
def files():
    return {case: saved(*CASES[case]) for case in CASES}


@pytest.fixture(scope="module")
def loaded(files, tmp_path_factory):
    """The images as the loader hands them out, by case."""
    root, cell = tmp_path_factory.mktemp("every_mode"), int(healpix_cell(10.0, 5.0))
    path = partition_path(cell)
    with PartitionWriter(root / path, COLUMNS, len(files)) as writer:
        for case, data in files.items():
            writer.append(SURVEY.record({"object_id": case, "ra": 10.0, "dec": 5.0, "healpix": cell, "image": data}))
    entry = describe_file(root, path, SURVEY, "train")
    Manifest(SURVEY.name, list(COLUMNS), SURVEY.key, [entry]).save(root)
    rows = load_dataset("every_mode", data_dir=str(root), split="train", streaming=True).with_format("numpy")
    return {str(row["object_id"]): row["image"] for row in rows}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.filterwarnings("error")
def test_a_build_stores_the_pixels_that_the_loader_shows(files, loaded, tmp_path, name):
    for turn in range(1, 9):
        case = f"{name}, {turn}"
        (tmp_path / "image.png").write_bytes(files[case])
        stored = pixels_of(*read_image(Place(tmp_path / "image.png")))
        assert (stored.dtype, stored.shape) == (np.uint8, (HEIGHT, WIDTH, 3) if turn < 5 else (WIDTH, HEIGHT, 3))
        assert_array_equal(loaded[case], stored)
        assert np.abs(stored - expected(files[case])).max() <= 1
        upright = rgb(decoded_image(files[case]))
        assert_array_equal(upright, stored)
        assert_array_equal(as_bands(decoded_image(files[case])), stored)


def test_an_image_keeps_its_mode_as_in_datasets(files):
    for case in ("RGBA, 6", "P with a transparent entry, 3", "I;16, 8", "CMYK as JPEG, 5"):
        image = decoded_image(files[case])
        alone = ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(files[case])))
        assert (image.mode, image.size, image.tobytes()) == (alone.mode, alone.size, alone.tobytes())


def test_images_of_32_bits_are_those_of_16():
    """Older Pillow has 16-bit PNGs in mode I."""
    assert_array_equal(rgb(DEEP_PICTURE.convert("I")), rgb(DEEP_PICTURE))
    assert_array_equal(rgb(PIL.Image.fromarray(np.array([[-5, 255, 256, 70_000]], np.int32)))[0, :, 0], [0, 0, 1, 255])


def test_the_size_that_is_checked_is_the_upright_one(files):
    check_image(files["RGB as JPEG, 1"], "jpg", WIDTH, HEIGHT)
    check_image(files["RGB as JPEG, 6"], "jpg", HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=f"{HEIGHT} x {WIDTH} pixels, not {WIDTH} x {HEIGHT}"):
        check_image(files["RGB as JPEG, 6"], "jpg", WIDTH, HEIGHT)


def test_pictures_are_drawn_over_black(files):
    image = decoded_image(files["RGBA, 1"])
    assert_array_equal(image_figure(image).axes[0].images[0].get_array(), rgb(image))


def claims(width: int, height: int) -> bytes:
    """A PNG that says it is of this size."""
    data = bytearray(saved("RGB", 1))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [MAX_PIXELS // 5000 + 1, 20_000, 40_000])
def test_one_limit_on_pixels(tmp_path, side):
    data = claims(side, 5000)
    (tmp_path / "image.png").write_bytes(data)
    for read in (decoded_image, lambda data: decode(data, "png"), lambda data: check_image(data, "png", side, 5000)):
        with pytest.raises(ImageError, match="more than 50,000,000 pixels") as caught:
            read(data)
        assert not caught.value.passing
    with pytest.raises(RecordError, match="more than 50,000,000 pixels"):
        pixels_of(*read_image(Place(tmp_path / "image.png")))
    with pytest.raises(UserError, match=f"an image of {side} x 5000 pixels"):
        hips2fits_url(base=MIRROR, hips="CDS/P/SDSS9/color", ra=1, dec=2, fov=0.01, width=side, height=5000)
    with pytest.raises(PartitionError, match=r"x\.hdf5: column image, row 7: an image of more than 50,000,000 pixels"):
        skyset.loading.encoded.ImageRows(np.frombuffer(data, np.uint8), np.array([0, len(data)]), [(1, "x.hdf5", 7)])[0]


def test_an_image_within_the_limit_that_is_cut_short_is_damaged():
    with pytest.raises(ImageError, match="damaged PNG"):
        decoded_image(claims(MAX_PIXELS // 5000, 5000))
