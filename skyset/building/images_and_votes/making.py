"""How one dataset of a survey of images and votes is built: all objects, some cut out of them, or vectors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skyset.building.build import build
from skyset.building.imagefiles import Images
from skyset.building.images_and_votes.cut_out import TAKEN, cut_out
from skyset.building.images_and_votes.objects import NothingToBuild, found_pictured, image_column, with_columns
from skyset.building.images_and_votes.release import Selection
from skyset.building.options import Options
from skyset.building.staged_rows import IMAGE, read_cut, read_pictured
from skyset.building.task import Found
from skyset.messages import say
from skyset.partitions.manifest import Manifest
from skyset.survey import Survey
from skyset.tables.join import Joined


@dataclass(frozen=True)
class Making:
    """How one dataset of a survey is made.

    Args:
        options: of the build; the output folder is the dataset's.
        command: what the user typed.
        made_of: digest of the catalogues and options that the rows depend on.
        sources: where the data come from.
        notes: for the manifest.
        decode: pixels instead of the images' bytes.
    """

    options: Options
    command: Sequence[str]
    made_of: str
    sources: Sequence[str]
    notes: Mapping = field(default_factory=dict)
    decode: bool = False

    @property
    def staged(self) -> Path:
        """Where the prepared rows are while the build runs; what a killed one left, the next removes."""
        return self.options.output_dir.absolute() / f".staged.{os.getpid()}.tmp"

    def run(self, survey: Survey, read: Callable, find: Callable[[], Found]) -> int:
        """Build what ``find`` finds (while the folder is locked); the staged rows are removed at the end."""

        def complete(*_) -> Found:
            notes = {"made_of": self.made_of, **self.notes}
            return dataclasses.replace(find(), sources=self.sources, notes=notes, made_of=self.made_of)

        try:
            return build(survey, read, self.options, complete, self.command)
        finally:
            self.staged.unlink(missing_ok=True)


def build_pictured(
    survey: Survey, joined: Joined, images: Callable[[], Images] | None, making: Making, last: bool = True
) -> int:
    """Build the objects that have a row and an image.

    Args:
        survey: its declaration; the columns that the catalogue has not are left out.
        joined: the catalogue, with ra and dec.
        images: gives the images by the rows' names; None where the survey goes without.
        making: how.
        last: whether rows without an image are rejected; an archive that is still to come may have it.

    Returns:
        the exit status.
    """

    def find() -> Found:
        at_hand = images() if images else None
        root = making.options.output_dir
        image = image_column(survey.column(IMAGE), at_hand, making.decode, root) if at_hand is not None else None
        shaped = with_columns(survey, [*joined.values], image)
        return found_pictured(shaped, joined, at_hand, making.staged, making.options, last)

    return making.run(survey, functools.partial(read_pictured, rows=making.staged, decode=making.decode), find)


def build_cut(survey: Survey, root: Path, selected: Selection, making: Making) -> int:
    """Build some rows of the catalogues, with images, positions and splits from the dataset in ``root``.

    Where the build is limited, a dataset that has none of them is left out, with a line that says so.
    """
    manifest = Manifest.load(root)
    columns = tuple(c for c in manifest.columns if c.name in TAKEN)
    read = functools.partial(read_cut, rows=making.staged, columns=columns)
    notes = {**making.notes, **({"selection": selected.cuts} if selected.cuts else {})}
    making = dataclasses.replace(making, made_of=f"{making.made_of} {manifest.build.get('made_of')}", notes=notes)
    limited = making.options.limit is not None
    try:
        return making.run(survey, read, lambda: cut_out(survey, root, manifest, selected, making.staged, limited))
    except NothingToBuild as error:
        if not limited:
            raise
        say(f"not built: {making.options.output_dir.name} ({error})")
        with contextlib.suppress(OSError):
            making.options.output_dir.rmdir()  # only where it is empty
        return 0


def build_vectors(survey: Survey, joined: Joined, vectors: np.ndarray, making: Making) -> int:
    """Build representations, float32 (rows, length), one per row of the catalogue."""
    name = next(column.name for column in survey.columns if column.name in survey.shaped_by_build)
    shaped = survey.as_built([dataclasses.replace(survey.column(name), shape=vectors.shape[1:])])
    rows = Joined(joined.keys, joined.values | {name: vectors}, joined.rejected)
    read = functools.partial(read_pictured, rows=making.staged)
    return making.run(survey, read, lambda: found_pictured(shaped, rows, None, making.staged, making.options))
