"""Cuts on a catalogue: conditions that rows have to meet, and how many rows each of them removed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyset.errors import UserError
from skyset.messages import plain
from skyset.tables.catalog import require
from skyset.tables.numeric_text import is_text, values_and_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


@dataclass(frozen=True)
class Cut:
    """A condition that rows have to meet. ``keep`` gives a boolean for each row of a batch; null is not kept.

    Where it depends on all rows, ``learn`` is shown every batch that reaches the cut before ``keep`` is asked of the first.
    """

    name: str
    description: str
    keep: Callable[[pa.RecordBatch | pa.Table], np.ndarray | pa.BooleanArray | pa.ChunkedArray]
    learn: Callable[[pa.RecordBatch], object] | None = None

    def called(self, name: str, description: str) -> Cut:
        """The same cut under another name."""
        return dataclasses.replace(self, name=name, description=description)


@dataclass
class Removed:
    """How many rows one cut has removed."""

    name: str
    description: str
    rows: int = 0


@dataclass
class Counts:
    """Rows read, and how many of them each cut removed, summed over all batches that went through."""

    rows: int = 0
    cuts: list[Removed] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.rows - sum(cut.rows for cut in self.cuts)

    def steps(self) -> list[dict]:
        """The rows read, then each cut: ``name``, ``description``, rows ``removed`` and ``left``."""
        left, steps = self.rows, [{"name": "read", "description": "rows read", "removed": 0, "left": self.rows}]
        for cut in self.cuts:
            left -= cut.rows
            steps.append({"name": cut.name, "description": cut.description, "removed": cut.rows, "left": left})
        return steps

    def to_json(self) -> list[dict]:
        """For a manifest; the same as `steps`."""
        return self.steps()

    @classmethod
    def from_json(cls, steps: list[dict]) -> Counts:
        """The counts that somebody wrote.

        Raises:
            ValueError: they are not such a list, or its numbers do not add up.
        """
        try:
            counts = cls(steps[0]["left"], [Removed(s["name"], s["description"], s["removed"]) for s in steps[1:]])
            numbers = [counts.rows, *(cut.rows for cut in counts.cuts)]
            sound = all(type(number) is int and number >= 0 for number in numbers) and counts.steps() == steps
        except (LookupError, TypeError) as error:
            raise ValueError(f"not a list of counted cuts: {error}") from error
        if not sound:
            raise ValueError("the counts of the cuts do not add up")
        return counts

    def table(self) -> Table:
        """For rich's console."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("cut", header_style="bold", box=None, padding=(0, 2, 0, 0))
        for heading in ("removed", "left", "% left"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("keeps rows with")
        for number, step in enumerate(self.steps()):
            share = f"{100 * step['left'] / self.rows:.1f}" if self.rows else ""
            removed = f"{step['removed']:,}" if number else ""
            words = (escape(plain(text)) for text in (step["name"], step["description"] if number else ""))
            table.add_row(next(words), removed, f"{step['left']:,}", share, next(words))
        return table

    def figure(self) -> Figure:
        """What is left after each cut, a bar each, with what the cut removed in a lighter colour."""
        from matplotlib.figure import Figure

        steps = self.steps()
        names, left = [step["name"] for step in steps], [step["left"] for step in steps]
        figure = Figure(figsize=(9, 1.2 + 0.38 * len(steps)), layout="constrained")
        axes = figure.subplots()
        places = range(len(steps))
        axes.barh(places, left, color="#0072B2", label="left")
        axes.barh(places, [step["removed"] for step in steps], left=left, color="#56B4E9", alpha=0.5, label="removed")
        for place, step in enumerate(steps):
            axes.annotate(
                f"{step['left']:,}", (step["left"] + step["removed"], place), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set(xlabel="rows", xlim=(0, 1.15 * max(1, self.rows)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return figure


def apply(cuts: Sequence[Cut], batches: Iterable[pa.RecordBatch], counts: Counts) -> Iterator[pa.RecordBatch]:
    """Rows that meet all cuts. A row counts at the first cut that removes it, and later cuts do not see it.

    Args:
        cuts: in the order in which they are made.
        batches: of one schema.
        counts: is added to as the batches are taken; empty, or of the same cuts.

    Raises:
        ValueError: ``counts`` is of other cuts.
    """
    if not counts.cuts and not counts.rows:
        counts.cuts = [Removed(cut.name, cut.description) for cut in cuts]
    if [(cut.name, cut.description) for cut in cuts] != [(cut.name, cut.description) for cut in counts.cuts]:
        raise ValueError("these counts are of other cuts")
    return _applied(cuts, batches, counts)


def _applied(cuts: Sequence[Cut], batches: Iterable[pa.RecordBatch], counts: Counts) -> Iterator[pa.RecordBatch]:
    def read() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counts.rows += batch.num_rows
            yield batch

    yield from _passed(list(zip(cuts, counts.cuts, strict=True)), read())


def _passed(cuts: Sequence[tuple[Cut, Removed]], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows that pass; those that reach a cut which depends on all of them wait in a file until it has seen them."""
    streamed = next((place for place, (cut, _) in enumerate(cuts) if cut.learn), len(cuts))
    if streamed == len(cuts):
        yield from _streamed(cuts, batches)
        return
    learning, removed = cuts[streamed]
    with _waiting(_streamed(cuts[:streamed], batches), learning.learn) as again:
        yield from _passed([(dataclasses.replace(learning, learn=None), removed), *cuts[streamed + 1 :]], again)


def _streamed(cuts: Sequence[tuple[Cut, Removed]], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for cut, removed in cuts:
            before = batch.num_rows
            batch = _kept(cut, batch)
            removed.rows += before - batch.num_rows
        if batch.num_rows:
            yield batch


@contextlib.contextmanager
def _waiting(batches: Iterable[pa.RecordBatch], learn: Callable | None) -> Iterator[Iterable[pa.RecordBatch]]:
    """The batches once more, after ``learn`` has seen each."""
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        writer = None
        for batch in batches:
            if learn is not None:
                learn(batch)
            writer = writer or stack.enter_context(pa.ipc.new_stream(pa.PythonFile(file, "w"), batch.schema))
            writer.write_batch(batch)
        stack.close()
        if writer is None:
            yield ()
            return
        file.seek(0)
        with pa.ipc.open_stream(pa.PythonFile(file, "r")) as again:
            yield again


def _kept(cut: Cut, batch: pa.RecordBatch) -> pa.RecordBatch:
    keep = cut.keep(batch)
    keep = keep.combine_chunks() if isinstance(keep, pa.ChunkedArray) else pa.array(keep)
    if len(keep) != batch.num_rows or not pa.types.is_boolean(keep.type):
        raise TypeError(f"cut {cut.name} gave {len(keep)} {keep.type} for {batch.num_rows} rows")
    return batch if keep.true_count == len(keep) else batch.filter(keep)


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    """A column, booleans as 0 and 1, dictionaries as what they stand for."""
    values = batch[require(batch.schema.names, name, "the catalogue")]
    if pa.types.is_dictionary(values.type):
        return pc.cast(values, values.type.value_type)
    return pc.cast(values, pa.uint8()) if pa.types.is_boolean(values.type) else values


def _numbers(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    """A column as float32 where it is that, otherwise float64; NaN and infinities are null."""
    values = _column(batch, name)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise UserError(f"column {name} is {values.type}, not a number; its first values are {values[:3].to_pylist()}")
    values = values if pa.types.is_float32(values.type) else pc.cast(values, pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))


def _between(values, low: float, high: float):
    """Both included. The bounds are rounded as the values are: 0.1 in float32 is at most 0.1."""
    low, high = (pa.scalar(bound, values.type) for bound in (low, high))
    return pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))


def _above(values, low: float):
    return pc.greater(values, pa.scalar(low, values.type))


def _joined(columns: Sequence[str], test: Callable, join: Callable) -> Callable[[pa.RecordBatch | pa.Table], Any]:
    """A test of several columns. Without nulls, so that "any" and "all" mean what they say."""
    if not columns:
        raise ValueError("a cut on no column")
    return lambda batch: reduce(join, (pc.fill_null(test(_numbers(batch, name)), False) for name in columns))


def valid_magnitudes(columns: Sequence[str], bright: float = 0, faint: float = 40) -> Cut:
    """Every column is finite and between ``bright`` and ``faint`` mag, both excluded: surveys write 0 or -9999 for none."""

    def test(values):
        return pc.and_(_above(values, bright), pc.less(values, pa.scalar(faint, values.type)))

    return Cut("valid magnitudes", f"{bright:g} < {', '.join(columns)} < {faint:g} mag", _joined(columns, test, pc.and_))


def max_error(columns: Sequence[str], limit: float) -> Cut:
    """Every column is between 0 and ``limit``, both included: a negative error is a flag."""
    test = partial(_between, low=0, high=limit)
    return Cut("small errors", f"0 <= {', '.join(columns)} <= {limit:g}", _joined(columns, test, pc.and_))


def positive(column: str) -> Cut:
    """The column is finite and larger than 0."""
    return Cut(f"{column} > 0", f"{column} > 0", _joined([column], partial(_above, low=0), pc.and_))


def equals(column: str, value: bool | int | float | str) -> Cut:
    """The column is ``value``; booleans match 1 and 0 too.

    Raises (when used):
        UserError: text is compared with a number.
    """

    def keep(batch):
        values = _column(batch, column)
        if isinstance(value, str) != is_text(values.type):
            raise UserError(f"column {column} is {values.type} and cannot equal {value!r}")
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if pa.types.is_integer(values.type) and not whole:  # Arrow would truncate it
            return np.zeros(batch.num_rows, bool)
        try:
            return pc.equal(values, pa.scalar(int(value) if whole else value, values.type))
        except (pa.ArrowInvalid, OverflowError):  # a value that this type cannot hold
            return np.zeros(batch.num_rows, bool)

    return Cut(f"{column} = {value}", f"{column} = {value}", keep)


def at_least(columns: Sequence[str], value: float, every: bool = False) -> Cut:
    """At least one of the columns, or every one, is finite and ``value`` or more."""
    listed, word = ", ".join(columns), "all of " if every else "one of "
    text = f"{word * (len(columns) > 1)}{listed} >= {value:g}"
    test = _joined(columns, partial(_between, low=value, high=math.inf), pc.and_ if every else pc.or_)
    return Cut(f"{listed} >= {value:g}", text, test)


def on_sky(ra: str = "ra", dec: str = "dec") -> Cut:
    """Both coordinates (degrees) are finite, 0 <= ra <= 360 and -90 <= dec <= 90."""

    def keep(batch):
        return pc.and_(_between(_numbers(batch, ra), 0, 360), _between(_numbers(batch, dec), -90, 90))

    return Cut("on the sky", f"0 <= {ra} <= 360 and -90 <= {dec} <= 90 deg", keep)


def given(column: str) -> Cut:
    """The column is not null."""
    return Cut(f"{column} given", f"{column} is given", lambda batch: batch[column].is_valid())


def unique(column: str) -> Cut:
    """The first row of each value of an integer column. It remembers what it saw: make a new one for each pass."""
    seen = _SeenIntegers()

    def keep(batch):
        values = batch[require(batch.schema.names, column, "the catalogue")]
        if not pa.types.is_integer(values.type):
            raise UserError(f"column {column} is {values.type}; only integers can be distinguished exactly here")
        numbers, missing = values_and_mask(values)
        # The bits are what is compared: one to one for a column of one type.
        numbers = numbers.view(np.int64) if numbers.dtype == np.uint64 else numbers.astype(np.int64, copy=False)
        new = np.zeros(len(numbers), bool)
        new[~missing] = seen.add(numbers[~missing])
        return new

    return Cut(f"unique {column}", f"{column} not in an earlier row", keep)


class _SeenIntegers:
    """A growing set of int64 as a few sorted arrays, each at least twice as long as the next; 16 bytes a value at most."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> np.ndarray:
        """True where a value is neither in the set nor earlier in ``values``; adds them all."""
        distinct, first = np.unique(values, return_index=True)
        fresh = np.ones(len(distinct), bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, distinct), len(run) - 1)
            fresh &= run[places] != distinct
        self._insert(distinct[fresh])
        new = np.zeros(len(values), bool)
        new[first[fresh]] = True
        return new

    def _insert(self, run: np.ndarray) -> None:
        while len(run) and self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort()
        if len(run):
            self._runs.append(run)
