"""Build Galaxy Zoo: 3D partitions from the SDSS archive, or from a folder of its files.

    python build_scripts/gz3d/build_parent_sample.py --tiny -o data/gz3d        # the first 5 objects
    skyset build gz3d -o data/gz3d                                              # all 29,813: 8 GB to download, 58 GB on disk
    skyset build gz3d --local_data_path ~/gz3d_fits -o data/gz3d

Stop it at any moment (Ctrl-C, kill, a full disk): the same command goes on from what is complete.
"""

import argparse
import contextlib
import functools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from skyset.archives.fetch import Fetcher
from skyset.archives.listing import listing
from skyset.build_scripts.gz3d.records import read_record
from skyset.build_scripts.gz3d.targets import (
    Target,
    archive_checksums,
    file_key,
    local_checksums,
    read_metadata,
    scan_files,
    sha1_of,
)
from skyset.building.build import build
from skyset.building.options import Options
from skyset.building.script import Script, run_as_file
from skyset.building.task import Found, Item, Rejected
from skyset.errors import RecordError, UserError
from skyset.loaders.gz3d import METADATA, SURVEY
from skyset.sky import check_position, healpix_cell

SUFFIX = ".fits.gz"


def _size(path: Path) -> int | None:
    """None of a link that leads nowhere."""
    with contextlib.suppress(OSError):
        return path.stat().st_size


def find_items(options: Options, network: Fetcher | None, cut: float) -> Found:
    """The objects to build, each once, and those that cannot be; positions come before any pixel is fetched."""
    rejected: list[Rejected] = []
    if network is None:
        candidates = local_candidates(options, rejected)
    else:
        candidates = archive_candidates(options.base_url, network, rejected)
    chosen = list(select(candidates, cut, options.limit, rejected))
    if not chosen and not rejected:
        raise UserError(f"nothing to build: no galaxy passes --vote_fraction_cut {cut}")
    cells = healpix_cell([target.ra for target, *_ in chosen], [target.dec for target, *_ in chosen])
    listed = {} if network else local_checksums(options.local_data_path)
    items = [
        Item(target.key, file, cell, sha1 and f"sha1:{sha1}", made_of=listed.get(Path(file).name))
        for (target, file, sha1), cell in zip(chosen, cells.tolist(), strict=True)
    ]
    return Found(items, rejected)


#: An object that may be built: its catalogue entry, its file, and the file's SHA-1 where it is known.
Candidate = tuple[Target, str, str | None]


def select(candidates: Iterable[Candidate], cut: float, limit: int | None, rejected: list[Rejected]) -> Iterator[Candidate]:
    """The first ``limit`` candidates that pass the cut, without duplicates and impossible positions."""
    keys, checksums, count = {}, {}, 0
    for target, file, sha1 in candidates:
        twin = keys.get(target.key) or checksums.get(sha1)
        keys.setdefault(target.key, file)
        if sha1:
            checksums.setdefault(sha1, file)
        try:
            if twin:
                raise RecordError(f"duplicate of {Path(twin).name}")
            check_position(target.ra, target.dec)
        except RecordError as error:
            rejected.append(Rejected(target.key, file, str(error)))
            continue
        if target.passes(cut):
            yield target, file, sha1
            count += 1
            if count == limit:
                return


def archive_candidates(base_url: str, network: Fetcher, rejected: list[Rejected]) -> Iterator[Candidate]:
    """What the archive's table names, in its order, with the files and checksums that its lists give."""
    checksums = archive_checksums(base_url, network)
    names = [name for name in checksums if name.endswith(SUFFIX)] or listing(network, base_url, SUFFIX)
    files = {file_key(name): name for name in reversed(names)}
    with tempfile.TemporaryDirectory() as folder:
        sha1 = checksums.get(METADATA)
        path = network.fetch(base_url + METADATA, Path(folder) / METADATA, sha1 and f"sha1:{sha1}")
        targets = read_metadata(path)
    known = {target.key for target in targets}
    reason = f"not in {METADATA}: its position is not known"
    rejected.extend(Rejected(key, file, reason) for key, file in files.items() if key not in known)
    rejected.extend(
        Rejected(file_key(name), name, f"duplicate of {files[file_key(name)]}")
        for name in names
        if files[file_key(name)] != name
    )
    for target in targets:
        if target.key in files:
            yield target, files[target.key], checksums.get(files[target.key])
        else:
            rejected.append(Rejected(target.key, "", f"in {METADATA}, but the archive has no such file"))


def local_candidates(options: Options, rejected: list[Rejected]) -> Iterator[Candidate]:
    """The files of a folder: those its ``gz3d_metadata.fits`` lists first, then the others by their own tables."""
    folder = options.local_data_path
    if not folder.is_dir():
        raise UserError(f"--local_data_path {folder} is not a folder")
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise UserError(f"no *{SUFFIX} in {folder}")
    targets = read_metadata(folder / METADATA) if (folder / METADATA).exists() else []
    files = {file_key(path.name): path for path in reversed(paths)}
    known = {target.key for target in targets}
    unlisted = [path for path in paths if file_key(path.name) not in known or files[file_key(path.name)] != path]
    sizes = {_size(path) for path in unlisted}
    for target in targets:
        if path := files.get(target.key):
            twin_possible = _size(path) in sizes
            yield target, str(path), sha1_of(path) if twin_possible else None
    for path, (target, sha1) in scan_files(unlisted, options.num_processes):
        if isinstance(target, Target):
            yield target, str(path), sha1
        else:
            rejected.append(Rejected(file_key(path.name), str(path), target))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The option of this survey."""
    parser.add_argument(
        "--vote_fraction_cut",
        type=float,
        default=0.0,
        metavar="F",
        help="only galaxies whose bar or spiral has at least this fraction of the votes (default: all galaxies)",
    )


def build_gz3d(asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Build what was asked for; returns the exit status."""
    find = functools.partial(find_items, cut=asked.vote_fraction_cut)
    return build(SURVEY, read_record, options, find, command)


SCRIPT = Script(__doc__, SURVEY, build_gz3d, add_options, raw="fits")
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("skyset.build_scripts.gz3d.build_parent_sample")
