"""Step 7: the catalogue of sources, and both datasets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from skyset.build_scripts.megacam_iqa.catalog import CATALOGUE, Sources, write_catalogue
from skyset.build_scripts.megacam_iqa.catalog import SURVEY as OF_SOURCES
from skyset.build_scripts.megacam_iqa.grouping import Grouping
from skyset.build_scripts.megacam_iqa.labels import Labels, exposures_said
from skyset.build_scripts.megacam_iqa.own import Own
from skyset.build_scripts.megacam_iqa.passes import Passes
from skyset.build_scripts.megacam_iqa.representative import Made, as_asked, items, read_ccd
from skyset.build_scripts.megacam_iqa.staged import CATALOG, STAGED, Staged
from skyset.build_scripts.megacam_iqa.wanted import sources_of
from skyset.building.build import build, report
from skyset.building.options import Options
from skyset.building.task import Found
from skyset.building.whole_files import build_whole
from skyset.errors import UserError
from skyset.files import short_digest, write_atomically
from skyset.messages import say


def write_datasets(
    passes: Passes,
    options: Options,
    command: Sequence[str],
    grouping: Grouping,
    labels: Labels,
    split_of: Callable[[str, str], str],
    notes: Mapping,
) -> int:
    """Write ``objects_catalog.parquet``, ``representative`` and ``sources``; the exit status.

    Args:
        passes: the exposures as they were measured.
        options: what all builds share.
        command: what the user typed.
        grouping: the map, and how sources are drawn.
        labels: of exposures.
        split_of: says which side an exposure's row is on, by ``(fits_id, object_id)``.
        notes: for the manifests.
    """
    asked, root = passes.asked, options.output_dir
    if gone := [each.fits_id for each in passes.measured() if grouping.lacks_stamps(each)]:
        _stage_again(passes, gone)
    exposures = passes.measured()
    for staged in exposures:
        grouping.of(staged)
    _write_catalogue(root, exposures, labels)
    survey = as_asked(grouping.shape, asked.stamp)
    made = Made(grouping.groups.count, grouping.shape, asked.stamp, labels)
    said = {"sources": sources_of(asked), "rejected": passes.rejected}

    def find(*_) -> Found:
        return Found(
            list(items(exposures, grouping, labels, split_of)),
            survey=survey,
            notes={**notes, "config": "representative"},
            made_of=grouping.digest,
            **said,
        )

    def of(config: str) -> Options:
        return replace(
            options,
            output_dir=root / config,
            base_url="",
            local_data_path=None,
            limit=None,
            strict=False,
            files_per_object=options.files_per_object and config != "sources",
        )

    status = build(survey, functools.partial(read_ccd, made=made), of("representative"), find, command)
    rows = Sources(exposures, grouping, labels, split_of, asked.split_by_object)
    manifest = build_whole(
        OF_SOURCES, rows.wholes(), rows.rows, of("sources"), command, notes={**notes, "config": "sources"}, **said
    )
    status = max(status, report(manifest, root / "sources", rejected=False))
    if not asked.keep_staged:
        Own(root).remove_staged()
    return status


def _write_catalogue(root: Path, exposures: Sequence[Staged], labels: Labels) -> None:
    """Unless it is there and is of these exposures and labels."""
    made_of = short_digest(
        repr([(e.fits_id, e.facts["made_of"]) for e in exposures]) + repr((labels.exposures, labels.ccds))
    )
    note = root / CATALOG / f"{CATALOGUE}.made_of"
    if (root / CATALOGUE).is_file() and note.is_file() and note.read_text(encoding="utf-8") == made_of:
        return
    Own(root).expect(root / CATALOGUE)
    note.unlink(missing_ok=True)
    count = write_catalogue(root / CATALOGUE, exposures, labels)
    write_atomically(note, made_of)
    say(f"{CATALOGUE}: {count:,} sources of {exposures_said(len(exposures))}")


def _stage_again(passes: Passes, names: Sequence[str]) -> None:
    """Measure exposures whose cutouts went after an earlier build, and of which others are to be drawn.

    Raises:
        UserError: one cannot be had any more.
    """
    are = "is" if len(names) == 1 else "are"
    say(f"{exposures_said(len(names))} {are} measured again for their cutouts (--keep_staged keeps these)")
    passes.run(again=names)
    if gone := [name for name in names if not (passes.options.output_dir / STAGED / f"{name}.f16").exists()]:
        raise UserError(f"{gone[0]}: its cutouts are gone, and the exposure cannot be had: run it with the others again")
