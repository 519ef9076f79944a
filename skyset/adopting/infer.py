"""A dataset's columns, and what each is made of, from what its files have in common; pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from skyset.adopting import checks
from skyset.adopting.fields import Names
from skyset.adopting.fold import Fold, Known, union
from skyset.adopting.grouping import features_of, image_axes
from skyset.adopting.padding import PARTS, TIME, WAVE, Family, families, trimmed_by
from skyset.adopting.sky import DEG, FACTORS
from skyset.errors import UserError
from skyset.messages import listed
from skyset.partitions.tree.form import CELL, COLUMNS, LABELS, MEMBER, NAME, PART, SCALED, STORED, TEXT, Source, TreeForm
from skyset.partitions.tree.units import is_kept
from skyset.survey import ANY, END, HEALPIX, MAX_VALUE_BYTES, Column, Survey, Trim

#: What the datasets of labels of light curves are called.
_LABELS = ("bands", "band", "filters", "filter")
#: Bands of light curves that are one array: PLAsTiCC's six.
_BANDS = ("u", "g", "r", "i", "z", "Y")
_PARTS = ("time", "flux", "flux_err")
_OURS = ("object_id", "ra", "dec", "healpix")
#: Of a tree's own cells as many have to be those of the positions.
_AGREES = 0.5


@dataclass
class Inferred:
    """What was made of a dataset's files.

    Attributes:
        survey, form: how it is read.
        findings: (kind, what) of its fields.
    """

    survey: Survey
    form: TreeForm
    findings: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Making:
    """Columns on their way."""

    fold: Fold
    names: Names
    columns: dict[str, Column] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)  # the column of each field that is one
    trims: list[Trim] = field(default_factory=list)
    curves: list[str] = field(default_factory=list)
    spectra: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    findings: list[tuple[str, str]] = field(default_factory=list)

    def put(self, path: str, column: Column, source: Source) -> None:
        self.columns[column.name], self.sources[column.name] = column, source
        if path:
            self.paths[path] = column.name

    def free(self, wanted: str) -> str:
        """A name for a column that is not taken, nor where another one's rows end."""
        plain = re.sub(r"[^\x21-\x7e]|/", "_", wanted) or "column"
        taken = {*_OURS, *self.columns, *(f"{name}{END}" for name in self.columns)}
        name, number = plain, 1
        while name in taken or f"{name}{END}" in taken:
            number += 1
            name = f"{plain}_{number}"
        return name


def infer(fold: Fold, tree: str, unit: str, title: str, name: str = "adopted") -> Inferred:
    """The columns, features and padding of a dataset, and how each column is made.

    Args:
        fold: of all of its files of one kind.
        tree: the absolute path of their folder.
        unit: of positions: ``deg``, ``hour`` or ``rad``.
        title: one line.
        name: of the survey.

    Raises:
        UserError: the files hold nothing that can be a dataset.
    """
    if not fold.names:
        raise UserError(f"{tree} has no file with positions of objects")
    making = _Making(fold, max(fold.names, key=lambda names: fold.names[names]))
    _put_ours(making, unit)
    rest = {path: known for path, known in fold.known.items() if _is_wanted(making, path, known)}
    for family in families({path: known.as_field() for path, known in rest.items()}):
        _put_family(making, rest, family)
    for path, known in rest.items():
        if path not in making.used:
            _put_one(making, path, known)
    _note_fields(making, rest)
    columns = tuple(_ordered(making, rest))
    folders = {column: path for path, column in making.paths.items() if "/" in path}
    features = features_of(columns, making.curves, making.spectra, folders)
    survey = Survey(
        name=name,
        title=title,
        homepage="",
        citation="",
        license="",
        base_url="",
        columns=columns,
        features=features,
        image_axes=image_axes(columns, features),
        trims=tuple(making.trims),
    )
    form = TreeForm(tree, fold.kind, {column.name: making.sources[column.name] for column in columns}, _is_packed(making))
    form.check(columns)
    return Inferred(survey, form, making.findings)


def _is_packed(making: _Making) -> bool:
    """Whether HDF5 has to unpack rows; of objects, arrays that the index does not keep."""
    columns = {path: making.columns[name] for path, name in making.paths.items() if path in making.fold.known}
    is_table = making.fold.kind == COLUMNS
    return any(making.fold.known[path].packed for path, column in columns.items() if is_table or not is_kept(column))


def _put_ours(making: _Making, unit: str) -> None:
    """``object_id``, ``ra``, ``dec`` and ``healpix``, which every dataset has."""
    fold, names = making.fold, making.names
    if names.id:
        source = _source(names.id, fold.known[names.id], TEXT)
        text = "name of the object" if names.id == "object_id" else f"name of the object: {names.id}"
    else:
        source = Source((), NAME)
        where = "file and row" if fold.kind == COLUMNS else "file" if fold.kind == "objects" else "group"
        text = f"name of the object, made of its {where}: the files have none"
    making.put(names.id, Column("object_id", f"S{fold.width}", (), "", text), source)
    for which, (name, path, meaning) in enumerate((("ra", names.ra, "right ascension"), ("dec", names.dec, "declination"))):
        known, factor = fold.known[path], FACTORS[unit][which]
        if factor != 1 and known.member:
            raise UserError(f"{path} is in {unit} and a member of a compound dataset: write it in degrees, or in its own")
        source = _source(path, known, STORED) if factor == 1 else Source((path,), SCALED, factor)
        said = f"{meaning}, ICRS" + (f"; stored in {unit} as {path}" if factor != 1 else "")
        making.put(path, Column(name, "float64", (), "deg", said), source)
    own = fold.known.get("healpix")
    agrees = own is not None and own.count == fold.objects and fold.own[unit] > _AGREES * max(1, fold.own_rows)
    making.put("healpix" if agrees else "", HEALPIX, Source(("healpix",)) if agrees else Source((), CELL))
    if own is not None and not agrees:
        what = "healpix: its cells are not those of the positions (nside 16, nested): they are computed, its own left out"
        making.findings.append((checks.NOT_HEALPIX, what))


def _is_wanted(making: _Making, path: str, known: Known) -> bool:
    """Whether a field becomes a column, or part of one; why not is noted."""
    if path in _OURS or (path in making.paths and path.rpartition("/")[2] in _OURS):
        return False
    reason = ""
    if len(known.axes) > 1:
        reason = f"arrays of {listed([str(number) for number in sorted(known.axes)])} axes"
    elif not union(known.dtypes):
        reason = f"text in some files and numbers in others ({listed(sorted(known.dtypes))})"
    elif any(high == 0 for _, high in known.sizes):
        reason = "no values in any file"
    elif known.any_length and known.sizes and not known.as_field().is_text and making.fold.kind == COLUMNS:
        reason = "arrays of rows of any length"
    if reason:
        making.findings.append((checks.LEFT_OUT, f"{path}: {reason}"))
    return not reason


def _source(path: str, known: Known, how: str) -> Source:
    return Source((path,), MEMBER if known.member else how)


def _put_family(making: _Making, rest: Mapping[str, Known], family: Family) -> None:
    """Arrays that run along the same times or wavelengths: ragged where sizes differ or there is padding."""
    if family.role == PARTS:
        _put_parts(making, rest[family.by], family)
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
        column = _column(making, path, known, (ANY,) if ragged else None)
        making.put(path, column, _source(path, known, STORED))
        making.used.add(path)
        names.append(column.name)
    by = making.paths[family.by]
    if labels:
        known = rest[labels]
        label = Column(making.free(_label_name(family.by)), f"S{_label_width(known)}", (ANY,), "", "band of each value")
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


def _labels_for(making: _Making, rest: Mapping[str, Known], family: Family, sizes: list[tuple[int, int]]) -> str:
    """The text dataset beside light curves that names their bands: one text, or one for each."""
    prefix = family.by[: len(family.by) - len(re.split(r"[_/]", family.by)[-1])]
    for name in _LABELS if making.fold.kind != COLUMNS else ():
        known = rest.get(prefix + name)
        if known is not None and known.as_field().is_text and known.sizes in ([], [sizes[0]]):
            return prefix + name
    return ""


def _put_parts(making: _Making, known: Known, family: Family) -> None:
    """Light curves of (bands, 3, any number) as times, fluxes and their errors, with the bands' names beside."""
    path, bands = family.by, known.sizes[0][1]
    if known.sizes[0][0] != bands or known.member:
        return
    folder = path.rpartition("/")[0]
    base = f"{folder}/lightcurve" if folder else "lightcurve"
    names = [making.free(f"{base}_{part}") for part in _PARTS]
    labels = _BANDS if bands == len(_BANDS) else tuple(map(str, range(bands)))
    width = max(map(len, labels))
    label = Column(making.free(f"{base}_band"), f"S{width}", (ANY,), "", "band of each value")
    making.put("", label, Source((), LABELS, labels, names[0]))
    typical = _typical(making, known, 3)
    for place, name in enumerate(names):
        column = Column(name, union(known.dtypes), (ANY,), "", f"{_PARTS[place]} of {path}", typical)
        making.put("", column, Source((path,), PART, (1, place)))
    making.used.add(path)
    making.paths[path] = names[0]
    values, at = trimmed_by(family.role, making.fold.pads.get(path, {}), True)
    if values:
        making.trims.append(Trim((label.name, *names), names[0], values, at))


def _put_one(making: _Making, path: str, known: Known) -> None:
    making.put(path, _column(making, path, known), _source(path, known, _how(known)))
    making.used.add(path)


def _how(known: Known) -> str:
    """Integers that are text in other files are handed out as their digits."""
    return TEXT if union(known.dtypes)[0] == "S" and any(name[0] != "S" for name in known.dtypes) else STORED


def _column(making: _Making, path: str, known: Known, shape: tuple[int, ...] | None = None) -> Column:
    """The column of a field; of one whose sizes differ along several axes all values one after the other."""
    if shape is None:
        differing = [axis for axis, (low, high) in enumerate(known.sizes) if low != high]
        shape = tuple(ANY if axis in differing else high for axis, (_, high) in enumerate(known.sizes))
        if making.fold.kind == COLUMNS and known.any_length and not known.as_field().is_text:
            shape = (ANY,)
        elif len(differing) > 1:
            shape = (ANY,)
            what = f"{path}: sizes differ along {len(differing)} axes: handed out flat, all values one after the other"
            making.findings.append((checks.SHAPE, what))
    name = path.replace("/", "_") if path.isascii() else path
    typical = _typical(making, known)
    unit = known.unit if known.unit.isascii() else ""
    return Column(making.free(name), union(known.dtypes), shape, unit, known.description, typical)


def _typical(making: _Making, known: Known, parts: int = 1) -> int:
    """About how many bytes a row has."""
    size = np.dtype(union(known.dtypes)).itemsize * known.values // max(1, known.count) // parts
    return min(max(size, 1), MAX_VALUE_BYTES)


def _note_fields(making: _Making, rest: Mapping[str, Known]) -> None:
    """Dtypes that differ, and fields that some files lack."""
    total = making.fold.objects
    whose = "files" if making.fold.kind == COLUMNS else "objects"
    for path, known in {**making.fold.known, **rest}.items():
        kinds = Counter({_kind(name): count for name, count in known.dtypes.items()})
        if len(kinds) > 1 and union(known.dtypes):
            most = [f"{name} in {count}" for name, count in known.dtypes.most_common()]
            making.findings.append((checks.DTYPE, f"{path}: {listed(most, 6)} {whose}; read as {union(known.dtypes)}"))
        if known.count < total:
            making.findings.append((checks.MISSING, f"{path}: {total - known.count} of {total} {whose} lack it"))
    for name, reason in making.fold.left_out.items():
        making.findings.append((checks.LEFT_OUT, f"{name}: {reason}"))


def _kind(dtype: str) -> str:
    """Texts of any length are of one kind."""
    return "text" if dtype[0] == "S" else dtype


def _ordered(making: _Making, rest: Iterable[str]) -> list[Column]:
    """Ours first, then in the order of the files' fields, a label before what it is of."""
    first = [making.columns[name] for name in _OURS]
    of_path = {path: making.columns[name] for path, name in making.paths.items()}
    order: dict[str, None] = {}
    for path in rest:
        column = of_path.get(path)
        if column is None or column.name in _OURS:
            continue
        source = making.sources[column.name]
        for name, other in making.sources.items():
            if other.like == column.name or (source.how == PART and other.of == source.of):
                order.setdefault(name)
        order.setdefault(column.name)
    return first + [making.columns[name] for name in order]


def field_names(form: TreeForm) -> Names:
    """The fields of id and position by a form: of a declaration somebody edited."""
    sources = form.sources
    return Names(*(sources[name].of[0] if sources[name].of else "" for name in ("object_id", "ra", "dec")))


def unit_by(form: TreeForm) -> str:
    """The unit of positions by a form."""
    source = form.sources["ra"]
    if source.how != SCALED:
        return DEG
    return min(FACTORS, key=lambda unit: abs(FACTORS[unit][0] - float(source.argument)))
