"""The command that adopts somebody's tree of files: adopt."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyset.cli.app import app, end
from skyset.cli.running import Scheduler, processes_of
from skyset.loading import registry
from skyset.loading.indexes import index_of
from skyset.messages import counted, listed, say

if TYPE_CHECKING:
    from skyset.adopting.adopt import Adopted, AdoptedDataset
    from skyset.adopting.verify import Verified

#: Findings and differences that are printed.
_SHOWN = 40
#: What is no part of how an index is made.
_PRINTING = ("--print_declaration", "--print-declaration")
#: Findings of which `adopt` prints some.
_EXAMPLES = 3


@app.command(
    help="Read a folder of HDF5 files that skyset did not write, where they lie: MultimodalUniverse's trees, or anybody's "
    "with ids and positions. Every file is opened once, to see what it holds and what is wrong with it (findings.csv); "
    "the index that is made of that makes the folder load as a survey does. Nothing is written into the folder. The same "
    "command goes on after an interruption, and later reads only new and changed files. Rows may be one HDF5 dataset a "
    "column, one file an object, or one group an object; padding of spectra and light curves is found and left out.",
    epilog="Examples:\n\nskyset adopt mmu/sdss && skyset show mmu/sdss -o spectrum.png\n\n"
    "skyset adopt mmu/hsc -o index/hsc --all_pixels\n\n"
    "skyset adopt mine --print_declaration > mine.py; skyset adopt mine --declaration mine.py --name mine\n\n"
    "python -c \"import skyset; print(next(iter(skyset.load('mine', split='train', streaming=True))))\"",
)
def adopt(
    tree: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="the folder: files .hdf5, .h5 or .hdf, in folders healpix=<cell>, of datasets (configs), of splits, or in "
            "none; splits also by how names begin (train_, val_, test_)",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="INDEX", help="where the index goes (default: $SKYSET_CACHE, or ~/.cache/skyset)"
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="what to load it by: skyset.load(NAME) (default: the folder's)")
    ] = "",
    declaration: Annotated[
        Path | None,
        typer.Option(
            "--declaration", metavar="FILE.py", help="what columns there are, as --print_declaration prints it, edited"
        ),
    ] = None,
    print_declaration: Annotated[
        bool,
        typer.Option("--print_declaration", help="print what was found as a Python file: names, units, groups, padding"),
    ] = False,
    position_unit: Annotated[
        str,
        typer.Option(
            "--position_unit",
            metavar="UNIT",
            help="of right ascension and declination: deg, hour or rad (default: by their attributes, or by the cells "
            "that folders name)",
        ),
    ] = "",
    num_processes: Annotated[
        int | None,
        typer.Option("--num_processes", "--processes", min=1, metavar="N", help="files at once (default: one per core)"),
    ] = None,
    scheduler: Scheduler = None,
    all_pixels: Annotated[
        bool, typer.Option("--all_pixels", help="look at every value of images and spectra, not at some rows of each file")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="stop at the first file that cannot be read (default: name it, go on)")
    ] = False,
) -> None:
    def run() -> int:
        from skyset.adopting.adopt import adopt as make
        from skyset.adopting.declared import printed

        found = make(
            tree,
            output,
            name,
            declaration,
            processes_of(num_processes),
            scheduler,
            position_unit,
            all_pixels,
            strict,
            ["skyset", *(each for each in sys.argv[1:] if each not in _PRINTING)],
        )
        lines = sys.stderr if print_declaration else None
        for dataset in found.datasets:
            _tell(dataset, file=lines)
        _tell_how_to_load(found, str(tree), name, file=lines)
        if print_declaration:
            print(printed({each.name: each.inferred for each in found.datasets}, str(tree)), end="")
        return 1 if found.broken else 0

    end(run)


def _tell(dataset: AdoptedDataset, file) -> None:
    """What is in one dataset, and what is wrong with it."""
    name = "" if dataset.name == "default" else f"{dataset.name}: "
    splits = ", ".join(f"{split} {rows:,}" for split, rows in sorted(dataset.splits.items()))
    kind = {"columns": "one dataset a column", "objects": "one object a file", "groups": "one group an object"}
    what = kind[dataset.inferred.form.kind]
    again = "" if dataset.read else "; no file has changed since the last time"
    say(f"{name}{counted(dataset.rows, 'row')} in {counted(dataset.files, 'file')} ({what}); {splits}{again}", file=file)
    if dataset.unit != "deg":
        say(f"{name}positions are stored in {dataset.unit}, and handed out in degrees", file=file)
    looked = ""
    if 0 < dataset.sampled < dataset.rows:  # 0: no column is of those whose arrays can be judged
        looked = f"; arrays of {dataset.sampled:,} of the rows were looked at (--all_pixels: all)"
    lines, examples = dataset.findings.lines(), dataset.findings.examples(_EXAMPLES)
    say(f"{name}findings: {', '.join(lines)}{looked}" if lines else f"{name}no findings{looked}", file=file)
    for line in examples:
        say(f"  {line}", file=file)
    if lines:
        total = dataset.findings.total
        say(f"  {'all of them' if total <= len(examples) else 'more'}: {dataset.folder / 'findings.csv'}", file=file)
    if dataset.broken:
        were = "file cannot be read and was" if dataset.broken == 1 else "files cannot be read and were"
        say(f"{name}{dataset.broken:,} {were} left out: mend or replace, and adopt again", file=sys.stderr)


def _tell_how_to_load(found: Adopted, tree: str, name: str, file) -> None:
    say(f"index: {found.index}", file=file)
    splits = found.datasets[0].splits
    split = "train" if "train" in splits else max(splits, key=lambda each: splits[each])
    where = _shortest(found, tree, name)
    configs = [each.name for each in found.datasets]
    config = f", {configs[0]!r}" if len(configs) > 1 else ""
    more = f"  # configs: {listed(configs)}" if len(configs) > 1 else ""
    say(f"load it: skyset.load({where!r}{config}, split={split!r}, streaming=True){more}", file=file)
    shown = shlex.quote(f"{found.index}/{configs[0]}" if len(configs) > 1 else where)
    say(f"look at it: skyset show {shown} --limit 4 -o rows.png; skyset report {shown} -o report.html", file=file)


def _shortest(found: Adopted, tree: str, name: str) -> str:
    """What leads to the index: its name, or the tree; the index where another one is found by those."""
    index = os.path.realpath(found.index)
    if name and (named := registry.index_named(name)) is not None and os.path.realpath(named) == index:
        return name
    of_tree = None if name else index_of(tree)
    return tree if of_tree is not None and os.path.realpath(of_tree) == index else str(found.index)


def tell_verified(found: Verified) -> int:
    """Print what ``skyset verify`` found out about an adopted dataset; how many differences there are."""
    name = "" if found.name == "default" else f"config {found.name}, "
    for line in found.differences[:_SHOWN]:
        say(line)
    if (more := len(found.differences) - _SHOWN) > 0:
        say(f"and {more:,} more")
    told = found.findings.lines()
    if told:
        say(f"{name}findings over all values: {', '.join(told)}")
        examples = found.findings.examples(_SHOWN)
        for line in examples:
            say(f"  {line}")
        if (more := found.findings.total - len(examples)) > 0:
            say(f"  and {more:,} more")
    if not found.differences and not found.broken:
        as_listed = f"{counted(found.rows, 'row')} in {counted(found.files, 'piece')}, as the index {found.folder} says"
        wrong = f", with {counted(found.findings.total, 'finding')}" if told else ""
        say(f"OK: {name}{as_listed}{wrong}")
    return len(found.differences)
