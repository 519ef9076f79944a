"""One Parquet file as a list says it is: its bytes, its checksum, and its columns with their types and units."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from skyset import remote
from skyset.messages import plain
from skyset.partitions.layout import SLAB_BYTES
from skyset.partitions.parquet_file import DAMAGE
from skyset.survey import Column

#: Of the rows that a line names.
_EXAMPLES = 3
#: What Arrow calls by other names than `datasets` and numpy.
_NUMPY = {"halffloat": "float16", "float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Listed:
    """A file, and what the list says of it; None where nothing is said.

    Args:
        path: below the root.
        rows, bytes, sha256: of the file, the checksum hexadecimal.
    """

    path: str
    rows: int | None = None
    bytes: int | None = None
    sha256: str | None = None


def examples(names: Sequence[object]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return ", ".join(plain(name, 60) for name in names[:_EXAMPLES]) + more


def rows_are(count: int) -> str:
    """``1 row is``, ``2 rows are``."""
    return f"{count:,} row is" if count == 1 else f"{count:,} rows are"


@contextlib.contextmanager
def source_of(root: str, path: str) -> Iterator:
    """A file below a folder or URL, open for reading bytes; OSError of one line where it cannot be."""
    where = f"{root.rstrip('/')}/{path}"
    if "://" not in where:
        if os.path.exists(where) and not os.path.isfile(where):
            raise OSError("is no regular file")
        with open(where, "rb") as file:
            yield file
        return
    with remote.os_errors():
        system, name = remote.opened(where)
        with system.open(name, "rb", block_size=SLAB_BYTES, cache_type="readahead") as file:
            yield file


@contextlib.contextmanager
def damage_told(path: str, lines: list[str]) -> Iterator[None]:
    """Whatever is wrong with a file, as a line that names it: what follows goes on with the next one."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        lines.append(f"{path}: missing")
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        lines.append(f"{path}: cannot be read: {plain(reason.strip().splitlines()[0], 200)}")


def bytes_differences(root: str, listed: Listed, said_by: str) -> Iterator[str]:
    """Whether a file has the size and the SHA-256 that its list says.

    Raises:
        OSError: it cannot be read.
    """
    with source_of(root, listed.path) as file:
        size = file.seek(0, os.SEEK_END)
        if listed.bytes is not None and size != listed.bytes:
            yield f"{listed.path}: {size} bytes, {said_by} says {listed.bytes}"
        elif listed.sha256 is not None:
            file.seek(0)
            digest = hashlib.sha256()
            while data := file.read(SLAB_BYTES):
                digest.update(data)
            if (found := digest.hexdigest()) != listed.sha256:
                yield f"{listed.path}: SHA-256 is {found[:12]}..., {said_by} says {listed.sha256[:12]}..."


@dataclass(frozen=True)
class Bytes:
    """What was found where all bytes of a file are read.

    Args:
        lines: of its size and checksum; where ``gone``, that it cannot be read.
        gone: whether it cannot be read.
        undecoded: why its pages cannot be decoded, where no checksum is known.
    """

    lines: tuple[str, ...]
    gone: bool = False
    undecoded: tuple[str, ...] = ()


def look_at_bytes(root: str, said_by: str, listed: Listed) -> Bytes:
    """All that there is to say of a file's bytes: what takes long, and needs nothing of other files."""
    lines: list[str] = []
    gone = True
    with damage_told(listed.path, lines):
        lines += bytes_differences(root, listed, said_by)
        gone = False
    if gone:
        return Bytes(tuple(lines), gone)
    undecoded: list[str] = []
    if listed.sha256 is None:
        with damage_told(listed.path, undecoded), opened(root, listed.path) as file:
            read_everything(file)
    return Bytes(tuple(lines), gone, tuple(undecoded))


@contextlib.contextmanager
def opened(root: str, path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, open; one of ``DAMAGE`` where it is none."""
    with source_of(root, path) as source, pq.ParquetFile(source) as file:
        yield file


def read_everything(file: pq.ParquetFile) -> None:
    """Decode all pages, a row group at a time: of a file without a checksum, that tells whether it is whole."""
    for group in range(file.num_row_groups):
        file.read_row_group(group)


def schema_differences(path: str, found: pa.Schema, expected: pa.Schema, said_by: str) -> Iterator[str]:
    """Columns that are missing or too many, of another dtype, shape or unit, or in another order.

    Args:
        path: the file's, for the lines.
        found: its schema.
        expected: that of ``said_by``.
        said_by: what says so.
    """
    yield from (f"{path}: column {name!r} is missing" for name in expected.names if name not in found.names)
    yield from (
        f"{path}: column {name!r} is nothing that {said_by} says" for name in found.names if name not in expected.names
    )
    common = [name for name in expected.names if name in found.names]
    if [name for name in found.names if name in common] != common:
        yield f"{path}: its columns are in another order than {said_by} says"
    for name in common:
        ours, theirs = found.field(name), expected.field(name)
        if (one := dtype_and_shape(ours.type)) != (other := dtype_and_shape(theirs.type)):
            yield f"{path}: column {name} is {_told(one)}, {said_by} says {_told(other)}"
        elif not pa.types.is_struct(theirs.type) and not ours.type.equals(theirs.type):
            yield f"{path}: column {name} is stored as {plain(ours.type, 80)}, {said_by} says {plain(theirs.type, 80)}"
        if (unit := _unit(ours)) != _unit(theirs):
            yield f"{path}: the unit of {name} is {unit!r}, {said_by} says {_unit(theirs)!r}"


def _unit(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")


def dtype_and_shape(kind: pa.DataType) -> tuple[str, tuple]:
    """``("uint8", (64, 64, 3))`` of whatever form an array has; of plain lists a length is None."""
    shape: list[int | None] = []
    while True:
        if isinstance(kind, pa.FixedShapeTensorType):
            shape, kind = [*shape, *kind.shape], kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            if hasattr(kind, "shape"):
                return str(kind.value_type), tuple(kind.shape)
            kind = kind.storage_type
        elif pa.types.is_fixed_size_list(kind):
            shape, kind = [*shape, kind.list_size], kind.value_type
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            shape, kind = [*shape, None], kind.value_type
        elif pa.types.is_struct(kind):
            fields = ((field.name, *dtype_and_shape(field.type)) for field in kind)
            return f"struct<{', '.join(f'{name}: {dtype}{list(sides)}' for name, dtype, sides in fields)}>", tuple(shape)
        else:
            return _NUMPY.get(str(kind), str(kind)), tuple(shape)


def _told(found: tuple[str, tuple]) -> str:
    dtype, shape = found
    return plain(
        f"{dtype} {tuple('?' if side is None else side for side in shape)}".replace("'", "") if shape else dtype, 120
    )


def column_differences(where: str, found: Sequence[Column], expected: Sequence[Column], said_by: str) -> Iterator[str]:
    """How a list of columns differs from another in dtypes, shapes and units."""
    theirs = {column.name: column for column in expected}
    names = {column.name for column in found}
    yield from (f"{where}: column {name!r} is missing" for name in theirs if name not in names)
    for column in found:
        if (other := theirs.get(column.name)) is None:
            yield f"{where}: column {column.name!r} is nothing that {said_by} says"
            continue
        for what in ("dtype", "shape", "unit"):
            if (ours := getattr(column, what)) != (wanted := getattr(other, what)):
                yield f"{where}: the {what} of {column.name} is {ours!r}, {said_by} says {wanted!r}"
