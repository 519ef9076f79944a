"""The columns that are wanted: those of a ``.param`` file, or of the command line, with the lengths of vectors.

How lines are read was seen with SExtractor 2.25.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skyset.errors import UserError
from skyset.extraction import columns as known
from skyset.extraction.settings import read_lines
from skyset.extraction.sex_file import KEYWORDS, MOST_SAID, SexFile, find, near_names, without_comment

#: How many columns without a reason are named.
_MOST_NAMED = 500
_LENGTHS = re.compile(r"[\s,]*(\d{1,9})(?:[\s,]+(\d{1,9}))?(?![\w.])")
#: Families of SExtractor's columns that need a fit, and where there is one.
_FITTED = re.compile(r"SPHEROID|DISK|MODEL|_PSF|PSF_|HYBRID|POINTSOURCE")


def read_columns(
    sex: SexFile, parameters: str | Path | None, columns: Iterable[str] | None, skip_unknown: bool
) -> tuple[list[str] | None, dict, list[str]]:
    """Names wanted (None: nobody said), lengths of vectors by field of Settings, and names left out."""
    if columns is not None:
        lines = [("--columns", one) for one in columns]
        if not lines:
            raise UserError("--columns: no column is wanted; such as X_IMAGE,Y_IMAGE,MAG_AUTO")
    else:
        path = Path(parameters) if parameters is not None else _parameters_file(sex)
        if path is None:
            return None, {}, []
        lines = [
            (f"{path}, line {number}", text)
            for number, line in enumerate(read_lines(path, "a .param file"), 1)
            if (text := without_comment(line).strip())
        ]
        if not lines:
            raise UserError(f"{path}: no column is wanted in it")
    wanted, unknown, passed_over = [], [], []
    lengths: dict[str, Any] = {}
    for where, text in lines:
        name, sides, rest = _column(text, where)
        if name not in known.COLUMNS or (name == "VIGNET" and skip_unknown and not sides and not _LENGTHS.match(rest)):
            unknown.append((where, name))
            continue
        wanted.append(name)
        sides, rest = _with_lengths(name, sides, rest)
        if _is_values(rest):
            passed_over.append(f"{name} {rest.strip()} ({where.rpartition(', ')[2]})")
        _vector(sex, where, name, sides, lengths, columns is None)
    source = lines[0][0].rpartition(", ")[0] or lines[0][0]
    _unknown_columns(sex, source, unknown, skip_unknown)
    if not wanted:
        raise UserError(f"{source}: none of the columns in it is measured here")
    if passed_over:
        more = f" and {len(passed_over) - MOST_SAID} more" * (len(passed_over) > MOST_SAID)
        sex.warnings.append(f"{source}: values after names are passed over: {', '.join(passed_over[:MOST_SAID])}{more}")
    return known.check(wanted), lengths, [name for _, name in unknown]


def _parameters_file(sex: SexFile) -> Path | None:
    name = sex.text("PARAMETERS_NAME")
    if name is None:
        return None
    path = find(name, sex.path, standard=False)
    if path is None:
        raise UserError(
            f"{sex.where('PARAMETERS_NAME')}: PARAMETERS_NAME {name}: no such file{sex.looked()}; give "
            "-p FILE.param, or --columns X_IMAGE,Y_IMAGE"
        )
    return path


def _with_lengths(name: str, sides: tuple[int, ...], rest: str) -> tuple[tuple[int, ...], str]:
    """The lengths of a vector, and what stands behind them: SExtractor reads "FLUX_APER 3" as FLUX_APER(3)."""
    if known.COLUMNS[name].repeat and not sides and (numbers := _LENGTHS.match(rest)):
        return tuple(int(number) for number in numbers.groups() if number), rest[numbers.end() :]
    return sides, rest


def _is_values(rest: str) -> bool:
    """Whether numbers or names stand there; any other text is a description, as in SExtractor's own default.param without
    its comment signs."""
    words = re.findall(r"[^\s,]+", rest)
    return bool(words) and all(word in known.COLUMNS or word in KEYWORDS or re.match(r"[+-]?\.?\d", word) for word in words)


def _vector(sex: SexFile, where: str, name: str, sides: tuple[int, ...], lengths: dict, from_file: bool) -> None:
    """Note the length of a vector by its field of Settings."""
    repeat = known.COLUMNS[name].repeat
    if sides and not repeat:
        sex.warnings.append(f"{where}: {name} is one number: the length {sides} is passed over")
    elif repeat == "vignet" and (sides or from_file):
        if not 1 <= len(sides) <= 2:
            raise UserError(f"{where}: VIGNET has a width and a height, such as VIGNET(35,35)")
        lengths["vignet"] = (sides[0], sides[1] if len(sides) == 2 else 1)
    elif repeat and (sides or from_file):
        if len(sides) > 1:
            raise UserError(f"{where}: {name}{sides}: one length is meant")
        length = sides[0] if sides else 1
        if lengths.get(repeat, length) != length:
            longer = max(lengths[repeat], length)
            sex.warnings.append(f"{where}: {name}({length}) and its like have one length here: {longer} values")
        lengths[repeat] = max(lengths.get(repeat, 0), length)


def _unknown_columns(sex: SexFile, source: str, unknown: list[tuple[str, str]], skip: bool) -> None:
    if not unknown:
        return
    # Each search for a near name takes milliseconds.
    said = [
        (name, [where.rpartition(", ")[2]] * (", line " in where) + _why_unknown(name, near=place < MOST_SAID))
        for place, (where, name) in enumerate(unknown[: _MOST_NAMED if skip else MOST_SAID])
    ]
    names = ", ".join(f"{name} ({'; '.join(why)})" if why else name for name, why in said)
    names += f" and {len(unknown) - len(said)} more" * (len(unknown) > len(said))
    if not skip:
        raise UserError(f"{source}: not measured here: {names}. --skip_unknown leaves them out")
    sex.warnings.append(f"{source}: left out, for they are not measured here: {names}")


def _column(text: str, where: str) -> tuple[str, tuple[int, ...], str]:
    """Name, lengths and what else stands in a line of a .param file."""
    match = re.match(r"([A-Za-z0-9_]+)(?:(\([^)]*\)?)|\s+(\([\s\d,]*\)))?", text)
    if match is None:
        raise UserError(f"{where}: {text[:100]}: a column's name is meant")
    try:
        name, sides = known.split_vector(match[1] + (match[2] or match[3] or ""))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return name, sides, text[match.end() :]


def _why_unknown(name: str, near: bool = True) -> list[str]:
    if name == "VIGNET":
        return ["it has a width and a height, such as VIGNET(35,35)"]
    if name in KEYWORDS:
        return ["a keyword, for a .sex file"]
    if _FITTED.search(name):
        return ["from a fit: see skyset.extraction.sersic"]
    return [said] if near and (said := near_names(name, known.COLUMNS, 0.85)) else []
