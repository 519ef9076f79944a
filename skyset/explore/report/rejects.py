"""``rejected.csv`` summed up: which reasons, how often. It may have as many lines as the survey has objects."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from skyset.messages import plain
from skyset.partitions.layout import REJECTED

#: Different reasons that are counted; more are counted together.
MOST_REASONS = 1000
_NUMBER = re.compile(r"\d+(\.\d+)?")
#: Characters of a reason that tell it from others.
_TELLING = 200


@dataclass
class Rejects:
    """Objects that did not get in: how many by reason, whatever numbers are in it; of each the first (key, file, reason).

    ``problem`` says why none is known.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    problem: str = ""

    @property
    def total(self) -> int:
        return self.reasons.total()


def read_rejects(root: str) -> Rejects:
    """Count a folder's rejected objects; none where it has no such file, or is not on this machine."""
    found = Rejects()
    if "://" in root:
        return found
    try:
        with open(Path(root, REJECTED), newline="", encoding="utf-8", errors="replace") as file:
            for line in csv.DictReader(file):
                key, name, reason = (plain(line.get(column) or "", 300) for column in ("key", "file", "reason"))
                kind = _NUMBER.sub("#", reason)[:_TELLING]
                if kind not in found.reasons and len(found.reasons) >= MOST_REASONS:
                    kind = "other reasons"
                found.reasons[kind] += 1
                found.examples.setdefault(kind, (key, name, reason))
    except FileNotFoundError:
        pass
    except (OSError, csv.Error, ValueError) as error:
        found.problem = f"cannot be read: {plain(error, 300)}"
    return found
