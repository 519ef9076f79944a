"""Pictures of some rows for a report, as the survey draws its rows, in a bounded number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from skyset.errors import SkysetError
from skyset.explore.objects import piece_figure
from skyset.explore.report.sample import Build, Sample
from skyset.explore.row_pictures.found import are_declared
from skyset.html import Html
from skyset.loading.reader import PieceReader
from skyset.messages import plain
from skyset.partitions.partition import decoded
from skyset.survey import Feature, Survey, plain_features

#: Of all pictures of a page, before they are written as text, which takes a third more.
MOST_BYTES = 2_200_000
_DPI, _QUALITIES, _WIDEST = 100, (88, 75, 60, 40), 1800


@dataclass(frozen=True)
class Picture:
    """A row as the survey draws it: its key, its position in degrees, the JPEG as a ``data:`` address, width over height."""

    key: str
    ra: float
    dec: float
    source: Html
    shape: float


def has_images(survey: Survey) -> bool:
    """Whether its rows have something to draw."""
    encoded = any(isinstance(feature, Feature) and feature.encoded for feature in survey.features)
    return bool(survey.image_axes) or encoded or survey.plot is not None or are_declared(survey)


def declared(build: Build) -> Survey:
    """The declaration of a build; of a survey that is not known, one made of what is on disk."""
    manifest = build.manifest
    if build.survey is not None:
        return build.survey.as_built(manifest.columns, manifest.build)
    plain_columns = [column for column in manifest.columns if not column.is_bytes]
    axes = {column.name: 0 for column in plain_columns if len(column.shape) >= 2}
    columns = tuple(manifest.columns)
    # Whether bytes are images is not known of a survey that is not.
    features = plain_features(plain_columns, {}, ())
    return Survey(manifest.survey, manifest.survey, "", "", "", "", columns, features, manifest.key, axes)


def classes_of(survey: Survey | None, sample: Sample) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The columns of classes that a sample has: the names of 0, 1, ..., and the rows' values, by feature."""
    return {
        feature.name: (feature.classes, sample.values[feature.source])
        for feature in (survey.features if survey is not None else ())
        if isinstance(feature, Feature) and feature.classes and feature.source in sample.values
    }


def chosen(build: Build, sample: Sample, count: int, seed: int) -> list[int]:
    """Rows of a sample to draw, in random order; where there are classes, as many different ones as can be."""
    order = np.random.default_rng(seed + 1).permutation(sample.rows)
    named = next(iter(classes_of(build.survey, sample).values()), None)
    if named is None:
        return order[:count].tolist()
    labels = named[1][order].ravel()[: len(order)]
    nth = np.zeros(len(order), int)  # 0 for the first row of each class, 1 for the second
    for label in np.unique(labels):
        nth[labels == label] = np.arange((labels == label).sum())
    return order[np.argsort(nth, kind="stable")][:count].tolist()


def drawn(
    build: Build, sample: Sample, count: int, seed: int, progress: Callable[[Sequence[int]], Iterable[int]] = iter
) -> tuple[list[Picture], list[str]]:
    """Draw rows of a sample.

    Args:
        build: the dataset.
        sample: of its rows.
        count: of pictures at most.
        seed: of the draw.
        progress: wraps the rows that are drawn.

    Returns:
        the pictures, and why rows that were drawn have none, a line each.
    """
    try:
        survey = declared(build)
    except SkysetError as error:
        return [], [str(error)]
    if not count or not has_images(survey):
        return [], []
    keys, pictures, problems = sample.values.get(build.manifest.key), [], []
    with PieceReader(survey, [feature.name for feature in survey.features]) as reader:
        for row in progress(chosen(build, sample, count, seed)):
            entry, place = build.manifest.files[int(sample.files[row])], int(sample.places[row])
            key = decoded(keys[row : row + 1])[0] if keys is not None and keys.dtype.kind == "S" else f"row {place}"
            try:
                source, shape = _jpeg(piece_figure(reader, build.piece(entry, place)), MOST_BYTES // count)
            except Exception as error:  # what draws a row may be anybody's
                problems.append(f"{entry.path}: row {place} ({key}): {_words(build, error)}")
                continue
            ra, dec = (float(sample.values[name][row]) for name in build.position)
            pictures.append(Picture(key, ra, dec, source, shape))
    return pictures, problems


def _words(build: Build, error: Exception) -> str:
    text = f"{type(error).__name__}: {error}" if not isinstance(error, SkysetError) else str(error)
    return plain(text.replace(f"{build.root.rstrip('/')}/", ""), 300)


def _jpeg(figure, most: int) -> tuple[Html, float]:
    """A figure as an address that holds it all, of at most so many bytes, and its width over its height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    width, _ = figure.get_size_inches()
    figure.set_dpi(min(_DPI, _WIDEST / width))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    shape = image.width / image.height
    while True:
        for quality in _QUALITIES:
            data = io.BytesIO()
            image.save(data, "JPEG", quality=quality, optimize=True)
            if data.tell() <= most:
                return Html(f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"), shape
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))
