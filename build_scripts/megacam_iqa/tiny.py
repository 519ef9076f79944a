"""``--tiny``: simulated exposures behind a simulated archive on this machine, so that all steps run without a network."""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from skyset.build_scripts.megacam_iqa.frames import ccds
from skyset.build_scripts.megacam_iqa.passes import configuration_asked
from skyset.build_scripts.megacam_iqa.sources import How, measure_ccd
from skyset.errors import UserError
from skyset.extraction.som import SOM
from skyset.messages import say
from skyset.workers import WorkerPool

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

    with tempfile.TemporaryDirectory(prefix="megacam-") as scratch:
        folder = Path(scratch)
        say(f"simulating {EXPOSURES} exposures of {CCDS} small CCDs, and an archive that has them", sys.stderr)
        with _compiling(How(configuration_asked(asked))):
            paths = _make(folder, EXPOSURES)
        with CadcServer(folder) as server:
            say(f"SIMULATED data: the archive is {server.url}, on this machine", sys.stderr)
            tiny = copy.copy(asked)
            tiny.archive_url, tiny.kind, tiny.labels, tiny.limit = server.url, KIND, folder / "labels.json", None
            tiny.ids = [path.name.partition(".")[0] for path in paths]
            yield tiny


def _make(folder: Path, count: int) -> list[Path]:
    from skyset.testing.megacam import make_exposures

    return make_exposures(folder, count, kind=KIND, ccds=CCDS)


@contextlib.contextmanager
def _compiling(how: How) -> Iterator[None]:
    """Where the measuring code is not compiled yet, another process does so during the ``with`` block, and is awaited."""
    from skyset.extraction import segments
    from skyset.extraction.compiled import is_to_compile

    if not is_to_compile(segments.find):
        yield
        return
    began = time.monotonic()
    with WorkerPool(1) as pool:
        compiled = pool.submit(_measure_one, how)
        try:
            yield
            SOM(1, 2).fit(np.random.default_rng(0).normal(size=(100, 2)))  # the map's code, which this process needs itself
            compiled.result()
        except BaseException:
            pool.kill()
            raise
    say(f"compiled, in {time.monotonic() - began:.0f} s: it is kept for the next time", sys.stderr)


def _measure_one(how: How) -> None:
    with tempfile.TemporaryDirectory(prefix="megacam-") as scratch:
        measure_ccd(ccds(_make(Path(scratch), 1)[0])[0], how)
