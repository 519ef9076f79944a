"""The engines that can measure, and which one does where nobody says.

``compiled`` has every quantity, by our own kernels, and needs numba; ``sep`` has most, by the package sep, which starts
without compiling. docs/extraction_engines.md says which column comes from which and how they agree.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from skyset.errors import MissingPackage, UserError
from skyset.extraction.columns import DEFAULT, DEFAULT_WORLD
from skyset.extraction.settings import Settings
from skyset.versions import install_command

if TYPE_CHECKING:
    from skyset.extraction.field import Background, Field

ENGINES = ("compiled", "sep")
#: What an engine is made with, and how to get it.
_NEEDS = {"compiled": ("numba", "llvmlite"), "sep": ("sep",)}
_INSTALL = {"compiled": install_command("extraction"), "sep": "pip install 'sep>=1.4'"}


class Sources(Protocol):
    """The sources of a field: isophotal numbers by the names of `isophotes.NAMES`, float64 (n,), positions from 0; and whose
    each pixel is, int32 (rows, columns): 0, or a source's number from 1 (None: not wanted)."""

    segmentation: np.ndarray | None

    def __len__(self) -> int: ...

    def __getitem__(self, name: str) -> np.ndarray: ...


class Light(Protocol):
    """Sums of light about each source; each method gives FLAGS too, int64 (n,), last. ``petrosian`` and ``vignets`` are
    those of engines that measure these columns."""

    def __init__(self, field: Field, seen: Sources, settings: Settings) -> None: ...

    def ellipses(self, factor: float, least: float, smallest: np.ndarray) -> tuple[np.ndarray, ...]: ...

    def circles(self, diameters: np.ndarray) -> tuple[np.ndarray, ...]: ...

    def radii(self, flux: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def windowed(self, half_light: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]: ...

    def petrosian(self, factor: float, least: float, flux: bool) -> tuple[np.ndarray, ...]: ...

    def vignets(self, width: int, height: int) -> np.ndarray: ...


class Engine(Protocol):
    """What the modules ``compiled_engine`` and ``sep_engine`` have.

    ``TITLE``: the name with a version, for catalogues; ``MEASURED``: columns; ``MADE``: check images; ``refused``: in words,
    each of the settings that it cannot honour; ``filtered``: the check image, where it is in ``MADE``."""

    TITLE: str
    MEASURED: frozenset[str]
    MADE: Sequence[str]
    Light: type[Light]

    @staticmethod
    def refused(settings: Settings, weighted: bool) -> Iterable[str]: ...

    @staticmethod
    def measure_background(image: np.ndarray, settings: Settings, bad: np.ndarray | None) -> Background: ...

    @staticmethod
    def find_sources(field: Field, settings: Settings, paint: bool) -> Sources: ...

    @staticmethod
    def filtered(field: Field) -> np.ndarray: ...


def default_engine() -> str:
    """``compiled`` where numba is installed, else ``sep``."""
    return "compiled" if importlib.util.find_spec("numba") else "sep"


def load_engine(name: str | None = None) -> Engine:
    """An engine by its name; None: the default one.

    Raises:
        ValueError: there is no such engine.
        MissingPackage: a package that it needs is not installed; what to type is said.
    """
    name = default_engine() if name is None else name
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}: it is one of {', '.join(ENGINES)}")
    try:
        return cast(Engine, importlib.import_module(f"skyset.extraction.{name}_engine"))
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _NEEDS[name]:
            raise
        raise MissingPackage(f"engine {name} needs {package}: {_INSTALL[name]}", package) from None


def need_compiled(what: str) -> None:
    """What is missing is said before anything is downloaded; ``what`` needs our own kernels: "measuring shapes".

    Raises:
        MissingPackage: numba is not installed.
    """
    for name in _NEEDS["compiled"]:
        if importlib.util.find_spec(name) is None:
            raise MissingPackage(f"{what} needs {name}: {_INSTALL['compiled']}", name)


def default_columns(engine: Engine, sky: bool) -> list[str]:
    """What is measured where nothing is said: of `columns.DEFAULT`, with a WCS the position too, what the engine has."""
    return [name for name in (*DEFAULT, *(DEFAULT_WORLD if sky else ())) if name in engine.MEASURED]


def refuse(engine: Engine, columns: Iterable[str], checks: Iterable[str], settings: Settings, weighted: bool) -> None:
    """UserError names all that is wanted and not to be had with an engine, and what has it."""
    said = []
    if missing := [name for name in columns if name not in engine.MEASURED]:
        said.append(f"does not measure {', '.join(missing)}")
    if missing := [kind for kind in checks if kind not in engine.MADE]:
        said.append(f"makes no check image {', '.join(missing)}")
    said += engine.refused(settings, weighted)
    if said:
        how = "is installed" if default_engine() == "compiled" else _INSTALL["compiled"]
        raise UserError(f"engine {engine.TITLE} {'; '.join(said)}: leave that out, or take engine compiled ({how})")
