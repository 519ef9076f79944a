"""Which rows of the joined catalogues become objects: those with a name, a position, and an image where there are images."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyset.building.imagefiles import Images, Place, pixels_of, read_image
from skyset.building.images_and_votes.release import SPLIT
from skyset.building.options import Options
from skyset.building.staged_rows import IMAGE, stage
from skyset.building.task import Found, Item, Rejected
from skyset.errors import RecordError, UserError
from skyset.files import write_atomically
from skyset.messages import csv_cell, say
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
from skyset.sky import check_position, healpix_cell
from skyset.splits import SPLITS, split_of
from skyset.survey import Column, Survey
from skyset.tables.join import Joined

#: Images that no catalogue knows: a release has more of them than of votes, so that they are no fault of a build.
UNUSED = "unused.csv"
#: A name that names a file and nothing else, also where there is a file per object.
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
NO_IMAGE = "in the catalogue, but there is no image of it"


class NothingToBuild(UserError):
    """No row of the catalogues becomes an object."""


class Choice(NamedTuple):
    """Rows of a catalogue that become objects, and those that cannot."""

    rows: list[int]
    rejected: list[Rejected]


def choose(
    joined: Joined, names: Column, available: Mapping | None, problems: Mapping[str, tuple[str, str]], limit: int | None
) -> Choice:
    """The first ``limit`` rows that have a name and a position, and an image where there are images.

    Args:
        names: the column that takes the rows' names.
        available: names of the objects that have an image; None where none is needed.
        problems: (file, why) of images that cannot be used, by name.
    """
    choice = Choice([], [Rejected(*each) for each in joined.rejected])
    for row, (key, ra, dec) in enumerate(
        zip(joined.keys, joined.values["ra"].tolist(), joined.values["dec"].tolist(), strict=True)
    ):
        if limit is not None and len(choice.rows) == limit:
            break
        try:
            if not _NAME.fullmatch(key):
                raise RecordError(f"a row whose name cannot be one: {key[:80]!r}")
            names.coerce(key)
            check_position(ra, dec)
        except RecordError as error:
            choice.rejected.append(Rejected(key, "", str(error)))
            continue
        if available is None or key in available:
            choice.rows.append(row)
        else:  # most rows, while their archives are still to come
            choice.rejected.append(Rejected(key, *problems.get(key, ("", NO_IMAGE))))
    return choice


def splits_of(joined: Joined, seed: str) -> list[str]:
    """The split of each row: the published one where the catalogue has it, else by the name."""
    published = joined.values.get(SPLIT.name, np.zeros(len(joined.keys), "S1")).astype(str).tolist()
    published = ["validation" if split == "val" else split for split in published]
    return [known if known in SPLITS else split_of(key, seed) for key, known in zip(joined.keys, published, strict=True)]


def items_of(joined: Joined, rows: Sequence[int], images: Images | None, staged: Path, seed: str) -> list[Item]:
    """An item a row: where its image is, and the number of its staged row."""
    splits = splits_of(joined, seed)
    cells = healpix_cell(joined.values["ra"][rows], joined.values["dec"][rows]).tolist() if len(rows) else []
    items = []
    for number, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        key = joined.keys[row]
        place = images.places[key] if images is not None else Place(staged)
        made_of = images.checksums.get(place.path) if images is not None else None
        items.append(Item(key, str(place.path.absolute()), cell, None, (number, place.member), splits[row], made_of))
    return items


def stage_rows(path: Path, survey: Survey, joined: Joined, rows: Sequence[int]) -> None:
    """Write the chosen rows of all columns but image and cell; ``object_id`` is the row's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [c for c in survey.columns if c.name not in (IMAGE, "healpix")]
    values = {name: array[rows] for name, array in joined.values.items()}
    values["object_id"] = np.array([joined.keys[row] for row in rows], bytes)
    stage(path, columns, values)


def with_columns(survey: Survey, names: Sequence[str], image: Column | None) -> Survey:
    """The survey as a build has it that has these of its optional columns, and this image."""
    columns = [column for column in survey.columns if column.name in names and column.name != IMAGE]
    return survey.as_built([*columns, *([image] if image else [])])


def image_column(column: Column, images: Images, decode: bool, root: Path) -> Column:
    """The column of images as stored: bytes, or pixels of the size of the first image that can be read.

    Raises:
        UserError: none can be, and no earlier build tells.
    """
    if not decode:
        return column
    for place in images.places.values():
        try:
            pixels = pixels_of(*read_image(place))
        except RecordError:
            continue
        return dataclasses.replace(column, dtype=pixels.dtype.name, shape=pixels.shape)
    earlier = Manifest.load(root).columns if (root / MANIFEST).exists() else []
    if known := next((c for c in earlier if c.name == column.name and not c.is_bytes), None):
        return known
    raise UserError("no image can be read: nothing tells the size of their pixels")


def write_unused(root: Path, images: Images, keys: set[str]) -> int:
    """``unused.csv``: images of no galaxy in the catalogues, and second ones; their number."""
    unused = [(stem, str(place.path), "in no catalogue") for stem, place in images.places.items() if stem not in keys]
    unused += [each for each in images.problems if each[0] in images.places or each[0] not in keys]
    if not unused:
        (root / UNUSED).unlink(missing_ok=True)
        return 0
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", "file", "reason"])
    table.writerows([csv_cell(text) for text in row] for row in sorted(unused))
    write_atomically(root / UNUSED, text.getvalue())
    return len(unused)


def found_pictured(
    survey: Survey, joined: Joined, images: Images | None, staged: Path, options: Options, last: bool = True
) -> Found:
    """The rows of a catalogue that become objects: staged, with their images.

    Args:
        survey: as this build has it.
        joined: the catalogue, with ra and dec.
        images: by the rows' names; None where the survey goes without.
        staged: where the prepared rows go.
        options: of the build.
        last: whether rows without an image are rejected; those of an archive that is still to come may have one.

    Raises:
        NothingToBuild: no row becomes one.
    """
    problems = {stem: (file, reason) for stem, file, reason in images.problems} if images else {}
    names = survey.column("object_id")
    choice = choose(joined, names, images.places if images else None, problems, options.limit)
    if not choice.rows:
        what = "a position and an image" if images else "a position"
        raise NothingToBuild(f"nothing to build: none of {len(joined.keys)} galaxies of the catalogues has {what}")
    rejected = [each for each in choice.rejected if last or each.reason != NO_IMAGE]
    if images is not None:
        rejected += [Rejected(*each) for each in images.archives]
        if options.limit is None and (unused := write_unused(options.output_dir, images, set(joined.keys))):
            say(f"{unused} images are of no galaxy in the catalogues, or second ones: {options.output_dir / UNUSED}")
    stage_rows(staged, survey, joined, choice.rows)
    found = Found(items_of(joined, choice.rows, images, staged, survey.name), rejected, survey)
    return dataclasses.replace(found, fetch=images.fetch) if images is not None and images.fetch else found
