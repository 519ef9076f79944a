"""What a command is given: the name of a survey, or a folder, and what lies there."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyset.errors import UserError
from skyset.loading import registry
from skyset.loading.places import looked_in
from skyset.messages import say
from skyset.partitions.layout import MANIFEST
from skyset.survey import Survey

if TYPE_CHECKING:
    from skyset.explore.report.sample import Build
    from skyset.partitions.manifest import Manifest


def survey_names(incomplete: str) -> list[str]:
    return [name for name in registry.surveys() if name.startswith(incomplete)]


SurveyName = Annotated[
    str, typer.Argument(metavar="SURVEY", help="a name that `skyset surveys` lists", autocompletion=survey_names)
]


Where = Annotated[
    str,
    typer.Argument(
        metavar="DIR|SURVEY",
        help="a folder of partitions, or a survey whose folder is found (`skyset surveys`)",
        autocompletion=survey_names,
    ),
]


def partitions_of(given: str) -> str:
    """The folder of a survey's partitions: as it is given, or where a survey of this name is found.

    A folder whose datasets lie below it, each with a manifest, stands for the first of them; the others are told.

    Raises:
        UserError: there are none, and where they were looked for; or nothing of this name is known.
    """
    found = named(given)
    below = {} if "://" in found or (Path(found) / MANIFEST).exists() else registry.folders_below(found)
    if len(below) > 1:
        first, *others = below.values()
        say(f"{first}; of the same survey: {', '.join(others)}", file=sys.stderr)
    return next(iter(below.values()), found)


def manifest_of(folder: str | Path) -> Manifest:
    from skyset.partitions.manifest import Manifest

    return Manifest.load(folder)


def published_at(given: str) -> tuple[str, Survey, Manifest] | None:
    """The first dataset of a folder of published files, which are read where they lie; the others are told."""
    from skyset.loading.in_place import lying_in

    if registry.is_known(given):
        return None
    lying = lying_in(given)
    first, *others = list(lying) if lying else [""]
    if others:
        say(f"{lying[first][2].survey} {first}; in the same folder: {', '.join(others)}", file=sys.stderr)
    return lying.get(first)


def parquet_at(given: str) -> tuple[str, Survey, Manifest] | None:
    """The rows of a local HATS catalogue, or of a folder of Parquet files; None where neither is meant."""
    from skyset.loading.found import opened

    folder = Path(given).expanduser()
    if registry.is_known(given) or (folder / MANIFEST).exists() or registry.folders_below(folder):
        return None
    return opened(given) if registry.is_catalogue(folder) or registry.has_parquet(folder) else None


def how_to_convert(manifest: Manifest) -> str:
    folder = manifest.sources[0]
    return f"`skyset build {manifest.survey} --local_data_path {folder} -o DIR` checks them and makes partitions of them"


def named(given: str) -> str:
    folder = Path(given).expanduser()
    if registry.is_known(given) and folder.is_dir() and not (folder / MANIFEST).is_file():
        folder = folder / MANIFEST  # a folder of this name with something else in it, such as the survey's own loader
    if "://" in given or folder.is_dir() or not re.fullmatch(r"\w+", given):
        return given if "://" in given else str(folder)
    if (index := registry.index_named(given)) is not None:
        return index
    if not registry.is_known(given):
        known = ", ".join(registry.surveys())
        nowhere = f"no {MANIFEST} in {given}: no folder here and no adopted tree has this name"
        raise UserError(f"unknown survey {given!r}; known: {known}; and {nowhere}")
    registry.loader(given)
    root = registry.find_root(given)
    if root is None:
        raise UserError(
            f"no {given} partitions found: name their folder, or `{registry.how_to_make(given)}` first; {looked_in(given)}"
        )
    return root


def not_found(survey: str) -> str:
    raise UserError(f"no {survey} partitions found: name their folder with --data_dir; {looked_in(survey)}")


def build_of(given: str) -> Build:
    """A dataset to report on: partitions, HATS, what ``skyset push`` made, or published files where they lie."""
    from skyset.explore.report.sample import Build
    from skyset.loading.found import opened

    if found := published_at(given):
        root, survey, manifest = found
        return Build(root, manifest, survey)
    root = partitions_of(given)
    try:
        manifest = manifest_of(root)
    except UserError:
        root, survey, manifest = opened(root)
        places = getattr(survey.opens, "places", survey.by_name)  # a push without --every_column leaves some out
        columns = [column for column in manifest.columns if column.name in places]
        key = next((name for name in (manifest.key, "object_id") if name in places), "")
        return Build(root, replace(manifest, columns=columns, key=key), survey)
    known = registry.has_config(manifest.survey, manifest.config)
    if manifest.is_adopted:
        root, survey, manifest = opened(root)
        return Build(root, manifest, survey)
    return Build(root, manifest, registry.survey(manifest.survey, manifest.config) if known else None)
