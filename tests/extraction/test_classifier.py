"""Star or galaxy: features from isophotes, our network, and SExtractor's by a default.nnw."""

import hashlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.extraction import classifier
from skyset.extraction.simulate import moffat_psf, simulate_ccd

SEEING = {"seeing": 0.7, "pixel_scale": 0.187}
NNW = "/usr/share/source-extractor/default.nnw"


def profile(width: float, peak: float = 50.0, threshold: float = 1.0, slope: float = 1.0) -> dict[str, np.ndarray]:
    """What is measured of a circular source peak x exp(-(r / width)^(2 slope)), without noise."""
    level = (peak / threshold) ** (np.arange(8) / 8) * threshold
    areas = np.pi * width**2 * np.log(peak / level) ** (1 / slope)
    r = np.linspace(0, np.sqrt(areas[0] / np.pi), 4000)
    light = peak * np.exp(-((r / width) ** (2 * slope))) * r
    flux = 2 * np.pi * light.sum() * r[1]
    rms = np.sqrt((light * r * r).sum() / light.sum() / 2)
    far = np.linspace(0, 12, 4000)
    growth = np.cumsum(2 * np.pi * far * peak * np.exp(-((far / width) ** (2 * slope)))) * far[1]
    circles = np.interp(np.array(classifier.APERTURES) * 0.7 / 0.187 / 2, far, growth)
    return {f"ISO{k}": np.array([area]) for k, area in enumerate(areas)} | {
        "FLUX_MAX": np.array([peak]),
        "THRESHOLD": np.array([threshold]),
        "FLUX_ISO": np.array([flux]),
        "FLUXERR_ISO": np.array([threshold / 3 * np.sqrt(areas[0])]),
        "A_IMAGE": np.array([rms]),
        "B_IMAGE": np.array([rms]),
        "FWHM_IMAGE": np.array([2 * width * np.log(2) ** (0.5 / slope)]),
        "FLUX_APER": circles[None],
    }


def isophotes(measured: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same without apertures."""
    return {name: values for name, values in measured.items() if name != "FLUX_APER"}


def network(rng: np.random.Generator, hidden: int = 4) -> tuple[str, list[np.ndarray]]:
    """A file like default.nnw with random numbers, and its parts."""
    bias, scale = rng.normal(size=10), rng.uniform(0.5, 2, 10)
    first, second = rng.normal(size=(hidden, 11)), rng.normal(size=(1, hidden + 1))
    output = np.array([0.1, 2.0])
    rows = [bias, scale, *first, second[0], *output[:, None]]
    text = "NNW\n# a comment\n\n3 10 " + f"{hidden} 1\n\n" + "\n".join(" ".join(f"{v:.8e}" for v in row) for row in rows)
    return text + "\n", [bias, scale, first, second, output]


def measured_of(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sources of many widths and peaks."""
    rng = np.random.default_rng(seed)
    each = [profile(rng.uniform(1.5, 5), 10 ** rng.uniform(0.3, 3), slope=rng.uniform(0.4, 1)) for _ in range(rows)]
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}


# --- Features -------------------------------------------------------------------------------------


def test_features_are_logarithms_in_units_of_the_seeing():
    source = profile(2.5, peak=100.0, threshold=2.0)
    found = classifier.features(source, **SEEING)
    by_name = dict(zip(classifier.FEATURES + classifier.APERTURE_FEATURES, found[0], strict=True))
    f = 0.7 / 0.187
    assert found.dtype == np.float32
    assert by_name["peak_over_threshold"] == pytest.approx(np.log10(50))
    assert by_name["iso0"] == pytest.approx(np.log10(np.pi * 2.5**2 * np.log(50) / f**2))
    assert by_name["fwhm"] == pytest.approx(np.log10(2 * 2.5 * np.sqrt(np.log(2)) / f))
    assert by_name["seeing_pixels"] == pytest.approx(np.log10(f))
    assert by_name["seeing"] == pytest.approx(np.log10(0.7))
    assert by_name["aperture2_over_1"] == pytest.approx(np.log10(source["FLUX_APER"][0, 1] / source["FLUX_APER"][0, 0]))
    np.testing.assert_array_equal(classifier.features(isophotes(source), **SEEING), found[:, : len(classifier.FEATURES)])


@given(st.floats(0.3, 4), st.floats(0.1, 1e4))
@settings(max_examples=30, deadline=None)
def test_features_know_no_unit_of_flux_and_the_seeing_in_arcsec_only_as_itself(factor, unit):
    source = profile(2.5)
    expected = classifier.features(source, **SEEING)
    counts = {name: v * (unit if name.startswith("FLUX") or name == "THRESHOLD" else 1) for name, v in source.items()}
    np.testing.assert_allclose(classifier.features(counts, **SEEING), expected, atol=1e-5)
    scaled = classifier.features(source, seeing=0.7 * factor, pixel_scale=0.187 * factor)
    expected[0, classifier.FEATURES.index("seeing")] += np.log10(factor)
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_features_of_empty_isophotes_are_finite_and_of_nan_are_nan():
    source = profile(2.5)
    assert np.isfinite(classifier.features(source | {f"ISO{k}": np.zeros(1) for k in range(8)}, **SEEING)).all()
    missing = classifier.features(source | {"FWHM_IMAGE": np.array([np.nan])}, **SEEING)
    assert np.isnan(missing).sum() == 1
    assert np.isnan(classifier.load().predict(missing)).all()
    none = {name: values[:0] for name, values in source.items()}
    assert classifier.features(isophotes(none), **SEEING).shape == (0, len(classifier.FEATURES))
    assert classifier.features(none, **SEEING).shape == (0, len(classifier.FEATURES + classifier.APERTURE_FEATURES))


def test_features_name_what_is_missing_or_wrong():
    source = profile(2.5)
    with pytest.raises(ValueError, match="ISO3, FWHM_IMAGE"):
        classifier.features({k: v for k, v in source.items() if k not in ("ISO3", "FWHM_IMAGE")}, **SEEING)
    with pytest.raises(ValueError, match="lengths"):
        classifier.features(source | {"ISO3": np.ones(2)}, **SEEING)
    with pytest.raises(ValueError, match="FLUX_APER"):
        classifier.features(source | {"FLUX_APER": np.ones((1, 2))}, **SEEING)
    for wrong in ({"seeing": 0}, {"pixel_scale": -1}, {"seeing": np.nan}):
        with pytest.raises(ValueError, match="above 0"):
            classifier.features(source, **SEEING | wrong)


# --- Our own classifier ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dict, isophotes])
def test_the_psf_is_a_star_and_what_is_twice_as_wide_is_not(kind):
    """Moffat profiles with the seeing's width, rendered without noise."""
    ours = classifier.load()
    star, galaxy = (classifier.features(kind(rendered(0.7 / 0.187 * factor)), **SEEING) for factor in (1, 2))
    assert ours.predict(star)[0] > 0.9
    assert ours.predict(galaxy)[0] < 0.02


@pytest.mark.parametrize("kind", [dict, isophotes])
def test_a_larger_source_is_less_of_a_star(kind):
    ours = classifier.load()
    sizes = np.linspace(1.0, 2.0, 15)
    chances = [ours.predict(classifier.features(kind(rendered(0.7 / 0.187 * size)), **SEEING))[0] for size in sizes]
    assert (np.diff(chances) < 0.01).all()
    assert chances[0] > chances[-1] + 0.8


def rendered(fwhm: float, peak: float = 60.0) -> dict[str, np.ndarray]:
    """What is measured of a Moffat profile above a threshold of 1, where sigma is a third."""
    image = moffat_psf(fwhm, 3.5, 101)
    image *= peak / image.max()
    y, x = np.indices(image.shape) - 50
    inside = image > 1
    light = image * inside
    rms = np.sqrt((light * x * x).sum() / light.sum())
    r = np.hypot(x, y)
    # Pixels on the rim of a circle count in part.
    circles = [(image * np.clip(d * 0.7 / 0.187 / 2 - r + 0.5, 0, 1)).sum() for d in classifier.APERTURES]
    areas = {f"ISO{k}": np.array([(image > peak ** (k / 8)).sum()]) for k in range(8)}
    return areas | {
        "FLUX_MAX": np.array([peak]),
        "THRESHOLD": np.array([1.0]),
        "FLUX_ISO": np.array([light.sum()]),
        "FLUXERR_ISO": np.array([np.sqrt(inside.sum()) / 3]),
        "A_IMAGE": np.array([rms]),
        "B_IMAGE": np.array([rms]),
        "FWHM_IMAGE": np.array([fwhm]),
        "FLUX_APER": np.array([circles]),
    }


def test_stars_and_galaxies_of_a_simulated_ccd_are_told_apart():
    """Through skyset's own extraction, as users do."""
    from skyset.extraction.detect import extract

    chances, stars = [], []
    for seed in (11, 12):
        field = simulate_ccd(seed, (1024, 1024), stars=200, zero_point=34.0)
        columns = ["X_IMAGE", "Y_IMAGE", "CLASS_STAR"]
        table = extract(field.image, threshold=3, gain=1.6, zero_point=34.0, columns=columns, **SEEING)
        x, y = (np.asarray(table[name]) - 1 for name in columns[:2])
        distance = np.hypot(x[:, None] - field.truth["x"], y[:, None] - field.truth["y"])
        # The brightest source within 2.2 pixels is the one that was found.
        source = np.where(distance < 2.2, field.truth["mag"], np.inf).argmin(axis=1)
        good = (distance.min(axis=1) < 2.2) & (field.truth["mag"][source] < 23.3)
        chances.append(np.asarray(table["CLASS_STAR"])[good])
        stars.append((field.truth["kind"] == "star")[source[good]])
    chances, stars = np.concatenate(chances), np.concatenate(stars)
    assert min(stars.sum(), (~stars).sum()) > 80
    assert ((chances > 0.5) == stars).mean() > 0.95
    better = chances[stars][:, None] > chances[~stars][None, :]
    assert better.mean() > 0.985


def test_predicts_a_ccd_in_milliseconds():
    ours, found = classifier.load(), classifier.features(measured_of(200), **SEEING)
    many = np.tile(found, (20, 1))
    ours.predict(many)
    times = []
    for _ in range(5):
        start = time.process_time()
        ours.predict(many)
        times.append(time.process_time() - start)
    assert min(times) < 0.05


def test_prediction_does_not_depend_on_the_other_rows():
    ours, found = classifier.load(), classifier.features(measured_of(50), **SEEING)
    together = ours.predict(found)
    assert together.dtype == np.float32
    assert ((together >= 0) & (together <= 1)).all()
    np.testing.assert_allclose([ours.predict(row[None])[0] for row in found], together, atol=1e-5)
    assert ours.predict(found[:0]).shape == (0,)
    with pytest.raises(ValueError, match="16 or 19"):
        ours.predict(found[:, :5])


def test_far_from_all_that_was_learnt_it_still_gives_a_probability():
    for width in (16, 19):
        chances = classifier.load().predict(np.array([[1e30] * width, [-1e30] * width], np.float32))
        assert ((chances >= 0) & (chances <= 1)).all()


def test_saved_weights_are_read_back_the_same(tmp_path):
    ours = classifier.load()
    ours.save(tmp_path / "copy.npz")
    copy = classifier.load(tmp_path / "copy.npz")
    for measured in (measured_of(20), isophotes(measured_of(20))):
        found = classifier.features(measured, **SEEING)
        np.testing.assert_array_equal(copy.predict(found), ours.predict(found))


def rewritten(path, **changes):
    """A copy of our weights with arrays changed, or left out where None."""
    with np.load(classifier.WEIGHTS) as archive:
        arrays = dict(archive) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"isophotes_mean": None}, "isophotes_mean is missing"),
        ({"apertures_features": np.array(["iso0"])}, "other features"),
        ({"isophotes_weights1": np.zeros((3, 3))}, "damaged"),
        ({"apertures_bias0": np.full(64, np.nan)}, "finite"),
        ({"isophotes_scale": np.array([{}], object)}, "cannot read"),
    ],
)
def test_weights_that_cannot_be_used_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        classifier.load(rewritten(tmp_path / "weights.npz", **changes))


def test_a_file_that_is_no_weights_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    for name in ("text.npz", "none.npz"):
        with pytest.raises(UserError, match=name):
            classifier.load(tmp_path / name)


# --- SExtractor's network -------------------------------------------------------------------------


def test_class_star_is_two_layers_of_sigmoids(tmp_path):
    text, (bias, scale, first, second, output) = network(np.random.default_rng(1))
    (tmp_path / "own.nnw").write_text(text)
    measured = measured_of(30)
    f2 = (0.7 / 0.187) ** 2
    areas = [np.log10(measured[f"ISO{k}"] / f2) for k in range(8)]
    peak = np.log10(measured["FLUX_MAX"] / measured["THRESHOLD"])
    inputs = np.stack([areas[0], peak, *areas[1:], np.full(30, np.log10(0.7))], axis=1) * scale + bias
    hidden = 1 / (1 + np.exp(-(inputs @ first[:, :-1].T + first[:, -1])))
    expected = (1 / (1 + np.exp(-(hidden @ second[0, :-1] + second[0, -1]))) - output[0]) / output[1]
    found = classifier.class_star(measured, classifier.read_nnw(tmp_path / "own.nnw"), **SEEING)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_area_of_no_pixel_counts_as_a_hundredth_of_the_seeing_squared(tmp_path):
    (tmp_path / "own.nnw").write_text(network(np.random.default_rng(2))[0])
    own, source = classifier.read_nnw(tmp_path / "own.nnw"), profile(2.5)
    empty = source | {f"ISO{k}": np.zeros(1) for k in range(8)}
    small = source | {f"ISO{k}": np.full(1, 0.01 * (0.7 / 0.187) ** 2) for k in range(8)}
    assert classifier.class_star(empty, own, **SEEING) == pytest.approx(classifier.class_star(small, own, **SEEING))


@pytest.mark.parametrize("name", ["sep_default.nnw", "sextractor_default.nnw"])
def test_real_networks_are_read(real, name):
    found = classifier.read_nnw(real(f"extraction/{name}"))
    assert [weights.shape for weights, _ in found.layers] == [(10, 10), (1, 10)]
    assert (found.bias[0], found.scale[0], found.output_scale) == (-1.56604, 3.03477, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be NNW"),
        ("CONV NORM\n1 2 1\n", "first line must be NNW"),
        ("NNW\n", "10 inputs"),
        ("NNW\n3 9 10 1\n", "10 inputs"),
        ("NNW\n3 10 10 2\n", "10 inputs"),
        ("NNW\n3 10 ten 1\n", "'ten'"),
        ("NNW\n3 10 99999999 1\n", "10 inputs"),
        ("NNW\n3 10 10 1\n1.0 2.0 3.0\n", "3 numbers"),
        ("NNW\n3 10 10 1\n" + "1 " * 142 + "nan\n", "'nan'"),
        ("NNW\n3 10 10 1\n" + "1 " * 142 + "1e999\n", "finite"),
        ("NNW\n3 10 10 1\n" + "1 " * 142 + "0\n", "finite"),
        ("NNW\n3 10 10 1\n" + "1 " * 144, "144 numbers"),
    ],
)
def test_a_network_that_is_cut_off_or_of_another_kind_is_named(tmp_path, text, message):
    path = tmp_path / "broken.nnw"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        classifier.read_nnw(path)
    assert "broken.nnw" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="absent"):
        classifier.read_nnw(tmp_path / "absent.nnw")
    with pytest.raises(UserError, match="cannot be read as a neural network"):
        classifier.read_nnw(tmp_path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Runs the real program on a simulated field, with thresholds that one gives."""
    program = shutil.which("source-extractor") or shutil.which("sex")
    if program is None:
        pytest.skip("SExtractor is not installed")
    folder = tmp_path_factory.mktemp("sextractor")
    fits.writeto(folder / "image.fits", simulate_ccd(8, (1024, 1024)).image)
    (folder / "kernel.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    columns = [*classifier.COLUMNS, "FLAGS", "CLASS_STAR"]
    (folder / "columns.param").write_text("\n".join(columns) + "\n")
    (folder / "empty.sex").touch()

    def run(detection: float, analysis: float, seeing: float, nnw: str) -> dict[str, np.ndarray]:
        options = {
            "DETECT_THRESH": detection,
            "ANALYSIS_THRESH": analysis,
            "SEEING_FWHM": seeing,
            "PIXEL_SCALE": 0.187,
            "STARNNW_NAME": nnw,
            "FILTER_NAME": "kernel.conv",
            "PARAMETERS_NAME": "columns.param",
            "CATALOG_NAME": "out.fits",
            "CATALOG_TYPE": "FITS_1.0",
            "SATUR_LEVEL": 1e15,
        }
        words = [word for name, value in options.items() for word in (f"-{name}", str(value))]
        subprocess.run([program, "image.fits", "-c", "empty.sex", *words], cwd=folder, check=True, capture_output=True)
        with fits.open(folder / "out.fits", memmap=False) as hdus:
            found = {name: np.array(hdus[1].data[name]) for name in columns}
        # The program's THRESHOLD is that of the detection.
        return found | {"THRESHOLD": found["THRESHOLD"] * (analysis / detection)}

    return run


@pytest.mark.parametrize(("detection", "analysis", "seeing"), [(3, 3, 0.7), (3, 1.5, 1.1), (2, 6, 0.5)])
def test_class_star_equals_sextractors(searched, tmp_path, detection, analysis, seeing):
    """A random network, and Debian's where it is; many sources have no pixel above an analysis threshold of 6."""
    (tmp_path / "own.nnw").write_text(network(np.random.default_rng(3), hidden=10)[0])
    for nnw in [str(tmp_path / "own.nnw"), *([NNW] if Path(NNW).is_file() else [])]:
        theirs = searched(detection, analysis, seeing, nnw)
        assert len(theirs["ISO0"]) > 150
        assert (theirs["ISO0"] == 0).any() == (analysis > detection)
        ours = classifier.class_star(theirs, classifier.read_nnw(nnw), seeing=seeing, pixel_scale=0.187)
        assert np.abs(ours - theirs["CLASS_STAR"]).max() < 1e-4


# --- Training -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_training_script_writes_weights_that_work_and_a_card_of_what_it_measured(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from skyset.training.star_galaxy import main

    folder = tmp_path / "card"
    output = folder / "star_galaxy.npz"
    learnt = main(["--tiny", "--output_dir", str(folder), "--processes", "1"])
    assert learnt > 200
    trained = classifier.load(output)
    for kind in (dict, isophotes):
        star, galaxy = (classifier.features(kind(rendered(0.7 / 0.187 * size)), **SEEING) for size in (1, 2))
        assert trained.predict(star)[0] > trained.predict(galaxy)[0]
    card = (folder / "README.md").read_text()
    assert f"{learnt:,} detections" in card and "license: bsd-3-clause" in card and "95 % interval" in card
    assert (folder / "reliability.png").stat().st_size > 5000
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    with pytest.raises(UserError, match=r"star_galaxy\.npz: give another folder"):
        main(["--tiny", "--output_dir", str(folder)])
    before = output.read_bytes()
    measure = ["--tiny", "--output_dir", str(folder), "--output", str(output), "--do_train", "False", "--processes", "1"]
    with pytest.raises(UserError, match=r"README\.md, reliability\.png: give another folder"):
        main(measure)
    assert main([*measure, "--overwrite_output_dir"]) == 0 and output.read_bytes() == before
    again = (folder / "README.md").read_text()
    assert "Nothing was trained when this card was written" in again and f"{learnt:,} detections" in again
    tables = [[line for line in text.splitlines() if line.startswith("| ")] for text in (card, again)]
    assert tables[0] == tables[1]


def test_the_published_card_is_of_the_weights_that_skyset_has(capsys):
    folder = Path(__file__).resolve().parents[2] / "model_cards" / "star_galaxy"
    card, story = (folder / "README.md").read_text(), json.loads((folder / "training.json").read_text())
    assert story["sha256"] == hashlib.sha256(classifier.WEIGHTS.read_bytes()).hexdigest()
    assert f"on {story['detections']:,} detections in {story['fields']} simulated fields" in card
    rows = [line for line in card.splitlines() if re.match(r"\| [-+\d]", line)]
    assert len(rows) == 6 + 5 + 15 + 15 and all("±" in line for line in rows)
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    assert "CLASS_STAR" in capsys.readouterr().out


def test_the_training_script_refuses_what_makes_no_sense():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from skyset.training.star_galaxy import main

    cases = {
        "fields": ["--fields", "0"],
        "size": ["--size", "10"],
        "nowhere": ["--nnw", "nowhere.nnw"],
        "poor": ["--tiny"],
        "--output_dir": [],
    }
    for message, wrong in cases.items():
        with pytest.raises(UserError, match=message):
            main(wrong)


def test_settings_of_a_field_depend_on_its_number_only():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from skyset.training.star_galaxy import draw_settings

    assert draw_settings(0, 5, 512) == draw_settings(0, 5, 512)
    assert draw_settings(0, 5, 512) != draw_settings(0, 6, 512)
