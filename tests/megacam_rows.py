"""Folders as a build of ``megacam_iqa`` leaves them, with made-up rows: quick, and every value is known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from skyset.extraction.som.groups import Groups, Scaling
from skyset.loaders.megacam_iqa import CLASSES, CONFIGS, FEATURES, GROUPS, MAP, MAP_FEATURES, SPLITS, STAMP
from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell

RA, DEC = 150.0, 2.2
#: Sources of a CCD.
SOURCES = 30


def representative(exposure: int, ccd: int, signal: float = 4.0, habit: float = 0.0) -> dict:
    """A CCD's row: its class is ``exposure % 5``; group 7 is empty. Stamp g is filled with 100 g + its class.

    Args:
        exposure, ccd: numbers.
        signal: how much more of an exposure's sources are in group ``class``.
        habit: how much an exposure's own hits differ from those of others.
    """
    label, dice = exposure % len(CLASSES), np.random.default_rng([exposure, ccd])
    means = np.full(GROUPS, 20.0) * np.exp(habit * np.random.default_rng([exposure]).normal(size=GROUPS))
    means[label] *= signal
    hits = dice.poisson(means).astype(np.int32)
    hits[7] = 0
    stamps = np.broadcast_to(
        (100 * np.arange(GROUPS, dtype=np.float32) + label)[:, None, None], (GROUPS, STAMP, STAMP)
    ).copy()
    stamps[7] = 0
    image = stamps.reshape(*MAP, STAMP, STAMP).swapaxes(1, 2).reshape(MAP[0] * STAMP, MAP[1] * STAMP)
    features = dice.uniform(1, 2, (GROUPS, len(FEATURES))).astype(np.float32)
    features[7] = np.nan
    fits_id, ra, dec = f"{1000000 + exposure}p", RA + 0.01 * ccd, DEC + 0.01 * exposure
    row = {
        "object_id": f"{fits_id}_{ccd:02d}",
        "image": image,
        "hits": hits,
        "hit_shares": (hits / hits.sum()).astype(np.float32),
        "empty": hits == 0,
        "drawn": np.where(hits == 0, -1, np.arange(GROUPS)).astype(np.int32),
        "features": features,
        "feature_median": np.nanmedian(features, 0),
        "feature_mad": np.full(len(FEATURES), 0.25, np.float32),
        "n_sources": int(hits.sum()),
        "label": label,
        "label2": 1 if exposure == 2 else -1,
        "FILTER": "r.MP9601",
        "MJD": 57000.5 + exposure,
        "WDSEEMED": 0.7 if exposure else np.nan,
    }
    return _common(row, fits_id, ccd, ra, dec, exposure, CONFIGS["representative"])


def sources(exposure: int, ccd: int) -> Iterator[dict]:
    """A CCD's sources; FWHM is 4 pixels and one for each number of the class."""
    label, dice = exposure % len(CLASSES), np.random.default_rng([exposure, ccd, 1])
    fits_id = f"{1000000 + exposure}p"
    for number in range(SOURCES):
        row = {
            "object_id": f"{fits_id}_{ccd:02d}_{number:05d}",
            "X": dice.uniform(1, 256),
            "Y": dice.uniform(1, 512),
            "ISO0": np.float32(np.exp(dice.normal(3 + 0.2 * label, 1))),
            "ELONGATION": dice.uniform(1, 1.5 + label / 10),
            "ELLIPTICITY": dice.uniform(0, 0.5),
            "CLASS_STAR": dice.uniform(),
            "BACKGROUND": np.nan if number == 3 else dice.normal(),
            "FWHM": 4.0 + label,
            "FLAGS": number % 4,
            "gt_label1": label,
            "gt_label2": 1 if exposure == 2 else -1,
            "unit": -1 if number == 3 else number % GROUPS,
        }
        ra, dec = RA + 0.01 * ccd + number * 1e-4, DEC + 0.01 * exposure
        yield _common(row, fits_id, ccd, ra, dec, exposure, CONFIGS["sources"])


def _common(row, fits_id, ccd, ra, dec, exposure, survey) -> dict:
    known = {"FITS_ID": fits_id, "CCD_ID": ccd, "ra": ra, "dec": dec, "healpix": int(healpix_cell(ra, dec))}
    values = {"EXPTIME": 100.0 + exposure, **row, **known}
    values = {c.name: values[c.name] if c.name in values else np.full(c.shape, 1.5) for c in survey.columns}
    return survey.record(
        {c.name: np.asarray(values[c.name], None if c.is_text else c.dtype).astype(c.dtype) for c in survey.columns}
    )


def split_of(exposure: int) -> str:
    """Of every 20 exposures, three of each class for training, then half of the rest."""
    turn = exposure % 20
    return "train" if turn < 12 else "validation" if turn < 16 else "test"


def write_megacam(root: Path, exposures: int = 20, ccds: int = 2, **options) -> Path:
    """Both configs of ``exposures`` x ``ccds`` CCDs below ``root``; ``options`` are those of `representative`."""
    for config, survey in CONFIGS.items():
        folder, entries = root / config, []
        for split in SPLITS:
            chosen = [(e, c) for e in range(exposures) if split_of(e) == split for c in range(ccds)]
            if config == "representative":
                records = [representative(e, c, **options) for e, c in chosen]
            else:
                records = [record for e, c in chosen for record in sources(e, c)]
            for cell in sorted({int(record["healpix"]) for record in records}):
                inside = [record for record in records if int(record["healpix"]) == cell]
                path = partition_path(cell, split=split)
                attributes = {"survey": survey.name, "healpix": cell}
                with PartitionWriter(folder / path, survey.columns, len(inside), attributes) as writer:
                    for record in inside:
                        writer.append(record)
                entries.append(describe_file(folder, path, survey, split))
        build = {"config": config, "compression": "none", "simulated": True}
        Manifest(survey.name, list(survey.columns), survey.key, entries, ["http://127.0.0.1/"], build).save(folder)
    return root


def write_map(root: Path) -> None:
    """``som/som.npz`` of the sources of the first exposures."""
    records = [record for exposure in range(5) for record in sources(exposure, 0)]
    columns = {name: np.array([record[name] for record in records]) for name in MAP_FEATURES}
    scaling = Scaling.fit(columns, MAP_FEATURES, ("ISO0", "ELONGATION"))
    (root / "som").mkdir()
    Groups.fit(lambda: [scaling(columns)], scaling, MAP).save(root / "som" / "som.npz")
