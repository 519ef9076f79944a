"""``skyset card``: a dataset card that agrees with the declaration, passes the Hub's rules, and shows what there is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skyset.building.card import new_card, refreshed
from skyset.errors import UserError
from skyset.explore.info import sky_figure
from skyset.explore.objects import object_figure
from skyset.files import replacing, write_atomically
from skyset.loading import registry
from skyset.partitions.manifest import Manifest
from skyset.publishing.metadata import joined_card, problems, size_category, split_card
from skyset.publishing.plan import FIGURES
from skyset.survey import Survey

_BLOCK = re.compile(r"(<!-- figures: written by `skyset card` -->\n).*?(<!-- end -->)", re.DOTALL)
_NAMES = ("sky.png", "object.png")
_SHOWN = """![Rows in each cell of the sky]({folder}/sky.png)

{rows:,} rows in {cells} HEALPix cells.

![One object]({folder}/object.png)
"""


@dataclass(frozen=True)
class SurveyCard:
    """A card and what it is written from.

    Args:
        path: the card's file.
        survey: the declaration.
        more: further blocks by marker, see ``building.card.more_blocks``.
        root: folder of the partitions that it shows; empty for a survey's own card.
    """

    path: Path
    survey: Survey
    more: Mapping[str, str]
    root: str = ""

    def _old(self) -> str | None:
        try:
            return self.path.read_text() if self.path.exists() else None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.path} cannot be read: {error}") from error

    def text(self) -> str:
        """The card as it should be.

        Raises:
            UserError: there is a file without the card's blocks, or its metadata is no YAML.
        """
        old = self._old()
        text = new_card(self.survey, self.more) if old is None else refreshed(old, self.path, self.survey, self.more)
        if not self.root:
            return text
        manifest = Manifest.load(self.root)
        values, body = split_card(text)
        if values.get("size_categories") != (sizes := [size_category(manifest.rows)]):
            text = joined_card({**values, "size_categories": sizes}, body)
        cells = len({entry.healpix for entry in manifest.files})
        shown = _SHOWN.format(folder=FIGURES, rows=manifest.rows, cells=cells)
        if _BLOCK.search(text):
            return _BLOCK.sub(lambda found: found[1] + shown + found[2], text)
        return f"{text.rstrip()}\n\n## What is there\n\n<!-- figures: written by `skyset card` -->\n{shown}<!-- end -->\n"

    def wrong(self) -> list[str]:
        """What is not as it should be, a line each: by the Hub's rules, blocks out of date, missing figures."""
        old = self._old()
        if old is None:
            return [f"{self.path}: there is no such file"]
        found = [f"{self.path}: {each}" for each in problems(split_card(old)[0])]
        if self.text() != old:
            found.append(f"{self.path}: is not up to date")
        names = _NAMES if self.root else ()
        missing = [self.path.parent / FIGURES / name for name in names if not (self.path.parent / FIGURES / name).is_file()]
        return found + [f"{path}: there is no such file" for path in missing]

    def write(self) -> str:
        """Write the card, and its figures; what was done with it.

        Raises:
            UserError: it cannot be written, its metadata is what the Hub refuses, or there are pictures of somebody's own
                where its figures go.
        """
        old, text = self._old(), self.text()
        if wrong := problems(split_card(text)[0]):
            raise UserError(f"{self.path}: {wrong[0]}")
        if self.root and not _BLOCK.search(old or ""):  # whose figures are none of this card's
            for path in (self.path.parent / FIGURES / name for name in _NAMES):
                if path.exists():
                    raise UserError(f"{path} is there, and no figure of this card: move it, or choose another -o")
        try:
            if text != old:
                write_atomically(self.path, text)
            if self.root:  # after the card, which says that they are ours
                self._draw()
        except OSError as error:
            raise UserError(f"cannot write {error.filename or self.path}: {error.strerror}") from error
        return "is up to date" if text == old else "written" if old is None else "brought up to date"

    def _draw(self) -> None:
        manifest, folder = Manifest.load(self.root), self.path.parent / FIGURES
        folder.mkdir(exist_ok=True)
        figures = {"sky.png": sky_figure(manifest), "object.png": object_figure(_as_built(manifest), self.root)}
        for name, figure in figures.items():
            with replacing(folder / name) as temporary:
                figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})


def _as_built(manifest: Manifest) -> Survey:
    return registry.survey(manifest.survey, manifest.config)
