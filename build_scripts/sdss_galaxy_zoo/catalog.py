"""The catalogue of SDSS Galaxy Zoo: the queries, the names that services use, the join of two services, the cuts.

Rows come as Arrow record batches with the columns of ``CATALOG`` (null where a source has none) and, first, ``objid``: the
objid of data release 8, or 7 where that is not known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyset.archives.tap import SlicedQuery
from skyset.archives.tap import fetch_slices
from skyset.errors import UserError
from skyset.loaders.sdss_galaxy_zoo import BANDS
from skyset.loaders.sdss_galaxy_zoo import CATALOG
from skyset.loaders.sdss_galaxy_zoo import CLASSES
from skyset.loaders.sdss_galaxy_zoo import PHOTOMETRY
from skyset.survey import Column
from skyset.tables.catalog import check_ids
from skyset.tables.cuts import Cut
from skyset.tables.cuts import equals
from skyset.tables.cuts import max_error
from skyset.tables.cuts import on_sky
from skyset.tables.cuts import unique
from skyset.tables.cuts import valid_magnitudes
from skyset.tables.match import match_positions
from skyset.tables.match import nearest
from skyset.tables.numeric_text import safe_to_numeric
from skyset.tables.open import open_catalog
from skyset.tables.slices import read_slices

#: Degrees by which a slice of photometry is wider than one of votes: two releases differ by fractions of an arcsec.
OVERLAP = 0.005
RADIUS_ARCSEC = 1.0
#: Columns that a source must have (beside an objid), and each of two sources.
VOTES_NEEDED, PHOTOMETRY_NEEDED = ("ra", "dec", "spiral", "elliptical"), ("ra", "dec", "petroR90_r")
NEEDED = (*VOTES_NEEDED, "petroR90_r")
#: Arcsec. No galaxy of the Main Galaxy Sample is larger, and a cutout must be one on the sky.
LARGEST = 600
#: Rows by which the columns of votes can be told.
FEWEST = 20
SCHEMA = pa.schema([pa.field("objid", pa.int64()), *(pa.field(c.name, pa.from_numpy_dtype(c.dtype)) for c in CATALOG)])
_FRACTIONS = ("p_el", "p_cw", "p_acw", "p_edge", "p_dk", "p_mg", "p_cs", "p_el_debiased", "p_cs_debiased")
_PHOTOMETRY = ", ".join(
    f"p.{c.name.lower()} AS {c.name}" for c in PHOTOMETRY if c.name not in ("redshift", "clean", "flags")
)

_ZOOSPEC = f"""
SELECT z.objid AS dr8objid, z.dr7objid, z.ra, z.dec, z.nvote, {", ".join(f"z.{name}" for name in (*_FRACTIONS, *CLASSES))},
  {_PHOTOMETRY}, s.z AS redshift, p.clean, p.flags"""

#: One service that mirrors the SDSS tables ZooSpec, PhotoObj (here: of spectroscopic targets) and SpecObj.
ZOOSPEC = f"""{_ZOOSPEC}
FROM sdss_dr17.zoospec AS z JOIN sdss_dr17.photoplate AS p ON p.objid = z.objid
LEFT OUTER JOIN sdss_dr17.specobj AS s ON s.specobjid = z.specobjid
WHERE z.ra >= {{low}} AND z.ra < {{high}}"""

#: Votes at VizieR (ids of data release 7), ...
VOTES = 'SELECT * FROM "J/MNRAS/410/166/galaxies" WHERE "RAJ2000" >= {low} AND "RAJ2000" < {high}'
#: ... with names for some columns that have to be told by their values first, ...
VOTES_SAMPLE = VOTES.replace("SELECT *", "SELECT TOP 2000 *")
#: ... to be joined by position with photometry and redshifts at the Astro Data Lab.
TARGETS = f"""
SELECT p.objid AS dr8objid, p.ra, p.dec, {_PHOTOMETRY}, s.z AS redshift, p.clean, p.flags
FROM sdss_dr17.photoplate AS p JOIN sdss_dr17.specobj AS s ON s.bestobjid = p.objid
WHERE p.ra >= {{low}} - {OVERLAP} AND p.ra < {{high}} + {OVERLAP} AND s.scienceprimary = 1 AND p.petromag_r < 19"""

#: What SkyServer and CasJobs take; the answer, as CSV, is a ``--catalog``.
CASJOBS = f"""{_ZOOSPEC}
FROM ZooSpec AS z JOIN PhotoObj AS p ON p.objid = z.objid LEFT JOIN SpecObj AS s ON s.specobjid = z.specobjid"""

#: Other names of our columns, by the source; upper and lower case are the same.
NAMES = {
    "dr8objid": ("objid_dr8", "objid", "bestobjid"),
    "dr7objid": ("objid_dr7",),
    "redshift": ("z_spec", "zsp", "specz"),
}
VIZIER_NAMES = {
    "dr7objid": ("objID",),
    "ra": ("RAJ2000",),
    "dec": ("DEJ2000",),
    "nvote": ("N",),
    "p_cw": ("pcS",),
    "p_acw": ("paS",),
    "p_dk": ("pDK",),
    "spiral": ("fS",),
    "elliptical": ("fE",),
    "uncertain": ("fU",),
}


@dataclass(frozen=True)
class Source:
    """Where the rows come from: a file, one service, or two.

    Args:
        file: a catalogue on this machine.
        photometry: the query of all columns, or where ``votes`` is given, of all but the votes.
        votes: the query of the votes.
    """

    file: Path | None = None
    photometry: SlicedQuery | None = None
    votes: SlicedQuery | None = None

    @property
    def addresses(self) -> list[str]:
        if self.file:
            return [str(self.file)]
        return list(dict.fromkeys(query.url for query in (self.votes, self.photometry) if query))

    @property
    def queries(self) -> list[str]:
        return [" ".join(query.adql.split()) for query in (self.votes, self.photometry) if query]


def rows_of(source: Source, folder: Path, **fetching) -> Iterator[pa.RecordBatch]:
    """All rows of a source, in slices of right ascension where it is a service.

    Args:
        source: the source.
        folder: where slices are kept, so that no run asks for them twice.
        fetching: options of ``fetch_slices``.

    Raises:
        UserError: a column that is needed is missing, ids have been through floating point, a service refuses.
    """
    if source.file:
        for batch in open_catalog(source.file).batches():
            yield standard(batch, NAMES, str(source.file))
        return
    with contextlib.closing(fetch_slices(source.photometry, folder, **fetching)) as photometry:
        if source.votes is None:
            for path in photometry:
                yield from standard(pq.read_table(path), NAMES, source.photometry.url).to_batches()
            return
        names = vote_names(source.votes, folder, **fetching)
        with contextlib.closing(fetch_slices(source.votes, folder, **fetching)) as votes:
            around = dataclasses.replace(source.photometry, low=360 - OVERLAP, high=360.0, slices=1)
            for table in joined(votes, photometry, fetch_slices(around, folder, **fetching), source, names):
                yield from table.to_batches()


def standard(batch, names: Mapping[str, Sequence[str]], where: str, needed: Sequence[str] = ()):
    """A batch or table with the columns of ``SCHEMA``, from one with a source's names.

    -9999, which SDSS writes for what was not measured, becomes null.

    Raises:
        UserError: a column that is needed is missing, or holds what it cannot.
    """
    lower = {name.lower(): name for name in batch.schema.names}
    if len(lower) < len(batch.schema.names):
        same = sorted(name for name in batch.schema.names if lower[name.lower()] != name)
        raise UserError(f"{where}: two columns are called {', '.join(same)} but for upper and lower case")
    found = {}
    for column in CATALOG:
        known = (column.name, *names.get(column.name, ()))
        if name := next((lower[n.lower()] for n in known if n.lower() in lower), None):
            found[column.name] = _typed(batch, name, column, where)
    needed = [*(needed or NEEDED), *([] if "dr8objid" in found or "dr7objid" in found else ["dr8objid"])]
    if missing := [name for name in needed if name not in found]:
        raise UserError(f"{where}: no column {', '.join(missing)} (there are: {', '.join(batch.schema.names)})")
    ids = [found[name] for name in ("dr8objid", "dr7objid") if name in found]
    found["objid"] = pc.coalesce(*ids)
    nothing = {field.name: pa.nulls(batch.num_rows, field.type) for field in SCHEMA if field.name not in found}
    return type(batch).from_arrays([{**nothing, **found}[name] for name in SCHEMA.names], schema=_marked(found))


def _marked(found: Iterable[str]) -> pa.Schema:
    """The schema, which also says what the source has: cuts on other columns are left out."""
    return SCHEMA.with_metadata({"columns": ",".join(found)})


def columns_in(batch) -> set[str]:
    """The columns that the source of a batch has."""
    return set(batch.schema.metadata[b"columns"].decode().split(","))


def _typed(batch, name: str, column: Column, where: str):
    """One column as its declaration wants it."""
    if column.name in ("dr8objid", "dr7objid"):
        check_ids(batch, name)
    values, kind = safe_to_numeric(batch[name]), SCHEMA.field(column.name).type
    try:
        if pa.types.is_boolean(values.type):
            values = pc.cast(values, pa.int8())
        if pa.types.is_integer(kind):
            return pc.cast(values, kind)
        return pc.cast(_measured(pc.cast(values, pa.float64())), kind)
    except pa.ArrowInvalid as error:
        raise UserError(f"{where}: column {name} cannot be {column.dtype}: {error}") from error


def _measured(values):
    """Null instead of -9999."""
    return pc.if_else(pc.equal(values, -9999.0), pa.scalar(None, values.type), values)


def joined(
    votes: Iterator[Path],
    photometry: Iterator[Path],
    around: Iterator[Path],
    source: Source,
    names: Mapping[str, Sequence[str]],
) -> Iterator[pa.Table]:
    """Each slice of votes with the photometry of the nearest object within ``RADIUS_ARCSEC``; null where there is none.

    Both come in order of right ascension, cut at borders of their own. ``around`` has the photometry just below 360 degrees,
    for votes just above 0, and the first slice's is kept for votes just below 360.
    """

    def photometry_in(path: Path) -> pa.Table:
        return standard(pq.read_table(path), NAMES, source.photometry.url, needed=PHOTOMETRY_NEEDED)

    held: list[tuple[float, float, pa.Table]] = []
    first: list[pa.Table] = []
    for path in votes:
        low, high = slice_of(path)
        while not held or held[-1][1] < high:
            if (following := next(photometry, None)) is None:
                break
            held.append(
                (
                    *slice_of(following),
                    photometry_in(following),
                )
            )
        held = [part for part in held if part[1] > low]
        tables = [part[2] for part in held]
        if low == 0:
            tables += [photometry_in(path) for path in around]
            first = [held[0][2].filter(pc.less(held[0][2]["ra"], OVERLAP))] if held else []
        if high == 360:
            tables += first
        table = standard(pq.read_table(path), names, source.votes.url, needed=VOTES_NEEDED)
        yield join(table, pa.concat_tables([SCHEMA.empty_table(), *tables]))


def slice_of(path: Path) -> tuple[float, float]:
    """The borders in degrees that a slice's file is named by."""
    low, _, high = path.stem.partition("-")
    return float(low), float(high)


def join(votes: pa.Table, photometry: pa.Table) -> pa.Table:
    """Votes with the columns of the nearest photometry that the votes have not; the position is the photometry's."""
    (ra, dec, rows), (other_ra, other_dec, other_rows) = _positions(votes), _positions(photometry)
    pairs = nearest(match_positions(ra, dec, other_ra, other_dec, RADIUS_ARCSEC))
    places = np.full(votes.num_rows, -1)
    places[rows[pairs.left]] = other_rows[pairs.right]
    places = pa.array(places, mask=places < 0)
    ours = columns_in(votes) - {"ra", "dec", "objid"}
    columns = {name: votes[name] if name in ours else photometry[name].take(places) for name in SCHEMA.names}
    for name in ("ra", "dec"):
        columns[name] = pc.coalesce(columns[name], votes[name])
    columns["objid"] = pc.coalesce(columns["dr8objid"], votes["objid"])
    present = {*ours, "ra", "dec", "objid", "dr8objid", "photometry", *(c.name for c in PHOTOMETRY)}
    return pa.table([columns[name] for name in SCHEMA.names], schema=_marked(sorted(present)))


def _positions(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ascensions and declinations, degrees, of the rows that have both, and their numbers."""
    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    rows = np.flatnonzero((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90))
    return ra[rows], dec[rows], rows


def vote_names(votes: SlicedQuery, folder: Path, **fetching) -> dict[str, tuple[str, ...]]:
    """VizieR's names of our columns, those that tell little found out from the first rows of the table."""
    sample = dataclasses.replace(votes, adql=VOTES_SAMPLE, slices=1)
    options = {**fetching, "progress": SimpleNamespace(update=lambda _: None, set_postfix_str=lambda *_, **__: None)}
    told = tell_votes(read_slices(list(fetch_slices(sample, folder, **options))))
    return {**VIZIER_NAMES, **{ours: (theirs,) for ours, theirs in told.items()}}


def tell_votes(table: pa.Table) -> dict[str, str]:
    """Which column is which fraction of the votes: VizieR's names alone do not say, what the values add up to does.

    p_cs = p_cw + p_acw + p_edge; p_el + p_cw + p_acw + p_edge + p_dk + p_mg = 1; ellipticals have more votes for elliptical
    than for merger; the flags are set where the debiased fractions exceed 0.8 (Lintott et al. 2011, section 3). One row in a
    hundred may break a rule.

    Returns:
        their names of our ``p_el, p_edge, p_mg, p_cs, p_el_debiased, p_cs_debiased``; empty unless just one choice fits
        all six, or where there are fewer than `FEWEST` rows to tell by.
    """
    lower = {name.lower(): name for name in table.column_names}
    anchors = [lower.get(VIZIER_NAMES[name][0].lower()) for name in ("p_cw", "p_acw", "p_dk", "elliptical", "spiral")]
    if None in anchors or table.num_rows < FEWEST:
        return {}
    clockwise, anticlockwise, unknown, elliptical, spiral = (_floats(table, name) for name in anchors)
    others = {f.name: _floats(table, f.name) for f in table.schema if pa.types.is_floating(f.type) and f.name not in anchors}
    others = {name: values for name, values in others.items() if np.nanmin(values) >= 0 and np.nanmax(values) < 1.01}

    def fits(agrees) -> bool:
        return np.mean(agrees) >= 0.99

    def follows(values, flag) -> bool:
        """Three decimals are published: a fraction of 0.800 may be a little more or less."""
        return fits(((values > 0.8) == (flag == 1)) | (np.abs(values - 0.8) < 0.0015)) and np.any(flag == 1)

    choices = [
        dict(zip(("p_el", "p_edge", "p_mg", "p_cs"), choice, strict=True))
        for choice in itertools.permutations(others, 4)
        for e, d, m, s in [[others[name] for name in choice]]
        if fits(np.abs(clockwise + anticlockwise + d - s) < 0.01)
        and fits(np.abs(e + clockwise + anticlockwise + d + unknown + m - 1) < 0.01)
        and np.mean(e[elliptical == 1]) > np.mean(m[elliptical == 1])
    ]
    if len(choices) != 1:
        return {}
    told = choices[0]
    for name, flag in (("p_el_debiased", elliptical), ("p_cs_debiased", spiral)):
        left = [n for n, values in others.items() if n not in told.values() and follows(values, flag)]
        if len(left) != 1:
            return {}
        told[name] = left[0]
    return told


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return pc.cast(table[name], pa.float64()).to_numpy()


# --- cuts ---------------------------------------------------------------------------------------------------


def cuts(
    have: set[str], classes: Sequence[str], max_error_gri: float, max_error_uz: float, min_debiased: float
) -> tuple[list[Cut], list[str]]:
    """The cuts in their order, and those left out because the source has not their columns.

    Raises:
        UserError: a cut was asked for whose columns the source has not.

    Args:
        have: columns of the source.
        classes: of ``CLASSES``, those wanted.
        max_error_gri, max_error_uz: mag, the largest error of a model magnitude.
        min_debiased: the smallest debiased fraction of a galaxy's own class; 0 for no such cut.
    """
    wanted = [
        (("ra", "dec"), on_sky()),
        (("objid",), unique("objid")),
        (("petroR90_r",), Cut("size", f"0 < petroR90_r < {LARGEST} arcsec", _has_size)),
    ]
    if "photometry" in have:
        text = f"an SDSS object within {RADIUS_ARCSEC:g} arcsec"
        wanted.insert(1, (("dr8objid",), Cut("photometry", text, _has_photometry)))
    for kind in ("petroMag", "modelMag"):
        names = [f"{kind}_{band}" for band in BANDS]
        wanted.append((names, _called(kind, f"0 < {kind} < 40 mag in {BANDS}", valid_magnitudes(names))))
    for bands, limit in (("gri", max_error_gri), ("uz", max_error_uz)):
        names, text = [f"modelMagErr_{band}" for band in bands], f"modelMagErr <= {limit:g} mag in {bands}"
        wanted.append((names, _called(f"errors {bands}", text, max_error(names, limit))))
    wanted.append((("clean",), _called("clean", "clean = 1", equals("clean", 1))))
    wanted.append(((), _is_one_of(classes)))
    chosen = [cut for names, cut in wanted if have.issuperset(names)]
    left_out = [cut.name for _, cut in wanted if cut not in chosen]
    if min_debiased > 0:
        if missing := {"p_el_debiased", "p_cs_debiased"} - have:
            raise UserError(f"--min_debiased needs {' and '.join(sorted(missing))}, which this source does not give")
        chosen.append(confident(min_debiased))
    return chosen, left_out


def _called(name: str, description: str, cut: Cut) -> Cut:
    return dataclasses.replace(cut, name=name, description=description)


def _has_size(batch) -> pa.BooleanArray:
    return pc.and_(pc.greater(batch["petroR90_r"], 0), pc.less(batch["petroR90_r"], LARGEST)).fill_null(False)


def _has_photometry(batch) -> pa.BooleanArray:
    return batch["dr8objid"].is_valid()


def _is_one_of(classes: Sequence[str]) -> Cut:
    def keep(batch):
        label = labels(batch)
        return np.isin(label, [CLASSES.index(name) for name in classes])

    return Cut("class", f"flagged {' or '.join(classes)}", keep)


def labels(batch) -> np.ndarray:
    """Index into ``CLASSES`` of the flag that is set, int64 (rows,); -1 where none is, or more than one."""
    flags = np.stack([pc.fill_null(batch[name], 0).to_numpy(zero_copy_only=False) == 1 for name in CLASSES])
    return np.where(flags.sum(axis=0) == 1, flags.argmax(axis=0), -1)


def confident(least: float) -> Cut:
    """Spirals and ellipticals with at least this debiased fraction; an uncertain galaxy has no class to be sure of."""

    def keep(batch):
        fractions = np.stack([
            pc.fill_null(batch[name], np.nan).to_numpy(zero_copy_only=False) for name in ("p_cs_debiased", "p_el_debiased")
        ])  # fmt: skip
        label = labels(batch)
        return (label == 2) | np.where(label == 0, fractions[0] >= least, (label == 1) & (fractions[1] >= least))

    return Cut("confidence", f"debiased fraction of its class >= {least:g}", keep)
