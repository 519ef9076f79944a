"""The values of a row by the names that surveys give them: groups, pixels' sizes, redshift, errors, masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BANDS = ("band", "bands", "filter", "filters", "passband")
#: What tells planes apart that are no bands.
LABELS = ("view", "views", "label", "labels")
IVAR = ("ivar", "flux_ivar", "inverse_variance")
MASK = ("mask", "bitmask", "bit_mask", "and_mask")
_NOISE = ("noise", "sigma", "err", "error", "uncertainty")
_SCALE = ("scale", "pixel_scale", "pxscale", "pixscale", "rgb_pixel_scale")
_REDSHIFT = ("z", "redshift", "specz_redshift", "z_spec", "zspec", "zcosmo")
_GROUPS = ("image", "images", "spectrum", "lightcurve", "light_curve")
#: Of redshifts: above, it is a magnitude or code in a column named z; below, it is none either.
_FARTHEST, _NEAREST = 20.0, -0.05
#: Fewest pixels of a picture's side, and how much longer the other may be: thinner arrays are tables of numbers.
_SMALLEST, _THINNEST = 5, 4


@dataclass(frozen=True)
class Fields:
    """The values of a group, by keys in small letters: the field's full name and its value."""

    name: str
    values: Mapping[str, tuple[str, Any]]

    def first(self, keys: Sequence[str]) -> str | None:
        return next((key for key in keys if key in self.values), None)

    def array(self, key: str | None) -> np.ndarray:
        """Numbers; empty where there are none."""
        return np.empty(0) if key is None else as_numbers(self.values[key][1])

    def at(self, row: int, shape: tuple[int, ...]) -> Fields:
        """The same of one row of the arrays of a shape."""
        return Fields(
            self.name,
            {key: (name, value[row] if np.shape(value) == shape else value) for key, (name, value) in self.values.items()},
        )

    def shaped(self, shape: tuple[int, ...]) -> list[str]:
        """The full names of the arrays of a shape."""
        return [name for name, value in self.values.values() if np.shape(value) == shape]

    def full(self, *keys: str | None) -> list[str]:
        return [self.values[key][0] for key in keys if key is not None]

    def unit(self, units: Mapping[str, str], key: str | None) -> str:
        """Of a key's values: its column's, or what a field beside it says, such as ``flux_units``."""
        if key is None:
            return ""
        beside = self.first((f"{key}_unit", f"{key}_units"))
        said = texts(self.values[beside][1]) if beside else []
        return units.get(self.values[key][0], "") or next(iter(said), "")


def flat(row: Mapping) -> dict[str, Any]:
    """The values of a row and of its groups, by ``name`` and ``group.key``."""
    return {
        f"{name}.{key}" if key else str(name): value
        for name, given in row.items()
        for key, value in (given.items() if isinstance(given, Mapping) else [("", given)])
    }


def groups_of(row: Mapping) -> Iterator[Fields]:
    """A row's groups; those that stand in the names of its columns; last, all columns as one group."""
    alone = {str(name): value for name, value in row.items() if not isinstance(value, Mapping)}
    for name, given in row.items():
        if isinstance(given, Mapping):
            start = f"{str(name).lower().removesuffix('s')}_"  # images.image_array
            yield Fields(str(name), {str(k).lower().removeprefix(start): (f"{name}.{k}", v) for k, v in given.items()})
    for group in _GROUPS:
        start = f"{group}_"
        found = {
            name[len(start) :].lower(): (name, value) for name, value in alone.items() if name.lower().startswith(start)
        }
        if found:
            yield Fields(group, found)
    yield Fields("", {name.lower(): (name, value) for name, value in reversed(alone.items())})


def as_numbers(value) -> np.ndarray:
    """An array of numbers or bool; an empty one of anything else."""
    if isinstance(value, str | bytes | Mapping) or value is None:
        return np.empty(0)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.empty(0)
    return array if array.dtype.kind in "uifb" else np.empty(0)


def texts(value) -> list[str]:
    """Text, a list of it, or the names in one that is joined by commas."""
    if isinstance(value, bytes | str):  # names in one, joined by commas
        value = (value.decode(errors="replace") if isinstance(value, bytes) else value).split(",")
    array = np.asarray(value, object if isinstance(value, list) else None).ravel()
    if array.dtype.kind not in "USO" or not all(isinstance(each, str | bytes) for each in array.tolist()):
        return []
    return [(each.decode(errors="replace") if isinstance(each, bytes) else str(each)).strip() for each in array.tolist()]


def is_coloured(array: np.ndarray) -> bool:
    return array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and min(array.shape[:2]) > 0


def is_plane(shape: Sequence[int]) -> bool:
    """Whether so many rows and columns are a picture."""
    return min(shape) >= _SMALLEST and max(shape) <= _THINNEST * min(shape)


def redshift_of(row: Mapping) -> float | None:
    """The row's redshift, of the first column that has one."""
    names = {str(name).lower(): value for name, value in reversed(list(flat(row).items()))}
    for key in _REDSHIFT:
        value = as_numbers(names.get(key))
        if value.size == 1 and _NEAREST < float(value.ravel()[0]) < _FARTHEST:
            return float(value.ravel()[0])
    return None


def bad_pixels(values: np.ndarray, mask: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Where values are not to be trusted: no numbers, masked, or of no weight.

    In some surveys a mask's True is a good pixel (HSC's), in others a bad one (SDSS's). Where pixels that are True have
    weight and others have none, True is good; without weights, what most pixels are is.

    Args:
        values: of any shape.
        mask: bool or flags of this shape, or of its last axes; or empty.
        ivar: inverse variances of the shape; or empty.

    Returns:
        bool of the shape.
    """
    bad = ~np.isfinite(values)
    weighed = ivar.shape == values.shape and bool((ivar > 0).any())
    if weighed:
        bad |= ~(ivar > 0)
    if mask.size and mask.shape in (values.shape, values.shape[1:]):
        flagged = np.broadcast_to(np.nan_to_num(mask) != 0, values.shape)
        good = flagged == (ivar > 0) if weighed else flagged
        bad |= ~flagged if good.mean() > 0.5 else flagged
    return bad


def errors_of(fields: Fields, flux: str, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """One standard deviation of each value; None where there is nothing of the shape; and the fields it is from."""
    keys = (f"{flux}_err", f"{flux}_error", f"{flux}err", f"e_{flux}", f"{flux}_noise", *_NOISE)
    for key in keys:
        if key in fields.values and (array := fields.array(key)).shape == shape:
            error = array.astype(float)
            return np.where(error >= 0, error, np.nan), fields.full(key)
    weight = fields.first((f"{flux}_ivar", *IVAR))
    if (ivar := fields.array(weight)).shape == shape:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(ivar > 0, 1 / np.sqrt(ivar.astype(float)), np.nan), fields.full(weight)
    return None, []


def scale_of(fields: Fields, row: Mapping) -> float | None:
    """Size of a pixel, arcsec, of the group or of the row."""
    names = {str(name).lower(): value for name, value in flat(row).items()}
    for key in _SCALE:
        for value in ((fields.values[key][1],) if key in fields.values else ()) + ((names[key],) if key in names else ()):
            sizes = as_numbers(value).astype(float).ravel()
            sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
            if sizes.size:
                return float(np.median(sizes))
    return None


def shown(text: str) -> str:
    """Somebody's text as matplotlib draws it letter by letter: a dollar sign begins no formula."""
    return text.replace("$", r"\$")
