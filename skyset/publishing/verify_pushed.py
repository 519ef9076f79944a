"""Whether Parquet files are what the list that ``skyset push`` wrote beside them says, in a folder or on the Hub."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from skyset.errors import PartitionError, UserError
from skyset.files import is_temporary
from skyset.loading import registry
from skyset.loading.pushed import FORMAT, entry_of
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import FileEntry, Manifest, raw_values, reasons_told
from skyset.publishing.contents import Form
from skyset.publishing.preview import PREVIEW
from skyset.publishing.source import Source
from skyset.publishing.trees import IN_CELLS
from skyset.publishing.verify_files import (
    Bytes,
    Listed,
    column_differences,
    damage_told,
    opened,
    rows_are,
    schema_differences,
    source_of,
)
from skyset.publishing.verify_rows import Names, Rows, Seen
from skyset.publishing.verify_together import looked_at_together, worth
from skyset.publishing.verify_values import Against, Values
from skyset.runner import executor
from skyset.sky import healpix_cell
from skyset.survey import Feature, Survey

#: What every survey calls its objects.
_OBJECT = "object_id"
#: The small files beside the rows are read whole.
_MOST = 64 << 20


def pushed_values(root: str) -> dict | None:
    """What the list of a folder or URL of pushed Parquet says; None where it has none, UserError where it cannot be read."""
    try:
        values = raw_values(root)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UserError(f"{root.rstrip('/')}/{MANIFEST} cannot be read: {error.strerror or error}") from error
    found = isinstance(values, dict) and values.get("format") == FORMAT and values.get("form") == "parquet"
    return values if found else None


def verify_pushed(
    root: str,
    source: Callable[[str, str], Source] | None = None,
    progress: Callable = iter,
    processes: int = 1,
    scheduler: str | None = None,
) -> Iterator[str]:
    """Every difference between pushed Parquet and its list, and the partitions it was made of, a line each.

    Args:
        root: folder or URL with ``manifest.json``.
        source: finds the partitions of a survey and config; None compares no values.
        progress: wraps the list of files.
        processes, scheduler: that read all bytes and compare values, see `skyset.runner.executor`.

    Raises:
        UserError: the list cannot be read, or there are no such partitions.
    """
    values = pushed_values(root)
    if values is None:
        raise UserError(f"{root} has no {MANIFEST} of pushed Parquet")
    with reasons_told(root):
        listed, heads = list(values["files"]), dict(values["datasets"])
        manifests = {
            str(config): Manifest.head({**head, "survey": values["survey"], "rejected": 0}) for config, head in heads.items()
        }
    yield from _lists(values, manifests, listed)
    if "://" not in root:
        yield from _unlisted(Path(root), listed, values)
    yield from _beside(root, values)
    sets = {}
    for config, manifest in manifests.items():
        sets[config] = each = _Dataset(root, manifest, config, source)
        yield from each.head()
    files = []
    for values_of in listed:
        with contextlib.suppress(ValueError, LookupError, TypeError, PartitionError):  # told with the lists
            cells = [int(cell) for cell in values_of["healpix"]]
            files.append((sets[values_of["config"]], entry_of(values_of), cells))
    wanted = [Listed(entry.path, entry.rows, entry.bytes, entry.sha256) for _, entry, _ in files]
    shared = [f"{root}/{MANIFEST}", *(each.found.a_file for each in sets.values() if each.found is not None)]

    def look(number: int, whole: Bytes) -> tuple[list[str], Values | None]:
        dataset, entry, cells = files[number]
        return dataset.file(entry, cells, whole)

    with executor(worth(processes, wanted), scheduler, shared=shared) as pool:
        yield from looked_at_together(pool, root, MANIFEST, wanted, look, progress)
    for dataset in sets.values():
        yield from dataset.end()


def _lists(values: dict, manifests: dict[str, Manifest], listed: list) -> Iterator[str]:
    """Whether the list agrees with itself."""
    totals: Counter[str] = Counter()
    of_config: Counter[str] = Counter()
    for number, each in enumerate(listed):
        try:
            if each["config"] not in manifests:
                raise ValueError(f"config {each['config']!r} is none of its datasets")
            entry = entry_of(each)
            totals.update({"rows": entry.rows, "bytes": entry.bytes})
            of_config[each["config"]] += entry.rows
        except (ValueError, LookupError, TypeError, PartitionError) as error:
            yield f"{MANIFEST}: entry {number}: {str(error)[:300]}"
    for name in ("rows", "bytes"):
        if values.get(name) != totals[name]:
            yield f"{MANIFEST}: {name} is {values.get(name)!r}, its files have {totals[name]}"
    for config in manifests:
        if (said := values["datasets"][config].get("rows")) != of_config[config]:
            yield f"{MANIFEST}: {config} has {said!r} rows, its files have {of_config[config]}"
    paths = Counter(str(each.get("path")) if isinstance(each, dict) else "" for each in listed)
    yield from (f"{path}: listed twice" for path, count in paths.items() if count > 1)


def _unlisted(root: Path, listed: list, values: dict) -> Iterator[str]:
    """Files of rows, and temporary ones, that the list does not name."""
    named = {str(each.get("path")) for each in listed if isinstance(each, dict)}
    for path in sorted((root / "data").rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in named and (path.suffix == ".parquet" or is_temporary(path.name)):
            yield f"{name}: is there but not in {MANIFEST}"


def _beside(root: str, values: dict) -> Iterator[str]:
    """The small files, by their SHA-256 or Git's SHA-1; a card that people changed is theirs."""
    beside = values.get("beside")
    for path, etag in beside.items() if isinstance(beside, dict) else ():
        if (path == "README.md" and values.get("card_edited")) or ".." in str(path) or str(path).startswith("/"):
            continue
        lines: list[str] = []
        with damage_told(str(path), lines), source_of(root, str(path)) as file:
            text = file.read(_MOST)
            git = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
            if etag not in (git, hashlib.sha256(text).hexdigest()):
                lines.append(f"{path}: is not as {MANIFEST} says, by its checksum")
        yield from lines


class _Dataset:
    """One config of a repository."""

    def __init__(self, root: str, manifest: Manifest, config: str, source: Callable[[str, str], Source] | None):
        self.root, self.manifest, self.config = root, manifest, config
        self.found = source(manifest.survey, config) if source else None
        self.survey = self._declared()
        by_source = {f.source: f.name for f in self.survey.features if isinstance(f, Feature)} if self.survey else {}
        columns = {c.name for c in manifest.columns}
        wanted = ("ra", "dec", manifest.key, _OBJECT)
        named = {name: by_source.get(name, name if name in columns else "") for name in wanted}
        self.named = named
        self.against: Against | None = None
        self.seen = Seen()

    def _declared(self) -> Survey | None:
        known = registry.has_config(self.manifest.survey, self.config)
        declared = registry.survey(self.manifest.survey, self.config) if known else None
        return declared and declared.as_built(self.manifest.columns, self.manifest.build)

    def head(self) -> Iterator[str]:
        """What the list says of the columns, against the declaration and the partitions."""
        if self.survey is not None:
            name = f"this version's {self.survey.name}"
            yield from column_differences(MANIFEST, self.manifest.columns, self.survey.columns, name)
        if self.found is not None:
            yield from column_differences(MANIFEST, self.manifest.columns, self.found.manifest.columns, "the source")

    def _expected(self, names: list[str]):
        """The schema of files with these columns."""
        if self.survey is None:
            return None
        whole = Source(self.root, self.survey, self.manifest)
        more = set(names) - {*whole.features, PREVIEW}
        return Form(preview=PREVIEW in names, every_column=bool(more)).schema(whole)

    def _names(self, file: pq.ParquetFile) -> Names:
        """Of the columns of a file: where that of unique ids was not published, objects have names that may repeat."""
        key, there = self.named[self.manifest.key], file.schema_arrow.names
        if key not in there and self.manifest.key in there:
            key = self.manifest.key
        unique = key in there
        other = self.named[_OBJECT]
        return Names(self.named["ra"], self.named["dec"], key if unique else other if other in there else "", unique)

    def file(self, entry: FileEntry, cells: list[int], whole: Bytes) -> tuple[list[str], Values | None]:
        """All that is said of one file, and its rows; and what of its values is to be compared."""
        lines, values = list(whole.lines), None
        if whole.gone:
            return lines, values
        with damage_told(entry.path, lines), opened(self.root, entry.path) as file:
            if file.metadata.num_rows != entry.rows:
                lines.append(f"{entry.path}: has {file.metadata.num_rows} rows, {MANIFEST} says {entry.rows}")
            if (schema := self._expected(file.schema_arrow.names)) is not None:
                lines += schema_differences(entry.path, file.schema_arrow, schema, MANIFEST)
            lines += self._rows(entry, cells, file)
            if self.found is not None:
                more, values = self._look_at_values(entry, file, self.found)
                lines += more
        return lines, values

    def _rows(self, entry: FileEntry, cells: list[int], file: pq.ParquetFile) -> Iterator[str]:
        names, path = self._names(file), entry.path
        rows = Rows.of(file, names)
        if names.unique and names.key:
            yield from self.seen.twice(path, self.manifest.key, rows)
        yield from rows.off_the_sky(path)
        there = np.flatnonzero(rows.on_the_sky())
        cell = healpix_cell(rows.ra[there], rows.dec[there], self.manifest.nside)
        outside = ~np.isin(cell, cells)
        if outside.any():
            at = f"cell {cell[outside][0]} by its position"
            yield f"{path}: {rows_are(outside.sum())} in none of its cells: {rows.named(there[outside])} ({at})"
        if lacking := sorted(set(cells) - set(cell.tolist())):
            yield f"{path}: no row lies in cell {lacking[0]}, {MANIFEST} says so"
        if self.manifest.build.get(IN_CELLS, True) and len(back := np.flatnonzero(np.diff(cell) < 0)):
            yield f"{path}: its rows are in another order than that of the cells, first {rows.named(there[back[:1] + 1])}"

    def _look_at_values(self, entry: FileEntry, file: pq.ParquetFile, found: Source) -> tuple[list[str], Values | None]:
        names = self._names(file)
        if not names.key:
            raise LookupError(f"no column has the ids ({self.manifest.key}): values are not compared")
        if self.against is None:
            more = set(file.schema_arrow.names) - {*found.features, PREVIEW}
            key = self.manifest.key if names.unique else _OBJECT
            self.against = Against(found.with_every_column() if more else found, key)
        return self.against.look_at(self.root, entry.path, file, names.key, entry.split)

    def end(self) -> Iterator[str]:
        """What the files together lack."""
        if self.found is not None:
            self.against = self.against or Against(self.found, self.manifest.key)
            yield from (f"{MANIFEST}: {line}" for line in self.against.missing())
