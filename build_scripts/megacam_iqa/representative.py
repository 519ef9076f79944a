"""Step 6: a CCD as a representative image, with the hits of its groups and the statistics of its sources."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from skyset.build_scripts.megacam_iqa.grouping import Grouping
from skyset.build_scripts.megacam_iqa.labels import Labels
from skyset.build_scripts.megacam_iqa.staged import Staged
from skyset.building.task import Item
from skyset.errors import UserError
from skyset.files import short_digest
from skyset.loaders.megacam_iqa import FEATURES, GROUPS, MAP, SITE, STAMP, SURVEY
from skyset.sky import healpix_cell
from skyset.survey import Survey


def as_asked(shape: tuple[int, int], stamp: int) -> Survey:
    """The declaration for so many groups and cutouts of this size."""
    groups = shape[0] * shape[1]
    if (shape, stamp) == (MAP, STAMP):
        return SURVEY
    shapes = {"image": (shape[0] * stamp, shape[1] * stamp), "features": (groups, len(FEATURES))}
    columns = [
        replace(c, shape=shapes.get(c.name, (groups,))) if c.name in SURVEY.shaped_by_build else c for c in SURVEY.columns
    ]
    return SURVEY.as_built(columns)


def layout(groups: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of groups in an image: those of the map, or for clusters the most square."""
    if shape[0] * shape[1] == groups:
        return shape
    if groups == GROUPS:
        return MAP
    rows = max(n for n in range(1, int(groups**0.5) + 1) if groups % n == 0)
    return rows, groups // rows


def object_id(fits_id: str, ccd: int) -> str:
    return f"{fits_id}_{ccd:02d}"


@dataclass(frozen=True)
class Made:
    """How rows are made; worker processes get it.

    Args:
        groups: their number.
        shape: rows and columns of them in an image.
        stamp: pixels of a cutout's side.
        labels: of exposures.
    """

    groups: int
    shape: tuple[int, int]
    stamp: int
    labels: Labels


def items(exposures: Iterable[Staged], grouping: Grouping, labels: Labels, split_of: Callable) -> Iterator[Item]:
    """An item for each CCD; ``split_of(fits_id, object_id)`` says which side it is on."""
    for staged in exposures:
        for place, ccd in enumerate(staged.ccds):
            key = object_id(staged.fits_id, ccd["ccd"])
            said = labels.of(staged.fits_id, ccd["ccd"])
            made_of = short_digest(f"{staged.facts['made_of']} {grouping.digest} {said}")
            cell = int(healpix_cell(ccd["ra"], ccd["dec"]))
            split = split_of(staged.fits_id, key)
            yield Item(key, str(staged.groups), cell, address=(place, 0), split=split, made_of=made_of)


def read_ccd(groups: Path, place: int, _: int = 0, *, made: Made) -> dict:
    """The row of an exposure's CCD.

    Args:
        groups: what was drawn of the exposure; what else is known of it lies beside.
        place: of the CCD among those that can be used.
        made: how.
    """
    facts, rows, units, every, stamps = _exposure(groups, groups.stat().st_mtime_ns)
    usable = [each for each in facts["ccds"] if each["usable"]]
    ccd, start = usable[place], sum(each["sources"] for each in usable[:place])
    some = slice(start, start + ccd["sources"])
    label, second = made.labels.of(facts["fits_id"], ccd["ccd"])
    return {
        "FITS_ID": facts["fits_id"],
        "CCD_ID": ccd["ccd"],
        "ra": ccd["ra"],
        "dec": ccd["dec"],
        **sample(made, rows[some], units[some], every[place], stamps[place]),
        "n_sources": ccd["sources"],
        "label": label,
        "label2": second,
        "EXPTIME": np.float32(facts["exptime"]),
        "FILTER": facts["filter"],
        "MJD": facts["mjd"],
        "AIRMASS": np.float32(facts["airmass"]),
        **{name: np.float32(ccd[name]) for name in ("background", "background_rms", "gain", "read_noise", "saturation")},
        **{name: np.float32(facts["seeing"][name]) for name in SITE},
    }


@functools.lru_cache(maxsize=2)
def _exposure(groups: Path, _) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is known of an exposure, its sources, their groups, which are drawn, and the cutouts of these."""
    name = groups.name.removesuffix(".groups.npz")
    facts = json.loads(groups.with_name(f"{name}.json").read_text(encoding="utf-8"))
    rows = np.load(groups.with_name(f"{name}.npy"), allow_pickle=False)
    with np.load(groups, allow_pickle=False) as file:
        return facts, rows, file["unit"], file["drawn"], file["stamps"]


def sample(made: Made, rows: np.ndarray, units: np.ndarray, drawn: np.ndarray, stamps: np.ndarray) -> dict[str, np.ndarray]:
    """Image, hits and statistics of the sources of a CCD."""
    size, groups = made.stamp, made.groups
    empty = drawn < 0
    values = np.stack([rows[name] for name in FEATURES], axis=1)
    features = np.full((groups, len(FEATURES)), np.nan, np.float32)
    features[~empty] = values[drawn[~empty]]
    median = np.full(len(FEATURES), np.nan, np.float32)
    spread = median.copy()
    for k, column in enumerate(values.T):
        good = column[np.isfinite(column)]
        if len(good):
            median[k] = np.median(good)
            spread[k] = np.median(np.abs(good - median[k]))
    hits = np.bincount(units[units >= 0], minlength=groups).astype(np.int32)
    down, across = made.shape
    return {
        "image": stamps.astype(np.float32)
        .reshape(down, across, size, size)
        .swapaxes(1, 2)
        .reshape(down * size, across * size),
        "hits": hits,
        "hit_shares": (hits / max(hits.sum(), 1)).astype(np.float32),
        "empty": empty,
        "drawn": drawn,
        "features": features,
        "feature_median": median,
        "feature_mad": spread,
    }


def check_layout(shape: tuple[int, int], stamp: int) -> None:
    """UserError where no image can be laid out."""
    if not 4 <= stamp <= 256 or min(shape) < 1 or shape[0] * shape[1] > 4096:
        raise UserError(f"{shape[0]} x {shape[1]} groups of {stamp} pixels: a cutout has 4 to 256 pixels, a map 4,096 units")
