"""Simulated MegaCam exposures of known quality: files in CFHT's layout, under headers with CFHT's cards.

    from skyset.testing.megacam import make_exposures
    make_exposures("exposures", 20)                 # 20 files, labels.json, truth.csv

`layout` is the mosaic, `cards` and `headers` what its files say, `conditions` draws what went well or wrong with an
exposure, `pixels` what a CCD then reads, `exposures` writes the files. ``python -m skyset.testing.megacam --help`` does it
from the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyset.testing.megacam.conditions import LABELS
    from skyset.testing.megacam.exposures import make_exposures

__all__ = ["LABELS", "make_exposures"]


def __getattr__(name: str) -> Any:
    if name == "LABELS":
        from skyset.testing.megacam.conditions import LABELS

        return LABELS
    if name == "make_exposures":
        from skyset.testing.megacam.exposures import make_exposures

        return make_exposures
    raise AttributeError(name)
