"""What is installed, and what to type for more of it."""

from __future__ import annotations

import importlib.metadata
import sys

__version__ = "0.1.0"

#: The name to install by. On PyPI the name ``skyset`` alone is somebody else's package.
DISTRIBUTION = "skyset-surveys"
#: What decides the bytes that are written.
PACKAGES = ("numpy", "astropy", "h5py", "astropy-healpix")


def default_user_agent() -> str:
    """What archives see: ``skyset/<version>``."""
    return f"skyset/{__version__}"


def versions() -> dict[str, str]:
    """Versions of Python, skyset and the packages that make rows, for the manifest."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": sys.version.split()[0], "skyset": __version__, **packages}


def install_command(extra: str) -> str:
    """How to get the packages of an extra: ``pip install 'skyset-surveys[scale]'``."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
