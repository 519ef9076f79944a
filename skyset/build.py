"""From a list of objects to a folder of partitions: plan, download, read, write, and survive being killed.

A survey brings two things: the list of its objects with their positions (``Found``) and one pure function that reads
one object from a raw file (``read``). All else is here. The unit of work is one partition file; ``build_partition`` writes
it without knowing what runs it. What is complete stands in ``journal.jsonl`` until the manifest is written.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
import re
import signal
import stat
import sys
from collections import defaultdict
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import CancelledError
from concurrent.futures import Future
from concurrent.futures import wait
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from skyset.archives.fetch import Fetcher
from skyset.archives.fetch import FetchError
from skyset.card import leave_card
from skyset.downloads import RAW
from skyset.downloads import Downloads
from skyset.errors import PartitionError
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.files import clear_leftovers
from skyset.files import file_sha256
from skyset.files import flushed_output
from skyset.files import human_bytes
from skyset.files import open_locked
from skyset.files import opened_hdf5
from skyset.files import write_atomically
from skyset.messages import csv_cell
from skyset.messages import plain
from skyset.messages import say
from skyset.partitions.layout import COMPRESSIONS
from skyset.partitions.layout import MAX_FILE_BYTES
from skyset.partitions.layout import SUFFIX
from skyset.partitions.layout import compression_options
from skyset.partitions.layout import object_path
from skyset.partitions.layout import partition_path
from skyset.partitions.layout import row_sources
from skyset.partitions.manifest import JOURNAL
from skyset.partitions.manifest import NAME as MANIFEST
from skyset.partitions.manifest import REJECTED
from skyset.partitions.manifest import FileEntry
from skyset.partitions.manifest import Manifest
from skyset.partitions.manifest import describe_file
from skyset.partitions.manifest import keys_digest
from skyset.partitions.manifest import partition_files
from skyset.partitions.manifest import split_folders
from skyset.partitions.partition import Partition
from skyset.partitions.writer import PartitionWriter
from skyset.runner import executor
from skyset.secrets import without_login
from skyset.sky import healpix_cell
from skyset.survey import Column
from skyset.survey import Survey
from skyset.versions import install_command
from skyset.versions import versions

#: How a journal's line begins, also one that a kill cut.
_JOURNAL_START = '{"compression": "'
#: How HDF5 and threads say it.
_NO_MEMORY = ("memory allocation failed", "Cannot allocate memory", "can't start new thread")
TINY = 5
#: How many files one line names.
_MOST_NAMED = 10
#: A partition that was moved out of the way of its successor.
_MOVED = re.compile(rf"(.+)\.[0-9a-f]{{8}}{re.escape(SUFFIX)}")


@dataclass(frozen=True, slots=True)
class Item:
    """One object to build.

    Args:
        key: the row's unique name (``Survey.key``).
        file: name of its raw file in the archive, or the path of a local one.
        healpix: the cell its catalogue position falls in.
        checksum: ``"sha1:<hex>"``, where the archive publishes one.
        made_of: what tells of the contents that the row is made of; ``checksum`` by default. A row that an earlier build
            made of other contents is made again.
        span: two numbers by which ``read`` finds the object in a file of many, such as its first byte and its length.
        split: the split it belongs to.
    """

    key: str
    file: str
    healpix: int
    checksum: str | None = None
    span: tuple[int, int] | None = None
    split: str = "train"
    made_of: str | None = None

    @property
    def source(self) -> int:
        """Digest of what the row is made of; 0 where nothing is known of it."""
        text = self.made_of or self.checksum
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) if text else 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object that did not get in, and why: a row of ``rejected.csv``."""

    key: str
    file: str
    reason: str


@dataclass
class Found:
    """What there is to build.

    Args:
        items: the objects.
        rejected: those that cannot be built.
        survey: the declaration as this build shapes it, where it does (``Survey.shaped_by_build``).
        sources: where the data come from; by default the folder or address of the options.
        notes: added to the manifest's ``build``.
        made_of: digest of what the rows are made of beside the raw files, such as a catalogue; rows that an earlier build
            made of something else are made again. It is an attribute of the partition files.
        complete: called when all partitions are there, before the manifest is written.
        fetch: called with raw files that rows have to be made of and that are not there.
    """

    items: Sequence[Item]
    rejected: Sequence[Rejected] = ()
    survey: Survey | None = None
    sources: Sequence[str] = ()
    notes: Mapping = field(default_factory=dict)
    made_of: str = ""
    complete: Callable[[], object] = lambda: None
    fetch: Callable[[set[Path]], object] = lambda files: None


@dataclass(frozen=True)
class Options:
    """What every build script understands; ``add_arguments`` explains each to the user."""

    output_dir: Path
    local_data_path: Path | None = None
    base_url: str = ""
    limit: int | None = None
    keep_raw: bool = False
    num_processes: int = 1
    max_connections: int = 8
    scheduler: str | None = None
    files_per_object: bool = False
    compression: str = "none"
    strict: bool = False
    overwrite: bool = False
    recheck: bool = False

    @property
    def downloads(self) -> bool:
        """Whether each object has a raw file of its own in an archive."""
        return bool(self.base_url) and self.local_data_path is None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        values = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(cls) if hasattr(arguments, f.name)}
        if "base_url" in values:
            values["base_url"] = values["base_url"].rstrip("/") + "/"
        if arguments.tiny:
            values["limit"] = min(TINY, values["limit"] or TINY)
        return cls(**values)


class BuildParser(argparse.ArgumentParser):
    """A build script's command line: the shared options, and `--output-dir` as well as `--output_dir`."""

    def __init__(self, program: str | None, description: str, survey: Survey, raw: str | None = None):
        super().__init__(program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        add_arguments(self, survey, raw)

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))

    def parse_known_args(self, arguments=None, namespace=None):
        arguments = sys.argv[1:] if arguments is None else arguments
        return super().parse_known_args([_with_underscores(argument) for argument in arguments], namespace)


def _with_underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, sign, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + sign + value


def add_arguments(parser: argparse.ArgumentParser, survey: Survey, raw: str | None = None) -> None:
    """Add the options that all build scripts share.

    ``raw`` names the survey's raw files (``"fits"``) where the archive has one an object; without it the survey itself
    asks where its data come from.
    """
    add = parser.add_argument
    add(
        "-o",
        "--output_dir",
        type=Path,
        default=Path("data") / survey.name,
        metavar="DIR",
        help="where the partitions go (default: %(default)s); an interrupted build goes on from what is there",
    )
    size = parser.add_argument_group("how much")
    size.add_argument("--tiny", action="store_true", help=f"the first {TINY} objects: to try things out")
    size.add_argument("--limit", type=positive_integer, metavar="N", help="the first N objects of the catalogue")
    source = parser.add_argument_group("where from")
    if raw is not None:
        _add_archive_arguments(source, survey, raw)
    source.add_argument(
        "--max_connections",
        type=positive_integer,
        default=8,
        metavar="N",
        help="downloads at a time (default: %(default)s); be kind to the archive",
    )
    run = parser.add_argument_group("how it runs")
    run.add_argument(
        "--num_processes",
        type=positive_integer,
        default=os.cpu_count(),
        metavar="N",
        help="local processes (default: all cores, %(default)s)",
    )
    run.add_argument(
        "--scheduler",
        type=without_login,
        metavar="ADDRESS",
        help="run on a Dask cluster instead (tcp://host:8786); its workers need skyset and the same disk",
    )
    run.add_argument(
        "--strict",
        action="store_true",
        help=f"stop at the first object that cannot be used (default: name it in {REJECTED}, go on)",
    )
    run.add_argument("--overwrite", action="store_true", help="replace what an earlier, different build left there")
    run.add_argument(
        "--recheck",
        action="store_true",
        help="read every partition that is there and build damaged ones again (default: only those changed since they were "
        "written, as their times tell)",
    )
    disk = parser.add_argument_group("on disk")
    disk.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="none",
        help=f"none is the fastest to stream; blosc-lz4 about halves the size (needs: {install_command('compression')})",
    )
    disk.add_argument("--files_per_object", action="store_true", help="one HDF5 file an object instead of one a cell")


def _add_archive_arguments(source: argparse._ArgumentGroup, survey: Survey, raw: str) -> None:
    source.add_argument(
        "--base_url",
        type=without_login,
        default=survey.base_url,
        metavar="URL",
        help="the archive (default: %(default)s); https://user:password@host/ logs in, and is written nowhere",
    )
    source.add_argument(
        "--local_data_path", type=Path, metavar="DIR", help="read the archive's files from this folder and download nothing"
    )
    source.add_argument(
        f"--keep_{raw}",
        dest="keep_raw",
        action="store_true",
        help=f"keep the downloaded files in <output_dir>/{RAW}; "
        "by default each is deleted once its partition is written and read back, but for those that were there before",
    )


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


@dataclass(frozen=True)
class Task:
    """One partition file to write: the pure function's argument."""

    root: Path
    path: str
    split: str
    healpix: int
    items: tuple[Item, ...]
    files: tuple[Path, ...]
    reuse: tuple[str, ...]
    survey: Survey
    read: Callable[..., Mapping]
    compression: str
    made_of: str = ""

    @property
    def keys(self) -> list[str]:
        return [item.key for item in self.items]


@dataclass(frozen=True)
class Written:
    """What became of a task: the manifest's entry (None if no row was fit) and what was rejected."""

    entry: FileEntry | None
    rejected: tuple[Rejected, ...]


def build_partition(task: Task) -> Written:
    """Write one partition. Rows that an earlier build wrote are copied; the others are read from their raw files."""
    rejected: list[Rejected] = []
    options = {"survey": task.survey.name, "healpix": task.healpix}
    if task.made_of:
        options["made_of"] = task.made_of
    with contextlib.ExitStack() as stack:
        old = _existing_rows(task, stack)
        writer = stack.enter_context(
            PartitionWriter(task.root / task.path, task.survey.columns, len(task.items), options, task.compression)
        )
        for item, file in zip(task.items, task.files, strict=True):
            try:
                if item.key in old:
                    writer.append(*old[item.key]())
                else:
                    writer.append(_read_record(task, item, file), item.source)
            except (RecordError, PartitionError) as error:  # the latter: an earlier build's row, damaged since
                rejected.append(Rejected(item.key, item.file, str(error)))
        rows = writer.rows
    entry = describe_file(task.root, task.path, task.survey, task.split) if rows else None
    return Written(entry, tuple(rejected))


def _existing_rows(task: Task, stack: contextlib.ExitStack) -> dict[str, Callable]:
    """Functions that give the rows already written in this cell, each with the digest of its source, by key."""
    rows: dict[str, Callable] = {}
    wanted = {item.key: item.source for item in task.items}
    for path in task.reuse:
        if not is_made_of(task.root / path, task.made_of):
            continue
        try:
            old = stack.enter_context(Partition(task.root / path, task.survey.columns))
            for number, (key, source) in enumerate(zip(old.text(task.survey.key), old.sources(), strict=True)):
                if _may_be_same(source, wanted.get(key, 0)):
                    rows[key] = functools.partial(_row_and_source, old, number, source)
        except PartitionError:
            continue  # damaged, or of another version: its objects are read again from the archive
    return rows


def _row_and_source(partition: Partition, row: int, source: int) -> tuple[Mapping, int]:
    return partition.record(row), source


def _may_be_same(source: int, wanted: int) -> bool:
    return 0 in (source, wanted) or source == wanted


def is_made_of(path: Path, made_of: str, items: Sequence[Item] = ()) -> bool:
    """Whether a partition's rows may be taken over into a build of these sources; True where nothing is said of them.

    Args:
        made_of: see ``Found``.
        items: the objects of all of its rows, in their order, to look at each one's source too.
    """
    wanted = [item.source for item in items]
    if not made_of and not any(wanted):
        return True
    try:
        with opened_hdf5(path) as file:
            known = row_sources(file.attrs) or [0] * len(wanted)
            return str(file.attrs.get("made_of", "")) == made_of and all(map(_may_be_same, known, wanted))
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):
        return False  # damaged: built again


def _read_record(task: Task, item: Item, file: Path) -> Mapping:
    if not file.exists():
        raise RecordError("the raw file is gone")
    values = task.read(file, *item.span) if item.span else task.read(file)
    row = task.survey.record({**values, task.survey.key: item.key, "healpix": task.healpix})
    cell = int(healpix_cell(row["ra"], row["dec"]))
    if cell != task.healpix:
        raise RecordError(f"its own position falls in HEALPix cell {cell}, the catalogue's in {task.healpix}")
    return row


class BuildFolder:
    """The output folder: one build at a time, what it has completed, what it rejected.

    Raises:
        UserError: it cannot be written, another build runs in it, or it holds the partitions of another survey.
    """

    def __init__(self, root: Path, survey: Survey, options: Options):
        self.root, self.survey, self.options = root.absolute(), survey, options  # a Dask worker stands elsewhere
        self.entries: dict[str, FileEntry] = {}
        self.rejected: list[Rejected] = []
        self._stamps: dict[str, tuple[int, int]] = {}
        self._listed: set[str] = set()  # the partitions that earlier builds speak of
        self._damaged: set[str] = set()
        self._superseded: set[str] = set()
        self._earlier: Manifest | None = None

    def __enter__(self) -> BuildFolder:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{self.root} is not a folder") from None
        self._lock_journal()
        try:
            self._remove_leftovers()
            self._take_up()
            refuse_foreign_csv(self.root / REJECTED, [f.name for f in dataclasses.fields(Rejected)])
            self.downloads = Downloads(self.root, self.options.keep_raw)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.downloads.close()
        self._close()

    def _lock_journal(self) -> None:
        try:
            descriptor, has_locks = open_locked(self.root / JOURNAL)
        except BlockingIOError:
            raise UserError(f"another build is running in {self.root}") from None
        self._journal = open(descriptor, "a+")  # noqa: SIM115 (open as long as the build runs)
        if not has_locks:
            say(f"the file system of {self.root} has no locks: see to it that no other build runs there", file=sys.stderr)

    def _close(self) -> None:
        if not os.fstat(self._journal.fileno()).st_size:
            (self.root / JOURNAL).unlink(missing_ok=True)  # while it is locked: nobody else's can be hit
        self._journal.close()

    def _remove_leftovers(self) -> None:
        """Temporary files of a killed build; parts of downloads stay, they are continued."""
        for folder in split_folders(self.root):
            for each in (folder, *folder.glob("healpix=*")):
                clear_leftovers(each)

    def _take_up(self) -> None:
        """Go on from what an earlier build completed: the manifest's files, then the journal's lines."""
        compression = set()
        if (self.root / MANIFEST).exists():
            noted = (self.root / MANIFEST).stat().st_mtime_ns
            manifest = self._earlier = Manifest.load(self.root)
            if manifest.survey != self.survey.name and not self.options.overwrite:
                raise UserError(f"{self.root} holds {manifest.survey}: choose another folder, or --overwrite")
            compression.add(manifest.build.get("compression"))
            self._check_taken({entry.path: entry for entry in manifest.files}, lambda path, stamp: max(stamp) < noted)
        lines = self._journal_lines()
        compression.update(line["compression"] for line in lines)
        entries = {line["entry"]["path"]: FileEntry.from_json(line["entry"]) for line in lines}
        stamps = {line["entry"]["path"]: tuple(line.get("stamp", ())) for line in lines}
        self._check_taken(entries, lambda path, stamp: stamp == stamps[path])
        if self.options.overwrite:
            self.entries = {}
            return
        if compression - {self.options.compression}:
            raise UserError(
                f"{self.root} was built with --compression {compression.pop()}: use the same, another folder, or --overwrite"
            )
        if any(_is_of_one_object(path) != self.options.files_per_object for path in self._listed):
            holds, how = ("a file per cell", "out") if self.options.files_per_object else ("a file per object", "")
            raise UserError(
                f"{self.root} holds {holds}: build with{how} --files_per_object, choose another folder, or --overwrite"
            )

    def _journal_lines(self) -> list[dict]:
        """What is complete; UserError where the file is not a build's, which would lose it."""
        self._journal.seek(0)
        lines = []
        for text in filter(str.strip, self._journal):
            line = _parse(text)
            if isinstance(line, dict) and {"compression", "entry"} <= line.keys():
                lines.append(line)
            elif isinstance(line, dict) and {"compression", "superseded"} <= line.keys():
                self._superseded.update(line["superseded"])
            elif line is not None or not text.startswith(_JOURNAL_START[: len(text.strip())]):
                raise UserError(f"{self.root / JOURNAL} is not a build's: choose another folder")
        return lines

    def _check_taken(self, entries: Mapping[str, FileEntry], unchanged: Callable[[str, tuple[int, int]], bool]) -> None:
        """Believe an entry while its file is as it was written: the other ones are built again.

        Args:
            entries: by path.
            unchanged: whether a file's times say that nobody wrote to it; otherwise its checksum tells.
        """
        self._listed |= entries.keys()
        for path, entry in {} if self.options.overwrite else entries.items():
            problem = self._problem(entry, unchanged)
            if problem is None:
                self.entries[path] = entry
                self._damaged.discard(path)
            else:
                self.entries.pop(path, None)
                self._damaged.add(path)
                say(f"{path}: {problem}: built again", file=sys.stderr)

    def _problem(self, entry: FileEntry, unchanged: Callable[[str, tuple[int, int]], bool]) -> str | None:
        """What is wrong with a file, None if nothing is."""
        path = self.root / entry.path
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return "is no regular file"
            if status.st_size != entry.bytes:
                return f"has {status.st_size} bytes, {entry.bytes} were written"
            self._stamps[entry.path] = status.st_mtime_ns, status.st_ctime_ns
            recheck = self.options.recheck
            if (recheck or not unchanged(entry.path, self._stamps[entry.path])) and file_sha256(path) != entry.sha256:
                return "damaged since it was written (its SHA-256 is another one)"
            if recheck and describe_file(self.root, entry.path, self.survey, entry.split) != entry:
                return f"is not as {MANIFEST} says"
        except FileNotFoundError:
            return "is gone"
        except (OSError, PartitionError) as error:
            return f"cannot be read ({error})"
        return None

    def done(self, entry: FileEntry) -> None:
        status = (self.root / entry.path).stat()
        self._stamps[entry.path] = status.st_mtime_ns, status.st_ctime_ns
        self.entries[entry.path] = entry
        written = {"entry": dataclasses.asdict(entry), "stamp": self._stamps[entry.path]}
        self._note(written)

    def _note(self, what: Mapping) -> None:
        line = {"compression": self.options.compression, **what}
        self._journal.write("\n" + json.dumps(line))  # the line break first: the last line may have been cut by a kill
        self._journal.flush()

    def refuse_other_columns(self) -> None:
        """What was stored is not replaced by less, or by something else under its name.

        Raises:
            UserError: it would be.
        """
        for old in [] if self._earlier is None or self.options.overwrite else self._earlier.columns:
            new = self.survey.by_name.get(old.name)
            if new is not None and ((old.is_text and new.is_text) or (old.dtype, old.shape) == (new.dtype, new.shape)):
                continue
            raise UserError(
                f"{self.root} was built with {_stored(old)}, this would {f'make it {_stored(new)}' if new else 'drop it'}: "
                "use the same options, another folder, or --overwrite"
            )

    def plan(self, items: Sequence[Item], read: Callable[..., Mapping], made_of: str = "") -> list[Task]:
        """The partitions that are still to be written, in the order of their cells.

        Raises:
            UserError: the folder holds objects that are not among ``items``.
        """
        lying, reusable = defaultdict(list), defaultdict(list)
        self._refuse_foreign()
        for path in [] if self.options.overwrite else partition_files(self.root):
            lying[_cell_folder(path)].append(path)
            if path not in self._damaged:
                reusable[_cell_folder(path)].append(path)
        tasks, wanted = [], {}
        for path, healpix, group in self._group(items):
            wanted[path] = group
            entry = self.entries.get(path)
            same = entry is not None and entry.keys == keys_digest([item.key for item in group])
            if not same or not is_made_of(self.root / path, made_of, group):
                self.entries.pop(path, None)
                files = tuple(self.raw_file(item) for item in group)
                reuse = tuple(reusable[_cell_folder(path)])
                tasks.append(Task(self.root, path, group[0].split, healpix, tuple(group), files, reuse,
                                  self.survey, read, self.options.compression, made_of))  # fmt: skip
        self._refuse_to_lose(items, {p for paths in lying.values() for p in paths}, wanted, tasks)
        self._wanted = set(wanted)
        return self._out_of_the_way(tasks)

    def _refuse_foreign(self) -> None:
        """Partitions of somebody else are neither replaced nor removed, whatever is asked for."""
        for path in partition_files(self.root):
            if path not in self._listed and not _is_ours(self.root / path, self.survey.name):
                raise UserError(f"{self.root} holds {path}, not built by {self.survey.name}: choose another folder")

    def missing(self, tasks: Sequence[Task]) -> set[Path]:
        """Raw files that rows have to be made of and that are not there."""
        found = set()
        for task in tasks:
            with contextlib.ExitStack() as stack:
                have = _existing_rows(task, stack)
            found |= {file for item, file in zip(task.items, task.files, strict=True) if item.key not in have}
        return {file for file in found if not file.exists()}

    def _out_of_the_way(self, tasks: Sequence[Task]) -> list[Task]:
        """Where several files of a cell are written anew, none may take the place of one whose rows another still needs."""
        cells = defaultdict(list)
        for task in tasks:
            cells[_cell_folder(task.path)].append(task)
        moved = {}
        for group in cells.values():
            for path in {task.path for task in group} & set(group[0].reuse) if len(group) > 1 else ():
                moved[path] = path.removesuffix(SUFFIX) + f".{os.urandom(4).hex()}{SUFFIX}"  # see _MOVED
                os.replace(self.root / path, self.root / moved[path])
        return [
            dataclasses.replace(task, reuse=tuple(moved.get(path, path) for path in task.reuse)) if moved else task
            for task in tasks
        ]

    def _group(self, items: Sequence[Item]) -> Iterator[tuple[str, int, list[Item]]]:
        """Cut the objects into files: (path, cell, objects of one split sorted by key)."""
        cells: dict[tuple[int, str], list[Item]] = defaultdict(list)
        for item in items:
            cells[item.healpix, item.split].append(item)
        size = max(1, MAX_FILE_BYTES // self.survey.row_bytes)
        for (healpix, split), group in sorted(cells.items()):
            folder = None if split == "train" else split
            group = sorted(group, key=lambda item: item.key)
            if self.options.files_per_object:
                yield from ((object_path(healpix, item.key, folder), healpix, [item]) for item in group)
                continue
            parts = [group[i : i + size] for i in range(0, len(group), size)]
            for part, part_items in enumerate(parts, 1):
                yield partition_path(healpix, part, len(parts), folder), healpix, part_items

    def _refuse_to_lose(self, items: Sequence[Item], lying: set[str], wanted: Mapping, tasks: Sequence[Task]) -> None:
        """A smaller selection must not delete objects that took a day to download."""
        rewritten = {task.path for task in tasks}
        keys = {item.key for item in items}
        lost = 0
        for path in sorted(lying):
            if path in wanted and path not in rewritten:
                continue
            try:
                with Partition(self.root / path, [self.survey.column(self.survey.key)]) as partition:
                    lost += len(set(partition.text(self.survey.key)) - keys)
            except PartitionError:
                continue
        if lost:
            raise UserError(
                f"{self.root} holds {lost} objects that this selection leaves out: "
                "choose another folder, or --overwrite to drop them"
            )

    def raw_file(self, item: Item) -> Path:
        return self.root / RAW / item.file if self.options.downloads else Path(item.file).absolute()

    def finish(self, command: Sequence[str], found: Found) -> Manifest:
        """Write manifest and ``rejected.csv``, then remove what they no longer name."""
        self._refuse_changed()
        found.complete()
        files = [entry for path, entry in self.entries.items() if path in self._wanted]
        manifest = Manifest(
            survey=self.survey.name,
            columns=list(self.survey.columns),
            key=self.survey.key,
            files=sorted(files, key=lambda entry: entry.path),
            sources=list(found.sources) or [str(self.options.local_data_path or self.options.base_url)],
            build={
                "command": list(command),
                "compression": self.options.compression,
                "versions": versions(),
                **found.notes,
            },
            rejected=len(self.rejected),
        )
        self.write_rejected()
        over = set(partition_files(self.root)) - {entry.path for entry in files}
        if superseded := sorted(path for path in over if self._is_of_a_build(path)):
            self._note({"superseded": superseded})  # the manifest that names them is replaced next
        manifest.save(self.root)
        self._remove_leftovers()  # of workers that were killed on a cluster
        self._remove_superseded(over)
        self._journal.truncate(0)
        return manifest

    def _remove_superseded(self, over: set[str]) -> None:
        """Remove what earlier builds wrote and the manifest no longer names; what somebody else put there stays."""
        others = []
        for path in sorted(over):
            if not self._is_of_a_build(path):
                others.append(path)
                continue
            (self.root / path).unlink()
            with contextlib.suppress(OSError):
                (self.root / path).parent.rmdir()  # only where it is empty
        if others:
            more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
            say(f"not of this build, left alone: {', '.join(others[:_MOST_NAMED])}{more}", file=sys.stderr)

    def _is_of_a_build(self, path: str) -> bool:
        """Whether a build wrote it: one that says so, or one that was killed, with another number of parts or moving it."""
        if found := _MOVED.fullmatch(path):
            path = found[1] + SUFFIX
        if path in self._listed or path in self._wanted or path in self._superseded:
            return True
        return not _is_of_one_object(path) and _cell_folder(path) in map(_cell_folder, self._listed | self._wanted)

    def _refuse_changed(self) -> None:
        """The manifest's time will say that the files were whole: this is the last look at them."""
        for path in self._wanted & self.entries.keys():
            stamp = self._stamps[path]
            if problem := self._problem(self.entries[path], lambda _, now, stamp=stamp: now == stamp):
                raise UserError(f"{self.root / path}: {problem} while the build ran: run the same command again")

    def write_rejected(self) -> None:
        if not self.rejected:
            (self.root / REJECTED).unlink(missing_ok=True)
            return
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([f.name for f in dataclasses.fields(Rejected)])
        rejected = sorted(self.rejected, key=lambda r: (r.key, r.file))
        table.writerows([csv_cell(text) for text in dataclasses.astuple(each)] for each in rejected)
        write_atomically(self.root / REJECTED, text.getvalue())


def refuse_foreign_csv(path: Path, head: Sequence[str]) -> None:
    """UserError where a list that a build writes would take the place of a file that no build wrote."""
    try:
        with open(path, "rb") as file:
            first = file.readline(200).strip()
    except FileNotFoundError:
        return
    if first != ",".join(head).encode():
        raise UserError(f"{path} is not a build's, and would be replaced: move it, or choose another folder")


def _stored(column: Column) -> str:
    return f"{column.name} as {column.dtype}" + (f" {column.shape}" if column.shape else "")


def _is_of_one_object(path: str) -> bool:
    return re.fullmatch(r"\d{3,}-of-\d{3,}", Path(path).stem) is None


def _is_ours(path: Path, survey: str) -> bool:
    """Whether a build of the survey wrote a file, as it says itself."""
    if not path.is_file():
        return False  # a named pipe would be waited at
    try:
        with opened_hdf5(path) as file:
            return str(file.attrs.get("format")).startswith("skyset-partition/") and str(file.attrs.get("survey")) == survey
    except (OSError, RuntimeError, ValueError, LookupError):
        return False


def _cell_folder(path: str) -> str:
    return path.rpartition("/")[0]


def _parse(line: str) -> dict | None:
    """A journal's line, or None: the last one may have been cut by a kill."""
    try:
        return json.loads(line)
    except ValueError:
        return None


@dataclass
class Pipeline:
    """Downloads run ahead of reading by a bounded number of files; partitions are written as their files arrive."""

    folder: BuildFolder
    fetcher: Fetcher | None
    pool: object
    ahead: int
    progress: object
    fetching: dict[Future, tuple[Task, Item]] = field(default_factory=dict)
    building: dict[Future, Task] = field(default_factory=dict)
    arrived: dict[str, list[Item]] = field(default_factory=dict)

    def run(self, tasks: Sequence[Task]) -> None:
        waiting = deque(tasks)
        while waiting or self.fetching or self.building:
            while waiting and len(self.fetching) < self.ahead and len(self.building) < self.ahead:
                self._start(waiting.popleft())
            done, _ = wait([*self.fetching, *self.building], return_when=FIRST_COMPLETED)
            for future in done:
                if future in self.fetching:
                    self._arrive(future, *self.fetching.pop(future))
                else:
                    self._written(future, self.building.pop(future))

    def _start(self, task: Task) -> None:
        if self.fetcher is None:
            self._submit(task)
            return
        have = self._kept_keys(task)
        self.arrived[task.path] = []
        base = self.folder.options.base_url
        futures = {}
        for item, file in zip(task.items, task.files, strict=True):
            if item.key in have:
                self.arrived[task.path].append(item)
            else:
                self.folder.downloads.expect(file)
                futures[self.fetcher.submit(base + quote(item.file), file, item.checksum)] = (task, item)
        self.fetching.update(futures)
        if not futures:
            self._submit(task)

    def _kept_keys(self, task: Task) -> set[str]:
        """Objects of this cell that an earlier build wrote: not downloaded again."""
        with contextlib.ExitStack() as stack:
            return set(_existing_rows(task, stack))

    def _arrive(self, future: Future, task: Task, item: Item) -> None:
        try:
            future.result()
            self.arrived[task.path].append(item)
        except (OSError, CancelledError):
            raise  # the disk's; the end of the build
        except Exception as error:  # whatever became of one file, the others go on
            reason = error.reason if isinstance(error, FetchError) else f"{type(error).__name__}: {error}"
            self._reject([Rejected(item.key, item.file, f"download failed: {reason}")])
        if not any(other.path == task.path for other, _ in self.fetching.values()):
            self._submit(task)

    def _submit(self, task: Task) -> None:
        if self.fetcher is not None:
            arrived = set(self.arrived.pop(task.path))
            pairs = [pair for pair in zip(task.items, task.files, strict=True) if pair[0] in arrived]
            task = dataclasses.replace(task, items=tuple(i for i, _ in pairs), files=tuple(f for _, f in pairs))
        if task.items:
            self.building[self.pool.submit(build_partition, task)] = task

    def _written(self, future: Future, task: Task) -> None:
        written: Written = future.result()
        for file in task.files if self.fetcher is not None else ():
            self.folder.downloads.remove(file)
        # Only now: a build killed in between takes the task up again and removes what is left.
        if written.entry is not None:
            self.folder.done(written.entry)
        self.progress.update(len(task.items) - len(written.rejected))
        self._reject(written.rejected)

    def _reject(self, rejected: Sequence[Rejected]) -> None:
        self.folder.rejected.extend(rejected)
        self.progress.update(len(rejected))
        if rejected:
            self.progress.set_postfix(rejected=len(self.folder.rejected))
            if self.folder.options.strict:
                first = rejected[0]
                raise UserError(f"{first.file}: {first.reason} (--strict stops at the first)")


def build(
    survey: Survey,
    read: Callable[..., Mapping],
    options: Options,
    find_items: Callable[[Options, Fetcher | None], Found],
    command: Sequence[str] = (),
) -> int:
    """Build a survey and tell how it went.

    Args:
        survey: its declaration.
        read: pure, importable function from a raw file (and the object's span in it) to the columns' values; RecordError
            if it cannot be used.
        options: what the user asked for.
        find_items: lists the objects to build, and those that cannot be; it runs while the folder is locked.
        command: what the user typed, kept in the manifest.

    Returns:
        Exit status: 0, or 1 where objects were rejected.

    Raises:
        UserError: nothing can be built as asked, or the disk is full or not writable; all that was complete is kept.
    """
    if options.local_data_path and os.path.realpath(options.local_data_path) == os.path.realpath(options.output_dir):
        raise UserError(f"{options.output_dir} holds the archive's files: choose another folder for the partitions")
    compression_options(options.compression, ())  # a missing plug-in is found now, not after the downloads
    network = Fetcher(max_connections=options.max_connections) if options.downloads else None
    try:
        with BuildFolder(options.output_dir, survey, options) as folder, network or contextlib.nullcontext():
            found = find_items(options, network)
            folder.survey = found.survey or survey
            folder.refuse_other_columns()
            folder.rejected.extend(found.rejected)
            if found.rejected and options.strict:
                first = found.rejected[0]
                raise UserError(f"{first.file or first.key}: {first.reason} (--strict stops at the first)")
            tasks = folder.plan(found.items, read, _with_layout(found.made_of, folder.survey))
            if tasks:
                if network is None and (missing := folder.missing(tasks)):
                    found.fetch(missing)
                _run_tasks(tasks, folder, network, options)
            manifest = folder.finish(command, found)
            leave_card(options.output_dir, folder.survey, manifest.config)
    except (FetchError, PartitionError) as error:
        raise UserError(str(error)) from error
    except (OSError, RuntimeError, MemoryError) as error:  # HDF5 reports a full disk as either of the first
        raise UserError(_explain(error, options.output_dir)) from error
    return _report(manifest, options.output_dir)


def _with_layout(made_of: str, survey: Survey) -> str:
    """The digest of what rows are made of and of the columns they have: files without one of these are made again."""
    if not made_of:
        return ""
    layout = [(column.name, column.dtype, column.shape) for column in survey.columns]
    return hashlib.sha256(json.dumps([made_of, layout]).encode()).hexdigest()[:16]


def _run_tasks(tasks: Sequence[Task], folder: BuildFolder, network: Fetcher | None, options: Options) -> None:
    from skyset.progress import progress_bar

    processes = min(options.num_processes, len(tasks))
    objects = sum(len(task.items) for task in tasks)
    ahead = 2 * max(options.max_connections, processes)
    bar = progress_bar(total=objects, unit="object", desc=folder.survey.name)
    try:
        with executor(processes, options.scheduler) as pool, bar:
            Pipeline(folder, network, pool, ahead, bar).run(tasks)
    finally:
        folder.write_rejected()


def _explain(error: OSError | RuntimeError | MemoryError, root: Path) -> str:
    """One line for what the machine refused; anything else is a defect and keeps its traceback."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"no space left on the disk of {root}: free some and run the same command again, it goes on from here"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return "not enough memory: the same command goes on from here; try a smaller --num_processes"
    return os_reason(error, root)


def os_reason(error: BaseException, where: str | Path) -> str:
    """One line for what the system refused."""
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename or where}"
    if isinstance(error, OSError):
        return f"{error.filename or where}: {error.strerror or error}"
    raise error


def _report(manifest: Manifest, root: Path) -> int:
    size = human_bytes(manifest.bytes)
    print(f"{manifest.survey}: {manifest.rows} rows in {len(manifest.files)} partitions ({size}) in {root}")
    if manifest.rejected:
        print(f"{manifest.rejected} objects were rejected, each with its reason in {root / REJECTED}")
    return 1 if manifest.rejected else 0


def main(run: Callable[[], int]) -> int:
    """Run a command line: errors the user can act on are one line and exit status 2, Ctrl-C is 130.

    A KeyboardInterrupt with a text says itself how to go on."""
    try:
        with flushed_output():
            return run()
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt as stop:
        return _complain(f"interrupted; {plain(stop) or 'the same command goes on from here'}", 130)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # as of any program whose reader went away (``| head``)
    except MemoryError:
        return _complain("not enough memory")
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(plain(os_reason(error, "the output")))


def _complain(text: str, status: int = 2) -> int:
    with contextlib.suppress(OSError):  # standard error may be a full disk too
        print(f"skyset: {text}", file=sys.stderr, flush=True)
    return status
