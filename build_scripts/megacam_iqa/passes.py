"""All exposures measured, one on disk at a time; those that cannot be used are rejected, each with its reason."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from skyset.archives.fetch import Fetcher
from skyset.build_scripts.megacam_iqa.known import catalogue_of
from skyset.build_scripts.megacam_iqa.labels import Labels, exposures_said
from skyset.build_scripts.megacam_iqa.limits import LIMITS, added
from skyset.build_scripts.megacam_iqa.own import Own
from skyset.build_scripts.megacam_iqa.representative import object_id
from skyset.build_scripts.megacam_iqa.sources import COLUMNS, PUBLISHED, How
from skyset.build_scripts.megacam_iqa.staged import Staged, how_digest, known, ldac_path, stamps_path
from skyset.build_scripts.megacam_iqa.staging import stage
from skyset.build_scripts.megacam_iqa.wanted import Wanted, from_archive, local
from skyset.building.options import Options
from skyset.building.task import Rejected
from skyset.errors import RecordError, UserError
from skyset.extraction.config import Configuration, read_config
from skyset.extraction.engines import load_engine
from skyset.files import short_digest
from skyset.messages import say
from skyset.progress import progress_bar
from skyset.runner import executor

#: What processes that measure CCDs import once for all.
PRELOAD = ("skyset.extraction.ready", "skyset.build_scripts.megacam_iqa.sources")


def configuration_asked(asked: argparse.Namespace) -> Configuration:
    """SExtractor's configuration: the published one, or that of a file; keywords that are set come first.

    Raises:
        UserError: it cannot be meant.
    """
    pairs = [text.partition("=")[::2] for text in asked.set]
    if odd := [text for text, (key, value) in zip(asked.set, pairs, strict=True) if not key or not value]:
        raise UserError(f"--set {odd[0]}: KEYWORD=VALUE is meant, such as --set DETECT_THRESH=3")
    keys = {key for key, _ in pairs}
    if asked.config is None:
        pairs += [(key, value) for key, value in PUBLISHED.items() if key not in keys]
    made = read_config(asked.config, overrides=pairs, columns=COLUMNS)
    for line in made.warnings:
        say(f"warning: {line}", sys.stderr)
    return made


class Passes:
    """The exposures of a build.

    Attributes:
        exposures: that were measured, by name.
        rejected: the others.
    """

    def __init__(self, asked: argparse.Namespace, options: Options, labels: Labels, how: How, network: Fetcher | None):
        self.asked, self.options, self.how = asked, options, how
        self.rejected: list[Rejected] = []
        self._how = how_digest(how, asked.ldac)
        if network is None:
            wanted, rejected = local(options.local_data_path or Path(), tuple(asked.ids))
            self.rejected += rejected
            wanted = wanted[: asked.limit]
        else:
            wanted = from_archive(asked, options, labels, network)
        self.wanted = {each.fits_id: each for each in wanted}
        self.exposures: dict[str, Staged] = {}

    def _made_of(self, wanted: Wanted) -> str:
        return short_digest(f"{wanted.contents} {self._how}")

    def run(self, again: Sequence[str] = ()) -> None:
        """Measure what is not measured yet; or those that are named ``again``, whether or not."""
        root, left = self.options.output_dir, []
        for name in again or self.wanted:
            wanted = self.wanted[name]
            found = None if again or self.options.overwrite else known(root, name, self._made_of(wanted))
            if found is None:
                left.append(wanted)
            else:
                self.exposures[name] = found
        if not left:
            return
        names = [wanted.fits_id for wanted in left]
        Own(root).refuse(stamps_path(root, name) for name in names)
        Own(root).refuse(ldac_path(root, name) for name in names if catalogue_of(self.asked.ldac, name) is None)
        if self.asked.ldac is not None:
            taken = sum(catalogue_of(self.asked.ldac, name) is not None for name in names)
            say(f"catalogues of {taken} of {exposures_said(len(left))} are taken from {self.asked.ldac}")
        say(f"measuring {exposures_said(len(left))}: workers start first", sys.stderr)
        load_engine(None)
        bar = progress_bar(total=len(left), unit="exposure", desc="sources")
        with executor(self.options.num_processes, self.options.scheduler, PRELOAD, [self.options.output_dir]) as pool, bar:
            for wanted in left:
                self._measure(wanted, pool)
                bar.update()

    def _measure(self, wanted: Wanted, pool) -> None:
        root = self.options.output_dir
        try:
            with wanted.there() as path:
                staged = stage(path, root, self._made_of(wanted), self.how, pool, self.asked.ldac)
            if staged.fits_id != wanted.fits_id:
                raise RecordError(f"its headers say that it is {staged.fits_id}")
            self.exposures[wanted.fits_id] = staged
        except RecordError as error:
            if self.options.strict:
                raise UserError(f"{wanted.fits_id}: {error} (--strict stops at the first)") from error
            reason = str(error).removeprefix(f"{wanted.file}: ")
            self.rejected.append(Rejected(wanted.fits_id, wanted.file, reason))

    def tell(self) -> None:
        """What is unusual, in a few lines."""
        for staged in self.exposures.values():
            notes = list(staged.facts["notes"])
            ccds = staged.facts["ccds"]
            if dark := [str(ccd["ccd"]) for ccd in ccds if not ccd["usable"]]:
                notes.append(f"CCD {', '.join(dark)}: no light, no sample")
            if blank := [str(ccd["ccd"]) for ccd in staged.ccds if not ccd["sources"]]:
                notes.append(f"CCD {', '.join(blank)}: no source, all groups are empty")
            if notes:
                say(f"{staged.fits_id}: {'; '.join(notes)}")
        masked = self.masked()
        if masked:
            say(f"masked (NaN), not finite or absurd: {', '.join(f'{count:,} of {name}' for name, count in masked.items())}")

    def masked(self) -> dict[str, int]:
        """Values that were masked, by feature."""
        return added(*(ccd.get("masked", {}) for staged in self.exposures.values() for ccd in staged.ccds))

    def measured(self) -> list[Staged]:
        """The exposures that can be used, by name.

        Raises:
            UserError: there is none.
        """
        if not self.exposures:
            first = f", as {self.rejected[0].key}: {self.rejected[0].reason}" if self.rejected else ""
            raise UserError(f"no exposure can be used{first}")
        return [self.exposures[name] for name in sorted(self.exposures)]

    def notes(self) -> dict[str, object]:
        """For the manifest."""
        settings = self.how.configuration.settings
        said = {name: staged.facts["notes"] for name, staged in sorted(self.exposures.items()) if staged.facts["notes"]}
        return {
            "detection": {
                "config": str(self.asked.config) if self.asked.config else "published",
                "threshold": settings.threshold,
                "minarea": settings.minarea,
                "deblend_cont": settings.deblend_cont,
                "set": list(self.asked.set),
            },
            "masked": self.masked(),
            "limits": {name: list(limits) for name, limits in LIMITS.items()},
            "ccds_without_light": self._ccds(lambda ccd: not ccd["usable"]),
            "ccds_without_source": self._ccds(lambda ccd: ccd["usable"] and not ccd["sources"]),
            "of_exposures": said,
        }

    def _ccds(self, which: Callable[[dict], bool]) -> list[str]:
        """Names of CCDs."""
        pairs = ((name, ccd) for name, staged in sorted(self.exposures.items()) for ccd in staged.facts["ccds"])
        return [object_id(name, ccd["ccd"]) for name, ccd in pairs if which(ccd)]
