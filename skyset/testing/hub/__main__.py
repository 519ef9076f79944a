"""``python -m skyset.testing.hub``: a Hugging Face Hub on this machine, to try pushes out, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
from pathlib import Path

from skyset.command_line import main as run_command
from skyset.files import human_bytes
from skyset.testing.hub.server import KINDS, HubServer
from skyset.testing.server import KINDS as FILE_KINDS
from skyset.testing.server import fault_of

USER, TOKEN, ORGANISATION = "me", "hf_me0123456789", "sky"
EXAMPLES = f"""\
examples:
  python -m skyset.testing.hub
      a Hub at http://127.0.0.1:8002 and the two lines that lead `skyset push`, `hf` and `datasets` to it
  python -m skyset.testing.hub --latency 1
      each answer takes a second: time to end a push by kill -9, and to see the same command go on
  python -m skyset.testing.hub --fault "500:POST */commit/*:2" --fault "conflict:POST */commit/*:1"
      two commits answered by an error, one that somebody else's commit has overtaken

faults: {", ".join((*FILE_KINDS, *KINDS))}
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m skyset.testing.hub",
        description="A Hugging Face Hub on this machine: repositories of data and storage buckets, by LFS and by Xet. "
        "What is pushed is gone when it ends.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8002, help="0 takes any free one (default: %(default)s)")
    add("--dir", type=Path, metavar="DIR", help="where it keeps bytes while it runs (default: a temporary folder)")
    add("--latency", type=float, default=0.0, metavar="S", help="seconds before every answer (default: %(default)s)")
    add(
        "--fault",
        type=lambda text: fault_of(text, KINDS),
        action="append",
        default=[],
        metavar="KIND:PATTERN[:TIMES]",
        help='a fault of requests like PATTERN, "POST */commit/*", TIMES times or always; may be given again',
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, serve; 2 where something was asked for wrongly."""
    options = arguments().parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        folder = options.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-")))
        hub = stack.enter_context(HubServer(folder, latency=options.latency, port=options.port))
        hub.add_user(USER, TOKEN, organisations=(ORGANISATION,))
        for kind, pattern, times in options.fault:
            hub.fault(pattern, kind, times, retry_after=1 if kind == "429" else None)
        _serve(hub)


def _serve(hub: HubServer) -> None:
    """Say how to reach it and what to try; wait for Ctrl-C."""
    push = f"skyset push gz3d --data_dir data/gz3d --repo {USER}/gz3d"
    load = (
        f"from datasets import load_dataset; print(next(iter(load_dataset('{USER}/gz3d', split='train', streaming=True))))"
    )
    try:  # from here on: who reads that Ctrl-C ends it may press it at once
        print(
            f"a Hub at {hub.host}; {USER} may write to {USER}/... and {ORGANISATION}/...\n\n"
            f"    export HF_ENDPOINT={hub.host}\n"
            f"    export HF_TOKEN={TOKEN}\n\n"
            f"    {push} --dry_run\n"
            f"    {push}\n"
            f"    {push} --bucket\n"
            f'    python -c "{load}"\n\n'
            "Ctrl-C ends it.",
            flush=True,
        )
        threading.Event().wait()
    except KeyboardInterrupt:
        sent = human_bytes(hub.objects.received + hub.xet.received)
        print(f"\n{len(hub.requests)} requests, {sent} were sent, {len(hub.commits)} commits, {len(hub.batches)} batches")


if __name__ == "__main__":
    sys.exit(main())
