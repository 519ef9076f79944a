"""How much of a classifier's accuracy is a leak: image quality split by object, as it is often done, against by exposure.

    python benchmarks/leak.py --data_dir data/megacam           # of a build, real or simulated
    python benchmarks/leak.py --exposures 50                    # simulated exposures, built first: some minutes

Plain classifiers of scikit-learn say the class of a CCD from its hits, or that of a source from its features. Four folds;
each row is predicted once, by a classifier that has not seen it. Split by object, the folds are of CCDs (or sources) drawn
at random, so that a classifier has seen other CCDs of the same exposure; split by exposure, it has seen none. Intervals
are 95 % of 1,000 bootstraps of the exposures: the CCDs of one are not independent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import skyset  # noqa: E402
from skyset.command_line import main as exit_status  # noqa: E402
from skyset.errors import UserError  # noqa: E402
from skyset.loaders.megacam_iqa import CLASSES, MAP_FEATURES, SPLITS  # noqa: E402

FOLDS, BOOTSTRAPS = 4, 1000
#: Sources of a CCD that are looked at.
_SOURCES = 20


class Rows(NamedTuple):
    """``values`` (rows, columns) finite, ``labels`` (rows,) of the exposures named in ``exposures`` (rows,)."""

    values: np.ndarray
    labels: np.ndarray
    exposures: np.ndarray


class Accuracy(NamedTuple):
    """A share of rows, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def logistic() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def forest() -> object:
    return RandomForestClassifier(200, min_samples_leaf=2, random_state=0, n_jobs=2)


def predictions(rows: Rows, by_exposure: bool, classifier: Callable[[], object], seed: int = 0) -> np.ndarray:
    """(rows,) the class that is said of each row by a classifier that has not seen it.

    Raises:
        UserError: a class has fewer exposures than there are folds.
    """
    exposures, first = np.unique(rows.exposures, return_index=True)
    if min(np.bincount(np.unique(rows.labels[first], return_inverse=True)[1])) < FOLDS:
        raise UserError(f"{len(exposures)} exposures; at least {FOLDS} of each class are needed")
    kind, groups = (StratifiedGroupKFold, rows.exposures) if by_exposure else (StratifiedKFold, None)
    said = np.full(len(rows.labels), -1)
    for train, test in kind(FOLDS, shuffle=True, random_state=seed).split(rows.values, rows.labels, groups):
        said[test] = classifier().fit(rows.values[train], rows.labels[train]).predict(rows.values[test])
    return said


def accuracy(right: np.ndarray, exposures: np.ndarray, seed: int = 0) -> Accuracy:
    """Share of the rows that are ``right``, and its interval by a bootstrap of whole exposures."""
    _, of = np.unique(exposures, return_inverse=True)
    good, all_ = np.bincount(of, right), np.bincount(of)
    drawn = np.random.default_rng(seed).integers(0, len(all_), (BOOTSTRAPS, len(all_)))
    shares = good[drawn].sum(1) / all_[drawn].sum(1)
    return Accuracy(float(right.mean()), *map(float, np.percentile(shares, [2.5, 97.5])))


def both_ways(rows: Rows, classifier: Callable[[], object]) -> tuple[Accuracy, Accuracy]:
    """Accuracy split by object, and split by exposure."""
    found = (predictions(rows, by_exposure, classifier) == rows.labels for by_exposure in (False, True))
    by_object, by_exposure = (accuracy(right, rows.exposures) for right in found)
    return by_object, by_exposure


def hits_of(data_dir: Path) -> Rows:
    """The CCDs of a build that have a label: shares of their hits."""
    columns = _columns(data_dir, "representative", ("FITS_ID", "label", "hit_shares"))
    return _labelled(columns["hit_shares"], columns["label"], columns["FITS_ID"])


def sources_of(data_dir: Path, per_ccd: int = _SOURCES) -> Rows:
    """Some sources of each CCD, drawn at random: the map's features and the exposure time, as others classified them."""
    names = [*MAP_FEATURES, "EXPTIME"]
    table = pd.DataFrame(_columns(data_dir, "sources", ("FITS_ID", "CCD_ID", "gt_label1", *names)))
    table = table[np.isfinite(table[names]).all(axis=1)].sample(frac=1, random_state=0)
    table = table[table.groupby(["FITS_ID", "CCD_ID"]).cumcount() < per_ccd].sort_index()
    return _labelled(table[names].to_numpy(), table["gt_label1"].to_numpy(), table["FITS_ID"].to_numpy())


def _columns(data_dir: Path, config: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    parts = []
    for split in SPLITS:
        rows = skyset.load("megacam_iqa", config, data_dir=str(data_dir), split=split, streaming=True)
        parts += list(rows.select_columns(list(names)).with_format("numpy").iter(4096))
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in names}


def _labelled(values: np.ndarray, labels: np.ndarray, exposures: np.ndarray) -> Rows:
    good = (labels >= 0) & np.isfinite(values).all(1)
    return Rows(values[good], labels[good], exposures[good])


def table(data_dir: Path) -> str:
    """Markdown: a row for each classifier."""
    hits, sources = hits_of(data_dir), sources_of(data_dir)
    exposures, first = np.unique(hits.exposures, return_index=True)
    counts = np.bincount(hits.labels[first], minlength=len(CLASSES))
    lines = [
        f"{len(exposures)} exposures ({', '.join(f'{n} {c}' for n, c in zip(counts, CLASSES, strict=True))}), "
        f"{len(hits.labels):,} CCDs, {len(sources.labels):,} sources",
        "",
        "| what of | classifier | split by object | split by exposure |",
        "|---|---|---|---|",
    ]
    for what, rows, name, classifier in (
        ("CCDs, 20 hits", hits, "logistic regression", logistic),
        ("CCDs, 20 hits", hits, "random forest", forest),
        (f"sources, {', '.join(MAP_FEATURES)}, EXPTIME", sources, "random forest", forest),
    ):
        by_object, by_exposure = both_ways(rows, classifier)
        lines.append(f"| {what} | {name} | {by_object} | {by_exposure} |")
    most = counts.max() / counts.sum()
    return "\n".join([*lines, f"| | the commonest class | {most:.3f} | {most:.3f} |"])


def simulate(folder: Path, exposures: int) -> Path:
    """A build of simulated raw exposures, the four CCDs around the middle, small ones."""
    from skyset.build_scripts.megacam_iqa.build_parent_sample import main as build
    from skyset.testing.megacam import make_exposures

    make_exposures(folder / "exposures", exposures, ccds=4)
    where = ["--local_data_path", str(folder / "exposures"), "--labels", str(folder / "exposures" / "labels.json")]
    if build([*where, "-o", str(folder / "data")]):
        raise UserError("the build had faults")
    return folder / "data"


def main(arguments: list[str] | None = None) -> int:
    """Run a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, metavar="FOLDER", help="of a build; simulated exposures by default")
    parser.add_argument("--exposures", type=int, default=50, help="to be simulated (default: %(default)s)")
    asked = parser.parse_args(arguments)

    def run() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            print(table(asked.data_dir or simulate(Path(scratch), asked.exposures)))

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
