"""Build MegaCam image quality: from exposures of CFHT's MegaCam to representative images and hits of their CCDs.

    skyset build megacam_iqa --tiny                                            # simulated exposures: all steps in a minute
    skyset build megacam_iqa --labels labels.json -o data/megacam              # those that have a label, from CADC
    skyset build megacam_iqa --ids 979412p 979413p --labels labels.json
    skyset build megacam_iqa --local_data_path FOLDER --labels labels.csv --map 15x16 --clusters 20

First each exposure by itself: fetched (350 MB, deleted again), trimmed, its sources found and measured. Then exposures are
split into training, validation and test, the map is made of the sources of training exposures, and each CCD becomes an
image of one cutout a group, with hits: how many of its sources are in each. It can be interrupted at any moment: the same
command goes on from what is complete. In the output folder lie ``representative`` and ``sources``, each a dataset with its
manifest; objects_catalog.parquet, all sources; LDAC/*.ldac, which PSFEx and SCAMP read if --for_psfex was said; som/, the
map and its pictures; catalog/, what is known of each exposure.
"""

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skyset.archives.fetch import Fetcher
from skyset.build_scripts.megacam_iqa.agreed import (
    check_map,
    check_sources,
    map_given,
    options_that_count,
    refuse_others,
    refuse_to_lose,
)
from skyset.build_scripts.megacam_iqa.catalog import CATALOGUE
from skyset.build_scripts.megacam_iqa.datasets import write_datasets
from skyset.build_scripts.megacam_iqa.grouping import PICKS, Grouping, draw_map, is_here, make_map, pictures, take_map
from skyset.build_scripts.megacam_iqa.labels import NONE, Labels, observation, read_labels, tell_labels
from skyset.build_scripts.megacam_iqa.own import Own
from skyset.build_scripts.megacam_iqa.passes import Passes, configuration_asked
from skyset.build_scripts.megacam_iqa.representative import layout
from skyset.build_scripts.megacam_iqa.sources import COLUMNS, FOR_PSFEX, PUBLISHED, How
from skyset.build_scripts.megacam_iqa.staged import SOM, Staged
from skyset.build_scripts.megacam_iqa.tiny import EXPOSURES, simulated
from skyset.building.alone import alone
from skyset.building.exposures import add_cadc_options
from skyset.building.options import Options, positive_integer
from skyset.building.script import Script, run_as_file
from skyset.errors import UserError
from skyset.extraction.engines import need_compiled
from skyset.extraction.som.groups import Groups
from skyset.files import short_digest
from skyset.loaders.megacam_iqa import CLASSES, FEATURES, MAP, MAP_FEATURES, STAMP, SURVEY
from skyset.splits import SPLITS, split_of, stratified

SHARES = (0.7, 0.15, 0.15)
FEWEST = 4


def map_shape(text: str) -> tuple[int, int]:
    """``4x5``: rows and columns."""
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise argparse.ArgumentTypeError(f"rows and columns are meant, such as 4x5, not {text!r}")
    return positive_integer(rows), positive_integer(columns)


def splits_of(fits_ids: Iterable[str], labels: Labels, asked: argparse.Namespace) -> dict[str, str]:
    """The split of each observation, the same shares of every class.

    Raises:
        UserError: a class has fewer than four exposures, unless that was allowed.
    """
    classes = {observation(each): labels.class_of(each) for each in fits_ids}
    names = dict(enumerate(CLASSES)) | {NONE: "no label"}
    few = {names[kind]: count for kind, count in sorted(Counter(classes.values()).items()) if count < FEWEST}
    if few and not asked.allow_few_exposures and not asked.split_by_object:
        said = ", ".join(f"{count} of {name}" for name, count in few.items())
        raise UserError(
            f"training, validation and test need {FEWEST} exposures of a class, there are {said} (--allow_few_exposures)"
        )
    return stratified({each: str(kind) for each, kind in classes.items()}, f"megacam_iqa {asked.seed}", SHARES)


def build(asked: argparse.Namespace, options: Options, command: Sequence[str]) -> int:
    """Build what was asked for; returns the exit status."""
    check_map(asked)
    check_sources(asked)
    need_compiled("finding and grouping sources")
    root = options.output_dir
    with (
        simulated(asked) as asked,
        alone(root),
        Fetcher(max_connections=1) if asked.local_data_path is None else contextlib.nullcontext() as network,
    ):
        drawn = pictures(root, asked.clusters is not None)
        Own(root).refuse([root / CATALOGUE, *drawn, *([] if is_here(root, asked.som) else [root / SOM / "som.npz"])])
        labels = read_labels(asked.labels)
        columns = (*COLUMNS, *FOR_PSFEX) if asked.for_psfex else COLUMNS
        given, how = map_given(asked.som), How(configuration_asked(asked), columns, asked.stamp)
        counting = options_that_count(asked, given)
        refuse_others(root, counting, options.overwrite)
        passes = Passes(asked, options, labels, how, network)
        if not options.overwrite:
            refuse_to_lose(root, passes.wanted)
        splits_of(passes.wanted, labels, asked)  # too few, before hours of measuring; after it there may be fewer still
        passes.run()
        passes.tell()
        exposures = passes.measured()
        tell_labels(labels, [each.fits_id for each in exposures], [each.key for each in passes.rejected])
        of_exposure = splits_of([each.fits_id for each in exposures], labels, asked)
        training = [e for e in exposures if asked.split_by_object or of_exposure[observation(e.fits_id)] == SPLITS[0]]
        if given is None:
            groups = make_map(root, training, asked.features, asked.map, asked.clusters, asked.seed)
        else:
            groups = take_map(root, asked.som, given)
        draw_map(root, groups)
        digest = short_digest(f"{groups.digest()} {asked.pick} {asked.seed} {asked.split_by_object}")
        shape = layout(groups.count, (groups.som.rows, groups.som.columns))
        grouping = Grouping(root, groups, digest, shape, asked.seed, asked.pick, asked.stamp)
        by_object = f"megacam_iqa {asked.seed}"

        def side(fits_id: str, key: str) -> str:
            return split_of(key, by_object, SHARES) if asked.split_by_object else of_exposure[observation(fits_id)]

        notes = noted(asked, exposures, labels, groups, of_exposure) | passes.notes() | {"asked": counting}
        return write_datasets(passes, options, command, grouping, labels, side, notes)


def noted(asked, exposures: Sequence[Staged], labels: Labels, groups: Groups, splits: Mapping[str, str]) -> dict[str, Any]:
    """What the manifest says of the build."""
    kinds = Counter(labels.class_of(each.fits_id) for each in exposures)
    training = groups.som.training
    return {
        "simulated": bool(asked.tiny),
        "exposures": len(exposures),
        "classes": {(CLASSES[kind] if kind >= 0 else "no label"): count for kind, count in sorted(kinds.items())},
        "split_by": "object: rows of one exposure are on both sides, only to show the leak"
        if asked.split_by_object
        else "exposure",
        "exposures_by_split": dict(Counter(splits.values())),
        "seed": asked.seed,
        "map": {
            "units": f"{groups.som.rows}x{groups.som.columns}",
            "groups": groups.count,
            "features": list(groups.scaling.features),
            "quantisation_error": training.quantisation_error if training else None,
            "topographic_error": training.topographic_error if training else None,
            "given": asked.som is not None,
        },
        "stamp": asked.stamp,
        "pick": asked.pick,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    add = parser.add_argument_group("exposures").add_argument
    add("--local_data_path", type=Path, metavar="DIR", help="take those in this folder (.fits, .fits.fz, .fits.gz)")
    add("--keep_raw", action="store_true", help="keep downloaded files in <output_dir>/raw (350 MB each)")
    add_cadc_options(add)
    add = parser.add_argument_group("labels and splits").add_argument
    add("--labels", type=Path, metavar="FILE", help='JSON {"annotations": {"979412": "BGP, BT"}}, or CSV FITS_ID,label')
    add("--seed", type=int, default=0, metavar="N", help="of splits, map and draws (default: %(default)s)")
    add("--allow_few_exposures", action="store_true", help=f"also with fewer than {FEWEST} exposures of a class")
    add("--split_by_object", action="store_true", help="rows of one exposure on both sides: only to show the leak")
    add = parser.add_argument_group("sources").add_argument
    published = ", ".join(f"{key} {value}" for key, value in PUBLISHED.items())
    add("-c", "--config", type=Path, metavar="FILE", help=f"SExtractor's configuration (default: {published})")
    add("--set", nargs="+", default=(), metavar="KEY=VALUE", help="keywords that come before those")
    add("--ldac", type=Path, metavar="DIR", help="take SExtractor's catalogues in DIR, 979412p.ldac, where there are")
    add("--for_psfex", action="store_true", help="LDAC files with what PSFEx and SCAMP ask for: 5 kB a source more")
    add = parser.add_argument_group("map and images").add_argument
    add("--map", type=map_shape, default=MAP, metavar="RxC", help="rows and columns of the map (default: 4x5)")
    add("--clusters", type=positive_integer, metavar="N", help="N clusters of the map's units as groups (k-means)")
    add(
        "--features",
        nargs="+",
        choices=FEATURES,
        default=MAP_FEATURES,
        metavar="NAME",
        help=f"of the map, out of {', '.join(FEATURES)} (default: all but FWHM); not EXPTIME, which names the exposure",
    )
    add("--som", type=Path, metavar="FILE", help="take this map (som/som.npz of another build)")
    add("--stamp", type=positive_integer, default=STAMP, metavar="N", help="pixels of a cutout's side (default: 24)")
    add("--pick", choices=PICKS, default="random", help="which source of a group is shown (default: %(default)s)")
    add("--keep_staged", action="store_true", help="keep all cutouts (166 MB an exposure), to add exposures later")


SCRIPT = Script(__doc__, SURVEY, build, add_options, tiny=f"{EXPOSURES} simulated exposures: to try things out")
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("skyset.build_scripts.megacam_iqa.build_parent_sample")
