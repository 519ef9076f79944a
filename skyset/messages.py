"""Texts that are printed or written for people: no secrets, no control characters, of bounded length.

Servers and files put what they like into reasons, names and headers. `SkysetError` gives its text through ``plain``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TextIO

from skyset.secrets import redacted

LONGEST = 2000  # characters
_FORMULA = re.compile(r"[=+@-](?!\d+(\.\d+)?([eE][+-]?\d+)?$)")


def plain(text: object, longest: int = LONGEST) -> str:
    """A text in one line that does nothing to a terminal.

    Line breaks and tabs become blanks; control characters, terminal escapes, marks that turn the direction of writing and
    other invisible ones are spelt out (``\\x1b``); secrets are hidden; what is longer than ``longest`` ends in ``...``.
    """
    text = str(text)
    if len(text) > 16 * longest:
        text = text[: 16 * longest]  # no need to look through megabytes
    text = redacted(text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() else _spelt(c) for c in text)
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def counted(count: int, what: str) -> str:
    """``1 file``, ``3,072 files``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 20) -> str:
    """``a, b, c``; of many names the first ``most``, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def csv_cell(text: object, longest: int = LONGEST) -> str:
    """``plain`` text for a CSV file: what a spreadsheet would take for a formula (``=...``) begins with ``'``."""
    text = plain(text, longest)
    return f"'{text}" if _FORMULA.match(text) else text


def _spelt(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def say(text: object, file: TextIO | None = None) -> None:
    """Print ``plain`` text in one line, by default to stdout."""
    print(plain(text), file=file)
