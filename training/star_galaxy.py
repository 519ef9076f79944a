"""Train the star/galaxy classifier of skyset.extraction on simulated images, measure it, write its weights and its card.

    python training/star_galaxy.py --output_dir out/star_galaxy       # five minutes on two cores; as it was published
    python training/star_galaxy.py --output_dir out/tiny --tiny           # half a minute, to look at
    python training/star_galaxy.py --output_dir out/card --do_train False     # measure the weights that skyset has

The folder gets ``star_galaxy.npz``, the card with its figure, and ``training.json``, which says how the weights were made.

Fields are drawn over seeing, pixel scale, depth, threshold, crowding and the PSF's shape; ``skyset.extraction`` detects and
measures; each detection is named after the brightest source at its place. A perceptron learns to separate stars from their
isophotal areas and core widths. It is measured on whole CCDs of other seeds, beside SExtractor's network where the program
is installed, and with seeing that is wrong. The same seed gives the same fields, whatever the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from huggingface_hub import ModelCardData

from skyset.errors import UserError
from skyset.extraction import classifier
from skyset.extraction.detect import extract
from skyset.extraction.simulate import Simulated, expected_counts, simulate_ccd
from skyset.files import file_sha256, write_atomically
from skyset.progress import progress_bar
from skyset.training.common.arguments import parse
from skyset.training.common.card import reliability_figure
from skyset.training.common.metrics import auc, auc_error
from skyset.training.common.runs import refuse_to_replace, versions

FILES = ("README.md", "reliability.png", "training.json")
LEAST = 10  # stars and galaxies in a bin of which an AUC is given
BINS = ((18, 20), (20, 22), (22, 23), (23, 24), (22, 24), (24, 25))
#: What the seeing that one gives may be, over the true one: apertures are measured for each.
WRONG_SEEING = (0.8, 0.9, 1.0, 1.1, 1.2)
#: What the classifier is told of the seeing in training is wrong by so much (1 sigma of the logarithm).
SEEING_ERROR = 0.06
#: Of the CCDs it is measured on; ``simulate_ccd`` has the rest. The same noise at the second zero point is 1.5 magnitudes
#: less deep: 22 to 24 is there where SExtractor's network begins to fail.
TEST_THRESHOLD = 3.0
ZERO_POINTS = {"deep": 34.9, "shallow": 33.4}
OURS, ALONE, THEIRS = "this classifier", "isophotes alone", "SExtractor's `default.nnw`"


@dataclass
class Arguments:
    """How much is simulated, and where the results go."""

    output_dir: str | None = field(default=None, metadata={"help": "Weights (star_galaxy.npz), card and figure."})
    output: str | None = field(default=None, metadata={"help": "The weights, elsewhere."})
    card_dir: str | None = field(default=None, metadata={"help": "Card and figure, elsewhere."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Replace weights and a card that are there."})
    do_train: bool = field(
        default=True, metadata={"help": "Off: only measure the weights at --output, else skyset's own, and write the card."}
    )
    fields: int = field(default=320, metadata={"help": "Simulated fields to learn from."})
    test_fields: int = field(default=40, metadata={"help": "Fields drawn alike, to measure calibration on."})
    test_ccds: int = field(default=6, metadata={"help": "Whole CCDs to measure on, of either depth."})
    size: int = field(default=1024, metadata={"help": "Pixels a side of a field."})
    rows: int = field(default=4612, metadata={"help": "Rows of a CCD; it has 2,048 columns."})
    hidden: int = field(default=64, metadata={"help": "Units of each of the two hidden layers."})
    epochs: int = field(default=80, metadata={"help": "Passes over the training set."})
    processes: int = field(default=2, metadata={"help": "That simulate and detect."})
    nnw: str | None = field(
        default=None, metadata={"help": "SExtractor's default.nnw to compare with; default: Debian's, if it is there."}
    )
    seed: int = field(default=0, metadata={"help": "Of fields and training."})
    tiny: bool = field(default=False, metadata={"help": "Few and small fields: to see that it runs; the result is poor."})

    def __post_init__(self):
        if self.tiny:
            self.fields, self.test_fields, self.test_ccds, self.size, self.rows, self.epochs = 6, 2, 1, 512, 1024, 15
        for name in ("fields", "test_fields", "test_ccds", "hidden", "epochs", "processes"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be 1 or more, not {getattr(self, name)}")
        if self.size < 256 or self.rows < 256:
            raise UserError("--size and --rows must be 256 pixels or more")

    @property
    def weights(self) -> Path:
        """Where the weights go, or are read."""
        if self.output is None and not self.do_train:
            return classifier.WEIGHTS
        return Path(self.output or Path(self.output_dir, "star_galaxy.npz")).expanduser()

    @property
    def card(self) -> Path:
        """The folder of the card."""
        return Path(self.card_dir or self.output_dir).expanduser()

    def check_places(self) -> None:
        """Raise UserError where something would be replaced unasked, or nobody said where to."""
        if self.output_dir is None and (self.card_dir is None or (self.output is None and self.do_train)):
            poor = "; --tiny makes poor weights" if self.tiny else ""
            raise UserError(f"the following arguments are required: --output_dir{poor}")
        if self.do_train:
            refuse_to_replace(self.weights.parent, [self.weights.name], self.overwrite_output_dir)
        elif not self.weights.is_file():
            raise UserError(f"no weights to measure: {self.weights}")
        refuse_to_replace(self.card, FILES if self.do_train else FILES[:2], self.overwrite_output_dir)


@dataclass
class Detections:
    """Detections with known truth, (rows,) each.

    Attributes:
        measured: the classifier's columns by name; FLUX_APER for each of ``WRONG_SEEING``.
        star: bool.
        mag: true magnitude.
        weight: brings the numbers of stars and galaxies back to those of a field far from the Milky Way.
        seeing, pixel_scale: arcsec.
        source: number of the source in its field.
    """

    measured: dict[str, np.ndarray]
    star: np.ndarray
    mag: np.ndarray
    weight: np.ndarray
    seeing: float
    pixel_scale: float
    source: np.ndarray

    def features(self, factor: float = 1.0, apertures: bool = True) -> np.ndarray:
        """As the classifier wants them, told a seeing ``factor`` (one of ``WRONG_SEEING``) times the true one."""
        measured = {name: self.measured[name] for name in classifier.OWN_COLUMNS}
        if apertures:
            first = WRONG_SEEING.index(factor) * len(classifier.APERTURES)
            measured["FLUX_APER"] = self.measured["FLUX_APER"][:, first : first + len(classifier.APERTURES)]
        return classifier.features(measured, seeing=self.seeing * factor, pixel_scale=self.pixel_scale)

    def class_star(self, network: classifier.Nnw, factor: float = 1.0) -> np.ndarray:
        """Of SExtractor's network, told a seeing ``factor`` times that."""
        seeing = self.seeing * factor
        return classifier.class_star(self.measured, network, seeing=seeing, pixel_scale=self.pixel_scale)


# --- Fields ---------------------------------------------------------------------------------------


def draw_settings(seed: int, number: int, size: int) -> dict:
    """What a field is simulated and searched with; a seeing of 1.5 to 8 pixels."""
    rng = np.random.default_rng([seed, number])
    while True:
        seeing, pixel_scale = rng.uniform(0.4, 1.6), np.exp(rng.uniform(np.log(0.1), np.log(0.45)))
        if 1.5 <= seeing / pixel_scale <= 8:
            break
    zero_point = 34.9 + rng.uniform(-2.0, 0.5)
    # Two magnitudes beyond what such a depth shows: what is not seen takes part as noise that is correlated.
    magnitudes = (15.0, zero_point - 34.9 + 26.5 - 2.5 * np.log10(max(seeing / 0.7, 0.6)))
    stars, galaxies = expected_counts((size, size), pixel_scale, magnitudes)
    more_stars, more_galaxies = np.exp(rng.uniform(0, np.log(6))), np.exp(rng.uniform(np.log(0.5), np.log(2)))
    return {
        "simulation": {
            "seed": [seed, number, 1],
            "shape": (size, size),
            "seeing": seeing,
            "pixel_scale": pixel_scale,
            "zero_point": zero_point,
            "sky": 7500 * (pixel_scale / 0.187) ** 2,
            "beta": rng.uniform(2.5, 4.5),
            "psf_q": 1 - 0.12 * rng.random() ** 2,
            "psf_pa": rng.uniform(-90, 90),
            "magnitudes": magnitudes,
            "stars": rng.poisson(stars * more_stars),
            "galaxies": rng.poisson(galaxies * more_galaxies),
        },
        "threshold": np.exp(rng.uniform(np.log(1.3), np.log(5))),
        "gain": 1.6 if rng.random() < 0.75 else 0.0,
        "more": (more_stars, more_galaxies),
    }


def learn_from(settings: Mapping) -> Detections:
    """A field simulated, searched, and its detections named."""
    torch.set_num_threads(1)
    simulated = simulate_ccd(**settings["simulation"])
    # Some users do not know the gain: 0 leaves the photons' noise out of FLUXERR_ISO.
    simulated.settings["gain"] = settings["gain"]
    found = named(simulated, settings["threshold"], settings["more"])
    # Deep fields have the most detections; they shall not alone decide which share of faint sources are stars.
    found.weight /= np.sqrt(max(len(found.star), 1))
    return found


def measure(simulated: Simulated, threshold: float) -> dict[str, np.ndarray]:
    """Columns of the detections by ``skyset.extraction``."""
    options = {name: simulated.settings[name] for name in ("gain", "pixel_scale", "zero_point", "seeing")}
    columns = ["X_IMAGE", "Y_IMAGE", *classifier.OWN_COLUMNS, "FLUX_APER"]
    apertures = np.outer(WRONG_SEEING, classifier.APERTURES).ravel() * options["seeing"] / options["pixel_scale"]
    table = extract(simulated.image, threshold=threshold, columns=columns, apertures=tuple(apertures), **options)
    return {name: np.asarray(table[name]) for name in columns}


def named(
    simulated: Simulated,
    threshold: float,
    more: tuple[float, float] = (1.0, 1.0),
    search: Callable[[Simulated, float], dict[str, np.ndarray]] = measure,
) -> Detections:
    """Detections, each with the brightest source within 0.6 FWHM (at least one pixel); those without one are left out."""
    found, truth = search(simulated, threshold), simulated.truth
    seeing, pixel_scale = simulated.settings["seeing"], simulated.settings["pixel_scale"]
    reach = max(1.0, 0.6 * seeing / pixel_scale)
    source = brightest_within(found["X_IMAGE"] - 1, found["Y_IMAGE"] - 1, truth, reach)
    kept = source >= 0
    source = source[kept]
    star = truth["kind"][source] == "star"
    return Detections(
        {name: np.asarray(values)[kept] for name, values in found.items()},
        star,
        truth["mag"][source],
        1 / np.where(star, more[0], more[1]),
        seeing,
        pixel_scale,
        source,
    )


def brightest_within(x: np.ndarray, y: np.ndarray, truth: np.ndarray, reach: float) -> np.ndarray:
    """For each position the row of the brightest source no farther than ``reach``, or -1."""
    order = np.argsort(truth["x"])
    across = truth["x"][order]
    result = np.full(len(x), -1)
    starts, ends = np.searchsorted(across, x - reach), np.searchsorted(across, x + reach)
    for i in range(len(x)):
        near = order[starts[i] : ends[i]]
        near = near[np.hypot(truth["x"][near] - x[i], truth["y"][near] - y[i]) <= reach]
        if len(near):
            result[i] = near[np.argmax(truth["flux"][near])]
    return result


def in_processes(function: Callable, jobs: Iterable, processes: int, what: str) -> list:
    """Results in the order of the jobs, with a bar; one process is this one, which has all imported."""
    jobs = list(jobs)
    if processes == 1:
        return [function(job) for job in progress_bar(jobs, total=len(jobs), desc=what, unit=" images")]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(progress_bar(pool.map(function, jobs), total=len(jobs), desc=what, unit=" images"))


# --- Training -------------------------------------------------------------------------------------


def train(detections: list[Detections], apertures: bool, args: Arguments) -> classifier.Perceptron:
    """A perceptron with two hidden layers, by weighted cross-entropy.

    The seeing that it is told is wrong by another factor for each row and epoch; between the factors that apertures were
    measured for, features are interpolated over the factor's logarithm.
    """
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    told = [np.concatenate([d.features(factor, apertures) for d in detections]) for factor in WRONG_SEEING]
    values = np.stack(told, axis=1)
    stars = np.concatenate([d.star for d in detections])
    weights = np.concatenate([d.weight for d in detections])
    usable = np.isfinite(values).all(axis=(1, 2))
    values, stars, weights = values[usable], stars[usable], weights[usable]
    if not 0 < stars.sum() < len(stars):
        raise UserError(f"{stars.sum()} of {len(stars)} detections are stars: nothing to learn from; simulate more fields")
    flat = values.reshape(-1, values.shape[2])
    mean, scale = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-3)
    x = torch.from_numpy((values - mean) / scale)
    y, weight = torch.from_numpy(stars.astype(np.float32)), torch.from_numpy((weights / weights.mean()).astype(np.float32))
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[2], args.hidden),
        torch.nn.Tanh(),
        torch.nn.Linear(args.hidden, args.hidden),
        torch.nn.Tanh(),
        torch.nn.Linear(args.hidden, 1),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-3)
    steps = args.epochs * -(-len(x) // 1024)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    what = "training " + ("with apertures" if apertures else "on isophotes")
    bar = progress_bar(range(args.epochs), desc=what, unit=" epochs")
    for _ in bar:
        total = 0.0
        for rows in torch.randperm(len(x)).split(1024):
            optimizer.zero_grad()
            logits = network(with_wrong_seeing(x, rows))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y[rows], weight[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        bar.set_postfix(loss=f"{total / len(x):.4f}")
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    layers = tuple((layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear)
    return classifier.Perceptron(mean, scale, flat.min(axis=0), flat.max(axis=0), layers)


def with_wrong_seeing(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Features (rows, features) as of a seeing that is wrong by chance; ``values`` are (all rows, factors, features)."""
    logs = torch.log(torch.tensor(WRONG_SEEING))
    wrong = (SEEING_ERROR * torch.randn(len(rows))).clamp(float(logs[0]), float(logs[-1]))
    low = (torch.searchsorted(logs, wrong) - 1).clamp(0, len(logs) - 2)
    share = ((wrong - logs[low]) / (logs[low + 1] - logs[low]))[:, None]
    return (1 - share) * values[rows, low] + share * values[rows, low + 1]


# --- SExtractor, beside it ------------------------------------------------------------------------


def find_nnw(given: str | None) -> Path | None:
    """SExtractor's network: the one given, or the one that comes with Debian's package, or none.

    Raises:
        UserError: the one given is not there.
    """
    if given is not None and not Path(given).is_file():
        raise UserError(f"no file {given}; leave out --nnw to use Debian's")
    path = Path(given or "/usr/share/source-extractor/default.nnw")
    return path if path.is_file() else None


def sextractor(simulated: Simulated, threshold: float, program: str, nnw: Path) -> dict[str, np.ndarray]:
    """X_IMAGE, Y_IMAGE and CLASS_STAR by the real program, with skyset's defaults."""
    settings = simulated.settings
    with tempfile.TemporaryDirectory() as folder:
        fits.writeto(Path(folder, "image.fits"), simulated.image)
        Path(folder, "columns.param").write_text("X_IMAGE\nY_IMAGE\nCLASS_STAR\n")
        Path(folder, "kernel.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
        Path(folder, "empty.sex").touch()
        options = {
            "PARAMETERS_NAME": "columns.param",
            "FILTER_NAME": "kernel.conv",
            "STARNNW_NAME": str(nnw.resolve()),
            "CATALOG_NAME": "out.fits",
            "CATALOG_TYPE": "FITS_1.0",
            "DETECT_THRESH": threshold,
            "ANALYSIS_THRESH": threshold,
            "SEEING_FWHM": settings["seeing"],
            "PIXEL_SCALE": settings["pixel_scale"],
            "GAIN": settings["gain"],
            "MAG_ZEROPOINT": settings["zero_point"],
            "SATUR_LEVEL": 1e15,
            "MEMORY_PIXSTACK": 3_000_000,
        }
        words = [word for name, value in options.items() for word in (f"-{name}", str(value))]
        done = subprocess.run([program, "image.fits", "-c", "empty.sex", *words], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{program} failed: {' '.join(done.stderr.split())[-300:]}")
        with fits.open(Path(folder, "out.fits"), memmap=False) as hdus:
            return {name: np.array(hdus[1].data[name]) for name in ("X_IMAGE", "Y_IMAGE", "CLASS_STAR")}


@dataclass
class Tested:
    """A CCD's detections as skyset measures them, and the real SExtractor's CLASS_STAR of the same sources (NaN: none)."""

    ours: Detections
    sextractor: np.ndarray


def test_on(job: tuple[tuple[int, ...], float, int, str | None, Path | None]) -> Tested:
    """One CCD by both programs."""
    seed, zero_point, rows, program, nnw = job
    simulated = simulate_ccd(seed, shape=(rows, 2048), zero_point=zero_point)
    ours = named(simulated, TEST_THRESHOLD)
    value_of = np.full(len(simulated.truth), np.nan)
    if program is not None and nnw is not None:
        theirs = named(simulated, TEST_THRESHOLD, search=lambda image, level: sextractor(image, level, program, nnw))
        value_of[theirs.source] = theirs.measured["CLASS_STAR"]
    return Tested(ours, value_of[ours.source])


# --- What is measured, and the card ---------------------------------------------------------------


def auc_of(star: np.ndarray, score: np.ndarray, chosen: np.ndarray) -> str:
    """Area under the ROC curve of the chosen rows, and half of its 95 % interval; empty where they are of one kind."""
    chosen = chosen & np.isfinite(score)
    if not 0 < star[chosen].sum() < chosen.sum():
        return ""
    return with_error(auc(star[chosen], score[chosen]), auc_error(star[chosen], score[chosen]))


def share_of(hits: np.ndarray) -> str:
    """Share of True (rows,), and half of its 95 % interval."""
    return with_error(float(hits.mean()), float(hits.std() / np.sqrt(len(hits)))) if len(hits) else ""


def with_error(value: float, error: float) -> str:
    """``0.961 ± 0.004``: 1.96 standard errors."""
    return f"{value:.3f} ± {1.96 * error:.3f}" if np.isfinite(error) else f"{value:.3f}"


def in_bin(mag: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (mag >= limits[0]) & (mag < limits[1])


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


@dataclass
class Results:
    """All CCDs of one depth together, (detections,) each."""

    tested: list[Tested]
    network: classifier.NeuralClassifier

    def __post_init__(self):
        self.star = np.concatenate([t.ours.star for t in self.tested])
        self.mag = np.concatenate([t.ours.mag for t in self.tested])
        self.sextractor = np.concatenate([t.sextractor for t in self.tested])
        self.probability = self.predicted()

    def predicted(self, factor: float = 1.0, apertures: bool = True) -> np.ndarray:
        return np.concatenate([self.network.predict(t.ours.features(factor, apertures)) for t in self.tested])

    def class_star(self, nnw: classifier.Nnw, factor: float) -> np.ndarray:
        return np.concatenate([t.ours.class_star(nnw, factor) for t in self.tested])

    def larger(self, factor: float) -> np.ndarray:
        """Probabilities from isophotes alone if every source were ``factor`` times as large, everything else the same."""
        powers = {f"ISO{k}": 2 for k in range(8)} | {"FWHM_IMAGE": 1, "A_IMAGE": 1, "B_IMAGE": 1, "FLUX_ISO": 2}
        found = []
        for ours in (t.ours for t in self.tested):
            changed = {name: ours.measured[name] * factor ** powers.get(name, 0) for name in classifier.OWN_COLUMNS}
            features = classifier.features(changed, seeing=ours.seeing, pixel_scale=ours.pixel_scale)
            found.append(self.network.predict(features))
        return np.concatenate(found)

    def by_magnitude(self) -> str:
        """AUC by magnitude on sources that both programs detect, where there are two."""
        both = np.isfinite(self.sextractor)
        compared = both.any()
        head = ["magnitude", "stars", "galaxies", OURS, ALONE, *([THEIRS] if compared else [])]
        scores = [self.probability, self.predicted(apertures=False), *([self.sextractor] if compared else [])]
        rows = []
        for limits in BINS:
            chosen = in_bin(self.mag, limits) & (both if compared else True)
            if min((chosen & self.star).sum(), (chosen & ~self.star).sum()) < LEAST:
                continue
            counts = [f"{(chosen & kind).sum():,}" for kind in (self.star, ~self.star)]
            rows.append([f"{limits[0]} to {limits[1]}", *counts, *(auc_of(self.star, s, chosen) for s in scores)])
        return table(head, rows)

    def by_seeing(self, nnw: classifier.Nnw | None) -> str:
        """AUC, and how many are called right at one half, where the seeing that is given is wrong."""
        rows = []
        for factor in WRONG_SEEING:
            scores = {OURS: self.predicted(factor), ALONE: self.predicted(factor, apertures=False)}
            if nnw is not None:
                scores[THEIRS] = self.class_star(nnw, factor)
            for name, score in scores.items():
                bins = [in_bin(self.mag, limits) for limits in ((18, 22), (22, 24))]
                right = [share_of(((score > 0.5) == self.star)[chosen]) for chosen in bins]
                rows.append([f"{factor - 1:+.0%}", name, *(auc_of(self.star, score, chosen) for chosen in bins), *right])
        head = ["seeing off by", "classifier", "AUC 18 to 22", "AUC 22 to 24", "right 18 to 22", "right 22 to 24"]
        return table(head, rows)


def expected_error(star: np.ndarray, probability: np.ndarray, weight: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance between predicted and true share of stars over bins of probability."""
    where = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(where, weight * (probability - star), bins)
    return float(np.abs(gaps).sum() / weight.sum())


def error_of_calibration(star: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> str:
    """``expected_error``, and half of its 95 % interval."""
    weight = np.ones(len(star)) if weight is None else weight
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(star), len(star)) for _ in range(200))
    spread = np.std([expected_error(star[rows], probability[rows], weight[rows]) for rows in drawn])
    return with_error(expected_error(star, probability, weight), float(spread))


def right(results: Results, limits: tuple[float, float]) -> str:
    """Share of detections on the right side of one half."""
    return share_of(((results.probability > 0.5) == results.star)[in_bin(results.mag, limits)])


def how_trained(args: Arguments) -> str:
    """What ``training.json`` beside the card says of these very weights."""
    try:
        story = json.loads((args.card / "training.json").read_text())
        if story["sha256"] != file_sha256(args.weights):
            raise ValueError
        made = (
            f"Trained by `training/star_galaxy.py` (seed {story['seed']}) on {story['detections']:,} detections in "
            f"{story['fields']} simulated fields of\n{story['size']} x {story['size']} pixels"
        )
        took = f"It took {story['minutes']} minutes with {story['processes']} process(es)."
    except (OSError, ValueError, KeyError, TypeError):
        return "How these weights were trained is not recorded beside this card."
    return f"""{made}: seeing 0.4 to 1.6 arcsec and 1.5 to 8 pixels, Moffat PSFs (beta 2.5 to 4.5,
axis ratio 0.88 to 1), thresholds 1.3 to 5 sigma, zero points over 2.5 magnitudes at the same noise, half to twice as many
galaxies and one to six times as many stars as far from the Milky Way, told a seeing with {SEEING_ERROR:.0%} of error. The
weights are those after {story["epochs"]} epochs, the last; no validation chose them. No real image and no weights of others
took part. {took}"""


USAGE = """
from skyset.extraction.detect import extract
from skyset.extraction.simulate import simulate_ccd

ccd = simulate_ccd(5, shape=(512, 512))  # or an image of your own, and what is known of it
known = {name: ccd.settings[name] for name in ("gain", "pixel_scale", "zero_point", "seeing")}
sources = extract(ccd.image, threshold=3.0, columns=["X_IMAGE", "Y_IMAGE", "CLASS_STAR"], **known)
print(sources[sources["CLASS_STAR"] > 0.5])
"""


def write_card(
    folder: Path, results: Mapping[str, Results], varied: list[Detections], args: Arguments, nnw: classifier.Nnw | None
) -> None:
    """README.md and a figure; every number is measured here."""
    deep, shallow = results["deep"], results["shallow"]
    network = deep.network
    spread = np.concatenate([network.predict(d.features()) for d in varied])
    spread_star, spread_weight = (np.concatenate([getattr(d, name) for d in varied]) for name in ("star", "weight"))
    isophotes = deep.predicted(apertures=False)
    errors = [error_of_calibration(r.star, r.probability) for r in (deep, shallow)]
    errors.append(error_of_calibration(spread_star, spread, spread_weight))
    alone = error_of_calibration(deep.star, isophotes)
    changes = [(f, share_of(deep.larger(f) <= isophotes + 0.01)) for f in (1.1, 1.3, 2.0)]
    parameters = sum(weights.size + bias.size for weights, bias in network.apertures.layers)
    if np.isfinite(deep.sextractor).any():
        beside = (
            "Beside it the real SExtractor with its `default.nnw` on the same images with the same settings;\n"
            "only sources that both detect are counted."
        )
    else:
        beside = "SExtractor or its `default.nnw` was not installed where this was measured: the comparison is left out."
    features = len(classifier.FEATURES + classifier.APERTURE_FEATURES)
    theirs = "" if nnw is None else " `default.nnw` is computed here by skyset from skyset's quantities."
    measured = "" if args.do_train else "\nNothing was trained when this card was written: the weights were measured only."
    data = ModelCardData(
        model_name="star-galaxy",
        library_name="skyset",
        tags=["astronomy", "star-galaxy-separation"],
        license="bsd-3-clause",
    )
    text = f"""---
{data.to_yaml()}
---

# star-galaxy

Probability that a detection is a star: `CLASS_STAR` of `skyset extract` where no `default.nnw` is given. Perceptrons that
run on numpy: this classifier ({features} features, two hidden layers of {args.hidden}, {parameters:,} numbers), and a second
one for isophotes alone, taken where no aperture fluxes are given.

Features, all logarithms: the eight isophotal areas ISO0 to ISO7 and the isophotal flux over the peak in units of the
squared seeing, FWHM_IMAGE, A_IMAGE and B_IMAGE in units of the seeing, the peak over the threshold, the isophotal flux over
its error, and the seeing in pixels and in arcsec; then the ratios of the fluxes in circles with diameters of
{", ".join(f"{d:g}" for d in classifier.APERTURES)} times the seeing, and of the first to the peak. Features beyond the
training set's range count as its ends.

{how_trained(args)}{measured}

Stars and galaxies count in training as often as in a field far from the Milky Way, and a field as the square root of the
number of its detections. In a field that is richer in stars the probabilities are too low; so they are for the faintest
sources of a shallow image, of which more are stars than of a deep one's (see the calibration below).

## Use

`skyset extract image.fits --columns X_IMAGE,Y_IMAGE,CLASS_STAR -PIXEL_SCALE 0.187 -SEEING_FWHM 0.7`, or in Python:

```python
{USAGE.strip()}
```

## What the intervals are

"± x" is half of a 95 % interval, the weights fixed: of an AUC after DeLong et al. 1988 (Biometrics 44, 837), of a share
binomial, of a calibration error from 200 samples of the detections drawn with replacement. Detections count as
independent; what another training would give is not in it.

## AUC by true magnitude

{args.test_ccds} simulated CCDs of either depth ({args.rows} x 2,048 pixels, seeing 0.7 arcsec, 0.187 arcsec per pixel,
{TEST_THRESHOLD:g} sigma) of seeds that no field of the training has.
{beside}

Deep, as `simulate_ccd` makes them:

{deep.by_magnitude()}
Shallow, {ZERO_POINTS["deep"] - ZERO_POINTS["shallow"]:.1f} magnitudes less deep:

{shallow.by_magnitude()}
## Where the seeing is wrong

The same CCDs, all that skyset detects, deep and then shallow; the seeing given is off by so much. "right": the share of
detections on the right side of one half.{theirs} The order of sources holds where the
seeing is 15 % off; a cut at one half does not, least of all at magnitude 22 and fainter. `seeing="auto"` (`--seeing auto`)
measures it from the image's stars, to 3 %.

{deep.by_seeing(nnw)}
{shallow.by_seeing(nnw)}
## Calibration

Expected calibration error: {errors[0]} on the deep CCDs ({alone} from isophotes alone), {errors[1]} on the
shallow ones, {errors[2]} on {len(varied)} fields drawn as those of the training are, with the same weights. Of all
detections of the deep CCDs {right(deep, (18, 22))} (a share) are on the right side of one half at magnitude 18 to 22 and
{right(deep, (22, 24))} at 22 to 24; on the shallow ones {right(shallow, (18, 22))} and {right(shallow, (22, 24))}.

![reliability.png](reliability.png)

## A source that is larger is less of a star

Made larger by a factor, all else the same, the probability from isophotes alone does not rise by more than 0.01 for so
many of the deep CCDs' detections: {", ".join(f"{share} (factor {factor:g})" for factor, share in changes)}.

## Limits

Simulated galaxies are Sersic profiles without arms or companions of their own, and the PSF is one Moffat profile over an
image; saturated and trailed stars, ghosts and cosmic rays were not simulated. Below 1.5 or above 8 pixels of seeing
nothing was learnt. A PSF that varies over the field acts as seeing that is wrong: see the table.

## Versions

{", ".join(f"{name} {version}" for name, version in versions().items())}

## Licence

BSD-3-Clause, as skyset: the weights were made by its code from simulations alone.
"""
    groups = {f"{name} CCDs": (r.star, r.probability) for name, r in results.items()}
    figure = reliability_figure(groups, what="stars", rows="detections")
    figure.savefig(folder / "reliability.png", dpi=90)
    (folder / "README.md").write_text(text)


# --- All of it ------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Simulate, train, measure, write; returns how many detections were learnt from, 0 where nothing was trained."""
    (args,) = parse((Arguments,), arguments)
    start = time.monotonic()
    program, nnw_path = shutil.which("source-extractor"), find_nnw(args.nnw)
    nnw = None if nnw_path is None else classifier.read_nnw(nnw_path)
    args.check_places()
    first = 0 if args.do_train else args.fields
    settings = [draw_settings(args.seed, i, args.size) for i in range(first, args.fields + args.test_fields)]
    detections = in_processes(learn_from, settings, args.processes, "fields")
    learning, varied = detections[: args.fields - first], detections[args.fields - first :]
    if args.do_train:
        network = classifier.NeuralClassifier(train(learning, False, args), train(learning, True, args))
    else:
        network = classifier.load(args.weights)
    jobs = [
        ((args.seed, 10**6 + i), zero_point, args.rows, program, nnw_path)
        for zero_point in ZERO_POINTS.values()
        for i in range(args.test_ccds)
    ]
    tested = in_processes(test_on, jobs, args.processes, "CCDs")

    learnt = sum(len(d.star) for d in learning)
    args.card.mkdir(parents=True, exist_ok=True)
    if args.do_train:
        args.weights.parent.mkdir(parents=True, exist_ok=True)
        network.save(args.weights)
        story = {
            "sha256": file_sha256(args.weights),
            "detections": learnt,
            "fields": args.fields,
            "size": args.size,
            "seed": args.seed,
            "epochs": args.epochs,
            "minutes": round((time.monotonic() - start) / 60),
            "processes": args.processes,
            "versions": versions(),
        }
        write_atomically(args.card / "training.json", json.dumps(story, indent=1) + "\n")
    results = {
        name: Results(tested[i * args.test_ccds : (i + 1) * args.test_ccds], network) for i, name in enumerate(ZERO_POINTS)
    }
    write_card(args.card, results, varied, args, nnw)
    for name, found in results.items():
        print(f"{name}:\n{found.by_magnitude()}")
    minutes = (time.monotonic() - start) / 60
    print(f"{args.weights}: learnt from {learnt:,} detections in {minutes:.1f} minutes; card in {args.card}")
    return learnt


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
