"""``python -m skyset.testing.mmu``: trees in MultimodalUniverse's layouts, with faults on request."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from skyset.command_line import main as run_command
from skyset.errors import UserError
from skyset.messages import counted, say
from skyset.testing.mmu.faults import FAULTS
from skyset.testing.mmu.kinds import KINDS
from skyset.testing.mmu.tree import CELLS, write


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:{width}}  {about}" for name, about in rows.items())


EXAMPLES = f"""\
examples:
  python -m skyset.testing.mmu --kind sdss -o mmu_sdss
      20 spectra in four cells, a fraction of a megabyte. Then:
      skyset adopt mmu_sdss && skyset show mmu_sdss --limit 4 -o s.png
  python -m skyset.testing.mmu --kind all -o mmu
      all of them, side by side
  python -m skyset.testing.mmu --kind gaia --faults zero_rows duplicate_ids -o mmu_gaia
      with faults; what was planted where is printed
  python -m skyset.testing.mmu --kind hsc --full_size --rows 100 --cells 20 -o mmu_hsc
      images as large as published, 160 x 160 in five bands: 2,000 of them, 2 GB
  python -m skyset.testing.mmu --kind yse --rows 4 --cells {CELLS} -o mmu_yse
      12,288 objects, a file each, in all cells of the sky

kinds:
{_table({name: layout.about for name, layout in KINDS.items()})}

faults:
{_table({name: fault.about for name, fault in FAULTS.items()})}

The same arguments write the same data. An object is the same however many rows and cells there are.
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m skyset.testing.mmu",
        description="Write made-up data in the layout of one of MultimodalUniverse's surveys.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--kind", required=True, metavar="KIND", help="the survey, see below; all for each in a folder of its own")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="where it goes; nothing may be in it")
    add("--rows", type=int, default=5, metavar="N", help="of a cell (default: %(default)s)")
    add("--cells", type=int, default=4, metavar="N", help=f"HEALPix cells, of {CELLS:,} (default: %(default)s)")
    add("--faults", nargs="+", default=[], metavar="FAULT", help="to plant, see below")
    add("--configs", nargs="+", default=[], metavar="NAME", help="of the survey's (default: its first)")
    add("--side", type=int, metavar="PIXELS", help="of images (default: small)")
    add("--length", type=int, metavar="N", help="of the longest spectrum or light curve (default: short)")
    add("--full_size", action="store_true", help="sides and lengths as published")
    add("--seed", type=int, default=0, help="another seed, another sky (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = arguments().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.kind != "all":
        _write(options.kind, options.output, options)
        return
    if options.configs or options.faults:
        raise UserError("configurations and faults are those of a survey: name it with --kind")
    if options.output.exists() and any(options.output.iterdir()):
        raise UserError(f"{options.output} is there and not empty: name another folder")
    for kind in KINDS:
        _write(kind, options.output / kind, options)


def _write(kind: str, folder: Path, options: argparse.Namespace) -> None:
    truth = write(
        kind,
        folder,
        options.rows,
        options.cells,
        options.seed,
        options.faults,
        configs=options.configs,
        side=options.side,
        length=options.length,
        full_size=options.full_size,
        keep=False,
    )
    rows = sum(map(len, truth.files.values()))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    say(f"{folder}: {counted(rows, 'row')} of {kind} in {counted(len(truth.files), 'file')}, {size:.1f} MB")
    for planted in truth.planted:
        row = f" row {planted.row}" if planted.row >= 0 else ""
        say(f"  {planted.kind}: {planted.path or 'everywhere'}{row} {planted.object_id} {planted.what}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
