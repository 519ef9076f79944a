"""SExtractor's configuration files: what they mean here, what is said of the rest, and what is wrong in one line."""

import dataclasses
import os
import re

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.extraction import config, sex_file
from skyset.extraction.columns import COLUMNS
from skyset.extraction.config import pixel_scale, read_config
from skyset.extraction.settings import DEFAULT_KERNEL, Settings
from skyset.extraction.sex_file import KEYWORDS


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Nothing is found by chance: neither here nor where SExtractor may be installed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sex_file, "STANDARD_FOLDERS", [])


@pytest.fixture
def read(tmp_path):
    """The configuration of a text, with ``param`` as PARAMETERS_NAME where given."""

    def of(text: str = "", param: str | None = None, **more) -> config.Configuration:
        (tmp_path / "x.sex").write_text(f"FILTER N\n{text}\n" + ("PARAMETERS_NAME x.param\n" if param is not None else ""))
        if param is not None:
            (tmp_path / "x.param").write_text(param)
        return read_config(tmp_path / "x.sex", **more)

    return of


def refused(read, *arguments, **more) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one: Settings, other: Settings) -> bool:
    """Equal but for the kernel, which is an array."""
    fields = [field for field in Settings.__dataclass_fields__ if field != "kernel"]
    return all(getattr(one, field) == getattr(other, field) for field in fields)


# Real files


def test_the_configuration_that_sep_was_compared_with(real):
    folder = real("extraction")
    found = read_config(folder / "sep_default.sex", parameters=folder / "sep_default.param")
    wanted = Settings(
        deblend_cont=1.0,
        analysis_threshold=1.5,
        mask_type="none",
        apertures=(10.0,),
        kron=(2.5, 0.0),
        fractions=(0.1, 0.5, 0.6),
        pixel_scale=1,
        seeing=1.2,
    )
    assert same(found.settings, wanted)
    np.testing.assert_array_equal(found.settings.kernel, DEFAULT_KERNEL)
    assert found.columns == tuple((folder / "sep_default.param").read_text().replace("(1)", "").replace("(3)", "").split())
    assert {kind: str(path) for kind, path in found.check.items()} == {
        "BACKGROUND": "back.fits",
        "BACKGROUND_RMS": "rms.fits",
    }
    assert (found.catalogue, found.catalogue_type) == ("test.cat", "ASCII_HEAD")
    [said] = found.warnings
    assert "line 20: FILTER_NAME default.conv: no such file" in said and "standard default.conv" in said


def test_a_filter_of_the_folder_is_found_before_one_here(real, tmp_path):
    (tmp_path / "x.sex").write_text("FILTER_NAME default.conv")
    (tmp_path / "default.conv").write_text("CONV NONORM\n0 0 0\n0 5 0\n0 0 0\n")
    (tmp_path / "here" / "default.conv").write_bytes(real("extraction/sep_default.conv").read_bytes())
    assert read_config(tmp_path / "x.sex").settings.kernel[1, 1] == 5
    (tmp_path / "default.conv").unlink()
    np.testing.assert_allclose(
        read_config(tmp_path / "x.sex").settings.kernel, [[1, 2, 1], [2, 4, 2], [1, 2, 1]] / np.float32(16)
    )


def test_sextractors_own_default_configuration_needs_no_word(real):
    """Every keyword of default.sex 2.12 has the value that is meant here anyway, apart from the filter's file."""
    folder = real("extraction")
    found = read_config(folder / "sextractor_default.sex", parameters=folder / "sextractor_default.param")
    assert same(found.settings, Settings(minarea=3, analysis_threshold=1.5, pixel_scale=1, seeing=1.2))
    assert found.columns == ("NUMBER", "X_IMAGE", "Y_IMAGE", "FLAGS")
    assert [re.search(r"\b[A-Z_]{4,}\b", said)[0] for said in found.warnings] == ["FILTER_NAME"]


@pytest.mark.parametrize("which, contrast, value", [("exp", 0.001, None), ("tile", 0.0005, 0.0)])
def test_the_configuration_of_cfis(real, which, contrast, value):
    folder = real("megacam")
    found = read_config(folder / f"shapepipe_cfis_default_{which}.sex", parameters=folder / "shapepipe_cfis_default.param")
    wanted = Settings(
        deblend_cont=contrast,
        analysis_threshold=1.5,
        pixel_scale=0,
        zero_point=30,
        seeing=0.6,
        back_value=value,
        vignet=(51, 51),
    )
    assert same(found.settings, wanted)
    assert "IMAFLAGS_ISO" in found.columns and found.flag_image.name == "flag.fits" and found.weight.name == "weight.fits"
    assert found.catalogue_type == "FITS_LDAC" and found.catalogue is None
    assert [re.search(r"\b[A-Z_]{4,}\b", said)[0] for said in found.warnings] == [
        "FILTER_NAME",
        "WEIGHT_GAIN",
        "INTERP_TYPE",
    ]


GALAXIESML = """NUMBER 1
PETRO_TYPE AUTO
PETRO_THRESH 0.2
CATALOG_NAME test.cat # name of the output catalog
CATALOG_TYPE ASCII_HEAD # NONE, ASCII, ASCII_HEAD, ASCII_SKYCAT,
# ASCII_VOTABLE, FITS_1.0 or FITS_LDAC
DETECT_THRESH 1.5 # <sigmas> or <threshold>,<ZP> in mag.arcsec-2
ANALYSIS_THRESH 1.5 # <sigmas> or <threshold>,<ZP> in mag.arcsec-2
PIXEL_SCALE    0.17        # size of pixel in arcsec (0=use FITS WCS info)
PHOT_TYPE      SERSIC
SERSIC_FIT     Y
FIT_PROFILE     N
DETECT_THRESH  3           #Running object number
NUMBER          1
DETECT_THRESH  3
CATALOG_NAME    output_image
CATALOG_TYPE    ASCII_HEAD
CHECKIMAGE_TYPE SEGMENTATION
ERRXY_IMAGE     5
"""


def test_the_published_configuration_of_galaxiesml_is_explained(read):
    """As printed in the paper's supplement: 3 sigma wins, the analysis threshold stays, and every odd line is named."""
    found = read(GALAXIESML)
    assert (found.settings.threshold, found.settings.analysis, found.settings.pixel_scale) == (3, 1.5, 0.17)
    assert {kind: path.name for kind, path in found.check.items()} == {"SEGMENTATION": "check.fits"}
    said = [line.partition("x.sex, ")[2] for line in found.warnings]
    assert said == [
        "line 14: DETECT_THRESH stands twice: 3 counts, not the 1.5 of line 8",
        "line 17: CATALOG_NAME stands twice: output_image counts, not the test.cat of line 5",
        "line 2 and line 15: NUMBER is passed over: it is a column's name, for a .param file",
        "line 3: PETRO_TYPE is passed over: SExtractor has no such keyword",
        "line 4: PETRO_THRESH is passed over: SExtractor has no such keyword",
        "line 11: PHOT_TYPE is passed over: SExtractor has no such keyword; is BACKPHOTO_TYPE meant?",
        "line 12: SERSIC_FIT is passed over: SExtractor has no such keyword",
        "line 13: FIT_PROFILE is passed over: SExtractor has no such keyword",
        "line 20: ERRXY_IMAGE is passed over: it is a column's name, for a .param file",
    ]


def test_the_published_columns_of_galaxiesml_are_explained(read):
    param = "NUMBER 1 #Running number\nDETECT_THRESH 3\nPETRO_RADIUS 1\nA 0.0\nA_IMAGE\nFLUX_RADIUS\nSPHEROID_SERSICN 4.0\n"
    assert refused(read, param=param).endswith(
        "x.param: not measured here: DETECT_THRESH (line 2; a keyword, for a .sex file), A (line 4), SPHEROID_SERSICN "
        "(line 7; from a fit: see skyset.extraction.sersic). --skip_unknown leaves them out"
    )
    found = read(param=param, skip_unknown=True)
    assert found.columns == ("NUMBER", "PETRO_RADIUS", "A_IMAGE", "FLUX_RADIUS")
    assert "left out, for they are not measured here: DETECT_THRESH (line 2" in found.warnings[0]
    assert found.warnings[1].endswith("values after names are passed over: NUMBER 1 (line 1), PETRO_RADIUS 1 (line 3)")


# How a file is read


def test_separators_case_quotes_and_comments_as_sextractor_reads_them(read):
    """Each of these was tried with SExtractor 2.25."""
    found = read(
        "DETECT_MINAREA=7\n  detect_maxarea\t900# a comment\n# DETECT_MINAREA 99\nPHOT_APERTURES 3 5;7,9\n"
        "BACK_SIZE 32 , 16\n"
        'mask_type blank\nCATALOG_NAME "my cat#1.ldac"\n"CLEAN_PARAM" "2.5"\n\n'
    )
    wanted = Settings(
        analysis_threshold=1.5,
        minarea=7,
        maxarea=900,
        apertures=(3, 5, 7, 9),
        back_size=(32, 16),
        mask_type="blank",
        clean=2.5,
        kernel=None,
    )
    assert same(found.settings, wanted) and found.catalogue == "my cat#1.ldac" and found.warnings == ()


def test_a_backslash_continues_a_line(read):
    assert read("PHOT_APERTURES 3, \\  # small\n  5\nGAIN 2\n").settings.apertures == (3, 5)
    assert read("GAIN 2 \\").settings.gain == 2


def test_environment_variables(read, monkeypatch):
    monkeypatch.setenv("NIGHT", "20261121")
    assert read("CATALOG_NAME cat_${NIGHT}.ldac").catalogue == "cat_20261121.ldac"
    assert read("CATALOG_NAME $NIGHT").catalogue == "20261121"
    monkeypatch.delenv("NIGHT")
    assert "x.sex, line 2: the environment variable NIGHT is not set" in refused(read, "CATALOG_NAME cat_$NIGHT.ldac")


def test_the_command_line_comes_first(read):
    found = read(
        "DETECT_THRESH 2\nGAIN 1", overrides=[("detect_thresh", "4"), ("DETECT_THRESH", "5"), ("PHOT_APERTURES", "3,4")]
    )
    assert (found.settings.threshold, found.settings.gain, found.settings.apertures) == (5, 1, (3, 4))
    assert found.warnings == ()
    assert "-DETCT_THRESH: SExtractor has no such keyword; is DETECT_THRESH meant?" in refused(
        read, overrides=[("DETCT_THRESH", "2")]
    )
    assert refused(read, overrides=[("GAIN", "x")]) == "the command line: GAIN x: a number is meant"


def test_without_a_file_the_analysis_threshold_follows_and_the_wcs_gives_the_scale():
    found = read_config(overrides=[("DETECT_THRESH", "3")])
    assert found.settings.analysis == 3 and found.settings.pixel_scale == 0 and found.columns is None
    assert found.settings.kernel is not None and found.warnings == ()


def test_what_is_given_is_what_is_measured_with(read):
    """Every keyword with a number or a word that has a place in the settings."""
    found = read(
        "DETECT_MINAREA 4\nDETECT_MAXAREA 500\nTHRESH_TYPE ABSOLUTE\nDETECT_THRESH 30\nANALYSIS_THRESH 20\n"
        "DEBLEND_NTHRESH 16\nDEBLEND_MINCONT 0.01\n"
        "CLEAN N\nMASK_TYPE BLANK\nBACK_TYPE MANUAL\nBACK_VALUE 7\nBACK_SIZE 32\nBACK_FILTERSIZE 5,3\n"
        "BACK_FILTTHRESH 2\nPHOT_APERTURES 4,8\nPHOT_AUTOPARAMS 2,3\nPHOT_PETROPARAMS 1.5,2.5\nPHOT_AUTOAPERS 1,2\n"
        "PHOT_FLUXFRAC 0.2,0.5\nSATUR_LEVEL 60000\nGAIN 1.6\nPIXEL_SCALE 0.187\nMAG_ZEROPOINT 26\nSEEING_FWHM 0.7\n"
        "WEIGHT_TYPE MAP_RMS\nRESCALE_WEIGHTS N\nINTERP_TYPE NONE\nWEIGHT_GAIN N\nWEIGHT_THRESH 1e20\nFLAG_TYPE MOST\n"
    )
    wanted = Settings(
        threshold=30,
        analysis_threshold=20,
        absolute=True,
        minarea=4,
        maxarea=500,
        kernel=None,
        deblend_nthresh=16,
        deblend_cont=0.01,
        clean=None,
        mask_type="blank",
        back_size=32,
        back_filter=(5, 3),
        back_filter_threshold=2,
        back_value=7,
        apertures=(4, 8),
        kron=(2, 3),
        petrosian=(1.5, 2.5),
        least_apertures=(1, 2),
        fractions=(0.2, 0.5),
        saturation=60000,
        gain=1.6,
        pixel_scale=0.187,
        zero_point=26,
        seeing=0.7,
        weight_type="rms",
        weight_threshold=1e20,
        flag_type="most",
    )
    assert same(found.settings, wanted) and found.warnings == ()


# What is not honoured, and what is wrong


@pytest.mark.parametrize(
    "text, said",
    [
        ("DETECT_TYPE PHOTO", "DETECT_TYPE PHOTO: pixels are taken as linear"),
        ("BACKPHOTO_TYPE LOCAL", "BACKPHOTO_TYPE LOCAL: the background of the map is subtracted"),
        ("WEIGHT_TYPE BACKGROUND", "WEIGHT_TYPE BACKGROUND: treated as NONE"),
        ("WEIGHT_TYPE NONE,MAP_WEIGHT", "WEIGHT_TYPE NONE,MAP_WEIGHT: one weight serves detection and measurement: NONE"),
        (
            "WEIGHT_TYPE MAP_RMS\nINTERP_TYPE NONE\nWEIGHT_GAIN N",
            "RESCALE_WEIGHTS is not given: MAP_RMS is taken as it stands",
        ),
        (
            "WEIGHT_TYPE MAP_WEIGHT\nINTERP_TYPE NONE\nWEIGHT_GAIN N\nRESCALE_WEIGHTS N",
            "RESCALE_WEIGHTS N: relative weights are always scaled",
        ),
        ("WEIGHT_TYPE MAP_WEIGHT\nWEIGHT_GAIN N", "INTERP_TYPE is not given: pixels without weight are left out"),
        ("WEIGHT_TYPE MAP_WEIGHT\nINTERP_TYPE NONE\nWEIGHT_GAIN Y", "WEIGHT_GAIN Y: one gain serves all pixels"),
        (
            "WEIGHT_TYPE MAP_WEIGHT\nINTERP_TYPE NONE\nWEIGHT_GAIN N\nWEIGHT_IMAGE a.fits,b.fits",
            "WEIGHT_IMAGE a.fits,b.fits: one weight",
        ),
        (
            "WEIGHT_TYPE MAP_WEIGHT\nINTERP_TYPE NONE\nWEIGHT_GAIN N\nWEIGHT_THRESH 0,1",
            "WEIGHT_THRESH 0,1: one weight .* 0 is used",
        ),
        ("BACK_TYPE MANUAL,AUTO", "BACK_TYPE MANUAL,AUTO: one background serves"),
        ("BACK_TYPE MANUAL\nBACK_VALUE 1,2", "BACK_VALUE 1,2: one background serves detection and measurement: 1 is used"),
        ("DGEO_TYPE PIXEL", "DGEO_TYPE PIXEL: no differential geometry map"),
        ("FITS_UNSIGNED Y", "FITS_UNSIGNED Y: whole numbers are what BITPIX and BZERO say"),
        ("WRITE_XML Y", "WRITE_XML Y: no XML file"),
        ("FILTER Y\nFILTER_THRESH 3", "FILTER_THRESH 3: there are no retina filters here"),
        ("CHECKIMAGE_TYPE IDENTICAL", "CHECKIMAGE_TYPE IDENTICAL: no IDENTICAL image is made"),
        ("CHECKIMAGE_TYPE SEGMENTATION\nCHECKIMAGE_NAME a,b", "CHECKIMAGE_NAME a,b: only 1 images are wanted"),
        ("CATALOG_NAME my cat.ldac", "CATALOG_NAME my,cat.ldac: it takes one value: my counts"),
        ("DETCT_THRESH 3", "DETCT_THRESH is passed over: SExtractor has no such keyword; is DETECT_THRESH meant?"),
        ("STARNNW_NAME my.nnw", "STARNNW_NAME my.nnw: no such file .* skyset's own classifier"),
    ],
)
def test_each_keyword_that_is_not_honoured_is_named(read, text, said):
    found = [line for line in read(text).warnings if "FILTER stands twice" not in line]
    assert len(found) == 1 and re.search(said, found[0])
    if "not given" not in said:
        assert re.search(r"x\.sex, line \d+: ", found[0])


@pytest.mark.parametrize(
    "text",
    [
        "MEMORY_PIXSTACK 300000",
        "VERBOSE_TYPE QUIET",
        "NTHREADS 4",
        "WRITE_XML N",
        "DETECT_TYPE CCD",
        "MAG_GAMMA 4.0",
        "ASSOC_NAME sky.list",
        "FILTER_THRESH",
        "WEIGHT_THRESH",
        "WEIGHT_IMAGE weight.fits",
        "BACKPHOTO_THICK 24",
        "DETECT_THRESH 1.5\nDETECT_THRESH 1.5",
        "FLAG_IMAGE flag.fits",
        "BACK_VALUE 0.0,0.0",
        "PSF_NAME default.psf",
    ],
)
def test_what_changes_nothing_is_not_spoken_of(read, text):
    found = read(text)
    assert found.warnings == () and same(found.settings, Settings(analysis_threshold=1.5, kernel=None))


@pytest.mark.parametrize(
    "text, message",
    [
        ("MASK_TYPE MAYBE", "x.sex, line 2: MASK_TYPE MAYBE: it is NONE, BLANK or CORRECT"),
        ("CLEAN maybe", "line 2: CLEAN maybe: it is Y or N"),
        ("WEIGHT_TYPE NONE,MAP", "line 2: WEIGHT_TYPE MAP: it is NONE, BACKGROUND, MAP_RMS, MAP_VAR or MAP_WEIGHT"),
        ("VERBOSE_TYPE LOUD", "VERBOSE_TYPE LOUD: it is QUIET"),
        ("CHECKIMAGE_TYPE SEG", "CHECKIMAGE_TYPE SEG: it is NONE, BACKGROUND"),
        ("DETECT_MINAREA x", "line 2: DETECT_MINAREA x: a whole number is meant"),
        ("DETECT_MINAREA 5.7", "DETECT_MINAREA 5.7: a whole number is meant"),
        ("DETECT_THRESH 1.5sigma", "DETECT_THRESH 1.5sigma: a number is meant"),
        ("GAIN nan", "GAIN nan: a number is meant"),
        ("DETECT_MINAREA 0", "line 2: DETECT_MINAREA is 0: it must be from 1 to"),
        ("GAIN -1", "line 2: GAIN is -1.0: it must be from 0"),
        ("DETECT_THRESH 0", "DETECT_THRESH is 0.0: it must be from"),
        ("DEBLEND_MINCONT 2", "DEBLEND_MINCONT is 2.0: it must be from 0 to 1"),
        ("BACK_SIZE 64,64,64", "BACK_SIZE has 3 values (64,64,64): it takes 1 to 2"),
        ("PHOT_AUTOPARAMS 2.5", "PHOT_AUTOPARAMS has 1 values (2.5): it takes 2"),
        ("MASK_TYPE NONE BLANK", "line 2: MASK_TYPE has 2 values (NONE,BLANK): it takes 1"),
        ("DETECT_THRESH -9999,25\nANALYSIS_THRESH 20,25", "DETECT_THRESH is"),
        ("GAIN 1 2", "GAIN has 2 values (1,2): it takes 1"),
        ("DETECT_THRESH", "line 2: DETECT_THRESH has no value"),
        ("CATALOG_NAME # none", "line 2: CATALOG_NAME has no value"),
        ("CHECKIMAGE_TYPE BACKGROUND,SEGMENTATION\nCHECKIMAGE_NAME a.fits", "2 images, CHECKIMAGE_NAME 1: a.fits"),
        ("FILTER Y\nFILTER_NAME gauss.conv", "line 3: FILTER_NAME gauss.conv: no such file"),
        ("PARAMETERS_NAME my.param", "line 2: PARAMETERS_NAME my.param: no such file in "),
        ("DETECT_THRESH 25,30\nANALYSIS_THRESH 1.5", "line 2: DETECT_THRESH 25,30 is in mag/arcsec2, ANALYSIS_THR"),
        ("ANALYSIS_THRESH 25,30", "line 2: ANALYSIS_THRESH 25,30 is in mag/arcsec2, DETECT_THRESH in units of the rms"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named_with_file_and_line(read, text, message):
    assert message in refused(read, text)


def test_weights_given_beside_a_configuration_are_relative_unless_it_says_otherwise(read):
    assert read("WEIGHT_TYPE NONE", weighted=True).settings.weight_type == "weight"
    assert read("WEIGHT_TYPE MAP_RMS", weighted=True).settings.weight_type == "rms"
    assert any("INTERP_TYPE is not given" in line for line in read("WEIGHT_TYPE NONE", weighted=True).warnings)
    assert read_config(weighted=True).warnings == ()


def test_files_that_are_no_configuration(tmp_path, real):
    for path, message in (
        (tmp_path / "no.sex", "no.sex: cannot be read as a .sex configuration: No such file"),
        (tmp_path, "a folder, not a regular file"),
        (real("extraction/sep_default.param"), "no keyword of SExtractor in it"),
        (real("extraction/sep_image.fits"), "no keyword of SExtractor in it"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            read_config(path)


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    text=st.lists(
        st.tuples(st.sampled_from([*KEYWORDS, "NUMBER", "WHAT"]), st.text("0189.,-+eENY $#\"'\\=;()\tMAP_", max_size=12))
    )
)
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "x.sex"
    path.write_text("\n".join(f"{key} {value}" for key, value in text))
    try:
        found = read_config(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all("\n" not in line for line in found.warnings)
        assert not any(key in ("NUMBER", "WHAT") for key, _ in text) or any("passed over" in line for line in found.warnings)


# Columns


def test_vectors_have_the_lengths_of_the_param_file(read):
    text = "PHOT_APERTURES 3,5,7\nPHOT_FLUXFRAC 0.2,0.5"
    found = read(text, param="FLUX_APER(2) # two\nMAG_APER( 2 )\nflux_radius\nVIGNET(21,11)\n# X_IMAGE\n")
    assert found.columns == ("FLUX_APER", "MAG_APER", "FLUX_RADIUS", "VIGNET") and found.warnings == ()
    assert (found.settings.apertures, found.settings.fractions, found.settings.vignet) == ((3, 5), (0.2,), (21, 11))
    assert read(text, param="FLUX_APER 3").settings.apertures == (3, 5, 7)  # as SExtractor reads it
    assert read(text, columns=["FLUX_APER", "FLUX_RADIUS(1)"]).settings.apertures == (3, 5, 7)


@pytest.mark.parametrize(
    "param, said",
    [
        ("FLUX_APER(5)", "FLUX_APER(5) has room for more values than PHOT_APERTURES gives: 5"),
        ("FLUX_RADIUS(2)", "FLUX_RADIUS(2) has room for more values than PHOT_FLUXFRAC gives: 0.5"),
        ("X_IMAGE(3)", "line 1: X_IMAGE is one number: the length (3,) is passed over"),
        ("X_IMAGE 60", "values after names are passed over: X_IMAGE 60 (line 1)"),
        ("X_IMAGE Y_IMAGE", "values after names are passed over: X_IMAGE Y_IMAGE (line 1)"),
    ],
)
def test_what_a_param_file_says_in_vain(read, param, said):
    [line] = read(param=param).warnings
    assert said in line


@pytest.mark.parametrize(
    "param, message",
    [
        ("", "x.param: no column is wanted in it"),
        ("# X_IMAGE", "no column is wanted in it"),
        ("X_IMAGE\nX_IMGAE", "not measured here: X_IMGAE (line 2; is X_IMAGE meant?)"),
        ("FLUX_RADIUS(0)", "line 1: FLUX_RADIUS(0): neither NAME nor NAME(length)"),
        ("FLUX_RADIUS(2", "line 1: FLUX_RADIUS(2: neither NAME nor NAME(length)"),
        ("FLUX_APER(2,3)", "FLUX_APER(2, 3): one length is meant"),
        ("VIGNET", "line 1: VIGNET has a width and a height, such as VIGNET(35,35)"),
        ("(3)", "line 1: (3): a column's name is meant"),
        ("MAG_MODEL", "MAG_MODEL (line 1; from a fit: see skyset.extraction.sersic)"),
    ],
)
def test_a_param_file_that_cannot_be_meant(read, param, message):
    assert message in refused(read, param=param)


def test_no_column_is_left(read):
    assert "none of the columns in it is measured here" in refused(read, param="NOTHING", skip_unknown=True)


def test_a_list_that_would_be_associated_is_spoken_of_once_its_columns_are_left_out(read):
    found = read("ASSOC_NAME sky.list", param="X_IMAGE\nVECTOR_ASSOC(2)", skip_unknown=True)
    assert any(line.startswith("ASSOC_*: no list is associated") for line in found.warnings)


def test_every_measured_column_can_be_asked_for(read):
    text = "\n".join(name + ("(5,5)" if name == "VIGNET" else "") for name in COLUMNS)
    found = read("FLAG_IMAGE flags.fits", param=text)
    assert found.columns == tuple(COLUMNS) and found.warnings == () and found.flag_image.name == "flags.fits"


def test_the_classifier_is_a_users_file_where_it_is_wanted(read, tmp_path):
    (tmp_path / "my.nnw").write_text("NNW\n")
    assert read("STARNNW_NAME my.nnw").classifier == tmp_path / "my.nnw"
    assert read("STARNNW_NAME my.nnw", param="X_IMAGE").classifier is None
    found = read("STARNNW_NAME nowhere.nnw", param="X_IMAGE")
    assert found.classifier is None and found.warnings == ()


# An image's header


def sky(scale: float = 0.2, **more) -> fits.Header:
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 1.0, "CRPIX2": 1.0}
    return fits.Header(wcs | {"NAXIS": 2, "NAXIS1": 9, "NAXIS2": 9, "CDELT1": -scale / 3600, "CDELT2": scale / 3600} | more)


def test_the_header_comes_before_gain_and_saturation(read):
    found = read("GAIN 2\nSATUR_LEVEL 555")
    assert (found.for_header(fits.Header()).gain, found.for_header(fits.Header()).saturation) == (2, 555)
    one = found.for_header(fits.Header({"GAIN": 1.62, "SATURATE": 65000}))
    assert (one.gain, one.saturation) == (1.62, 65000)
    named = read("GAIN_KEY GAINEFF\nSATUR_KEY SATLEV\nGAIN 2").for_header(
        fits.Header({"GAIN": 9, "GAINEFF": 1.5, "SATLEV": 1e4})
    )
    assert (named.gain, named.saturation) == (1.5, 1e4)


def test_a_header_that_cannot_be_meant(read):
    for value, said in (
        ("'high'", "'high', no number"),
        ("NaN", "'NaN', no number"),
        ("1,5", "'1,5', no number"),
        ("1.5 e-", "'1.5 e-', no number"),
        ("-2.0", "-2.0, which cannot be meant"),
        ("1E999", "inf, no number"),
        ("", "blank, no number"),
        ("T", "True, no number"),
        ("1E31", "1e+31, which cannot be meant"),
    ):
        card = f"GAIN    = {value}"
        header = fits.Header.fromstring(card.ljust(80))
        with pytest.warns(UserWarning, match=re.escape(f"the header's GAIN is {said}: 2 is used")):
            assert read("GAIN 2").for_header(header).gain == 2
    for card in ("SATURATE= inf", "SATURATE= NaN", "SATURATE= 0", "SATURATE= -1.0"):
        with pytest.warns(UserWarning, match="the header's SATURATE is .*: 555 is used"):
            assert read("SATUR_LEVEL 555").for_header(fits.Header.fromstring(card.ljust(80))).saturation == 555


@pytest.mark.parametrize("card", ["GAIN    = 1.5D+02", "GAIN    = 1.5d2", "GAIN    = '150.0   '", "GAIN    = 150 / e-"])
def test_numbers_of_a_header_however_they_are_written(read, card):
    """In quotes too, as SExtractor 2.25 reads them."""
    assert read("GAIN 2").for_header(fits.Header.fromstring(card.ljust(80))).gain == 150


def test_a_wcs_with_pixels_of_no_size_has_scale_one(read, monkeypatch):
    monkeypatch.setattr(config, "pixel_scale", lambda header: 1e-12)
    with pytest.warns(UserWarning, match="the WCS has pixels of .* arcsec, which cannot be meant: 1 is used"):
        assert read("PIXEL_SCALE 0").for_header(sky()).pixel_scale == 1


def test_pixel_scale_from_the_header(read):
    assert pixel_scale(sky(0.187)) == pytest.approx(0.187, rel=1e-6)
    assert pixel_scale(fits.Header()) == 0
    assert pixel_scale(fits.Header({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR", "CDELT1": 3.0})) == 0
    assert pixel_scale(sky(CTYPE1="RA---XXX")) == 0
    turned = sky(0.3, PC1_1=0.6, PC1_2=-0.8, PC2_1=0.8, PC2_2=0.6, CRVAL1=359.9999, CRVAL2=-85.0)
    assert pixel_scale(turned) == pytest.approx(0.3, rel=1e-6)
    swapped = {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 60.0, "CRVAL2": 10.0}
    assert pixel_scale(sky(0.3) + fits.Header(swapped)) == pytest.approx(0.3, rel=1e-6)
    assert read("PIXEL_SCALE 0").for_header(sky(0.187)).pixel_scale == pytest.approx(0.187)
    assert read("PIXEL_SCALE 0.3").for_header(sky(0.187)).pixel_scale == 0.3
    assert read("PIXEL_SCALE 1.0").for_header(sky(0.187)).pixel_scale == 1
    assert read("GAIN 2").for_header(sky(0.187)).pixel_scale == pytest.approx(0.187)  # nobody gave one
    assert (read("GAIN 2").settings.seeing, read("GAIN 2").settings.fwhm) == (None, 1.2)


def test_pixel_scale_is_sextractors_for_a_megacam_image_with_distortions(real):
    """SEXPXSCL of SExtractor 2.25.0 for the same files; the scale at the reference point is 0.1 % off."""
    for name, wanted in (("ossos_cutout-1616687p", 0.185849154007), ("ossos_cutout-1616690p", 0.1869470378935)):
        assert pixel_scale(fits.getheader(real(f"megacam/{name}.fits"))) == pytest.approx(wanted, rel=2e-6)


def test_thresholds_in_surface_brightness_are_counts_a_pixel(read):
    """SExtractor 2.25: DETECT_THRESH 20,25 is 100 counts at 1 arcsec, 400 at 2 arcsec."""
    both = "DETECT_THRESH 20,25\nANALYSIS_THRESH 21,25\n"
    for text, header, counts in (
        ("PIXEL_SCALE 1", sky(), 100),
        ("PIXEL_SCALE 2", sky(), 400),
        ("PIXEL_SCALE 0", sky(0.5), 25),
    ):
        found = read(both + text).for_header(header)
        assert found.absolute and found.threshold == pytest.approx(counts, rel=1e-6)
        assert found.analysis == pytest.approx(counts * 10**-0.4, rel=1e-6)
    alone = read("DETECT_THRESH 20,25")
    assert alone.for_header(sky()).analysis == pytest.approx(100 * 0.2**2, rel=1e-6)  # of the WCS's pixels
    assert "ANALYSIS_THRESH is not given: it follows DETECT_THRESH" in alone.warnings[0]
    assert "PIXEL_SCALE is not given: thresholds in mag/arcsec2 are those of the WCS's pixels" in alone.warnings[1]
    assert alone.for_header(fits.Header()).threshold == pytest.approx(100)
    mixed = read("DETECT_THRESH 20,25\nANALYSIS_THRESH 40\nTHRESH_TYPE ABSOLUTE\nPIXEL_SCALE 1").for_header(sky())
    assert (mixed.threshold, mixed.analysis) == (pytest.approx(100), 40)


# How the files are written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_however_an_editor_wrote_them(read, tmp_path, encoding, end):
    """\\x85 of cp1252 is three dots, and no end of a line: DETECT_MINAREA behind it is part of a comment."""
    comment = "# gemäß Übung" + (" \u2026 DETECT_MINAREA 99" if encoding != "latin-1" else "")
    names = ["PARAMETERS_NAME x.param", "FILTER_NAME x.conv", "STARNNW_NAME x.nnw"]
    texts = {
        "x.sex": ["DETECT_THRESH 20", comment, *names],
        "x.param": ["X_IMAGE " + comment, "CLASS_STAR"],
        "x.conv": ["CONV NONORM", comment, "0 1 0", "1 2 1", "0 1 0"],
    }
    for name, lines in texts.items():
        (tmp_path / name).write_bytes(end.join([*lines, ""]).encode(encoding))
    (tmp_path / "x.nnw").write_bytes(b"")
    found = read_config(tmp_path / "x.sex")
    assert (found.settings.threshold, found.settings.minarea, found.columns) == (20, 5, ("X_IMAGE", "CLASS_STAR"))
    assert found.settings.kernel.tolist() == [[0, 1, 0], [1, 2, 1], [0, 1, 0]] and found.classifier == tmp_path / "x.nnw"
    assert found.warnings == ()


@pytest.mark.parametrize("value", ["7", "7.0", "7.", "+7", "0.7e1", "70E-1"])
def test_whole_numbers_as_a_script_prints_them(read, value):
    keys = ("DETECT_MINAREA", "BACK_SIZE", "BACK_FILTERSIZE", "DEBLEND_NTHRESH")
    one = read("\n".join(f"{key} {value}" for key in keys)).settings
    assert (one.minarea, one.back_size, one.back_filter, one.deblend_nthresh) == (7, (7, 7), (7, 7), 7)
    assert read(f"BACK_SIZE 64.0,{value}").settings.back_size == (64, 7)


@pytest.mark.parametrize("value", ["5.5", "nan", "inf", "1_0", "five", "5.0.0", "0x5", "1e300", "9" * 5000])
def test_what_is_no_whole_number(read, value):
    assert "DETECT_MINAREA" in refused(read, f"DETECT_MINAREA {value}")


def test_sextractors_own_columns_uncommented(read, real):
    """All of its default.param, nearly 400: what is measured is wanted, what is not is named with its line."""
    lines = real("extraction/sextractor_default.param").read_text().splitlines()
    lines = [line for line in lines if line.strip("# ")]
    names = [line.lstrip("#").split()[0] for line in lines]
    text = "\n".join(line.lstrip("#") for line in lines)
    found = read("FLAG_IMAGE flags.fits", param=text, skip_unknown=True)
    assert list(found.columns) == [name for name in names if name in COLUMNS and name != "VIGNET"]
    assert len(found.columns) > 90
    [said] = [line for line in found.warnings if "left out, for they are not measured here" in line]
    left = [name for name in names if name not in found.columns]
    where = {name: number for number, name in enumerate(names, 1)}
    assert len(left) > 200 and [name for name in left if f"{name} (line {where[name]}" not in said] == []
    assert "VIGNET (line " in said and "such as VIGNET(35,35)" in said
    assert not any("values after names" in line for line in found.warnings)
    message = refused(read, param="\n".join(line.lstrip("#") for line in lines if "VIGNET" not in line))
    assert "FLUX_ISOCOR (line 7)" in message and message.endswith("more. --skip_unknown leaves them out")


@pytest.mark.parametrize(
    "line", ["POLAR_IMAGE  (A_IMAGE^2 - B_IMAGE^2)/(A_IMAGE^2 + B_IMAGE^2)", "MAG_APER  Fixed aperture magnitudes  [mag]"]
)
def test_a_description_behind_a_name_is_passed_over(read, line):
    found = read(param=line)
    assert found.columns == (line.split()[0],) and found.warnings == ()
    assert read("PHOT_APERTURES 3,5", param="FLUX_APER (2)").settings.apertures == (3, 5)


@pytest.mark.parametrize(
    "line", ["DETECT_MINAREA {0}", "WHAT{0} 3", "# comment {0}", "\\", "WHAT \\", "GAIN {0} \\\n", '"', "'\""]
)
def test_long_files_take_time_in_proportion(read, line):
    """30,000 lines; what is said of them stays short."""
    found = read("\n".join(line.format(number % 50 + 1) for number in range(30_000)) + "\n\nDETECT_THRESH 7\n")
    assert len(found.warnings) < 60 and sum(map(len, found.warnings)) < 20_000
    assert found.settings.threshold == 7


def test_long_param_files_too(read):
    found = read(param="X_IMAGE\n" + "".join(f"WHAT{number}\n" for number in range(30_000)), skip_unknown=True)
    assert found.columns == ("X_IMAGE",) and "WHAT499 (line 501)" in found.warnings[0] and "29500 more" in found.warnings[0]
    assert len(found.warnings[0]) < 20_000


def test_what_no_file_can_be_or_hold(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "x\0y", "n" * 3000):
        with pytest.raises(UserError):
            read_config(tmp_path / name)
    assert "vignet is (65535, 65535): it must have at most 1,048,576 pixels" in refused(read, param="VIGNET(65535,65535)")
    assert "neither NAME nor NAME(length)" in refused(read, param="FLUX_APER(" + "9" * 5000 + ")")
    assert "PIXEL_SCALE is 1e-300" in refused(read, "PIXEL_SCALE 1e-300")


@pytest.mark.parametrize("which", ["[WHT]", "[SCI,2]", "[2]", "[0][1]"])
def test_an_image_of_a_file_keeps_its_brackets(read, tmp_path, which):
    (tmp_path / "w.fits").touch()
    found = read(f"WEIGHT_TYPE MAP_WEIGHT\nWEIGHT_IMAGE w.fits{which}\nFLAG_IMAGE no.fits{which}", param="IMAFLAGS_ISO")
    assert str(found.weight) == f"{tmp_path / 'w.fits'}{which}" and str(found.flag_image) == f"no.fits{which}"


def test_the_seeing_may_be_measured():
    assert read_config(None, overrides=[("SEEING_FWHM", "auto")]).settings.seeing == 0
    assert read_config(None, overrides=[("SEEING_FWHM", "0.7")]).settings.seeing == 0.7
    assert Settings(seeing="AUTO").seeing == 0
    with pytest.raises(UserError, match="SEEING_FWHM often: a number is meant"):
        read_config(None, overrides=[("SEEING_FWHM", "often")])


@pytest.mark.parametrize("key", ["GAIN", "gain", "ESO DET OUT1 CONAD"])
def test_the_gain_is_found_by_any_keyword_of_the_header(key):
    header = fits.Header.fromstring(
        f"{'GAIN    =                  2.5':80}{'HIERARCH ESO DET OUT1 CONAD = 2.5 / e-/ADU':80}{'SATURATE= 50000':80}"
    )
    settings = dataclasses.replace(read_config(None), gain_key=key).for_header(header)
    assert (settings.gain, settings.saturation) == (2.5, 50000)
