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
from skyset.build_scripts.megacam_iqa.staged import CATALOG, Staged
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
            yield Item(key, str(staged.stamps), cell, address=(place, 0), split=split, made_of=made_of)


def read_ccd(stamps: Path, place: int, _: int = 0, *, made: Made) -> dict:
    """The row of an exposure's CCD.

    Args:
        stamps: the exposure's cutouts; what else is known of it lies in the catalogue's folder.
        place: of the CCD among those that can be used.
        made: how.
    """
    facts, rows, units, every = _exposure(stamps, stamps.stat().st_mtime_ns)
    usable = [each for each in facts["ccds"] if each["usable"]]
    ccd, start = usable[place], sum(each["sources"] for each in usable[:place])
    some = slice(start, start + ccd["sources"])
    label, second = made.labels.of(facts["fits_id"], ccd["ccd"])
    return {
        "FITS_ID": facts["fits_id"],
        "CCD_ID": ccd["ccd"],
        "ra": ccd["ra"],
        "dec": ccd["dec"],
        **_sample(made, stamps, start, rows[some], units[some], every[place], len(rows)),
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
def _exposure(stamps: Path, _) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray]:
    """What is known of an exposure, its sources, their groups, and which are drawn."""
    catalog, name = stamps.parents[1] / CATALOG, stamps.name.removesuffix(".f16")
    facts = json.loads((catalog / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(catalog / f"{name}.groups.npz", allow_pickle=False) as file:
        return facts, np.load(catalog / f"{name}.npy", allow_pickle=False), file["unit"], file["drawn"]


def _sample(
    made: Made, stamps: Path, start: int, rows: np.ndarray, units: np.ndarray, drawn: np.ndarray, total: int
) -> dict[str, np.ndarray]:
    """Image, hits and statistics of the sources of a CCD."""
    size, groups = made.stamp, made.groups
    empty = drawn < 0
    squares = np.zeros((groups, size, size), np.float32)
    if not empty.all():
        pixels = np.memmap(stamps, np.float16, "r", shape=(total, size, size))
        squares[~empty] = pixels[start + drawn[~empty]]
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
        "image": squares.reshape(down, across, size, size).swapaxes(1, 2).reshape(down * size, across * size),
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
