"""Several datasets of the same objects, such as images of two sizes and the table without them.

Each lies in a folder of its name with a manifest of its own. An object's row is cut out of a dataset that comes before it in
the declaration where that is here and has the object made of the same sample in the same way; else it is made of the sample
itself. So all of them are measured once, and one alone needs no other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from skyset.building.agreement import ARCHIVE, SOURCE, refuse_other_options
from skyset.building.build import build
from skyset.building.built_rows import Built, built_rows, read_rows
from skyset.building.cutouts.declaration import Cutouts
from skyset.building.cutouts.samples import read_records
from skyset.building.options import Options
from skyset.building.task import UNFIT, Found, Item, ReadTogether, Unfit
from skyset.errors import PartitionError, UserError
from skyset.partitions.layout import MANIFEST, SUFFIX
from skyset.partitions.manifest import Manifest
from skyset.survey import Column, Survey


def build_configs(
    cutouts: Cutouts,
    wanted: Sequence[str] | None,
    find: Callable[[], Found],
    options: Options,
    command: Sequence[str],
) -> int:
    """Build the datasets that were asked for, or all of them.

    Args:
        cutouts: the survey.
        wanted: names of its datasets.
        find: lists the samples; called once.
        options: those that all builds share; the output folder is the survey's.
        command: what the user typed.

    Returns:
        the worst exit status.

    Raises:
        UserError: as ``build``; a dataset that is there was built with other options.
    """
    find = functools.cache(find)
    names = [name for name in cutouts.configs if name in (wanted or cutouts.configs)]
    refuse_other_options(options.output_dir, list(cutouts.configs), names, _asked(cutouts), options.overwrite)
    status = 0
    for name in names:
        # Without the splits, which may be a long list: all that workers are sent is sent with every partition.
        sent = dataclasses.replace(cutouts, splits=None)
        read = ReadTogether(functools.partial(read_objects, cutouts=sent, name=name), cutouts.together)
        here = dataclasses.replace(options, output_dir=options.output_dir / name)
        part = functools.partial(_found, cutouts, name, find, options.output_dir, first=name == names[0])
        status = max(status, build(cutouts.configs[name].survey, read, here, lambda *_, part=part: part(), command))
    return status


def _asked(cutouts: Cutouts) -> dict[str, object]:
    return {SOURCE: ARCHIVE, **(cutouts.asked or {f"--{name}": value for name, value in cutouts.settings.items()})}


def _found(cutouts: Cutouts, name: str, find: Callable[[], Found], root: Path, first: bool) -> Found:
    """The objects of one dataset; the list that they are from is put in its place when the first one is complete."""
    found = find()
    items = list(found.items)
    for place, larger in enumerate(itertools.takewhile(lambda each: each != name, cutouts.configs)):
        rows = usable_rows(root / larger, cutouts.configs[larger].survey, found.made_of)
        items = [_cut(item, rows.get(item.key), place) for item in items]
    notes = {**found.notes, "config": name, "settings": dict(cutouts.settings), "asked": _asked(cutouts)}
    notes["made_of"] = found.made_of
    complete = found.complete if first else (lambda: None)
    return dataclasses.replace(found, items=items, notes=notes, complete=complete)


def usable_rows(root: Path, survey: Survey, made_of: str) -> Mapping[str, Built]:
    """The rows of a dataset by key, if it is here, has the columns that it is declared with, and is made as wanted.

    Files that somebody wrote to since then are left out, as a build does that takes up a folder.
    """
    try:
        manifest = Manifest.load(root)
        if manifest.survey != survey.name or manifest.build.get("made_of") != made_of:
            return {}
        if _layout(manifest.columns) != _layout(survey.columns):
            return {}
        written = (root / MANIFEST).stat().st_mtime_ns
        manifest.files = [entry for entry in manifest.files if _is_as_written(root / entry.path, entry.bytes, written)]
        return built_rows(root, manifest)
    except (UserError, PartitionError):  # there is none, or it is damaged: the samples are here
        return {}


def _is_as_written(path: Path, size: int, written: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == size and max(status.st_mtime_ns, status.st_ctime_ns) < written


def _layout(columns: Sequence[Column]) -> list[tuple]:
    return [(column.name, column.dtype, column.shape) for column in columns]


def _cut(item: Item, built: Built | None, place: int) -> Item:
    if built is None or built.source != item.source or item.file.endswith(SUFFIX):
        return item
    return dataclasses.replace(item, file=str(built.file), address=(built.row, place))


def read_objects(
    objects: Sequence[tuple[Path, tuple[int, int]]], *, cutouts: Cutouts, name: str
) -> Iterator[Mapping | Unfit]:
    """Objects as rows of the dataset ``name``: of a larger one's partition by row and place, or of an archive's sample."""
    config, every = cutouts.configs[name], list(cutouts.configs.values())
    for place, group in itertools.groupby(objects, lambda each: each[1][1] if each[0].suffix == SUFFIX else -1):
        some = list(group)
        values: Iterator[Mapping | Unfit]
        if place < 0:
            values = read_records(some, cutouts=cutouts)
        else:
            columns = [column for column in every[place].survey.columns if column.name in config.survey.by_name]
            values = read_rows([(path, row) for path, (row, _) in some], columns)
        for each in values:
            yield each if isinstance(each, UNFIT) else config.cut(each)
