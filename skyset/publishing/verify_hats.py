"""Whether a HATS collection or catalogue, ours or anybody's, holds what its lists, its index and its notes say."""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyset.errors import UserError
from skyset.files import is_temporary
from skyset.loading.hats import CATALOGUE, COLLECTION, catalogue_in, read_properties
from skyset.publishing.hats import NOTE
from skyset.publishing.hats_files import DATASET
from skyset.publishing.hats_plan import INDEX, INDEX_ORDER, index_of
from skyset.publishing.source import Source
from skyset.publishing.verify_files import Bytes, Listed, damage_told, opened, rows_are, schema_differences
from skyset.publishing.verify_margin import Placed, margin_differences
from skyset.publishing.verify_note import Noted
from skyset.publishing.verify_rows import Names, Rows, Seen, numbers
from skyset.publishing.verify_together import looked_at_together, worth
from skyset.publishing.verify_values import Against, Values
from skyset.runner import executor
from skyset.tables.match import separation_arcsec

_FILE = re.compile(r"Norder=(\d{1,2})/Dir=(\d{1,20})/Npix=(\d{1,20})(?:\.\w+|/.+)")
#: Between a position and the cell that others' software puts it in: libraries round differently.
_ROUNDING_ARCSEC = 0.01


def verify_hats(
    root: str,
    source: Callable[[str, str], Source] | None = None,
    progress: Callable = iter,
    processes: int = 1,
    scheduler: str | None = None,
) -> Iterator[str]:
    """Every difference within a HATS folder, and from the partitions it was made of, a line each.

    Args:
        root: a local collection or catalogue.
        source: finds the partitions of a survey and config; None compares no values.
        progress: wraps the list of files.
        processes, scheduler: that read all bytes and compare values, see `skyset.runner.executor`.

    Raises:
        UserError: values are to be compared, and nothing says of what the catalogue was made.
    """
    folder = Path(root)
    lines: list[str] = []
    noted = Noted.read(folder, lines)
    yield from lines
    if source is not None and noted is None:
        raise UserError(f"{folder} has no {NOTE} of skyset: nothing says of which survey its rows are")
    found = source(noted.survey_name, noted.config) if source and noted else None
    if noted is not None:
        yield from noted.differences(found)
    try:
        catalogue = catalogue_in(folder)
    except UserError as error:
        yield str(error).replace(f"{folder} ", f"{COLLECTION}: ", 1)
        return
    if catalogue is None:
        yield f"{DATASET}: missing"
        return
    main = _Catalogue(folder, catalogue, noted)
    margins = [_Catalogue(folder, folder / name, noted, main) for name in _margins(folder)]
    every = [main, *margins]
    for each in every:
        yield from each.head()
    if noted is not None:
        yield from noted.unlisted(each.label(path) for each in every for path in each.files)
    against = None
    if found is not None and noted is not None:
        against = Against(noted.of(found), noted.key, on_sky=True)
    files = [(each, path) for each in every for path in each.by_sky()]
    listed = [each.listed(path) for each, path in files]
    shared = [f"{root}/{each.path}" for each in listed[:1]] + ([found.a_file] if found is not None else [])

    def look(number: int, whole: Bytes) -> tuple[list[str], Values | None]:
        owner, path = files[number]
        return owner.file(path, whole, against)

    with executor(worth(processes, listed), scheduler, shared=shared) as pool:
        yield from looked_at_together(pool, root, NOTE, listed, look, progress)
    for each in every:
        yield from each.end()
    if against is not None:
        yield from (f"{main.label('')}: {line}" for line in against.missing())


def _first(order: int, pixel: int) -> int:
    """The index at which a cell begins."""
    return pixel << 2 * max(0, INDEX_ORDER - order)


def _margins(folder: Path) -> list[str]:
    if not (folder / COLLECTION).is_file():
        return []
    names = read_properties(folder / COLLECTION).get("all_margins", "").replace(",", " ").split()
    return [name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())]


@dataclass
class _Catalogue:
    """A catalogue, or the margin of ``main``."""

    root: Path
    folder: Path
    noted: Noted | None
    main: _Catalogue | None = None
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    rows: Counter = field(default_factory=Counter)
    placed: list[Placed] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    schema: pa.Schema | None = None

    def __post_init__(self) -> None:
        dataset = self.folder / DATASET
        for path in sorted(dataset.glob("Norder=*/**/*")):
            self._take(dataset, path)

    def _take(self, dataset: Path, path: Path) -> None:
        name = path.relative_to(dataset).as_posix()
        if not path.is_file() or is_temporary(path.name):
            return
        order, directory, pixel = map(int, match.groups()) if (match := _FILE.fullmatch(name)) else (-1, 0, 0)
        if 0 <= order <= INDEX_ORDER and pixel < 12 * 4**order and directory == pixel // 10_000 * 10_000:
            self.files[name] = order, pixel
        elif not path.name.startswith("."):
            self.strange.append(name)

    @property
    def is_margin(self) -> bool:
        """By its place, or by what it says where it is looked at alone."""
        return self.main is not None or self.properties.get("dataproduct_type") == "margin"

    def label(self, path: str) -> str:
        """A file of rows as lines call it: below the root; of no path the catalogue."""
        where = self.folder / DATASET / path if path else self.folder
        return where.relative_to(self.root).as_posix()

    def _own(self, name: str) -> str:
        return (self.folder / name).relative_to(self.root).as_posix()

    def by_sky(self) -> list[str]:
        """The files in the order of the sky."""
        return sorted(self.files, key=lambda path: (_first(*self.files[path]), path))

    def head(self) -> Iterator[str]:
        """What stands beside the rows."""
        found = next((name for name in CATALOGUE if (self.folder / name).is_file()), None)
        if found is None:
            yield f"{self._own(CATALOGUE[0])}: missing"
        else:
            self.properties = read_properties(self.folder / found)
        if self.noted is not None:
            yield from self.noted.properties_differences(self._own(CATALOGUE[0]), self.properties, self.main is not None)
        yield from self._partitions()
        yield from (f"{self.label(name)}: is not where HATS has a file of rows" for name in self.strange)
        lines: list[str] = []
        with damage_told(self._own(f"{DATASET}/_common_metadata"), lines):
            self.schema = pq.read_schema(self.folder / DATASET / "_common_metadata")
            own = self._own(f"{DATASET}/_common_metadata")
            if self.noted is not None:
                lost = sorted(self.noted.features - set(self.schema.names))
                lines += [f"{own}: column {name!r} is missing, {NOTE} has it" for name in lost]
            if self.noted is not None and (expected := self.noted.schema("split" in self.schema.names)) is not None:
                lines += schema_differences(own, self.schema, expected, NOTE)
        yield from lines

    def _partitions(self) -> Iterator[str]:
        """Whether the list of partitions names those that are there, and they do not overlap."""
        own, lines = self._own("partition_info.csv"), list[str]()
        with damage_told(own, lines), open(self.folder / "partition_info.csv", newline="", encoding="utf-8") as file:
            listed = Counter((int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file))
            there = set(self.files.values())
            lines += [
                f"{own}: Norder={o}, Npix={p} is listed, its file is missing" for o, p in sorted(listed.keys() - there)
            ]
            lines += [f"{own}: Norder={o}, Npix={p} is there but not listed" for o, p in sorted(there - listed.keys())]
            lines += [f"{own}: Norder={o}, Npix={p} is listed twice" for (o, p), n in listed.items() if n > 1]
        yield from lines
        cells = set(self.files.values())
        for order, pixel in sorted(cells):
            for above in range(order):
                if (above, pixel >> 2 * (order - above)) in cells:
                    yield f"{own}: Norder={order}, Npix={pixel} lies in another partition, of Norder={above}"

    def listed(self, path: str) -> Listed:
        """What the note says of a file, if there is one."""
        label = self.label(path)
        return self.noted.listed(label) if self.noted is not None else Listed(label)

    def file(self, path: str, whole: Bytes, against: Against | None) -> tuple[list[str], Values | None]:
        """What is wrong with one file of rows, and what of its values is to be compared."""
        label, root, listed = self.label(path), str(self.root), self.listed(path)
        lines, values = list(whole.lines), None
        if whole.gone:
            return lines, values
        with damage_told(label, lines), opened(root, label) as file:
            self.rows[path] = file.metadata.num_rows
            if listed.rows is not None and file.metadata.num_rows != listed.rows:
                lines.append(f"{label}: has {file.metadata.num_rows} rows, {NOTE} says {listed.rows}")
            if self.schema is not None:
                lines += schema_differences(label, file.schema_arrow, self.schema, "_common_metadata")
            if whole.undecoded:
                return [*lines, *whole.undecoded], values
            lines += self._rows(path, label, file)
            if against is not None and self.noted is not None:
                key = self.noted.names.key
                more, values = against.look_at(root, label, file, key, counts=self.main is None)
                lines += more
        return lines, values

    def _names(self) -> Names:
        if self.noted is not None:
            return self.noted.names
        said = self.properties if self.main is None else {**self.main.properties, **self.properties}
        return Names(said.get("hats_col_ra", "ra"), said.get("hats_col_dec", "dec"))

    def _rows(self, path: str, label: str, file: pq.ParquetFile) -> Iterator[str]:
        """Ids, positions, the index and its order, and the cell."""
        names, (order, pixel) = self._names(), self.files[path]
        if self.noted is None and "hats_col_ra" not in self.properties and names.ra not in file.schema_arrow.names:
            return  # a catalogue of no positions, as of pairs
        rows = Rows.of(file, names)
        if names.key:
            seen = self.seen if self.main is None else Seen()
            yield from seen.twice(label, names.key, rows)
        yield from rows.off_the_sky(label)
        there = np.flatnonzero(rows.on_the_sky())
        index = np.full(len(rows), -1, np.int64)
        index[there] = index_of(rows.ra[there], rows.dec[there])
        name = self.properties.get("hats_col_healpix", INDEX)
        own = int(self.properties.get("hats_col_healpix_order", INDEX_ORDER))
        if name in file.schema_arrow.names and 0 <= own <= INDEX_ORDER:
            stored = numbers(file.read(columns=[name]).column(0), pa.int64())
            yield from self._index(label, name, own, stored, index, rows)
        outside = there[(index[there] >> 2 * (INDEX_ORDER - order) != pixel) != self.is_margin]
        if len(outside) and not self.is_margin:
            at = f"cell {index[outside[0]] >> 2 * (INDEX_ORDER - order)}"
            yield f"{label}: {rows_are(len(outside))} of another partition: {rows.named(outside)} ({at} by its position)"
        elif len(outside):
            yield f"{label}: {rows_are(len(outside))} in the partition itself, and no margin: {rows.named(outside)}"
        self.placed.append(Placed(label, order, pixel, rows, index))

    def _index(self, label: str, name: str, order: int, stored: np.ndarray, index: np.ndarray, rows: Rows) -> Iterator[str]:
        """Whether each position is in the cell that the index says, and rows ascend by it."""
        expected = np.where(index < 0, -1, index >> 2 * (INDEX_ORDER - order))
        wrong = np.flatnonzero((stored != expected) & (index >= 0))
        if len(wrong) and self.noted is None:
            wrong = wrong[_apart(stored[wrong], order, rows.ra[wrong], rows.dec[wrong])]
        if len(wrong):
            first = f"{stored[wrong[0]]}, its position gives {expected[wrong[0]]}"
            yield f"{label}: {name} of {rows_are(len(wrong))} not that of the position: {rows.named(wrong)} ({first})"
        if self.is_margin and self.noted is None:
            return  # others write the rows of one neighbour after those of another
        if len(back := np.flatnonzero(np.diff(stored) < 0)):
            yield f"{label}: its rows do not ascend by {name}, first {rows.named(back[:1] + 1)}"

    def end(self) -> Iterator[str]:
        """What the files together have."""
        counts = {"hats_nrows": sum(self.rows.values()), "hats_max_rows": max(self.rows.values(), default=0)}
        counts["hats_order"] = max((order for order, _ in self.files.values()), default=0)
        for name, found in counts.items():
            said = self.properties.get(name)
            if self.noted is None and (said is None or (name == "hats_max_rows" and said.isdigit() and found <= int(said))):
                continue  # others need not say it, or say what was the limit
            if said != str(found):
                yield f"{self._own(CATALOGUE[0])}: {name} is {said}, its files have {found}"
        yield from self._footers()
        if self.main is None:
            yield from self._map()
        elif self.noted is not None:
            yield from margin_differences(self.placed, self.main.placed, self.noted.margin, self.label(""))

    def _footers(self) -> Iterator[str]:
        """``_metadata`` has the footers of all files."""
        own, lines = self._own(f"{DATASET}/_metadata"), list[str]()
        if not (self.folder / DATASET / "_metadata").exists() and self.noted is None:
            return  # HATS does not ask for it
        with damage_told(own, lines):
            footer = pq.read_metadata(self.folder / DATASET / "_metadata")
            counts: Counter[str] = Counter()
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                counts[group.column(0).file_path] += group.num_rows
            lines += [
                f"{own}: has {counts[path]} rows of {path}, which has {self.rows[path]}"
                for path in sorted(counts.keys() | self.rows.keys())
                if counts[path] != self.rows[path]
            ]
        yield from lines

    def _map(self) -> Iterator[str]:
        """The map of the sky that we write counts the rows of each of its cells."""
        if self.noted is None:
            return
        from astropy.io import fits

        own, lines = self._own("skymap.fits"), list[str]()
        with (
            damage_told(own, lines),
            warnings.catch_warnings(),
            fits.open(self.folder / "skymap.fits", memmap=False) as file,
        ):
            warnings.simplefilter("ignore")
            order = int(np.log2(file[1].header["NSIDE"]))
            said = dict(zip(file[1].data["PIXEL"].tolist(), file[1].data["VALUE"].tolist(), strict=True))
            index = np.concatenate([each.index for each in self.placed] or [np.zeros(0, np.int64)])
            cells, counts = np.unique(index[index >= 0] >> 2 * (INDEX_ORDER - order), return_counts=True)
            found = dict(zip(cells.tolist(), counts.tolist(), strict=True))
            wrong = sorted(cell for cell in said.keys() | found.keys() if said.get(cell, 0) != found.get(cell, 0))
            if wrong:
                first = f"cell {wrong[0]} of order {order}: {said.get(wrong[0], 0)}, the files have {found.get(wrong[0], 0)}"
                lines.append(f"{own}: counts other rows in {len(wrong)} cells, {first}")
        yield from lines


def _apart(stored: np.ndarray, order: int, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Whether positions lie further from the cells that they are said to be in than rounding explains."""
    from astropy_healpix import healpix_to_lonlat

    possible = (stored >= 0) & (stored < 12 * 4**order)
    lon, lat = healpix_to_lonlat(np.where(possible, stored, 0), 2**order, order="nested")
    side = np.degrees(np.sqrt(np.pi / 3)) * 3600 / 2**order
    return ~possible | (separation_arcsec(ra, dec, lon.deg, lat.deg) > side + _ROUNDING_ARCSEC)
