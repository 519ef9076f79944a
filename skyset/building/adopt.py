"""Published files of somebody else's converted to partitions: a file of thousands of rows at a time, each cell written once.

What is small is converted first, and waits in a file that worker processes map into memory (``catalog/<file>.rows.npy``);
the pixels go from the published file into the partitions a slab at a time. ``catalog/<file>.listing.npz`` keeps ids and
cells, so that a file that is done is not needed again, and may be deleted before the next one comes.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyset.building.build import build
from skyset.building.options import Options
from skyset.building.staged_rows import row_dtype
from skyset.building.task import Found, Item, Rejected, Task, Written
from skyset.errors import PartitionError, RecordError, UserError
from skyset.files import replacing
from skyset.partitions.adopted import NO_IMAGE, usable_images
from skyset.partitions.layout import PIXELS_FROM, slabs
from skyset.partitions.manifest import describe_file
from skyset.partitions.partition import decoded
from skyset.partitions.writer import PartitionWriter
from skyset.survey import Column, Survey

CATALOG = "catalog"
#: Rows whose small columns are converted at a time.
_ROWS = 16_384
#: Pixels that are read and written at a time: what stays in a core's cache.
_CACHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Published:
    """A published file.

    Args:
        path: where it is, or was.
        split: of its rows.
        opens: opens it, as ``AdoptedFile(path, columns)`` does.
        checksum: where the archive publishes one.
    """

    path: Path
    split: str
    opens: Callable
    checksum: str = ""


@dataclass(frozen=True)
class Listing:
    """The rows of a published file: keys, cells, and the positions that are none."""

    keys: list[str]
    healpix: np.ndarray


def small_columns(survey: Survey) -> list[Column]:
    """The columns that wait in the staged file."""
    return [column for column in survey.columns if column.row_bytes < PIXELS_FROM]


def _of(file: Published, catalog: Path, kind: str) -> Path:
    return catalog / f"{file.path.name}.{kind}"


def list_rows(file: Published, catalog: Path, key: str) -> Listing:
    """Ids and cells of a file's rows: as they were noted, or from the file itself where it is there and is another one.

    Raises:
        UserError: the file is not there, and nothing is known of it; or it cannot be read.
    """
    noted = _of(file, catalog, "listing.npz")
    try:
        with np.load(noted, allow_pickle=False) as known:
            if not file.path.exists() or str(known["stamp"]) == _stamp(file):
                return Listing(decoded(known["keys"]), known["healpix"])
    except (OSError, ValueError, LookupError):
        pass  # not yet, or cut by a kill
    if not file.path.exists():
        raise UserError(f"{file.path}: there is no such file")
    columns = [Column(key, "S20"), Column("healpix", "int64")]
    try:
        with file.opens(file.path, columns) as source:
            keys, healpix = source.read(key), source.read("healpix")
    except PartitionError as error:
        raise UserError(str(error)) from error
    catalog.mkdir(parents=True, exist_ok=True)
    with replacing(noted) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, keys=keys, healpix=healpix, stamp=_stamp(file))
    return Listing(decoded(keys), healpix)


def _stamp(file: Published) -> str:
    """What tells that a file is another one: where the archive has a checksum, that; else size and time."""
    status = file.path.stat()
    return file.checksum or f"{status.st_size} {status.st_mtime_ns}"


def stage_rows(file: Published, catalog: Path, survey: Survey) -> Path:
    """Convert the small columns of a file, in bounded memory; returns the staged rows, see ``staged_rows.row_of``.

    Raises:
        UserError: the file cannot be read, or holds what a column cannot.
    """
    columns, staged = small_columns(survey), _of(file, catalog, "rows.npy")
    try:
        with file.opens(file.path, columns) as source, replacing(staged) as temporary:
            if not source.rows:  # which cannot be mapped
                with open(temporary, "wb") as stream:
                    np.save(stream, np.zeros(0, row_dtype(columns)))
                return staged
            rows = np.lib.format.open_memmap(temporary, "w+", row_dtype(columns), (source.rows,))
            for start, stop in slabs(source.rows, 1, slab_bytes=_ROWS):
                rows[start:stop] = _block(source, columns, rows.dtype, start, stop)
            rows.flush()
            del rows
    except PartitionError as error:
        raise UserError(str(error)) from error
    return staged


def _block(source, columns: Sequence[Column], dtype: np.dtype, start: int, stop: int) -> np.ndarray:
    """Rows of small columns; one with a value that a column cannot hold is empty, see ``ReadPublished.reason``."""
    block = np.zeros(stop - start, dtype)
    try:
        source.read_columns({column.name: block[column.name] for column in columns}, start, stop)
    except PartitionError as error:
        if not isinstance(error.__cause__, RecordError):
            raise
        if stop - start == 1:
            return np.zeros(1, dtype)
        half = (start + stop) // 2
        return np.concatenate([_block(source, columns, dtype, *part) for part in ((start, half), (half, stop))])
    return block


def items_of(files: Sequence[Published], catalog: Path, survey: Survey) -> Found:
    """The objects of published files; those without a position, and all but the first of a key, are rejected."""
    items: list[Item] = []
    rejected: list[Rejected] = []
    seen: dict[str, str] = {}
    for file in files:
        listing, where = list_rows(file, catalog, survey.key), str(file.path.absolute())
        made_of = f"{file.path.name} {len(listing.keys)}"
        for row, (key, cell) in enumerate(zip(listing.keys, listing.healpix.tolist(), strict=True)):
            if cell < 0:
                rejected.append(Rejected(key, where, f"row {row}: position is not on the sky"))
            elif key in seen:
                rejected.append(Rejected(key, where, f"row {row}: the id is that of another row, in {seen[key]}"))
            else:
                seen[key] = file.path.name
                items.append(Item(key, where, cell, address=(row, 0), split=file.split, made_of=made_of))
    return Found(items, rejected)


@dataclass(frozen=True)
class ReadPublished:
    """What ``write_adopted`` reads from: picklable, for worker processes.

    Args:
        staged: the staged small columns by the published file's absolute path.
        opens: opens the published file.
        image: the column that must have a pixel which is a number, in every plane; None where there is none.
    """

    staged: Mapping[str, Path]
    opens: Callable
    image: str | None = "image"

    def slab(self, survey: Survey, file: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """All columns of some rows of a file, (rows, *shape)."""
        staged = _mapped(str(self.staged[file]))
        block = staged[rows]
        out = {name: block[name] for name in block.dtype.names or ()}
        large = [column for column in survey.columns if column.row_bytes >= PIXELS_FROM]
        if large:
            out |= {column.name: np.empty((len(rows), *column.shape), column.dtype) for column in large}
            source = _opened(self.opens, file, tuple(large))
            for start, stop in _runs(rows):
                outs = {column.name: out[column.name][start:stop] for column in large}
                source.read_columns(outs, int(rows[start]), int(rows[stop - 1]) + 1)
        return out

    def reason(self, survey: Survey, file: str, row: int) -> str:
        """Why a row's small columns could not be converted."""
        columns = tuple(small_columns(survey))
        try:
            source = _opened(self.opens, file, columns)
            source.read_columns({each.name: np.empty((1, *each.shape), each.dtype) for each in columns}, row, row + 1)
        except PartitionError as error:
            return str(error.__cause__ or error)
        return "it could not be converted"


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places of rows that follow each other."""
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    yield from itertools.pairwise(cuts)


@functools.lru_cache(maxsize=4)
def _mapped(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=1 << 20)


@functools.lru_cache(maxsize=4)
def _opened(opens: Callable, path: str, columns: tuple[Column, ...]):
    return opens(path, columns)


def write_adopted(task: Task, *, source: ReadPublished) -> Written:
    """Write one partition of a published file's rows, a slab at a time."""
    rejected: list[Rejected] = []
    survey = task.survey
    options: dict[str, str | int] = {"survey": survey.name, "healpix": task.healpix}
    if task.made_of:
        options["made_of"] = task.made_of
    with PartitionWriter(task.root / task.path, survey.columns, len(task.items), options, task.compression) as writer:
        for start, stop in slabs(len(task.items), survey.row_bytes, slab_bytes=_CACHED_BYTES):
            group = task.items[start:stop]
            columns = source.slab(survey, group[0].file, np.array([item.address[0] for item in group if item.address]))
            images = columns.get(source.image or "")
            good = np.ones(len(group), bool) if images is None else usable_images(images)
            converted = columns[survey.key] != b""
            for item, fine, made in zip(group, good, converted, strict=True):
                if not made:
                    reason = source.reason(survey, item.file, item.address[0] if item.address else 0)
                    rejected.append(Rejected(item.key, item.file, reason))
                elif not fine:
                    rejected.append(Rejected(item.key, item.file, NO_IMAGE))
            if not (good := good & converted).all():
                columns = {name: values[good] for name, values in columns.items()}
            writer.append_rows(columns, [item.source for item, fine in zip(group, good, strict=True) if fine])
        rows = writer.rows
    entry = describe_file(task.root, task.path, survey, task.split) if rows else None
    return Written(entry, tuple(rejected))


def adopt(
    survey: Survey,
    files: Sequence[Published],
    root: Path,
    catalog: Path,
    options: Options,
    command: Sequence[str],
    *,
    sources: Sequence[str],
    notes: Mapping,
    fetch: Callable[[set[Path]], object] = lambda files: None,
) -> int:
    """Convert published files to the partitions of one dataset.

    Args:
        survey: the declaration with the columns that can be made of the files.
        files: those that are there, and those that were converted before and may be gone.
        root: the folder of the partitions.
        catalog: where listings and staged rows are kept.
        options: what the user asked for.
        command: what the user typed, kept in the manifest.
        sources, notes: for the manifest.
        fetch: called with files that rows have to be made of and that are gone.

    Returns:
        Exit status: 0, or 1 where rows were rejected.

    Raises:
        UserError: as ``build``; a file cannot be read.
    """
    staged = {str(file.path.absolute()): _of(file, catalog, "rows.npy") for file in files}
    image = "image" if any(column.name == "image" for column in survey.columns) else None
    source = ReadPublished(staged, files[0].opens, image)

    def find_items(asked: Options, _) -> Found:
        found = items_of(files, catalog, survey)
        for file in files:
            if file.path.exists() and not _is_staged(file, catalog, survey):
                stage_rows(file, catalog, survey)
        items = found.items[: asked.limit]
        return dataclasses.replace(found, items=items, survey=survey, sources=sources, notes=notes, fetch=fetch)

    options = dataclasses.replace(options, output_dir=root, base_url="")
    return build(survey, _by_slabs, options, find_items, command, functools.partial(write_adopted, source=source))


def _by_slabs(*_) -> Mapping:
    raise AssertionError("rows of published files are read a slab at a time")


def _is_staged(file: Published, catalog: Path, survey: Survey) -> bool:
    """Whether the staged rows are of this file and of these columns; a killed build left them."""
    staged, noted = _of(file, catalog, "rows.npy"), _of(file, catalog, "listing.npz")
    try:
        rows = np.load(staged, mmap_mode="r", allow_pickle=False, max_header_size=1 << 20)
        return rows.dtype == row_dtype(small_columns(survey)) and staged.stat().st_mtime_ns > noted.stat().st_mtime_ns
    except (OSError, ValueError):
        return False


def forget_staged(catalog: Path) -> None:
    """Remove the staged rows, which nothing needs once their partitions are there."""
    for path in catalog.glob("*.rows.npy"):
        path.unlink()
