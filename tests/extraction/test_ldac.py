"""LDAC catalogues: real ones read and written, what is wrong with one named, and PSFEx and SCAMP content with ours."""

import re
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import MaskedColumn, QTable
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from skyset.errors import UserError
from skyset.extraction.ldac import LdacExtension, parse_unit, read_ldac, unit_text, write_ldac

SEXTRACTOR = shutil.which("source-extractor") or shutil.which("sex")
REAL = {"ldac_decam_cat.fits": (950, 99), "ldac_decam_fullcat.fits": (2469, 101), "ldac_sextractor_sim.fits": (10000, 19)}


def header(**more) -> fits.Header:
    return fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 10, "NAXIS2": 12} | more)


@pytest.fixture
def small(tmp_path):
    """A catalogue of two extensions with a vector, an image, units and whole numbers."""
    rng = np.random.default_rng(1)
    extensions = []
    for rows in (3, 5):
        table = QTable({"NUMBER": np.arange(rows, dtype="i4"), "VIGNET": rng.normal(size=(rows, 4, 6)).astype("f4") * u.ct})
        table["ISO0"] = u.Quantity(np.arange(rows), u.pix**2, dtype="i4")
        table["FLUX_RADIUS"] = rng.random((rows, 3)).astype("f4") * u.pix
        extensions.append(LdacExtension(header(SEXBKDEV=3.5, OBJECT=f"field {rows}"), table))
    write_ldac(tmp_path / "small.ldac", extensions)
    return tmp_path / "small.ldac", extensions


def hdus(path) -> list[tuple[int, int, int]]:
    """Where each HDU's header, its data and the next HDU begin."""
    with fits.open(path) as file:
        infos = [hdu.fileinfo() for hdu in file]
    return [(info["hdrLoc"], info["datLoc"], info["datLoc"] + info["datSpan"]) for info in infos]


@pytest.mark.parametrize("name", REAL)
def test_real_catalogues_are_read_as_astropy_reads_their_tables(real, name):
    [extension] = read_ldac(real(f"megacam/{name}"))
    assert (len(extension.table), len(extension.table.colnames)) == REAL[name]
    reference = fits.getdata(real(f"megacam/{name}"), 2)
    for column in extension.table.colnames:
        values = np.asarray(getattr(extension.table[column], "value", extension.table[column]))
        assert values.dtype.isnative and values.dtype == reference[column].dtype.newbyteorder("=")
        np.testing.assert_array_equal(values, reference[column])
    assert extension.header["NAXIS1"] in (2048, 6800)
    assert extension.header["SEXBKDEV"] > 0


def test_units_and_what_a_column_is(real):
    table = read_ldac(real("megacam/ldac_decam_cat.fits"))[0].table
    assert table["FLUX_AUTO"].unit == u.ct and table["X_IMAGE"].unit == u.pix and table["X2_IMAGE"].unit == u.pix**2
    assert table["MU_MAX"].unit == u.mag / u.arcsec**2
    assert table["FLUX_APER"].shape == (950, 12)
    assert table["ISOAREA_IMAGE"].unit == u.pix**2 and table["ISOAREA_IMAGE"].dtype == np.int32
    assert table["X_IMAGE"].info.description == "Object position along x"
    assert table["X_IMAGE"].info.format == "%11.4f"


@pytest.mark.parametrize("name", REAL)
def test_real_catalogues_are_written_as_they_were(real, tmp_path, name):
    """Every byte, apart from the slash after a value without comment, and cards after the primary header's fourth."""
    write_ldac(tmp_path / "copy.ldac", read_ldac(real(f"megacam/{name}")))
    original, copy = (file.read_bytes() for file in (real(f"megacam/{name}"), tmp_path / "copy.ldac"))
    assert len(copy) == len(original)
    cards = zip(*([text[i : i + 80] for i in range(2880, len(text), 80)] for text in (original, copy)), strict=True)
    different = [(one, other) for one, other in cards if one != other]
    assert {one[:8] for one, _ in different} == {b"BITPIX  ", b"NAXIS   "}
    assert all(one.rstrip(b" /") == other.rstrip() for one, other in different)


def test_the_malformed_catalogue_is_mended_aloud(real):
    with pytest.warns(UserWarning, match=r"LDAC_IMHEAD\): TDIM1 is \(80, 36\), its cell has 21 cards") as told:
        [extension] = read_ldac(real("megacam/ldac_gaia_malformed_tdim.cat"))
    assert len(told) == 1
    assert extension.header["CTYPE2"] == "DEC--STG" and extension.header["CD2_2"] == pytest.approx(0.2 / 3600)
    assert len(extension.header) == 20
    assert len(extension.table) == 4403 and extension.table["OBSDATE"].unit == u.yr
    assert extension.table["OBSDATE"].value.min() > 2010


def test_several_extensions_vectors_and_whole_numbers_survive(small):
    path, extensions = small
    back = read_ldac(path)
    assert [extension.header["OBJECT"] for extension in back] == ["field 3", "field 5"]
    for one, other in zip(extensions, back, strict=True):
        assert one.table.colnames == other.table.colnames
        for name in one.table.colnames:
            assert one.table[name].dtype == other.table[name].dtype
            assert getattr(one.table[name], "unit", None) == getattr(other.table[name], "unit", None)
            np.testing.assert_array_equal(one.table[name], other.table[name])
    assert back[0].table["VIGNET"].shape == (3, 4, 6)


def test_astropy_reads_what_is_written_without_complaint(small):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(small[0]) as file:
            file.verify("exception")
            assert [hdu.name for hdu in file[1:]] == ["LDAC_IMHEAD", "LDAC_OBJECTS"] * 2
            assert file[1].header["TFORM1"] == "640A" and file[1].header["TDIM1"] == "(80, 8)"
            assert file[2].header["TDIM2"] == "(6, 4)" and file[2].header["TUNIT2"] == "count"
            assert file[2].columns["VIGNET"].disp == "G12.7"


DTYPES = [*(np.dtype(text) for text in ("?", "u1", "i2", "i4", "i8", "f4", "f8", "c8", "c16")), np.dtype("S5")]
NAMES = st.text("ABCXYZ_019", min_size=1, max_size=12)


@st.composite
def tables(draw) -> QTable:
    rows = draw(st.integers(0, 4))
    table = QTable()
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        dtype, sides = draw(st.sampled_from(DTYPES)), tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        text = st.binary(max_size=5).map(lambda value: bytes(33 + byte % 90 for byte in value))
        values = draw(arrays.arrays(dtype, (rows, *sides), elements=text if dtype.kind == "S" else None))
        unit = draw(st.sampled_from([None, u.pix, u.ct, u.deg**-2, u.mag / u.arcsec**2, parse_unit("furlongs/soup")]))
        numbers = dtype.kind in "iuf" and unit is not None
        table[name] = u.Quantity(values, unit, dtype=dtype) if numbers else values
    return table


CARDS = st.dictionaries(
    st.text("ABCDEFG", min_size=1, max_size=8).filter(lambda key: key != "END"),
    st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e30, 1e30), st.booleans(), st.text("ab c'd", max_size=100)),
)


@settings(deadline=None, max_examples=60)
@given(content=st.lists(st.tuples(CARDS, tables()), min_size=1, max_size=3))
def test_whatever_is_written_comes_back(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("ldac") / "any.ldac"
    write_ldac(path, [(header(**cards), table) for cards, table in content])
    for (cards, table), extension in zip(content, read_ldac(path), strict=True):
        for key, value in cards.items():
            wanted = value.rstrip() if isinstance(value, str) else value
            assert extension.header[key] == (pytest.approx(wanted, rel=1e-12) if isinstance(value, float) else wanted)
        assert extension.table.colnames == table.colnames
        for name in table.colnames:
            mine, other = table[name], extension.table[name]
            assert unit_text(getattr(mine, "unit", None)) == unit_text(getattr(other, "unit", None))
            mine, other = (np.asarray(getattr(column, "value", column)) for column in (mine, other))
            assert mine.shape == other.shape
            if mine.dtype.kind == "S":
                assert mine.tolist() == np.char.encode(other, "ascii").tolist()
            else:
                assert mine.dtype == other.dtype
                np.testing.assert_array_equal(mine, other)


def test_what_has_no_fits_type_goes_into_the_next_wider_one(tmp_path):
    values = {"a": np.int8([-3]), "b": np.uint16([65535]), "c": np.uint32([2**32 - 1])}
    values |= {"d": np.float16([1.5]), "e": np.uint64([7])}
    write_ldac(tmp_path / "x", [(header(), QTable(values | {"f": np.array([[1.0, 2.0]], ">f8")}))])
    table = read_ldac(tmp_path / "x")[0].table
    assert [table[name].dtype.str[1:] for name in "abcdef"] == ["i2", "i4", "i8", "f4", "i8", "f8"]
    assert [table[name][0] for name in "abcde"] == [-3, 65535, 2**32 - 1, 1.5, 7] and table["f"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "column, message",
    [
        (np.array([{}], object), "cannot hold object"),
        (np.uint64([2**63]), "cannot hold uint64"),
        (MaskedColumn([1, 2], mask=[True, False]), "masked"),
        (np.array(["ä"]), "ASCII"),
        (np.datetime64("2026-11-21", "s") + np.arange(2), "cannot hold datetime64"),
    ],
)
def test_what_a_fits_table_cannot_hold_is_named_and_nothing_is_left(column, message, tmp_path):
    with pytest.raises(UserError, match=f"WHAT: .*{message}"):
        write_ldac(tmp_path / "x.ldac", [(header(), QTable({"WHAT": column}))])
    assert list(tmp_path.iterdir()) == []


def test_masked_floats_are_nan(tmp_path):
    write_ldac(tmp_path / "x.ldac", [(header(), QTable({"A": MaskedColumn([1.0, 2.0], mask=[True, False])}))])
    np.testing.assert_array_equal(read_ldac(tmp_path / "x.ldac")[0].table["A"], [np.nan, 2.0])


def test_an_older_catalogue_stays_if_writing_fails(small):
    path, extensions = small

    def breaks():
        yield extensions[0]
        raise RuntimeError("the second image cannot be read")

    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_ldac(path, breaks())
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(UserError, match="no extension to write"):
        write_ldac(path, [])
    with pytest.raises(UserError, match=r"cannot write .*nowhere"):
        write_ldac(path.parent / "nowhere" / "x.ldac", extensions)
    with pytest.raises(UserError, match="is a folder"):
        write_ldac(path.parent, extensions)


@pytest.mark.parametrize("extra", [b"\0" * 2880, b"\n", b"trailing text"])
def test_bytes_after_the_last_extension_are_passed_over_aloud(small, extra):
    path = small[0]
    path.write_bytes(path.read_bytes() + extra)
    with pytest.warns(UserWarning, match=f"{len(extra):,} bytes after the last extension are passed over"):
        assert [len(extension.table) for extension in read_ldac(path)] == [3, 5]


def test_a_file_cut_anywhere_is_an_error_or_complete(small):
    """Whole extensions are read only where the cut lies between two; anything else is named."""
    path, content = small[0], small[0].read_bytes()
    starts = [start for start, *_ in hdus(path)]
    for cut in range(0, len(content), 977):
        path.write_bytes(content[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read = read_ldac(path)
            except UserError as error:
                assert re.search("truncated|no FITS file|LDAC_OBJECTS is missing|no LDAC_OBJECTS", str(error))
            else:
                # Not truncated: cut inside the last padding, or so soon after an extension that no header begins.
                data_end = starts[-1] + 2880 + 5 * 116
                assert (cut >= data_end and len(read) == 2) or len(read) == 1
    path.write_bytes(content[: starts[4] + 2880 + 200])
    with pytest.raises(UserError, match=r"truncated: extension 4 \(LDAC_OBJECTS\) has 200 of 580 bytes, 1 of 5 rows"):
        read_ldac(path)


def test_a_catalogue_without_padding_is_complete(small):
    path = small[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="not filled up to 2880 bytes; its data are complete"):
        assert len(read_ldac(path)) == 2


def test_a_table_without_imhead_has_the_primary_header(small):
    path, content = small[0], small[0].read_bytes()
    _, _, second, *_ = [start for start, *_ in hdus(path)]
    path.write_bytes(content[:2880] + content[second:])
    with pytest.warns(UserWarning, match=r"extension 1 \(LDAC_OBJECTS\) has no LDAC_IMHEAD before it"):
        extensions = read_ldac(path)
    assert [len(extension.table) for extension in extensions] == [3, 5]
    assert "OBJECT" not in extensions[0].header and extensions[1].header["OBJECT"] == "field 5"


@pytest.mark.skipif(SEXTRACTOR is None, reason="SExtractor is not installed")
def test_fits_1_0_catalogues_are_read(real, tmp_path):
    data = real("extraction")
    (tmp_path / "x.param").write_text("NUMBER\nX_IMAGE\nFLUX_APER(2)\nMU_MAX\n")
    options = "-PARAMETERS_NAME x.param -FILTER N -CATALOG_TYPE FITS_1.0 -PHOT_APERTURES 3,6 -CATALOG_NAME x.cat"
    run(SEXTRACTOR, data / "sep_image.fits", "-c", "/dev/null", *options.split(), cwd=tmp_path)
    with pytest.warns(UserWarning, match=r"\(OBJECTS\) has no LDAC_IMHEAD"):
        [extension] = read_ldac(tmp_path / "x.cat")
    assert extension.header["ORIGIN"] == "SExtractor"
    assert extension.table["FLUX_APER"].shape == (len(extension.table), 2) and len(extension.table) > 30


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda content, at: b"", "no FITS file .empty"),
        (lambda content, at: b"PK\x03\x04" + content, "no FITS file"),
        (lambda content, at: content[: at[1][0]], "no LDAC_OBJECTS"),
        (lambda content, at: content[: at[2][0]], "LDAC_OBJECTS is missing after the last LDAC_IMHEAD"),
        (lambda content, at: content[: at[2][0]] + content[at[1][0] :], "a second LDAC_IMHEAD"),
        (
            lambda content, at: content.replace(b"TFORM3  = '1J", b"TFORM3  = '2J"),
            "a row has 116 bytes, its columns have 120",
        ),
        (lambda content, at: content.replace(b"TFORM1  = '1J", b"TFORM1  = '1z"), "cannot be read|a row has"),
        (lambda content, at: content.replace(b"=                  116", b"=                 -116"), "a whole number"),
        (lambda content, at: content.replace(b"=                    3", b"=           9876543210"), "truncated"),
        (lambda content, at: content.replace(b"=                    3", b"= 'three'             "), "its size"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(small, spoil, message):
    path = small[0]
    path.write_bytes(spoil(path.read_bytes(), hdus(path)))
    with warnings.catch_warnings(), pytest.raises(UserError, match=message) as error:
        warnings.simplefilter("ignore")
        read_ldac(path)
    assert "\n" not in str(error.value) and path.name in str(error.value)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_read_or_refused_in_one_line(small, data):
    path, content = small[0].with_name("spoilt.ldac"), bytearray(small[0].read_bytes())
    places = st.sampled_from([start for triple in hdus(small[0]) for start in triple[:2]])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(places) + data.draw(st.integers(0, 1500))
        content[min(place, len(content) - 1)] = data.draw(st.sampled_from(list(b"0123456789'()=, -ABEIJLPT/\xff\x00")))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            extensions = read_ldac(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert extensions and all(len(extension.table.colnames) for extension in extensions)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.ldac: cannot be read: No such file"):
        read_ldac(tmp_path / "nowhere.ldac")
    with pytest.raises(UserError, match="cannot be read"):
        read_ldac(tmp_path)


def test_foreign_bytes_in_cards_and_doubled_names(small):
    path = small[0]
    content = path.read_bytes().replace(b"field 3", b"fi\xe9ld\x00 ")
    path.write_bytes(content.replace(b"TTYPE3  = 'ISO0  ", b"TTYPE3  = 'NUMBER"))
    with pytest.warns(UserWarning, match="NUMBER stands twice: column 3 is read as NUMBER_3"):
        first, _ = read_ldac(path)
    assert first.header["OBJECT"] == "fi?ld"
    assert first.table.colnames == ["NUMBER", "VIGNET", "NUMBER_3", "FLUX_RADIUS"]


@pytest.mark.parametrize("text", ["count", "pixel", "pixel**2", "pixel**(-2)", "mag * arcsec**(-2)", "deg**2", "yr"])
def test_units_are_spelled_as_sextractor_spells_them(text):
    unit = parse_unit(text)
    assert not isinstance(unit, u.UnrecognizedUnit) and unit_text(unit) == text


def test_unknown_units_keep_their_text():
    assert parse_unit(" ") is None and parse_unit(None) is None and unit_text(None) == ""
    for text in ("e-/ADU per soup", "mag(AB)", "deg, deg", "(", "%s", "3"):
        unit = parse_unit(text)
        assert unit_text(unit) == text or unit == u.Unit(text)
        assert u.Quantity(np.arange(3, dtype="i4"), unit, dtype="i4").unit == unit
    assert unit_text(parse_unit("mag.arcsec-2")) == "mag * arcsec**(-2)" and unit_text(parse_unit("pix2")) == "pixel**2"


# The programs that read these files


def run(*command, cwd) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A field of 250 stars with a sheared Moffat profile and a WCS, and its catalogue made by SExtractor."""
    if SEXTRACTOR is None:
        pytest.skip("SExtractor is not installed")
    folder = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(7)
    size, image = 800, rng.normal(1000, 10, (800, 800)).astype("f4")
    y, x = np.mgrid[-12:13, -12:13]
    for column, row, flux in zip(*rng.uniform(20, size - 20, (2, 250)), 10 ** rng.uniform(4, 5.5, 250), strict=True):
        dx, dy = x - column % 1, y - row % 1
        profile = (1 + (dx**2 * 1.1 + dy**2 * 0.9 + 0.2 * dx * dy) / 5) ** -3.0
        image[int(row) - 12 : int(row) + 13, int(column) - 12 : int(column) + 13] += flux * profile / profile.sum()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 2], [size / 2, size / 2]
    wcs.wcs.cdelt = [-0.187 / 3600, 0.187 / 3600]
    fits.PrimaryHDU(image, wcs.to_header()).writeto(folder / "field.fits")
    names = "X_IMAGE Y_IMAGE XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE FLUX_AUTO FLUXERR_AUTO "
    names += "FLUX_RADIUS SNR_WIN FLUX_APER(1) FLUXERR_APER(1) ELONGATION FLAGS VIGNET(21,21)"
    (folder / "x.param").write_text("\n".join(names.split()))
    options = (
        "-PARAMETERS_NAME x.param -FILTER N -CATALOG_TYPE FITS_LDAC -PHOT_APERTURES 20 -PIXEL_SCALE 0 -CATALOG_NAME sex.ldac"
    )
    run(SEXTRACTOR, "field.fits", "-c", "/dev/null", *options.split(), cwd=folder)
    write_ldac(folder / "ours.ldac", read_ldac(folder / "sex.ldac"))
    return folder


@pytest.mark.skipif(shutil.which("psfex") is None, reason="PSFEx is not installed")
def test_psfex_makes_the_same_psf_from_what_we_write(field):
    psf = {}
    for name in ("sex", "ours"):
        options = "-CHECKPLOT_TYPE NONE -CHECKIMAGE_TYPE NONE -WRITE_XML N -NTHREADS 1 -PSF_SIZE 15,15"
        run("psfex", f"{name}.ldac", *options.split(), cwd=field)
        with fits.open(field / f"{name}.psf") as file:
            psf[name] = file["PSF_DATA"].data["PSF_MASK"][0]
            assert file["PSF_DATA"].header["ACCEPTED"] > 100
    assert np.abs(psf["ours"] - psf["sex"]).max() <= 3e-5 * psf["sex"].max()


@pytest.mark.skipif(shutil.which("scamp") is None, reason="SCAMP is not installed")
def test_scamp_corrects_the_astrometry_of_a_catalogue_of_ours_by_a_reference_catalogue_of_ours(field):
    [extension] = read_ldac(field / "sex.ldac")
    bright = extension.table[extension.table["FLUX_AUTO"].value > 0]
    sky = WCS(extension.header).all_pix2world(bright["XWIN_IMAGE"].value, bright["YWIN_IMAGE"].value, 1)
    ones = np.ones(len(bright), "f4")
    reference = QTable(
        {
            "X_WORLD": sky[0] * u.deg,
            "Y_WORLD": sky[1] * u.deg,
            "ERRA_WORLD": 1e-6 * ones * u.deg,
            "ERRB_WORLD": 1e-6 * ones * u.deg,
            "MAG": (20 - 2.5 * np.log10(bright["FLUX_AUTO"].value)) * u.mag,
            "MAGERR": 0.01 * ones * u.mag,
            "OBSDATE": 2015 * u.yr * ones,
        }
    )
    shifted = extension.header.copy()
    shifted["CRVAL1"] += 0.0005
    write_ldac(field / "reference.ldac", [(extension.header, reference)])
    write_ldac(field / "shifted.ldac", [(shifted, extension.table)])
    options = "-ASTREF_CATALOG FILE -ASTREFCAT_NAME reference.ldac -DISTORT_DEGREES 1 -SN_THRESHOLDS 5,100 -SOLVE_PHOTOM N "
    text = run("scamp", "shifted.ldac", *f"{options} -CHECKPLOT_TYPE NONE -WRITE_XML N -NTHREADS 1".split(), cwd=field)
    assert int(re.search(r"(\d+) detections loaded", text)[1]) > 200
    assert f"{len(bright)} astrometric references loaded" in text
    solved = fits.Header.fromstring((field / "shifted.head").read_text(), sep="\n")
    assert solved["CRVAL1"] == pytest.approx(extension.header["CRVAL1"], abs=1e-6)
