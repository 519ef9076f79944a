"""What is known of the objects of Galaxy Zoo: 3D before their pixels are read: the archive's lists, the files' tables."""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skyset.archives.checksums import read_checksums
from skyset.archives.fetch import Fetcher, FetchError
from skyset.build_scripts.gz3d.records import COUNTS, read_table, vote_fractions
from skyset.errors import RecordError, UserError
from skyset.loaders.gz3d import CHECKSUMS
from skyset.progress import progress_bar
from skyset.raw import open_fits, open_regular
from skyset.runner import executor, in_order


@dataclass(frozen=True)
class Target:
    """What the catalogue knows of an object before its pixels are read; position in degrees."""

    key: str
    ra: float
    dec: float
    total: int
    bar: int
    spiral: int

    def passes(self, cut: float) -> bool:
        """Whether the spiral or the bar has at least this fraction of the votes; a cut of 0 lets everything pass."""
        return cut <= 0 or max(vote_fractions(self.total, self.spiral, self.bar)[2:]) >= cut


def file_key(name: str) -> str:
    """``1-106630_127_14715787`` of a file's name or path, with or without ``gz3d_`` and extensions."""
    return Path(name.strip()).name.removesuffix(".gz").removesuffix(".fits").removeprefix("gz3d_")


def read_metadata(path: Path) -> list[Target]:
    """The archive's table of all objects (``gz3d_metadata.fits``), in its order."""
    needed = ("file_name", "ra", "dec", *COUNTS)
    try:
        with open_fits(path) as hdus:
            if len(hdus) < 2 or getattr(hdus[1], "columns", None) is None:
                raise RecordError("HDU 1 is not a table")
            table = {name.lower(): hdus[1].data[name] for name in hdus[1].columns.names}
            if missing := [name for name in needed if name not in table]:
                raise RecordError(f"HDU 1 has no column {', '.join(missing)}")
            rows = zip(*(table[name].tolist() for name in needed), strict=True)
            return [Target(file_key(name), float(ra), float(dec), *counts) for name, ra, dec, *counts in rows]
    except RecordError as error:
        raise UserError(f"{path.name} cannot be used: {error}") from error


def sha1_of(path: Path) -> str | None:
    """None where the file cannot be read: the build will say so."""
    with contextlib.suppress(OSError), open_regular(path) as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def scan_file(path: Path) -> tuple[Target | str, str | None]:
    """The target of a file that no table lists, and the file's SHA-1; or why it cannot be used."""
    try:
        with open_fits(path) as hdus:
            row = read_table(hdus)
            position = float(row["ra"]), float(row["dec"])
            target = Target(file_key(path.name), *position, *(row[name] for name in COUNTS))
    except RecordError as error:
        return str(error), None
    return target, sha1_of(path)


def scan_files(paths: list[Path], processes: int) -> Iterator[tuple[Path, tuple[Target | str, str | None]]]:
    """``scan_file`` of each path, in order, in processes, few of them ahead."""
    few = len(paths) <= 64 * processes
    with executor(1 if few else processes) as pool:
        yield from in_order(pool, scan_file, progress_bar(paths, desc="positions", disable=few))


def archive_checksums(base_url: str, network: Fetcher) -> dict[str, str]:
    """SHA-1 by file name; empty, with a warning, where the archive publishes none."""
    try:
        return read_checksums(network.text(base_url + CHECKSUMS))
    except FetchError as error:
        if not error.reason.startswith("404"):
            raise
        print(f"no {CHECKSUMS} at {base_url}: downloads can be checked by their length only", file=sys.stderr)
        return {}
    except ValueError as error:
        raise UserError(f"{base_url}{CHECKSUMS}: {error}") from error


def local_checksums(folder: Path) -> dict[str, str]:
    """``"sha1:<hex>"`` by file name as the folder's copy of the archive's list has them; they tell of files that changed."""
    with contextlib.suppress(OSError, ValueError):
        return {name: f"sha1:{sha1}" for name, sha1 in read_checksums((folder / CHECKSUMS).read_text("utf-8")).items()}
    return {}
