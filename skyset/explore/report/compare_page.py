"""The page on the differences of two builds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skyset.explore.report import charts
from skyset.explore.report.columns import MOST_HISTOGRAMS
from skyset.explore.report.command import save
from skyset.explore.report.compare import (
    MOST_CELLS,
    MOST_ROWS,
    Comparison,
    column_changes,
    option_changes,
)
from skyset.explore.report.page import cut, document, note, number, table
from skyset.explore.report.sample import Build, Sample, take
from skyset.explore.report.sections import problems_box
from skyset.explore.report.statistics import bins_for, histogram, present
from skyset.files import human_bytes
from skyset.html import Html, element, joined
from skyset.loading.trees import called
from skyset.messages import counted
from skyset.progress import progress_bar
from skyset.survey import Column
from skyset.versions import __version__

_HISTOGRAM_BYTES = 1_500_000


def write_comparison(
    one: Build, other: Build, output: Path, rows: int, seed: int = 0, scheduler: str | None = None
) -> list[str]:
    """Write the page on what is different in two builds; what is wrong with their files, a line each.

    Args:
        one, other: the builds, the older one first.
        output: the page.
        rows: of each, of which the distributions are made where there are more, about.
        seed: of the rows that are drawn.
        scheduler: address of a Dask cluster that reads them, see `skyset.runner.executor`.

    Raises:
        UserError: it cannot be written.
    """
    reading = functools.partial(progress_bar, unit="file", desc="reading", leave=False)
    comparing = functools.partial(progress_bar, unit="cell", desc="comparing", leave=False)
    builds = one, other
    samples = [take(build, rows, seed, reading, scheduler) for build in builds]
    by_key = one.manifest.key == other.manifest.key
    compared = Comparison(one, other, seed).run(comparing) if by_key else None
    problems = {
        f"{build.root}/{path}": reason
        for build, sample in zip(builds, samples, strict=True)
        for path, reason in sample.problems.items()
    }
    for path, reason in compared.problems.items() if compared else ():
        problems.setdefault(path, reason)
    lines = [f"{path}: {reason}" for path, reason in problems.items()]
    save(output, _page(builds, samples, compared, lines))
    return lines


def _page(builds: tuple[Build, Build], samples: Sequence[Sample], compared: Comparison | None, problems: list[str]) -> str:
    names = [f"{called(build.manifest)}{_config(build)}" for build in builds]
    title = f"{names[0]}: two builds" if names[0] == names[1] else " and ".join(names)
    sections = [
        ("overview", "Overview", _overview(builds)),
        ("rows", "Rows", _rows(builds, compared)),
        ("columns", "Columns", _columns(builds)),
        ("values", "Values of rows that both have", _values(builds, compared)),
        ("distributions", "Distributions", _distributions(builds, samples)),
        ("options", "Options and versions", _options(builds)),
    ]
    head = [
        element("p", "A is ", element("code", cut(builds[0].root)), ", B is ", element("code", cut(builds[1].root)), ".")
    ]
    box = problems_box(problems)
    foot = joined([f"Made by skyset {__version__}."])
    return document(title, head if box is None else [*head, box], sections, foot)


def _config(build: Build) -> str:
    return "" if build.manifest.config == "default" else f", {build.manifest.config}"


def _overview(builds: Sequence[Build]) -> Html:
    manifests = [build.manifest for build in builds]
    cells = [{entry.healpix for entry in manifest.files} for manifest in manifests]
    counts = [
        ("survey", *(cut(called(manifest)) for manifest in manifests)),
        ("config", *(cut(manifest.config) for manifest in manifests)),
        ("rows", *(f"{manifest.rows:,}" for manifest in manifests)),
        ("rejected objects", *(f"{manifest.rejected:,}" for manifest in manifests)),
        ("files", *(f"{len(manifest.files):,}" for manifest in manifests)),
        ("HEALPix cells", *(f"{len(each):,}" for each in cells)),
        ("cells that only this one has", f"{len(cells[0] - cells[1]):,}", f"{len(cells[1] - cells[0]):,}"),
        ("size", *(human_bytes(manifest.bytes) for manifest in manifests)),
        ("columns", *(f"{len(manifest.columns):,}" for manifest in manifests)),
        ("splits", *(cut(", ".join(f"{k} {sum(e.rows for e in v):,}" for k, v in m.splits.items())) for m in manifests)),
    ]
    return table(("", "A", "B"), counts, "Both builds, by their manifests", (1, 2))


def _rows(builds: Sequence[Build], compared: Comparison | None) -> Html:
    if compared is None:
        keys = " and ".join(build.manifest.key for build in builds)
        return note(f"Rows are told apart by different columns ({keys}): they cannot be compared.")
    rows = compared.rows
    counts = [("in both", f"{rows.common:,}"), ("only in A", f"{rows.only[0]:,}"), ("only in B", f"{rows.only[1]:,}")]
    counts.append(("in both, in another cell of the sky", f"{rows.moved:,}" if rows.moved_known else "not known: too many"))
    parts = [table(("rows", "how many"), counts, f"Rows by their {compared.key}", (1,))]
    for name, named, count in zip("AB", rows.named, rows.only, strict=True):
        if named:
            more = f" and {count - len(named):,} more" if count > len(named) else ""
            told = (element("code", cut(key, 200)) for key in named)
            parts.append(element("p", f"Only in {name}: ", (Html(f"{each} ") for each in told), more))
    return joined(parts)


def _columns(builds: Sequence[Build]) -> Html:
    changes = column_changes(*(build.manifest.columns for build in builds))
    if not changes:
        return note("The same columns: names, dtypes, shapes, units and descriptions.")
    rows = ((cut(name, 100), what, cut(one), cut(other)) for name, what, one, other in changes)
    return table(("column", "what", "A", "B"), rows, f"{counted(len(changes), 'difference')} of the columns", wide=(2, 3))


def _values(builds: Sequence[Build], compared: Comparison | None) -> Html:
    if compared is None or not any(changed.compared for changed in compared.changed.values()):
        return note("No values were compared: no row is in the same cell of both.")
    units = {column.name: column.unit for column in builds[0].manifest.columns}
    most = max(changed.compared for changed in compared.changed.values())
    how = f"Of {most:,} rows that both have in the same cell" + (
        f", from up to {MOST_CELLS} cells drawn at random, at most {MOST_ROWS:,} rows and fewer of pixels."
        if most < compared.rows.common
        else "."
    )
    different = {name: each for name, each in compared.changed.items() if each.different}
    same = sum(each.compared > 0 for each in compared.changed.values()) - len(different)
    parts = [note(f"{how} {counted(same, 'column')} with the same values.")]
    if different:
        rows = (
            (
                cut(name, 100),
                f"{each.different:,} of {each.compared:,}",
                number(each.largest) if each.largest else "",
                cut(units[name], 60),
                element("ul", (element("li", cut(f"{c.key}: {c.before} \u2192 {c.after}")) for c in each.examples)),
            )
            for name, each in different.items()
        )
        heads = ("column", "rows that differ", "largest difference", "unit", "for example, A \u2192 B")
        parts.append(table(heads, rows, f"{counted(len(different), 'column')} with values that differ", (1, 2), (4,)))
    return joined(parts)


def _distributions(builds: Sequence[Build], samples: Sequence[Sample]) -> Html:
    there = {column.name: column for column in builds[1].manifest.columns}
    cards: list[Html] = []
    size = left_out = 0
    for column in builds[0].manifest.columns:
        other = there.get(column.name)
        if other is None or column.name == "healpix" or any(column.name not in sample.values for sample in samples):
            continue
        if column.is_ragged and not column.is_bytes and any(column.name not in sample.elements for sample in samples):
            continue  # of rows of many values no values are read
        if len(cards) >= MOST_HISTOGRAMS or size > _HISTOGRAM_BYTES:
            left_out += 1
            continue
        if card := _card(column, [(column, samples[0]), (other, samples[1])]):
            cards.append(card)
            size += len(card)
    basis = " and ".join(
        f"{s.rows:,} of {b.manifest.rows:,} rows of {n}" for s, b, n in zip(samples, builds, "AB", strict=True)
    )
    key = element(
        "ul",
        element("li", element("i", class_="first"), "A, bars"),
        element("li", element("i", class_="second"), "B, line"),
        class_="legend",
    )
    more = note(f"{left_out:,} more columns are not drawn, which would make this page too long.") if left_out else None
    words = note(f"Shares of the values of {basis}; columns of numbers that both have.")
    return joined([words, key, element("div", cards, class_="cards"), more])


def _card(column: Column, sides: Sequence[tuple[Column, Sample]]) -> Html | None:
    if any(each.is_text and not each.is_bytes for each, _ in sides):
        return None
    numbers = []
    for each, sample in sides:
        values, _ = present(each, sample.elements.get(column.name, (sample.values[column.name],))[0])
        numbers.append(values[np.isfinite(values)])
    bins = bins_for(numbers)
    if bins is None or not all(each.size for each in numbers):
        return None
    counted = [histogram(values, bins) for values in numbers]
    low, high = (bins.edges[0] + 0.5, bins.edges[-1] - 0.5) if bins.whole else (bins.edges[0], bins.edges[-1])
    low, high = number(float(low)), number(float(high))
    medians = [number(float(np.median(values))) for values in numbers]
    unit = "byte" if column.is_bytes else column.unit
    words = f"Histograms of {column.name} from {low} to {high} {unit}: the median of A is {medians[0]}, of B {medians[1]}"
    name = element("figcaption", element("span", cut(column.name), class_="name"), cut(f" ({unit})" if unit else "", 60))
    ends = element("div", element("span", low), element("span", high), class_="ends")
    middle = element(
        "small", f"median {medians[0]}" + (f" \u2192 {medians[1]}" if medians[0] != medians[1] else ""), class_="soft"
    )
    return element("figure", name, charts.histogram_svg(counted, words, shares=True), ends, middle)


def _options(builds: Sequence[Build]) -> Html:
    parts: list[Html] = []
    changes = option_changes(*(build.manifest.build for build in builds))
    if changes:
        rows = ((cut(name, 100), cut(one, 500), cut(other, 500)) for name, one, other in changes)
        parts.append(
            table(("option", "A", "B"), rows, "What the manifests say of the builds, where it differs", wide=(1, 2))
        )
    sources = [build.manifest.sources for build in builds]
    if sources[0] != sources[1]:
        named = [("sources", *(cut(", ".join(each), 1000) for each in sources))]
        parts.append(table(("", "A", "B"), named, "Sources", wide=(1, 2)))
    return joined(parts) if parts else note("The same options, versions and sources.")
