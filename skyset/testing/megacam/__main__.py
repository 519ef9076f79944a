"""``python -m skyset.testing.megacam``: simulated exposures as files, or served as CADC does."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

from skyset.command_line import main as run_command
from skyset.errors import UserError
from skyset.testing.megacam.conditions import LABELS
from skyset.testing.megacam.exposures import COUNTS, SMALL, SUFFIXES, make_exposures
from skyset.testing.megacam.layout import FULL

EXAMPLES = f"""\
examples:
  python -m skyset.testing.megacam --exposures 20 -o exposures
      20 raw exposures of 36 small CCDs ({SMALL[1]} x {SMALL[0]} pixels), four of each class; labels.json says which is
      which, truth.csv how bad it is. Then:
      skyset build megacam_iqa --local_data_path exposures --labels exposures/labels.json -o data/megacam
  python -m skyset.testing.megacam --exposures 40 --ccds 4 --kind p -o exposures
      processed ones of the four CCDs around the middle: a second for each
  python -m skyset.testing.megacam --exposures 1 --full_size -o exposures
      36 CCDs of {FULL[1]} x {FULL[0]} pixels, some 350 MB, some minutes
  python -m skyset.testing.megacam --exposures 20 --ccds 4 --serve
      the same as an archive at http://127.0.0.1:8000, until Ctrl-C: TAP, datalink and files, as CADC has them

classes: GOOD; B_SEEING (0.95 to 2.1 arcsec); BGP (steps, scattered light, fringes); BT (trailed or jumping guide);
RBT (longer trails, doubled stars). Severity is drawn continuously, so the mildest of a class look like another's.
Deterministic: the same seed gives the same exposures, the first ones whatever their number.
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m skyset.testing.megacam",
        description="Simulated MegaCam exposures in CFHT's layout, with labels of image quality.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--exposures", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    add("-o", "--output_dir", type=Path, metavar="FOLDER", help="where the files go; with --serve a temporary folder")
    add("--kind", choices=("o", "p"), default="o", help="o raw, p processed by Elixir (default: %(default)s)")
    add(
        "--ccds",
        type=int,
        choices=sorted(COUNTS),
        default=36,
        help="CCDs; 72 and 8 are amplifiers apart (default: %(default)s)",
    )
    add("--full_size", action="store_true", help=f"CCDs of {FULL[1]} x {FULL[0]} pixels instead of {SMALL[1]} x {SMALL[0]}")
    add("--classes", nargs="+", choices=LABELS, metavar="CLASS", help=f"over and over (default: {' '.join(LABELS)})")
    add("--suffix", choices=SUFFIXES, default=SUFFIXES[0], help="kind of file (default: %(default)s)")
    add("--seed", type=int, default=0, help="another seed, other exposures (default: %(default)s)")
    add("--serve", action="store_true", help="serve them as CADC does, until Ctrl-C")
    add("--port", type=int, default=8000, help="for --serve; 0 takes any free one (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, write, serve; 2 where something was asked for wrongly."""
    options = arguments().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="megacam-") as scratch:
        if options.output_dir is None and not options.serve:
            raise UserError("-o FOLDER says where the files go")
        folder = options.output_dir or Path(scratch)
        make_exposures(
            folder,
            options.exposures,
            kind=options.kind,
            ccds=options.ccds,
            shape=FULL if options.full_size else SMALL,
            seed=options.seed,
            classes=options.classes,
            suffix=options.suffix,
            said=lambda line: print(line, flush=True),
        )
        print(f"{folder}/labels.json and truth.csv say what they are", flush=True)
        if options.serve:
            _serve(folder, options.port, options.kind)


def _serve(folder: Path, port: int, kind: str) -> None:
    from skyset.testing.cadc import CadcServer

    with CadcServer(folder, port=port) as server:
        try:  # from here on: who reads that Ctrl-C ends it may press it at once
            print(
                f"{folder} at {server.url}\n\n"
                f"    skyset build megacam_iqa --archive_url {server.url} --kind {kind} --labels {folder}/labels.json "
                "-o data/megacam\n\n"
                "Ctrl-C ends it.",
                flush=True,
            )
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
