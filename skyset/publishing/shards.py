"""Which partitions go into which Parquet file: in HEALPix order, of about equal bytes, the same after a survey has grown.

Files end at a partition that its own name chooses, so that what is added or changed in one place of the sky moves no end
elsewhere: a second push sends the files that it concerns and no others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from skyset.partitions.manifest import FileEntry, Manifest

#: Bytes of the partitions of a file, about: few requests for who reads them all, and little to send again.
SHARD_BYTES = 256 << 20
#: The Hub takes 10,000 entries in a folder.
MOST_IN_FOLDER = 9000


@dataclass(frozen=True)
class Shard:
    """One Parquet file to be made.

    Args:
        path: in the repository, ``data/default/train/healpix-0117.parquet``: named after its first cell.
        config: the survey's dataset.
        split: of its rows.
        files: the partitions, in HEALPix order.
        made_of: digest of their contents and of how they are written: equal means an equal file.
        cells: of the sky that its rows lie in.
    """

    path: str
    config: str
    split: str
    files: tuple[FileEntry, ...]
    made_of: str
    cells: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(entry.rows for entry in self.files)

    @property
    def bytes(self) -> int:
        """Of its partitions; the file has fewer as a rule."""
        return sum(entry.bytes for entry in self.files)


def planned(
    manifest: Manifest,
    how: str,
    shard_bytes: int = SHARD_BYTES,
    cells: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> list[Shard]:
    """The Parquet files of a dataset.

    Args:
        manifest: its partitions.
        how: all that decides how rows are written.
        shard_bytes: of the partitions of a file, about; larger where a folder would have too many files.
        cells: by path the cells of a file's rows, where these are others than the manifest's.
    """
    return [
        shard
        for split, files in manifest.splits.items()
        for shard in _of_split(
            manifest, split, sorted(files, key=lambda entry: (entry.healpix, entry.path)), how, shard_bytes, cells
        )
    ]


def _of_split(
    manifest: Manifest,
    split: str,
    files: Sequence[FileEntry],
    how: str,
    shard_bytes: int,
    cells: Mapping[str, Sequence[int]],
) -> list[Shard]:
    while len(cut := list(runs(files, shard_bytes))) > MOST_IN_FOLDER:
        shard_bytes *= 2
    seen: Counter[int] = Counter()
    digits, shards = len(str(12 * manifest.nside**2 - 1)), []
    for run in cut:
        own = sorted({cell for entry in run for cell in cells.get(entry.path, (entry.healpix,))})
        cell = max(0, run[0].healpix)
        seen[cell] += 1
        name = f"healpix-{cell:0{digits}d}" + (f"-{seen[cell]:03d}" if seen[cell] > 1 else "")
        made_of = hashlib.sha256("\n".join([how, *(entry.sha256 for entry in run)]).encode()).hexdigest()
        path = f"data/{manifest.config}/{split}/{name}.parquet"
        shards.append(Shard(path, manifest.config, split, tuple(run), made_of, tuple(own)))
    return shards


def runs(files: Sequence[FileEntry], size: int) -> Iterator[list[FileEntry]]:
    """Runs of half to one and a half times ``size``: of the places where one may end it takes that of the least digest."""
    start = 0
    while start < len(files):
        total, stop, best = 0, start, None
        while stop < len(files) and (total + files[stop].bytes <= size * 3 // 2 or stop == start):
            total += files[stop].bytes
            stop += 1
            if total >= size // 2 and (best is None or _digest(files[stop - 1]) < _digest(files[best - 1])):
                best = stop
        if stop == len(files) or best is None:
            best = stop
        yield list(files[start:best])
        start = best


def _digest(entry: FileEntry) -> bytes:
    return hashlib.sha256(entry.path.encode()).digest()
