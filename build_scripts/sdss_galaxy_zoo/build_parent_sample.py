"""Build SDSS Galaxy Zoo: catalogue by TAP, images by hips2fits, TAR archives, partitions.

    skyset build sdss_galaxy_zoo --tiny -o data/sdss              # the first 5 galaxies
    skyset build sdss_galaxy_zoo -o data/sdss                     # all: some 300,000 small images, 1 GB of TARs
    skyset build sdss_galaxy_zoo --catalog ZooSpecPhotoDR19.csv.gz -o data/sdss
    skyset build sdss_galaxy_zoo --from_tar data/sdss/Images -o data/sdss_again

Stop it at any moment (Ctrl-C, kill, a full disk): the same command goes on from what is complete, and asks again for the
images that failed. Beside the partitions it leaves ZooSpecPhotoDR19_filtered.csv.gz, the catalogue after the cuts;
Images/*.tar with 1,000 images each and Images/Images_downloaded.csv.gz, which lists them; catalog/, the answers of the TAP
services.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from skyset.archives.hips import FORMATS
from skyset.archives.hips import MIRROR as HIPS_MIRROR
from skyset.archives.hips import SERVICE as HIPS_URL
from skyset.archives.hips import field_of_view
from skyset.archives.hips import hips2fits_url
from skyset.archives.image_pool import ImagePool
from skyset.archives.image_pool import ImageRequest
from skyset.archives.tap import SlicedQuery
from skyset.build_scripts.sdss_galaxy_zoo.catalog import CASJOBS
from skyset.build_scripts.sdss_galaxy_zoo.catalog import SCHEMA
from skyset.build_scripts.sdss_galaxy_zoo.catalog import TARGETS
from skyset.build_scripts.sdss_galaxy_zoo.catalog import VOTES
from skyset.build_scripts.sdss_galaxy_zoo.catalog import ZOOSPEC
from skyset.build_scripts.sdss_galaxy_zoo.catalog import Source
from skyset.build_scripts.sdss_galaxy_zoo.catalog import columns_in
from skyset.build_scripts.sdss_galaxy_zoo.catalog import cuts
from skyset.build_scripts.sdss_galaxy_zoo.catalog import labels
from skyset.build_scripts.sdss_galaxy_zoo.catalog import rows_of
from skyset.building.build import build
from skyset.building.options import BuildParser
from skyset.building.options import Options
from skyset.building.options import positive_integer
from skyset.building.tars.read import TarError
from skyset.building.tars.read import index
from skyset.building.tars.read import read_sample
from skyset.building.tars.sink import TarSink
from skyset.building.tars.sink import numbered
from skyset.building.task import Found
from skyset.building.task import Item
from skyset.building.task import Rejected
from skyset.command_line import main as run
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.files import keep_inputs
from skyset.files import write_atomically
from skyset.loaders.sdss_galaxy_zoo import CATALOG
from skyset.loaders.sdss_galaxy_zoo import CLASSES
from skyset.loaders.sdss_galaxy_zoo import HIPS
from skyset.loaders.sdss_galaxy_zoo import MARGIN
from skyset.loaders.sdss_galaxy_zoo import SIZE
from skyset.loaders.sdss_galaxy_zoo import SURVEY
from skyset.loaders.sdss_galaxy_zoo import TAP_URL
from skyset.loaders.sdss_galaxy_zoo import VOTES_TAP_URL
from skyset.messages import say
from skyset.pixels import ImageError
from skyset.pixels import check_image
from skyset.pixels import decode
from skyset.progress import progress_bar
from skyset.secrets import without_login
from skyset.sky import check_position
from skyset.sky import healpix_cell
from skyset.survey import Column
from skyset.survey import Survey
from skyset.tables.cuts import Counts
from skyset.tables.cuts import apply
from skyset.tables.delimited_writer import write_csv
from skyset.tables.open import open_catalog

FILTERED = "ZooSpecPhotoDR19_filtered.csv.gz"
IMAGES = "Images"
SETTINGS = "Images_settings.json"
#: What a `TarSink` leaves in its folder beside the archives.
LISTED, FAILED = "Images_downloaded.csv.gz", "Images_failed.csv"
SLICES = "catalog"
#: Narrow slices where a few rows are wanted, so that nobody waits for five degrees of sky.
FEW_ROWS, NARROW_SLICES = 1000, 3600
TAP_RETRIES = 5
LARGEST_ANSWER = 8 << 20
#: Columns that are made here, and stand in a sample's JSON beside those of the catalogue.
MADE = tuple(SURVEY.column(name) for name in ("label", "fov", "pixel_scale"))


@dataclass(frozen=True)
class Cutout:
    """How the images are cut out; part of what the TARs are, so that a folder never holds two kinds."""

    hips: str = HIPS
    width: int = SIZE
    height: int = SIZE
    margin: float = MARGIN
    format: str = "jpg"

    def field_of_view(self, radius: float) -> float:
        """Degrees of the longer side for a galaxy of this petroR90_r, arcsec."""
        return field_of_view(radius, self.margin)

    def url(self, service: str, row: dict) -> str:
        fov = self.field_of_view(row["petroR90_r"])
        return hips2fits_url(service, self.hips, row["ra"], row["dec"], fov, self.width, self.height, self.format)


# --- one object ---------------------------------------------------------------------------------------------


def describe(row: dict, label: int, cutout: Cutout) -> dict:
    """What a sample's JSON holds: the catalogue's row, the label, and how the image was cut out."""
    fov = cutout.field_of_view(row["petroR90_r"])
    return row | {
        "object_id": str(row["objid"]),
        "label": label,
        "fov": fov,
        "pixel_scale": fov / max(cutout.width, cutout.height),
        "hips": cutout.hips,
    }


def read_record(path: Path, start: int, length: int) -> dict:
    """One sample of a TAR as the survey's columns (all but the row's key and cell).

    Raises:
        RecordError: the sample has no image or no catalogue row, or they cannot be used.
    """
    row, kind, image = read_row(path, start, length)
    values = {column.name: _value(row.get(column.name), column) for column in (*CATALOG, *MADE)}
    if values["label"] not in range(len(CLASSES)) or not (0 < values["fov"] < 180 and values["pixel_scale"] > 0):
        raise RecordError(f"label {values['label']}, fov {values['fov']}, pixel_scale {values['pixel_scale']} in its JSON")
    try:
        return values | {"image": decode(image, kind)}
    except ImageError as error:
        raise RecordError(str(error)) from error


def read_row(path: Path, start: int, length: int) -> tuple[dict, str, bytes]:
    """The catalogue's row, the image's kind and its bytes from one sample.

    Raises:
        RecordError: one of them is missing, or the image is not the one that the row was archived with.
    """
    try:
        members = read_sample(path, start, length)
        row = json.loads(members.pop("json", b"null"))
    except (TarError, ValueError, RecursionError) as error:
        raise RecordError(f"no catalogue row in its JSON: {error}") from error
    if not isinstance(row, dict):
        raise RecordError("no catalogue row in its JSON")
    kind = next((kind for kind in members if kind in FORMATS), None)
    if kind is None:
        raise RecordError(f"no image among {', '.join(members) or 'its members'}")
    if row.get("sha256", digest := hashlib.sha256(members[kind]).hexdigest()) != digest:
        raise RecordError("the image has changed since it was archived: its SHA-256 is another one")
    return row, kind, members[kind]


def _value(value, column: Column):
    """A value as it may stand in JSON; -1 or NaN where the catalogue has none."""
    is_integer = np.dtype(column.dtype).kind in "iu"
    if value is None and column.name not in ("ra", "dec", *(made.name for made in MADE)):
        return -1 if is_integer else np.nan
    if type(value) is int or (type(value) is float and not is_integer):
        with contextlib.suppress(OverflowError):
            return value if is_integer else float(value)
    raise RecordError(f"{column.name} is {str(value)[:40]!r} in its JSON, not of type {column.dtype}")


# --- the catalogue ------------------------------------------------------------------------------------------


def write_catalog(source: Source, path: Path, options: Options, selection: argparse.Namespace) -> tuple[Counts, int]:
    """Read the source, cut it, say how much each cut took and what is missing, write what is left.

    Returns:
        the counted cuts, and how many rows were written.
    """
    counts = Counts()
    path.parent.mkdir(exist_ok=True)
    fetching = {"connections": min(4, options.max_connections), "retries": TAP_RETRIES, "sync": selection.sync}
    batches = rows_of(source, path.parent, **fetching)
    with contextlib.closing(batches):
        first = next(batches, None)
        if first is None:
            raise UserError(f"no rows in {' and '.join(source.addresses)}")
        have = columns_in(first)
        limits = selection.max_error_gri, selection.max_error_uz, selection.min_debiased
        made, left_out = cuts(have, selection.classes, *limits)
        chosen = first_rows(apply(made, itertools.chain([first], batches), counts), options.limit)
        rows = write_csv(path, chosen, SCHEMA)
    console = Console(highlight=False)
    console.print(counts.table())
    if rows < counts.left:
        console.print(f"of these, the first {rows:,} are built")
    if absent := [column.name for column in CATALOG if column.name not in have]:
        console.print(f"the catalogue has no {', '.join(absent)}: they will be -1 or NaN")
    if left_out:
        console.print(f"for want of columns, there is no cut on: {', '.join(left_out)}")
    if not rows:
        raise UserError(f"nothing to build: no galaxy of {' and '.join(source.addresses)} passes the cuts")
    return counts, rows


def first_rows(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """As many rows as are wanted, and no batch is asked for beyond them."""
    for batch in batches:
        yield batch if limit is None else batch[:limit]
        if limit is not None and (limit := limit - batch.num_rows) <= 0:
            return


def catalog_rows(path: Path) -> Iterator[tuple[dict, int]]:
    """The rows of ``FILTERED`` with their labels; NaN is None, as JSON has it."""
    for batch in open_catalog(path).batches(rows=4096):
        columns = {name: pc.cast(batch[name], SCHEMA.field(name).type) for name in SCHEMA.names}
        batch = pa.RecordBatch.from_arrays(list(columns.values()), schema=SCHEMA)
        for row, label in zip(batch.to_pylist(), labels(batch).tolist(), strict=True):
            yield {name: None if value != value else value for name, value in row.items()}, label


# --- the images ---------------------------------------------------------------------------------------------


def download_images(catalog: Path, total: int, options: Options, asked: argparse.Namespace) -> dict[str, str]:
    """Fetch the image of each row that no TAR has yet.

    Returns:
        why there is none, by objid.

    Raises:
        UserError: the folder's images were cut out in another way, or the service is down.
    """
    folder, cutout = options.output_dir / IMAGES, cutout_of(asked)
    prepare(folder, cutout, options.overwrite)
    check = functools.partial(check_image, kind=cutout.format, width=cutout.width, height=cutout.height)
    largest = LARGEST_ANSWER + 16 * cutout.width * cutout.height  # bytes: three planes of float32, and a header
    pool = ImagePool(options.max_connections, rate=asked.rate, check=check, max_bytes=largest)
    services = [url for url in (asked.hips_url, asked.hips_mirror) if url]
    waiting: dict[str, dict] = {}
    failed: dict[str, str] = {}
    with TarSink(folder) as sink:
        for archive, reason in sink.aside.items():
            say(f"{archive} is damaged and was put aside: {reason}", file=sys.stderr)
        bar = progress_bar(total=total, unit="image", desc="images")

        def requests() -> Iterator[ImageRequest]:
            for row, label in catalog_rows(catalog):
                key = str(row["objid"])
                if key in sink.done:
                    bar.update()
                    continue
                waiting[key] = describe(row, label, cutout)
                yield ImageRequest(key, tuple(cutout.url(service, row) for service in services))

        with bar, contextlib.closing(pool.run(requests())) as answers:
            for answer in answers:
                row = waiting.pop(answer.key)
                if answer.data is None:
                    failed[answer.key] = f"no image: {answer.reason}"
                    sink.fail(answer.key, answer.reason, answer.status, answer.tries, answer.url)
                    if options.strict:
                        raise UserError(f"{answer.key}: {answer.reason} (--strict stops at the first)")
                else:
                    row["sha256"] = hashlib.sha256(answer.data).hexdigest()
                    members = {cutout.format: answer.data, "json": json.dumps(row).encode()}
                    sink.add(answer.key, members, answer.status, answer.tries)
                bar.set_postfix(failed=len(failed), refresh=False)
                bar.update()
    return failed


def prepare(folder: Path, cutout: Cutout, overwrite: bool) -> None:
    """Make the folder one of these cutouts."""
    settings, text = folder / SETTINGS, json.dumps(dataclasses.asdict(cutout), indent=1) + "\n"
    known = settings.read_text() if settings.exists() else None
    if known != text and (known is not None or any(folder.glob("*.tar*"))):
        if not overwrite:
            raise UserError(f"{folder} holds other cutouts ({SETTINGS} says which): choose another folder, or --overwrite")
        discard(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        write_atomically(settings, text)


def discard(folder: Path) -> None:
    """Delete the images, and nothing else of the folder. The settings go last: until then no others are mixed with them."""
    for ending in (".tar", ".tar.part", ".tar.damaged", ".csv"):
        for path in numbered(folder, "images", ending):
            path.unlink()
    for name in (LISTED, FAILED, SETTINGS):
        (folder / name).unlink(missing_ok=True)


# --- the objects --------------------------------------------------------------------------------------------


def find_items(options: Options, _, asked: argparse.Namespace) -> Found:
    """Catalogue and images, then the objects in the TARs."""
    if asked.from_tar:
        archives = sorted(asked.from_tar.glob("*.tar")) if asked.from_tar.is_dir() else []
        if not archives:
            raise UserError(f"no TAR archives in {asked.from_tar}")
        samples = read_archives(archives, None)
        found = found_in(samples, options.limit, f"{asked.from_tar.absolute()}")
        return dataclasses.replace(found, sources=[str(asked.from_tar)])
    source, path = source_of(asked, options.limit), options.output_dir / SLICES / FILTERED
    for made in (path, options.output_dir / FILTERED):
        keep_inputs(made, {"the catalogue": asked.catalog}, "choose another folder")
    counts, rows = write_catalog(source, path, options, asked)
    wanted = {str(row["objid"]): digest_of(describe(row, label, cutout_of(asked))) for row, label in catalog_rows(path)}
    samples, failed = archived(path, rows, wanted, options, asked)
    missing = dict.fromkeys(wanted.keys() - samples.items.keys() - samples.damaged.keys(), "its archive is damaged")
    samples.rejected.extend(Rejected(key, "", reason) for key, reason in {**missing, **failed}.items())
    found = found_in(samples, None, json.dumps(dataclasses.asdict(cutout_of(asked))))
    notes = {"cuts": counts.to_json(), "queries": source.queries, "images": dataclasses.asdict(cutout_of(asked))}
    complete = functools.partial(os.replace, path, options.output_dir / FILTERED)
    return dataclasses.replace(found, sources=[*source.addresses, asked.hips_url], notes=notes, complete=complete)


@dataclass
class Samples:
    """What lies in TAR archives: file, span and position (degrees) by object, in the order of the archives.

    ``stale`` are objects whose row is another one in the catalogue now, ``damaged`` those that cannot be used,
    ``unreadable`` archives that end in the middle.
    """

    items: dict[str, tuple[str, tuple[int, int], tuple[float, float]]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    damaged: dict[str, Path] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)


def archived(catalog: Path, total: int, wanted: dict[str, int], options: Options, asked: argparse.Namespace):
    """The samples wanted, downloaded where there are none; damaged archives are put aside and filled again, once.

    Returns:
        ``Samples``, and why there is no image, by objid.

    Raises:
        UserError: the archives were made from other rows.
    """
    folder = options.output_dir / IMAGES
    for attempt in range(2):
        failed = download_images(catalog, total, options, asked)
        samples = read_archives(numbered(folder, "images", ".tar"), wanted)
        if samples.stale and not options.overwrite:
            raise UserError(
                f"{len(samples.stale)} galaxies, {samples.stale[0]} for one, have other values in the catalogue than when "
                f"their images were archived in {folder}: choose another folder, or --overwrite to download them again"
            )
        bad = {*samples.unreadable, *samples.damaged.values()}
        if attempt or not (samples.stale or bad):
            return samples, failed
        if samples.stale:
            discard(folder)
        for archive in bad if not samples.stale else ():
            say(f"{archive.name} is damaged and is put aside; its images are downloaded again", file=sys.stderr)
            archive.rename(archive.with_name(f"{archive.name}.damaged"))


def digest_of(row: dict) -> int:
    """Tells whether a sample was archived with this row; eight bytes, since there may be a million."""
    return int.from_bytes(hashlib.blake2b(json.dumps(row).encode(), digest_size=7).digest())


def read_archives(archives: Sequence[Path], wanted: dict[str, int] | None) -> Samples:
    """All samples, or those wanted whose digest is the one given; each object once."""
    samples = Samples()
    for archive in progress_bar(archives, unit="archive", desc="index", disable=len(archives) < 20):
        try:
            for sample in index(archive):
                if wanted is None or sample.key in wanted:
                    _take(samples, archive, sample, wanted)
        except TarError as error:
            samples.unreadable[archive] = str(error)
            samples.rejected.append(Rejected(archive.name, str(archive), str(error)))
    return samples


def _take(samples: Samples, archive: Path, sample, wanted: dict[str, int] | None) -> None:
    try:
        if sample.key in samples.items:
            raise RecordError(f"duplicate: the object is in {Path(samples.items[sample.key][0]).name} too")
        if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", sample.key):
            raise RecordError("its name is not a plain one")
        row, _, _ = read_row(archive, sample.start, sample.length)
        row.pop("sha256", None)
        position = tuple(_value(row.get(name), SURVEY.column(name)) for name in ("ra", "dec"))
        check_position(*position)
    except RecordError as error:
        samples.rejected.append(Rejected(sample.key, str(archive), str(error)))
        samples.damaged.setdefault(sample.key, archive)
        return
    if wanted is not None and digest_of(row) != wanted[sample.key]:
        samples.stale.append(sample.key)
    samples.items[sample.key] = (str(archive.absolute()), (sample.start, sample.length), position)


def found_in(samples: Samples, limit: int | None, made_of: str) -> Found:
    """The objects of the samples, or the first of them, and the survey with images as the first readable one has them."""
    chosen = list(itertools.islice(samples.items.items(), limit))
    positions = np.array([position for _, (*_, position) in chosen]).reshape(-1, 2)
    cells = healpix_cell(*positions.T).tolist()
    items = [Item(key, file, cell, span=span) for (key, (file, span, _)), cell in zip(chosen, cells, strict=True)]
    survey = as_built(items)
    column = survey.column("image")
    made_of = hashlib.sha256(f"{made_of} {column.dtype} {column.shape}".encode()).hexdigest()[:16]
    return Found(items, samples.rejected, survey, made_of=made_of)


def as_built(items: Sequence[Item]) -> Survey:
    """The survey with images as the first readable sample has them."""
    for item in items[:100]:
        with contextlib.suppress(RecordError):
            image = read_record(Path(item.file), *item.span)["image"]
            shaped = dataclasses.replace(SURVEY.column("image"), dtype=image.dtype.name, shape=image.shape)
            return SURVEY.as_built([shaped])
    return SURVEY


# --- the command line ---------------------------------------------------------------------------------------


def source_of(asked: argparse.Namespace, limit: int | None) -> Source:
    """Where the catalogue comes from, as asked for."""
    if asked.catalog:
        return Source(file=asked.catalog)
    slices = asked.slices or (NARROW_SLICES if limit and limit <= FEW_ROWS else 72)
    url, votes_url = asked.tap_url or TAP_URL, asked.votes_tap_url or asked.tap_url or VOTES_TAP_URL
    size = {"slices": slices, "maxrec": asked.maxrec}
    if asked.adql:
        try:
            return Source(photometry=SlicedQuery(url, asked.adql.read_text(), **size))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{asked.adql}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    if asked.source == "zoospec":
        return Source(photometry=SlicedQuery(url, ZOOSPEC, **size))
    return Source(photometry=SlicedQuery(url, TARGETS, **size), votes=SlicedQuery(votes_url, VOTES, **size))


def cutout_of(asked: argparse.Namespace) -> Cutout:
    return Cutout(asked.hips, asked.width, asked.height, asked.margin, asked.format)


def add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    # fmt: off
    add = parser.add_argument_group("catalogue").add_argument
    add("--tap_url", type=without_login, metavar="URL",
        help=f"TAP service of the photometry, where given of the votes too (default: {TAP_URL})")
    add("--votes_tap_url", type=without_login, metavar="URL",
        help=f"TAP service of the votes alone (default: {VOTES_TAP_URL})")
    add("--source", choices=("two", "zoospec"), default="two", help="two: votes and photometry from two tables, joined by "
        "position here; zoospec: from one service that mirrors SDSS's own ZooSpec table (default: %(default)s)")
    add("--adql", type=Path, metavar="FILE", help="one query of your own with {low} and {high} where the borders of a slice "
        "of right ascension belong; columns named as ours, see the dataset card")
    add("--catalog", type=Path, metavar="FILE", help="the catalogue from a file instead (csv, fits, vot, each also .gz, or "
        "parquet), such as SkyServer or CasJobs export: --print_sql shows the query")
    add("--print_sql", action="store_true", help="print the query for SkyServer and CasJobs, and end")
    add("--slices", type=positive_integer, metavar="N", help=f"slices of right ascension (default: 72, or {NARROW_SLICES} "
        "where few rows are wanted)")
    add("--maxrec", type=positive_integer, metavar="N", help="rows of one answer at most; a slice with more is halved")
    add("--sync", action="store_true", help="ask the services at /sync, without jobs: for those that have no /async, or "
        "lose jobs; what is complete is used either way")
    add = parser.add_argument_group("selection").add_argument
    add("--classes", nargs="+", choices=CLASSES, default=["spiral", "elliptical"], metavar="CLASS",
        help="spiral, elliptical, uncertain (default: spiral elliptical)")
    add("--min_debiased", type=_share, default=0.0, metavar="F", help="smallest debiased fraction of votes for its class")
    add("--max_error_gri", type=_length, default=0.1, metavar="MAG", help="largest error of modelMag in gri (%(default)s)")
    add("--max_error_uz", type=_length, default=0.5, metavar="MAG", help="largest error of modelMag in uz (%(default)s)")
    add = parser.add_argument_group("images").add_argument
    add("--hips_url", type=without_login, default=HIPS_URL, metavar="URL", help="hips2fits service (default: %(default)s)")
    add("--hips_mirror", type=without_login, metavar="URL",
        help=f"asked where the first does not answer (default: {HIPS_MIRROR}; none where --hips_url is given)")
    add("--hips", default=HIPS, metavar="ID", help="the sky survey's images (default: %(default)s)")
    add("--width", type=positive_integer, default=SIZE, metavar="N", help="pixels (default: %(default)s)")
    add("--height", type=positive_integer, default=SIZE, metavar="N", help="pixels (default: %(default)s)")
    add("--margin", type=_margin, default=MARGIN, metavar="F", help="the longer side is 2 x petroR90_r x (1 + F) "
        "(default: %(default)s)")
    add("--format", choices=FORMATS, default="jpg", help="of the images (default: %(default)s)")
    add("--rate", type=_length, metavar="N", help="requests a second at most (default: as many as come back)")
    add("--from_tar", type=Path, metavar="DIR", help="build from the TAR archives in this folder alone, "
        "without network; they were cut when they were made")
    # fmt: on


def _length(text: str) -> float:
    value = float(text)
    if not 0 < value < np.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, not {value}")
    return value


def _margin(text: str) -> float:
    value = float(text)
    if not 0 <= value < np.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {value}")
    return value


def parser(program: str | None = None) -> BuildParser:
    """The command line."""
    known = BuildParser(program, __doc__, SURVEY)
    add_own_arguments(known)
    return known


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Command line; returns the exit status (0, or 1 where objects were rejected, or 2 where nothing can be built)."""
    known = parser(program)
    asked = known.parse_args(arguments)
    if asked.print_sql:
        print(CASJOBS.strip())
        return 0
    if asked.hips_mirror is None and asked.hips_url == HIPS_URL:
        asked.hips_mirror = HIPS_MIRROR
    command = [known.prog, *(sys.argv[1:] if arguments is None else arguments)]
    find = functools.partial(find_items, asked=asked)
    return run(lambda: build(SURVEY, read_record, Options.from_arguments(asked), find, command))


if __name__ == "__main__":
    # The installed module, not __main__: worker processes must be able to import the functions they are sent.
    from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import main

    sys.exit(main())
