"""How fast do the rows of a survey come out of this disk, on this machine? Measured in a minute, with advice.

Every way of iterating copies each pixel once into memory that is used again. First the files' pages are dropped from
the page cache before each way (cold), then the same ways loop over files that were just read (warm). The floor is reading
whole files one after the other: rows cannot come faster than their bytes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import datasets

from skyset.errors import UserError
from skyset.explore.bench.advice import advice
from skyset.explore.bench.machine import core_count, free_shared_memory, machine, worker_counts
from skyset.explore.bench.measure import (
    BATCH,
    COLD,
    FLOOR,
    Results,
    Speed,
    Target,
    Way,
    measure_all,
    open_target,
    stored_compression,
    total_bytes,
    ways,
)
from skyset.files import human_bytes, write_atomically
from skyset.versions import versions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMAT = "skyset-bench/1"


# --- what is measured ----------------------------------------------------------------------------------------------------


# --- ways of reading: each yields (rows, the arrays whose pixels are then copied) ------------------------------------------


# --- measuring -----------------------------------------------------------------------------------------------------------


# --- the machine ---------------------------------------------------------------------------------------------------------


# --- advice: from numbers to words; rates are rows per second unless bytes are said --------------------


# --- showing -------------------------------------------------------------------------------------------------------------


def speed_table(all_ways: Sequence[Way], results: Results, stored: float | None = None) -> Table:
    """Ways down, for each phase rows/s, MB/s and the share of the floor's rows/s.

    Where images are decoded, ``stored`` is a row's bytes on disk: MB/s are named by where they are, and the floor, which
    decodes nothing, is no measure.
    """
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("\nway", no_wrap=True)
    for phase in results.speeds:
        last = ("MB/s\nof disk", "MB/s\ndecoded") if stored else ("\nMB/s", "of\nfloor")
        for heading in (f"{phase}\nrows/s", *last):
            table.add_column(heading, justify="right", no_wrap=True)
    for way in all_ways:
        cells = [cell for speeds in results.speeds.values() for cell in _cells(speeds, way.name, stored)]
        if any(cells):
            table.add_row(way.name, *cells)
    return table


def _cells(speeds: Mapping[str, Speed], name: str, stored: float | None) -> tuple[str, str, str]:
    if name not in speeds:
        return "", "", ""
    speed, floor = speeds[name], speeds.get(FLOOR)
    if stored:
        decoded = f"{speed.bytes / 1e6:,.0f}" if name != FLOOR else ""
        return f"{speed.rows:,.0f}", f"{speed.rows * stored / 1e6:,.0f}", decoded
    share = f"{speed.rows / floor.rows:.0%}" if floor else ""
    return f"{speed.rows:,.0f}", f"{speed.bytes / 1e6:,.0f}", share


def _encoded_text(target: Target) -> str:
    stored, given = human_bytes(target.stored_row_bytes), human_bytes(target.row_bytes)
    return f"images encoded: a row is {stored} on disk and {given} decoded"


def show(target: Target, all_ways: Sequence[Way], results: Results, console: Console) -> None:
    """The head, the table, and the advice."""
    entries, compression = target.files, stored_compression(target.manifest)
    part = f"{sum(entry.rows for entry in entries):,} rows, {len(entries):,} files, {human_bytes(total_bytes(entries))}"
    here = machine()
    kind = _encoded_text(target) if target.is_encoded else f"compression {compression or 'not known'}"
    console.print(f"{target.survey.name}, {part}, {kind}", highlight=False)
    console.print(
        f"{here['processor']}, {here['cores']} cores, {human_bytes(here['memory_bytes'])} of memory\n", highlight=False
    )
    console.print(speed_table(all_ways, results, target.stored_row_bytes if target.is_encoded else None))
    console.print()
    if COLD in results.speeds:
        console.print(
            "cold: the files were dropped from the operating system's page cache first (a server's or a virtual machine's "
            "host may still hold them); warm: they were read just before.\n",
            highlight=False,
        )
    for text in (*results.notes, *advice(target, all_ways, results)):
        console.print(f"- {text}", highlight=False, markup=False)


def record(target: Target, all_ways: Sequence[Way], results: Results, seconds: float) -> dict:
    """All numbers with machine, versions and date, as it goes into a JSON file."""
    workers = {way.name: way.workers for way in all_ways}
    more = {"datasets": datasets.__version__}
    if "torch" in sys.modules:
        more["torch"] = sys.modules["torch"].__version__
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {**versions(), **more},
        "folder": target.root,
        "survey": target.survey.name,
        "split": target.split,
        "compression": stored_compression(target.manifest),
        "rows": sum(entry.rows for entry in target.files),
        "files": len(target.files),
        "bytes": total_bytes(target.files),
        "row_bytes": target.row_bytes,
        "stored_row_bytes": target.stored_row_bytes,
        "batch_size": BATCH,
        "seconds": seconds,
        "interrupted": results.interrupted,
        "speeds": [
            {
                "phase": phase,
                "way": name,
                "workers": workers[name],
                "rows_per_second": speed.rows,
                "bytes_per_second": speed.bytes,
                "share_of_floor": speed.rows / speeds[FLOOR].rows if FLOOR in speeds else None,
            }
            for phase, speeds in results.speeds.items()
            for name, speed in speeds.items()
        ],
        "notes": results.notes,
        "advice": advice(target, all_ways, results),
    }


# --- the command ---------------------------------------------------------------------------------------------------------


def run(folder: Path, seconds: float, output: Path | None, console: Console) -> int:
    """Measure, show and save; exit status 130 after Ctrl-C, with what was measured until then.

    Args:
        folder: with a manifest.
        seconds: that each way is measured, cold and warm.
        output: JSON file to write, None for none.
        console: where table and advice go.

    Raises:
        UserError: nothing can be measured, or the file cannot be written.
    """
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UserError(f"cannot write {output}: no such folder")  # now, not after a minute
    target = open_target(folder)
    all_ways = ways(target, chosen_workers(target, results := Results()))
    try:
        with progress(2 * len(all_ways) + 1) as say:
            measure_all(target, all_ways, seconds, results, say)
    except KeyboardInterrupt:
        results.interrupted = True
    if results.interrupted:
        print("skyset: interrupted; what was measured so far:" if results.speeds else "skyset: interrupted", file=sys.stderr)
    if results.speeds:
        show(target, all_ways, results, console)
        if output is not None:
            save(record(target, all_ways, results, seconds), output)
    return 130 if results.interrupted else 0


def chosen_workers(target: Target, results: Results) -> list[int]:
    """Numbers of workers to measure; a note where there is no torch, or too little shared memory."""
    if not datasets.config.TORCH_AVAILABLE:
        results.notes.append("No DataLoader: torch is not installed.")
        return []
    batch_bytes, shared = BATCH * target.row_bytes, free_shared_memory()
    counts = worker_counts(core_count(), batch_bytes, shared)
    if shared is not None and len(counts) < len(worker_counts(core_count(), batch_bytes, None)):
        results.notes.append(f"More than {counts[-1]} workers would not fit into shared memory, {human_bytes(shared)}.")
    return counts


@contextlib.contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A line that says what is being measured. Without a thread: processes are forked meanwhile."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)
        done = iter(range(steps))
        yield lambda text: bar.update(task, description=text, completed=next(done, steps), refresh=True)


def save(values: dict, path: Path) -> None:
    """Write JSON and say where it is; UserError if that is not possible."""
    try:
        write_atomically(path, json.dumps(values, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    print(f"wrote {path}")
