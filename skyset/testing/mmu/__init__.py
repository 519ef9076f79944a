"""Trees as MultimodalUniverse's builders write them, made up, small, and known by value.

    from skyset.testing.mmu import write
    truth = write("sdss", "mmu_sdss")               # a tree of HDF5 files
    truth.rows["299489677444933"]["spectrum_flux"]  # what one of its objects is, without padding

Every survey of version 1 has its layout here: the datasets' names, types, shapes and storage, how rows of unequal length
are padded, how files and folders are called. `write` plants the faults of their builders, and those of trees at large, when
it is asked to. ``python -m skyset.testing.mmu --help`` does it from the command line.

`layout` says what a survey's tree is made of and `rows` what one object is; `images`, `spectra`, `stars`, `transients` and
`cubes` are the surveys, over `galaxies`, `lines` and `curves`, which draw; `files` writes, `faults` spoils, `tree` does all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyset.testing.mmu.faults import FAULTS
    from skyset.testing.mmu.kinds import KINDS
    from skyset.testing.mmu.rows import LightCurve, Planted, Truth
    from skyset.testing.mmu.tree import write

__all__ = ["FAULTS", "KINDS", "LightCurve", "Planted", "Truth", "write"]

_HOMES = {
    "FAULTS": "faults",
    "KINDS": "kinds",
    "LightCurve": "rows",
    "Planted": "rows",
    "Truth": "rows",
    "write": "tree",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"skyset.testing.mmu.{_HOMES[name]}"), name)
