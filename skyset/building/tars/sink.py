"""Samples into archives, as they come.

    with TarSink(folder) as sink:
        for answer in pool.run(request for request in wanted if request.key not in sink.done):
            if answer.data is None:
                sink.fail(answer.key, answer.reason, answer.status, answer.tries, answer.url)
            else:
                sink.add(answer.key, {"jpg": answer.data}, answer.status, answer.tries)

Files of a sink's folder:

============================  ==================================================================================
``images-00000.tar``          a complete archive
``images-00001.tar.part``     the open archive; a short complete one is opened again by the next run
``images-00000.csv``          the list of an archive, complete or open: see `ledger`
``Images_downloaded.csv.gz``  all these lists as one, for people: written at the end, never read
``Images_failed.csv``         what could not be had, and why
``.images.lock``              while a process writes here
============================  ==================================================================================
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from skyset.building.tars.keys import Keys
from skyset.building.tars.ledger import LedgerRow, Part, head, is_of, is_ours, ledger_of, read_rows, there
from skyset.building.tars.read import BLOCK, TarError, index
from skyset.errors import UserError
from skyset.files import clear_leftovers, open_locked, replacing, sync_folder, write_atomically
from skyset.messages import csv_cell

KEY = re.compile(r"[A-Za-z0-9_+-]{1,80}")
EXTENSION = re.compile(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){0,2}")
#: Columns of the lists that people are shown.
LISTED = len(LedgerRow._fields) - len(("end", "crc32"))


def numbered(folder: Path, prefix: str, ending: str) -> list[Path]:
    """The files ``<prefix>-00000<ending>`` of a folder, in order of their numbers."""
    name = re.compile(rf"{re.escape(prefix)}-[0-9]{{5,}}{re.escape(ending)}")
    return sorted((path for path in folder.iterdir() if name.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition(".")[0].rpartition("-")[2])


class TarSink:
    """Samples into archives of ``per_archive``, each key once, over as many runs as it takes.

    Args:
        folder: made if it is missing; one process at a time.
        per_archive: samples of an archive; the last one of a run may be shorter, the next run fills it up.
        prefix: of the archives' names.
        listed, failed: names of the two lists.
        key: name of their first column.

    Attributes:
        done: a `Keys` of everything that is safe; with 19 digits per key, about 20 MB for a million.
        failures: by key, the row of the list of failures.
        aside: archives that could not be used and were renamed ``*.damaged``, with the reason. Their samples are not
            in `done`.

    Raises:
        UserError: the folder cannot be written, or another process writes it.
    """

    def __init__(
        self,
        folder: str | Path,
        per_archive: int = 1000,
        prefix: str = "images",
        listed: str = "Images_downloaded.csv.gz",
        failed: str = "Images_failed.csv",
        key: str = "objid",
    ) -> None:
        if per_archive < 1 or not KEY.fullmatch(prefix) or not KEY.fullmatch(key):
            raise ValueError(f"per_archive {per_archive}, prefix {prefix!r}, key {key!r}")
        self.folder = Path(folder)
        self.per_archive = per_archive
        self.prefix = prefix
        self.key = key
        self.listed, self.failed = self.folder / listed, self.folder / failed
        self.done = Keys()
        self.failures: dict[str, tuple] = {}
        self.aside: dict[str, str] = {}
        self._rows: dict[str, int] = {}  # of the complete archives, by name
        self._part: Part | None = None
        self._number = 0
        self._usable = True
        self._changed = False  # since the list of all samples was written
        self._lock = self._locked()
        try:
            self._recover()
            self._read_failures()
        except OSError as error:
            self._unlock()
            raise self._no_writing(error) from error
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> TarSink:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def add(self, key: str, members: Mapping[str, bytes], status: int = 200, tries: int = 1) -> None:
        """Write a sample: contents by extension, the image first. After a kill it is still there.

        Raises:
            UserError: the key cannot be part of a file name up to the first dot, or the disk is full.
            ValueError: the key is there already, or there are no members.
        """
        if not KEY.fullmatch(key):
            raise UserError(f"{key!r} cannot name a sample: 1 to 80 of A-Z a-z 0-9 _ + - (the first dot ends a name)")
        if key in self.done:
            raise ValueError(f"{key} is there already")
        if not members or not all(EXTENSION.fullmatch(extension) for extension in members):
            raise ValueError(f"{key}: members {list(members)}")
        if not self._usable:
            raise UserError(f"{self.folder}: nothing can be added after an archive that was not completed, or after the end")
        data = packed(key, members)
        extension, content = next(iter(members.items()))
        digest = hashlib.sha256(content).hexdigest()
        try:
            if self._part is None:
                self._part = self._opened()
            end = self._part.stop + len(data)
            row = LedgerRow(
                key, self._name, f"{key}.{extension}", len(content), digest, int(status), int(tries), end, zlib.crc32(data)
            )
            self._part.add(row, data)
        except OSError as error:
            raise self._no_writing(error) from error
        self.done.add(key)
        self.failures.pop(key, None)
        if len(self._part.rows) >= self.per_archive:
            self.flush()

    def fail(self, key: str, reason: str, status: int | None, tries: int, url: str) -> None:
        """Note that a sample cannot be had; written with the next complete archive, forgotten when it is added."""
        reason, url = csv_cell(" ".join(reason.split())), csv_cell(url)
        self.failures[key] = (key, reason, "" if status is None else status, tries, url)

    def flush(self) -> None:
        """Make the open archive a complete one, however short, and write the list of failures.

        Raises:
            UserError: the disk is full; nothing is lost, the next run goes on.
        """
        try:
            if self._part is not None and self._usable:
                self._usable = False  # until the end of this: what is interrupted on the way, the next run completes
                self._completed(self._part)
                self._part, self._usable = None, True
            self._write_failures()
        except OSError as error:
            raise self._no_writing(error) from error

    def close(self) -> None:
        """`flush`, write the list of all samples, and let other processes in. Nothing can be added afterwards."""
        try:
            self.flush()
            if self._lock >= 0:
                self._write_list()
        except OSError as error:
            raise self._no_writing(error) from error
        finally:
            self._usable = False  # the descriptors may be somebody else's soon
            if self._part is not None:
                self._part.close()
            self._unlock()

    @property
    def archives(self) -> list[Path]:
        """The complete archives, in order."""
        return numbered(self.folder, self.prefix, ".tar")

    @property
    def _name(self) -> str:
        return f"{self.prefix}-{self._number:05d}.tar"

    def _locked(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return open_locked(self.folder / f".{self.prefix}.lock")[0]
        except BlockingIOError:
            raise UserError(f"another process is writing to {self.folder}") from None
        except OSError as error:
            raise self._no_writing(error) from error

    def _unlock(self) -> None:
        if self._lock >= 0:
            (self.folder / f".{self.prefix}.lock").unlink(missing_ok=True)  # while it is locked: nobody else's can be hit
            os.close(self._lock)
            self._lock = -1

    def _no_writing(self, error: OSError) -> UserError:
        where = error.filename or self.folder
        return UserError(f"{where} cannot be written: {error.strerror or error}; the same command goes on")

    # opening and completing an archive

    def _opened(self) -> Part:
        """The next archive, or the last one if that is short."""
        while self._rows.get(self._name, 0) >= self.per_archive:
            self._number += 1
        path, rows = self.folder / self._name, []
        if self._name in self._rows:
            rows = read_rows(ledger_of(path), self.key)
            if there(path, rows) != rows:
                raise UserError(f"{path} holds other samples than {ledger_of(path).name} says: move it elsewhere")
        return Part(path, self.key, rows)

    def _completed(self, part: Part) -> None:
        if part.rows:
            part.complete()
            sync_folder(self.folder)
            self._rows[part.archive.name] = len(part.rows)
            self._changed = True
        else:
            part.remove()
        part.close()

    # what an earlier run left

    def _recover(self) -> None:
        clear_leftovers(self.folder)
        for path in numbered(self.folder, self.prefix, ".tar.part"):
            whole = path.with_suffix("")
            rows = [] if whole.exists() else there(path, read_rows(ledger_of(path), self.key))
            if rows:
                self._completed(Part(whole, self.key, rows))
            elif whole.exists() or is_ours(ledger_of(path), self.key) or not path.stat().st_size:
                path.unlink()
            else:
                self._set_aside(path, "no list says which of its samples are whole")
        for path in self.archives:
            self._take(path)
        for path in numbered(self.folder, self.prefix, ".csv"):
            if f"{path.stem}.tar" not in self._rows and is_ours(path, self.key):
                path.unlink()
                self._changed = True
        self._number = max(map(_number, self.archives), default=0)

    def _take(self, path: Path) -> None:
        """Learn what a complete archive holds: from its list, or by reading it where the list is not of this archive."""
        try:
            rows = read_rows(ledger_of(path), self.key)
            if not is_of(path, rows):
                rows = rows_in(path)
                write_atomically(ledger_of(path), (head(self.key) + b"".join(row.line for row in rows)).decode())
            if twice := next((row.key for row in rows if row.key in self.done), None):
                raise TarError(path, 0, f"{twice} is in another archive too")
        except TarError as error:
            self._set_aside(path, str(error))
            return
        self._rows[path.name] = len(rows)
        for row in rows:
            self.done.add(row.key)

    def _set_aside(self, path: Path, reason: str) -> None:
        os.replace(path, path.with_name(path.name + ".damaged"))
        self.aside[path.name] = reason

    # the lists for people

    def _write_list(self) -> None:
        """All rows as one file, unless it is there and nothing has changed since."""
        lists = [ledger_of(path) for path in self.archives]
        if not self._changed and self.listed.exists():
            written = self.listed.stat().st_mtime_ns
            if all(path.stat().st_mtime_ns <= written for path in lists):
                return
        with replacing(self.listed) as temporary, open(temporary, "wb") as file, _gzip(file) as packed:
            packed.write(_line((self.key, *LedgerRow._fields[1:LISTED])))
            for path in lists:
                packed.write(b"".join(_line(row[:LISTED]) for row in read_rows(path, self.key)))
        self._changed = False

    def _read_failures(self) -> None:
        if not self.failed.exists():
            return
        with open(self.failed, newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) == 5 and row[0] != self.key and row[0] not in self.done:
                    self.failures[row[0]] = tuple(map(csv_cell, row))

    def _write_failures(self) -> None:
        if not self.failures:
            self.failed.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((self.key, "reason", "http_status", "tries", "url"))
        writer.writerows(self.failures.values())
        write_atomically(self.failed, text.getvalue())


def _gzip(file: BinaryIO) -> gzip.GzipFile:
    """Without name and time: the same rows are the same file."""
    return gzip.GzipFile("", "wb", fileobj=file, mtime=0)


def _line(cells: Sequence) -> bytes:
    return f"{','.join(map(str, cells))}\n".encode()


def packed(key: str, members: Mapping[str, bytes]) -> bytes:
    """A sample as it lies in an archive: headers that depend on nothing but name and size, and padded contents."""
    parts = []
    for extension, content in members.items():
        header = tarfile.TarInfo(f"{key}.{extension}")
        header.size = len(content)
        parts += [header.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % BLOCK)]
    return b"".join(parts)


def rows_in(path: Path) -> list[LedgerRow]:
    """The list of an archive, from its contents: of who sent them, nothing is known.

    Raises:
        TarError: it is damaged, holds no samples, or one of another name than ours.
    """
    rows, start = [], 0
    with open(path, "rb") as file:
        for sample in index(path):
            if not KEY.fullmatch(sample.key):
                raise TarError(path, sample.start, f"not a key: {sample.key[:80]!r}")
            end = sample.start + sample.length
            file.seek(start)
            data = file.read(end - start)
            first = sample.members[0]
            content = data[first.offset - start : first.offset - start + first.size]
            member, digest = f"{sample.key}.{first.extension}", hashlib.sha256(content).hexdigest()
            rows.append(LedgerRow(sample.key, path.name, member, first.size, digest, 200, 1, end, zlib.crc32(data)))
            start = end
    if not rows:
        raise TarError(path, 0, "no samples")
    return rows
