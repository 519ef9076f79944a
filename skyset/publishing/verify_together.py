"""Published files looked at side by side: their bytes and values anywhere, what they have in common here, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from skyset.publishing.verify_files import Bytes, Listed, look_at_bytes
from skyset.publishing.verify_values import Values, compare_values
from skyset.runner import Pool, in_order

#: Bytes of files that are worth the start of a process.
_WORTH = 256 << 20


def worth(processes: int, files: Sequence[Listed]) -> int:
    """How many processes these files are worth; one where nobody says how large they are."""
    return min(processes, max(1, sum(each.bytes or 0 for each in files) // _WORTH))


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is known of a file, and what of its values is to be compared."""

    lines: list[str]
    values: Values | None


def looked_at_together(
    pool: Pool,
    root: str,
    said_by: str,
    files: Sequence[Listed],
    look: Callable[[int, Bytes], tuple[list[str], Values | None]],
    progress: Callable = iter,
) -> Iterator[str]:
    """Every difference in some files, a line each.

    Args:
        pool: reads all bytes, and compares values.
        root: what the paths are below.
        said_by: what lists the files.
        files: as they are listed.
        look: called here with the number of each file, in order, and with what was found of its bytes.
        progress: wraps the list of files.
    """
    whole = in_order(pool, partial(look_at_bytes, root, said_by), files)
    found = (each for _, (_, each) in zip(progress(files), whole, strict=True))
    looked = (_Compared(*look(number, each)) for number, each in enumerate(found))
    for each, lines in in_order(pool, _compare, looked):
        yield from each.lines
        yield from lines


def _compare(asked: _Compared) -> list[str]:
    return [] if asked.values is None else compare_values(asked.values)
