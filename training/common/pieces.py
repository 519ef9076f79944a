"""A table that several processes write together, in pieces of equal numbers of rows, and that is whole or not there.

Piece ``k`` holds the rows from ``k * size`` on, and lies as a file of its own beside the table until the last of them is
there; whoever writes that one joins them. A kill loses at most the pieces that were being written, and any number of
processes may go on: which rows a piece holds does not depend on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyset.errors import UserError
from skyset.files import clear_leftovers, is_temporary, open_locked, replacing

SETTINGS = "settings.json"
#: In the table's metadata.
MARK = b"skyset_predictions"


class Pieces:
    """The table ``output`` in the making.

    Args:
        output: a Parquet file that is to be.
        settings: all that changes its rows.
        rows: that it will have.
        size: rows of a piece.
        overwrite: throw away what an earlier command with other settings left, and a file that nobody's command wrote.

    Raises:
        UserError: something else is there, or it cannot be written there.
    """

    def __init__(self, output: Path, settings: Mapping, rows: int, size: int, overwrite: bool = False):
        self.output, self.rows, self.size = output, rows, size
        self.settings = json.loads(json.dumps({**settings, "rows": rows}))
        self.folder = output.with_name(f"{output.name}.pieces")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self._lock):
                self._begin(overwrite)
        except OSError as error:
            raise UserError(f"cannot write {output}: {error.strerror or error}") from error

    @property
    def _lock(self) -> Path:
        return self.output.with_name(f".{self.output.name}.lock")

    def _begin(self, overwrite: bool) -> None:
        if self.output.is_dir():
            raise UserError(f"{self.output} is a folder: name a file, such as predictions.parquet")
        if self.output.exists() and not overwrite and (differing := self._differing(settings_in(self.output))):
            raise UserError(f"{self.output} {differing}: choose another name, or give --overwrite")
        if self.folder.exists():
            if foreign := [entry.name for entry in self.folder.iterdir() if not _is_ours(entry.name)]:
                raise UserError(f"{self.folder} holds {foreign[0]}, which is not of this script: choose another name for -o")
            found = _read(self.folder / SETTINGS)
            differing = self._differing(found) if found else ""
            if differing and not overwrite and not self.whole:
                raise UserError(f"{self.folder}, of an interrupted command, {differing}: end that one, or give --overwrite")
            if self.whole or differing or not found:
                self._remove()
        if not self.whole:
            self.folder.mkdir(exist_ok=True)
            with replacing(self.folder / SETTINGS) as temporary:
                temporary.write_text(json.dumps({**self.settings, "rows a piece": self.size}, indent=1))

    def _remove(self) -> None:
        """The settings last: what a kill leaves is recognised."""
        for entry in self.folder.iterdir():
            if entry.name != SETTINGS:
                entry.unlink()
        (self.folder / SETTINGS).unlink(missing_ok=True)
        self.folder.rmdir()

    def _differing(self, found: dict | None) -> str:
        """What is wrong with settings that were found, empty if they are these; the size of pieces is taken over."""
        if found is None:
            return "was not written by this script"
        size = found.get("rows a piece")
        found = {name: value for name, value in found.items() if name != "rows a piece"}
        for name in [*self.settings, *found]:
            if found.get(name) != self.settings.get(name):
                return f"has another {name} ({found.get(name)!r}, now {self.settings.get(name)!r})"
        self.size = size or self.size
        return ""

    @property
    def whole(self) -> bool:
        """Whether the table is there, made with these settings."""
        found = settings_in(self.output)
        return found is not None and not self._differing(found)

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def waiting(self, rank: int, world: int) -> list[int]:
        """Numbers of the pieces that are still to be made by process ``rank`` of ``world``."""
        clear_leftovers(self.folder)
        return [number for number in range(rank, len(self), world) if not self._is_made(number)]

    def _is_made(self, number: int) -> bool:
        """Whether a piece is there and can be read: a disk that lost power may hold an empty one."""
        try:
            return pq.read_metadata(self.path(number)).num_rows > 0
        except (pa.ArrowException, OSError):
            return False

    def write(self, number: int, table: pa.Table) -> None:
        """Keep a piece."""
        with replacing(self.path(number)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def join(self) -> bool:
        """Make the table of its pieces, if all are there; whether it is there now.

        Raises:
            UserError: it cannot be written; the pieces stay.
        """
        try:
            with _alone(self._lock):
                if not self.whole:
                    if not all(self._is_made(number) for number in range(len(self))):
                        return False
                    self._write_table([self.path(number) for number in range(len(self))])
                if self.folder.exists():
                    self._remove()
        except OSError as error:
            raise UserError(f"cannot write {self.output}: {error.strerror or error}; its pieces are safe") from error
        return True

    def _write_table(self, paths: list[Path]) -> None:
        schema = pq.read_schema(paths[0])
        schema = schema.with_metadata({**(schema.metadata or {}), MARK: json.dumps(self.settings).encode()})
        with replacing(self.output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for path in paths:
                writer.write_table(pq.read_table(path).cast(schema))


def _is_ours(name: str) -> bool:
    return name == SETTINGS or is_temporary(name) or re.fullmatch(r"\d{6,}\.parquet", name) is not None


def settings_in(path: Path) -> dict | None:
    """The settings with which a table was made, None where it is no such table."""
    try:
        return json.loads((pq.read_schema(path).metadata or {})[MARK])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process is inside; the lock file is removed at the end."""
    while True:
        try:
            descriptor, _ = open_locked(path)
            break
        except BlockingIOError:
            time.sleep(0.05)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
