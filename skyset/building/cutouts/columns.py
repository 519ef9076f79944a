"""What a catalogue brings, whatever its source calls it and however it writes what was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError
from skyset.survey import Column
from skyset.tables.catalog import check_ids
from skyset.tables.numeric_text import safe_to_numeric

Names = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Columns:
    """The columns of a catalogue, and the name that an object has.

    Args:
        columns: as the survey declares them; null where a source has none.
        key: the name of the column that is made first: the first id of a row, int64.
        ids: the columns of ids, the best first.
        needed: the columns that a source must have, beside an id.
        missing: what stands for "not measured" in columns of floats; it becomes null.
        names: other names of the columns in most sources; upper and lower case are the same.
    """

    columns: tuple[Column, ...]
    key: str
    ids: tuple[str, ...]
    needed: tuple[str, ...]
    missing: float = math.nan
    names: Names = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """The key, then the columns."""
        return pa.schema([(self.key, pa.int64()), *((c.name, pa.from_numpy_dtype(c.dtype)) for c in self.columns)])

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
        for column in self.columns:
            known = (column.name, *names.get(column.name, ()))
            if name := next((lower[n.lower()] for n in known if n.lower() in lower), None):
                found[column.name] = self._typed(batch, name, column, where)
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

    def _typed(self, batch, name: str, column: Column, where: str):
        """One column as its declaration wants it."""
        if column.name in self.ids:
            check_ids(batch, name)
        values, kind = safe_to_numeric(batch[name]), self.schema.field(column.name).type
        try:
            if pa.types.is_boolean(values.type):
                values = pc.cast(values, pa.int8())
            if pa.types.is_integer(kind):
                return pc.cast(values, kind)
            values = pc.cast(values, pa.float64())
            measured = pc.if_else(pc.equal(values, self.missing), pa.scalar(None, values.type), values)
            return pc.cast(measured, kind)
        except pa.ArrowInvalid as error:
            raise UserError(f"{where}: column {name} cannot be {column.dtype}: {error}") from error


def present(batch) -> set[str]:
    """The columns that the source of a batch has."""
    return set(batch.schema.metadata[b"columns"].decode().split(","))
