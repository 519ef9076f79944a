"""Samples in TAR archives: written so that a kill at any moment loses nothing that was complete, and read by offset.

An archive holds samples as WebDataset does: members that follow each other and share a name up to the first dot.

    with TarSink(folder) as sink:
        for answer in pool.run(request for request in wanted if request.key not in sink.done):
            if answer.data is None:
                sink.fail(answer.key, answer.reason, answer.status, answer.tries, answer.url)
            else:
                sink.add(answer.key, {"jpg": answer.data}, answer.status, answer.tries)

Files of a sink's folder:

============================  ==================================================================================
``images-00000.tar``          a complete archive, never changed except that a short last one grows by replacement
``images-00001.tar.part``     the open archive
``Images_downloaded.csv.gz``  the ledger: a row a sample; one gzip member an archive, appended when it is complete
``Images_failed.csv``         what could not be had, and why
``.images.journal``           of the open archive: status, tries and checksums; also the lock
============================  ==================================================================================

The order is: journal, sample; and at the end of an archive: sync, rename, ledger, journal emptied. So whatever
the moment, a sample is in a complete archive or vouched for by the journal, or it is cut off and downloaded again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from skyset.building.tars.journal import Journal
from skyset.building.tars.journal import Row
from skyset.building.tars.journal import Vouched
from skyset.building.tars.journal import no_writing
from skyset.building.tars.journal import write_whole
from skyset.building.tars.keys import Keys
from skyset.building.tars.ledger import Ledger
from skyset.building.tars.read import BLOCK
from skyset.building.tars.read import EXTENSION
from skyset.building.tars.read import KEY
from skyset.building.tars.read import RECORD
from skyset.building.tars.read import Headers
from skyset.building.tars.read import TarError
from skyset.building.tars.read import bytes_at
from skyset.building.tars.read import index
from skyset.building.tars.read import samples_of
from skyset.errors import UserError
from skyset.files import sync_folder
from skyset.files import write_atomically
from skyset.messages import csv_cell

# --- reading ------------------------------------------------------------------------------------------------


# --- writing ------------------------------------------------------------------------------------------------


def header(name: str, size: int) -> bytes:
    """A ustar header that depends on nothing but name and size: owner 0, mode 644, time 0."""
    block = bytearray(BLOCK)
    fields = (name.encode(), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0")
    struct.pack_into("100s8s8s8s12s12s8sc", block, 0, *fields, b" " * 8, b"0")
    struct.pack_into("6s2s", block, 257, b"ustar\0", b"00")
    struct.pack_into("8s", block, 148, b"%06o\0 " % sum(block))
    return bytes(block)


def _packed(key: str, members: Mapping[str, bytes]) -> bytes:
    parts = []
    for extension, content in members.items():
        parts += [header(f"{key}.{extension}", len(content)), content, bytes(-len(content) % BLOCK)]
    return b"".join(parts)


class TarSink:
    """Samples into archives of ``per_archive``, each key once, over as many runs as it takes.

    Args:
        folder: made if it is missing; one process at a time.
        per_archive: samples of an archive; the last one of a run may be shorter, the next run fills it up.
        prefix: of the archives' names.
        ledger, failed: names of the two lists.
        key: name of their first column.

    Attributes:
        done: a `Keys` of everything that is safe; with 19 digits a key, about 20 MB for a million.
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
        ledger: str = "Images_downloaded.csv.gz",
        failed: str = "Images_failed.csv",
        key: str = "objid",
    ) -> None:
        if per_archive < 1 or not KEY.fullmatch(prefix) or not KEY.fullmatch(key):
            raise ValueError(f"per_archive {per_archive}, prefix {prefix!r}, key {key!r}")
        self.folder = Path(folder)
        self.per_archive = per_archive
        self.prefix = prefix
        self.key = key
        self.failed = self.folder / failed
        self.failures: dict[str, tuple] = {}
        self.aside: dict[str, str] = {}
        self._part: int | None = None  # descriptor of the open archive
        self._number = 0
        self._samples: list[tuple[Row, int]] = []  # of the open archive, each with the offset of its end
        self._usable = True
        self._journal = Journal(self.folder / f".{prefix}.journal")
        try:
            self._ledger = Ledger(self.folder / ledger, key)
            self._recover()
            self._read_failures()
        except OSError as error:
            self._journal.close()
            raise no_writing(self.folder, error) from error
        except BaseException:
            self._journal.close()
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
        data = _packed(key, members)
        extension, content = next(iter(members.items()))
        digest = hashlib.sha256(content).hexdigest()
        try:
            if self._part is None:
                self._open()
            row = Row(key, self._name, f"{key}.{extension}", len(content), digest, int(status), int(tries))
            self._journal.write(row, data)
            write_whole(self._part, data, self._stop)
        except OSError as error:
            raise no_writing(self.folder, error) from error
        self._samples.append((row, self._stop + len(data)))  # one step: Ctrl-C comes before it or after it
        self.done.add(key)
        self.failures.pop(key, None)
        if len(self._samples) >= self.per_archive:
            self.flush()

    def fail(self, key: str, reason: str, status: int | None, tries: int, url: str) -> None:
        """Note that a sample cannot be had; written with the next complete archive, forgotten when it is added."""
        reason, url = csv_cell(" ".join(reason.split())), csv_cell(url)
        self.failures[key] = (key, reason, "" if status is None else status, tries, url)

    def flush(self) -> None:
        """Make the open archive a complete one, however short, and write the lists.

        Raises:
            UserError: the disk is full; nothing is lost, the next run goes on.
        """
        try:
            if self._samples and self._usable:
                self._finish()
            self._write_failures()
        except OSError as error:
            raise no_writing(self.folder, error) from error

    def close(self) -> None:
        """`flush`, and let other processes in. Nothing can be added afterwards."""
        try:
            self.flush()
        finally:
            self._usable = False  # the descriptors may be somebody else's soon
            if self._part is not None:
                os.close(self._part)
                self._part = None
                if not self._samples:
                    (self.folder / f"{self._name}.part").unlink(missing_ok=True)
            self._journal.close()

    @property
    def archives(self) -> list[Path]:
        """The complete archives, in order."""
        found = (path for path in self.folder.glob(f"{self.prefix}-*.tar") if self._number_of(path) is not None)
        return sorted(found, key=self._number_of)

    @property
    def _name(self) -> str:
        return f"{self.prefix}-{self._number:05d}.tar"

    @property
    def _stop(self) -> int:
        return self._samples[-1][1] if self._samples else 0

    def _number_of(self, path: Path) -> int | None:
        match = re.fullmatch(rf"{re.escape(self.prefix)}-([0-9]{{5,}})\.tar(\.part)?", path.name)
        return int(match[1]) if match else None

    # opening and completing an archive

    def _open(self) -> None:
        """Begin an archive: the next one, or a copy of the last one if that is short."""
        full = {name for name, rows in self._ledger.archives.items() if rows >= self.per_archive}
        while self._name in full:
            self._number += 1
        part = self.folder / f"{self._name}.part"
        whole = self.folder / self._name
        copy = self.folder / f".{self._name}.tmp"
        rows = self._ledger.rows_of(self._name) if whole.exists() else []
        samples = list(index(whole)) if rows else []
        if [row.key for row in rows] != [sample.key for sample in samples]:
            raise UserError(f"{whole} holds other samples than {self._ledger.path.name} says: move it elsewhere")
        old = list(zip(rows, samples, strict=True))
        if old:
            with open(whole, "rb") as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target)
                target.truncate(old[-1][1].start + old[-1][1].length)
            with open(copy, "rb") as source:
                for row, sample in old:
                    self._journal.write(row, bytes_at(source, sample.start, sample.length))
            os.rename(copy, part)
        self._part = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._samples = [(row, sample.start + sample.length) for row, sample in old]

    def _finish(self) -> None:
        self._usable = False  # until the end of this: what is interrupted on the way, the next run completes
        stop = -(-(self._stop + 2 * BLOCK) // RECORD) * RECORD
        write_whole(self._part, bytes(stop - self._stop), self._stop)
        os.ftruncate(self._part, stop)
        os.fsync(self._part)
        self._ledger.forget(self._name)  # first, for a shorter archive may have the same size
        os.replace(self.folder / f"{self._name}.part", self.folder / self._name)
        sync_folder(self.folder)
        self._ledger.append(self._name, stop, [row for row, _ in self._samples])
        self._journal.empty()
        os.close(self._part)
        self._part, self._samples, self._usable = None, [], True

    # what an earlier run left

    def _recover(self) -> None:
        for pattern in (f".{self.prefix}-*.tmp", f".{self.failed.name}.*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()
        vouched = self._journal.read()
        sizes = {path.name: path.stat().st_size for path in self.archives}
        self._ledger.keep(lambda archive, size: sizes.get(archive) == size)
        self.done = Keys(self._ledger.keys())
        known = self._ledger.archives
        for name in sizes:
            if name not in known:
                self._take_archive(self.folder / name, vouched)
        parts = sorted(path for path in self.folder.glob(f"{self.prefix}-*.tar.part") if self._number_of(path) is not None)
        for path in parts:
            self._take_part(path, vouched)
        if self._part is None:
            self._journal.empty()
            self._number = max((self._number_of(path) for path in self.archives), default=0)

    def _take_archive(self, path: Path, vouched: dict[str, Vouched]) -> None:
        """Put a complete archive that the ledger does not know into it."""
        try:
            rows = self._rows_in(path, vouched)
        except TarError as error:
            self._put_aside(path, str(error))
            return
        if twice := next((row.key for row in rows if row.key in self.done), None):
            self._put_aside(path, f"{path}: {twice} is in another archive too")
            return
        self._ledger.append(path.name, path.stat().st_size, rows)
        for row in rows:
            self.done.add(row.key)

    def _rows_in(self, path: Path, vouched: dict[str, Vouched]) -> list[Row]:
        rows = []
        with open(path, "rb") as file:
            for sample in index(path):
                first = sample.members[0]
                digest = hashlib.sha256(bytes_at(file, first.offset, first.size)).hexdigest()
                if not KEY.fullmatch(sample.key):
                    raise TarError(path, sample.start, f"not a key: {sample.key[:80]!r}")
                known = vouched.get(sample.key)
                status, tries = (known.row.http_status, known.row.tries) if known else (200, 1)
                member = f"{sample.key}.{first.extension}"
                rows.append(Row(sample.key, path.name, member, first.size, digest, status, tries))
        if not rows:
            raise TarError(path, 0, "no samples")
        return rows

    def _put_aside(self, path: Path, reason: str) -> None:
        os.replace(path, path.with_name(path.name + ".damaged"))
        self.aside[path.name] = reason

    def _take_part(self, path: Path, vouched: dict[str, Vouched]) -> None:
        """Go on with the archive that was open: its samples up to the first one that the journal does not vouch for."""
        samples = self._salvaged(path, vouched)
        rows = [row for row, _ in samples]
        whole = path.with_suffix("")
        replaced = self._ledger.rows_of(whole.name) if whole.exists() else []
        extra = [row for row in rows if row.key not in self.done]
        same = [row.key for row in replaced] == [row.key for row in rows[: len(replaced)]]
        if not extra or not same or len(extra) + len(replaced) != len(rows) or self._part is not None:
            path.unlink()  # it holds nothing that is not elsewhere; or it is not a continuation, which no kill leaves
            return
        self._number, self._samples = self._number_of(path), samples
        self._part = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._part, self._stop)
        for row in extra:
            self.done.add(row.key)
        if len(rows) >= self.per_archive:
            self._finish()

    def _salvaged(self, path: Path, vouched: dict[str, Vouched]) -> list[tuple[Row, int]]:
        samples = []
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            headers = Headers(path, lambda offset, count: bytes_at(file, offset, count), 0, size, whole=False)
            try:
                for sample in samples_of(headers):
                    known = vouched.pop(sample.key, None)
                    if known is None or known.crc32 != zlib.crc32(bytes_at(file, sample.start, sample.length)):
                        break
                    row = known.row._replace(archive=path.with_suffix("").name)
                    samples.append((row, sample.start + sample.length))
            except TarError:
                pass  # the torn end of a killed run
        return samples

    # the list of failures

    def _read_failures(self) -> None:
        if not self.failed.exists():
            return
        with open(self.failed, newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) == 5 and row[0] != self.key and row[0] not in self.done:
                    self.failures[row[0]] = tuple(map(csv_cell, row))  # an older skyset wrote logins

    def _write_failures(self) -> None:
        if not self.failures:
            self.failed.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((self.key, "reason", "http_status", "tries", "url"))
        writer.writerows(self.failures.values())
        write_atomically(self.failed, text.getvalue())


# --- the journal --------------------------------------------------------------------------------------------


# --- the ledger ---------------------------------------------------------------------------------------------
