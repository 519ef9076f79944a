"""What a finished folder was made with, and what is asked for now: refused before anything in the folder changes."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from skyset.build_scripts.megacam_iqa.representative import check_layout
from skyset.building.agreement import ARCHIVE, SOURCE, refuse_other_options
from skyset.errors import PartitionError, UserError
from skyset.extraction.som.groups import Groups, check_clusters
from skyset.files import file_sha256
from skyset.loaders.megacam_iqa import CONFIGS, FEATURES, MAP, MAP_FEATURES
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition

#: How exposures of the archive are chosen; --ids chooses among files too.
_OF_ARCHIVE = ("program", "dates", "filter", "adql", "datalink", "sync")


def check_map(asked: argparse.Namespace) -> None:
    """Say before anything is measured what cannot be meant of the map.

    Raises:
        UserError: it cannot be made, or laid out, or is made already and asked for otherwise.
        MissingPackage: a package that it needs is not installed.
    """
    check_layout(asked.map, asked.stamp)
    if len(set(asked.features)) < len(asked.features):
        raise UserError(f"--features {' '.join(asked.features)}: each feature once")
    if asked.som is None:
        check_clusters(asked.clusters, asked.map)
        return
    own = {"--map": asked.map != MAP, "--clusters": asked.clusters, "--features": tuple(asked.features) != MAP_FEATURES}
    if given := [name for name, said in own.items() if said]:
        raise UserError(f"--som has a map that is made already: leave out {given[0]}, or --som")


def check_sources(asked: argparse.Namespace) -> None:
    """UserError where exposures of one's own are to be chosen as the archive's are, or there is no folder of catalogues."""
    if asked.local_data_path is not None and (given := [name for name in _OF_ARCHIVE if getattr(asked, name)]):
        raise UserError(f"--{given[0]} asks the archive, --local_data_path takes what is in a folder: leave out one of them")
    if asked.ldac is not None and not asked.ldac.is_dir():
        raise UserError(f"--ldac {asked.ldac}: there is no such folder")


def map_given(path: Path | None) -> Groups | None:
    """The map of ``--som``.

    Raises:
        UserError: it is none, or is of what sources do not have.
    """
    if path is None:
        return None
    groups = Groups.load(path)
    if unknown := [name for name in groups.scaling.features if name not in FEATURES]:
        raise UserError(f"{path} is of {', '.join(unknown)}, which sources do not have: {', '.join(FEATURES)}")
    return groups


def options_that_count(asked: argparse.Namespace, given: Groups | None) -> dict[str, object]:
    """The options with which other rows would be made, by name, for the manifest; ``given``: the map of ``--som``."""
    here = given is None
    return {
        SOURCE: ARCHIVE,
        "--tiny": bool(asked.tiny),
        "--som": None if given is None else f"{asked.som.name} ({given.digest()})",
        "--map": "x".join(map(str, asked.map)) if here else None,
        "--clusters": asked.clusters if here else None,
        "--features": list(asked.features) if here else None,
        "--seed": asked.seed,
        "--split_by_object": asked.split_by_object,
        "--stamp": asked.stamp,
        "-c": f"{asked.config.name} ({file_sha256(asked.config)[:16]})" if asked.config else None,
        "--set": list(asked.set) or None,
    }


def refuse_others(root: Path, said: dict[str, object], overwrite: bool) -> None:
    """UserError where the folder's datasets were built with other options, which is said with the first of them."""
    refuse_other_options(root, list(CONFIGS), list(CONFIGS), said, overwrite)


def refuse_to_lose(root: Path, wanted: Collection[str]) -> None:
    """UserError where the folder has exposures that are not wanted any more."""
    folder = root / "representative"
    if not (folder / MANIFEST).exists():
        return
    there: set[str] = set()
    for entry in Manifest.load(folder).files:
        try:
            with Partition(folder / entry.path, [CONFIGS["representative"].column("FITS_ID")]) as partition:
                there.update(partition.text("FITS_ID"))
        except PartitionError:
            continue  # it is made again
    if lost := sorted(there.difference(wanted)):
        raise UserError(
            f"{root} holds exposures that this selection leaves out, such as {lost[0]} ({len(lost)} in all): "
            "choose another folder, or --overwrite to drop them"
        )
