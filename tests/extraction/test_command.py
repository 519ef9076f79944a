"""``skyset extract``: catalogues in every format, check images, configurations, and what is said when something is wrong."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from PIL import Image
from pyarrow import csv, parquet
from typer.testing import CliRunner

from skyset.cli import app
from skyset.extraction.command import extract
from skyset.extraction.ldac import read_ldac

#: Where the sources of the tests' image are, x and y of FITS, and their total counts.
X, Y = np.array([[40.3, 200.8, 120.5, 60.2, 170.7, 220.4, 30.6], [30.2, 41.7, 90.5, 140.9, 150.3, 20.1, 80.8]])
FLUX = np.array([9e3, 2e4, 4e4, 8e3, 1.2e4, 3e4, 6e3])


def skyset(*arguments) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    result = CliRunner().invoke(app, ["extract", *(str(argument) for argument in arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def draw(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Round Gaussians of 2 pixels on a sky of 500 with noise 5; float32 (180, 260)."""
    y, x = np.mgrid[1:181, 1:261]
    image = np.random.default_rng(seed).normal(500, 5, x.shape)
    for one, other, flux in zip(X, Y, FLUX * scale, strict=True):
        image += flux / (8 * np.pi) * np.exp(-((x - one) ** 2 + (y - other) ** 2) / 8)
    return image.astype(np.float32)


def header(**more) -> fits.Header:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150, 2], [130, 90], [-5e-5, 5e-5]
    return wcs.to_header() + fits.Header(more)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """A single image in the current folder."""
    monkeypatch.chdir(tmp_path)
    fits.PrimaryHDU(draw(), header(GAIN=1.5, OBJECT="test field")).writeto("field.fits")
    return "field.fits"


@pytest.fixture
def mosaic(tmp_path, monkeypatch):
    """Two CCDs with gains of their own, and a table between them."""
    monkeypatch.chdir(tmp_path)
    one, other = (fits.ImageHDU(draw(seed), header(GAIN=gain), name=f"ccd{seed}") for seed, gain in ((0, 1.5), (1, 1.7)))
    fits.HDUList([fits.PrimaryHDU(), one, fits.BinTableHDU(Table({"a": [1]})), other]).writeto("mosaic.fits")
    return "mosaic.fits"


def found(x, y) -> np.ndarray:
    """Which source each position is; -1 for none within half a pixel."""
    distance = np.hypot(np.asarray(x)[:, None] - X, np.asarray(y)[:, None] - Y)
    return np.where(distance.min(1) < 0.5, distance.argmin(1), -1)


def test_help_teaches():
    status, text = skyset("--help")
    assert status == 0
    for word in (
        "-c",
        "--check",
        "segmentation.fits",
        "-DETECT_THRESH 3",
        "--plot",
        "Examples",
        "--skip_unknown",
        "KEYWORD=VALUE",
    ):
        assert word in text


def test_an_image_needs_nothing_else(image, tmp_path):
    status, text = skyset(image)
    assert status == 0
    said, warned = sorted(text.splitlines())
    assert re.fullmatch(r"7 sources, \d+\.\d s, engine compiled \(skyset \S+\): wrote field\.ldac", said)
    assert warned.startswith("skyset: warning: CLASS_STAR cannot be relied on: no seeing is given") and "scale" not in warned
    [extension] = read_ldac("field.ldac")
    table = extension.table
    assert sorted(found(table["X_IMAGE"].value, table["Y_IMAGE"].value)) == list(range(7))
    sky = WCS(header()).all_pix2world(table["X_IMAGE"].value, table["Y_IMAGE"].value, 1)
    np.testing.assert_allclose([table["ALPHA_J2000"].value, table["DELTA_J2000"].value], sky, atol=1e-6)
    np.testing.assert_allclose(
        table["FLUX_AUTO"].value, FLUX[found(table["X_IMAGE"].value, table["Y_IMAGE"].value)], rtol=0.12
    )
    said = extension.header
    assert said["OBJECT"] == "test field" and said["FITSFILE"] == "field.fits" and said["NAXIS1"] == 260
    assert said["SEXGAIN"] == 1.5 and said["SEXNFIN"] == 7 and said["SEXPXSCL"] == pytest.approx(0.18)
    assert said["SEXBKGND"] == pytest.approx(500, abs=1) and said["SEXBKDEV"] == pytest.approx(5, abs=0.5)
    assert said["SEXTHLD"] == pytest.approx(1.5 * said["SEXBKDEV"], rel=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["field.fits", "field.ldac"]


def read(path: str) -> dict[str, np.ndarray]:
    """A catalogue by whoever reads that kind of file, as plain columns."""
    if path.endswith(".ldac"):
        table = read_ldac(path)[0].table
    elif path.endswith((".parquet", ".csv", ".csv.gz")):
        table = parquet.read_table(path) if path.endswith(".parquet") else csv.read_csv(path)
        return {name: np.array(table[name].to_pylist()) for name in table.column_names}
    elif path.endswith(".cat"):
        table = Table.read(path, format="ascii.sextractor")
    else:
        table = QTable.read(path)
    return {name: np.asarray(getattr(table[name], "value", table[name])) for name in table.colnames}


@pytest.mark.parametrize("name", ["x.ldac", "x.fits", "x.parquet", "x.csv", "x.csv.gz", "x.vot", "x.cat"])
def test_every_format_has_the_same_numbers(image, name):
    columns = "NUMBER,X_IMAGE,FLUX_APER(2),MAG_AUTO,FLAGS"
    options = ["--columns", columns, "-PHOT_APERTURES", "4,8"]
    status, text = skyset(image, "-o", name, *options, *(["--format", "ascii_head"] if name == "x.cat" else []))
    assert status == 0 and f"wrote {name}" in text
    skyset(image, "-o", "reference.ldac", *options)
    wanted, table = read("reference.ldac"), read(name)
    if name.endswith((".csv", ".gz", ".cat")):
        second = "FLUX_APER_1" if name.endswith("cat") else "FLUX_APER_2"
        first = "FLUX_APER" if name.endswith("cat") else "FLUX_APER_1"
        table["FLUX_APER"] = np.column_stack([table.pop(first), table.pop(second)])
    assert set(table) == set(wanted)
    for column, values in wanted.items():
        np.testing.assert_allclose(table[column], values, rtol=1e-5)


def test_units_and_meanings_go_along(image):
    skyset(image, "-o", "x.parquet")
    schema = parquet.read_schema("x.parquet")
    assert schema.field("FLUX_AUTO").metadata == {b"unit": b"ct", b"description": b"flux in the Kron ellipse"}
    assert str(schema.field("X_IMAGE").type) == "float" and str(schema.field("FLAGS").type) == "int16"
    skyset(image, "-o", "x.fits")
    assert QTable.read("x.fits")["MU_MAX"].unit.to_string() == "mag / arcsec2"


def test_vignettes_are_images_of_rows_and_columns(image):
    skyset(image, "-o", "x.ldac", "--columns", "X_IMAGE,Y_IMAGE,VIGNET(7,5)")
    table = read_ldac("x.ldac")[0].table
    assert table["VIGNET"].shape == (7, 5, 7)
    pixels, vignet = fits.getdata(image), table["VIGNET"].value
    for row, (x, y) in enumerate(zip(table["X_IMAGE"].value, table["Y_IMAGE"].value, strict=True)):
        column, line = round(float(x)) - 1, round(float(y)) - 1
        np.testing.assert_allclose(vignet[row] + 500, pixels[line - 2 : line + 3, column - 3 : column + 4], atol=2)
    skyset(image, "-o", "x.parquet", "--columns", "X_IMAGE,VIGNET(7,5)")
    np.testing.assert_array_equal(np.array(parquet.read_table("x.parquet")["VIGNET"].to_pylist(), "f4"), vignet)
    status, text = skyset(image, "-o", "x.csv", "--columns", "X_IMAGE,VIGNET(7,5)")
    assert (status, "VIGNET: a row has 5 x 7 numbers, too many for csv" in text) == (2, True)


def test_a_mosaic_has_an_extension_for_each_image(mosaic):
    status, text = skyset(
        mosaic, "-o", "x.ldac", "--check", "segmentation.fits,ccd_background.fits,rms.fits", "--processes", 2
    )
    assert status == 0 and re.search(
        r"14 sources in 2 extensions, .* wrote x.ldac, segmentation.fits, ccd_background.fits", text
    )
    one, other = read_ldac("x.ldac")
    assert [extension.header["SEXGAIN"] for extension in (one, other)] == [1.5, 1.7]
    assert [extension.header["EXTNAME"] for extension in (one, other)] == ["CCD0", "CCD1"]
    assert [extension.header["FITSEXT"] for extension in (one, other)] == [1, 2]
    with (
        fits.open("segmentation.fits") as segments,
        fits.open("ccd_background.fits") as background,
        fits.open("rms.fits") as rms,
    ):
        assert [hdu.name for hdu in segments] == ["PRIMARY", "CCD0", "CCD1"]
        for number, extension in enumerate((one, other), 1):
            table = extension.table
            labels = segments[number].data[
                np.round(table["Y_IMAGE"].value).astype(int) - 1, np.round(table["X_IMAGE"].value).astype(int) - 1
            ]
            np.testing.assert_array_equal(labels, table["NUMBER"])
            assert segments[number].data.dtype == ">i4" and background[number].data.dtype == ">f4"
            assert np.median(background[number].data) == pytest.approx(500, abs=1.5)
            assert np.median(rms[number].data) == pytest.approx(5, abs=0.5)
            assert WCS(background[number].header).wcs.crval.tolist() == [150, 2]


def test_a_table_of_a_mosaic_says_which_extension(mosaic):
    status, _ = skyset(mosaic, "-o", "x.parquet", "--columns", "X_IMAGE,Y_IMAGE", "--processes", 1)
    table = read("x.parquet")
    assert status == 0 and list(table) == ["EXT_NUMBER", "X_IMAGE", "Y_IMAGE"]
    assert table["EXT_NUMBER"].tolist() == [1] * 7 + [2] * 7


@pytest.mark.parametrize(
    "which, names",
    [
        ("[3]", ["CCD1"]),
        ("[ccd0]", ["CCD0"]),
        ("[CCD1, 1]", ["CCD1"]),
        ("[1, CCD1]", ["CCD0", "CCD1"]),
        ("[ccd1,ccd0]", ["CCD0", "CCD1"]),
        ("[1,3]", ["CCD0", "CCD1"]),
    ],
)
def test_images_of_a_mosaic_are_chosen_by_number_or_name(mosaic, which, names):
    assert skyset(mosaic + which, "-o", "x.ldac", "--processes", 1)[0] == 0
    assert [extension.header["EXTNAME"] for extension in read_ldac("x.ldac")] == names


def test_a_chosen_image_keeps_its_number_its_weights_and_its_picture(mosaic):
    """The second image's weights leave the sources at the right out, the first's those at the left."""
    weights = np.ones((2, 180, 260), "f4")
    weights[0, :, :100], weights[1, :, 150:] = 0, 0
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(one) for one in weights)]).writeto("weight.fits")
    options = {"columns": "EXT_NUMBER,X_IMAGE,Y_IMAGE", "weight": Path("weight.fits"), "processes": 1, "draw": True}
    made = extract(f"{mosaic}[3]", output="x.ldac", **options)
    [extension] = read_ldac("x.ldac")
    assert [extension.header[name] for name in ("EXTNAME", "FITSEXT", "FITSNEXT")] == ["CCD1", 2, 2]
    assert set(extension.table["EXT_NUMBER"].tolist()) == {2}
    assert set(found(extension.table["X_IMAGE"].value, extension.table["Y_IMAGE"].value)) == {0, 2, 3, 6}
    [axis] = made.figure().axes
    np.testing.assert_array_equal(axis.images[0].get_array(), fits.getdata(mosaic, 3))


@pytest.mark.parametrize("processes", (1, 2))
def test_what_is_said_of_an_image_is_one_line_with_its_name(mosaic, capfd, processes):
    with fits.open(mosaic, mode="update") as file:
        file[1].header["GAIN"], file[3].data[:] = "high", 7
    status, text = skyset(mosaic, "-o", "x.ldac", "--columns", "X_IMAGE", "--processes", processes, "-GAIN", "2")
    assert (status, capfd.readouterr().err) == (0, "")
    warned = [line for line in text.splitlines() if line.startswith("skyset: warning: ")]
    assert len(warned) == 2 == text.count("\n") - 1
    assert warned[0] == "skyset: warning: mosaic.fits[1]: the header's GAIN is 'high', no number: 2 is used"
    assert re.fullmatch(r"skyset: warning: mosaic\.fits\[3\]: .* no noise .*: no sources", warned[1])


def test_an_interruption_is_said_to_start_anew(image, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    assert skyset(image, "-o", "x.ldac")[0] == 0
    before = Path("x.ldac").read_bytes()
    monkeypatch.setattr("skyset.extraction.mosaic.measure", stop)
    status, text = skyset(image, "-o", "x.ldac", "--processes", 1)
    assert (status, text.count("\n"), "the same command starts anew" in text, "goes on" in text) == (130, 1, True, False)
    assert Path("x.ldac").read_bytes() == before and sorted(path.name for path in Path().iterdir()) == [image, "x.ldac"]


def test_a_mask_beside_the_image_is_spoken_of(image):
    images = [fits.ImageHDU(draw(), header(), "IMAGE"), fits.ImageHDU(np.zeros((180, 260), "i4"), name="MASK")]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto("exposure.fits")
    status, text = skyset("exposure.fits", "-o", "x.ldac", "--processes", 1)
    said = "MASK (exposure.fits[2]): passed over, no image of the sky by its name; 'exposure.fits[2]' measures it"
    assert status == 0 and f"skyset: warning: exposure.fits: {said}\n" in text and "\n7 sources, " in text
    assert skyset("exposure.fits[IMAGE]", "-o", "x.ldac")[1].startswith("7 sources,")
    status, text = skyset("exposure.fits[2]", "-o", "x.ldac")
    assert status == 0 and "no noise" in text and "0 sources, " in text


@pytest.mark.parametrize("how", ["compressed", "uint16", "int16 big gzip"])
def test_images_as_they_are_stored(image, how):
    pixels = np.round(fits.getdata(image))
    if how == "compressed":
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels.astype("i2"), header())]).writeto("y.fits")
    elif how == "uint16":
        fits.PrimaryHDU(pixels.astype("u2"), header()).writeto("y.fits")
    else:
        fits.PrimaryHDU(pixels.astype("i2"), header()).writeto("y.fits.gz")
    status, text = skyset("y.fits.gz" if "gzip" in how else "y.fits", "--check", "back.fits")
    assert status == 0 and text.startswith("7 sources,") and "wrote y.ldac, back.fits" in text
    assert np.median(fits.getdata("back.fits")) == pytest.approx(500, abs=1.5)
    assert not {"BZERO", "ZIMAGE", "ZBITPIX"} & set(fits.getheader("back.fits"))


def test_keywords_are_typed_as_sextractors_users_type_them(image):
    few, text = skyset(image, "-DETECT_THRESH", "60", "-o", "a.parquet", "-BACK_VALUE", "-3.5")
    assert few == 0 and re.match(r"[2-5] sources", text)
    same, again = skyset(image, "--set", "DETECT_THRESH=60", "-o", "b.parquet")
    assert same == 0 and read("a.parquet")["X_IMAGE"].tolist() == read("b.parquet")["X_IMAGE"].tolist()
    assert text.partition(",")[0] == again.partition(",")[0]


def test_a_real_configuration_gives_the_catalogue_that_sextractor_gave(real, tmp_path, monkeypatch):
    """sep_image.cat is SExtractor's; every one of its sources without flags is found where it was."""
    monkeypatch.chdir(tmp_path)
    folder = real("extraction")
    status, text = skyset(folder / "sep_image.fits", "-c", folder / "sep_default.sex", "-p", folder / "sep_default.param")
    assert status == 0 and "wrote test.cat, back.fits, rms.fits" in text
    ours, theirs = (
        Table.read("test.cat", format="ascii.sextractor"),
        Table.read(folder / "sep_image.cat", format="ascii.sextractor"),
    )
    assert ours.colnames == theirs.colnames
    theirs = theirs[(theirs["FLAGS"] == 0) & (theirs["FLUX_AUTO"] > 0)]
    distance = np.hypot(ours["X_IMAGE"][:, None] - theirs["X_IMAGE"], ours["Y_IMAGE"][:, None] - theirs["Y_IMAGE"])
    assert (distance.min(0) < 0.05).all()
    ours = ours[distance.argmin(0)]
    np.testing.assert_allclose(np.median(ours["FLUX_AUTO"] / theirs["FLUX_AUTO"]), 1, atol=1e-3)
    for name in ("FLUX_RADIUS", "FLUX_RADIUS_1", "FLUX_RADIUS_2"):
        np.testing.assert_allclose(np.median(ours[name] / theirs[name]), 1, atol=5e-3)


def test_the_configuration_of_cfis_with_its_weights_and_flags(image, real):
    folder = real("megacam")
    config = ("-c", folder / "shapepipe_cfis_default_exp.sex", "-p", folder / "shapepipe_cfis_default.param", "-o", "x.ldac")
    status, text = skyset(image, *config)
    assert (status, "weight.fits: no such file; --weight FILE gives another one" in text) == (2, True)
    weight, flags = np.ones((180, 260), "f4"), np.zeros((180, 260), "i2")
    weight[:, 215:226], flags[:, :60] = 0, 4
    fits.PrimaryHDU(weight).writeto("weight.fits")
    fits.PrimaryHDU(flags).writeto("my_flags.fits")
    status, text = skyset(image, *config, "--flag", "my_flags.fits")
    assert status == 0 and "INTERP_TYPE ALL: pixels without weight are left out" in text
    table = read_ldac("x.ldac")[0].table
    which = found(table["X_IMAGE"].value, table["Y_IMAGE"].value)
    assert {0, 1, 2, 3, 4, 6} <= set(which)
    flagged = dict(zip(which.tolist(), table["IMAFLAGS_ISO"].tolist(), strict=True))
    assert {name: flagged[name] for name in (0, 6, 2, 4)} == {0: 4, 6: 4, 2: 0, 4: 0}
    assert table["VIGNET"].shape[1:] == (51, 51)


def test_the_published_configuration_of_galaxiesml_runs_and_says_what_is_odd(image):
    text = "NUMBER 1\nDETECT_THRESH 1.5\nSERSIC_FIT Y\nPIXEL_SCALE 0.17\nDETECT_THRESH 3\nCHECKIMAGE_TYPE SEGMENTATION\n"
    Path("g.sex").write_text(text)
    status, text = skyset(image, "-c", "g.sex", "-o", "x.csv", "-FILTER", "N")
    assert status == 0
    for said in (
        "DETECT_THRESH stands twice: 3 counts",
        "NUMBER is passed over",
        "SERSIC_FIT is passed over",
        "PIXEL_SCALE 0.17 counts, but the WCS of field.fits says 0.18 arcsec",
    ):
        assert (
            text.count(f"skyset: warning: {said}") + len(re.findall(rf"skyset: warning: g.sex, .*{re.escape(said)}", text))
            == 1
        )
    assert fits.getdata("check.fits").max() == 7


def test_a_header_beside_the_image_is_spoken_of(image):
    Path("field.head").touch()
    assert "field.head: HEADER_SUFFIX .head: it is not read" in skyset(image)[1]


def test_files_that_no_column_needs_are_spoken_of(image):
    for name in ("flags.fits", "weight.fits"):
        fits.PrimaryHDU(np.ones((180, 260), "i2")).writeto(name)
    Path("my.nnw").touch()
    status, text = skyset(
        image, "--columns", "X_IMAGE", "--flag", "flags.fits", "--classifier", "my.nnw", "--weight", "weight.fits"
    )
    assert status == 0 and text.count("warning") == 2
    assert "--flag flags.fits: no column needs it; IMAFLAGS_ISO and NIMAFLAGS_ISO do" in text
    assert "--classifier my.nnw: no column needs it; CLASS_STAR does" in text


def test_a_picture_shows_each_source(image):
    status, text = skyset(image, "-o", "x.csv", "--columns", "NUMBER", "--plot", "x.png")
    assert status == 0 and "wrote x.png" in text and list(read("x.csv")) == ["NUMBER"]
    pixels = np.asarray(Image.open("x.png").convert("RGB")).astype(int)
    blue = (np.abs(pixels - [0, 191, 255]).max(2) < 40).sum()
    assert blue > 7 * 40


@pytest.mark.parametrize("processes", (1, 2))
def test_a_seeing_that_nobody_gave_is_one_line_for_a_mosaic(mosaic, processes):
    options = ("-o", "x.ldac", "--processes", processes)
    [line] = [line for line in skyset(mosaic, *options)[1].splitlines() if "warning" in line]
    assert line.startswith("skyset: warning: CLASS_STAR cannot be relied on: no seeing is given, so 1.2 arcsec is taken")
    assert "--seeing 0.7 or --seeing auto" in line and "PIXEL_SCALE" not in line
    # Whether there is anything to say does not depend on the processes.
    for more in (("--seeing", "0.9"), ("-SEEING_FWHM", "0.9"), ("--columns", "X_IMAGE,MU_MAX")) if processes == 1 else ():
        assert "warning" not in skyset(mosaic, *options, *more)[1]


def test_a_pixel_scale_that_nobody_knows_is_said_and_one_that_was_given_stays(image):
    fits.PrimaryHDU(draw()).writeto("bare.fits")
    text = skyset("bare.fits", "-o", "x.ldac", "--seeing", "0.9")[1]
    assert "no pixel scale is known, so 1 arcsec is taken (-PIXEL_SCALE 0.187;" in text and "no seeing" not in text
    assert "CLASS_STAR" not in skyset("bare.fits", "-o", "x.ldac", "--seeing", "0.9", "-PIXEL_SCALE", "1.0")[1]
    Path("one.sex").write_text("PIXEL_SCALE 1.0\nSEEING_FWHM 0.9\n")
    Path("none.sex").write_text("SEEING_FWHM 0.9\n")
    for name, scale in (("one.sex", 1), ("none.sex", 0.18)):
        text = skyset(image, "-c", name, "-o", "x.ldac", "--columns", "X_IMAGE,CLASS_STAR")[1]
        assert read_ldac("x.ldac")[0].header["SEXPXSCL"] == pytest.approx(scale)
        assert ("PIXEL_SCALE 1 counts, but the WCS of field.fits says 0.18 arcsec" in text) == (scale == 1)
        assert "CLASS_STAR" not in text


def drawn(image: str, **options):
    """The picture's figure, its axes, and the texts of its legend, the first of which is its title."""
    figure = extract(image, output="x.ldac", draw=True, processes=1, **options).figure()
    texts = [text.get_text() for legend in figure.legends for text in (legend.get_title(), *legend.get_texts())]
    return figure, figure.axes, texts


def test_a_picture_says_what_it_shows(image):
    figure, [axis], said = drawn(image)
    assert figure.get_suptitle() == "field.fits: 7 sources"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("X_IMAGE (pixels)", "Y_IMAGE (pixels)")
    assert said == ["Kron ellipses: KRON_RADIUS x A_IMAGE, B_IMAGE", "7 without flags"]  # no class without a source
    assert {text.get_color() for text in axis.texts} == {axis.lines[0].get_color()} == {"black"}  # on a light sky
    assert drawn(image, columns="X_IMAGE")[2] == ["ellipses: 3 x A_IMAGE, B_IMAGE", "7 without flags"]
    assert drawn(image, columns="X_IMAGE", overrides=["SATUR_LEVEL=600"])[2][1:] == [
        "7 flagged (neighbours, saturation, border)"
    ]


def test_a_picture_names_the_plane_and_counts_one_source_as_one(image):
    one = np.random.default_rng(0).normal(0, 1, (60, 60))
    one[28:33, 28:33] += 100
    fits.PrimaryHDU(np.stack([one, one * 0 + 1]), fits.Header({"BANDS": "rz"})).writeto("cube.fits")
    assert drawn("cube.fits[0][r]")[0].get_suptitle() == "cube.fits[0][r]: 1 source"
    figure, axes, said = drawn("cube.fits[0][r,z]")
    assert figure.get_suptitle() == "cube.fits[0][r,z]: 1 source" and "1 without flags" in said
    assert [axis.get_title() for axis in axes] == ["[0][0]: 1 source", "[0][1]: 0 sources"]
    assert drawn("cube.fits[0][z]")[2] == []


def test_only_check_images_where_no_catalogue_is_wanted(image, tmp_path):
    status, text = skyset(image, "-CATALOG_TYPE", "NONE", "--check=-BACKGROUND=flat.fits", "--columns", "NUMBER")
    assert status == 0 and re.fullmatch(r"7 sources, \S+ s, engine .+: wrote flat\.fits\n", text)
    assert np.median(fits.getdata("flat.fits")) == pytest.approx(0, abs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["field.fits", "flat.fits"]


@pytest.mark.parametrize(
    "arguments, kind",
    [
        (["-o", "x.fits", "-CATALOG_TYPE", "FITS_LDAC"], "LDAC_IMHEAD"),
        (["-o", "x.fits"], "OBJECTS"),
        (["-o", "x.fits", "-CATALOG_TYPE", "ASCII_HEAD"], "OBJECTS"),
        (["-o", "x.fits", "--format", "ldac"], "LDAC_IMHEAD"),
        (["-CATALOG_NAME", "x.fits"], "OBJECTS"),
    ],
)
def test_what_decides_the_format(image, arguments, kind):
    assert skyset(image, *arguments)[0] == 0
    with fits.open("x.fits") as file:
        assert file[1].name == kind


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.fits"], "nowhere.fits: cannot be read as a FITS image: No such file"),
        (["text.fits"], "text.fits: cannot be read as a FITS image"),
        (["table.fits"], "table.fits: no 2-D image in it (PRIMARY: empty, 1: table)"),
        (["cube.fits"], "HDU 0 is a cube of 2 x 3 x 4: no 2-D image; one plane of it is measured by 'cube.fits[0][0]'"),
        (["cube.fits[0]"], "one plane of it is measured by 'cube.fits[0][0]'; there are [0][0], [0][1]"),
        (["cube.fits[0][2]"], "cube.fits[0][2]: no plane is '2': HDU 0 is a cube"),
        (["field.fits[0][2]"], "field.fits[0][2]: no cube is '0': there is none in it"),
        (["field.fits[]"], "field.fits[]: nothing is named between the brackets"),
        (["field.fits", "--weight", "field.fits[SCI]"], "field.fits[SCI]: no 2-D image is 'SCI': there are 0 (PRIMARY)"),
        (["field.fits[1]"], "field.fits[1]: no 2-D image is '1': there are 0"),
        (["field.fits", "-o", "field.fits"], "field.fits would replace the image: choose another name for the result"),
        (
            ["field.fits", "-o", "x.csv", "--check", "BACKGROUND=field.fits"],
            "would replace the input field.fits: give BACKGROUND another name",
        ),
        (["field.fits", "-o", "x.fits", "--check", "BACKGROUND=x.fits"], "the catalogue and BACKGROUND would be the same"),
        (["field.fits", "-o", "nowhere/x.csv"], "cannot write nowhere/x.csv: nowhere is no folder"),
        (["field.fits", "-o", "x.foo"], "x.foo: its ending says no format: --format ldac, fits"),
        (["field.fits", "-o", "-"], "-: a catalogue is written to a file: -o FILE"),
        (["field.fits", "--format", "hdf5"], "--format hdf5: it is one of ldac, fits"),
        (["field.fits", "--check", "picture.fits"], "picture.fits: its name says no kind of image: TYPE=pic"),
        (["field.fits", "--check", "SEG=x.fits"], "--check SEG=x.fits: SEG is none of BACKGROUND"),
        (["field.fits", "--columns", "X_IMGAE"], "--columns: not measured here: X_IMGAE (is X_IMAGE meant?)"),
        (["field.fits", "--columns", ","], "--columns: no column is wanted"),
        (["field.fits", "--columns", "IMAFLAGS_ISO"], "IMAFLAGS_ISO: a flag image is needed: --flag FILE"),
        (["plain.fits", "--columns", "X_IMAGE,X_WORLD"], "X_WORLD: plain.fits[0] has no WCS: leave them out"),
        (["field.fits", "--weight", "no.fits"], "no.fits: no such file; --weight FILE"),
        (["field.fits", "--classifier", "no.nnw"], "no.nnw: no such file; --classifier FILE"),
        (["field.fits", "-c", "no.sex"], "no.sex: cannot be read as a .sex configuration"),
        (["field.fits", "-p", "no.param"], "no.param: cannot be read as a .param file"),
        (["field.fits", "-MASK_TYPE", "MAYBE"], "the command line: MASK_TYPE MAYBE: it is NONE, BLANK or CORRECT"),
        (["field.fits", "-DETECT_THRES", "3"], "-DETECT_THRES: SExtractor has no such keyword; is DETECT_THRESH"),
        (["field.fits", "-DETECT_THRESH"], "--set DETECT_THRESH=: KEYWORD=VALUE is meant"),
        (["field.fits", "--set", "DETECT_THRESH"], "--set DETECT_THRESH: KEYWORD=VALUE is meant"),
        (["field.fits", "-CATALOG_TYPE", "ASCII_SKYCAT", "-o", "x.cat"], "ASCII_SKYCAT is not written here"),
        (["field.fits", "-GAIN", "-2"], "the command line: GAIN is -2.0: it must be from 0"),
    ],
)
def test_what_cannot_be_done_is_one_line_status_2_and_leaves_nothing(image, tmp_path, arguments, message):
    (tmp_path / "text.fits").write_text("no FITS file")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table({"a": [1]}))]).writeto("table.fits")
    fits.PrimaryHDU(np.zeros((2, 3, 4), "f4")).writeto("cube.fits")
    fits.PrimaryHDU(np.zeros((20, 30), "f4")).writeto("plain.fits")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    status, text = skyset(*arguments)
    assert status == 2 and message in text and text.count("\n") == 1 and text.startswith("skyset: ")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["my.sex", "my.param", "my.conv", "my.nnw", "my_weight.fits", "my_flag.fits"])
def test_no_result_replaces_what_the_configuration_names(image, tmp_path, name):
    Path("my.sex").write_text(
        "PARAMETERS_NAME my.param\nFILTER_NAME my.conv\nSTARNNW_NAME my.nnw\nFLAG_IMAGE my_flag.fits\n"
        "WEIGHT_TYPE NONE\nWEIGHT_IMAGE my_weight.fits[WHT]\nCATALOG_TYPE ASCII\n"
    )
    Path("my.param").write_text("X_IMAGE\n")
    Path("my.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    for other in ("my.nnw", "my_weight.fits", "my_flag.fits"):
        Path(other).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for options in (("-o", name), ("-o", "x.csv", "--check", f"BACKGROUND={name}"), ("-o", "x.csv", "--plot", name)):
        status, text = skyset("field.fits", "-c", "my.sex", *options)
        assert status == 2 and f"{name} would replace the " in text
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "options",
    [
        ("-o", "pipe.csv"),
        ("-o", "to_pipe.csv"),
        ("-o", "x.csv", "--check", "BACKGROUND=pipe.csv"),
        ("-o", "x.csv", "--plot", "pipe.csv"),
    ],
)
def test_a_result_does_not_take_the_place_of_a_pipe(image, tmp_path, options):
    os.mkfifo("pipe.csv")
    Path("to_pipe.csv").symlink_to("pipe.csv")
    status, text = skyset("field.fits", *options)
    assert status == 2 and ".csv: it is no regular file" in text and text.count("\n") == 1
    assert Path("pipe.csv").is_fifo() and Path("to_pipe.csv").is_symlink() and not Path("x.csv").exists()


def test_an_image_that_is_cut_off_leaves_the_older_catalogue(image, tmp_path):
    assert skyset(image, "-o", "x.ldac")[0] == 0
    before = (tmp_path / "x.ldac").read_bytes()
    with open(image, "r+b") as file:
        file.truncate(100_000)
    status, text = skyset(image, "-o", "x.ldac", "--check", "segmentation.fits")
    assert status == 2 and "field.fits" in text
    assert (tmp_path / "x.ldac").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["field.fits", "x.ldac"]


def test_an_image_without_sources_makes_an_empty_catalogue(image):
    fits.PrimaryHDU(np.random.default_rng(3).normal(9, 1, (64, 64)).astype("f4")).writeto("empty.fits")
    for name in ("x.ldac", "x.csv", "x.parquet", "x.vot"):
        status, text = skyset("empty.fits", "-o", name, "-DETECT_THRESH", "50", "--plot", "x.png")
        assert status == 0 and text.startswith("0 sources,")
        assert len(read(name)["X_IMAGE"]) == 0


@pytest.mark.parametrize(
    "pixels, said",
    [
        (np.full((40, 50), np.nan, "f4"), "no usable pixels"),
        (np.full((40, 50), 7, "f4"), "no noise"),
        (np.ones((1, 1), "f4"), "no noise"),
    ],
)
def test_an_image_without_anything_to_measure_says_so(image, pixels, said):
    fits.PrimaryHDU(pixels).writeto("nothing.fits")
    status, text = skyset("nothing.fits", "-o", "x.ldac", "--check", "segmentation.fits", "--plot", "x.png")
    assert status == 0 and "0 sources," in text and re.search(rf"^skyset: warning: .*{said}", text, re.M)
    assert len(read_ldac("x.ldac")[0].table) == 0 and not fits.getdata("segmentation.fits").any()


def test_a_missing_package_is_one_sentence(image):
    code = "import sys; sys.modules['numba'] = None; from skyset.cli import main; main()"
    command = [sys.executable, "-c", code, "extract", image, "--engine", "compiled"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "skyset: engine compiled needs numba: pip install 'skyset-surveys[extraction]'\n"


def test_a_full_disk_is_named_with_the_file_that_did_not_fit(image, tmp_path):
    """40 kB per file are enough for the catalogue, not for the check image."""
    skyset(image, "-o", "x.ldac", "--check", "segmentation.fits", "--seeing", "1")  # what numba compiles is in files, too
    for name in ("x.ldac", "segmentation.fits"):
        (tmp_path / name).unlink()
    run = f"ulimit -f 40; {sys.executable} -m skyset.cli extract {image} -o x.ldac --check segmentation.fits --seeing 1"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "skyset: cannot write segmentation.fits: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["field.fits"]


@pytest.mark.skipif(shutil.which("psfex") is None, reason="PSFEx is not installed")
def test_psfex_makes_a_psf_from_our_catalogue(tmp_path, monkeypatch):
    """120 stars of 2 pixels rms: the PSF that PSFEx makes is that Gaussian."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    pixels, (y, x) = rng.normal(100, 2, (600, 600)), np.mgrid[:600, :600]
    for column, row in zip(*(np.mgrid[0:11, 0:11].reshape(2, -1) * 50.0 + 45 + rng.uniform(-3, 3, (2, 121))), strict=True):
        near = np.s_[int(row) - 15 : int(row) + 16, int(column) - 15 : int(column) + 16]
        pixels[near] += rng.uniform(500, 3000) * np.exp(-((x[near] - column) ** 2 + (y[near] - row) ** 2) / 8)
    fits.PrimaryHDU(pixels.astype("f4"), fits.Header({"GAIN": 2.0})).writeto("stars.fits")
    columns = "X_IMAGE,Y_IMAGE,FLUX_AUTO,FLUX_RADIUS,SNR_WIN,FLUX_APER,FLUXERR_APER,ELONGATION,FLAGS,VIGNET(21,21)"
    assert skyset("stars.fits", "-o", "stars.ldac", "--columns", columns, "-PHOT_APERTURES", "16")[0] == 0
    options = "-CHECKPLOT_TYPE NONE -CHECKIMAGE_TYPE NONE -WRITE_XML N -NTHREADS 1 -PSF_SIZE 15,15 -PSF_SAMPLING 1"
    subprocess.run(["psfex", "stars.ldac", *options.split(), "-PSFVAR_DEGREES", "0"], check=True, capture_output=True)
    with fits.open("stars.psf") as file:
        assert file["PSF_DATA"].header["ACCEPTED"] > 80
        psf = file["PSF_DATA"].data["PSF_MASK"][0][0]
    y, x = np.mgrid[-7:8, -7:8]
    wanted = np.exp(-(x**2 + y**2) / 8)
    assert np.abs(psf / psf.max() - wanted).max() < 0.03


def test_gzipped_csv_is_gzipped(image):
    skyset(image, "-o", "x.csv.gz")
    with gzip.open("x.csv.gz", "rt") as file:
        assert file.readline().startswith('"NUMBER","X_IMAGE"')


def test_columns_of_the_sky_are_left_out_where_there_is_none(mosaic):
    fits.PrimaryHDU(draw(), fits.Header({"GAIN": 1.5})).writeto("plain.fits")
    columns = ["--columns", "X_IMAGE,ALPHA_J2000,FLUX_AUTO,A_WORLD,MAG_BEST"]
    status, text = skyset("plain.fits", "-o", "x.csv", *columns, "--skip_unknown")
    said = "skyset: warning: ALPHA_J2000, A_WORLD: left out, for plain.fits[0] has no WCS\n"
    assert status == 0 and text.count(said) == 1 and list(read("x.csv")) == ["X_IMAGE", "FLUX_AUTO"]
    assert skyset(mosaic, "-o", "x.ldac", *columns, "--skip_unknown")[0] == 0
    assert read_ldac("x.ldac")[0].table.colnames == ["X_IMAGE", "ALPHA_J2000", "FLUX_AUTO", "A_WORLD"]
    status, text = skyset("plain.fits", "-o", "x.csv", "--columns", "A_WORLD", "--skip_unknown")
    assert status == 2 and "A_WORLD: plain.fits[0] has no WCS, and no other column is wanted" in text
    status, text = skyset("plain.fits", "-o", "x.csv", "--columns", "A_WORLD")
    assert status == 2 and text.endswith("A_WORLD: plain.fits[0] has no WCS: leave them out (--skip_unknown does)\n")
