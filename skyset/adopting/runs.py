"""Arrays that run along the same times or wavelengths made columns: ragged ones, trimmed, with labels of bands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from skyset.adopting.families import LABELS as BAND_LABELS
from skyset.adopting.families import PARTS, RECORDS, TIME, WAVE, Family
from skyset.adopting.fold import Known, union
from skyset.adopting.making import Making, column_of, source_of, typical_of
from skyset.adopting.padding import trimmed_by
from skyset.partitions.tree.form import COLUMNS, LABELS, MOVED, PART, REPEATED, STORED, Source
from skyset.survey import ANY, MAX_VALUE_BYTES, Column, Trim

#: Bands of light curves that are one array: PLAsTiCC's six.
_BANDS = ("u", "g", "r", "i", "z", "Y")
_PARTS = ("time", "flux", "flux_err")
#: ZTF's alerts have these along the last axis of their pixels, and one filter and scale for all of them.
_TRIPLET, _VIEWS, _OF_VIEWS = "image_triplet", ("science", "reference", "difference"), ("band", "image_scale")


def put_family(making: Making, rest: Mapping[str, Known], family: Family) -> None:
    """Arrays that run along the same times or wavelengths: ragged where sizes differ or there is padding."""
    if family.role == PARTS:
        _put_parts(making, rest[family.by], family)
        return
    if family.role == RECORDS:
        _put_records(making, rest, family)
        return
    sizes = rest[family.by].sizes
    members = [path for path in family.members if rest[path].sizes == sizes and path not in making.used]
    if family.by not in members:
        return
    flat = len(sizes) == 2
    labels = _labels_for(making, rest, family, sizes) if family.role == TIME and flat else ""
    any_length = rest[family.by].any_length
    values, at = trimmed_by(family.role, making.fold.pads.get(family.by, {}), flat)
    differ = any(low != high for low, high in sizes)
    top = "/" not in family.by and not any(family.by.startswith(each) for each in ("spectrum_", "lightcurve_", "image_"))
    names: list[str] = []
    ragged = bool(values or labels or any_length or (differ and (flat and family.role == TIME)))
    for path in members:
        known = rest[path]
        column = column_of(making, path, known, (ANY,) if ragged else None)
        making.put(path, column, source_of(path, known, STORED))
        making.used.add(path)
        names.append(column.name)
    by = making.paths[family.by]
    if labels:
        known = rest[labels]
        width = _label_width(known)
        typical = max(1, width * rest[family.by].values // max(1, rest[family.by].count))
        name = making.free(_label_name(family.by))
        label = Column(name, f"S{width}", (ANY,), "", "band of each value", min(typical, MAX_VALUE_BYTES))
        making.put("", label, Source((labels,), LABELS, like=by))
        making.used.add(labels)
        names.insert(0, label.name)
    if values and making.columns[by].shape == (ANY,):
        making.trims.append(Trim(tuple(names), by, values, at))
    if top and len(names) > 1 and family.role in (TIME, WAVE):
        (making.curves if family.role == TIME else making.spectra).extend(names)


def _label_name(by: str) -> str:
    return by[: len(by) - len(re.split(r"[_/]", by)[-1])] + "band"


def _label_width(known: Known) -> int:
    """Bytes of a label: of one text with commas, of the longest part."""
    return known.label if not known.sizes else int(union(known.dtypes)[1:])


def _labels_for(making: Making, rest: Mapping[str, Known], family: Family, sizes: list[tuple[int, int]]) -> str:
    """The text dataset beside light curves that names their bands: one text, or one for each."""
    prefix = family.by[: len(family.by) - len(re.split(r"[_/]", family.by)[-1])]
    for name in BAND_LABELS if making.fold.kind != COLUMNS else ():
        known = rest.get(prefix + name)
        if known is not None and known.as_field().is_text and known.sizes in ([], [sizes[0]]):
            return prefix + name
    return ""


def _put_parts(making: Making, known: Known, family: Family) -> None:
    """Light curves of (bands, 3, any number) as times, fluxes and their errors, with the bands' names beside."""
    path, bands = family.by, known.sizes[0][1]
    if known.sizes[0][0] != bands or known.member:
        return
    folder = path.rpartition("/")[0]
    base = f"{folder}/lightcurve" if folder else "lightcurve"
    names = [making.free(f"{base}_{part}") for part in _PARTS]
    labels = _BANDS if bands == len(_BANDS) else tuple(map(str, range(bands)))
    width = max(map(len, labels))
    typical = typical_of(making, known, 3)
    size = max(1, width * typical // np.dtype(union(known.dtypes)).itemsize)
    label = Column(making.free(f"{base}_band"), f"S{width}", (ANY,), "", "band of each value", min(size, MAX_VALUE_BYTES))
    making.put("", label, Source((), LABELS, labels, names[0]))
    for place, name in enumerate(names):
        column = Column(name, union(known.dtypes), (ANY,), "", f"{_PARTS[place]} of {path}", typical)
        making.put("", column, Source((path,), PART, (1, place)))
    making.used.add(path)
    making.paths[path] = names[0]
    values, at = trimmed_by(family.role, making.fold.pads.get(path, {}), True)
    if values:
        making.trims.append(Trim((label.name, *names), names[0], values, at))


def _put_records(making: Making, rest: Mapping[str, Known], family: Family) -> None:
    """The members of a table with records that are padding; of one without they are columns like any others."""
    values, at = trimmed_by(family.role, making.fold.pads.get(family.by, {}), False)
    members = [path for path in family.members if path in rest]
    inner = {path: tuple(high for _, high in rest[path].sizes[1:]) for path in members}
    differ = any(low != high for path in members for low, high in rest[path].sizes[1:])
    if not values or family.by not in members or differ or any(not rest[path].sizes for path in members):
        return
    for path in members:
        making.put(path, column_of(making, path, rest[path], (ANY, *inner[path])), source_of(path, rest[path], STORED))
        making.used.add(path)
    names = tuple(making.paths[path] for path in members)
    making.trims.append(Trim(names, making.paths[family.by], values, at))


def put_views(making: Making, rest: Mapping[str, Known]) -> None:
    """Science, reference and difference image of an alert as three images, with the filter and the scale of each."""
    known = rest.get(_TRIPLET)
    single = [path for path in _OF_VIEWS if path in rest and not rest[path].sizes and not rest[path].member]
    if making.fold.kind != COLUMNS or known is None or known.member or _OF_VIEWS[0] not in single or known.any_length:
        return
    sizes = [high for low, high in known.sizes if low == high]
    if (
        len(sizes) != 3
        or len(known.sizes) != 3
        or sizes[2] != len(_VIEWS)
        or not {*single, _TRIPLET}.isdisjoint(making.used)
    ):
        return
    for path in single:
        key = path.removeprefix("image_")
        column = replace(column_of(making, path, rest[path]), shape=(len(_VIEWS),))
        making.put(path, replace(column, name=making.free(f"image_{key}")), Source((path,), REPEATED))
    of_views = making.paths[_OF_VIEWS[0]]
    said = "which image it is: new, of earlier nights, or what is left of one without the other"
    view = Column(making.free("image_view"), f"S{max(map(len, _VIEWS))}", (len(_VIEWS),), "", said)
    making.put("", view, Source((), LABELS, _VIEWS, of_views))
    pixels = replace(column_of(making, _TRIPLET, known), shape=(sizes[2], *sizes[:2]))
    making.put(_TRIPLET, replace(pixels, name=making.free("image_array")), Source((_TRIPLET,), MOVED, 2))
    making.used.update((*single, _TRIPLET))
