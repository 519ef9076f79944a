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
import functools
from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from skyset.build_scripts.sdss_galaxy_zoo import catalog
from skyset.building.cutouts.declaration import CatalogueSource, Chosen, Cutouts
from skyset.building.cutouts.hips import HipsImages, read_image
from skyset.building.cutouts.matched import MatchedCatalogues
from skyset.building.cutouts.options import above_zero, add_archive_options, add_hips_options, add_tap_options, share
from skyset.building.cutouts.plan import script
from skyset.building.cutouts.sources import FileCatalogue, TapCatalogue, asked_query, read_adql
from skyset.building.options import Options
from skyset.building.script import run_as_file
from skyset.errors import RecordError
from skyset.loaders import sdss_galaxy_zoo as sdss
from skyset.secrets import without_login
from skyset.tables.cuts import Cut, equals, given, max_error, on_sky, unique, valid_magnitudes

#: Arcsec. No galaxy of the Main Galaxy Sample is larger, and a cutout must be one on the sky.
LARGEST = 600
RADIUS, DEBIASED = "petroR90_r", {"spiral": "p_cs_debiased", "elliptical": "p_el_debiased"}


def source(asked: argparse.Namespace, options: Options) -> CatalogueSource:
    """Where the catalogue comes from: a file, one service, or votes at one and photometry at another."""
    if asked.catalog:
        return FileCatalogue(catalog.COLUMNS, asked.catalog)
    url = asked.tap_url or sdss.TAP_URL
    query = functools.partial(asked_query, asked, options)
    if asked.adql or asked.source == "zoospec":
        return TapCatalogue(catalog.COLUMNS, query(url, read_adql(asked.adql) if asked.adql else catalog.ZOOSPEC))
    votes_url = asked.votes_tap_url or asked.tap_url or sdss.VOTES_TAP_URL
    names = functools.partial(catalog.vizier_names, votes_url, asked.sync)
    votes = query(votes_url, catalog.VOTES, names=names, needed=catalog.VOTES_NEEDED, check=catalog.check_votes)
    photometry = query(url, catalog.TARGETS, needed=catalog.PHOTOMETRY_NEEDED)
    return MatchedCatalogues(catalog.COLUMNS, votes, photometry, catalog.RADIUS_ARCSEC, catalog.OVERLAP)


def cuts(asked: argparse.Namespace) -> list[Chosen]:
    """The cuts, in their order."""
    size = valid_magnitudes([RADIUS], 0, LARGEST).called("size", f"0 < {RADIUS} < {LARGEST} arcsec")
    made = [
        Chosen(("ra", "dec"), on_sky()),
        Chosen(("objid",), unique("objid")),
        Chosen((RADIUS,), size),
    ]
    if not (asked.catalog or asked.adql) and asked.source == "two":
        near = given("dr8objid").called("photometry", f"an SDSS object within {catalog.RADIUS_ARCSEC:g} arcsec")
        made.insert(1, Chosen(("dr8objid",), near))
    for kind in ("petroMag", "modelMag"):
        names = [f"{kind}_{band}" for band in sdss.BANDS]
        made.append(Chosen(names, valid_magnitudes(names).called(kind, f"0 < {kind} < 40 mag in {sdss.BANDS}")))
    for bands, limit in (("gri", asked.max_error_gri), ("uz", asked.max_error_uz)):
        names, text = [f"modelMagErr_{band}" for band in bands], f"modelMagErr <= {limit:g} mag in {bands}"
        made.append(Chosen(names, max_error(names, limit).called(f"errors {bands}", text)))
    made += [Chosen(("clean",), equals("clean", 1).called("clean", "clean = 1")), Chosen((), flagged(asked.classes))]
    if asked.min_debiased > 0:
        made.append(Chosen(tuple(DEBIASED.values()), confident(asked.min_debiased), "--min_debiased"))
    return made


def flags(batch) -> np.ndarray:
    """Which flags are set, bool (classes, rows); none where it is not just one."""
    found = np.stack([pc.fill_null(batch[name], 0).to_numpy(zero_copy_only=False) == 1 for name in sdss.CLASSES])
    return found & (found.sum(axis=0) == 1)


def flagged(classes: list[str]) -> Cut:
    """Just one flag is set, that of one of these classes."""
    wanted = [sdss.CLASSES.index(name) for name in classes]
    return Cut("class", f"flagged {' or '.join(classes)}", lambda batch: flags(batch)[wanted].any(axis=0))


def confident(least: float) -> Cut:
    """Spirals and ellipticals with at least this debiased fraction; an uncertain galaxy has no class to be sure of."""

    def keep(batch) -> np.ndarray:
        found = flags(batch)
        for place, name in enumerate(sdss.CLASSES):
            if name in DEBIASED:
                found[place] &= pc.fill_null(batch[DEBIASED[name]], np.nan).to_numpy(zero_copy_only=False) >= least
        return found.any(axis=0)

    return Cut("confidence", f"debiased fraction of its class >= {least:g}", keep)


def describe(row: Mapping) -> dict:
    """The label of a row: the flag that is set."""
    return {"label": next(place for place, name in enumerate(sdss.CLASSES) if row[name] == 1)}


def read(row: Mapping, members: Mapping[str, bytes]) -> dict:
    """The image of a galaxy; what was made for it has to be possible."""
    if row["label"] not in range(len(sdss.CLASSES)) or not (0 < row["fov"] < 180 and row["pixel_scale"] > 0):
        raise RecordError(f"label {row['label']}, fov {row['fov']}, pixel_scale {row['pixel_scale']} in its JSON")
    return {"image": read_image(members)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this survey."""
    add = parser.add_argument_group("catalogue").add_argument
    add(
        "--tap_url",
        type=without_login,
        metavar="URL",
        help=f"TAP service of the photometry, where given of the votes too (default: {sdss.TAP_URL})",
    )
    add(
        "--votes_tap_url",
        type=without_login,
        metavar="URL",
        help=f"TAP service of the votes alone (default: {sdss.VOTES_TAP_URL})",
    )
    add(
        "--source",
        choices=("two", "zoospec"),
        default="two",
        help="two: votes and photometry from two tables, joined by "
        "position here; zoospec: from one service that mirrors SDSS's own ZooSpec table (default: %(default)s)",
    )
    add_tap_options(add)
    add = parser.add_argument_group("selection").add_argument
    add(
        "--classes",
        nargs="+",
        choices=sdss.CLASSES,
        default=["spiral", "elliptical"],
        metavar="CLASS",
        help="spiral, elliptical, uncertain (default: spiral elliptical)",
    )
    add("--min_debiased", type=share, default=0.0, metavar="F", help="smallest debiased fraction of votes for its class")
    add("--max_error_gri", type=above_zero, default=0.1, metavar="MAG", help="largest modelMagErr in gri (%(default)s)")
    add("--max_error_uz", type=above_zero, default=0.5, metavar="MAG", help="largest modelMagErr in uz (%(default)s)")
    add = parser.add_argument_group("images").add_argument
    add_hips_options(add, sdss.HIPS, sdss.SIZE, sdss.MARGIN, RADIUS)
    add_archive_options(add)


CUTOUTS = Cutouts(
    survey=sdss.SURVEY,
    columns=catalog.COLUMNS,
    filtered="ZooSpecPhotoDR19_filtered.csv.gz",
    source=source,
    cuts=cuts,
    images=functools.partial(HipsImages.asked, radius=RADIUS),
    describe=describe,
    read=read,
    sql=catalog.CASJOBS,
)
SCRIPT = script(__doc__, CUTOUTS, add_options)
parser, main = SCRIPT.parser, SCRIPT.main

if __name__ == "__main__":
    run_as_file("skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample")
