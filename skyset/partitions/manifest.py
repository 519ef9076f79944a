"""``manifest.json`` at a survey's root: what is there, in which files, with which checksums; and ``verify``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from skyset.errors import PartitionError, UserError
from skyset.files import file_sha256, short_digest, write_atomically
from skyset.partitions.layout import JOURNAL, MANIFEST, PIXELS_FROM, SUFFIX, cell_of_path
from skyset.partitions.partition import Partition
from skyset.partitions.tree.form import ADOPTED, INDEX, check_file, form_of
from skyset.partitions.tree.unadopted import how_to_adopt, is_unadopted
from skyset.secrets import redacted_values
from skyset.survey import Column, Survey, check_columns, check_types

FORMAT = "skyset-manifest/1"
LARGEST = 1 << 30  # bytes of a manifest that is read; one of a million files has less
_NSIDES = [2**order for order in range(30)]
#: Pixels of nothing at all compress by no more than this (deflate: 1032).
_MAX_RATIO = 1200
_SPLIT = re.compile(r"\w+(\.\w+)*")  # what `datasets` takes


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One partition. ``ra`` and ``dec`` are [smallest, largest] in degrees; ``keys`` is the digest of the rows' keys."""

    path: str
    split: str
    healpix: int
    rows: int
    bytes: int
    sha256: str
    keys: str
    ra: tuple[float, float]
    dec: tuple[float, float]

    def values(self) -> dict:
        """What stands in the manifest."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, values: dict, check_path: Callable[[str], object] = cell_of_path) -> FileEntry:
        """An entry that somebody wrote; ValueError or PartitionError unless it can be one."""
        entry = cls(**{**values, "ra": tuple(values["ra"]), "dec": tuple(values["dec"])})
        check_types(entry)
        check_path(entry.path)
        if not (0 < entry.rows < 2**63 and 0 < entry.bytes < 2**63):
            raise ValueError(f"{entry.path} has {entry.rows} rows and {entry.bytes} bytes")
        if not _SPLIT.fullmatch(entry.split):
            raise ValueError(f"{entry.path} is of split {entry.split!r}")
        return entry


@dataclass
class Manifest:
    """The contents of ``manifest.json``; ``files`` is sorted by path."""

    survey: str
    columns: list[Column]
    key: str
    files: list[FileEntry]
    sources: list[str] = field(default_factory=list)
    build: dict = field(default_factory=dict)
    rejected: int = 0
    nside: int = 16

    @property
    def rows(self) -> int:
        return sum(entry.rows for entry in self.files)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)

    @property
    def config(self) -> str:
        """Which of a survey's datasets this is: ``default``, or the name of the folder below the survey's."""
        return str(self.build.get("config", "default"))

    @property
    def splits(self) -> dict[str, list[FileEntry]]:
        """Files by split, in the manifest's order."""
        splits: dict[str, list[FileEntry]] = {}
        for entry in self.files:
            splits.setdefault(entry.split, []).append(entry)
        return splits

    def to_json(self) -> str:
        columns = [_described(column) for column in self.columns]
        head = {
            "format": FORMAT,
            "survey": self.survey,
            "rows": self.rows,
            "bytes": self.bytes,
            "rejected": self.rejected,
            "healpix": {"nside": self.nside, "ordering": "nested"},
            "key": self.key,
            "sources": redacted_values(self.sources),
            "build": redacted_values(self._build_on_disk()),
            "columns": columns,
            "files": [],
        }
        text = json.dumps(head, indent=1)
        if self.files:  # a line each: indented, a million of them take minutes
            lines = (json.dumps(entry.values()) for entry in sorted(self.files, key=lambda e: e.path))
            text = text.removesuffix("[]\n}") + "[\n  " + ",\n  ".join(lines) + "\n ]\n}"
        return text + "\n"

    @property
    def is_adopted(self) -> bool:
        """Whether this is the index of a tree, whose files lie elsewhere; what was published of one is none."""
        return self.survey == ADOPTED and ADOPTED in self.build

    def files_root(self, root: str | Path) -> str:
        """What the files' paths begin at: ``root``, the manifest's own, or the folder that it is the index of."""
        return self.build[ADOPTED]["tree"] if self.is_adopted else str(root)

    def _build_on_disk(self) -> dict:
        """Without where the manifest lies."""
        own = self.build.get(ADOPTED) if self.is_adopted else None
        return {**self.build, ADOPTED: {name: own[name] for name in own if name != INDEX}} if own else self.build

    def digest(self) -> str:
        """What tells the rows of this dataset from others, and from those of an earlier build."""
        head = dataclasses.replace(self, files=[]).to_json()
        files = "\n".join(repr(entry) for entry in sorted(self.files, key=lambda e: e.path))
        return short_digest(f"{head}{files}")

    def save(self, root: Path) -> None:
        """Write atomically: a reader sees the old manifest or the new one."""
        write_atomically(Path(root) / MANIFEST, self.to_json())

    @classmethod
    def load(cls, root: str | Path) -> Manifest:
        """Read the manifest of a folder or of a remote root (anything fsspec opens).

        Raises:
            UserError: there is none, or it is not a manifest of this format.
        """
        with reasons_told(root):
            manifest = cls._from_json(read_values(root))
        if manifest.is_adopted:
            if "://" in str(root):
                raise UserError(f"{root} is the index of a tree, which is read on the machine that has the tree")
            manifest.build[ADOPTED][INDEX] = os.path.abspath(root)
        return manifest

    @classmethod
    def _from_json(cls, values: dict) -> Manifest:
        manifest, files = cls.head(values), values["files"]
        if type(files) is not list:
            raise TypeError(f"files is {type(files).__name__}")
        if not set(manifest.config).isdisjoint("<>:/\\|?*\0"):  # datasets makes no folder of these
            raise ValueError(f"{manifest.config[:100]!r} is no name of a config")
        check_path = check_file if manifest.is_adopted else cell_of_path
        for number, each in enumerate(files):  # in its place: of a million files, two lists are gigabytes
            files[number] = FileEntry.from_json(each, check_path)
            manifest.check_entry(files[number])
        manifest.files = files
        check_types(manifest)
        return manifest

    def check_entry(self, entry: FileEntry) -> None:
        """Raise ValueError unless a file can be one of this dataset's."""
        if self.is_adopted:
            if not -1 <= entry.healpix < 12 * self.nside**2 or entry.rows > entry.bytes * _MAX_RATIO:
                raise ValueError(f"{entry.path} has {entry.rows} rows in {entry.bytes} bytes, in cell {entry.healpix}")
            return
        if not 0 <= entry.healpix == cell_of_path(entry.path) < 12 * self.nside**2:
            raise ValueError(f"{entry.path} is in cell {entry.healpix}")
        _check_size(entry, self._least_bytes)

    @cached_property
    def _least_bytes(self) -> tuple[int, int]:
        """Of a row on disk: those that are never compressed, and all that have a fixed number."""
        fixed = [column.row_bytes for column in self.columns if not column.is_ragged]
        ends = [column.end.row_bytes for column in self.columns if column.is_ragged]
        return sum(size for size in fixed if size < PIXELS_FROM) + sum(ends), sum(fixed)

    @classmethod
    def head(cls, values: dict) -> Manifest:
        """All but the files; ValueError, LookupError or TypeError where it can be none."""
        manifest = cls(
            survey=values["survey"],
            columns=[Column(**{**c, "shape": tuple(c["shape"])}) for c in values["columns"]],
            key=values["key"],
            files=[],
            sources=redacted_values(values["sources"]),  # an older skyset wrote logins
            build=redacted_values(values["build"]),
            rejected=values["rejected"],
            nside=values["healpix"]["nside"],
        )
        check_types(manifest)
        if missing := {"ra", "dec", "healpix", manifest.key} - {column.name for column in manifest.columns}:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        check_columns(manifest.columns)
        if any(column.is_ragged for column in manifest.columns if column.name in ("ra", "dec", "healpix", manifest.key)):
            raise ValueError("position or key is ragged")
        if manifest.nside not in _NSIDES:
            raise ValueError(f"nside is {manifest.nside}")
        if manifest.is_adopted:
            form_of(manifest.build).check(manifest.columns)
        return manifest


def _check_size(entry: FileEntry, least: tuple[int, int]) -> None:
    """Raise ValueError where a file has more rows than fit into its bytes: all that reads it plans by its rows.

    Pixels may be compressed; columns of few bytes are not, and of a column of bytes where each row ends is not.
    """
    if entry.rows * least[0] > entry.bytes or entry.rows * least[1] > entry.bytes * _MAX_RATIO:
        raise ValueError(f"{entry.path} cannot have {entry.rows} rows in {entry.bytes} bytes")


@contextlib.contextmanager
def reasons_told(root: str | Path) -> Iterator[None]:
    """What is wrong with a manifest, as a UserError in one line."""
    where = _where(root)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        others = f"; {how_to_adopt(root)}" if is_unadopted(root) else ""
        raise UserError(
            f"no {MANIFEST} in {root}: not a folder of skyset partitions, or its build has not finished "
            f"(run the same build command again to complete it){others}"
        ) from None
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error}") from error
    except (ValueError, LookupError, TypeError, SyntaxError, RecursionError, PartitionError) as error:
        raise UserError(f"{where} is damaged: {type(error).__name__}: {str(error)[:200]}") from error


def _where(root: str | Path) -> str:
    return f"{str(root).rstrip('/')}/{MANIFEST}"


def read_values(root: str | Path) -> dict:
    values = raw_values(root)
    if values["format"] != FORMAT:
        raise UserError(f"{_where(root)} has format {values['format']!r}; this skyset reads {FORMAT!r}")
    return values


def raw_values(root: str | Path) -> dict:
    """``manifest.json`` of a folder or of a remote root, of whatever format; OSError or ValueError: it cannot be read."""
    return json.loads(_read_text(_where(root)))


def _described(column: Column) -> dict:
    """All of a column but the estimate that a build plans with: the files tell."""
    return {name: value for name, value in dataclasses.asdict(column).items() if name != "typical_bytes"}


def _read_text(where: str) -> str:
    if "://" not in where:
        if os.path.exists(where) and not os.path.isfile(where):
            raise OSError("not a regular file")  # a named pipe would be waited at
        _check_length(os.path.getsize(where))
        return Path(where).read_text()
    from skyset import remote

    return remote.read_whole(where, LARGEST).decode()


def _check_length(size: int) -> None:
    if size > LARGEST:
        raise OSError(f"it has {size:,} bytes, more than {LARGEST:,}")


def keys_digest(keys: Sequence[str]) -> str:
    """Digest of the rows' keys in their order: tells whether a file holds what is wanted without opening it."""
    return short_digest("\n".join(keys))


def describe_file(root: Path, path: str, survey: Survey, split: str) -> FileEntry:
    """The manifest's entry for a partition, from the file itself.

    Raises:
        PartitionError: the file is not a partition of this survey.
    """
    wanted = [survey.column(name) for name in ("ra", "dec", survey.key)]
    with Partition(root / path, wanted) as partition:
        keys = partition.text(survey.key)
        ra, dec = (partition.read(name) for name in ("ra", "dec"))
    return FileEntry(
        path=path,
        split=split,
        healpix=cell_of_path(path),
        rows=len(keys),
        bytes=(root / path).stat().st_size,
        sha256=file_sha256(root / path),
        keys=keys_digest(keys),
        ra=(float(ra.min()), float(ra.max())),
        dec=(float(dec.min()), float(dec.max())),
    )


def grouped(files: Iterable[FileEntry], size: int, most: int = 1 << 30) -> Iterator[list[FileEntry]]:
    """Files that follow each other, of so many bytes together (one file has more), and no more than ``most``."""
    group: list[FileEntry] = []
    left = size
    for entry in files:
        group.append(entry)
        left -= entry.bytes
        if left < 0 or len(group) == most:
            yield group
            group, left = [], size
    if group:
        yield group


def split_folders(root: Path) -> list[Path]:
    """Where partitions of ``root`` may lie: itself and its subfolders, but for those that are datasets (configs) as well."""
    below = (path for path in root.glob("*/") if not (path / MANIFEST).exists() and not (path / JOURNAL).exists())
    return [root, *(path for path in below if not path.name.startswith("healpix="))]


def partition_files(root: Path) -> list[str]:
    """Relative paths of the partition files that lie under ``root``, listed or not."""
    found = [path for folder in split_folders(root) for path in folder.glob(f"healpix=*/*{SUFFIX}")]
    return sorted(path.relative_to(root).as_posix() for path in found if not path.name.startswith("."))
