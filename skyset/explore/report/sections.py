"""The sections of a report on one dataset, each from what was counted before."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from skyset.explore.info import bounds_text, covered_text
from skyset.explore.report import charts
from skyset.explore.report.page import cut, facts, folded, note, shares, table
from skyset.explore.report.pictures import Picture, classes_of, has_images
from skyset.explore.report.rejects import Rejects
from skyset.explore.report.sample import Build, Sample
from skyset.explore.report.statistics import Summary
from skyset.files import human_bytes
from skyset.html import Html, element, joined
from skyset.loading.trees import called
from skyset.messages import counted
from skyset.partitions.layout import MANIFEST, REJECTED
from skyset.partitions.manifest import FileEntry

#: Reasons that are listed; bytes that the list of files may take.
_MOST_REASONS, _FILE_BYTES = 40, 900_000


@dataclass
class Looked:
    """All that was found out about a dataset.

    Args:
        build: the dataset.
        sample: the rows that were read.
        summaries: by column.
        pictures: of rows.
        rejects: from ``rejected.csv``.
        cells: rows by HEALPix cell: all, or of the sample where the manifest does not tell.
        others: the other datasets of its folder: config, rows, files, splits, folder.
        digest: SHA-256 of ``manifest.json``, or "".
        seed: of the draw.
        problems: what is wrong, a line each.
        lengths: of ragged columns, how long rows are.
    """

    build: Build
    sample: Sample
    summaries: Mapping[str, Summary]
    pictures: Sequence[Picture]
    rejects: Rejects
    cells: dict[int, int]
    others: Sequence[tuple[str, int, int, str, str]] = ()
    digest: str = ""
    seed: int = 0
    problems: list[str] = field(default_factory=list)
    lengths: Mapping[str, Summary] = field(default_factory=dict)

    @property
    def basis(self) -> str:
        """What the statistics are made of."""
        rows, of = self.sample.rows, self.build.manifest.rows
        if rows == of:
            return f"all {of:,} rows"
        if self.sample.whole:
            return f"the {rows:,} of {of:,} rows that could be read"
        return (
            f"a sample of {rows:,} of {of:,} rows, from {counted(self.sample.opened, 'file')}, drawn with seed {self.seed}"
        )


def summary_facts(build: Build) -> Html:
    """Counts at the top of a page."""
    manifest = build.manifest
    cells = len({entry.healpix for entry in manifest.files})
    where = f"{bounds_text(manifest)}; cells of {covered_text(manifest)} of the sky" if manifest.files else ""
    return facts(
        [
            ("rows", f"{manifest.rows:,}"),
            ("files", f"{len(manifest.files):,}" + ("" if not build.cells_known else f" in {counted(cells, 'cell')}")),
            ("size", human_bytes(manifest.bytes)),
            ("columns", f"{len(manifest.columns):,}"),
            ("rejected", f"{manifest.rejected:,}" if build.cells_known else ""),
            ("sky", where if build.cells_known else ""),
        ]
    )


def problems_box(problems: Sequence[str]) -> Html | None:
    """What is wrong with the data, at the top."""
    if not problems:
        return None
    shown = [element("li", cut(each, 500)) for each in problems[:50]]
    more = element("p", f"and {len(problems) - 50:,} more") if len(problems) > 50 else None
    title = f"{counted(len(problems), 'problem')} with these files"
    advice = (
        "Rows of such files are in no figure of this page. `skyset verify` looks at every byte and names each difference."
    )
    return element(
        "section", element("h2", title), element("ul", shown), more, note(advice), class_="problem", aria_label=title
    )


def sky(looked: Looked) -> Html:
    """The map of cells and rows."""
    manifest, sample = looked.build.manifest, looked.sample
    order = np.random.default_rng(looked.seed).permutation(sample.rows)[: charts.MOST_DOTS]
    ra, dec = (sample.values[name][order].astype(float) for name in looked.build.position)
    there = np.isfinite(ra) & np.isfinite(dec)
    whose = "in the manifest" if looked.build.cells_known else f"among {looked.basis}"
    _, drawn_nside = charts.coarser({}, manifest.nside)
    rows, cells = counted(sum(looked.cells.values()), "row"), counted(len(looked.cells), "HEALPix cell")
    words = f"Map of the whole sky: {rows} in {cells} {whose}" + (
        f"; {bounds_text(manifest)}" if looked.build.cells_known else ""
    )
    figure = element("figure", charts.sky_svg(looked.cells, manifest.nside, ra[there], dec[there], words))
    legend = charts.legend(looked.cells, manifest.nside) if looked.cells else None
    dots = element("li", element("i", class_="dot"), f"{int(there.sum()):,} rows, drawn at random")
    caption = note(
        f"Mollweide's projection, ICRS, east to the left. Colours: rows a cell (nside {drawn_nside}, nested ordering), "
        f"{whose}."
    )
    return joined([figure, legend, element("ul", dots, class_="legend"), caption])


def pictures(looked: Looked) -> Html:
    """Rows as the survey draws them."""
    if not looked.pictures:
        known = looked.build.survey is None or not has_images(looked.build.survey)
        return note("This dataset has no images." if known else "No row was drawn.")
    figures = []
    for each in looked.pictures:
        where = f"RA {each.ra:.5f}, Dec {each.dec:+.5f} deg"
        alt = f"{called(looked.build.manifest)} {each.key}, as the survey draws it, at {where}"
        image = element("img", src=each.source, alt=alt, loading="lazy")
        kept = element("div", image, class_="scroll" if each.shape > 1.3 else None)
        caption = element("figcaption", element("b", each.key), f", {where}")
        figures.append(element("figure", kept, caption, class_="full" if each.shape > 2.5 else None))
    return element("div", figures, class_="pictures")


def classes(looked: Looked) -> Html | None:
    """The balance of classes, where there are any."""
    parts = []
    for name, (names, values) in classes_of(looked.build.survey, looked.sample).items():
        labels = values.ravel()
        counts = [(f"{number}: {each}", int((labels == number).sum())) for number, each in enumerate(names)]
        if without := int(((labels < 0) | (labels >= len(names))).sum()):
            counts.append(("no class", without))
        words = f"Rows of each class of {name}"
        parts.append(joined([element("h3", name), shares(counts, len(labels), words)]))
    return joined([note(f"Of {looked.basis}."), parts]) if parts else None


def cuts_and_rejects(looked: Looked) -> Html:
    """What the build left out, and why."""
    from skyset.tables.cuts import Counts

    manifest, parts = looked.build.manifest, []
    if "cuts" in manifest.build:
        try:
            counts = Counts.from_json(manifest.build["cuts"])
            steps = (
                (
                    cut(s["name"]),
                    f"{s['removed']:,}",
                    f"{s['left']:,}",
                    f"{s['left'] / max(1, counts.rows):.1%}",
                    cut(s["description"]),
                )
                for s in counts.steps()
            )
            caption = "Cuts on the catalogue, in their order"
            parts.append(table(("cut", "removed", "left", "share left", "keeps rows with"), steps, caption, (1, 2, 3), (4,)))
        except ValueError as error:
            looked.problems.append(f"{MANIFEST}: its cuts cannot be read: {error}")
    rejects = looked.rejects
    if rejects.reasons:
        most = rejects.reasons.most_common(_MOST_REASONS)
        rows = ((cut(kind), f"{count:,}", *map(cut, rejects.examples[kind])) for kind, count in most)
        heads = ("reason (# is a number)", "objects", "for example", "its file", "its reason")
        caption = f"{counted(rejects.total, 'object')} that did not get in, by {REJECTED}"
        parts.append(table(heads, rows, caption, (1,), (3, 4)))
        if len(rejects.reasons) > len(most):
            parts.append(note(f"and {len(rejects.reasons) - len(most):,} other reasons, in {REJECTED}"))
    elif manifest.rejected:
        parts.append(note(f"{counted(manifest.rejected, 'object')} rejected; {REJECTED} is not here."))
    return joined(parts) if parts else note("No cut is recorded, and no object was rejected.")


def configs_and_splits(looked: Looked) -> Html:
    """The dataset's splits, and the other datasets of its folder."""
    manifest = looked.build.manifest
    rows = (
        (
            name,
            f"{sum(e.rows for e in files):,}",
            f"{sum(e.rows for e in files) / max(1, manifest.rows):.1%}",
            f"{len(files):,}",
            human_bytes(sum(e.bytes for e in files)),
        )
        for name, files in manifest.splits.items()
    )
    parts = [table(("split", "rows", "share", "files", "size"), rows, f"Splits of config {manifest.config}", (1, 2, 3, 4))]
    if looked.others:
        others = (
            (
                cut(config),
                f"{rows:,}",
                f"{files:,}",
                cut(splits),
                element("code", cut(f"skyset report {shlex.quote(where)}")),
            )
            for config, rows, files, splits, where in looked.others
        )
        caption = "Other datasets of this folder"
        parts.append(table(("config", "rows", "files", "splits", "its own report"), others, caption, (1, 2), (4,)))
    return joined(parts)


def provenance(looked: Looked) -> Html:
    """Where the rows come from and what made them."""
    manifest, survey = looked.build.manifest, looked.build.survey
    parts: list[Html] = []
    sources = [element("li", _address(each)) for each in islice(manifest.sources, 200)]
    more = note(f"and {len(manifest.sources) - 200:,} more") if len(manifest.sources) > 200 else None
    parts.append(joined([element("h3", "Sources"), element("ul", sources), more]))
    command = manifest.build.get("command")
    if isinstance(command, list) and command:
        parts.append(joined([element("h3", "Command"), element("pre", cut(shlex.join(map(str, command)), 4000))]))
    versions = manifest.build.get("versions")
    if isinstance(versions, dict):
        rows = ((cut(name, 60), cut(value, 60)) for name, value in versions.items())
        parts.append(table(("package", "version"), rows, "Versions that the build ran with"))
    rest = {
        k: v for k, v in manifest.build.items() if k not in ("command", "versions", "cuts", "in_place", "hats", "position")
    }
    if rest:
        rows = (
            (cut(name, 100), cut(value if isinstance(value, str) else json.dumps(value), 600))
            for name, value in rest.items()
        )
        parts.append(table(("option", "value"), rows, "What else the manifest says of the build", wide=(1,)))
    if survey is not None:
        parts.append(
            folded(
                "Licence and citation",
                element("p", survey.license),
                element("p", _address(survey.homepage)),
                element("pre", Html("\n".join(cut(line, 500) for line in survey.citation.splitlines()[:200]))),
            )
        )
    return joined(parts)


def _address(value: str) -> Html:
    shown = cut(value)
    is_link = value.startswith(("http://", "https://"))
    return element("a", shown, href=shown, rel="noreferrer noopener") if is_link else element("code", shown)


def checksums(looked: Looked) -> Html:
    """Each file with its SHA-256."""
    manifest = looked.build.manifest
    digest = element("p", f"SHA-256 of {MANIFEST}: ", element("code", looked.digest)) if looked.digest else None
    if not any(entry.sha256 for entry in manifest.files):
        rows = (
            (cut(e.path, 300), f"{e.rows:,}", f"{e.bytes:,}" if e.bytes else "", cut(e.split, 60)) for e in manifest.files
        )
        caption, total = "Files; no checksums of them are known", len(manifest.files)
        made = table(("file", "rows", "bytes", "split"), rows, caption, (1, 2), (), _FILE_BYTES, total)
        return joined([digest, made])
    rows, total = (_file_row(entry) for entry in manifest.files), len(manifest.files)
    made = table(
        ("file", "rows", "bytes", "SHA-256"), rows, "Files, as the manifest has them", (1, 2), (3,), _FILE_BYTES, total
    )
    return joined(
        [
            digest,
            folded(f"{counted(len(manifest.files), 'file')} with checksums", made),
            note("They are those of the manifest; `skyset verify` recomputes them."),
        ]
    )


def _file_row(entry: FileEntry) -> tuple[Html, str, str, Html]:
    return cut(entry.path, 300), f"{entry.rows:,}", f"{entry.bytes:,}", element("code", entry.sha256)
