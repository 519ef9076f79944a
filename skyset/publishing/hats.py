"""A HATS collection, catalogue and margin, straight from partitions: what ``skyset hats`` does.

Positions are read first; they say which rows go into which file. Each file is then written on its own, here or by worker
processes, out of the partitions that have its rows. A file has its name once it is whole: the same command goes on after
any interruption, and ends in the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyset.errors import UserError
from skyset.files import clear_leftovers, file_sha256, open_locked, short_digest, write_atomically
from skyset.messages import counted, say
from skyset.noted import NOTED
from skyset.partitions.manifest import grouped
from skyset.partitions.partition import bounds_of
from skyset.publishing.hats_files import COLLECTION, DATASET, write_card, write_catalogue, write_properties
from skyset.publishing.hats_groups import of_one_length, tables_in
from skyset.publishing.hats_plan import Cell, cells_of, highest_order, index_of, margins_of
from skyset.publishing.hats_rows import IMAGES, WHOLE, Form, Job, positions, write
from skyset.publishing.parquet import Written
from skyset.publishing.source import Source, sources
from skyset.publishing.trees import name_of, prepared
from skyset.runner import Pool, executor, in_order
from skyset.survey import Feature, Layers, Survey
from skyset.versions import __version__

#: What the export notes in the folder: of what the catalogue is made, and, once it is whole, each file's checksum.
NOTE, FORMAT = "skyset_hats.json", "skyset-hats/1"
_LOCK = ".skyset_hats.lock"
#: Of a partition's rows, before compression, unless it is asked for otherwise.
MAX_BYTES = 512 << 20
MARGIN_ARCSEC = 5.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: Of files whose positions are read by one task.
_POSITIONS_BYTES = 1 << 30


@dataclass(frozen=True)
class Asked:
    """What the catalogue shall be like.

    Args:
        name: of the catalogue, a folder's name; empty for the survey's.
        images: one of ``IMAGES``.
        max_bytes, max_rows: of a partition, before compression; None for no limit to the rows.
        margin: how far about each partition the margin reaches, arcsec; 0 for no margin.
        compression: of the files, see `skyset.publishing.parquet`.
    """

    name: str = ""
    images: str = "array"
    max_bytes: int = MAX_BYTES
    max_rows: int | None = None
    margin: float = MARGIN_ARCSEC
    compression: str = "zstd"


@dataclass(frozen=True)
class Collection:
    """What was written: rows, partitions and bytes of the catalogue, and of its margin."""

    folder: Path
    name: str
    rows: int
    partitions: int
    bytes: int
    orders: tuple[int, int]
    margin_rows: int
    margin_bytes: int
    kept: int

    def __str__(self) -> str:
        low, high = self.orders
        of = f"order {low}" if low == high else f"orders {low} to {high}"
        margin = f"; margin: {self.margin_rows:,} rows" if self.margin_rows else "; no row is in a margin"
        return f"{self.name}: {self.rows:,} rows in {self.partitions:,} partitions of {of}{margin}; {self.folder}"


def export(
    where: str,
    output: Path,
    asked: Asked,
    config: str | None = None,
    overwrite: bool = False,
    processes: int = 1,
    scheduler: str | None = None,
    progress: Callable = iter,
) -> Collection:
    """Write a dataset's rows, of all splits, as a HATS collection.

    Args:
        where: folder or URL of a survey's partitions, or a folder of published files.
        output: the collection's folder: new, empty, or one that an export of the same rows began.
        asked: what it shall be like.
        config: which of the survey's datasets, by default the first.
        overwrite: replace what another export wrote there.
        processes, scheduler: see `skyset.runner.executor`.
        progress: wraps the files to write, which are counted as they are done.

    Raises:
        UserError: there is no such dataset, it has no positions, something else is in the folder, or it cannot be written.
        PartitionError: a partition is damaged; its name is told, and files that were written stay for the next attempt.
    """
    if "://" not in where:
        where = str(Path(where).expanduser().absolute())  # a cluster's workers start elsewhere
    whole = prepared(_source(where, config)).for_workers()
    source = whole.with_flat_layers().with_every_column()
    asked = _checked(source, asked)
    form = Form(asked.images, len(source.manifest.splits) > 1, asked.compression)
    form.schema(source.survey)
    note = _note(source, asked)
    with (
        _claimed(output, source.root, note, overwrite) as known,
        executor(processes, scheduler, shared=[output, source.a_file]) as pool,
    ):
        rows = _Rows.read(whole.with_every_column(), pool)
        source = whole.with_flat_layers(rows.tables).with_every_column()
        note["columns"] = _columns(source)
        plan = _Plan.of(rows, asked, output.absolute())
        written, kept = _write_all(_jobs(source, rows, plan, form), known, pool, progress)
        return _finish(source, rows, plan, form, written, kept, note)


def _source(where: str, config: str | None) -> Source:
    found = sources(where)
    if config is None:
        return next(iter(found.values()))
    if config not in found:
        raise UserError(f"{where} has no config {config!r}; it has {', '.join(found)}")
    return found[config]


def _checked(source: Source, asked: Asked) -> Asked:
    """With a name; UserError where it cannot be done."""
    survey, config = source.survey, source.manifest.config
    if missing := {"ra", "dec"} - set(survey.by_name):
        raise UserError(f"{source.root} has no positions: no column {' and '.join(sorted(missing))}")
    if not source.manifest.rows:
        raise UserError(f"{source.root} has no rows")
    base = name_of(source) if source.manifest.is_adopted else survey.name
    name = asked.name or (base if config == "default" else f"{base}_{config}")
    if not _NAME.fullmatch(name) or name == DATASET:
        raise UserError(f"--name {name}: letters, digits, _, - and . make a catalogue's name")
    if asked.images not in IMAGES:
        raise UserError(f"--images {asked.images}: it is one of {', '.join(IMAGES)}")
    if asked.max_bytes < 1 or (asked.max_rows is not None and asked.max_rows < 1):
        raise UserError("a partition has at least one byte and one row")
    highest_order(asked.margin)
    return dataclasses.replace(asked, name=name)


def _note(source: Source, asked: Asked) -> dict:
    """What the catalogue is made of: the same note, the same bytes."""
    manifest = source.manifest
    made = [manifest.digest(), repr(asked), repr(source.survey.features), __version__, pa.__version__]
    head: dict = {"format": FORMAT, "survey": manifest.survey, "config": manifest.config, "key": manifest.key}
    if source.survey.of_build is not None:
        head["noted"] = {name: manifest.build[name] for name in NOTED if name in manifest.build}
    return {**head, **dataclasses.asdict(asked), "made_of": short_digest("\n".join(made)), "columns": _columns(source)}


def _columns(source: Source) -> list[dict]:
    """Where the files have each column; ``field`` where it is one of a group."""
    survey = source.survey
    places = {f.source: {"name": f.name} for f in survey.features if isinstance(f, Feature)}
    for group in survey.features:
        for key, name in group.fields.items() if isinstance(group, Layers) else ():
            places.setdefault(str(name), {"name": group.name, "field": key})
    found = [(place, survey.column(name)) for name, place in places.items()]
    return [{**place, "column": c.name, "dtype": c.dtype, "shape": list(c.shape), "unit": c.unit} for place, c in found]


@contextlib.contextmanager
def _claimed(output: Path, where: str, note: dict, overwrite: bool) -> Iterator[dict[Path, str]]:
    """The folder for this export alone, with its note in it; the SHA-256 of each file that a whole export noted there."""
    try:
        if "://" not in where and output.absolute().is_relative_to(where):
            raise UserError(f"{output} lies in the folder that is exported: choose another")
        output.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(output)
        descriptor, _ = open_locked(output / _LOCK)
    except BlockingIOError:
        raise UserError(f"another skyset hats is writing to {output}") from None
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    try:
        there = read_note(output)
        if there is not None and (overwrite or there["made_of"] != note["made_of"]):
            if not overwrite:
                raise UserError(
                    f"{output} has a catalogue of other rows, made with other options or by another version: "
                    "--overwrite replaces it"
                )
            _remove(output, there)
            there = None
        if there is None:
            write_atomically(output / NOTE, json.dumps(note, indent=1) + "\n")
        yield {output.absolute() / each["path"]: each["sha256"] for each in (there or {}).get("files", [])}
    except OSError as error:
        raise UserError(f"cannot write {error.filename or output}: {error.strerror}") from error
    finally:
        (output / _LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _refuse_foreign(output: Path) -> None:
    others = [path.name for path in output.iterdir() if not path.name.startswith(".skyset_hats")]
    if others and not (output / NOTE).is_file():
        raise UserError(
            f"{output} holds {others[0]} and no catalogue that skyset made: nothing there is replaced, choose another folder"
        )


def read_note(folder: Path) -> dict | None:
    """What an export noted in a folder; None where there is no note.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        found = json.loads((folder / NOTE).read_text())
        if found["format"] != FORMAT or not _NAME.fullmatch(found["name"]):
            raise ValueError(f"format {found['format']!r}, name {found['name']!r}")
        float(found["margin"]), str(found["made_of"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder / NOTE} cannot be read: {error}") from error
    return found


def margin_name(name: str, arcsec: float) -> str:
    """``gz3d_5arcs``, as hats-import calls it."""
    return f"{name}_{arcsec:g}arcs".replace(".", "p")


def _remove(output: Path, note: dict) -> None:
    """What an export made; its note goes last, so that a removal that is interrupted goes on."""
    for name in (note["name"], margin_name(note["name"], float(note["margin"]))):
        if (output / name).exists():
            shutil.rmtree(output / name)
    for name in (COLLECTION, "README.md", NOTE):
        (output / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Rows:
    """All rows in the order of the sky.

    ``rows`` numbers them in the order of the manifest's files, ``starts`` has the number of the first row of each file.
    ``tables`` are the groups whose columns are of equal lengths in every row.
    """

    ra: np.ndarray
    dec: np.ndarray
    bytes: np.ndarray
    index: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    tables: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: Source, pool: Pool) -> _Rows:
        """From the positions in all partitions, whose checksums are looked at."""
        files = source.manifest.files
        small = dataclasses.replace(source, manifest=dataclasses.replace(source.manifest, files=[]))
        read = functools.partial(positions, small, verify=True)
        parts = [part for _, part in in_order(pool, read, grouped(files, _POSITIONS_BYTES))]
        ra, dec, sizes = (np.concatenate([part[name] for part in parts]) for name in ("ra", "dec", "bytes"))
        placed = np.flatnonzero(~(np.isnan(ra) | np.isnan(dec)))
        if len(placed) < len(ra):
            say(f"{source.root}: {counted(len(ra) - len(placed), 'row')} without a position left out")
            ra, dec, sizes = (values[placed] for values in (ra, dec, sizes))
        if not len(placed):
            raise UserError(f"{source.root} has no row with a position")
        index = index_of(ra, dec)
        order = np.argsort(index, kind="stable")
        starts = bounds_of([entry.rows for entry in files])[:-1]
        alike = [name for name in tables_in(source.survey) if all(part[name].all() for part in parts)]
        tables = (*alike, *of_one_length(source.survey))
        return cls(ra[order], dec[order], sizes[order], index[order], placed[order], starts, tables)


@dataclass(frozen=True)
class _Plan:
    """The partitions, and those of the margin, with the numbers of their rows in the order of the sky."""

    output: Path
    asked: Asked
    cells: list[Cell]
    margin: list[tuple[Cell, np.ndarray]]

    @classmethod
    def of(cls, rows: _Rows, asked: Asked, output: Path) -> _Plan:
        cells = cells_of(rows.index, rows.bytes, asked.max_bytes, asked.max_rows, highest_order(asked.margin))
        about = margins_of(cells, rows.ra, rows.dec, rows.index, asked.margin) if asked.margin else []
        return cls(output, asked, cells, [pair for pair in zip(cells, about, strict=False) if len(pair[1])])

    @property
    def margin_name(self) -> str:
        return margin_name(self.asked.name, self.asked.margin)

    def files(self) -> Iterator[tuple[Path, np.ndarray]]:
        """Each file of rows, with the numbers of its rows."""
        for cell in self.cells:
            yield self.output / self.asked.name / DATASET / cell.path, np.arange(cell.start, cell.stop)
        for cell, rows in self.margin:
            yield self.output / self.margin_name / DATASET / cell.path, rows


def _jobs(source: Source, rows: _Rows, plan: _Plan, form: Form) -> Iterator[Job]:
    files = source.manifest.files
    whole = source.pieces(files, WHOLE, verify=False)  # checksums were looked at with the positions
    for path, numbers in plan.files():
        chosen = rows.rows[numbers]
        file_of = np.searchsorted(rows.starts, chosen, side="right") - 1
        used, place = np.unique(file_of, return_inverse=True)
        first = bounds_of([files[n].rows for n in used.tolist()])[:-1]
        within = first[place] + chosen - rows.starts[file_of]
        pieces, splits = [whole[n] for n in used.tolist()], [files[n].split for n in used.tolist()]
        yield Job(path, source.survey, pieces, splits, within, rows.index[numbers], form)


def _write_all(
    jobs: Iterator[Job], known: Mapping[Path, str], pool: Pool, progress: Callable
) -> tuple[dict[Path, Written], int]:
    """Write the files that are not there or are damaged, a few at a time; what each has, and how many were there."""
    written: dict[Path, Written] = {}
    pending: dict[Future, Path] = {}
    kept = 0

    def collect(most: int) -> None:
        while len(pending) > most:
            for done in wait(pending, return_when=FIRST_COMPLETED).done:
                written[pending.pop(done)] = done.result()

    for job in progress(jobs):
        if there := _there(job, known.get(job.path)):
            written[job.path], kept = there, kept + 1
            continue
        job.path.parent.mkdir(parents=True, exist_ok=True)
        pending[pool.submit(write, job)] = job.path
        collect(pool.ahead)
    collect(0)
    return written, kept


def _there(job: Job, known: str | None) -> Written | None:
    """What a file has that an export left: it has its name, so it was whole; ``known`` is the SHA-256 that it then had."""
    try:
        footer = pq.read_metadata(job.path)
    except (OSError, pa.ArrowInvalid):
        return None
    if footer.num_rows != len(job.rows):
        return None
    found = file_sha256(job.path)
    if known is not None and found != known:
        return None
    return Written(footer.num_rows, job.path.stat().st_size, found, footer.num_row_groups)


def _finish(
    source: Source, rows: _Rows, plan: _Plan, form: Form, written: dict[Path, Written], kept: int, note: dict
) -> Collection:
    """Write what stands beside the rows; the note last, with the checksums."""
    output, asked, survey = plan.output, plan.asked, source.survey
    schema, about = form.schema(survey), _about(survey, source.manifest.config)
    folder, margin_folder = output / asked.name, output / plan.margin_name
    main = [written[folder / DATASET / cell.path] for cell in plan.cells]
    margin_cells = [cell for cell, _ in plan.margin]
    margin = [written[margin_folder / DATASET / cell.path] for cell in margin_cells]
    head = {"obs_collection": asked.name, "dataproduct_type": "object", **about}
    write_catalogue(folder, schema, plan.cells, main, head, rows.index)
    collection = {"obs_collection": asked.name, "hats_primary_table_url": asked.name}
    if margin:
        head |= {"obs_collection": plan.margin_name, "dataproduct_type": "margin"}
        head |= {"hats_primary_table_url": asked.name, "hats_margin_threshold": f"{asked.margin:g}"}
        write_catalogue(margin_folder, schema, margin_cells, margin, head)
        collection |= {"all_margins": plan.margin_name, "default_margin": plan.margin_name}
    write_properties(output / COLLECTION, collection)
    middle = len(rows.ra) // 2
    facts = {"name": asked.name, "folder": output.name, "rows": len(rows.ra)}
    facts |= {"ra": float(rows.ra[middle]), "dec": float(rows.dec[middle])}
    facts["digest"] = short_digest("\n".join(each.sha256 for each in main))
    reach = asked.margin if margin else 0
    write_card(output / "README.md", survey, form.features(survey), asked.images, plan.cells, reach, **facts)
    for parent in {path.parent for path in written}:
        clear_leftovers(parent)
    files = [{"path": path.relative_to(output).as_posix(), **dataclasses.asdict(each)} for path, each in written.items()]
    note = {**note, "rows": len(rows.ra), "files": sorted(files, key=lambda each: each["path"])}
    write_atomically(output / NOTE, json.dumps(note, indent=1) + "\n")
    orders = min(cell.order for cell in plan.cells), max(cell.order for cell in plan.cells)
    sizes = sum(each.bytes for each in main), sum(each.bytes for each in margin)
    margin_rows = sum(each.rows for each in margin)
    return Collection(output, asked.name, len(rows.ra), len(main), sizes[0], orders, margin_rows, sizes[1], kept)


def _about(survey: Survey, config: str) -> dict[str, str]:
    """What a catalogue's properties say of the survey."""
    names = {f.source: f.name for f in survey.features if isinstance(f, Feature)}
    return {
        "hats_col_ra": names["ra"],
        "hats_col_dec": names["dec"],
        "obs_title": survey.title,
        "obs_copyright": survey.license,
        "obs_copyright_url": survey.homepage,
        "skyset_survey": survey.name,
        "skyset_config": config,
    }
