"""Making Parquet files and sending them, a few at a time: neither memory nor disk grows with the survey."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd

from skyset.errors import PartitionError, UserError
from skyset.files import clear_leftovers
from skyset.progress import progress_bar
from skyset.publishing.client import Hub, named
from skyset.publishing.contents import Form, Item, make_shard, smaller
from skyset.publishing.journal import Journal, Sent
from skyset.publishing.request import Request
from skyset.publishing.source import Source
from skyset.runner import Pool, executor

#: Files that are on their way at the same time.
SENDERS = 4
#: Files that a cluster makes at the same time: they wait on the disk until they are sent.
MOST_MADE = 32
#: Bytes of partitions from which on several processes make files: to start one takes seconds.
WORTH_PROCESSES = 2 << 30
#: Of these bytes at most Git itself takes a file.
MOST_BYTES_OF_GIT = 10 << 20


@dataclass(frozen=True)
class Ready:
    """A file that a commit can name.

    Args:
        item: what it is.
        made_of: digest of what it was made of.
        sent: what the Hub has; None where Git itself holds the file, which is then read by the commit.
        etag: the checksum that the repository shows.
        sent_now: bytes that were sent in this push.
        is_new: whether the repository does not have it under this name.
    """

    item: Item
    made_of: str
    sent: Sent | None
    etag: str
    sent_now: int = 0
    is_new: bool = True

    @property
    def rows(self) -> int:
        return self.sent.rows if self.sent else self.item.rows

    def operation(self) -> CommitOperationAdd:
        """A commit's mention of it, which serves once."""
        if self.sent is None:
            assert self.item.file is not None
            return CommitOperationAdd(self.item.path, self.item.file)
        return named(self.item.path, self.sent)


def git_etag(content: bytes) -> str:
    """What Git calls a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def send_all(
    request: Request,
    datasets: Mapping[str, Source],
    items: Sequence[Item],
    hub: Hub,
    journal: Journal,
    known: Mapping[str, Sent],
    there: Mapping[str, str],
) -> Iterator[Ready]:
    """All files, in their order, each as soon as a commit can name it; those that are not known are made and sent.

    Args:
        request: of the push.
        datasets: by config.
        items: what to send.
        hub: where to.
        journal: takes note of each file that was sent.
        known: files that the Hub has, by digest of what they were made of.
        there: the repository's files.

    Raises:
        UserError: a partition is not what the manifest says, a full disk, what the Hub refuses.
    """
    stopping = threading.Event()
    total = sum(item.bytes for item in items)
    processes = request.processes or (min(4, os.cpu_count() or 1) if total > WORTH_PROCESSES else 1)
    shards = journal.folder / "files"
    shards.mkdir(exist_ok=True)
    clear_leftovers(shards)
    for file in shards.glob("*.parquet"):
        file.unlink()  # made, and not sent: it is made again
    shared: list[str | Path] = [shards, *(source.a_file for source in datasets.values())]
    with contextlib.ExitStack() as stack:
        makers = stack.enter_context(executor(processes, request.scheduler, shared=shared))
        if request.scheduler:
            processes = min(MOST_MADE, makers.ahead)
        senders = stack.enter_context(ThreadPoolExecutor(SENDERS + processes))
        one = _One(datasets, request.form, hub, journal, known, there, shards, makers, processes)
        pending: deque[Future] = deque()
        left = iter(items)
        try:
            with progress_bar(total=total, unit="B", unit_scale=True, desc="push", leave=False) as bar:
                while True:
                    while len(pending) < SENDERS + processes and (item := next(left, None)) is not None:
                        pending.append(senders.submit(one.ready, item, stopping))
                    if not pending:
                        return
                    ready = pending.popleft().result()
                    bar.update(ready.item.bytes)
                    yield ready
        finally:
            stopping.set()
            for future in pending:
                future.cancel()


class _One:
    """What is done for one file, in a thread."""

    def __init__(
        self, datasets: Mapping[str, Source], form: Form, hub, journal, known, there, folder: Path, makers: Pool, most: int
    ):
        self._sources = {config: smaller(source.for_workers()) for config, source in datasets.items()}
        self._form, self._hub, self._journal, self._known, self._there = form, hub, journal, known, there
        self._folder, self._makers = folder, makers
        self._making, self._writing = threading.Semaphore(most), threading.Lock()

    def ready(self, item: Item, stopping: threading.Event) -> Ready:
        made_of = item.made_of()
        there = self._there.get(item.path, "")
        if (
            item.file is not None
            and len(there) == 40
            and item.bytes <= MOST_BYTES_OF_GIT
            and git_etag(item.file.read_bytes()) == there
        ):
            return Ready(item, made_of, None, there, is_new=False)
        if item.file is not None and there == made_of:
            return Ready(item, made_of, Sent(made_of, item.bytes, item.rows), there, is_new=False)
        if (sent := self._known.get(made_of)) is not None:
            return Ready(item, made_of, sent, sent.sha256, is_new=there != sent.sha256)
        return self._sent(item, made_of, stopping)

    def _sent(self, item: Item, made_of: str, stopping: threading.Event) -> Ready:
        if item.shard is None:
            assert item.file is not None
            sent = self._hub.send(item.path, item.file, made_of, item.rows)
            if sent is None:
                return Ready(item, made_of, None, git_etag(item.file.read_bytes()))
        else:
            file = self._folder / f"{made_of[:32]}.parquet"
            try:
                with self._making:
                    if stopping.is_set():
                        raise UserError("the push has ended")
                    source = self._sources[item.shard.config]
                    sha256, _, rows = self._makers.submit(make_shard, source, item.shard, self._form, file).result()
                sent = self._hub.send(item.path, file, sha256, rows)
            except PartitionError as error:
                what = "`skyset verify` names all differences, the command that built it mends them"
                raise UserError(f"{error}: {what}") from error
            finally:
                file.unlink(missing_ok=True)
            if sent is None:
                raise UserError(f"the Hub does not take {item.path} as a large file: its .gitattributes was changed")
        with self._writing:
            self._journal.add(made_of, sent)
        return Ready(item, made_of, sent, sent.sha256, sent.bytes)
