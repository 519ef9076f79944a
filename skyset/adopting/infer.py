"""A dataset's columns, and what each is made of, from what its files have in common; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from skyset.adopting import checks
from skyset.adopting.families import families
from skyset.adopting.fields import Names
from skyset.adopting.fold import Fold, Known, union
from skyset.adopting.grouping import features_of, image_axes
from skyset.adopting.making import OURS, Making, column_of, how_of, source_of
from skyset.adopting.runs import put_family, put_views
from skyset.adopting.sky import DEG, FACTORS
from skyset.errors import UserError
from skyset.messages import listed
from skyset.partitions.tree.form import CELL, COLUMNS, NAME, PART, SCALED, STORED, TEXT, Source, TreeForm
from skyset.partitions.tree.units import is_kept
from skyset.survey import HEALPIX, Column, Survey, undescribed

#: Of a tree's own cells as many have to be those of the positions.
_AGREES = 0.5


@dataclass
class Inferred:
    """What was made of a dataset's files.

    Attributes:
        survey, form: how it is read.
        findings: (kind, what) of its fields, or (kind, what, an example's file).
    """

    survey: Survey
    form: TreeForm
    findings: list[tuple[str, ...]] = field(default_factory=list)


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
    making = Making(fold, max(fold.names, key=lambda names: fold.names[names]))
    _put_ours(making, unit)
    rest = {path: known for path, known in fold.known.items() if _is_wanted(making, path, known)}
    for family in families({path: known.as_field() for path, known in rest.items()}):
        put_family(making, rest, family)
    put_views(making, rest)
    for path, known in rest.items():
        if path not in making.used:
            _put_one(making, path, known)
    _note_fields(making, rest)
    columns = tuple(_ordered(making, rest))
    folders = {column: path for path, column in making.paths.items() if "/" in path}
    features = features_of(columns, making.curves, making.spectra, folders)
    axes = image_axes(columns, features)
    survey = undescribed(name, columns, features, title=title, image_axes=axes, trims=tuple(making.trims))
    form = TreeForm(tree, fold.kind, {column.name: making.sources[column.name] for column in columns}, _is_packed(making))
    form.check(columns)
    return Inferred(survey, form, making.findings)


def _is_packed(making: Making) -> bool:
    """Whether HDF5 has to unpack rows; of objects, arrays that the index does not keep."""
    columns = {path: making.columns[name] for path, name in making.paths.items() if path in making.fold.known}
    is_table = making.fold.kind == COLUMNS
    return any(making.fold.known[path].packed for path, column in columns.items() if is_table or not is_kept(column))


def _put_ours(making: Making, unit: str) -> None:
    """``object_id``, ``ra``, ``dec`` and ``healpix``, which every dataset has."""
    fold, names = making.fold, making.names
    if names.id:
        source = source_of(names.id, fold.known[names.id], TEXT)
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
        below = which == 0 and fold.sky.ra[0] < 0 and not known.member  # from -180 on: handed out from 0 to 360
        source = source_of(path, known, STORED) if factor == 1 and not below else Source((path,), SCALED, factor)
        said = f"{meaning}, ICRS" + (f"; stored in {unit} as {path}" if factor != 1 else "")
        making.put(path, Column(name, "float64", (), "deg", said), source)
    own = fold.known.get("healpix")
    agrees = own is not None and own.count == fold.objects and fold.own[unit] > _AGREES * max(1, fold.own_rows)
    making.put("healpix" if agrees else "", HEALPIX, Source(("healpix",)) if agrees else Source((), CELL))
    if own is not None and not agrees:
        what = "healpix: its cells are not those of the positions (nside 16, nested): they are computed, its own left out"
        making.findings.append((checks.NOT_HEALPIX, what))


def _is_wanted(making: Making, path: str, known: Known) -> bool:
    """Whether a field becomes a column, or part of one; why not is noted."""
    if path in making.fold.left_out or path in OURS or (path in making.paths and path.rpartition("/")[2] in OURS):
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


def _put_one(making: Making, path: str, known: Known) -> None:
    making.put(path, column_of(making, path, known), source_of(path, known, how_of(known)))
    making.used.add(path)


def _note_fields(making: Making, rest: Mapping[str, Known]) -> None:
    """Dtypes that differ, and fields that some files lack."""
    total = making.fold.objects
    whose = "files" if making.fold.kind == COLUMNS else "objects"
    for path, known in {**making.fold.known, **rest}.items():
        if path in making.fold.left_out:
            continue
        kinds = Counter({_kind(name): count for name, count in known.dtypes.items()})
        if len(kinds) > 1 and union(known.dtypes):
            most = [f"{name} in {count}" for name, count in known.dtypes.most_common()]
            what = f"{path}: {listed(most, 6)} {whose}; read as {union(known.dtypes)}"
            making.findings.append((checks.DTYPE, what, known.other))
        if known.count < total:
            making.findings.append(
                (checks.MISSING, f"{path}: {total - known.count} of {total} {whose} lack it", known.lacked)
            )
    for name, reason in making.fold.left_out.items():
        making.findings.append((checks.LEFT_OUT, f"{name}: {reason}"))


def _kind(dtype: str) -> str:
    """Texts of any length are of one kind."""
    return "text" if dtype[0] == "S" else dtype


def _ordered(making: Making, rest: Iterable[str]) -> list[Column]:
    """Ours first, then in the order of the files' fields, a label before what it is of."""
    first = [making.columns[name] for name in OURS]
    of_path = {path: making.columns[name] for path, name in making.paths.items()}
    order: dict[str, None] = {}
    for path in rest:
        column = of_path.get(path)
        if column is None or column.name in OURS:
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
