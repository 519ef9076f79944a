"""The folder that a build fills: its lock, its journal, what is complete, what is left to do."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import stat
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from skyset.building.downloads import RAW, Downloads
from skyset.building.options import Options
from skyset.building.task import Found, Item, RawFiles, Read, Rejected, Task, existing_rows, is_made_of
from skyset.errors import PartitionError, RecordError, UserError
from skyset.files import clear_leftovers, file_sha256, open_locked, opened_hdf5, write_atomically
from skyset.messages import csv_cell, say
from skyset.partitions.layout import JOURNAL, MANIFEST, MAX_FILE_BYTES, REJECTED, SUFFIX, object_path, partition_path
from skyset.partitions.manifest import FileEntry, Manifest, describe_file, keys_digest, partition_files, split_folders
from skyset.partitions.partition import Partition
from skyset.survey import Column, Survey
from skyset.versions import versions

#: How a journal's line begins, also one that a kill cut.
_JOURNAL_START = '{"compression": "'
#: How many files one line names.
_MOST_NAMED = 10
#: A partition that was moved out of the way of its successor.
_MOVED = re.compile(rf"(.+)\.[0-9a-f]{{8}}{re.escape(SUFFIX)}")


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

    def plan(self, items: Sequence[Item], read: Read, made_of: str = "") -> list[Task]:
        """The partitions that are still to be written, in the order of their cells.

        Raises:
            UserError: the folder holds objects that are not among ``items``.
        """
        lying, reusable = defaultdict(list), defaultdict(list)
        self._refuse_foreign()
        items = self._that_name_files(items)
        for path in [] if self.options.overwrite else partition_files(self.root):
            lying[_cell_folder(path)].append(path)
            if path not in self._damaged:
                reusable[_cell_folder(path)].append(path)
        tasks, wanted, raw = [], set(), self._raw_folder()
        for path, healpix, group in self._group(items):
            wanted.add(path)
            entry = self.entries.get(path)
            same = entry is not None and entry.keys == keys_digest([item.key for item in group])
            if not same or not is_made_of(self.root / path, made_of, group):
                self.entries.pop(path, None)
                chosen = tuple(group)
                reuse = tuple(reusable[_cell_folder(path)])
                tasks.append(
                    Task(
                        self.root,
                        path,
                        group[0].split,
                        healpix,
                        chosen,
                        RawFiles(raw, chosen),
                        reuse,
                        self.survey,
                        read,
                        self.options.compression,
                        made_of,
                    )
                )
        self._refuse_to_lose(items, {p for paths in lying.values() for p in paths}, wanted, tasks)
        self._wanted = wanted
        return self._out_of_the_way(tasks)

    def plan_files(self, made_of: Mapping[str, str]) -> list[str]:
        """Of partitions that are written as wholes, what each is made of by path: those that are still to be written."""
        self._refuse_foreign()
        self._wanted = set(made_of)
        left = [path for path, of in made_of.items() if path not in self.entries or not is_made_of(self.root / path, of)]
        for path in left:
            self.entries.pop(path, None)
        return left

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
                have = existing_rows(task, stack)
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
        for healpix, split in sorted(cells):
            folder = None if split == "train" and not self.survey.train_folder else split
            group = sorted(cells.pop((healpix, split)), key=lambda item: item.key)
            if self.options.files_per_object:
                yield from ((object_path(healpix, item.key, folder), healpix, [item]) for item in group)
                continue
            parts = [group[i : i + size] for i in range(0, len(group), size)]
            for part, part_items in enumerate(parts, 1):
                yield partition_path(healpix, part, len(parts), folder), healpix, part_items

    def _that_name_files(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those whose keys can be the names of their files; the others are rejected. All, where files are named by cell."""
        if not self.options.files_per_object:
            return items
        good = []
        for item in items:
            try:
                object_path(item.healpix, item.key)
                good.append(item)
            except RecordError as error:
                self.rejected.append(Rejected(item.key, item.file, str(error)))
                if self.options.strict:
                    raise UserError(f"{item.file}: {error} (--strict stops at the first)") from error
        return good

    def _refuse_to_lose(self, items: Sequence[Item], lying: set[str], wanted: set[str], tasks: Sequence[Task]) -> None:
        """A smaller selection must not delete objects that took a day to download."""
        rewritten = {task.path for task in tasks}
        changed = [path for path in sorted(lying) if path not in wanted or path in rewritten]
        keys = {item.key for item in items} if changed else set()
        lost = 0
        for path in changed:
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

    def _raw_folder(self) -> Path:
        """What the names of raw files are relative to."""
        return self.root / RAW if self.options.downloads else Path.cwd()

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
        cells = set(map(_cell_folder, self._listed | self._wanted)) if over else set()
        superseded = sorted(path for path in over if self._is_of_a_build(path, cells))
        if superseded:
            self._note({"superseded": superseded})  # the manifest that names them is replaced next
        manifest.save(self.root)
        self._remove_leftovers()  # of workers that were killed on a cluster
        self._remove_superseded(superseded)
        _say_left_alone(sorted(over - set(superseded)))
        self._journal.truncate(0)
        return manifest

    def _remove_superseded(self, superseded: Sequence[str]) -> None:
        """Remove what earlier builds wrote and the manifest no longer names."""
        for path in superseded:
            (self.root / path).unlink()
            with contextlib.suppress(OSError):
                (self.root / path).parent.rmdir()  # only where it is empty

    def _is_of_a_build(self, path: str, cells: set[str]) -> bool:
        """Whether a build wrote it: one that says so, or one that was killed, with another number of parts or moving it.

        Args:
            path: of the file.
            cells: the folders of cells that builds speak of.
        """
        if found := _MOVED.fullmatch(path):
            path = found[1] + SUFFIX
        if path in self._listed or path in self._wanted or path in self._superseded:
            return True
        return not _is_of_one_object(path) and _cell_folder(path) in cells

    def _refuse_changed(self) -> None:
        """The manifest's time will say that the files were whole: this is the last look at them."""
        before = dict(self._stamps)  # the look writes new ones
        for path in self._wanted & self.entries.keys():
            if problem := self._problem(self.entries[path], lambda path, now: now == before[path]):
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


def _say_left_alone(others: Sequence[str]) -> None:
    """What somebody else put among the partitions stays."""
    if others:
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        say(f"not of this build, left alone: {', '.join(others[:_MOST_NAMED])}{more}", file=sys.stderr)


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
