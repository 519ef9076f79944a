"""From a list of objects to a folder of partitions: plan, download, read, write, and survive being killed.

A survey brings two things: the list of its objects with their positions (``Found``) and one pure function that reads
one object from a raw file (``read``). All else is here. The unit of work is one partition file; ``build_partition`` writes
it without knowing what runs it. What is complete stands in ``journal.jsonl`` until the manifest is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import shlex
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from skyset.archives.fetch import Fetcher, FetchError
from skyset.building.card import leave_card
from skyset.building.folder import BuildFolder
from skyset.building.options import Options
from skyset.building.task import Found, Item, Read, Rejected, Task, Written, build_partition, existing_rows
from skyset.command_line import os_reason
from skyset.errors import PartitionError, UserError
from skyset.files import human_bytes, short_digest
from skyset.partitions.layout import REJECTED, compression_options
from skyset.partitions.manifest import Manifest
from skyset.runner import Pool, executor
from skyset.survey import Survey

#: How HDF5 and threads say it.
_NO_MEMORY = ("memory allocation failed", "Cannot allocate memory", "can't start new thread")


@dataclass
class Pipeline:
    """Downloads run ahead of reading by a bounded number of files; partitions are written as their files arrive."""

    folder: BuildFolder
    fetcher: Fetcher | None
    pool: Pool
    connections: int
    progress: tqdm
    write: Callable[[Task], Written] = build_partition
    fetching: dict[Future, tuple[Task, Item]] = field(default_factory=dict)
    building: dict[Future, Task] = field(default_factory=dict)
    arrived: dict[str, list[Item]] = field(default_factory=dict)

    def run(self, tasks: Sequence[Task]) -> None:
        waiting = deque(tasks)
        while waiting or self.fetching or self.building:
            ahead = max(2 * self.connections, self.pool.ahead)
            while waiting and len(self.fetching) < ahead and len(self.building) < ahead:
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
            return set(existing_rows(task, stack))

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
            self.building[self.pool.submit(self.write, task)] = task

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
    read: Read,
    options: Options,
    find_items: Callable[[Options, Fetcher | None], Found],
    command: Sequence[str] = (),
    write: Callable[[Task], Written] = build_partition,
) -> int:
    """Build a survey and tell how it went.

    Args:
        survey: its declaration.
        read: pure, importable function from a raw file (and the object's address in it) to the columns' values; RecordError
            if it cannot be used. Or a `task.ReadTogether`.
        options: what the user asked for.
        find_items: lists the objects to build, and those that cannot be; it runs while the folder is locked.
        command: what the user typed, kept in the manifest.
        write: pure, importable function that writes a partition, for surveys whose rows are not read one by one.

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
                _run_tasks(tasks, folder, network, options, write)
            manifest = folder.finish(command, found)
            leave_card(options.output_dir, folder.survey, manifest.config)
    except (FetchError, PartitionError) as error:
        raise UserError(str(error)) from error
    except (OSError, RuntimeError, MemoryError) as error:  # HDF5 reports a full disk as either of the first
        raise UserError(describe_failure(error, options.output_dir)) from error
    return report(manifest, options.output_dir)


def _with_layout(made_of: str, survey: Survey) -> str:
    """The digest of what rows are made of and of the columns they have: files without one of these are made again."""
    if not made_of:
        return ""
    layout = [(column.name, column.dtype, column.shape) for column in survey.columns]
    return short_digest(json.dumps([made_of, layout]))


def _run_tasks(
    tasks: Sequence[Task],
    folder: BuildFolder,
    network: Fetcher | None,
    options: Options,
    write: Callable[[Task], Written],
) -> None:
    from skyset.progress import progress_bar

    processes = min(options.num_processes, len(tasks))
    objects = sum(len(task.items) for task in tasks)
    bar = progress_bar(total=objects, unit="object", desc=folder.survey.name)
    shared = _shared(folder, tasks, network) if options.scheduler else ()
    try:
        with executor(processes, options.scheduler, shared=shared) as pool, bar:
            Pipeline(folder, network, pool, options.max_connections, bar, write).run(tasks)
    finally:
        folder.write_rejected()


def _shared(folder: BuildFolder, tasks: Sequence[Task], network: Fetcher | None) -> list[Path]:
    """What workers elsewhere have to see: the folder, and a raw file where it lies in another one."""
    there = (file for task in tasks for file in task.files if network is None and file.is_file())
    return [folder.root, *itertools.islice(there, 1)]


def describe_failure(error: OSError | RuntimeError | MemoryError, root: Path) -> str:
    """One line for what the machine refused; anything else is a defect and keeps its traceback."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return f"no space left on the disk of {root}: free some and run the same command again, it goes on from here"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return "not enough memory: the same command goes on from here; try a smaller --num_processes"
    return os_reason(error, root)


def report(manifest: Manifest, root: Path, rejected: bool = True) -> int:
    """Say what a build made; the exit status. ``rejected``: also how many objects were, unless that was said before."""
    size = human_bytes(manifest.bytes)
    print(f"{manifest.survey}: {manifest.rows} rows in {len(manifest.files)} partitions ({size}) in {root}")
    if manifest.rows:
        print(f"what is in it, as a web page: skyset report {shlex.quote(str(root))}")
    if manifest.rejected and rejected:
        print(f"{manifest.rejected} objects were rejected, each with its reason in {root / REJECTED}")
    return 1 if manifest.rejected else 0
