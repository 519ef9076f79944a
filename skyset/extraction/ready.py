"""Importing this makes a process ready to measure images: modules, and the compiled code that every image needs.

For the process that workers are forked from (`workers.WorkerPool`).
"""

from __future__ import annotations

import contextlib
import gc

import numpy as np

from skyset.extraction import mosaic as mosaic
from skyset.extraction.detect import measure
from skyset.extraction.settings import Settings
from skyset.memory import keep_memory

#: What is measured of every source; what else is asked for, a worker gets from numba's files.
_COLUMNS = ("X_IMAGE", "FLUX_ISO")


def measure_something() -> None:
    """An image with one source; numba's own start is most of it. What fails here, the work itself will say."""
    image = np.random.default_rng(0).normal(100, 5, (64, 64)).astype(np.float32)
    image[30:34, 30:34] += 500
    with contextlib.suppress(Exception):
        measure(image, Settings(threshold=5, minarea=5), _COLUMNS)
        _decode_something()


def _decode_something() -> None:
    from skyset.extraction.rice import decode

    decode(np.zeros(16, np.uint8), np.zeros(1, np.int64), np.full(1, 16), 32)


def _import_what_is_lazy() -> None:
    import astropy.wcs.utils  # noqa: F401


keep_memory()
_import_what_is_lazy()
measure_something()
gc.collect()
gc.freeze()  # no page of what is shared is written to by a collection
