"""A survey is a data sheet: what two of them would have in common stands in a kit."""

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "build_scripts").glob("*/*.py") if path.name != "__init__.py")
LOADERS = sorted((ROOT / "loaders").glob("*.py"))
LONGEST, MOST_SHARED = 200, 10
PAIRS = [pair for pair in itertools.combinations(SCRIPTS, 2) if pair[0].parent != pair[1].parent]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code(path: Path) -> set[str]:
    """The lines that say something: no imports, no brackets alone."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return {line for line in lines if re.search(r"\w.*\w.*\w", line) and not re.match("(from|import) ", line)}


@pytest.mark.parametrize("path", [*SCRIPTS, *LOADERS], ids=name)
def test_a_survey_is_short(path):
    assert len(path.read_text().splitlines()) < LONGEST


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda path: name(path))
def test_two_surveys_do_not_repeat_each_other(one, other):
    assert len(shared := code(one) & code(other)) <= MOST_SHARED, sorted(shared)
