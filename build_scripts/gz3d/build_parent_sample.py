"""Build Galaxy Zoo: 3D partitions from the SDSS archive, or from a folder of its files.

    python build_scripts/gz3d/build_parent_sample.py --tiny -o data/gz3d        # the first 5 objects
    skyset build gz3d -o data/gz3d                                              # all 29,813: 8 GB to download, 58 GB on disk
    skyset build gz3d --local_data_path ~/gz3d_fits -o data/gz3d

Stop it at any moment (Ctrl-C, kill, a full disk): the same command goes on from what is complete.
"""

import contextlib
import functools
import hashlib
import sys
import tempfile
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyset import headers
from skyset.archives.checksums import read_checksums
from skyset.archives.fetch import Fetcher
from skyset.archives.fetch import FetchError
from skyset.archives.listing import listing
from skyset.building.build import build
from skyset.building.options import BuildParser
from skyset.building.options import Options
from skyset.building.runner import executor
from skyset.building.task import Found
from skyset.building.task import Item
from skyset.building.task import Rejected
from skyset.command_line import main as run
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.loaders.gz3d import CHECKSUMS
from skyset.loaders.gz3d import CLASSES
from skyset.loaders.gz3d import METADATA
from skyset.loaders.gz3d import SIZE
from skyset.loaders.gz3d import SURVEY
from skyset.progress import progress_bar
from skyset.raw import open_fits
from skyset.raw import open_regular
from skyset.sky import check_position
from skyset.sky import healpix_cell
from skyset.values import as_stored

SUFFIX = ".fits.gz"
TABLE_HDU = 5
_TEXT = ("mangaid", "iauname", "explorer_link", "sample")
_INTEGERS = ("ifudesignsize", "manga_tileid", "nsa_id")
_COUNTS = ("gz_total_classifications", "gz_bar_votes", "gz_spiral_votes")


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


def vote_fractions(total: int, spiral: int, bar: int) -> list[float]:
    """Fractions for center, star, spiral, bar: -1 where there is no vote to take, -0.5 where nobody classified."""
    if total == 0:
        return [-1.0, -1.0, -0.5, -0.5]
    return [-1.0, -1.0, spiral / total, bar / total]


def read_record(path: Path) -> dict:
    """One GZ3D FITS file as the survey's columns (all but the row's key and cell).

    The tables inside are believed, the file's name is not.

    Raises:
        RecordError: an HDU or a column is missing, pixels have another size, a count does not fit into uint8.
    """
    with open_fits(path) as hdus:
        values = read_table(hdus)
        values["false_color"] = read_image(hdus[0].data)
        for number, name in enumerate(CLASSES, 1):
            values[name] = read_mask(hdus[number].data, f"HDU {number} ({name})")
        values.update(read_wcs(hdus[1].header, hdus[0].header))
    votes = values["gz_spiral_votes"], values["gz_bar_votes"]
    values["vote_fraction"] = np.array(vote_fractions(values["gz_total_classifications"], *votes), np.float32)
    return values | {"object_id": values["mangaid"]}


def read_table(hdus) -> dict:
    """The one-row metadata table; names in any case. Numbers that are missing or NaN become -1, but counts must be there."""
    if len(hdus) <= TABLE_HDU:
        raise RecordError(f"HDU {len(hdus)} is missing: {len(hdus)} HDUs, at least {TABLE_HDU + 1} expected")
    hdu = hdus[TABLE_HDU]
    if getattr(hdu, "columns", None) is None or hdu.data is None or len(hdu.data) != 1:
        raise RecordError(f"HDU {TABLE_HDU} is not a table of one row")
    row = {name.lower(): hdu.data[name][0] for name in hdu.columns.names}
    needed = ("ra", "dec", "mangaid", *_COUNTS)
    if missing := [name for name in needed if name not in row]:
        raise RecordError(f"HDU {TABLE_HDU} has no column {', '.join(missing)}")
    values = {name: str(row.get(name, "")).strip() for name in _TEXT}
    values.update({name: _integer(row.get(name, -1)) for name in _INTEGERS})
    for name in _COUNTS:
        values[name] = _integer(row[name])
        if values[name] < 0:
            raise RecordError(f"HDU {TABLE_HDU}: {name} is {row[name]}")
    return values | {"ra": np.float32(row["ra"]), "dec": np.float32(row["dec"])}


def _integer(value) -> int:
    return int(value) if np.isfinite(value) else -1


def read_image(data: np.ndarray | None) -> np.ndarray:
    """The cutout as uint8 (SIZE, SIZE, 3), from channels last or channels first."""
    shape = None if data is None else data.shape
    if shape == (3, SIZE, SIZE):
        data = np.moveaxis(data, 0, 2)
    elif shape != (SIZE, SIZE, 3):
        raise RecordError(f"HDU 0 (image) has shape {shape}, not {(SIZE, SIZE, 3)} or {(3, SIZE, SIZE)}")
    return as_stored("HDU 0 (image)", data, np.dtype(np.uint8))


def read_mask(data: np.ndarray | None, where: str) -> np.ndarray:
    """A mask of volunteers' counts as uint8 (SIZE, SIZE)."""
    shape = None if data is None else data.shape
    if shape != (SIZE, SIZE):
        raise RecordError(f"{where} has shape {shape}, not {(SIZE, SIZE)}")
    return as_stored(where, data, np.dtype(np.uint8))


def read_wcs(*hdu_headers) -> dict:
    """Columns wcs_* and scale (degrees a pixel) of the first header that has a celestial WCS."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    for header in hdu_headers:
        if "CTYPE1" in header:
            made = headers.sky(header)
            if made is None:
                raise RecordError("a number of the WCS is none")
            wcs = WCS(made, naxis=2)
            return {
                "wcs_crpix": np.array(wcs.wcs.crpix),
                "wcs_crval": np.array(wcs.wcs.crval),
                "wcs_cd": np.array(wcs.pixel_scale_matrix),
                "scale": float(proj_plane_pixel_scales(wcs).mean()),
            }
    raise RecordError("neither HDU 1 nor HDU 0 has a WCS")


def read_metadata(path: Path) -> list[Target]:
    """The archive's table of all objects (``gz3d_metadata.fits``), in its order."""
    needed = ("file_name", "ra", "dec", *_COUNTS)
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


def _sha1(path: Path) -> str | None:
    """None where the file cannot be read: the build will say so."""
    with contextlib.suppress(OSError), open_regular(path) as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def _size(path: Path) -> int | None:
    """None of a link that leads nowhere."""
    with contextlib.suppress(OSError):
        return path.stat().st_size


def scan_file(path: Path) -> tuple[Target | str, str | None]:
    """The target of a file that no table lists, and the file's SHA-1; or why it cannot be used."""
    try:
        with open_fits(path) as hdus:
            row = read_table(hdus)
            position = float(row["ra"]), float(row["dec"])
            target = Target(file_key(path.name), *position, *(row[name] for name in _COUNTS))
    except RecordError as error:
        return str(error), None
    return target, _sha1(path)


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
            yield target, str(path), _sha1(path) if twin_possible else None
    for path, (target, sha1) in scan_files(unlisted, options.num_processes):
        if isinstance(target, Target):
            yield target, str(path), sha1
        else:
            rejected.append(Rejected(file_key(path.name), str(path), target))


def scan_files(paths: list[Path], processes: int) -> Iterator[tuple[Path, tuple[Target | str, str | None]]]:
    """``scan_file`` of each path, in order, in processes, not further ahead than a few hundred files."""
    batch = 64 * processes
    with executor(processes if len(paths) > batch else 1) as pool:
        for start in progress_bar(range(0, len(paths), batch), desc="positions", disable=len(paths) <= batch):
            some = paths[start : start + batch]
            yield from zip(some, pool.map(scan_file, some), strict=True)


def parser(program: str | None = None) -> BuildParser:
    """The command line."""
    known = BuildParser(program, __doc__, SURVEY, raw="fits")
    known.add_argument(
        "--vote_fraction_cut", type=float, default=0.0, metavar="F",
        help="only galaxies whose bar or spiral has at least this fraction of the votes (default: all galaxies)",
    )  # fmt: skip
    return known


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Command line; returns the exit status (0, or 1 where objects were rejected, or 2 where nothing can be built)."""
    known = parser(program)
    parsed = known.parse_args(arguments)
    find = functools.partial(find_items, cut=parsed.vote_fraction_cut)
    command = [known.prog, *(sys.argv[1:] if arguments is None else arguments)]
    return run(lambda: build(SURVEY, read_record, Options.from_arguments(parsed), find, command))


if __name__ == "__main__":
    # The installed module, not __main__: worker processes must be able to import the functions they are sent.
    from skyset.build_scripts.gz3d.build_parent_sample import main

    sys.exit(main())
