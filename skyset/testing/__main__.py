"""``python -m skyset.testing``: make a small archive of made-up galaxies and serve it until Ctrl-C."""

import argparse
import sys
import tempfile
import threading
from pathlib import Path

from skyset.command_line import main as run_command
from skyset.testing.gz3d import CHECKSUMS_NAME, write_archive
from skyset.testing.server import KINDS, ArchiveServer, fault_of

EXAMPLES = f"""\
examples:
  python -m skyset.testing
      twelve galaxies at http://127.0.0.1:8000/; the first is MANGAID 1-106630
  python -m skyset.testing --objects 200 --clustered --folder archive
      kept in ./archive, made only once; several objects share a HEALPix cell
  python -m skyset.testing --fault 429:*.fits.gz:3 --fault cut:1-106630_*:1
      three answers "too many requests" and one connection cut in the middle of a body
  python -m skyset.testing --chaos 0.2 --latency 0.1
      every fifth answer goes wrong in some way, and each takes its time

faults: {", ".join(KINDS)}
"""


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, write what is missing, serve; 2 where something was asked for wrongly."""
    options = arguments().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="archive-") as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / CHECKSUMS_NAME).exists():  # written last: without it the folder is not complete
            print(f"drawing {options.objects} galaxies ...", flush=True)
            write_archive(folder, options.objects, options.seed, prefix=options.prefix, clustered=options.clustered)
        with ArchiveServer(folder, latency=options.latency, port=options.port) as server:
            for kind, pattern, times in options.fault:
                server.fault(pattern, kind, times, retry_after=1 if kind == "429" else None)
            if options.chaos:
                server.chaos(options.seed, options.chaos, KINDS)
            serve(server)


def serve(server: ArchiveServer) -> None:
    """Say where the archive is and what to do with it; wait for Ctrl-C."""
    try:  # from here on: who reads that Ctrl-C ends it may press it at once
        print(
            f"{server.folder} at {server.url}\n\n"
            f"    python build_scripts/gz3d/build_parent_sample.py --base_url {server.url}\n\n"
            "Ctrl-C ends it.",
            flush=True,
        )
        threading.Event().wait()
    except KeyboardInterrupt:
        print(f"\n{len(server.requests)} requests, at most {server.max_concurrent} at a time")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m skyset.testing",
        description="Serve made-up Galaxy Zoo: 3D files in the layout of the SDSS archive.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8000, help="0 takes any free one (default: %(default)s)")
    add("--objects", type=int, default=12, metavar="N", help="galaxies to draw (default: %(default)s)")
    add("--seed", type=int, default=0, help="another seed, another sample (default: %(default)s)")
    add(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where the files are or will be (default: a temporary folder)",
    )
    add("--prefix", default="", help="before every file name; some releases have gz3d_")
    add("--clustered", action="store_true", help="groups of five galaxies, each in one HEALPix cell")
    add(
        "--latency",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds before every answer (default: %(default)s)",
    )
    add(
        "--fault",
        type=fault_of,
        action="append",
        default=[],
        metavar="KIND:PATTERN[:TIMES]",
        help="a fault for names like PATTERN, TIMES times or always; may be given again",
    )
    add(
        "--chaos",
        type=float,
        default=0.0,
        metavar="RATE",
        help="give this share of the requests a random fault",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
