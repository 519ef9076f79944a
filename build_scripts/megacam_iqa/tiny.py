"""``--tiny``: simulated exposures behind a simulated archive on this machine, so that all steps run without a network."""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from skyset.errors import UserError
from skyset.messages import say

#: Four of each class, of four small CCDs each.
EXPOSURES, CCDS, KIND = 20, 4, "o"
_OWN = ("local_data_path", "ids", "program", "dates", "filter", "adql", "labels")


@contextlib.contextmanager
def simulated(asked: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """What was asked for; with ``--tiny``, of simulated exposures that are there while the ``with`` block runs.

    Raises:
        UserError: ``--tiny`` and exposures of one's own.
    """
    if not asked.tiny:
        yield asked
        return
    if own := [name for name in _OWN if getattr(asked, name)]:
        raise UserError(f"--tiny simulates its exposures and their labels: leave out --{own[0]}, or --tiny")
    from skyset.testing.cadc import CadcServer
    from skyset.testing.megacam import make_exposures

    with tempfile.TemporaryDirectory(prefix="megacam-") as scratch:
        folder = Path(scratch)
        say(f"simulating {EXPOSURES} exposures of {CCDS} small CCDs, and an archive that has them", sys.stderr)
        paths = make_exposures(folder, EXPOSURES, kind=KIND, ccds=CCDS)
        with CadcServer(folder) as server:
            say(f"SIMULATED data: the archive is {server.url}, on this machine", sys.stderr)
            tiny = copy.copy(asked)
            tiny.archive_url, tiny.kind, tiny.labels, tiny.limit = server.url, KIND, folder / "labels.json", None
            tiny.ids = [path.name.partition(".")[0] for path in paths]
            yield tiny
