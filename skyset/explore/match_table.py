"""What ``skyset crossmatch`` writes: names, positions and chosen columns of the objects that belong together, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from skyset.errors import UserError
from skyset.explore.catalogue import (
    catalogue_of,
    columns_in,
    is_folder,
    name_in,
    positions_in,
    units_in,
    with_positions,
    with_unit,
)
from skyset.explore.match_plan import joined
from skyset.explore.pairs import matches_table
from skyset.loading.hats import CATALOGUE, COLLECTION
from skyset.messages import say
from skyset.partitions.layout import MANIFEST
from skyset.runner import Pool, executor
from skyset.tables.match import Pairs, match_keys, nearest, separation_arcsec
from skyset.tables.match_stripes import match_in_stripes
from skyset.tables.motion import Motion, common_epoch, motion_in

if TYPE_CHECKING:
    from skyset.loading.stream import SurveyStream

HOW = ("inner", "left", "nearest")
BEST = ("all", "nearest", "mutual")


@dataclass(frozen=True)
class Asked:
    """What is asked for on the command line; texts are ``COLUMN``, or ``COLUMN=COLUMN`` with one for each catalogue.

    Args:
        sources: folders of partitions, or files; all others are matched with the first.
        radius: arcsec.
        key: match equal names in place of positions.
        how: which of the first catalogue's objects there are rows for: ``"inner"``, those with a match, ``"left"``, all;
            ``"nearest"`` is ``"inner"`` with the nearest match alone.
        best: which matches: ``"all"``, ``"nearest"``, ``"mutual"``.
        ids, ra, dec: what columns are called, positions with their unit as ``RA:hour``.
        columns: further ones, ``"mag_r,mag_g"``.
        pm, epochs: follow proper motions; ``"2016=2000"``, Julian years.
    """

    sources: tuple[str, ...]
    radius: float = 1.0
    key: str | None = None
    how: str = "inner"
    best: str = "all"
    ids: str | None = None
    ra: str | None = None
    dec: str | None = None
    columns: str | None = None
    pm: bool = False
    epochs: str | None = None

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise UserError(f"--how {self.how}: it is {', '.join(HOW[:-1])} or {HOW[-1]}")
        if self.best not in BEST:
            raise UserError(f"--best {self.best}: it is {', '.join(BEST[:-1])} or {BEST[-1]}")
        if self.how == "nearest" and self.best == "mutual":
            raise UserError("--how nearest and --best mutual are two things: leave one out")
        if self.epochs and not self.pm:
            raise UserError("--epochs is for --pm")
        if self.key and self.pm:
            raise UserError("--pm moves positions, --key does not look at them: leave one out")

    def each(self, text: str | None, what: str) -> list[str]:
        """What each catalogue calls something."""
        parts = [part.strip() for part in (text or "").split("=")]
        if len(parts) not in (1, len(self.sources)):
            raise UserError(f"--{what} {text}: {len(parts)} columns for {len(self.sources)} catalogues")
        return [parts[0]] * len(self.sources) if len(parts) == 1 else [part or parts[0] for part in parts]

    def positions(self, text: str | None, what: str) -> list[str]:
        """What each catalogue calls a coordinate: one word is for the files, for partitions have ra and dec."""
        names = self.each(text, what)
        files = [not is_folder(source) for source in self.sources]
        alone = "=" not in (text or "") and any(files)
        return [name if is_file or not alone else "" for name, is_file in zip(names, files, strict=True)]


@dataclass(frozen=True)
class _Catalogue:
    """A catalogue's table as it is handed out, its column of keys, and where its objects are compared, degrees."""

    table: pa.Table
    key: str
    ra: np.ndarray
    dec: np.ndarray


def table_of_matches(asked: Asked, scheduler: str | None = None) -> tuple[pa.Table, list[int], int]:
    """The table, how many objects each catalogue has, and how many of the first have no match.

    Args:
        asked: for what.
        scheduler: address of a Dask cluster that reads partitions and compares positions, see `skyset.runner.executor`.

    Raises:
        UserError: a catalogue or a column is not there, or cannot be matched.
    """
    folders = [source for source in asked.sources if is_folder(source) and "://" not in source]
    heads = [Path(folder, name) for folder in folders for name in (MANIFEST, COLLECTION, *CATALOGUE)]
    with executor(1, scheduler, shared=[head for head in heads if head.is_file()]) as pool:
        catalogues = _read(asked, pool)
        first, tables = catalogues[0], [each.table for each in catalogues]
        pairs = [_pairs(asked, first, other, pool) for other in catalogues[1:]]
    rows, separations = joined(pairs, first.table.num_rows if asked.how == "left" else None)
    suffixes = ("_left", "_right") if len(tables) == 2 else [f"_{number}" for number in range(1, len(tables) + 1)]
    alone = first.table.num_rows - len(np.unique(rows[0][(rows >= 0).all(axis=0)]))
    return matches_table(rows, separations, tables, suffixes), [table.num_rows for table in tables], alone


def stream_of_matches(asked: Asked, names: Sequence[str] | None = None) -> SurveyStream:
    """The rows with the columns of all catalogues, those of ``asked.columns`` where there are any; see ``crossmatch``.

    Args:
        asked: for what; matches by position.
        names: what the columns of each are named by.

    Raises:
        UserError: see ``crossmatch``; no catalogue has a column that is asked for.
    """
    from skyset.explore.crossmatch import crossmatch

    if asked.best == "mutual":
        raise UserError("--best mutual is for tables: --how nearest gives each object's nearest")
    stream = crossmatch(
        *asked.sources,
        radius=asked.radius,
        how="nearest" if asked.best == "nearest" else asked.how,
        names=names,
        ra=asked.positions(asked.ra, "ra"),
        dec=asked.positions(asked.dec, "dec"),
        pm=asked.pm,
        epochs=_epochs(asked) if asked.epochs else None,
    )
    wanted = [name.strip() for name in (asked.columns or "").split(",") if name.strip()]
    ends = {name: name.partition(".")[2] for name in stream.features}
    if missing := [name for name in wanted if name not in ends.values()]:
        raise UserError(f"no catalogue has a column {missing[0]}")
    separate = [name for name in ends if name.partition(".")[0] == "separation_arcsec"]
    chosen = [name for name, end in ends.items() if end in wanted or name in separate]
    return stream.select_columns(chosen) if wanted else stream


def _pairs(asked: Asked, left: _Catalogue, right: _Catalogue, pool: Pool) -> Pairs:
    if asked.key:
        pairs = match_keys(left.table[left.key], right.table[right.key])
        ends = (left.ra[pairs.left], left.dec[pairs.left], right.ra[pairs.right], right.dec[pairs.right])
        return replace(pairs, separation=separation_arcsec(*ends))
    pairs = match_in_stripes(pool, (left.ra, left.dec), (right.ra, right.dec), asked.radius)
    if asked.best == "all" and asked.how != "nearest":
        return pairs
    return nearest(pairs, one_to_one=asked.best == "mutual")


def _read(asked: Asked, pool: Pool) -> list[_Catalogue]:
    further = columns_in(asked.sources, [name.strip() for name in (asked.columns or "").split(",") if name.strip()])
    epochs = _epochs(asked)
    motions = [
        motion_in(units_in(source), epoch, source) for source, epoch in zip(asked.sources, epochs, strict=True) if asked.pm
    ]
    motions = motions or [None] * len(asked.sources)
    if asked.pm:
        to = common_epoch(motions, epochs)
        motions = [motion and replace(motion, to=to) for motion in motions]
    texts = (
        asked.each(asked.ids, "ids"),
        asked.each(asked.key, "key"),
        asked.positions(asked.ra, "ra"),
        asked.positions(asked.dec, "dec"),
    )
    return [_read_one(asked, pool, *each) for each in zip(asked.sources, further, motions, *texts, strict=True)]


def _read_one(
    asked: Asked, pool: Pool, source: str, further: list[str], motion: Motion | None, name: str, key: str, ra: str, dec: str
) -> _Catalogue:
    name, key = name_in(source, name or key), name_in(source, key) if key else ""
    (ra, ra_unit), (dec, dec_unit) = with_unit(ra), with_unit(dec)
    where = positions_in(source, ra, dec) if ra or dec or not asked.key or is_folder(source) else ("ra", "dec")
    more = [each for each in dict.fromkeys([key, *further]) if each not in ("", name, *where)]
    every = list(dict.fromkeys([*more, *(motion.names if motion else ())]))
    table = catalogue_of(source, every, name, *where, positions=not asked.key, units=(ra_unit, dec_unit), pool=pool)
    if not asked.key:
        table, dropped = with_positions(table)
        if dropped:
            say(f"{source}: {dropped:,} objects without a position are left out")
    places = table["ra"].to_numpy(), table["dec"].to_numpy()
    if motion:
        places = motion.applied(*places, {each: table[each].to_numpy() for each in motion.names})
        table = table.drop_columns([each for each in every if each not in more])
    return _Catalogue(table, "object_id" if key in ("", name) else key, *places)


def _epochs(asked: Asked) -> list[float | None]:
    """Of each catalogue's positions, None where it is not told."""
    try:
        return [float(text) if text else None for text in asked.each(asked.epochs, "epochs")]
    except ValueError:
        raise UserError(f"--epochs {asked.epochs}: these are no years: 2016=2000") from None
