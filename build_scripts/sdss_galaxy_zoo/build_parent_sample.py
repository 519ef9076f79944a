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
import itertools
import json
import shutil
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from tqdm.auto import tqdm

from skyset.build import Found
from skyset.build import Item
from skyset.build import Options
from skyset.build import Rejected
from skyset.build import add_arguments
from skyset.build import build
from skyset.build import main as run
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
from skyset.catalog import open_catalog
from skyset.catalog import write_csv_gz
from skyset.cuts import Counts
from skyset.cuts import apply
from skyset.errors import RecordError
from skyset.errors import UserError
from skyset.hips import FORMATS
from skyset.hips import field_of_view
from skyset.hips import hips2fits_url
from skyset.images import ImageError
from skyset.images import ImagePool
from skyset.images import ImageRequest
from skyset.images import check_image
from skyset.images import decode
from skyset.loaders.sdss_galaxy_zoo import CATALOG
from skyset.loaders.sdss_galaxy_zoo import CLASSES
from skyset.loaders.sdss_galaxy_zoo import HIPS
from skyset.loaders.sdss_galaxy_zoo import HIPS_MIRROR
from skyset.loaders.sdss_galaxy_zoo import HIPS_URL
from skyset.loaders.sdss_galaxy_zoo import MARGIN
from skyset.loaders.sdss_galaxy_zoo import SIZE
from skyset.loaders.sdss_galaxy_zoo import SURVEY
from skyset.loaders.sdss_galaxy_zoo import TAP_URL
from skyset.loaders.sdss_galaxy_zoo import VOTES_TAP_URL
from skyset.manifest import write_atomically
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import check_position
from skyset.survey import healpix_cell
from skyset.tap import SlicedQuery
from skyset.tars import TarError
from skyset.tars import TarSink
from skyset.tars import index
from skyset.tars import read_sample

FILTERED = "ZooSpecPhotoDR19_filtered.csv.gz"
IMAGES = "Images"
SETTINGS = "Images_settings.json"
SLICES = "catalog"
#: Narrow slices where a few rows are wanted, so that nobody waits for five degrees of sky.
FEW_ROWS, NARROW_SLICES = 1000, 3600
TAP_RETRIES = 5


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
    try:
        members = read_sample(path, start, length)
        row = json.loads(members.pop("json"))
        kind, image = next((kind, data) for kind, data in members.items() if kind in FORMATS)
        values = {column.name: _value(row.get(column.name), column) for column in CATALOG}
        return values | {
            "image": decode(image, kind),
            "object_id": row["object_id"],
            **{name: row[name] for name in ("label", "fov", "pixel_scale")},
        }
    except StopIteration:
        raise RecordError(f"no image among {', '.join(members) or 'its members'}") from None
    except KeyError as error:
        raise RecordError(f"the sample has no {error}") from None
    except (TarError, ImageError, ValueError, TypeError) as error:
        raise RecordError(str(error)) from error


def _value(value, column: Column):
    """What stands for a value that the catalogue has not: -1 or NaN."""
    if value is None:
        return -1 if np.dtype(column.dtype).kind in "iu" else np.nan
    return value


# --- the catalogue ------------------------------------------------------------------------------------------


def write_catalog(source: Source, options: Options, selection: argparse.Namespace) -> Counts:
    """Read the source, cut it, print how much each cut took, write ``FILTERED``.

    Returns:
        the counted cuts.
    """
    counts, left_out = Counts(), []
    batches = rows_of(source, options.output_dir / SLICES, connections=min(4, options.max_connections), retries=TAP_RETRIES)

    def chosen() -> Iterator[pa.RecordBatch]:
        with contextlib.closing(batches):
            first = next(batches, None)
            if first is None:
                return
            limits = selection.max_error_gri, selection.max_error_uz, selection.min_debiased
            made, missing = cuts(columns_in(first), selection.classes, *limits)
            left_out.extend(missing)
            yield from first_rows(apply(made, itertools.chain([first], batches), counts), options.limit)

    rows = write_csv_gz(options.output_dir / FILTERED, chosen(), SCHEMA)
    console = Console()
    console.print(counts.table())
    for name in left_out:
        console.print(f"not cut on {name}: the catalogue lacks the columns", highlight=False)
    if not rows:
        raise UserError(f"nothing to build: no galaxy of {' and '.join(source.addresses)} passes the cuts")
    return counts


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
    pool = ImagePool(options.max_connections, rate=asked.rate, check=check)
    services = [url for url in (asked.hips_url, asked.hips_mirror) if url]
    waiting: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    with TarSink(folder) as sink:
        bar = tqdm(total=total, unit="image", desc="images", dynamic_ncols=True, disable=None)

        def requests() -> Iterator[ImageRequest]:
            for row, label in catalog_rows(catalog):
                key = str(row["objid"])
                if key in sink.done:
                    bar.update()
                    continue
                waiting[key] = json.dumps(describe(row, label, cutout)).encode()
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
                    sink.add(answer.key, {cutout.format: answer.data, "json": row}, answer.status, answer.tries)
                bar.set_postfix(failed=len(failed), refresh=False)
                bar.update()
    return failed


def prepare(folder: Path, cutout: Cutout, overwrite: bool) -> None:
    """Make the folder one of these cutouts."""
    settings, text = folder / SETTINGS, json.dumps(dataclasses.asdict(cutout), indent=1) + "\n"
    if settings.exists() and settings.read_text() != text:
        if not overwrite:
            raise UserError(f"{folder} holds other cutouts ({SETTINGS} says which): choose another folder, or --overwrite")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        write_atomically(settings, text)


# --- the objects --------------------------------------------------------------------------------------------


def find_items(options: Options, _, asked: argparse.Namespace) -> Found:
    """Catalogue and images, then the objects in the TARs."""
    if asked.from_tar:
        items, rejected = items_of(asked.from_tar, None)
        return Found(items, rejected, as_built(items), [str(asked.from_tar)])
    source, catalog = source_of(asked, options.limit), options.output_dir / FILTERED
    counts = write_catalog(source, options, asked)
    total = counts.left if options.limit is None else min(counts.left, options.limit)
    failed = download_images(catalog, total, options, asked)
    wanted = {str(row["objid"]) for row, _ in catalog_rows(catalog)}
    items, rejected = items_of(options.output_dir / IMAGES, wanted)
    failed = failed | dict.fromkeys(wanted - {item.key for item in items} - failed.keys(), "its archive is damaged")
    rejected += [Rejected(key, "", reason) for key, reason in failed.items()]
    notes = {"cuts": counts.to_json(), "queries": source.queries, "images": dataclasses.asdict(cutout_of(asked))}
    return Found(items, rejected, as_built(items), [*source.addresses, asked.hips_url], notes)


def items_of(folder: Path, wanted: set[str] | None) -> tuple[list[Item], list[Rejected]]:
    """The samples in a folder's TARs, or those wanted; each object once, in the order of the archives."""
    archives = sorted(folder.glob("*.tar")) if folder.is_dir() else []
    if not archives:
        raise UserError(f"no TAR archives in {folder}")
    keys, files, spans, positions, rejected = {}, [], [], [], []
    for archive in tqdm(archives, unit="archive", desc="index", disable=len(archives) < 20 or None):
        for sample in samples(archive, rejected):
            if wanted is not None and sample.key not in wanted:
                continue
            try:
                if sample.key in keys:
                    raise RecordError(f"duplicate: the object is in {keys[sample.key]} too")
                positions.append(position_of(archive, sample))
            except RecordError as error:
                rejected.append(Rejected(sample.key, str(archive), str(error)))
                continue
            keys[sample.key] = archive.name
            files.append(str(archive.absolute()))
            spans.append((sample.start, sample.length))
    cells = healpix_cell(*np.array(positions).T).tolist() if positions else []
    return [Item(*item) for item in zip(keys, files, cells, itertools.repeat(None), spans)], rejected


def samples(archive: Path, rejected: list[Rejected]) -> Iterator:
    """An archive's samples as far as it can be read."""
    try:
        yield from index(archive)
    except TarError as error:
        rejected.append(Rejected(archive.name, str(archive), str(error)))


def position_of(archive: Path, sample) -> tuple[float, float]:
    """Right ascension and declination, degrees, from a sample's JSON."""
    try:
        row = json.loads(read_sample(archive, sample.start, sample.length)["json"])
        position = float(row["ra"]), float(row["dec"])
    except (KeyError, ValueError, TypeError) as error:
        raise RecordError(f"no catalogue row in its JSON: {type(error).__name__} {error}") from error
    check_position(*position)
    return position


def as_built(items: list[Item]) -> Survey:
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
        except OSError as error:
            raise UserError(f"{asked.adql}: {error.strerror}") from error
    if asked.source == "zoospec":
        return Source(photometry=SlicedQuery(url, ZOOSPEC, **size))
    return Source(photometry=SlicedQuery(url, TARGETS, **size), votes=SlicedQuery(votes_url, VOTES, **size))


def cutout_of(asked: argparse.Namespace) -> Cutout:
    return Cutout(asked.hips, asked.width, asked.height, asked.margin, asked.format)


def add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    # fmt: off
    add = parser.add_argument_group("catalogue").add_argument
    add("--tap_url", metavar="URL", help=f"TAP service of the photometry, where given of the votes too (default: {TAP_URL})")
    add("--votes_tap_url", metavar="URL", help=f"TAP service of the votes alone (default: {VOTES_TAP_URL})")
    add("--source", choices=("two", "zoospec"), default="two", help="two: votes and photometry from two tables, joined by "
        "position here; zoospec: from one service that mirrors SDSS's own ZooSpec table (default: %(default)s)")
    add("--adql", type=Path, metavar="FILE", help="one query of your own with {low} and {high} where the borders of a slice "
        "of right ascension belong; columns named as ours, see the dataset card")
    add("--catalog", type=Path, metavar="FILE", help="the catalogue from a file instead (csv, fits, vot, each also .gz, or "
        "parquet), such as SkyServer or CasJobs export: --print_sql shows the query")
    add("--print_sql", action="store_true", help="print the query for SkyServer and CasJobs, and end")
    add("--slices", type=_count, metavar="N", help=f"slices of right ascension (default: 72, or {NARROW_SLICES} "
        "where few rows are wanted)")
    add("--maxrec", type=_count, metavar="N", help="rows of one answer at most; a slice with more is halved")
    add = parser.add_argument_group("selection").add_argument
    add("--classes", nargs="+", choices=CLASSES, default=["spiral", "elliptical"], metavar="CLASS",
        help="spiral, elliptical, uncertain (default: spiral elliptical)")
    add("--min_debiased", type=_share, default=0.0, metavar="F", help="smallest debiased fraction of votes for its class")
    add("--max_error_gri", type=_length, default=0.1, metavar="MAG", help="largest error of modelMag in gri (%(default)s)")
    add("--max_error_uz", type=_length, default=0.5, metavar="MAG", help="largest error of modelMag in uz (%(default)s)")
    add = parser.add_argument_group("images").add_argument
    add("--hips_url", default=HIPS_URL, metavar="URL", help="hips2fits service (default: %(default)s)")
    add("--hips_mirror", metavar="URL", help=f"asked where the first does not answer (default: {HIPS_MIRROR}; none where "
        "--hips_url is given)")
    add("--hips", default=HIPS, metavar="ID", help="the sky survey's images (default: %(default)s)")
    add("--width", type=_count, default=SIZE, metavar="N", help="pixels (default: %(default)s)")
    add("--height", type=_count, default=SIZE, metavar="N", help="pixels (default: %(default)s)")
    add("--margin", type=_length, default=MARGIN, metavar="F", help="the longer side is 2 x petroR90_r x (1 + F) "
        "(default: %(default)s)")
    add("--format", choices=FORMATS, default="jpg", help="of the images (default: %(default)s)")
    add("--rate", type=_length, metavar="N", help="requests a second at most (default: as many as come back)")
    add("--from_tar", type=Path, metavar="DIR", help="build from the TAR archives in this folder alone, without network")
    # fmt: on


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def _length(text: str) -> float:
    value = float(text)
    if not 0 < value < np.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, not {value}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {value}")
    return value


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Command line; returns the exit status (0, or 1 where objects were rejected, or 2 where nothing can be built)."""
    parser = argparse.ArgumentParser(program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, SURVEY)
    add_own_arguments(parser)
    asked = parser.parse_args(arguments)
    if asked.print_sql:
        print(CASJOBS.strip())
        return 0
    if asked.hips_mirror is None and asked.hips_url == HIPS_URL:
        asked.hips_mirror = HIPS_MIRROR
    command = [parser.prog, *(sys.argv[1:] if arguments is None else arguments)]
    find = functools.partial(find_items, asked=asked)
    return run(lambda: build(SURVEY, read_record, Options.from_arguments(asked), find, command))


if __name__ == "__main__":
    # The installed module, not __main__: worker processes must be able to import the functions they are sent.
    from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import main

    sys.exit(main())
