"""The public source catalogues of astro_iqa, ``objects_catalog_*_bronze.parquet.gz``, without what nobody should train on.

    python -m skyset.build_scripts.megacam_iqa.public_catalog objects_catalog_cadc_bronze.parquet.gz -o sources.parquet
    ... --som som.npz                                      # and a map of their sources
    skyset build megacam_iqa --som som.npz ...             # which a build then takes

Their sources have neither positions nor pixels, so they make no partitions: a map is what they are good for. Values that
are not finite or cannot be true are masked (null), counted and named; BACKGROUND, clipped to +-2 in 96 % of the rows, is no
feature of the map. Their CCD_ID is the number of the HDU in an LDAC file, 2 x CCD + 2 (inferred): it is kept as CCD_HDU.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.build_scripts.megacam_iqa.grouping import LOG
from skyset.build_scripts.megacam_iqa.limits import LIMITS
from skyset.command_line import main as exit_status
from skyset.errors import UserError
from skyset.extraction.engines import need_compiled
from skyset.extraction.som.groups import Groups, Scaling
from skyset.loaders.megacam_iqa import CLASSES, MAP
from skyset.messages import say
from skyset.tables.catalog import Catalog
from skyset.tables.open import open_catalog
from skyset.tables.parquet import write_parquet

#: The map's: what the public catalogue measured and did not clip.
FEATURES = ("ISO0", "ELONGATION", "ELLIPTICITY", "CLASS_STAR")
#: Least and greatest by column. A source of 1 % of a CCD's pixels is an artefact, and so are these: 527,383 is there.
BOUNDS = {name: LIMITS[name] for name in (*FEATURES, "BACKGROUND")} | {
    "ISO0": (1.0, 1e5),
    "EXPTIME": (1e-3, 1e5),
    "FLAGS": (0.0, 255.0),
}
#: Where their BACKGROUND was clipped, either side.
CLIPPED = 2.0
SCHEMA = pa.schema(
    [
        ("OBJECT_ID", pa.string()),
        ("FITS_ID", pa.string()),
        ("CCD_ID", pa.int32()),
        ("CCD_HDU", pa.int32()),
        *((name, pa.float32()) for name in ("ISO0", "BACKGROUND", "ELLIPTICITY", "ELONGATION", "CLASS_STAR")),
        ("FLAGS", pa.int16()),
        ("EXPTIME", pa.float64()),
        ("gt_label1", pa.int64()),
        ("gt_label2", pa.int64()),
    ]
)


def read_public(paths: Sequence[str | Path], faults: Counter, leave_out: Iterable[str] = ()) -> Iterator[pa.RecordBatch]:
    """The rows of public catalogues, in batches, after `SCHEMA`: CCD_ID 0 to 39, labels as numbers, -1 where there is none.

    Args:
        paths: files named ``.parquet.gz`` or ``.parquet``.
        faults: how many values were masked, by what was wrong, is added up here.
        leave_out: exposures whose rows are not wanted, with or without the last ``p``.

    Raises:
        UserError: no such file, it is no Parquet, or a column is missing or of another kind.
    """
    without = {name.removesuffix("p") for name in leave_out}
    for path in paths:
        for batch in _opened(path).batches():
            names = batch["FITS_ID"].to_pylist()
            if without:
                wanted = pa.array([name is not None and name.removesuffix("p") not in without for name in names], pa.bool_())
                batch = batch.filter(wanted)
            yield _cleaned(batch, faults, str(path))


def _opened(path: str | Path) -> Catalog:
    given = [name for name in SCHEMA.names if name != "CCD_HDU"]
    catalog = open_catalog(path, given)
    for name in given:
        kind, wanted = catalog.schema.field(name).type, SCHEMA.field(name).type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if name in (*BOUNDS, "CCD_ID") and not number:
            raise UserError(f"{path}: column {name} is {kind}, not {wanted}")
    return catalog


def _cleaned(batch: pa.RecordBatch, faults: Counter, path: str) -> pa.RecordBatch:
    columns = {name: batch[name].cast(pa.string()) for name in ("OBJECT_ID", "FITS_ID")}
    hdu = _numbers(batch["CCD_ID"], path, "CCD_ID")
    ccd = (hdu - 2) / 2
    known = (ccd >= 0) & (ccd < 40) & (ccd == np.floor(ccd))
    faults["CCD_ID no HDU of a CCD"] += int((~known).sum())
    columns["CCD_HDU"] = _integers(hdu, np.isfinite(hdu))
    columns["CCD_ID"] = _integers(ccd, known)
    for name, (low, high) in BOUNDS.items():
        values = _numbers(batch[name], path, name)
        clipped = (np.abs(values) == CLIPPED) if name == "BACKGROUND" else np.zeros(len(values), bool)
        wrong = {
            "not finite": ~np.isfinite(values),
            f"below {low:g}": values < low,
            f"above {high:,.0f}": values > high,
            f"clipped to +-{CLIPPED:g}": clipped,
        }
        good = np.ones(len(values), bool)
        for words, bad in wrong.items():
            faults[f"{name} {words}"] += int((good & bad).sum())
            good &= ~bad
        kind = SCHEMA.field(name).type
        columns[name] = _integers(values, good) if pa.types.is_integer(kind) else pa.array(values, mask=~good)
    for name in ("gt_label1", "gt_label2"):
        texts = pc.fill_null(batch[name].cast(pa.string()), "")
        columns[name] = pc.fill_null(pc.index_in(texts, pa.array(CLASSES)), -1)
        faults[f"{name} outside the classes"] += (
            pc.sum(pc.and_(pc.equal(columns[name], -1), pc.not_equal(texts, ""))).as_py() or 0
        )
    return pa.record_batch([columns[name].cast(SCHEMA.field(name).type, safe=False) for name in SCHEMA.names], SCHEMA)


def _numbers(column: pa.Array, path: str, name: str) -> np.ndarray:
    """Float64, NaN where there is no value."""
    try:
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise UserError(f"{path}: column {name}: {error}") from error


def _integers(values: np.ndarray, good: np.ndarray) -> pa.Array:
    return pa.array(np.where(good, values, 0).astype(np.int64), mask=~good)


def fit_map(catalog: str | Path, seed: int = 0) -> Groups:
    """A map of 20 groups of the sources of a catalogue in `SCHEMA`; rows with a masked feature are left out.

    Raises:
        UserError: no such file, or fewer sources than groups.
    """

    def columns(batch: pa.RecordBatch | pa.Table) -> dict[str, np.ndarray]:
        return {name: batch[name].to_numpy(zero_copy_only=False) for name in FEATURES}

    opened = open_catalog(catalog, list(FEATURES))
    scaling = Scaling.fit(columns(opened.table()), FEATURES, LOG)
    return Groups.fit(lambda: (scaling(columns(batch)) for batch in opened.batches()), scaling, MAP, seed=seed)


def report(rows: int, faults: Counter) -> list[str]:
    """What was masked, a line each."""
    found = [f"  {count:,} ({count / max(rows, 1):.2%}): {words}" for words, count in faults.most_common() if count]
    return [f"{rows:,} sources; masked:" if found else f"{rows:,} sources, nothing masked", *found]


def main(arguments: list[str] | None = None) -> int:
    """Run a command line."""
    parser = argparse.ArgumentParser(
        "python -m skyset.build_scripts.megacam_iqa.public_catalog",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("catalogs", nargs="+", type=Path, metavar="FILE", help="objects_catalog_*_bronze.parquet.gz")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the Parquet file to be written")
    parser.add_argument("--som", type=Path, metavar="FILE", help="also write a map of their sources, .npz")
    parser.add_argument("--seed", type=int, default=0, help="of the map (default: %(default)s)")
    parser.add_argument("--leave_out", nargs="+", default=(), metavar="ID", help="exposures that a build will test on")
    asked = parser.parse_args(arguments)
    return exit_status(lambda: _run(asked))


def _run(asked: argparse.Namespace) -> int:
    for path in (asked.output, asked.som):
        if path is not None and path.exists():
            raise UserError(f"{path} is there already")
    if asked.som is not None:
        need_compiled("a map")
    faults: Counter = Counter()
    rows = write_parquet(asked.output, read_public(asked.catalogs, faults, asked.leave_out), SCHEMA)
    for line in report(rows, faults):
        say(line)
    if asked.som is not None:
        groups = fit_map(asked.output, asked.seed)
        groups.save(asked.som)
        say(f"wrote {asked.som}: {groups.som.training.hits.sum():,} sources in {' x '.join(map(str, MAP))} groups")
    return 0


if __name__ == "__main__":
    sys.exit(main())
