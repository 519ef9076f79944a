"""The declaration of a survey: one table of columns from which features, HDF5 attributes and the card are made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, cast, get_args, get_origin, get_type_hints

import numpy as np

from skyset.errors import RecordError, UserError
from skyset.sky import check_position
from skyset.values import as_stored

#: The dtype of a column whose rows are bytes of any length, and what is added to a ragged one's name for where rows end.
BYTES, END = "bytes", "_end"
#: In the shape of a ragged column: the axis whose length differs from row to row, as ``numpy.reshape`` has it.
ANY = -1
#: Of one row of a ragged column. An image of the sky has a thousandth of it.
MAX_VALUE_BYTES = 64 << 20


def check_types(record) -> None:
    """Raise ValueError unless every field of a dataclass has just the type it is declared with."""
    for name, is_of in _checks(type(record)):
        if not is_of(getattr(record, name)):
            raise ValueError(f"{name} is {getattr(record, name)!r}")


def _checks_of(record: type) -> list[tuple[str, Callable[[object], bool]]]:
    return [(name, _check_of(kind)) for name, kind in get_type_hints(record).items()]


_checks: Callable[[type], list] = cache(_checks_of)  # a manifest has up to a million records of a type


def _check_of(kind) -> Callable[[object], bool]:
    """What tells whether a value is of a type, and what it has in it of the types of that."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is list or (kinds and kinds[-1] is Ellipsis):
        of_each = _check_of(kinds[0])
        return lambda value: type(value) is origin and all(map(of_each, cast(Iterable, value)))
    if origin is tuple:
        checks = [_check_of(each) for each in kinds]
        return lambda value: type(value) is tuple and _are_of(checks, value)
    return lambda value: type(value) is kind


def _are_of(checks: Sequence[Callable[[object], bool]], values: tuple) -> bool:
    return len(values) == len(checks) and all(is_of(value) for is_of, value in zip(checks, values, strict=True))


@dataclass(frozen=True)
class Column:
    """One HDF5 dataset of a partition; row = axis 0. A ragged one is two datasets, see ``end``.

    Args:
        name: name on disk.
        dtype: numpy dtype of one value, ``"S<n>"`` for text of at most n ASCII characters; ``"bytes"`` for any number of
            bytes per row, such as PNG and JPEG files as the archive has them.
        shape: shape of one row, ``()`` for a scalar and for bytes. With one axis of -1 the column is ragged: that axis has
            another length in each row, ``(-1,)`` for spectra and light curves of any length.
        unit: FITS standard unit string, empty where there is none.
        description: what it means, one sentence.
        typical_bytes: of one ragged row: how many rows go into a file follows from it. It is not in the manifest.

    Raises:
        ValueError: a name that is none of one dataset, a dtype other than integers, floats, bool and text, or a shape
            that is none. Columns also come from a manifest that anybody may have written.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    unit: str = ""
    description: str = ""
    typical_bytes: int = 1 << 16

    def __post_init__(self):
        check_types(self)
        if self.name in ("", ".", "..") or not self.name.isascii() or set(self.name) & {"/", "\0"}:
            raise ValueError(f"a column cannot be named {self.name!r}")
        if self.is_ragged and not 0 < self.typical_bytes <= MAX_VALUE_BYTES:
            raise ValueError(f"a row of column {self.name} cannot have {self.typical_bytes} bytes")
        if self.is_bytes:
            if self.shape:
                raise ValueError(f"column {self.name} of bytes cannot have shape {self.shape}")
            return
        dtype = np.dtype(self.dtype)
        if dtype.kind not in "biufS" or dtype.shape or not dtype.itemsize:
            raise ValueError(f"column {self.name} cannot have dtype {self.dtype}")
        sizes = [size for size in self.shape if size != ANY]
        if not all(size > 0 for size in sizes) or len(self.shape) - len(sizes) > 1 or self.step_bytes >= 2**63:
            raise ValueError(f"column {self.name} cannot have shape {self.shape}")

    @cached_property
    def is_bytes(self) -> bool:
        return self.dtype == BYTES

    @cached_property
    def is_ragged(self) -> bool:
        """Whether rows have any number of values: bytes, or an axis of any length."""
        return self.is_bytes or ANY in self.shape

    @cached_property
    def step_bytes(self) -> int:
        """Bytes of a row whose ragged axis has the length 1; of any other row."""
        return self.stored_dtype.itemsize * math.prod(size for size in self.shape if size != ANY)

    @cached_property
    def is_text(self) -> bool:
        return self.stored_dtype.kind == "S"

    @cached_property
    def stored_dtype(self) -> np.dtype:
        """Of one value; of bytes, of one byte."""
        return np.dtype(np.uint8 if self.is_bytes else self.dtype)

    @cached_property
    def end(self) -> Column:
        """The dataset beside a ragged one, which has the values of all rows one after the other: those of row k are from
        where row k - 1 ends to where row k does, counted in values."""
        return Column(
            f"{self.name}{END}", "int64", (), "byte" if self.is_bytes else "", f"where the row ends in {self.name}"
        )

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed; of a ragged column, about as many."""
        return self.typical_bytes + self.end.row_bytes if self.is_ragged else self.step_bytes

    @property
    def missing(self):
        """What stands for a value that a catalogue has not: NaN, -1 (0 where the dtype has no sign), empty text."""
        return {"f": np.nan, "i": -1, "S": b""}.get(np.dtype(self.dtype).kind, 0)

    def coerce(self, value) -> np.ndarray | bytes:
        """``value`` as an array of this column's dtype and shape, or as bytes.

        Raises:
            RecordError: another shape, or a value that would change, see `skyset.values.as_stored`.
        """
        if self.is_bytes:
            return self._coerce_bytes(value)
        array = as_stored(self.name, value, self.stored_dtype)
        if not self.takes(array.shape):
            raise RecordError(f"{self.name} has shape {array.shape}, not {self.shape}")
        if self.is_ragged and array.nbytes > MAX_VALUE_BYTES:
            raise RecordError(f"{self.name} has {array.nbytes} bytes, more than {MAX_VALUE_BYTES}")
        return array

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a row may have this shape."""
        if not self.is_ragged:
            return shape == self.shape
        return len(shape) == len(self.shape) and all(own in (ANY, size) for own, size in zip(self.shape, shape, strict=True))

    def _coerce_bytes(self, value) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise RecordError(f"{self.name} is of type {type(value).__name__}, not bytes")
        if memoryview(value).nbytes > MAX_VALUE_BYTES:
            raise RecordError(f"{self.name} has {memoryview(value).nbytes} bytes, more than {MAX_VALUE_BYTES}")
        return bytes(value)


def check_columns(columns: Iterable[Column]) -> None:
    """Raise ValueError where two columns want the same HDF5 dataset."""
    names = [name for c in columns for name in ((c.name, c.end.name) if c.is_ragged else (c.name,))]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two columns are stored under {', '.join(sorted(twice))}")


#: Columns that every survey has (see "On disk" in the design): position in ICRS degrees, and the cell it falls in.
HEALPIX = Column("healpix", "int64", (), "", "HEALPix cell of the position: nside 16, nested ordering")


@dataclass(frozen=True)
class Feature:
    """A column as the loader hands it out: under another name (``source`` is the name on disk) if need be.

    Args:
        name: the feature's name.
        source: the column's.
        classes: names of the values 0, 1, ...: the loader hands out a ``datasets.ClassLabel``; the column is int64.
        encoded: the column's bytes are PNG or JPEG images: the loader hands out a ``datasets.Image``. Means nothing where
            a build stored their pixels (``Survey.shaped_by_build``).
        text: the column's bytes are UTF-8 text of any length: the loader hands out ``str``.
    """

    name: str
    source: str
    classes: tuple[str, ...] = ()
    encoded: bool = False
    text: bool = False


def plain_features(columns: Iterable[Column], classes: Mapping[str, tuple[str, ...]], images: tuple[str, ...] = ("image",)):
    """Features in the columns' order and under their names.

    Args:
        columns: what is on disk.
        classes: names of the values, by column.
        images: columns whose bytes are images.
    """
    return tuple(Feature(c.name, c.name, classes.get(c.name, ()), encoded=c.name in images) for c in columns)


@dataclass(frozen=True)
class Layers:
    """A group of equally shaped layers, handed out as lists in one order: ``{label_field: [...], field: [...], ...}``.

    Without labels it is columns under one name, ``{"flux": ..., "ivar": ..., "lambda": ...}``: each as it is, ragged or not.

    Args:
        name: the feature's name, such as ``"segmentation"``.
        labels: the layers' names in their order.
        label_field: the key under which the names themselves are handed out, empty where there are none.
        fields: for each other key, either one column on disk whose first axis runs over the layers, or a tuple of
            columns, one per layer.

    Raises:
        ValueError: labels without a field, or columns per layer without labels.
    """

    name: str
    labels: tuple[str, ...]
    label_field: str
    fields: Mapping[str, str | tuple[str, ...]]

    def __post_init__(self):
        if bool(self.labels) != bool(self.label_field):
            raise ValueError(f"{self.name} has {len(self.labels)} labels under the name {self.label_field!r}")
        if not self.labels and not all(isinstance(source, str) for source in self.fields.values()):
            raise ValueError(f"{self.name} has columns per layer and no labels")

    @property
    def sources(self) -> tuple[str, ...]:
        """Columns on disk that this group needs."""
        return tuple(c for source in self.fields.values() for c in ((source,) if isinstance(source, str) else source))


@dataclass(frozen=True)
class Trim:
    """Ragged columns of equal lengths with padding in them, which is not handed out.

    Args:
        columns: those that are trimmed, of shape ``(-1, ...)``.
        by: the column of them that tells padding, of shape ``(-1, ...)``.
        values: those it has there, in all places of such a step; NaN among them means NaN.
        at: ``"anywhere"``, or only at the ``"end"`` of a row.
    """

    columns: tuple[str, ...]
    by: str
    values: tuple[float, ...]
    at: str = "anywhere"

    def within(self, names: Collection[str]) -> Trim | None:
        """What of it is for these columns alone; None where it is for none of them, or what tells padding is not there."""
        kept = tuple(name for name in self.columns if name in names)
        return replace(self, columns=kept) if kept and self.by in names else None

    def __post_init__(self):
        check_types(self)
        if self.at not in ("anywhere", "end") or not self.values or not self.columns:
            raise ValueError(f"padding cannot be {self}")


@dataclass(frozen=True)
class Survey:
    """All that the shared code needs to know of a survey.

    Args:
        name: the name users load it by.
        title: one line.
        homepage, citation, license: for the card and ``DatasetInfo``.
        base_url: the archive's folder, ending in a slash.
        columns: what is on disk.
        features: what the loader hands out, in this order.
        key: the column that names a row uniquely (``object_id`` may repeat where a survey observed an object twice).
        image_features: features that ``image_size`` crops: the two axes of the pixels are ``image_axes[name]``.
        trims: padding that is stored and not handed out.
        shaped_by_build: columns whose dtype and shape follow from the build's options; declared is the default.
        optional: columns that a build has only where its sources have them; features of those it has not are left out.
        beside: names of files and folders that its build leaves in the folder's root beside the partitions.
        train_folder: the split ``train`` lies in a folder of its name, as the others do, and not in the root.
        plot: draws one row, as ``plot(row) -> matplotlib.figure.Figure``.
        published: finds the survey's published files in a local folder, to be read where they lie:
            ``published(folder, config) -> skyset.partitions.adopted.Lying | None``.
        opens: opens a file of this dataset, as ``Partition`` does; None for ours.
        of_build: of a survey whose columns a build chooses: makes the declaration of what a manifest says,
            ``of_build(survey, columns, build)``.

    Raises:
        ValueError: two columns are stored under one name, a layer is ragged, or padding is not of columns that can have it.
    """

    name: str
    title: str
    homepage: str
    citation: str
    license: str
    base_url: str
    columns: tuple[Column, ...]
    features: tuple[Feature | Layers, ...]
    key: str = "object_id"
    image_axes: Mapping[str, int] = field(default_factory=dict)
    trims: tuple[Trim, ...] = ()
    shaped_by_build: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    train_folder: bool = False
    plot: Callable | None = None
    published: Callable | None = None
    opens: Callable | None = None
    of_build: Callable | None = None

    def __post_init__(self):
        check_columns(self.columns)
        layers = {name: f for f in self.features if isinstance(f, Layers) for name in f.sources}
        for column in self.columns:
            if column.name in layers and (column.is_bytes or (column.is_ragged and layers[column.name].labels)):
                raise ValueError(
                    f"{self.name}: the layers of a group cannot be {'of bytes' if column.is_bytes else 'ragged'}"
                )
        self._check_trims()

    def _check_trims(self) -> None:
        for trim in self.trims:
            shapes = {name: self.by_name[name].shape if name in self.by_name else () for name in (trim.by, *trim.columns)}
            if not all(shape[:1] == (ANY,) for shape in shapes.values()):
                raise ValueError(f"{self.name}: there is no padding by {trim.by} in {', '.join(trim.columns)}")

    def as_built(self, columns: Iterable[Column], build: Mapping = MappingProxyType({})) -> Survey:
        """This survey with the columns of ``shaped_by_build`` as a manifest has them, without the optional ones it has not.

        Args:
            columns: the manifest's.
            build: what else it notes of the build; for surveys that have ``of_build``.

        Raises:
            UserError: such a column is an image's and has no two axes of pixels, and is not of bytes.
        """
        columns = list(columns)
        if self.of_build is not None:
            return self.of_build(self, columns, build)
        found = {column.name: column for column in columns if column.name in self.shaped_by_build}
        for column in found.values():
            sizes = (2, 3) if self._is_image(column.name) else (1, 2, 3)
            if not column.is_bytes and (column.is_text or len(column.shape) not in sizes):
                raise UserError(f"{self.name}: column {column.name} has shape {column.shape}, which is no image")
        absent = set(self.optional) - {column.name for column in columns}
        if not found and not absent:
            return self
        built = (
            replace(c, dtype=found[c.name].dtype, shape=found[c.name].shape) if c.name in found else c
            for c in self.columns
            if c.name not in absent
        )
        features = tuple(f for f in self.features if isinstance(f, Layers) or f.source not in absent)
        axes = {name: axis for name, axis in self.image_axes.items() if name.partition(".")[0] in {f.name for f in features}}
        return replace(self, columns=tuple(built), features=features, image_axes=axes)

    def variant(self, title: str, columns: tuple[Column, ...], optional: Iterable[Column] = (), **classes: tuple[str, ...]):
        """Another dataset of this survey, such as one that is cut out of it.

        Args:
            title: one line.
            columns: what is on disk; the features have their names.
            optional: those that a build has only where its sources have them.
            classes: names of the values 0, 1, ... by column.

        Returns:
            Survey. One without the columns of images has neither image axes nor a plot.
        """
        names = {column.name for column in columns}
        axes = {name: axis for name, axis in self.image_axes.items() if name in names}
        return replace(
            self,
            title=title,
            columns=columns,
            features=plain_features(columns, classes),
            image_axes=axes,
            optional=tuple(column.name for column in optional),
            plot=self.plot if axes else None,
        )

    def hands_out_images(self, feature: Feature) -> bool:
        """Whether a feature is a ``datasets.Image``: encoded, and not stored as pixels."""
        return feature.encoded and self.column(feature.source).is_bytes

    def _is_image(self, column: str) -> bool:
        return any(f.name in self.image_axes for f in self.features if isinstance(f, Feature) and f.source == column)

    def column(self, name: str) -> Column:
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row on disk, uncompressed; about as many where columns are ragged."""
        return sum(column.row_bytes for column in self.columns)

    def record(self, values: Mapping) -> dict[str, np.ndarray | bytes]:
        """One validated row: every column, in its dtype and shape.

        Raises:
            RecordError: a column is missing or unfit, or the position is not on the sky.
        """
        missing = [c.name for c in self.columns if c.name not in values]
        if missing:
            raise RecordError(f"no value for {', '.join(missing)}")
        row = {c.name: c.coerce(values[c.name]) for c in self.columns}
        check_position(float(row["ra"]), float(row["dec"]))
        return row


def undescribed(
    name: str, columns: Iterable[Column], features: Iterable[Feature | Layers], title: str = "", **more: Any
) -> Survey:
    """A declaration of which nobody has told where it is from: neither homepage, citation, licence nor archive.

    Args:
        name, columns, features: of the survey.
        title: by default the name.
        more: of ``Survey``.
    """
    return Survey(name, title or name, "", "", "", "", tuple(columns), tuple(features), **more)


def fitting(column: Column, values) -> np.ndarray:
    """The values of many rows, (rows, *shape), in the column's dtype.

    Raises:
        RecordError: as ``Column.coerce`` of one of them does.
    """
    stored = as_stored(column.name, values, column.stored_dtype)
    if not column.takes(stored.shape[1:]):
        raise RecordError(f"{column.name} has shape {stored.shape[1:]}, not {column.shape}")
    return stored
