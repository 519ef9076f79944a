"""Small surveys of made-up objects at chosen places, as partitions: what is matched with each other."""

from pathlib import Path

import numpy as np

from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Feature, Layers, Survey

OBJECT = (
    Column("object_id", "S16", (), "", "name"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    HEALPIX,
)


def declared(name: str, *columns: Column, **options) -> Survey:
    columns = (*OBJECT, *columns)
    features = options.pop("features", tuple(Feature(c.name, c.name, encoded=c.is_bytes) for c in columns))
    about = {"title": name, "homepage": "", "citation": "", "license": "", "base_url": ""} | options
    return Survey(name=name, columns=columns, features=features, **about)


def write_survey(
    root: Path, survey: Survey, ra, dec, rows_a_file: int = 10_000, compression: str = "none", **values
) -> Path:
    """Partitions of objects; ``values`` are arrays (rows, *shape), or lists of bytes. Names are ``<survey><number>``."""
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    values |= {"ra": ra, "dec": dec, "healpix": healpix_cell(ra, dec)}
    values.setdefault("object_id", [f"{survey.name}{row}" for row in range(len(ra))])
    entries = []
    for cell in np.unique(values["healpix"]).tolist():
        rows = np.flatnonzero(values["healpix"] == cell)
        parts = np.split(rows, range(rows_a_file, len(rows), rows_a_file))
        for number, part in enumerate(parts, 1):
            path = partition_path(cell, number, len(parts))
            about = {"survey": survey.name, "healpix": cell}
            with PartitionWriter(root / path, survey.columns, len(part), about, compression) as writer:
                for row in part.tolist():
                    writer.append({c.name: c.coerce(values[c.name][row]) for c in survey.columns})
            entries.append(describe_file(root, path, survey, "train"))
    Manifest(survey.name, list(survey.columns), survey.key, entries).save(root)
    return root


def cutouts(rows: int, shape=(3, 40, 40), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *shape)).astype(np.float32)


STAMPS = declared("stamps", Column("image", "float32", (3, 40, 40)), Column("mag", "float32", (), "mag"))
MASKED = declared(
    "masked",
    *(Column(name, "uint8", (80, 80)) for name in ("bar", "arm")),
    features=(
        *(Feature(c.name, c.name) for c in OBJECT),
        Layers("masks", ("bar", "arm"), "class", {"array": ("bar", "arm")}),
    ),
)

#: What ``skyset.register("masked", "tests.matched")`` makes known.
SURVEY = MASKED
