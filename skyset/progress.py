"""How far long work is: a bar on a terminal, elsewhere (a log, a pipe, a notebook) a line per minute."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

#: Seconds between lines; work that ends sooner writes none.
LINE_EVERY = 60.0


def progress_bar(*args, **options) -> tqdm:
    """A progress bar with tqdm's arguments and methods, on standard error; lines where that is no terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(*args, **({"dynamic_ncols": True} | options))
    return Lines(*args, **options)


class Lines(tqdm):
    """tqdm's counts as whole lines, at fixed times even while nothing moves: ``gz3d: 12% 3577/29813 [01:00<07:20, ...]``."""

    disable: bool

    def __init__(self, *args, **options):
        chosen = {"disable": bool(options.get("disable")), "ncols": 0, "file": sys.stderr, "mininterval": float("inf")}
        super().__init__(*args, **(options | chosen))
        self._over = threading.Event()
        self._said = False
        if not self.disable:
            self._teller = threading.Thread(target=self._tell, args=(LINE_EVERY,), daemon=True)
            self._teller.start()

    def __iter__(self) -> Iterator:
        with self:
            for each in self.iterable:
                yield each
                self.n += 1

    def _tell(self, every: float) -> None:
        while not self._over.wait(every):
            self._said = True
            self._write()

    def _write(self) -> None:
        print(str(self).strip(), file=self.fp, flush=True)

    def refresh(self, *args, **options) -> None:
        """Lines come at their time, not at every change."""

    def close(self) -> None:
        """End with the last count, if there was a line before."""
        if self.disable:
            return
        self.disable = True
        self._decr_instances(self)
        self._over.set()
        self._teller.join()  # a line under way comes before the last one
        if self._said:
            self._write()
