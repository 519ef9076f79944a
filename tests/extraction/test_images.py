"""Which images of a file are meant by what is typed, and their pixels; broken files of every kind are one line."""

import bz2
import contextlib
import gzip
import io
import lzma
import random
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from skyset.cli import app
from skyset.errors import UserError
from skyset.extraction.command import extract
from skyset.extraction.images import Image, choose, partners
from skyset.extraction.ldac import read_ldac
from skyset.tables.open import open_catalog

SHAPE = (40, 50)


def plane(value: float = 0, dtype: str = "f4") -> np.ndarray:
    return (np.arange(2000).reshape(SHAPE) % 97 + value).astype(dtype)


def wcs(**more) -> fits.Header:
    return fits.Header(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": 150.0,
            "CRVAL2": 2.0,
            "CRPIX1": 25.0,
            "CRPIX2": 20.0,
            "CDELT1": -1e-4,
            "CDELT2": 1e-4,
        }
        | more
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *hdus: tuple[str | None, int | None, np.ndarray], **cards) -> str:
    """A file of images: EXTNAME, EXTVER and pixels of each."""
    made = [fits.PrimaryHDU()]
    for extname, version, pixels in hdus:
        made.append(fits.ImageHDU(pixels))
        if extname is not None:
            made[-1].header["EXTNAME"] = extname
        if version is not None:
            made[-1].header["EXTVER"] = version
        made[-1].header.update(cards)
    fits.HDUList(made).writeto(name)
    return name


def places(chosen) -> list[str]:
    return [image.place for image in chosen.images]


@pytest.fixture
def chips(here) -> str:
    """Two chips as HST has them, each with its error and quality: HDUs 1 to 6."""
    return write("flt.fits", *((name, version, plane(10 * version)) for version in (1, 2) for name in ("SCI", "ERR", "DQ")))


@pytest.mark.parametrize(
    "which, wanted",
    [
        ("", ["[1]", "[4]"]),
        ("[SCI]", ["[1]"]),
        ("[sci,2]", ["[4]"]),
        ("[SCI, 1]", ["[1]"]),
        ("[ERR,2]", ["[5]"]),
        ("[2]", ["[2]"]),
        ("[4,1]", ["[1]", "[4]"]),
        ("[SCI,1,SCI,2]", ["[1]", "[4]"]),
        ("[3,SCI,2]", ["[3]", "[4]"]),
        ("[SCI ]", ["[1]"]),
    ],
)
def test_names_versions_and_numbers(chips, which, wanted):
    assert places(choose(chips + which)) == wanted


def test_a_name_that_stands_twice_is_said(chips):
    [said] = choose("flt.fits[SCI]").notes
    assert said == "flt.fits[SCI]: 2 images are called SCI: the first is taken, HDU 1; the others: [4]"
    assert choose("flt.fits[SCI,2]").notes == []
    write("twice.fits", ("SCI", None, plane()), ("sci ", None, plane(5)))
    [said] = choose("twice.fits[SCI,1]").notes  # EXTVER is 1 by default
    assert "2 images are called SCI,1: the first is taken, HDU 1; the others: [2]" in said
    assert places(choose("twice.fits")) == ["[1]", "[2]"]


@pytest.mark.parametrize(
    "which, said",
    [
        ("[WHT]", "no 2-D image is 'WHT': there are 1 (SCI,1), 2 (ERR,1), 3 (DQ,1), 4 (SCI,2), 5 (ERR,2), 6 (DQ,2)"),
        ("[SCI,3]", "no 2-D image is 'SCI,3': there are 1 (SCI,1)"),
        ("[0]", "no 2-D image is '0'"),
        ("[7]", "no 2-D image is '7'"),
        ("[1,SCI,9]", "'SCI,9'"),
        ("[-1]", "'-1'"),
        ("[,]", "no 2-D image is ''"),
        ("[ ]", "nothing is named"),
        ("[1][0]", "no cube is '1': there is none in it"),
        ("[99999999999]", "no 2-D image is '99999999999'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(chips, which, said):
    with pytest.raises(UserError) as error:
        choose(chips + which)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_called_so_comes_first(chips):
    Path("a[SCI].fits").write_bytes(Path(chips).read_bytes())
    Path("a.fits[2]").write_bytes(Path(chips).read_bytes())
    assert places(choose("a[SCI].fits")) == places(choose("a.fits[2]")) == ["[1]", "[4]"]
    assert places(choose("a[SCI].fits[DQ,2]")) == ["[6]"]


@pytest.mark.parametrize("key", ["EXTNAME", "EXTTYPE"])
@pytest.mark.parametrize(
    "name",
    [
        "MASK",
        "VARIANCE",
        "DQ",
        "WEIGHT",
        "IVAR",
        "ERR",
        "wht",
        "MSK",
        "VAR_POISSON",
        "1-1.RMS",
        "CCD07.FLG",
        "BPM",
        "UNCERT",
    ],
)
def test_images_that_come_along_are_not_measured(here, key, name):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(plane()), fits.ImageHDU(plane())]
    hdus[2].header[key] = name
    fits.HDUList(hdus).writeto("x.fits")
    found = choose("x.fits")
    assert places(found) == ["[1]"] and len(found.every) == 2
    assert found.notes == [
        f"x.fits: {name} (x.fits[2]): passed over, no image of the sky by its name; 'x.fits[2]' measures it"
    ]
    assert places(choose("x.fits[2]")) == places(choose(f"x.fits[{name.lower()}]")) == ["[2]"]


@pytest.mark.parametrize("name", ["SCI", "IMAGE", "ccd07", "N4", "MASKED_FIELD_3", "COMPRESSED_IMAGE", "FLAGSTAFF", "S1"])
def test_images_of_the_sky_are(here, name):
    assert places(choose(write("x.fits", (name, None, plane())))) == ["[1]"] and choose("x.fits").notes == []


def test_a_mask_that_is_alone_is_measured_aloud(here):
    found = choose(write("x.fits", ("MASK", None, plane())))
    assert (
        places(found) == ["[1]"]
        and "MASK (x.fits[1]): no image of the sky, by its name, but measured as one" in found.notes[0]
    )


def test_exposures_of_hsc(real):
    exposure = real("hsc/afw_HSC-0908120-056-small.fits")
    found = choose(exposure)
    assert places(found) == ["[1]"] and "MASK (" in found.notes[0] and "VARIANCE (" in found.notes[0]
    [variance] = choose(f"{exposure}[variance]").images
    assert variance.hdu == 3 and (variance.pixels() > 0).any()
    for path in sorted(real("hsc/das").glob("*.fits")):
        assert places(choose(path)) == ["[1]"] and choose(path).notes == []


# Cubes


@pytest.mark.parametrize("compressed", [False, True])
def test_planes_of_a_cube_by_number_and_by_band(here, compressed):
    cube = np.stack([plane(value, "i2") for value in (0, 100, 200)])
    header = wcs(BANDS="grz", CTYPE3="BAND", CRVAL3=1.0, CDELT3=1.0)
    hdu = fits.CompImageHDU(cube, header) if compressed else fits.ImageHDU(cube, header)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto("cube.fits")
    for which, number in (("[1][0]", 0), ("[1][2]", 2), ("[1][r]", 1), ("[1][z]", 2)):
        [image] = choose("cube.fits" + which).images
        np.testing.assert_array_equal(image.pixels(), plane(100 * number))
        assert image.place == f"[1][{number}]" and image.header["NAXIS"] == 2 and "NAXIS3" not in image.header
        assert image.scale == pytest.approx(0.36, rel=1e-6) and not {"CTYPE3", "CRVAL3"} & set(image.header)
    assert places(choose("cube.fits[1][g,2]")) == ["[1][0]", "[1][2]"]
    with pytest.raises(UserError) as error:
        choose("cube.fits")
    assert str(error.value) == (
        "cube.fits: HDU 1 is a cube of 3 x 40 x 50: no 2-D image; one plane of it is measured by "
        "'cube.fits[1][0]'; there are [1][0] (g), [1][1] (r), [1][2] (z)"
    )
    for which, said in (
        ("[1][3]", "no plane is '3'"),
        ("[1][i]", "no plane is 'i'"),
        ("[0][1]", "no cube is '0'"),
        ("[1][]", "nothing"),
    ):
        with pytest.raises(UserError, match=said):
            choose("cube.fits" + which)


def test_the_cutout_of_the_legacy_surveys_is_measured_by_band(real, here):
    path = real("gz_decals/decals_grz_cutout.fits")
    tables = []
    for which in ("[0][r]", "[0][1]"):
        done = CliRunner().invoke(app, ["extract", f"{path}{which}", "-o", "x.csv", "-DETECT_THRESH", "5"])
        assert done.exit_code == 0
        tables.append(Path("x.csv").read_text())
    assert tables[0] == tables[1] and '"ALPHA_J2000"' in tables[0] and len(tables[0].splitlines()) > 20
    done = CliRunner().invoke(app, ["extract", str(path)])
    assert (
        done.exit_code == 2 and "'decals_grz_cutout.fits[0][0]'; there are [0][0] (g), [0][1] (r), [0][2] (z)" in done.output
    )
    assert done.output.count("\n") == 1


def test_axes_of_length_one_are_no_cube(here):
    fits.PrimaryHDU(plane()[None, None], wcs(CTYPE3="FREQ", CTYPE4="STOKES")).writeto("radio.fits")
    [image] = choose("radio.fits").images
    np.testing.assert_array_equal(image.pixels(), plane())
    assert image.place == "[0]" and image.header["NAXIS"] == 2 and image.scale == pytest.approx(0.36, rel=1e-6)


# Weights and flags


def test_weights_belong_to_images_by_place(chips):
    images = choose(chips)
    for text, wanted in (
        ("flt.fits[ERR,1,ERR,2]", ["[2]", "[5]"]),
        ("flt.fits[2]", ["[2]", "[2]"]),
        (write("two.fits", (None, None, plane()), (None, None, plane())), ["[1]", "[2]"]),
        (write("six.fits", *[(None, None, plane())] * 6), ["[1]", "[4]"]),
    ):
        assert [image.place for image in partners(text, images, "weights")] == wanted
    with pytest.raises(UserError, match="which of its images has the weights"):
        partners("flt.fits", images, "weights")
    with pytest.raises(UserError, match=r"3 images of weights for the 6 of flt\.fits"):
        partners(write("three.fits", *[(None, None, plane())] * 3), images, "weights")
    with pytest.warns(UserWarning, match="2 images are called ERR: the first"):
        assert [image.place for image in partners("flt.fits[ERR]", images, "weights")] == ["[2]", "[2]"]


def stars(*places: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[:100, :100]
    noise = np.random.default_rng(0).normal(0, 1, (100, 100))
    return (noise + sum(500 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for a, b in places)).astype("f4")


@pytest.mark.parametrize("option", ["--weight", "-WEIGHT_IMAGE", ".sex", "--flag", "-FLAG_IMAGE"])
@pytest.mark.parametrize("which", ["[WHT]", "[2]", "[wht,1]", "[3][1]"])
def test_weights_and_flags_of_the_images_own_file(here, option, which):
    """The weights hide the second star, the flags mark it."""
    flag = "flag" in option.lower()
    other = np.ones((100, 100), "i2")
    other[:, 60:] = 4 if flag else 0
    cube = fits.ImageHDU(np.stack([np.ones_like(other), other]), name="WEIGHTS")
    sci = fits.ImageHDU(stars((20, 50), (80, 50)), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), sci, fits.ImageHDU(other, name="WHT"), cube]).writeto("both.fits")
    Path("c.sex").write_text(f"WEIGHT_TYPE MAP_WEIGHT\nWEIGHT_IMAGE both.fits{which}\nFILTER N\n")
    options = {".sex": ["-c", "c.sex"], "-WEIGHT_IMAGE": ["-WEIGHT_TYPE", "MAP_WEIGHT", option, f"both.fits{which}"]}.get(
        option, [option, f"both.fits{which}"]
    )
    columns = "X_IMAGE" + ",IMAFLAGS_ISO" * flag
    done = CliRunner().invoke(
        app, ["extract", "both.fits[SCI]", "--columns", columns, "-DETECT_THRESH", "10", "-o", "x.csv", *options]
    )
    assert done.exit_code == 0, done.output
    rows = [line.split(",") for line in Path("x.csv").read_text().splitlines()[1:]]
    assert [int(float(row[0]) + 0.5) for row in rows] == ([21, 81] if flag else [21])
    if flag:
        assert [int(row[1]) for row in rows] == [1, 4]


# Pixels


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("packed", ["", "gz", "bz2", "xz", "zip"])
def test_pixels_are_astropys(here, dtype, packed):
    fits.PrimaryHDU(plane(dtype=dtype)).writeto("x.fits")
    path = Path("x.fits")
    if packed == "zip":
        with zipfile.ZipFile("x.fits.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write("x.fits")
        path = Path("x.fits.zip")
    elif packed:
        path = Path(f"x.fits.{packed}")
        path.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[packed].compress(Path("x.fits").read_bytes()))
    [image] = choose(path).images
    pixels = image.pixels()
    np.testing.assert_array_equal(pixels, plane(dtype=dtype))
    assert pixels.dtype == np.dtype(dtype) and pixels.dtype.isnative


@pytest.mark.parametrize("bitpix, dtype", [("i2", "f4"), ("i4", "f8"), ("f4", "f4"), ("u1", "f4")])
def test_scales_and_blanks_however_they_are_written(here, bitpix, dtype):
    fits.PrimaryHDU(plane(dtype=bitpix)).writeto("x.fits")
    content = Path("x.fits").read_bytes()
    cards = ["BSCALE  = 2.5D-01", "BZERO   = 1.0d1", *(["BLANK   = 5"] if bitpix != "f4" else []), "END"]
    Path("x.fits").write_bytes(content.replace(b"END".ljust(80 * len(cards)), "".join(c.ljust(80) for c in cards).encode()))
    pixels = choose("x.fits").images[0].pixels()
    wanted = plane() * 0.25 + 10
    if bitpix != "f4":
        wanted[plane() == 5] = np.nan
    np.testing.assert_array_equal(pixels, wanted.astype(dtype))
    assert pixels.dtype == dtype


def test_promises_that_a_file_cannot_keep_take_no_memory(here):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(plane(dtype="i2"))]).writeto("x.fits")
    content = Path("x.fits").read_bytes()
    for key, value, said in (
        ("ZNAXIS1", "1000000", r"pixels cannot come from|tiles|shape|cannot be read"),
        ("ZNAXIS2", "2000000000", "too many"),
        ("ZNAXIS2", "41", "has 40 tiles, its size asks for 41"),
        ("ZTILE1", "0", "ZTILE of the compressed image is none"),
        ("TFIELDS", "1000000000", "TFIELDS is 1000000000: a table has 1 to 999 columns"),
    ):
        start = content.index(f"{key:8s}=".encode())
        Path("y.fits").write_bytes(content[:start] + f"{key:8s}= {value:>20s}".ljust(80).encode() + content[start + 80 :])
        with pytest.raises(UserError, match=said):
            choose("y.fits").images[0].pixels()
    fits.PrimaryHDU(plane()).writeto("z.fits")
    huge = Path("z.fits").read_bytes().replace(b"                   50", b"           2000000000")
    for name, data, said in (
        ("plain", huge, "truncated"),
        ("packed", gzip.compress(huge.replace(b"2000000000", b"      1000")), "truncated"),
    ):
        Path(name).write_bytes(data)
        with pytest.raises(UserError, match=said):
            choose(name).images[0].pixels()


# Catalogues behind images


@pytest.mark.parametrize("ending", [".fits", ".fits.gz"])
def test_a_compressed_image_is_no_catalogue(here, ending):
    table = fits.BinTableHDU.from_columns(
        [fits.Column("ra", "D", array=[10.0, 11.0]), fits.Column("dec", "D", array=[1.0, 2.0])]
    )
    image = fits.CompImageHDU(plane(dtype="i2"), name="MASK")
    fits.HDUList([fits.PrimaryHDU(), image, table]).writeto(f"both{ending}")
    assert open_catalog(f"both{ending}").table().to_pydict() == {"ra": [10, 11], "dec": [1, 2]}
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(f"none{ending}")
    with pytest.raises(UserError, match="has no binary table"):
        open_catalog(f"none{ending}")


def test_the_catalogue_of_an_ldac_is_its_sources(here):
    fits.PrimaryHDU(stars((20, 50), (80, 50)), fits.Header({"OBJECT": "x"})).writeto("x.fits")
    extract(Path("x.fits"), output="y.fits", format="ldac", columns="X_IMAGE,VIGNET(3,3)", overrides=["DETECT_THRESH=10"])
    found = open_catalog("y.fits").table()
    assert found.column_names == ["X_IMAGE", "VIGNET"] and found["X_IMAGE"].to_pylist() == pytest.approx([21, 81], abs=0.1)


# Anything at all


VALUES = [
    "NaN",
    "inf",
    "-1",
    "0",
    "3",
    "64",
    "1000000000",
    "9" * 19,
    "T",
    "F",
    "'x'",
    "'",
    "",
    "1,5",
    "1E999",
    "-32",
    "16",
    "1D+300",
]
KEYS = [
    "SIMPLE",
    "BITPIX",
    "NAXIS",
    "NAXIS1",
    "NAXIS2",
    "BSCALE",
    "BZERO",
    "BLANK",
    "PCOUNT",
    "GCOUNT",
    "XTENSION",
    "TFORM1",
    "TFIELDS",
    "ZIMAGE",
    "ZBITPIX",
    "ZNAXIS",
    "ZNAXIS1",
    "ZTILE1",
    "ZTILE2",
    "ZCMPTYPE",
    "ZVAL1",
    "ZVAL2",
    "CTYPE1",
    "CRVAL1",
    "CDELT1",
    "GAIN",
    "SATURATE",
    "EXTNAME",
    "EXTVER",
    "TTYPE1",
    "END",
]


def spoilt(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        how = rng.random()
        if how < 0.5:
            key = rng.choice(KEYS)
            places = [at for at in range(0, len(data), 80) if data[at : at + 8] == f"{key:8s}".encode()] or [
                80 * rng.randrange(30)
            ]
            at = rng.choice(places)
            data[at : at + 80] = f"{key:8s}= {rng.choice(VALUES)}".ljust(80).encode()
        elif how < 0.8:
            for _ in range(rng.choice([1, 10, 200])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif how < 0.9:
            del data[rng.randrange(1, len(data)) :]
        else:
            at = rng.randrange(len(data))
            data[at:at] = bytes(rng.choice([0, 32, 255]) for _ in range(rng.randrange(100)))
    return bytes(data)


@pytest.fixture(scope="module")
def sound() -> dict[str, bytes]:
    def content(*hdus: fits.ImageHDU) -> bytes:
        file = io.BytesIO()
        fits.HDUList(list(hdus)).writeto(file)
        return file.getvalue()

    image, header = stars((20, 30), (40, 10))[:48, :64], wcs(GAIN=1.5, SATURATE=6e4)
    made = {
        "plain": content(fits.PrimaryHDU(image, header)),
        "ints": content(fits.PrimaryHDU(image.astype("i2"), header)),
        "several": content(fits.PrimaryHDU(), *(fits.ImageHDU(image, header, name=name) for name in ("SCI", "WHT"))),
    }
    for how in ("RICE_1", "GZIP_1", "HCOMPRESS_1", "PLIO_1"):
        made[how] = content(fits.PrimaryHDU(), fits.CompImageHDU(np.abs(image).astype("i4"), header, compression_type=how))
    return made | {"packed": gzip.compress(made["plain"])}


@pytest.mark.parametrize("seed", range(4))
def test_files_of_any_kind_are_read_or_refused_in_one_line(here, sound, seed):
    """The measuring itself is left to the longer runs: 60 files a seed, images, weights and catalogues."""
    rng = random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_bytes("x.fits", sound["plain"])
        extract(Path("x.fits"), output="x.ldac", columns="X_IMAGE,VIGNET(3,3)")
        ldac = Path("x.ldac").read_bytes()
        for count in range(60):
            write_bytes("y.fits", spoilt(ldac if count % 4 == 0 else sound[rng.choice(list(sound))], rng))
            for look in (read_ldac, catalogue) if count % 4 == 0 else (pixels, weights):
                with contextlib.suppress(UserError):
                    look("y.fits")


def write_bytes(name: str, content: bytes) -> int:
    return Path(name).write_bytes(content)


def catalogue(name: str) -> None:
    open_catalog(name).table()


def pixels(name: str) -> None:
    for image in choose(name).images:
        assert isinstance(image, Image) and image.pixels().shape == image.shape[-2:] and image.scale >= 0


def weights(name: str) -> None:
    partners(name, choose("x.fits"), "weights")


def test_a_broken_file_is_one_line_and_status_2(here, sound):
    rng = random.Random(1)
    for _ in range(12):
        write_bytes("y.fits", spoilt(sound["several"], rng))
        done = CliRunner().invoke(app, ["extract", "y.fits", "--columns", "X_IMAGE", "-o", "x.csv", "--processes", "1"])
        lines = done.output.splitlines()
        assert done.exit_code == 0 or (done.exit_code == 2 and lines[-1].startswith("skyset: ")), done.output
        assert all(line.startswith("skyset: warning: ") for line in lines[:-1])


@pytest.mark.parametrize("how", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
def test_every_codec_gives_the_pixels(here, how):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(plane(dtype="i2"), compression_type=how)]).writeto("x.fits")
    np.testing.assert_array_equal(choose("x.fits").images[0].pixels(), plane())


@pytest.mark.parametrize(
    "code, said", [("import os; os.abort()", "damaged tiles$"), ("1 / 0", "damaged tiles: ZeroDivisionError")]
)
def test_a_decoder_that_dies_takes_nothing_with_it(here, monkeypatch, code, said):
    """As astropy's of HCOMPRESS_1 does, which writes beyond its buffers where the tiles are damaged."""
    monkeypatch.setattr("skyset.extraction.images._APART", code)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(plane(dtype="i2"), compression_type="HCOMPRESS_1")]).writeto("x.fits")
    with pytest.raises(UserError, match=said):
        choose("x.fits").images[0].pixels()


@pytest.mark.parametrize("card", ["TFIELDS = 'x'", "TFIELDS = 4000000000", "NAXIS   = 2.0", "ODDNAXIS"])
def test_check_images_of_odd_headers(here, card):
    fits.PrimaryHDU(stars((20, 50)), wcs(ODD=1)).writeto("x.fits")
    content = Path("x.fits").read_bytes()
    at = content.index(b"NAXIS   " if card.startswith("NAXIS") else b"ODD     ")
    Path("x.fits").write_bytes(content[:at] + card.replace("ODDNAXIS", "NAXIS   =").ljust(80).encode() + content[at + 80 :])
    extract(Path("x.fits"), output="x.csv", columns="X_IMAGE", check="SEGMENTATION=s.fits", processes=1)
    assert fits.getdata("s.fits").shape == (100, 100) and fits.getheader("s.fits")["CRVAL1"] == 150
