"""What the first pass left of an exposure, on disk.

``catalog/<FITS_ID>.json`` says what it is and what was found; it is written last. Beside it lie its sources (``.npy``);
``staged/<FITS_ID>.f16`` has the cutouts of all of them, which the second pass needs and which then go.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skyset.build_scripts.megacam_iqa.sources import ROW, How
from skyset.files import short_digest

LDAC, STAGED, CATALOG, SOM = "LDAC", "staged", "catalog", "som"
_VERSION = "1"


@dataclass(frozen=True)
class Staged:
    """An exposure that was measured.

    Attributes:
        root: the build's folder.
        facts: as in ``catalog/<FITS_ID>.json``.
    """

    root: Path
    facts: dict[str, Any]

    @property
    def fits_id(self) -> str:
        return self.facts["fits_id"]

    @property
    def ccds(self) -> list[dict[str, Any]]:
        """Of the CCDs that can be used, in the order of their sources."""
        return [ccd for ccd in self.facts["ccds"] if ccd["usable"]]

    @property
    def stamps(self) -> Path:
        return stamps_path(self.root, self.fits_id)

    @property
    def groups(self) -> Path:
        """The groups of its sources, and what was drawn."""
        return self.root / CATALOG / f"{self.fits_id}.groups.npz"

    def rows(self) -> np.ndarray:
        """The sources, `ROW`."""
        return np.load(sources_path(self.root, self.fits_id), allow_pickle=False)


def sources_path(root: Path, fits_id: str) -> Path:
    return root / CATALOG / f"{fits_id}.npy"


def stamps_path(root: Path, fits_id: str) -> Path:
    return root / STAGED / f"{fits_id}.f16"


def ldac_path(root: Path, fits_id: str) -> Path:
    return root / LDAC / f"{fits_id}.ldac"


def how_digest(how: How, ldac: Path | None) -> str:
    """What tells that exposures were measured in another way."""
    settings = dataclasses.asdict(how.configuration.settings)
    kernel = settings.pop("kernel")
    said = [_VERSION, sorted(settings.items()), None if kernel is None else kernel.tolist(), how.columns, how.stamp]
    files = [str(how.configuration.classifier), None if ldac is None else str(ldac.absolute())]
    return short_digest(json.dumps([said, files], default=str))


def known(root: Path, fits_id: str, made_of: str) -> Staged | None:
    """An exposure as an earlier run measured it, if it was made of the same file in the same way and is all there."""
    try:
        facts = json.loads((root / CATALOG / f"{fits_id}.json").read_text(encoding="utf-8"))
        rows = np.load(sources_path(root, fits_id), mmap_mode="r", allow_pickle=False)
        same = facts["made_of"] == made_of and rows.dtype == ROW and len(rows) == sum(c["sources"] for c in _usable(facts))
        size = facts.get("ldac_bytes")  # None: its sources are from a catalogue of the user's
        same = same and (size is None or ldac_path(root, fits_id).stat().st_size == size)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # not yet, or cut by a kill
    return Staged(root, facts) if same else None


def _usable(facts: dict) -> list[dict]:
    return [ccd for ccd in facts["ccds"] if ccd["usable"]]
