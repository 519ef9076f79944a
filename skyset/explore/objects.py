"""What people look at: the table of a folder's contents, the sky it covers, one object with its masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyset.errors import PartitionError, UserError
from skyset.explore.row_pictures.figure import figure_of
from skyset.explore.row_pictures.images import seen
from skyset.explore.sheet import sheet_of
from skyset.loading import registry
from skyset.loading.reader import Piece, PieceReader, python_numbers, rows_of
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition
from skyset.partitions.tree.form import ADOPTED
from skyset.survey import Feature, Survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SKY_DEG2 = 4 * np.pi * np.degrees(1) ** 2


def find_object(survey: Survey, root: str, manifest: Manifest, object_id: str | None) -> Iterator[Piece]:
    """Where the rows of an object are, one piece of one row each; of the first object where None is asked for."""
    known = survey.by_name
    own = [known[name] for name in dict.fromkeys(("object_id", survey.key)) if name in known]  # anybody's may have neither
    wanted = [column for column in own if not column.shape and not column.is_ragged]
    for entry in manifest.files:
        opens = survey.opens or Partition
        with opens(f"{root}/{entry.path}", wanted, trusted_rows=entry.rows) as partition:
            names = [
                partition.text(column.name)
                if column.is_text
                else [str(each) for each in partition.read(column.name).tolist()]
                for column in wanted
            ]
            for row in range(entry.rows):
                if object_id is None or any(object_id == each[row] for each in names):
                    yield Piece(str(partition.path), row, row + 1, entry.rows)


def lookalikes_figure(
    root: str, to: str, k: int = 12, representations: str | None = None, progress=iter
) -> tuple[Figure, list[tuple[str, float]], str]:
    """A grid of the objects that look most like one, itself first.

    Args:
        root: a survey's folder whose rows have an ``image``.
        to: object_id.
        k: how many.
        representations: parquet file or folder of vectors; by default the folder's own (see `similar.find_representations`),
            or else a description that is made here from all images.
        progress: wraps the rows that are described, for a progress bar.

    Returns:
        the figure, ``(object_id, cosine)`` of those in it, and what was compared.

    Raises:
        UserError: no such object, no images, or vectors that cannot be used.
    """
    from skyset import load
    from skyset.explore import similar

    manifest = Manifest.load(root)
    survey = registry.survey(manifest.survey, manifest.config).as_built(manifest.columns, manifest.build)
    if "image" not in {feature.name for feature in survey.features}:
        raise UserError(f"{root} has no images to compare")
    vectors = representations or similar.find_representations(root)
    if vectors is not None:
        found, source = similar.most_similar_in_file(vectors, to, k), f"vectors of {Path(vectors).name}"
    else:
        splits = (load(manifest.survey, root, config=manifest.config, split=split) for split in manifest.splits)
        rows = (row for split in splits for row in split.select_columns(["object_id", "image"]))
        described = similar.describe_rows({**row, "image": seen(row["image"])} for row in progress(rows))
        found, source = similar.most_similar(described.vectors, described.keys, to, k), described.name
    names = [to, *(name for name, _ in found)]
    images = _images_of(survey, manifest.files_root(root), manifest, names)
    shown = [name for name in names if name in images]  # vectors may be of more objects than the folder has
    titles = dict([(to, to), *((name, f"{name}\n{cosine:.3f}") for name, cosine in found)])
    figure = similar.similar_figure([images[name] for name in shown], [titles[name] for name in shown], source)
    return figure, found, source


def _images_of(survey: Survey, root: str, manifest: Manifest, names: Sequence[str]) -> dict:
    """The image of each of these objects that is there; the files are looked through once."""
    images: dict[str, Any] = {}
    opens = survey.opens or Partition
    with PieceReader(survey, ["image"]) as reader:
        for entry in manifest.files:
            with opens(f"{root}/{entry.path}", [survey.column("object_id")], trusted_rows=entry.rows) as partition:
                rows = [(row, name) for row, name in enumerate(partition.text("object_id")) if name in names]
            for row, name in rows:
                columns = reader.read([Piece(str(partition.path), row, row + 1, entry.rows, entry.bytes)])
                images.setdefault(name, seen(next(rows_of(columns))["image"]))
    return images


def row_figure(row: Mapping, survey: Survey, most: int = 6) -> Figure:
    """Any survey's row: its bands as a colour image, spectra, light curves, other images side by side, the first of each
    column before the others; its numbers and names with their units beside or below them.

    Args:
        row: one row with numpy formatting.
        survey: its declaration.
        most: how many images that are no bands.

    Returns:
        matplotlib.figure.Figure
    """
    units = {}
    for feature in survey.features:
        if isinstance(feature, Feature):
            units[feature.name] = survey.column(feature.source).unit
        else:
            units |= {
                f"{feature.name}.{key}": survey.column(of).unit for key, of in feature.fields.items() if isinstance(of, str)
            }
    # All adopted trees are one survey: their titles begin with the name of the tree.
    name = survey.title.partition(":")[0] if survey.name == ADOPTED else survey.name
    return figure_of(row, f"{name}: {row.get('object_id', row.get(survey.key, ''))}", units, most)


def object_figure(
    survey: Survey,
    root: str,
    object_id: str | None = None,
    image_size: int | None = None,
    manifest: Manifest | None = None,
    limit: int = 1,
) -> Figure:
    """Draw one object, by its ``object_id`` or its unique key, or several.

    Args:
        survey: the declaration.
        root: the folder of the partitions.
        object_id: the first object by default.
        image_size: side of a centre crop, pixels.
        manifest: of files that are read in place, which have none on the disk.
        limit: how many rows, the first of the folder or of the object, on one sheet.

    Returns:
        matplotlib.figure.Figure

    Raises:
        UserError: there is no such object.
    """
    manifest = Manifest.load(root) if manifest is None else manifest
    survey = survey.as_built(manifest.columns, manifest.build)
    pieces = find_object(survey, manifest.files_root(root), manifest, object_id)
    try:
        found = list(islice(pieces, limit))
        if not found:
            raise UserError(f"no object {object_id} in {root}" if object_id else f"{root} has no rows")
        with PieceReader(survey, [feature.name for feature in survey.features], image_size) as reader:
            figures = (piece_figure(reader, piece) for piece in found)
            return next(figures) if len(found) == 1 else sheet_of(figures)
    except PartitionError as error:
        raise UserError(str(error)) from error


def piece_figure(reader: PieceReader, piece: Piece) -> Figure:
    """The survey's picture of the one row of a piece; PartitionError where it cannot be read."""
    survey, row = reader.survey, next(rows_of(python_numbers(reader.read([piece]))))
    return row_figure(row, survey) if survey.plot is None else survey.plot(row)
