"""A column of small pictures beside pixels, for viewers that show images and no arrays."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.band_figures import asinh_stretch, lupton_rgb
from skyset.survey import Feature, Survey

PREVIEW = "preview"
#: Pixels of the longer side.
SIDE = 96


def pictured(survey: Survey) -> str | None:
    """The feature whose pixels a preview is drawn of, ``<group>.<key>`` in a group: the first image that is no mask; None
    where there are no pixels."""
    for feature in survey.features:
        if isinstance(feature, Feature):
            if feature.name in survey.image_axes and not survey.hands_out_images(feature):
                return feature.name
            continue
        for key, source in feature.fields.items() if not feature.labels else ():
            name = f"{feature.name}.{key}"
            if name in survey.image_axes and survey.column(str(source)).stored_dtype.kind != "b":
                return name
    return None


def with_preview(features: datasets.Features) -> datasets.Features:
    """The features with one of small pictures behind them."""
    return datasets.Features({**features, PREVIEW: datasets.Image()})


def add_previews(
    batches: Iterable[pa.RecordBatch], name: str, features: datasets.Features, side: int = SIDE
) -> Iterator[pa.RecordBatch]:
    """The batches with a column of JPEG files of at most ``side`` pixels a side.

    Args:
        batches: rows.
        name: the feature of pixels, see ``pictured``.
        features: those of the batches.
        side: pixels.
    """
    schema = with_preview(features).arrow_schema
    kind = schema.field(PREVIEW).type
    group, _, key = ("", "", name) if name in features else name.rpartition(".")
    feature = features[group][key] if group else features[name]
    for batch in batches:
        column = batch.column(batch.schema.get_field_index(group or name))
        pixels = pixels_of(pc.struct_field(column, key) if group else column, feature)
        pictures = [{"bytes": thumbnail(image, side), "path": None} for image in pixels]
        yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(pictures, kind)], schema=schema)


def pixels_of(column: pa.Array, feature) -> np.ndarray:
    """The values of an array feature, (rows, *shape), as a view."""
    values = column.storage if isinstance(column, pa.ExtensionArray) else column
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(len(column), *feature.shape)


def thumbnail(pixels: np.ndarray, side: int = SIDE) -> bytes:
    """A picture of an image as a JPEG file.

    Args:
        pixels: uint8 (H, W, 3), (H, W), or (bands, H, W), the bluest band first; all but uint8 are stretched.
        side: of the longer side, pixels; a smaller image keeps its size.
    """
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[-1] != 3:
        blue, green, red = (pixels[min(band, len(pixels) - 1)] for band in range(3))
        pixels = lupton_rgb(red, green, blue) if len(pixels) > 1 else blue
    if pixels.dtype != np.uint8:
        pixels = np.round(255 * asinh_stretch(pixels)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
