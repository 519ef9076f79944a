"""Labels of exposures: JSON in the public form, or CSV.

    {"annotations": {"979412": "GOOD", "979413p": "BGP, B_SEEING"}}

    FITS_ID,label
    979412p,GOOD
    979413p[07],BT

A label is of an observation: it holds for its processed and its raw file. One of a CCD comes before that of its exposure.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skyset.errors import RecordError, UserError
from skyset.loaders.megacam_iqa import CLASSES
from skyset.messages import say
from skyset.raw import read_regular

LARGEST = 64 << 20
#: No label: the number and the name.
NONE = -1
_NAMED, CCDS = 5, 40


def observation(fits_id: str) -> str:
    """What a raw and a processed file have in common: ``979412`` of ``979412p`` or ``979412p.fits.fz``; other names stay."""
    found = re.fullmatch(r"(\d{4,8})[a-z]?(\.fits(\.fz|\.gz)?)?", fits_id)
    return found[1] if found else fits_id


@dataclass(frozen=True)
class Labels:
    """Pairs of classes, as numbers, by observation, and by observation and CCD; the second is -1 where there is none."""

    exposures: dict[str, tuple[int, int]] = field(default_factory=dict)
    ccds: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    path: Path | None = None

    def of(self, fits_id: str, ccd: int | None = None) -> tuple[int, int]:
        """The labels of an exposure or one of its CCDs; (-1, -1) where there is none."""
        name = observation(fits_id)
        default = self.exposures.get(name, (NONE, NONE))
        return default if ccd is None else self.ccds.get((name, ccd), default)

    def class_of(self, fits_id: str) -> int:
        """The class of an exposure by which it is counted: its first label, else the one that most of its CCDs have."""
        name = observation(fits_id)
        if name in self.exposures:
            return self.exposures[name][0]
        firsts = [pair[0] for (of, _), pair in self.ccds.items() if of == name]
        return max(sorted(set(firsts)), key=firsts.count, default=NONE)

    def names(self) -> list[str]:
        """The observations that have a label, in the file's order."""
        return list(dict.fromkeys([*self.exposures, *(name for name, _ in self.ccds)]))

    def unknown(self, fits_ids: Iterable[str]) -> list[str]:
        """Observations that have a label and are not among these exposures."""
        here = {observation(each) for each in fits_ids}
        return [name for name in self.names() if name not in here]


def read_labels(path: str | Path | None) -> Labels:
    """The labels of a file; none without one.

    Raises:
        UserError: it cannot be read, names a class that is none, or says two things of one exposure.
    """
    if path is None:
        return Labels()
    path = Path(path)
    try:
        text = read_regular(path, LARGEST).decode("utf-8-sig")
    except (OSError, ValueError, RecordError) as error:
        raise UserError(f"{path}: cannot be read as labels: {getattr(error, 'strerror', None) or error}") from None
    rows = list(_of_json(path, text) if text.lstrip()[:1] == "{" else _of_csv(path, text))
    labels = Labels(path=path)
    for name, said in rows:
        pair = _pair(path, name, said)
        found = re.fullmatch(r"(.+?)\[(?:ccd)?(\d{1,2})\]", name.strip())
        if found and int(found[2]) >= CCDS:
            raise UserError(f"{path}: {name}: MegaCam's CCDs are 0 to {CCDS - 1}")
        plain = observation(found[1] if found else name.strip())
        key = (plain, int(found[2])) if found else plain
        known: dict = labels.ccds if found else labels.exposures
        if known.setdefault(key, pair) != pair:
            raise UserError(f"{path}: {name} is {_words(known[key])} and {_words(pair)}: which is it?")
    if not rows:
        raise UserError(f"{path}: no label in it")
    return labels


def exposures_said(count: int) -> str:
    return "1 exposure" if count == 1 else f"{count:,} exposures"


def named(names: list[str]) -> str:
    """Some names for a line, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def tell_labels(labels: Labels, measured: Sequence[str], rejected: Sequence[str]) -> None:
    """Say which labels lead nowhere, and how many exposures have none."""
    if unknown := labels.unknown([*measured, *rejected]):
        are = (
            "1 label is of an exposure that is" if len(unknown) == 1 else f"{len(unknown)} labels are of exposures that are"
        )
        say(f"{are} not here: {named(unknown)}")
    if without := [each for each in measured if labels.class_of(each) == NONE]:
        have = "has" if len(without) == 1 else "have"
        say(f"{exposures_said(len(without))} {have} no label (-1): {named(without)}")


def _words(pair: tuple[int, int]) -> str:
    return ", ".join(CLASSES[each] for each in pair if each >= 0)


def _pair(path: Path, name: str, said: object) -> tuple[int, int]:
    words = [word.strip() for word in said.split(",")] if isinstance(said, str) else [str(said)]
    for word in words:
        if word not in CLASSES:
            raise UserError(f"{path}: {name} is {word!r}, which is no class: {', '.join(CLASSES)}")
    if len(words) > 2:
        raise UserError(f"{path}: {name} has {len(words)} labels: one or two")
    first, second = CLASSES.index(words[0]), CLASSES.index(words[1]) if len(words) > 1 else NONE
    return first, NONE if second == first else second


def _of_json(path: Path, text: str) -> Iterator[tuple[str, object]]:
    try:
        values = json.loads(text, object_pairs_hook=functools.partial(_each_once, path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON: {error}") from None
    annotations = values.get("annotations") if isinstance(values, dict) else None
    if not isinstance(annotations, dict):
        raise UserError(f'{path}: it has no "annotations" of exposures by their ids')
    yield from annotations.items()


def _each_once(path: Path, items: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of a key that is there twice JSON would keep the last."""
    made = dict(items)
    if len(made) < len(items):
        [(key, _)] = Counter(key for key, _ in items).most_common(1)
        raise UserError(f"{path}: {key} is there twice: which is it?")
    return made


def _of_csv(path: Path, text: str) -> Iterator[tuple[str, object]]:
    rows = csv.reader(io.StringIO(text))
    try:
        yield from _cells(path, rows)
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num}: no CSV: {error}") from None


def _cells(path: Path, rows) -> Iterator[tuple[str, object]]:
    first = next(rows, [])
    head = [name.strip().lower() for name in first]
    keys = [head.index(name) for name in ("fits_id", "id", "exposure") if name in head]
    values = [head.index(name) for name in ("label", "gt_label1", "label1") if name in head]
    seconds = [head.index(name) for name in ("label2", "gt_label2") if name in head]
    if not keys or not values:
        raise UserError(f"{path}: its first line is {','.join(first)[:80]!r}: FITS_ID,label is meant")
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(keys[0], values[0]):
            raise UserError(f"{path}: line {rows.line_num}: {len(head)} cells are meant, there are {len(row)}")
        words = [row[place].strip() for place in (values[0], *seconds[:1]) if place < len(row) and row[place].strip()]
        yield row[keys[0]], ", ".join(words)
