"""Build Galaxy Zoo 2: tables of votes, with their images where there are any, to partitions.

    skyset build gz2 --tiny -o data/gz2                            # 5 galaxies, images read out of the remote archive
    skyset build gz2 -o data/gz2                                   # all: 3.4 GB of images from Zenodo
    skyset build gz2 --no_images -o data/gz2_votes                 # the votes alone
    skyset build gz2 --local_data_path ~/gz2 -o data/gz2           # tables, and images and ZIP archives, if any, at hand
    skyset build gz2 --catalog zoo2Stripe82Normal.fits.gz --no_images -o data/gz2_stripe82

A table is one of Galaxy Zoo 2 if it has its votes, and objid or dr7objid. Images are named by objid, or by the asset_id that
gz2_filename_mapping.csv gives it. The folder holds `default`, all galaxies; in folders below it, `rings`, and
`representations` where there are any. Stop it at any moment: the same command goes on from what is complete.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from skyset.archives.fetch import Fetcher
from skyset.archives.zenodo import need
from skyset.archives.zenodo import record_files
from skyset.building.downloads import RAW
from skyset.building.imagefiles import Images
from skyset.building.imagefiles import files_below
from skyset.building.imagefiles import fingerprint
from skyset.building.imagefiles import images_below
from skyset.building.images_and_votes import SPLIT
from skyset.building.images_and_votes import Making
from skyset.building.images_and_votes import build_cut
from skyset.building.images_and_votes import build_pictured
from skyset.building.images_and_votes import build_vectors
from skyset.building.options import BuildParser
from skyset.building.options import Options
from skyset.building.zip_by_zip import build_archives
from skyset.building.zip_by_zip import build_few
from skyset.building.zip_by_zip import fetched_file
from skyset.command_line import main as run
from skyset.errors import UserError
from skyset.files import file_sha256
from skyset.loaders.gz2 import API_URL
from skyset.loaders.gz2 import ARCHIVE
from skyset.loaders.gz2 import CATALOG_URL
from skyset.loaders.gz2 import CONFIGS
from skyset.loaders.gz2 import MAPPING
from skyset.loaders.gz2 import NAMES
from skyset.loaders.gz2 import NO_RING_BELOW
from skyset.loaders.gz2 import PICTURE
from skyset.loaders.gz2 import RECORD
from skyset.loaders.gz2 import RING_ABOVE
from skyset.loaders.gz2 import SURVEY
from skyset.loaders.gz2 import VOTES
from skyset.messages import say
from skyset.secrets import without_login
from skyset.survey import Column
from skyset.tables.catalog import Catalog
from skyset.tables.catalog import check_ids
from skyset.tables.join import Joined
from skyset.tables.join import Source
from skyset.tables.join import digest
from skyset.tables.join import join
from skyset.tables.open import open_catalog
from skyset.tables.representations import features_in
from skyset.tables.representations import read_vectors

#: So few galaxies are read out of the remote archive, one by one.
FEW = 100
CATALOGS = "catalogs"
SUFFIXES = (".csv", ".tsv", ".parquet", ".fits", ".fit", ".vot", ".csv.gz", ".fits.gz", ".vot.gz")
KEYS = ("objid", "dr7objid")
VECTOR_KEYS = ("id_str", *KEYS)
RING, CLASSIFIED = "t08_odd_feature_a19_ring_count", "total_classifications"
COLUMNS = {c.name: c for c in (Column("ra", "float64"), Column("dec", "float64"), *NAMES, *VOTES, SPLIT)}


class NotOurs(UserError):
    """A table of something else."""


@dataclass(frozen=True)
class Tables:
    """The files of a build: tables of votes, the images' names, representations."""

    votes: tuple[Source, ...]
    mapping: Path | None
    vectors: Source | None


# --- the tables ---------------------------------------------------------------------------------------------


def key_of(catalog: Catalog, candidates: tuple[str, ...]) -> str:
    """The column of objids.

    Raises:
        NotOurs: there is none.
        UserError: its values went through floating point.
    """
    key = next((name for name in candidates if name in catalog.schema.names), None)
    if key is None:
        raise NotOurs(f"{Path(catalog.path).name}: no column {' or '.join(candidates)}")
    for batch in open_catalog(catalog.path, [key]).batches():
        try:
            check_ids(batch, key)
        except UserError as error:
            raise UserError(f"{catalog.path}: {error}") from error
    return key


def opened(path: Path) -> Catalog:
    try:
        return open_catalog(path)
    except UserError as error:
        raise NotOurs(str(error)) from error


def votes_of(path: Path) -> Source:
    """A table of votes; NotOurs if it is none. What is left out of it is printed."""
    catalog = opened(path)
    names = catalog.schema.names
    if not any(column.name in names for column in VOTES) or not {"ra", "dec"} <= set(names):
        raise NotOurs(f"{path.name}: no votes of Galaxy Zoo 2 with ra and dec ({', '.join(names[:8])}, ...)")
    columns = {name: name for name in COLUMNS if name in names}
    key = key_of(catalog, KEYS)
    say(f"{path.name}: votes of {catalog.rows} galaxies in {len(columns)} columns, named by {key}")
    if left_out := [name for name in names if name not in columns]:
        say(f"{path.name}: columns that are left out: {', '.join(left_out)}")
    return Source(path, key, columns)


def vectors_of(path: Path) -> Source:
    """A table of representations; NotOurs if it is none."""
    catalog = opened(path)
    if not features_in(catalog.schema):
        raise NotOurs(f"{path.name}: no columns of a representation")
    return Source(path, key_of(catalog, VECTOR_KEYS), {})


def tables_below(folder: Path) -> Tables:
    """The tables of a folder; what is not used is printed."""
    if not folder.is_dir():
        raise UserError(f"--local_data_path {folder} is not a folder")
    votes, vectors, mapping = [], [], None
    for path in files_below(folder):
        if path.name == MAPPING:
            mapping = path
        elif path.name.lower().endswith(SUFFIXES):
            try:
                if features_in(opened(path).schema):
                    vectors.append(vectors_of(path))
                else:
                    votes.append(votes_of(path))
            except NotOurs as error:
                say(f"not used: {error}")
    return Tables(tuple(votes), mapping, vectors[0] if vectors else None)


def table_name(url: str) -> str:
    """The file that an address names: the last part that says what kind of table it is."""
    parts = [part for part in urlsplit(url).path.split("/") if part.lower().endswith(SUFFIXES)]
    if not parts:
        raise UserError(f"--catalog_url {url} names no table ({', '.join(SUFFIXES)})")
    return parts[-1]


def tables_of(asked: argparse.Namespace, network: Fetcher) -> Tables:
    """The tables that were named, else those of the folder, else the published one."""
    tables = tables_below(asked.local_data_path) if asked.local_data_path and not asked.catalog else Tables((), None, None)
    if asked.catalog:
        tables = replace(tables, votes=tuple(votes_of(path) for path in asked.catalog))
    elif not asked.local_data_path:
        path = asked.output_dir / CATALOGS / table_name(asked.catalog_url)
        tables = replace(tables, votes=(votes_of(fetched_file(network, asked.catalog_url, path)),))
    if asked.representations:
        tables = replace(tables, vectors=vectors_of(asked.representations))
    return replace(tables, mapping=asked.mapping or tables.mapping)


# --- the images ---------------------------------------------------------------------------------------------


def assets(mapping: Path | None) -> dict[str, list[str]]:
    """The names that an object's image may have, beside its objid: its assets in the mapping's order."""
    found: dict[str, list[str]] = {}
    if mapping is None:
        return found
    catalog = open_catalog(mapping, ["objid", "asset_id"])
    for batch in catalog.batches():
        check_ids(batch, "objid")
        for objid, asset in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found.setdefault(str(objid), []).append(str(asset))
    return found


def named_by_objid(images: Images, names: dict[str, list[str]]) -> Images:
    """The images by objid: an object has the first of its assets that there is."""
    if not names:
        return images
    objects = {asset: objid for objid, own in reversed(names.items()) for asset in reversed(own)}
    renamed = replace(images, places={})
    renamed.problems = [(objects.get(stem, stem), file, reason) for stem, file, reason in images.problems]
    for objid, own in names.items():
        if asset := next((stem for stem in (objid, *own) if stem in images.places), None):
            renamed.places[objid] = images.places[asset]
    used = set(renamed.places.values())
    rest = {stem: place for stem, place in images.places.items() if place not in used}
    renamed.places = rest | renamed.places
    return renamed


# --- the datasets -------------------------------------------------------------------------------------------


def build_default(asked: argparse.Namespace, tables: Tables, joined: Joined, making: Making, network: Fetcher) -> int:
    """All galaxies, with the images of the folder, of the record, or none."""
    options = making.options
    if asked.no_images:
        return build_pictured(SURVEY, PICTURE, joined, None, making)
    if asked.local_data_path:
        images = named_by_objid(images_below(asked.local_data_path), assets(tables.mapping))
        if not images.places and not images.problems and not images.archives:
            print(f"no images in {asked.local_data_path}: a catalogue of votes alone")
            return build_pictured(SURVEY, PICTURE, joined, None, making)
        traits = (file_sha256(tables.mapping) if tables.mapping else "", fingerprint(images, joined.keys))
        made_of = digest(tables.votes, asked.decode, *traits)
        return build_pictured(SURVEY, PICTURE, joined, lambda: images, replace(making, made_of=made_of))
    files = record_files(network, asked.record, asked.api_url)
    archive, mapping = need(files, ARCHIVE, asked.record), need(files, MAPPING, asked.record)
    target = options.output_dir / CATALOGS / MAPPING
    path = tables.mapping or fetched_file(network, mapping.url, target, mapping.checksum)
    names = assets(path)

    def build_images(images: Callable[[], Images], last: bool, overwrite: bool) -> int:
        once = replace(making, options=replace(options, overwrite=overwrite))
        return build_pictured(SURVEY, PICTURE, joined, lambda: named_by_objid(images(), names), once, last)

    if options.limit and options.limit <= FEW:
        wanted = {stem for key in joined.keys for stem in (key, *names.get(key, ()))}
        return build_few([archive], wanted, options.limit, options.output_dir, options.overwrite, build_images)
    joined = joined.head(options.limit)
    keep, wanted = asked.keep_archives, set(joined.keys) if options.limit else None
    rename = functools.partial(named_by_objid, names=names)
    return build_archives([archive], options.output_dir, making.made_of, network, keep, options.overwrite, build_images,
                          wanted, rename)  # fmt: skip


def rings_of(joined: Joined) -> tuple[Joined, list[int]]:
    """The galaxies with votes: the share of all volunteers who saw a ring, and the label that follows."""
    votes, classified = joined.values[RING].astype(np.int32), joined.values[CLASSIFIED]
    rows = np.flatnonzero((votes >= 0) & (classified > 0))
    fraction = np.full(len(votes), np.nan, np.float32)
    fraction[rows] = votes[rows] / classified[rows]
    with np.errstate(invalid="ignore"):
        label = np.where(fraction > RING_ABOVE, 1, np.where(fraction < NO_RING_BELOW, 0, -1)).astype(np.int64)
    values = {"label": label, "ring_fraction": fraction, "ring_votes": votes, CLASSIFIED: classified}
    return Joined(joined.keys, values), rows.tolist()


def located(keys: list[str], rejected: list[tuple[str, str, str]], joined: Joined) -> Joined:
    """Objects of another table at the positions that the votes' tables know; NaN elsewhere."""
    at = {key: row for row, key in enumerate(joined.keys)}
    rows = [at.get(key, -1) for key in keys]
    values = {name: np.append(joined.values[name], np.nan)[rows] for name in ("ra", "dec")}
    return Joined(keys, values, rejected)


def build_all(asked: argparse.Namespace, command: list[str]) -> int:
    """Build the datasets; returns the worst exit status."""
    options, root = Options.from_arguments(asked), asked.output_dir
    with Fetcher(asked.max_connections, max_bytes=1 << 40) as network:
        tables = tables_of(asked, network)
        if not tables.votes:
            raise UserError("nothing to build: no table with votes of Galaxy Zoo 2")
        joined = join(tables.votes, COLUMNS)
        notes = {"catalogs": [each.path.name for each in tables.votes]}
        source = str(asked.local_data_path or f"{asked.api_url.rstrip('/')}/{asked.record}")
        sources = [source] if not asked.no_images else [str(each.path) for each in tables.votes]
        made_of = digest(tables.votes, asked.decode, asked.no_images)
        making = Making(options, command, made_of, sources, notes, asked.decode)
        statuses = []
        for config in configs_of(asked, tables, joined):
            below = replace(
                making, options=replace(options, output_dir=root / config), sources=[str(root)],
                notes=notes | {"config": config},
            )  # fmt: skip
            if config == "default":
                statuses.append(build_default(asked, tables, joined, making, network))
            elif config == "rings":
                statuses.append(build_cut(CONFIGS[config], root, *rings_of(joined), below))
            else:
                keys, vectors, rejected = read_vectors(tables.vectors.path, tables.vectors.key)
                below = replace(below, sources=[str(tables.vectors.path)], made_of=digest([*tables.votes, tables.vectors]))
                statuses.append(build_vectors(CONFIGS[config], located(keys, rejected, joined), vectors, below))
    return max(statuses)


def configs_of(asked: argparse.Namespace, tables: Tables, joined: Joined) -> Iterator[str]:
    """What is to be built: as asked for, else all that the tables allow."""
    possible = ["default"]
    possible += ["rings"] if RING in joined.values and CLASSIFIED in joined.values else []
    possible += ["representations"] if tables.vectors else []
    for name in asked.configs or ():
        if name not in possible:
            what = f"a table with {RING} and {CLASSIFIED}" if name == "rings" else "--representations FILE"
            raise UserError(f"config {name} needs {what}")
    return (name for name in CONFIGS if name in (asked.configs or possible))


# --- the command line ---------------------------------------------------------------------------------------


def add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    # fmt: off
    add = parser.add_argument_group("tables and images").add_argument
    add("--local_data_path", type=Path, metavar="DIR", help="tables, images and ZIP archives below this folder, at any "
        "depth; nothing is downloaded")
    add("--catalog", type=Path, action="append", metavar="FILE", help="a table of votes (csv, fits, vot, each also .gz, "
        "or parquet); may be given several times (default: those in the folder, or --catalog_url)")
    add("--catalog_url", type=without_login, default=CATALOG_URL, metavar="URL",
        help="the published table (default: %(default)s)")
    add("--mapping", type=Path, metavar="FILE", help=f"objid and asset_id of the images (default: {MAPPING} of the folder "
        "or of the record)")
    add("--no_images", action="store_true", help="the votes alone")
    add("--representations", type=Path, metavar="FILE", help="vectors by id_str (objid), such as cnn_features_gz2.parquet")
    add("--configs", nargs="+", choices=tuple(CONFIGS), metavar="NAME", help=f"what to build: {', '.join(CONFIGS)} "
        "(default: all that the tables allow)")
    add("--decode", action="store_true", help="store pixels, uint8 RGB, instead of the images' own JPEG bytes")
    add("--api_url", type=without_login, default=API_URL, metavar="URL", help="Zenodo's record API (default: %(default)s)")
    add("--record", default=RECORD, metavar="ID", help="Zenodo record of the images (default: %(default)s)")
    add("--keep_archives", action="store_true", help=f"keep the downloaded archive in <output_dir>/{RAW}; by default it is "
        "deleted once its images are in the partitions")
    # fmt: on


def parser(program: str | None = None) -> BuildParser:
    """The command line."""
    known = BuildParser(program, __doc__, SURVEY)
    add_own_arguments(known)
    return known


def main(arguments: list[str] | None = None, program: str | None = None) -> int:
    """Command line; returns the exit status (0, or 1 where objects were rejected, or 2 where nothing can be built)."""
    known = parser(program)
    asked = known.parse_args(arguments)
    command = [known.prog, *(sys.argv[1:] if arguments is None else arguments)]
    return run(lambda: build_all(asked, command))


if __name__ == "__main__":
    # The installed module, not __main__: worker processes must be able to import the functions they are sent.
    from skyset.build_scripts.gz2.build_parent_sample import main

    sys.exit(main())
