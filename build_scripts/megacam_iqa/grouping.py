"""Step 5: the map of the sources of training exposures, and the group of every source."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skyset.build_scripts.megacam_iqa.labels import exposures_said
from skyset.build_scripts.megacam_iqa.own import Own
from skyset.build_scripts.megacam_iqa.staged import SOM, STAGED, Staged
from skyset.errors import UserError
from skyset.extraction.som.groups import Groups, Scaling
from skyset.files import file_sha256, replacing, short_digest
from skyset.messages import say

#: Features of which the logarithm is taken.
LOG = ("ISO0", "ELONGATION", "FWHM")
_VERSION = "2"
PICKS = ("random", "central")


@dataclass(frozen=True, eq=False)
class Grouping:
    """A map that is there, and how sources are drawn.

    Attributes:
        root: the build's folder.
        groups: of the map.
        digest: of the map and of how sources are drawn.
        shape: rows and columns of the groups in a representative image.
        seed, pick: of the draw.
        stamp: pixels of a cutout's side.
    """

    root: Path
    groups: Groups
    digest: str
    shape: tuple[int, int]
    seed: int
    pick: str
    stamp: int

    def of(self, staged: Staged) -> tuple[np.ndarray, np.ndarray]:
        """The group of each source, int32, -1 for none; and int32 (CCDs, groups), which source of the CCD was drawn.

        They are kept with the cutouts of those that were drawn, so that the cutouts of all are needed once.
        """
        found = self._made(staged)
        return self._make(staged) if found is None else found

    def lacks_stamps(self, staged: Staged) -> bool:
        """Whether cutouts are to be drawn and are not there."""
        return self._made(staged) is None and not staged.stamps.exists()

    def _made_of(self, staged: Staged) -> str:
        return short_digest(f"{self.digest} {staged.facts['made_of']} {self.seed} {self.pick}")

    def _made(self, staged: Staged) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            with np.load(staged.groups, allow_pickle=False) as file:
                if str(file["made_of"]) == self._made_of(staged):
                    return file["unit"], file["drawn"]
        except (OSError, ValueError, LookupError, EOFError):
            pass  # not yet, or cut by a kill
        return None

    def _make(self, staged: Staged) -> tuple[np.ndarray, np.ndarray]:
        rows = staged.rows()
        unit, away = self.groups.of({name: rows[name] for name in self.groups.scaling.features})
        drawn = np.full((len(staged.ccds), self.groups.count), -1, np.int32)
        start = 0
        for k, ccd in enumerate(staged.ccds):
            some = slice(start, start + ccd["sources"])
            order = away[some] if self.pick == "central" else self._drawn(staged.fits_id, ccd["ccd"], ccd["sources"])
            drawn[k] = first_of_each(unit[some], order, self.groups.count)
            start = some.stop
        starts = np.cumsum([0, *(ccd["sources"] for ccd in staged.ccds)])[: len(drawn)]
        stamps = drawn_stamps(staged.stamps, starts, drawn, len(rows), self.stamp)
        with replacing(staged.groups) as temporary, open(temporary, "wb") as file:
            np.savez(file, unit=unit, drawn=drawn, stamps=stamps, made_of=self._made_of(staged))
        return unit, drawn

    def _drawn(self, fits_id: str, ccd: int, count: int) -> np.ndarray:
        key = hashlib.blake2b(f"{self.seed} {fits_id} {ccd}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(key)).random(count)


def drawn_stamps(path: Path, starts: np.ndarray, drawn: np.ndarray, total: int, size: int) -> np.ndarray:
    """Float16 (CCDs, groups, size, size), the cutouts of the sources that were drawn; 0 where there is none.

    Args:
        path: of the cutouts of all sources.
        starts: number of each CCD's first source.
        drawn: (CCDs, groups), the source of the CCD; -1 for none.
        total: sources.
        size: pixels of a cutout's side.
    """
    out = np.zeros((*drawn.shape, size, size), np.float16)
    if total:
        every = np.memmap(path, np.float16, "r", shape=(total, size, size))
        out[drawn >= 0] = every[(starts[:, None] + drawn)[drawn >= 0]]
    return out


def first_of_each(groups: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """For each group the row of the smallest ``order``, int32 (count,); -1 where the group has no row."""
    found = np.full(count, -1, np.int32)
    ranked = np.argsort(order, kind="stable")[::-1]
    ranked = ranked[groups[ranked] >= 0]
    found[groups[ranked]] = ranked  # of several the last one stays
    return found


def make_map(
    root: Path,
    training: Sequence[Staged],
    features: Sequence[str],
    shape: tuple[int, int],
    clusters: int | None,
    seed: int,
) -> Groups:
    """The map of the training exposures' sources, in ``som/som.npz``: made, or the one that is there if it is of these.

    Raises:
        UserError: there are too few sources.
    """
    made_of = [_VERSION, *features, *shape, clusters, seed, *(f"{e.fits_id} {e.facts['made_of']}" for e in training)]
    wanted, path, note = short_digest(repr(made_of)), root / SOM / "som.npz", root / SOM / "made_of"
    if path.is_file() and note.is_file() and note.read_text(encoding="utf-8") == f"{wanted} {file_sha256(path)}":
        return Groups.load(path)
    (root / SOM).mkdir(exist_ok=True)
    total = sum(ccd["sources"] for each in training for ccd in each.ccds)
    if not total:
        raise UserError("no training exposure has a source: there is nothing to make a map of")
    say(f"map of {shape[0]} x {shape[1]} units: {total:,} sources of {exposures_said(len(training))} of training")
    step = -(-total // 1_000_000)
    some = [each.rows()[::step] for each in training]
    scaling = Scaling.fit({name: np.concatenate([rows[name] for rows in some]) for name in features}, features, LOG)
    scratch = root / STAGED / "features.npy"
    scratch.parent.mkdir(exist_ok=True)
    Own(root).expect(scratch, path)
    scaled = np.lib.format.open_memmap(scratch, "w+", np.float32, (total, len(features)))
    try:
        start = usable = 0
        for each in training:
            values = scaling(each.rows())
            scaled[start : start + len(values)] = values
            start += len(values)
            usable += np.count_nonzero(np.isfinite(values).all(axis=1))
        if usable < shape[0] * shape[1]:
            raise UserError(
                f"the training exposures have {usable:,} sources with all features, too few for a map of {shape[0]} x "
                f"{shape[1]} units: a smaller --map, more exposures, or a lower threshold (--set DETECT_THRESH=3)"
            )
        groups = Groups.fit(lambda: scaled, scaling, shape, clusters, seed=seed)
    finally:
        scratch.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    groups.save(path)
    note.write_text(f"{wanted} {file_sha256(path)}", encoding="utf-8")
    return groups


def is_here(root: Path, path: Path | None) -> bool:
    """Whether the map in a file is ``som/som.npz`` already."""
    files = [root / SOM / "som.npz", *([] if path is None else [path.expanduser()])]
    return path is not None and all(map(Path.is_file, files)) and len(set(map(file_sha256, files))) == 1


def take_map(root: Path, path: Path, groups: Groups) -> Groups:
    """The map of another build, copied to ``som/som.npz``."""
    if is_here(root, path):
        return groups
    path, copy, note = path.expanduser(), root / SOM / "som.npz", root / SOM / "made_of"
    (root / SOM).mkdir(exist_ok=True)
    Own(root).expect(copy)
    note.unlink(missing_ok=True)
    with replacing(copy) as temporary:
        shutil.copyfile(path, temporary)
    return groups


def pictures(root: Path, clustered: bool) -> list[Path]:
    """What ``draw_map`` will write."""
    names = "hits", "errors", "u_matrix", "planes", *(["groups"] if clustered else [])
    return [root / SOM / f"{name}.png" for name in names]


def draw_map(root: Path, groups: Groups) -> None:
    """Pictures of the map in ``som/``."""
    (root / SOM).mkdir(exist_ok=True)
    for name, figure in groups.plots().items():
        Own(root).expect(root / SOM / f"{name}.png")
        figure.savefig(root / SOM / f"{name}.png", dpi=110)
