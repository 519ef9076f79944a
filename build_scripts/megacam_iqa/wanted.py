"""Step 1 as the build needs it: which exposures, by what each is known, and how its file comes."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skyset.archives.cadc import ExposureFile, Services, fetch_exposure, find_exposures
from skyset.archives.fetch import Fetcher
from skyset.build_scripts.megacam_iqa.frames import exposure
from skyset.build_scripts.megacam_iqa.labels import Labels
from skyset.building.downloads import RAW, Downloads
from skyset.building.exposures import exposures_asked
from skyset.building.options import Options
from skyset.building.task import Rejected
from skyset.errors import RecordError, UserError
from skyset.secrets import without_login

SUFFIXES = (".fits", ".fits.fz", ".fits.gz", ".fit", ".fit.gz")


@dataclass(frozen=True)
class Wanted:
    """An exposure.

    Attributes:
        fits_id: its name.
        file: its path or address, for people.
        contents: what tells that it is another file.
        there: gives its path for as long as a ``with`` block lasts; RecordError where it cannot be had.
    """

    fits_id: str
    file: str
    contents: str
    there: Callable[[], contextlib.AbstractContextManager[Path]]


def local(folder: Path, ids: Sequence[str] = ()) -> tuple[list[Wanted], list[Rejected]]:
    """The exposures in a folder, by name; those that are none, or are there twice, are rejected.

    Raises:
        UserError: there is no such folder, none in it, or not one of ``ids``.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    named = (path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES))
    paths = sorted(path for path in named if path.is_file() or not path.exists())  # a link that leads nowhere is told
    wanted: dict[str, Wanted] = {}
    rejected = []
    for path in paths:
        try:
            name = exposure(path).fits_id
        except RecordError as error:
            rejected.append(Rejected(path.name.partition(".")[0] or path.name, str(path), _without(path, error)))
            continue
        status = path.stat()
        if name in wanted:
            rejected.append(Rejected(name, str(path), f"the exposure is there already, in {Path(wanted[name].file).name}"))
        elif not ids or name in ids or name[:-1] in ids:
            contents = f"{path.name} {status.st_size} {status.st_mtime_ns}"
            wanted[name] = Wanted(name, str(path), contents, lambda path=path: contextlib.nullcontext(path))
    if missing := [each for each in ids if not any(each in (name, name[:-1]) for name in wanted)]:
        raise UserError(f"{folder} has no {', '.join(missing[:5])}")
    if not wanted and not rejected:
        raise UserError(f"{folder} has no exposure: files end in {', '.join(SUFFIXES[:3])}")
    return list(wanted.values()), rejected


def _without(path: Path, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def from_archive(asked: argparse.Namespace, options: Options, labels: Labels, network: Fetcher) -> list[Wanted]:
    """The exposures at CADC that were asked for; where nothing was said but labels, those that have one.

    Raises:
        UserError: nothing was asked for; or what the archive's services raise.
    """
    said = exposures_asked(asked, asked.limit)
    if not (said.ids or said.adql or said.programs or said.dates or said.filters):
        names = tuple(name for name in labels.names() if name.isdigit())
        if not names:
            raise UserError("which exposures? --ids, --program, --dates, --filter, --adql, --labels or --local_data_path")
        said = replace(said, ids=names)
    root = options.output_dir
    files = find_exposures(
        said, root / "catalog", asked.archive_url, datalink=asked.datalink, sync=asked.sync, fetcher=network
    )
    downloads = Downloads(root, options.keep_raw)
    return [
        Wanted(
            file.fits_id,
            without_login(file.url or file.publisher_id or asked.archive_url),
            file.checksum or f"{file.uri} {file.bytes}",
            lambda file=file: _fetched(file, root, network, downloads),
        )
        for file in files
    ]


@contextlib.contextmanager
def _fetched(file: ExposureFile, root: Path, network: Fetcher, downloads: Downloads) -> Iterator[Path]:
    """A file of the archive; it goes at the end unless it was there or is to be kept, also where it cannot be used."""
    path = root / RAW / file.name
    if not file.problem:
        downloads.expect(path)
    try:
        yield fetch_exposure(file, root / RAW, network)
        downloads.remove(path)
    except RecordError as error:
        downloads.remove(path)
        raise RecordError(_without(path, error)) from error
    finally:
        downloads.close()


def sources_of(asked: argparse.Namespace) -> list[str]:
    """Where the exposures are from, for the manifest."""
    if asked.local_data_path is not None:
        return [str(asked.local_data_path)]
    return [Services.at(asked.archive_url).files]
