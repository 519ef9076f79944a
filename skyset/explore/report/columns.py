"""The columns of a dataset in its report: a table of them, and how their values are distributed."""

from __future__ import annotations

from skyset.explore.report import charts
from skyset.explore.report.page import cut, name_of, note, number, shares, table
from skyset.explore.report.sample import is_small
from skyset.explore.report.sections import Looked
from skyset.explore.report.statistics import MISSING, Summary
from skyset.html import Html, element, joined
from skyset.messages import counted
from skyset.survey import ANY, Column

#: Histograms that are drawn, and bytes that they may take.
MOST_HISTOGRAMS, _HISTOGRAM_BYTES = 400, 900_000

_RAGGED = (
    "Of columns whose rows have any length the values are those of some of the rows, without padding where the survey says "
    "what is padding; rows of many values are not read here, only how long they are."
)


def columns(looked: Looked) -> Html:
    """The table of columns, and their distributions."""
    listed = looked.build.manifest.columns
    heads = ("column", "dtype", "shape", "unit", "missing", "smallest", "median", "largest", "meaning")
    made = table(
        heads,
        (_column_row(column, looked) for column in listed),
        f"Columns on disk; values of {looked.basis}",
        numbers=(4, 5, 6, 7),
        wide=(8,),
        most_bytes=600_000,
    )
    words = [note(MISSING)]
    if any(not is_small(column) for column in listed):
        words.append(note("Columns of pixels are not read here, but for the pictures."))
    if any(column.is_bytes for column in listed):
        words.append(note("Of columns of bytes, such as encoded images, the values are their lengths."))
    if any(column.is_ragged and not column.is_bytes for column in listed):
        words.append(note(_RAGGED))
    return joined([made, words])


def _column_row(column: Column, looked: Looked) -> list[object]:
    found = looked.summaries.get(column.name)
    unit = "byte" if column.is_bytes else column.unit
    head = [
        name_of(column.name),
        column.dtype,
        Html("&nbsp;\u00d7&nbsp;".join("any" if side == ANY else str(side) for side in column.shape)),
        cut(unit, 60),
    ]
    meaning = joined([cut(column.description), _lengths(column, looked)])
    if found is None or not found.values:
        return [*head, "", "", "", "", meaning]
    missing = f"{found.missing:,} ({found.missing / found.values:.1%})" if found.missing else "0"
    if found.infinite:
        missing += f", {found.infinite:,} infinite"
    if column.is_text and not column.is_bytes:
        different = element("small", f" ({counted(found.distinct, 'different text')})", class_="soft")
        return [*head, missing, "", "", "", joined([meaning, different])]
    return [*head, missing, number(found.low), number(found.median), number(found.high), meaning]


def _lengths(column: Column, looked: Looked) -> Html | None:
    """How long the rows of a ragged column are."""
    found = looked.lengths.get(column.name)
    if column.is_bytes or found is None or found.low is None:
        return None
    words = f" (rows of {number(found.low)} to {number(found.high)}, median {number(found.median)})"
    return element("small", words, class_="soft")


def distributions(looked: Looked) -> Html:
    """A histogram a column of numbers, the most frequent values a column of text."""
    cards: list[Html] = []
    size = left_out = 0
    for column in looked.build.manifest.columns:
        drawn = [(column.name, looked.summaries.get(column.name), "byte" if column.is_bytes else column.unit)]
        if not column.is_bytes:
            drawn.append((f"{column.name}: length of a row", looked.lengths.get(column.name), ""))
        for name, found, unit in drawn:
            if found is None or not found.values or column.name == "healpix":
                continue
            if len(cards) >= MOST_HISTOGRAMS or size > _HISTOGRAM_BYTES:
                left_out += 1
                continue
            cards.append(element("figure", *_card(name, found, unit)))
            size += len(cards[-1])
    more = note(f"{left_out:,} more columns are not drawn, which would make this page too long.") if left_out else None
    return joined([note(f"Of {looked.basis}."), element("div", cards, class_="cards"), more])


def _card(of: str, found: Summary, unit: str) -> list[Html | None]:
    name = element("figcaption", element("span", cut(of), class_="name"), cut(f" ({unit})" if unit else "", 60))
    if found.histogram is None:
        if found.texts and found.distinct < max(found.values, 2):
            words = f"The most frequent of {found.distinct:,} different values of {of}"
            rest = found.distinct - len(found.texts)
            more = element("small", f"and {rest:,} other values", class_="soft") if rest > 0 else None
            return [name, shares([(cut(t, 60), n) for t, n in found.texts], found.values, words), more]
        every = f"{found.distinct:,} values, each once" if found.texts else "nothing to draw: all are missing"
        wide = found.low is not None
        return [name, note("values that span too much or too little to be drawn" if wide else every)]
    edges, histogram = found.histogram.bins.edges, found.histogram
    if edges[0] == edges[-1]:
        return [name, note(f"always {number(found.low)}"), _outside(histogram.below, histogram.above)]
    low, high = (edges[0] + 0.5, edges[-1] - 0.5) if histogram.bins.whole else (edges[0], edges[-1])
    low, high = number(float(low)), number(float(high))
    words = (
        f"Histogram of {of}: {int(histogram.counts.sum()):,} values from {low} to {high} {unit}, median "
        f"{number(found.median)}, at most {int(histogram.counts.max()):,} in one bar"
    )
    ends = element(
        "div",
        element("span", low),
        element("span", f"highest bar {int(histogram.counts.max()):,}"),
        element("span", high),
        class_="ends",
    )
    return [name, charts.histogram_svg([histogram], words), ends, _outside(histogram.below, histogram.above)]


def _outside(below: int, above: int) -> Html | None:
    """How many values a histogram does not show."""
    said = [f"{count:,} {where}" for count, where in ((below, "below"), (above, "above")) if count]
    return element("small", ", ".join(said), class_="soft") if said else None
