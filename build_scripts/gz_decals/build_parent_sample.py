"""Build Galaxy Zoo DECaLS: catalogues and images from Zenodo, or from a folder, to partitions.

    skyset build gz_decals --tiny -o data/gz_decals                       # 5 galaxies, read out of the remote archives
    skyset build gz_decals -o data/gz_decals                              # all: 104 GB, one archive after the other
    skyset build gz_decals --local_data_path ~/decals -o data/gz_decals   # catalogues, images and ZIP archives at hand
    skyset build gz_decals --configs rings_basic --catalog example_ring_catalog_basic.csv -o data/gz_decals

The folder holds `default`, all galaxies; folders below it, where a catalogue of theirs is given, `rings_basic`,
`rings_advanced` and `representations`, with the images and splits of `default`. Catalogues are told by their columns, images
found by their names, whatever the extensions say. Stop it at any moment: the same command goes on from what is complete.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from skyset.archives.fetch import Fetcher
from skyset.archives.zenodo import need
from skyset.archives.zenodo import record_files
from skyset.build_scripts.gz_decals import catalogs
from skyset.building.downloads import RAW
from skyset.building.imagefiles import Images
from skyset.building.imagefiles import fingerprint
from skyset.building.imagefiles import images_below
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
from skyset.loaders.gz_decals import API_URL
from skyset.loaders.gz_decals import ARCHIVES
from skyset.loaders.gz_decals import CONFIGS
from skyset.loaders.gz_decals import PICTURE
from skyset.loaders.gz_decals import RECORD
from skyset.loaders.gz_decals import SURVEY
from skyset.loaders.gz_decals import TABLES
from skyset.messages import say
from skyset.secrets import without_login
from skyset.tables.join import Joined
from skyset.tables.join import digest
from skyset.tables.representations import read_vectors

#: So few galaxies are read out of the remote archives, one by one.
FEW = 100
CATALOGS = "catalogs"
#: What each dataset needs a catalogue of.
NEEDS = {
    "default": "votes",
    "rings_basic": "a column ring",
    "rings_advanced": "votes for rings (rare-features_ring_fraction)",
    "representations": "representations",
}


@dataclass(frozen=True)
class Plan:
    """What is built of what."""

    options: Options
    catalogs: tuple[catalogs.Found, ...]
    decode: bool
    command: tuple[str, ...]

    def of_kind(self, kind: str) -> list[catalogs.Found]:
        """The catalogues of a dataset."""
        if kind == "default":
            return [each for each in self.catalogs if each.kinds != ("representations",)]
        return [each for each in self.catalogs if kind in each.kinds]

    def making(self, config: str, source: str, *more: str) -> Making:
        """How a dataset is made of its catalogues, and ``more`` that its rows depend on."""
        of, folder = self.of_kind(config), self.options.output_dir
        notes = {"catalogs": [each.source.path.name for each in of]}
        if config != "default":
            notes, folder = notes | {"config": config}, folder / config
        sources = of if config == "default" else self.catalogs  # whose values a row has, those of all that were joined
        made_of = digest([each.source for each in sources], self.decode, *more)
        return Making(replace(self.options, output_dir=folder), self.command, made_of, [source], notes, self.decode)


def build_remote(plan: Plan, joined: Joined, asked: argparse.Namespace, network: Fetcher) -> int:
    """All galaxies, with images from Zenodo: a few out of the remote archives, or archive after archive."""
    files = record_files(network, asked.record, asked.api_url)
    archives = [need(files, name, asked.record) for name in asked.archives]
    making, options = plan.making("default", f"{asked.api_url.rstrip('/')}/{asked.record}"), plan.options
    folder = options.output_dir

    def build_images(images: Callable[[], Images], last: bool, overwrite: bool) -> int:
        once = replace(making, options=replace(options, overwrite=overwrite))
        return build_pictured(SURVEY, PICTURE, joined, images, once, last)

    if options.limit and options.limit <= FEW:
        return build_few(archives, set(joined.keys), options.limit, folder, options.overwrite, build_images)
    joined = joined.head(options.limit)  # the same ones, whichever archives have come
    keep, wanted = asked.keep_archives, set(joined.keys) if options.limit else None
    return build_archives(archives, folder, making.made_of, network, keep, options.overwrite, build_images, wanted)


def build_rings(plan: Plan, config: str, joined: Joined) -> int:
    """The galaxies of a catalogue of rings, with images, positions and splits from ``default``."""
    labelled, rows, cuts = (catalogs.basic_rings if config == "rings_basic" else catalogs.advanced_rings)(joined)
    root = plan.options.output_dir
    making = plan.making(config, str(root))
    if cuts:
        making = replace(making, notes={**making.notes, "selection": cuts})
    return build_cut(CONFIGS[config], root, labelled, rows, making)


def build_representations(plan: Plan, joined: Joined | None) -> int:
    """Vectors by IAU name, at the catalogues' positions, or those of the names."""
    source = plan.of_kind("representations")[0].source
    keys, vectors, rejected = read_vectors(source.path, source.key)
    making = plan.making("representations", str(source.path))
    return build_vectors(CONFIGS["representations"], catalogs.positioned(keys, rejected, joined), vectors, making)


# --- the command line ---------------------------------------------------------------------------------------


def find_catalogs(asked: argparse.Namespace, network: Fetcher | None) -> list[catalogs.Found]:
    """The catalogues that were named, else those of the folder or of the record; what is used, and what not, is printed."""
    found = []
    named = [*(asked.catalog or ()), *([asked.representations] if asked.representations else ())]
    for path in named:
        found.append(catalogs.recognize(path))
    if asked.local_data_path and not asked.catalog:
        if not asked.local_data_path.is_dir():
            raise UserError(f"--local_data_path {asked.local_data_path} is not a folder")
        for path in catalogs.catalogs_below(asked.local_data_path):
            try:
                found += [catalogs.recognize(path)] if path not in named else []
            except catalogs.NotOurs as error:
                say(f"not used: {error}")
    elif network is not None and not asked.catalog:
        files = record_files(network, asked.record, asked.api_url)
        for name in asked.tables:
            file = need(files, name, asked.record)
            path = fetched_file(network, file.url, asked.output_dir / CATALOGS / name, file.checksum)
            found.append(catalogs.recognize(path))
    for line in (line for each in found for line in catalogs.describe(each)):
        say(line)
    return found


def configs_of(asked: argparse.Namespace, plan: Plan) -> list[str]:
    """What is to be built: as asked for, else all that there are catalogues of."""
    possible = [name for name in CONFIGS if plan.of_kind(name)]
    if missing := [name for name in asked.configs or () if name not in possible]:
        raise UserError(
            f"config {missing[0]} needs a catalogue with {NEEDS[missing[0]]}: --catalog FILE, or in --local_data_path"
        )
    return [name for name in CONFIGS if name in (asked.configs or possible)]


def build_all(asked: argparse.Namespace, command: list[str]) -> int:
    """Build the datasets; returns the worst exit status."""
    remote = asked.local_data_path is None
    with Fetcher(asked.max_connections, max_bytes=1 << 40) as network:
        tables = network if remote and "default" in (asked.configs or CONFIGS) else None
        plan = Plan(Options.from_arguments(asked), tuple(find_catalogs(asked, tables)), asked.decode, tuple(command))
        configs = configs_of(asked, plan)
        if not configs:
            raise UserError("nothing to build: no catalogue of Galaxy Zoo DECaLS")
        joined = catalogs.joined_of(plan.of_kind("default")) if plan.of_kind("default") else None
        statuses = []
        if "default" in configs and remote:
            statuses.append(build_remote(plan, joined, asked, network))
        elif "default" in configs:
            folder = asked.local_data_path
            images = images_below(folder)
            making = plan.making("default", str(folder), fingerprint(images, joined.keys))
            statuses.append(build_pictured(SURVEY, PICTURE, joined, lambda: images, making))
    for config in configs:
        if config.startswith("rings"):
            statuses.append(build_rings(plan, config, joined))
        elif config == "representations":
            statuses.append(build_representations(plan, joined))
    return max(statuses)


def add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    # fmt: off
    add = parser.add_argument_group("catalogues and images").add_argument
    add("--local_data_path", type=Path, metavar="DIR", help="catalogues and images (files, ZIP archives) below this "
        "folder; nothing is downloaded")
    add("--catalog", type=Path, action="append", metavar="FILE", help="a catalogue: votes, automatic votes or rings; may be "
        "given several times (default: those in the folder, or in the record)")
    add("--representations", type=Path, metavar="FILE", help="vectors by iauname, such as cnn_features_decals.parquet")
    add("--configs", nargs="+", choices=tuple(CONFIGS), metavar="NAME", help=f"what to build: {', '.join(CONFIGS)} "
        "(default: all that the catalogues allow)")
    add("--decode", action="store_true", help="store pixels, uint8 RGB, instead of the images' own PNG or JPEG bytes")
    add("--api_url", type=without_login, default=API_URL, metavar="URL", help="Zenodo's record API (default: %(default)s)")
    add("--record", default=RECORD, metavar="ID", help="Zenodo record (default: %(default)s)")
    add("--tables", nargs="+", default=TABLES, metavar="NAME", help="catalogues of the record (default: %(default)s)")
    add("--archives", nargs="+", default=ARCHIVES, metavar="NAME", help="image archives of the record (default: all four)")
    add("--keep_archives", action="store_true", help=f"keep the downloaded archives in <output_dir>/{RAW}; by default "
        "each is deleted once its images are in the partitions")
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
    from skyset.build_scripts.gz_decals.build_parent_sample import main

    sys.exit(main())
