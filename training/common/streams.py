"""A survey as a stream, for what looks at every row once: extraction of representations, prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from datasets import Array2D, Array3D, Image, IterableDataset, load_dataset

import skyset
from skyset.errors import UserError
from skyset.loading import registry
from skyset.messages import listed
from skyset.training.common.data import source_of

Made = TypeVar("Made")


def open_rows(dataset: str, config: str | None, split: str) -> IterableDataset:
    """A survey as a stream, by name or by the folder or URL that its manifest lies in.

    Raises:
        UserError: there is none.
    """
    named = dataset in skyset.surveys()
    if not named and "://" not in dataset and not Path(dataset).expanduser().is_dir():
        raise UserError(f"no survey and no folder {dataset}; surveys: {', '.join(skyset.surveys())}")
    source = source_of(dataset, config or "default")
    if not registry.is_known(source.survey):
        raise UserError(f"{dataset} is of the survey {source.survey}, which skyset does not know: --module names its loader")
    try:
        return load_dataset(source.survey, config, data_dir=None if named else dataset, split=split, streaming=True)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"cannot read {dataset}: {str(error).splitlines()[0]}") from error


def find_image_column(rows: IterableDataset) -> str:
    """The column with the image.

    Raises:
        UserError: none has a usual name, or there are no images.
    """
    for name in ("image", "false_color"):
        if name in rows.column_names:
            return name
    images = [name for name, feature in (rows.features or {}).items() if isinstance(feature, (Image, Array2D, Array3D))]
    if rows.features and not images:
        raise UserError(f"the data have no images; they have {listed(rows.column_names)}")
    raise UserError(f"which column is the image? Give --image_column, one of {listed(images or rows.column_names)}")


def known_length(rows: IterableDataset) -> int | None:
    """Rows of the stream, where they can be counted without reading them."""
    try:
        return len(rows)  # a stream of skyset's
    except TypeError:
        return None


def batches_ahead(rows: Iterable[dict], size: int, make: Callable[[list[dict]], Made]) -> Iterator[Made]:
    """What ``make`` makes of up to ``size`` rows at a time; the next batch is made in a thread while this one is used."""
    iterator = iter(rows)
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        while batch := list(islice(iterator, size)):
            coming = ahead.submit(make, batch)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
