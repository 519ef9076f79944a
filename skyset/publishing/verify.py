"""What ``skyset verify`` makes of a folder that is none of partitions: pushed Parquet, or HATS, ours or anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from skyset.errors import UserError
from skyset.loading.hats import CATALOGUE, COLLECTION
from skyset.publishing.hats import NOTE
from skyset.publishing.source import Source, sources
from skyset.publishing.verify_hats import verify_hats
from skyset.publishing.verify_pushed import pushed_values, verify_pushed


def kind_of(where: str) -> str | None:
    """``pushed`` for a folder or URL of Parquet as `skyset push` makes it, ``hats`` for a local HATS folder, else None."""
    if "://" not in where:
        folder = Path(where).expanduser()
        if any((folder / name).is_file() for name in (COLLECTION, *CATALOGUE)):
            return "hats"
    return "pushed" if pushed_values(where) is not None else None


def verify_published(
    where: str,
    against: str | None = None,
    progress: Callable = iter,
    processes: int = 1,
    scheduler: str | None = None,
) -> Iterator[str]:
    """Every difference between published files and what is said of them beside them, a line each.

    Args:
        where: a folder, or of pushed Parquet a URL, of a kind that ``kind_of`` knows.
        against: folder or URL of the partitions that they were made of, whose values are compared row by row.
        progress: wraps the lists of files.
        processes, scheduler: that read all bytes and compare values, see `skyset.runner.executor`.

    Raises:
        UserError: ``against`` has no such dataset, or nothing here can be checked.
        PartitionError: a partition of ``against`` cannot be read.
    """
    finds = None if against is None else lambda survey, config: _source(against, survey, config)
    verify = verify_hats if kind_of(where) == "hats" else verify_pushed
    if "://" in where and pushed_values(where) is None:
        raise UserError(f"{where} has no Parquet that `skyset push` made: other folders are verified where they are local")
    if "://" not in where:
        where = str(Path(where).expanduser().absolute())
    return verify(where, finds, progress, processes, scheduler)


def looked_at(where: str) -> str:
    """What ``verify_published`` recomputes of a folder, in words."""
    if kind_of(where) == "hats" and not (Path(where).expanduser() / NOTE).is_file():
        return "every position and count as is said of it (of checksums nothing is known)"
    return "every checksum, position and count as is said of it"


def _source(against: str, survey: str, config: str) -> Source:
    found = sources(against)
    named = sorted({source.manifest.survey for source in found.values()})
    if named != [survey]:
        raise UserError(f"--against {against}: holds {', '.join(named)}, not {survey}")
    if config not in found:
        raise UserError(f"--against {against}: has no config {config!r}; it has {', '.join(found)}")
    return found[config].for_workers()
