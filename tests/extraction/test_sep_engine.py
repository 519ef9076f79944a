"""The engine sep: as the compiled one to the tolerances that docs/extraction_engines.md states, and without numba."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as how_often
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.extraction import sep_engine
from skyset.extraction.columns import COLUMNS, DEFAULT
from skyset.extraction.detect import Measured, extract, measure
from skyset.extraction.engines import default_engine, load_engine
from skyset.extraction.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "extraction_engines.md"
HOW = Settings(threshold=2.0, seeing=0.7, pixel_scale=0.187, zero_point=34.9, gain=1.6, saturation=6e4)
PLACES = ("X_IMAGE_DBL", "Y_IMAGE_DBL")
#: Of sources with FLAGS 0: the share that agrees, and how closely: in the column's unit, or relative where it ends with %.
AGREEMENT = {
    "X_IMAGE Y_IMAGE X_IMAGE_DBL Y_IMAGE_DBL": (0.99, "0.001"),
    "XWIN_IMAGE YWIN_IMAGE": (0.96, "0.01"),
    "XPEAK_IMAGE YPEAK_IMAGE": (0.99, "0"),
    "XMIN_IMAGE YMIN_IMAGE XMAX_IMAGE YMAX_IMAGE": (0.93, "0"),
    "X2_IMAGE Y2_IMAGE XY_IMAGE": (0.98, "0.002"),
    "CXX_IMAGE CYY_IMAGE": (0.98, "0.1%"),
    "CXY_IMAGE": (0.98, "0.001"),
    "A_IMAGE B_IMAGE ELONGATION ELLIPTICITY POLAR_IMAGE FWHM_IMAGE": (0.98, "0.001"),
    "THETA_IMAGE ERRTHETA_IMAGE": (0.98, "0.01"),
    "ERRX2_IMAGE ERRY2_IMAGE ERRA_IMAGE ERRB_IMAGE": (0.98, "0.1%"),
    "ERRXY_IMAGE": (0.98, "0.0001"),
    "ISOAREA_IMAGE ISO0 ISO1 ISO2 ISO3 ISO4 ISO5 ISO6 ISO7": (0.98, "0"),
    "ISOAREAF_IMAGE": (0.9, "0"),
    "FLUX_ISO FLUXERR_ISO": (0.9, "0.1%"),
    "MAG_ISO MAGERR_ISO": (0.9, "0.001"),
    "FLUX_MAX BACKGROUND THRESHOLD": (0.99, "0.1%"),
    "MU_MAX MU_THRESHOLD": (0.99, "0.001"),
    "KRON_RADIUS FLUX_RADIUS": (0.95, "1%"),
    "FLUX_AUTO FLUXERR_AUTO": (0.95, "1%"),
    "MAG_AUTO MAGERR_AUTO": (0.95, "0.01"),
    "FLUX_APER FLUXERR_APER": (0.95, "0.5%"),
    "MAG_APER MAGERR_APER": (0.95, "0.005"),
    "CLASS_STAR": (0.95, "0.01"),
}


def field(shape: tuple[int, int] = (400, 420), sources: int = 90) -> np.ndarray:
    """Round and long Gaussians on noise of 5 counts, some of which touch; without numba."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(100, 5, shape)
    for _ in range(sources):
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        angle, long, short = rng.uniform(0, np.pi), rng.uniform(2, 4), rng.uniform(1.5, 2)
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        image += rng.uniform(50, 2000) * np.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2))
    return image.astype(np.float32)


def pairs(one: Measured, other: Measured) -> tuple[np.ndarray, np.ndarray]:
    """The rows of sources that both found, within half a pixel."""
    here, there = (np.stack([each.columns[name] for name in PLACES], 1) for each in (one, other))
    apart = np.hypot(*(here[:, None] - there).transpose(2, 0, 1))
    near = apart.argmin(1)
    rows = np.flatnonzero((apart.min(1) < 0.5) & (apart.argmin(0)[near] == np.arange(len(near))))
    return rows, near[rows]


def shares(one: Measured, other: Measured, names: dict) -> tuple[float, dict[str, float]]:
    """The share of sources that both found; of these with FLAGS 0 in both the share that agrees, by column."""
    rows, near = pairs(one, other)
    clean = (one.columns["FLAGS"][rows] == 0) & (other.columns["FLAGS"][near] == 0)
    out = {}
    for group, (_, tolerance) in names.items():
        for name in group.split():
            ours, theirs = one.columns[name][rows][clean].astype(float), other.columns[name][near][clean].astype(float)
            relative = tolerance.endswith("%")
            limit = float(tolerance.rstrip("%")) / (100 if relative else 1) * (np.abs(ours) if relative else 1)
            apart = np.abs(ours - theirs)
            if "THETA" in name:
                apart = np.minimum(apart, 180 - apart)
            out[name] = float(np.mean((apart <= limit + 1e-12).reshape(len(apart), -1).all(1)))
    return len(rows) / max(len(one), len(other)), out


def test_they_agree_on_a_simulated_field():
    pytest.importorskip("numba")
    from skyset.extraction.simulate import simulate_ccd

    check_agreement(simulate_ccd(seed=3, shape=(1000, 1000)).image, HOW)


def test_they_agree_on_a_real_field(real):
    pytest.importorskip("numba")
    image = fits.getdata(real("extraction/sep_image.fits"))
    check_agreement(image, dataclasses.replace(HOW, threshold=1.5, gain=2.0), slack=0.05)


def check_agreement(image: np.ndarray, how: Settings, slack: float = 0.0) -> None:
    names = [name for group in AGREEMENT for name in group.split()]
    ours, seps = (measure(image, how, [*names, "FLAGS"], engine=engine) for engine in ("compiled", "sep"))
    both, found = shares(ours, seps, AGREEMENT)
    assert both > 0.99
    least = {name: share for group, (share, _) in AGREEMENT.items() for name in group.split()}
    assert not {name: share for name, share in found.items() if share < least[name] - slack}
    rows, near = pairs(ours, seps)
    assert np.mean(ours.columns["FLAGS"][rows] == seps.columns["FLAGS"][near]) > 0.98


def table_of(heading: str) -> list[list[str]]:
    """The rows of the table below a heading of the document, without its head."""
    text = DOCUMENT.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]


def named(cell: str) -> list[str]:
    return re.findall(r"`([A-Z0-9_]+)`", cell)


def test_the_document_says_where_each_column_comes_from():
    table = {source.strip("`"): named(columns) for source, columns in table_of("Which column comes from where")}
    refused = table.pop("not with sep")
    assert {source: tuple(names) for source, names in table.items()} == sep_engine.COLUMNS
    assert refused == [name for name in COLUMNS if name not in sep_engine.MEASURED]


def test_the_document_says_how_closely_they_agree():
    table = {" ".join(named(columns)): within for columns, within, *_ in table_of("How they agree")}
    parts = {columns: within.replace("the same", "0").split() for columns, within in table.items()}
    numbers = {columns: number + "%" * (unit == ["%"]) for columns, (number, *unit) in parts.items()}
    assert numbers == {columns: tolerance for columns, (_, tolerance) in AGREEMENT.items()}
    stated = {name for columns in AGREEMENT for name in columns.split()}
    others = {"NUMBER", "EXT_NUMBER", "FLAGS", "IMAFLAGS_ISO", "NIMAFLAGS_ISO"}  # numbers of rows, and flags
    sky = {name for name in sep_engine.MEASURED if COLUMNS[name].stage == "world"}
    assert stated | others | sky == sep_engine.MEASURED


#: For each setting a value that changes what is measured.
CHANGED = {
    "threshold": 4.0,
    "analysis_threshold": 1.0,
    "absolute": True,
    "minarea": 80,
    "maxarea": 60,
    "kernel": None,
    "normalise_kernel": False,
    "deblend_nthresh": 1,
    "deblend_cont": 0.5,
    "clean": None,
    "mask_type": "blank",
    "back_size": (50, 80),
    "back_filter": (5, 1),
    "back_filter_threshold": 100.0,
    "back_value": 98.0,
    "apertures": (4.0, 9.0),
    "kron": (2.0, 5.0),
    "petrosian": (3.0, 1.0),
    "least_apertures": (30.0, 25.0),
    "fractions": (0.2, 0.8),
    "saturation": 500.0,
    "gain": 0.5,
    "pixel_scale": 0.4,
    "zero_point": 20.0,
    "seeing": 1.4,
    "weight_type": "rms",
    "weight_threshold": 4.0,
    "flag_type": "min",
    "vignet": (5, 5),
}
REFUSED = {"maxarea": "DETECT_MAXAREA 60", "normalise_kernel": "CONV NONORM"}
#: What some of these need to matter.
TOGETHER = {"absolute": {"threshold": 20.0}, "clean": {"threshold": 1.0}}
#: Only columns that are not to be had hang on these.
WITHOUT_EFFECT = ("petrosian", "vignet")


def test_each_setting_is_decided_on():
    assert set(CHANGED) == {one.name for one in dataclasses.fields(Settings)}


@pytest.mark.parametrize("name", [name for name in CHANGED if name not in WITHOUT_EFFECT])
def test_each_setting_is_honoured_or_refused(name):
    image = field()
    base = dataclasses.replace(HOW, **TOGETHER.get(name, {}))
    how = dataclasses.replace(base, **{name: CHANGED[name]})
    weight = np.linspace(3, 8, image.size, dtype=np.float32).reshape(image.shape) if "weight" in name else None
    flags = (image > 200).astype(np.int16) + 2 * (image > 400).astype(np.int16)
    columns = [
        *PLACES,
        "FLAGS",
        "FLUX_AUTO",
        "FLUXERR_AUTO",
        "MAG_AUTO",
        "FLUX_APER",
        "FLUX_RADIUS",
        "ISO0",
        "BACKGROUND",
        "ISOAREAF_IMAGE",
        "MU_MAX",
        "CLASS_STAR",
        "THRESHOLD",
        "KRON_RADIUS",
        "IMAFLAGS_ISO",
        "A_IMAGE",
    ]
    given = {"weight": weight, "flag_image": flags}
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            measure(image, how, columns, engine="sep", **given)
        return
    pytest.importorskip("numba")
    before, ours = (measure(image, one, columns, engine="compiled", **given) for one in (base, how))
    theirs = measure(image, how, columns, engine="sep", **given)
    assert not all(np.array_equal(before.columns[name], ours.columns[name]) for name in columns), "no effect"
    both, found = shares(ours, theirs, {" ".join(columns[3:]): (0, "2%")})
    assert both > 0.95
    assert min(found.values()) > 0.85, found


def test_absolute_thresholds_with_weights_are_refused():
    image = field()
    with pytest.raises(UserError, match="THRESH_TYPE ABSOLUTE"):
        measure(image, Settings(absolute=True, threshold=20), ["X_IMAGE"], weight=np.ones_like(image), engine="sep")


def test_what_is_not_to_be_had_is_named_all_at_once():
    with pytest.raises(UserError) as caught:
        measure(field(), Settings(maxarea=9), ["X_IMAGE", "VIGNET", "PETRO_RADIUS"], check=["FILTERED"], engine="sep")
    said = str(caught.value)
    assert said.startswith(f"engine sep {sep.__version__} does not measure VIGNET, PETRO_RADIUS; ")
    assert "makes no check image FILTERED; has no largest area (DETECT_MAXAREA 9)" in said
    assert "engine compiled" in said and "\n" not in said
    with pytest.raises(ValueError, match="engine is 'sex': it is one of compiled, sep"):
        extract(field(), engine="sex")


# Without numba


def command(*arguments: str, folder: Path, missing: str = "numba") -> subprocess.CompletedProcess:
    """`skyset` in a Python that has not a package."""
    code = f"import sys; sys.modules[{missing!r}] = None; from skyset.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path) -> Path:
    fits.writeto(tmp_path / "image.fits", field())
    both = [fits.PrimaryHDU(), fits.ImageHDU(field()), fits.ImageHDU(field()[::-1])]
    fits.HDUList(both).writeto(tmp_path / "mosaic.fits")
    return tmp_path


@pytest.mark.datasets3
@pytest.mark.parametrize("engine", ([], ["--engine", "sep"]))
def test_the_command_needs_no_numba(folder, engine):
    done = command("extract", "image.fits", *engine, "-o", "sources.csv", "--seeing", "1", folder=folder)
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(rf"(\d+) sources, \S+ s, engine sep {sep.__version__}: wrote sources\.csv\n", done.stdout)
    assert "PETRO_RADIUS: left out, for engine sep" in done.stderr and "Traceback" not in done.stderr
    lines = (folder / "sources.csv").read_text().splitlines()
    assert len(lines) == int(said[1]) + 1 > 50
    assert lines[0].replace('"', "").split(",") == [name for name in DEFAULT if name != "PETRO_RADIUS"]


@pytest.mark.datasets3
def test_what_needs_numba_says_so(folder):
    for arguments in (["--engine", "compiled"], ["--columns", "X_IMAGE,SNR_WIN"]):
        done = command("extract", "image.fits", *arguments, "-o", "sources.csv", folder=folder)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert "pip install 'skyset-surveys[extraction]'" in line
    assert "SNR_WIN" in line
    assert not (folder / "sources.csv").exists()


@pytest.mark.datasets3
def test_extensions_in_processes_of_their_own(folder):
    done = command(
        "extract",
        "mosaic.fits",
        "--processes",
        "2",
        "-o",
        "a.ldac",
        "--columns",
        "X_IMAGE,MAG_AUTO,SNR_WIN",
        "--skip_unknown",
        "--check",
        "segmentation.fits,background.fits,apertures.fits",
        "--engine",
        "sep",
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "in 2 extensions" in done.stdout and "warning: SNR_WIN: left out" in done.stderr
    with fits.open(folder / "segmentation.fits") as maps, fits.open(folder / "a.ldac") as tables:
        for k in (1, 2):
            assert maps[k].data.max() == len(tables[2 * k].data) > 50
        header = "\n".join(tables[1].data[0][0].reshape(-1).tolist())
        assert re.search(rf"SEXENGIN= 'sep {sep.__version__}'", header)


def test_a_missing_sep_is_one_sentence(folder):
    done = command("extract", "image.fits", "--engine", "sep", folder=folder, missing="sep")
    assert (done.returncode, done.stderr) == (2, "skyset: engine sep needs sep: pip install 'sep>=1.4'\n")


def test_parts_that_need_numba_say_how_to_get_it():
    code = "import sys; sys.modules['numba'] = None; from skyset.extraction.sersic import fit_sersic"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = "MissingPackage: this part of skyset.extraction needs numba: pip install 'skyset-surveys[extraction]'"
    assert done.stderr.splitlines()[-1].endswith(wanted)


def test_the_default_is_compiled_where_numba_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert default_engine() == "sep" and load_engine() is sep_engine


# What measured is said


def test_tables_say_the_engine():
    title = f"sep {sep.__version__}"
    table = extract(field(), engine="sep", columns=["X_IMAGE"])
    assert table.meta["engine"] == title
    assert extract(field(), engine="sep", columns=["X_IMAGE"], output="arrow").schema.metadata[b"engine"] == title.encode()
    assert extract(field(), engine="sep", threshold=3.0, seeing=1.0, pixel_scale=0.2).colnames == [
        name for name in DEFAULT if name != "PETRO_RADIUS"
    ]


@pytest.mark.parametrize("name", ("a.fits", "a.parquet", "a.vot"))
def test_catalogues_say_the_engine(folder, monkeypatch, name):
    from skyset.cli import main

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", f"skyset extract image.fits --engine sep -o {name} --columns X_IMAGE".split())
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert f"sep {sep.__version__}".encode() in (folder / name).read_bytes()


# Whatever the image


COLUMNS_OF_ALL = [
    *PLACES,
    "FLUX_AUTO",
    "FLUX_APER",
    "FLUX_RADIUS",
    "XWIN_IMAGE",
    "FWHM_IMAGE",
    "ISO0",
    "FLAGS",
    "ERRA_IMAGE",
]


@pytest.mark.parametrize("kind", (">f4", "<f8", ">f8", ">i2", "u2", ">i8", "fortran", "strided", "read-only"))
def test_any_array_will_do(kind):
    whole = np.round(field((150, 160), 20))
    wanted = measure(whole.copy(), HOW, COLUMNS_OF_ALL, engine="sep")
    if kind == "fortran":
        image = np.asfortranarray(whole)
    elif kind == "strided":
        image = np.repeat(whole, 2, 1)[:, ::2]
    elif kind == "read-only":
        image = np.frombuffer(whole.tobytes(), "f4").reshape(whole.shape)
    else:
        image = whole.astype(kind)
    found = measure(image, HOW, COLUMNS_OF_ALL, engine="sep")
    assert len(found) > 10
    for name in COLUMNS_OF_ALL:
        np.testing.assert_array_equal(found.columns[name], wanted.columns[name], name)


def test_pixels_without_a_number_and_masked_ones_are_not_used():
    image = field()
    clean = measure(image, HOW, COLUMNS_OF_ALL, engine="sep")
    image[100:104], image[:, 7] = np.nan, np.inf
    image[200, 200] = 1e6
    mask = np.zeros(image.shape, bool)
    mask[200, 200] = True
    found = measure(image, HOW, COLUMNS_OF_ALL, mask=mask, engine="sep")
    assert all(np.isfinite(values.astype(float)).all() for values in found.columns.values())
    assert len(pairs(clean, found)[0]) > 0.9 * len(clean)
    near_them = np.abs(found.columns["Y_IMAGE_DBL"] - 103) < 3
    assert (found.columns["FLAGS"][near_them] & 32 > 0).all() and near_them.any()


@pytest.mark.parametrize(
    "pixels, said",
    [(np.full((40, 50), np.nan), "no usable pixels"), (np.full((40, 50), 7.0), "no noise"), (np.ones((1, 1)), "no noise")],
)
def test_images_without_anything_have_no_sources(pixels, said):
    with pytest.warns(UserWarning, match=said):
        found = measure(pixels, HOW, COLUMNS_OF_ALL, check=["SEGMENTATION", "BACKGROUND"], engine="sep")
    assert len(found) == 0 and found.check["SEGMENTATION"].shape == pixels.shape


@pytest.mark.parametrize("shape", ((1, 200), (200, 1), (3, 3), (9, 7), (65, 65)))
def test_images_smaller_than_a_mesh(shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(field()[: shape[0], : shape[1]], dataclasses.replace(HOW, minarea=1), COLUMNS_OF_ALL, engine="sep")
    assert all(np.isfinite(values.astype(float)).all() for values in found.columns.values())


@how_often(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    kind=st.sampled_from(("spikes", "nan", "steps", "huge")),
    mask_type=st.sampled_from(("correct", "blank", "none")),
)
def test_no_image_breaks_it(seed, rows, columns, kind, mask_type):
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (rows, columns))
    image[rng.random(image.shape) < 0.1] = {"spikes": 1e4, "nan": np.nan, "steps": 50.0, "huge": 1e38}[kind]
    how = Settings(threshold=1.5, minarea=1, mask_type=mask_type)
    wanted = [name for name in sep_engine.MEASURED if COLUMNS[name].stage not in ("world", "external")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure(image, how, wanted, check=sep_engine.MADE, engine="sep")
    assert found.check["SEGMENTATION"].max() == len(found)
    for name in ("X_IMAGE", "Y_IMAGE", "A_IMAGE", "FLUX_AUTO"):
        assert np.isfinite(found.columns[name]).all()
    assert (found.columns["X_IMAGE"] > 0).all() and (found.columns["X_IMAGE"] < columns + 1).all()


@pytest.mark.parametrize("scale", (1e-28, 1e-6, 1e6, 1e20))
def test_any_unit_of_light_will_do(scale):
    image = field((200, 210), 40)
    how = dataclasses.replace(HOW, gain=HOW.gain / scale, saturation=1e29)
    one, other = (
        measure(image * np.float32(unit), each, [*COLUMNS_OF_ALL, "FLUXERR_AUTO", "FLUX_ISO"], engine="sep")
        for unit, each in ((1, dataclasses.replace(HOW, saturation=1e29)), (scale, how))
    )
    for name in one.columns:
        unit = scale if name.startswith("FLUX") and name != "FLUX_RADIUS" else 1
        np.testing.assert_allclose(other.columns[name] / unit, one.columns[name], rtol=2e-3, atol=1e-3, err_msg=name)


def test_crowds_get_the_room_that_they_need(monkeypatch):
    image, before = field(), (sep.get_extract_pixstack(), sep.get_sub_object_limit())
    wanted = measure(image, HOW, COLUMNS_OF_ALL, engine="sep")
    monkeypatch.setattr(sep_engine, "_PIXELS", 1000)
    sep.set_extract_pixstack(1000)
    try:
        found = measure(image, HOW, COLUMNS_OF_ALL, engine="sep")
        assert sep.get_extract_pixstack() == 1000
    finally:
        sep.set_extract_pixstack(before[0])
    assert len(found) == len(wanted)
    rng = np.random.default_rng(0)
    pile = np.full((200, 200), 20.0, np.float32)
    pile[rng.integers(0, 200, 6000), rng.integers(0, 200, 6000)] += rng.uniform(20, 90, 6000).astype(np.float32)
    how = Settings(absolute=True, threshold=10, back_value=0, kernel=None, minarea=1, deblend_cont=0, clean=None)
    assert len(measure(pile, how, ["X_IMAGE"], engine="sep")) > 1024
    assert sep.get_sub_object_limit() == before[1]
    monkeypatch.setattr(sep_engine, "_MOST_PARTS", 1024)
    with pytest.raises(UserError, match=r"engine sep: object deblending overflow.*a higher threshold, or engine compiled"):
        measure(pile, how, ["X_IMAGE"], engine="sep")


def test_sources_are_in_the_order_of_a_scan():
    found = measure(field(), HOW, ["NUMBER", "YMIN_IMAGE", "X_IMAGE"], check=["SEGMENTATION"], engine="sep")
    numbers = found.check["SEGMENTATION"].ravel()
    first = [np.flatnonzero(numbers == number)[0] for number in found.columns["NUMBER"]]
    assert (np.diff(first) > 0).all()
    assert (np.array(first) // 420 + 1 == found.columns["YMIN_IMAGE"]).all()
