"""The surveys by name."""

from __future__ import annotations

from skyset.errors import UserError
from skyset.testing.mmu import cubes, images, spectra, stars, transients
from skyset.testing.mmu.layout import Layout

KINDS: dict[str, Layout] = {
    layout.name: layout for module in (images, spectra, stars, transients, cubes) for layout in module.LAYOUTS
}


def layout_of(kind: str) -> Layout:
    """The layout of a survey.

    Raises:
        UserError: there is none of that name.
    """
    if kind not in KINDS:
        raise UserError(f"{kind!r} is no survey of MultimodalUniverse that can be made; these can: {', '.join(KINDS)}")
    return KINDS[kind]
