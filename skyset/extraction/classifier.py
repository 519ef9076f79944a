"""Star or galaxy, from isophotal quantities: a small network of our own, and SExtractor's by a user's ``default.nnw``.

Both look at how large the areas above eight levels between threshold and peak are, in units of the seeing disc: a star has
the PSF's, whatever its flux (Bertin & Arnouts 1996, A&AS 117, 393, section 6). Ours was trained on simulations by
``training/star_galaxy.py``; ``model_cards/star_galaxy`` says how well it does. numpy only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from skyset.errors import UserError
from skyset.extraction.settings import read_lines

#: What both classifiers need of each detection: pixels and counts, as SExtractor's manual has them, but that THRESHOLD is
#: that of the analysis (ANALYSIS_THRESH, above the background); SExtractor's column of this name is that of the detection.
ISOPHOTES = tuple(f"ISO{k}" for k in range(8))
COLUMNS = (*ISOPHOTES, "FLUX_MAX", "THRESHOLD")
#: What our own needs besides.
OWN_COLUMNS = (*COLUMNS, "FWHM_IMAGE", "A_IMAGE", "B_IMAGE", "FLUX_ISO", "FLUXERR_ISO")
#: Diameters of the circular apertures of FLUX_APER that our own takes besides, if they are given, in units of the seeing.
APERTURES = (1.0, 2.0, 3.0)
#: What ``features`` gives, all in log10, sizes and areas in units of the seeing: of isophotes, and of apertures if given.
FEATURES = (
    *map(str.lower, ISOPHOTES),
    "peak_over_threshold",
    "fwhm",
    "a",
    "b",
    "flux_over_peak",
    "flux_over_error",
    "seeing_pixels",
    "seeing",
)
APERTURE_FEATURES = ("aperture2_over_1", "aperture3_over_2", "aperture1_over_peak")
WEIGHTS = Path(__file__).with_name("star_galaxy.npz")

#: Areas of no pixel count as this part of the squared seeing, so that the logarithm exists.
_LEAST_AREA = 0.01
_NNW_INPUTS = 10
_NNW_LIMIT = 1 << 20


def _columns(measured: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """float64 (rows,), checked."""
    if missing := [name for name in names if name not in measured]:
        raise ValueError(f"classifying stars needs the columns {', '.join(missing)} too")
    found = {name: np.atleast_1d(np.asarray(measured[name], np.float64)) for name in names}
    if len({column.shape for column in found.values()}) > 1 or found["ISO0"].ndim != 1:
        raise ValueError("columns have different lengths: " + ", ".join(f"{k} {v.shape}" for k, v in found.items()))
    return found


def _seeing_pixels(seeing: float, pixel_scale: float) -> float:
    if not (seeing > 0 and pixel_scale > 0 and math.isfinite(seeing) and math.isfinite(pixel_scale)):
        raise ValueError(f"seeing {seeing} and pixel scale {pixel_scale} arcsec must both be above 0")
    return seeing / pixel_scale


def _log_areas(columns: Mapping[str, np.ndarray], seeing_pixels: float) -> np.ndarray:
    """log10(ISO0..7 / f^2), float64 (rows, 8); areas of 0 give -2."""
    areas = np.stack([columns[name] for name in ISOPHOTES], axis=1) / seeing_pixels**2
    return np.log10(np.where(areas > 0, areas, np.where(np.isnan(areas), np.nan, _LEAST_AREA)))


def _log_ratio(value: np.ndarray, unit: np.ndarray | float, least: float) -> np.ndarray:
    """log10(value / unit), at least log10(least); NaN stays NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.maximum(value / unit, least))


# --- Our own classifier ---------------------------------------------------------------------------


def features(measured: Mapping[str, np.ndarray], *, seeing: float, pixel_scale: float) -> np.ndarray:
    """What our classifier looks at.

    Args:
        measured: ``OWN_COLUMNS``, each (rows,): isophotal areas in pixels; peak, threshold, isophotal flux and its error
            in counts above the background; FWHM and rms axes in pixels. ``FLUX_APER`` (rows, 3), if it is there, are the
            fluxes in circles whose diameters are ``APERTURES`` times the seeing: with them stars are recognised better.
        seeing: FWHM of a star, arcsec.
        pixel_scale: arcsec per pixel.

    Returns:
        float32 (rows, 16), named by ``FEATURES``, or (rows, 19) with ``APERTURE_FEATURES``; NaN where a quantity is.

    Raises:
        ValueError: a column is missing or of another length, or seeing or pixel scale is not above 0.
    """
    f = _seeing_pixels(seeing, pixel_scale)
    found = _columns(measured, OWN_COLUMNS)
    rows = len(found["ISO0"])
    others = [
        _log_ratio(found["FLUX_MAX"], found["THRESHOLD"], 0.01),
        *(_log_ratio(found[name], f, 0.05) for name in ("FWHM_IMAGE", "A_IMAGE", "B_IMAGE")),
        _log_ratio(found["FLUX_ISO"], found["FLUX_MAX"] * f**2, 1e-3),
        np.minimum(_log_ratio(found["FLUX_ISO"], found["FLUXERR_ISO"], 1.0), 6.0),
        np.full(rows, math.log10(f)),
        np.full(rows, math.log10(seeing)),
    ]
    if "FLUX_APER" in measured:
        circles = np.asarray(measured["FLUX_APER"], np.float64)
        if circles.shape != (rows, len(APERTURES)):
            raise ValueError(f"FLUX_APER has shape {circles.shape}; {len(APERTURES)} apertures of {rows} rows are wanted")
        others += [
            _log_ratio(circles[:, 1], circles[:, 0], 0.1),
            _log_ratio(circles[:, 2], circles[:, 1], 0.1),
            _log_ratio(circles[:, 0], found["FLUX_MAX"] * f**2, 1e-3),
        ]
    return np.concatenate([_log_areas(found, f), np.stack(others, axis=1)], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Perceptron:
    """A network on standardised features.

    Attributes:
        mean, scale: float32 (features,).
        lowest, highest: float32 (features,), of the training set; a feature beyond them counts as the nearer of them, so
            that nothing is extrapolated.
        layers: weights (in, out) and biases (out,), float32; tanh between them.
    """

    mean: np.ndarray
    scale: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """float32 (rows,) of features (rows, features)."""
        hidden = (np.clip(features, self.lowest, self.highest) - self.mean) / self.scale
        for number, (weights, bias) in enumerate(self.layers):
            hidden = (np.tanh(hidden) if number else hidden) @ weights + bias
        return _sigmoid(hidden[:, 0])

    def arrays(self) -> dict[str, np.ndarray]:
        """By the names that ``load`` reads."""
        named = {name: getattr(self, name) for name in _STANDARD}
        for number, (weights, bias) in enumerate(self.layers):
            named |= {f"weights{number}": weights, f"bias{number}": bias}
        return named


_STANDARD = ("mean", "scale", "lowest", "highest")
_KINDS = {"isophotes": FEATURES, "apertures": FEATURES + APERTURE_FEATURES}


@dataclass(frozen=True, eq=False)
class NeuralClassifier:
    """Our classifier: one network for isophotes alone, another for isophotes and apertures."""

    isophotes: Perceptron
    apertures: Perceptron

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probability of a star, float32 (rows,) in [0, 1]; NaN where a feature is.

        Raises:
            ValueError: not (rows, features) as ``features`` gives them.
        """
        features = np.asarray(features, np.float32)
        networks = {len(names): getattr(self, kind) for kind, names in _KINDS.items()}
        if features.ndim != 2 or features.shape[1] not in networks:
            raise ValueError(f"features have shape {features.shape}; it must be (rows, {' or '.join(map(str, networks))})")
        return networks[features.shape[1]].predict(features)

    def save(self, path: str | Path) -> None:
        """Write an npz file that ``load`` reads."""
        arrays: dict[str, Any] = {f"{kind}_features": np.array(names) for kind, names in _KINDS.items()}
        for kind in _KINDS:
            arrays |= {f"{kind}_{name}": array for name, array in getattr(self, kind).arrays().items()}
        np.savez(path, **arrays)


def load(path: str | Path | None = None) -> NeuralClassifier:
    """Our classifier, or one trained by ``training/star_galaxy.py`` and saved at ``path``.

    Raises:
        UserError: the file cannot be read, or is not such a classifier.
    """
    path = WEIGHTS if path is None else Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise UserError(f"cannot read the star/galaxy weights {path}: {str(error).splitlines()[0]}") from error
    return NeuralClassifier(*(_as_perceptron(path, arrays, kind) for kind in _KINDS))


def _as_perceptron(path: Path, arrays: Mapping[str, np.ndarray], kind: str) -> Perceptron:
    """The network of a kind, checked."""
    expected = _KINDS[kind]
    try:
        names = tuple(str(name) for name in arrays[f"{kind}_features"])
        standard = [arrays[f"{kind}_{name}"].astype(np.float32) for name in _STANDARD]
        count = sum(name.startswith(f"{kind}_weights") for name in arrays)
        parts = [[arrays[f"{kind}_{part}{i}"].astype(np.float32) for i in range(count)] for part in ("weights", "bias")]
        layers = tuple(zip(*parts, strict=True))
    except KeyError as error:
        raise UserError(f"{path} holds no star/galaxy classifier: {error.args[0]} is missing") from error
    width = len(expected)
    if names != expected or any(array.shape != (width,) for array in standard) or not layers:
        raise UserError(f"{path} was made for other features than {', '.join(expected)}: train it again")
    for weights, bias in layers:
        if weights.ndim != 2 or bias.ndim != 1 or weights.shape != (width, len(bias)):
            raise UserError(f"{path} is damaged: weights of shape {weights.shape} do not follow on a layer of {width}")
        width = len(bias)
    if width != 1 or not all(np.isfinite(a).all() for a in [*standard, *(a for layer in layers for a in layer)]):
        raise UserError(f"{path} is damaged: it must end in one finite output")
    mean, scale, lowest, highest = standard
    return Perceptron(mean, scale, lowest, highest, layers)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) as a hyperbolic tangent, which cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


# --- SExtractor's network -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Nnw:
    """A network as in SExtractor's ``default.nnw``: ten inputs, sigmoid layers, one output.

    Attributes:
        bias, scale: float64 (10,); an input x enters as ``scale x + bias``.
        layers: weights (out, in) and biases (out,).
        output_bias, output_scale: the output y comes out as ``(y - bias) / scale``.
    """

    bias: np.ndarray
    scale: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    output_bias: float
    output_scale: float


def read_nnw(path: str | Path) -> Nnw:
    """Read SExtractor's text format: ``NNW``, comments after ``#``, then numbers.

    The numbers are: how many layers and the units of each (3 10 10 1), biases and scales of the inputs, for each unit of the
    further layers its weights and its bias, bias and scale of the output.

    Raises:
        UserError: the file cannot be read, is not of this format, or is cut off.
    """
    path = Path(path)
    lines = read_lines(path, "a neural network")
    if lines[0].split()[:1] != ["NNW"] or sum(map(len, lines)) > _NNW_LIMIT:
        raise UserError(f"{path} is not a neural network of SExtractor's: its first line must be NNW")
    words = " ".join(line.split("#")[0] for line in lines[1:]).split()
    if wrong := next((word for word in words if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word)), None):
        raise UserError(f"{path} is damaged: {wrong[:40]!r} stands where a number should")
    return _as_network(path, words)


def _as_network(path: Path, words: list[str]) -> Nnw:
    """The numbers in their places."""
    try:
        sizes = [int(word) for word in words[1 : 1 + int(words[0])]]
    except (IndexError, ValueError):
        sizes = []
    if len(sizes) < 2 or sizes[0] != _NNW_INPUTS or sizes[-1] != 1 or min(sizes) < 1 or max(sizes) > 1000:
        raise UserError(f"{path}: layers {' '.join(words[:5])}; a star/galaxy network has {_NNW_INPUTS} inputs and 1 output")
    numbers = np.array([float(word) for word in words[1 + len(sizes) :]])
    expected = 2 * _NNW_INPUTS + sum((a + 1) * b for a, b in pairwise(sizes)) + 2
    if len(numbers) != expected or not np.isfinite(numbers).all() or numbers[-1] == 0:
        raise UserError(f"{path} is damaged: {len(numbers)} numbers for layers {sizes}, which need {expected} finite ones")
    bias, scale, rest = numbers[:_NNW_INPUTS], numbers[_NNW_INPUTS : 2 * _NNW_INPUTS], numbers[2 * _NNW_INPUTS :]
    layers = []
    for inputs, outputs in pairwise(sizes):
        block, rest = rest[: (inputs + 1) * outputs].reshape(outputs, inputs + 1), rest[(inputs + 1) * outputs :]
        layers.append((block[:, :-1], block[:, -1]))
    return Nnw(bias, scale, tuple(layers), float(rest[0]), float(rest[1]))


def class_star(measured: Mapping[str, np.ndarray], network: Nnw, *, seeing: float, pixel_scale: float) -> np.ndarray:
    """SExtractor's CLASS_STAR, equal to its own to rounding where the measured quantities are.

    Inputs, with f = seeing / pixel_scale: log10(ISO0 / f^2), log10(FLUX_MAX / THRESHOLD), log10(ISO1..7 / f^2) and log10 of
    the seeing in arcsec; areas of no pixel (a peak below the analysis threshold) count as 0.01 f^2.

    Args:
        measured: ``COLUMNS``, each (rows,): pixels, counts. THRESHOLD is the analysis threshold.
        network: as ``read_nnw`` gives it.
        seeing: SEEING_FWHM, arcsec.
        pixel_scale: arcsec per pixel.

    Returns:
        float32 (rows,), 0 (galaxy) to 1 (star); NaN where a quantity is.

    Raises:
        ValueError: as ``features``.
    """
    f = _seeing_pixels(seeing, pixel_scale)
    found = _columns(measured, COLUMNS)
    areas = _log_areas(found, f)
    peak = _log_ratio(found["FLUX_MAX"], found["THRESHOLD"], 0.01)
    last = np.full(len(peak), math.log10(seeing))
    values = np.column_stack([areas[:, 0], peak, areas[:, 1:], last]) * network.scale + network.bias
    for weights, bias in network.layers:
        values = _sigmoid(values @ weights.T + bias)
    return ((values[:, 0] - network.output_bias) / network.output_scale).astype(np.float32)
