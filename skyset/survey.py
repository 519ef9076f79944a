"""The declaration of a survey: one table of columns from which features, HDF5 attributes and the card are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cache
from functools import cached_property
from typing import get_args
from typing import get_origin
from typing import get_type_hints

import numpy as np

from skyset.errors import RecordError
from skyset.errors import UserError


def check_types(record) -> None:
    """Raise ValueError unless every field of a dataclass has just the type it is declared with."""
    for name, kind in _declared_types(type(record)).items():
        if not _is_of(getattr(record, name), kind):
            raise ValueError(f"{name} is {getattr(record, name)!r}")


_declared_types = cache(get_type_hints)  # a manifest has thousands of records of a type


def _is_of(value, kind) -> bool:
    kinds = get_args(kind)
    if get_origin(kind) is list or (kinds and kinds[-1] is Ellipsis):
        return type(value) is get_origin(kind) and all(_is_of(item, kinds[0]) for item in value)
    if get_origin(kind) is tuple:
        return type(value) is tuple and len(value) == len(kinds) and all(map(_is_of, value, kinds))
    return type(value) is kind


@dataclass(frozen=True)
class Column:
    """One HDF5 dataset of a partition; row = axis 0.

    Args:
        name: name on disk.
        dtype: numpy dtype of one value, ``"S<n>"`` for text of at most n ASCII characters.
        shape: shape of one row, ``()`` for a scalar.
        unit: FITS standard unit string, empty where there is none.
        description: what it means, one sentence.

    Raises:
        ValueError: a name that is none of one dataset, a dtype other than integers, floats, bool and text, or a shape
            that is none. Columns also come from a manifest that anybody may have written.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    unit: str = ""
    description: str = ""

    def __post_init__(self):
        check_types(self)
        if self.name in ("", ".", "..") or not self.name.isascii() or set(self.name) & {"/", "\0"}:
            raise ValueError(f"a column cannot be named {self.name!r}")
        dtype = np.dtype(self.dtype)
        if dtype.kind not in "biufS" or dtype.shape or not dtype.itemsize:
            raise ValueError(f"column {self.name} cannot have dtype {self.dtype}")
        if not all(size > 0 for size in self.shape) or self.row_bytes >= 2**63:
            raise ValueError(f"column {self.name} cannot have shape {self.shape}")

    @cached_property
    def is_text(self) -> bool:
        return np.dtype(self.dtype).kind == "S"

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row, uncompressed."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def coerce(self, value) -> np.ndarray:
        """``value`` as an array of this column's dtype and shape.

        Raises:
            RecordError: another shape, text too long or not ASCII, or a number that this dtype cannot hold exactly
                enough (integers must survive unchanged).
        """
        if self.is_text:
            return self._coerce_text(value)
        array = np.asarray(value)
        if array.shape != self.shape:
            raise RecordError(f"{self.name} has shape {array.shape}, not {self.shape}")
        dtype = np.dtype(self.dtype)
        if array.dtype == dtype:
            return array
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if not np.all((array >= limits.min) & (array <= limits.max) & (array == np.floor(array))):  # NaN fails all
                raise RecordError(f"{self.name} holds a value that {dtype} cannot hold")
        return array.astype(dtype)

    def _coerce_text(self, value) -> np.ndarray:
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        try:
            data = text.strip().encode("ascii")
        except UnicodeEncodeError:
            raise RecordError(f"{self.name} is not ASCII: {text!r}") from None
        width = np.dtype(self.dtype).itemsize
        if len(data) > width:
            raise RecordError(f"{self.name} is longer than {width} characters: {text[:40]!r}...")
        return np.asarray(data, dtype=self.dtype)


#: Columns that every survey has (see "On disk" in the design): position in ICRS degrees, and the cell it falls in.
HEALPIX = Column("healpix", "int64", (), "", "HEALPix cell of the position: nside 16, nested ordering")


@dataclass(frozen=True)
class Feature:
    """A column as the loader hands it out: under another name (``source`` is the name on disk) if need be.

    Args:
        name: the feature's name.
        source: the column's.
        classes: names of the values 0, 1, ...: the loader hands out a ``datasets.ClassLabel``; the column is int64.
    """

    name: str
    source: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layers:
    """A group of equally shaped layers, handed out as lists in one order: ``{label_field: [...], field: [...], ...}``.

    Args:
        name: the feature's name, such as ``"segmentation"``.
        labels: the layers' names in their order.
        label_field: the key under which the names themselves are handed out.
        fields: for each other key, either one column on disk whose first axis runs over the layers, or a tuple of
            columns, one a layer.
    """

    name: str
    labels: tuple[str, ...]
    label_field: str
    fields: Mapping[str, str | tuple[str, ...]]

    @property
    def sources(self) -> tuple[str, ...]:
        """Columns on disk that this group needs."""
        return tuple(c for source in self.fields.values() for c in ((source,) if isinstance(source, str) else source))


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
        shaped_by_build: columns whose dtype and shape follow from the build's options; declared is the default.
        plot: draws one row, as ``plot(row) -> matplotlib.figure.Figure``.
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
    shaped_by_build: tuple[str, ...] = ()
    plot: Callable | None = None

    def as_built(self, columns: Iterable[Column]) -> Survey:
        """This survey with the columns of ``shaped_by_build`` as a manifest has them.

        Raises:
            UserError: such a column has no two axes of pixels.
        """
        found = {column.name: column for column in columns if column.name in self.shaped_by_build}
        for column in found.values():
            if column.is_text or len(column.shape) not in (2, 3):
                raise UserError(f"{self.name}: column {column.name} has shape {column.shape}, which is no image")
        if not found:
            return self
        built = (replace(c, dtype=found[c.name].dtype, shape=found[c.name].shape) if c.name in found else c
                 for c in self.columns)  # fmt: skip
        return replace(self, columns=tuple(built))

    def column(self, name: str) -> Column:
        return self.by_name[name]

    @property
    def by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row on disk, uncompressed."""
        return sum(column.row_bytes for column in self.columns)

    def record(self, values: Mapping) -> dict[str, np.ndarray]:
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


def check_position(ra: float, dec: float) -> None:
    """Raise RecordError unless 0 <= ra <= 360 and -90 <= dec <= 90 (degrees); NaN fails both."""
    if not (0.0 <= ra <= 360.0 and -90.0 <= dec <= 90.0):
        raise RecordError(f"position is not on the sky: ra {ra}, dec {dec}")


def healpix_cell(ra, dec, nside: int = 16) -> np.ndarray:
    """HEALPix cell of each position.

    Args:
        ra, dec: degrees, any shape.
        nside: power of two.

    Returns:
        int64 array of the same shape, nested ordering (Gorski et al. 2005, ApJ 622, 759).
    """
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    return np.asarray(lonlat_to_healpix(ra * units.deg, dec * units.deg, nside, order="nested"), np.int64)
