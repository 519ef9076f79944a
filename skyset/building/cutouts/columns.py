"""What a catalogue brings, whatever its source calls it and however it writes what was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError
from skyset.survey import Column
from skyset.tables.catalog import check_ids
from skyset.tables.numeric_text import is_text, safe_to_numeric

Names = Mapping[str, Sequence[str]]
#: What databases write for true and false, in small letters.
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False, "": None, "nan": None}


@dataclass(frozen=True)
class Columns:
    """The columns of a catalogue, and the name that an object has.

    Args:
        columns: as the survey declares them; null where a source has none.
        key: the name of the column that is made first: the first id of a row, int64.
        ids: the columns of ids, the best first; the key itself where a source has it under this name.
        needed: the columns that a source must have, beside an id.
        missing: what stands for "not measured" in columns of floats, one value or several; it becomes null. So does a value
            where the source has a column ``<name>_isnull`` that is true.
        names: other names of the columns in most sources; upper and lower case are the same.
    """

    columns: tuple[Column, ...]
    key: str
    ids: tuple[str, ...]
    needed: tuple[str, ...]
    missing: float | tuple[float, ...] = math.nan
    names: Names = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """The key, then the columns."""
        return pa.schema([(self.key, pa.int64()), *((c.name, _arrow_type(c)) for c in self.columns)])

    def standard(self, batch, where: str, names: Names | None = None, needed: Sequence[str] = ()):
        """A batch or table with the columns of `schema`, from one with a source's names.

        Args:
            batch: pyarrow.RecordBatch or pyarrow.Table.
            where: the source, for messages.
            names: its names of the columns, where they are not those of most sources.
            needed: the columns that it must have, where it need not have all.

        Raises:
            UserError: a column that is needed is missing, or holds what it cannot.
        """
        lower = {name.lower(): name for name in batch.schema.names}
        if len(lower) < len(batch.schema.names):
            same = sorted(name for name in batch.schema.names if lower[name.lower()] != name)
            raise UserError(f"{where}: two columns are called {', '.join(same)} but for upper and lower case")
        names = self.names if names is None else names
        found = {}
        for ours in self.schema.names[0 if self.key in self.ids else 1 :]:
            known = (ours, *names.get(ours, ()))
            if name := next((lower[n.lower()] for n in known if n.lower() in lower), None):
                values = self._typed(batch, name, ours, where)
                if flag := lower.get(f"{name.lower()}_isnull"):
                    values = pc.if_else(_truths(batch[flag]), pa.scalar(None, values.type), values)
                found[ours] = values
        ids = [found[name] for name in self.ids if name in found]
        missing = [name for name in needed or self.needed if name not in found] + ([] if ids else [self.ids[0]])
        if missing:
            raise UserError(f"{where}: no column {', '.join(missing)} (there are: {', '.join(batch.schema.names)})")
        found[self.key] = pc.coalesce(*ids)
        columns = [
            found[field.name] if field.name in found else pa.nulls(batch.num_rows, field.type) for field in self.schema
        ]
        return type(batch).from_arrays(columns, schema=self.marked(found))

    def marked(self, present: Iterable[str]) -> pa.Schema:
        """The schema, which also says what the source has: cuts on other columns are left out."""
        return self.schema.with_metadata({"columns": ",".join(present)})

    def _typed(self, batch, name: str, ours: str, where: str):
        """One column as its declaration wants it."""
        if ours in self.ids:
            check_ids(batch, name)
        kind = self.schema.field(ours).type
        try:
            if is_text(kind):
                return pc.cast(batch[name], kind)
            if pa.types.is_boolean(kind):
                return _truths(batch[name])
            values = safe_to_numeric(batch[name])
            if pa.types.is_boolean(values.type):
                values = pc.cast(values, pa.int8())
            if pa.types.is_integer(kind):
                return pc.cast(values, kind)
            values = pc.cast(values, pa.float64())
            unmeasured = pc.is_in(values, pa.array(self._unmeasured(), pa.float64()))
            return pc.cast(pc.if_else(unmeasured, pa.scalar(None, values.type), values), kind)
        except pa.ArrowInvalid as error:
            wanted = next((column.dtype for column in self.columns if column.name == ours), kind)
            raise UserError(f"{where}: column {name} cannot be {wanted}: {error}") from error

    def _unmeasured(self) -> list[float]:
        """What stands for "not measured", also as it comes back from float32."""
        values = self.missing if isinstance(self.missing, tuple) else (self.missing,)
        return [value for each in values if each == each for value in (float(each), float(np.float32(each)))]


def _arrow_type(column: Column) -> pa.DataType:
    return pa.string() if column.is_text else pa.from_numpy_dtype(column.dtype)


def _truths(values):
    """Booleans, or what databases and programs write for them, as booleans.

    Raises:
        pa.ArrowInvalid: it is something else.
    """
    if pa.types.is_boolean(values.type):
        return values
    words = pc.ascii_lower(pc.ascii_trim_whitespace(pc.cast(values, pa.string())))
    places = pc.index_in(words, pa.array([*_TRUTH]))
    strange = pc.and_(pc.is_valid(words), pc.is_null(places))
    if pc.any(strange).as_py():
        raise pa.ArrowInvalid(f"{values.filter(strange)[0].as_py()!r} is neither true nor false")
    return pc.take(pa.array([*_TRUTH.values()], pa.bool_()), places)


def present(batch) -> set[str]:
    """The columns that the source of a batch has."""
    return set(batch.schema.metadata[b"columns"].decode().split(","))
