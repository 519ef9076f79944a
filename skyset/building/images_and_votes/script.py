"""A build script made from the declaration of a release."""

from __future__ import annotations

import functools

from skyset.building.images_and_votes.options import add_options
from skyset.building.images_and_votes.plan import build
from skyset.building.images_and_votes.release import Release
from skyset.building.script import Script


def script(description: str, release: Release) -> Script:
    """The build script of a release; ``description`` is its docstring."""
    return Script(description, release.survey, functools.partial(build, release), functools.partial(add_options, release))
