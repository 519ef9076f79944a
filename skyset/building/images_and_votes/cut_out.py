"""Datasets that are cut out of another one, which has their images, positions and splits."""

from __future__ import annotations

from pathlib import Path

from skyset.building.built_rows import built_rows
from skyset.building.images_and_votes.objects import NothingToBuild
from skyset.building.images_and_votes.release import Selection
from skyset.building.staged_rows import IMAGE, stage
from skyset.building.task import Found, Item, Rejected
from skyset.partitions.manifest import Manifest
from skyset.survey import Survey

#: What a dataset takes from the one that it is cut out of.
TAKEN = ("object_id", "ra", "dec", IMAGE)


def cut_out(survey: Survey, root: Path, manifest: Manifest, selected: Selection, staged: Path, limited: bool) -> Found:
    """The selected rows that are objects of a built dataset, with images and positions from there.

    Args:
        survey: what is cut out.
        root, manifest: the built dataset.
        selected: the rows.
        staged: where the prepared rows go.
        limited: the dataset is a part of what there is: rows that are not in it are no fault.

    Raises:
        NothingToBuild: none of them is there.
    """
    joined, rows, _ = selected
    present = [column for column in manifest.columns if column.name in TAKEN]
    survey = survey.as_built([*present, *(survey.column(name) for name in joined.values if name in survey.by_name)])
    built, items, rejected = built_rows(root, manifest), [], [Rejected(*each) for each in joined.rejected]
    wanted: list[int] = []
    for row in rows:
        key = joined.keys[row]
        if place := built.get(key):
            items.append(Item(key, str(place.file), place.healpix, None, (place.row, len(wanted)), place.split))
            wanted.append(row)
        elif not limited:
            rejected.append(Rejected(key, "", f"not among the objects of {root.name}: see the rejected.csv there"))
    if not items:
        raise NothingToBuild(f"nothing to build: none of the {len(rows)} galaxies of the catalogue is in {root}")
    columns = [c for c in survey.columns if c.name not in (*TAKEN, "healpix")]
    staged.parent.mkdir(parents=True, exist_ok=True)
    stage(staged, columns, {c.name: joined.values[c.name][wanted] for c in columns})
    return Found(items, rejected, survey)
