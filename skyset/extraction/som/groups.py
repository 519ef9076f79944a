"""Groups of sources of many exposures: robust scaling, a map, and the map's units, or clusters of them, as groups.

A map takes means and standard deviations, which a few absurd values rule. Here medians and the range of the middle 68 % are
taken first, and what is further out than some such ranges stays there. All of it is one file that SOM.load reads too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyset.errors import MissingPackage, UserError
from skyset.extraction.som import figures
from skyset.extraction.som.grid import Grid
from skyset.extraction.som.map import SOM
from skyset.files import short_digest
from skyset.versions import install_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How far out a value counts as such, in units of its feature's scale.
CLIP = 5.0
#: Rows that medians and ranges are taken of, at most: evenly spaced ones.
_ROWS = 1_000_000
_MEMBER = "skyset_groups"


@dataclass(frozen=True, eq=False)
class Scaling:
    """Features as a map sees them: logarithm, less the median, over half the range of the middle 68 %, within `CLIP`.

    Attributes:
        features: names of columns.
        log: of those of which the decimal logarithm is taken.
        centre, scale: float64 (features,); a feature that does not vary has scale 1.
    """

    features: tuple[str, ...]
    log: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, columns: Mapping[str, np.ndarray], features: Sequence[str], log: Sequence[str]) -> Scaling:
        """From values, NaN where there is none.

        Raises:
            UserError: a feature has no value.
        """
        logs = tuple(name for name in features if name in log)
        centre, scale = np.zeros(len(features)), np.ones(len(features))
        for k, name in enumerate(features):
            values = np.asarray(columns[name])[:: -(-len(columns[name]) // _ROWS) or 1].astype(np.float64)
            values = _logged(values) if name in logs else values
            values = values[np.isfinite(values)]
            if not len(values):
                raise UserError(f"no source has a value of {name}")
            low, centre[k], high = np.percentile(values, [15.87, 50, 84.13])
            scale[k] = (high - low) / 2 or values.std() or 1.0
        return cls(tuple(features), logs, centre, scale)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Float32 (rows, features); NaN where a value is none, or has no logarithm."""
        out = np.empty((len(columns[self.features[0]]), len(self.features)), np.float32)
        for k, name in enumerate(self.features):
            values = np.asarray(columns[name], np.float64)
            values = _logged(values) if name in self.log else values
            values = np.where(np.isfinite(values), values, np.nan)
            out[:, k] = np.clip((values - self.centre[k]) / self.scale[k], -CLIP, CLIP)
        return out

    def back(self, scaled: np.ndarray) -> np.ndarray:
        """Float64 (rows, features), in the features' own units."""
        values = scaled * self.scale + self.centre
        logged = np.isin(self.features, self.log)
        return np.where(logged, 10.0 ** np.where(logged, values, 0.0), values)


def _logged(values: np.ndarray) -> np.ndarray:
    return np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a map of scaled features.

    Attributes:
        scaling: of the features.
        som: the map.
        of_unit: int32 (units,), the group of each unit.
        centres: float32 (groups, features), scaled.
    """

    scaling: Scaling
    som: SOM
    of_unit: np.ndarray
    centres: np.ndarray

    @property
    def count(self) -> int:
        return len(self.centres)

    @classmethod
    def fit(
        cls,
        chunks: Callable[[], Iterable[np.ndarray]],
        scaling: Scaling,
        shape: tuple[int, int],
        clusters: int | None = None,
        *,
        seed: int = 0,
        epochs: int = 20,
    ) -> Groups:
        """Train a map.

        Args:
            chunks: opens the scaled rows, (rows, features) each; rows with a NaN are left out.
            scaling: that they were scaled by.
            shape: rows and columns of the map.
            clusters: groups of units by k-means, in which each counts as much as it has rows; None: each unit is a group.
            seed: of the map and of k-means.
            epochs: passes over the rows.

        Raises:
            UserError, MissingPackage: as `SOM.fit` and `check_clusters`.
        """
        check_clusters(clusters, shape)
        som = SOM(*shape, features=scaling.features, standardise=False, missing="drop", seed=seed, epochs=epochs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*rows were left out", UserWarning)
            som.fit(chunks)
        centres = som.centres().astype(np.float32)
        if clusters is None:
            return cls(scaling, som, np.arange(len(centres), dtype=np.int32), centres)
        hits = np.zeros(len(centres)) if som.training is None else som.training.hits.ravel()
        return cls(scaling, som, *_clustered(centres, hits, clusters, seed))

    def of(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The group of each row, int32 (-1: a value is none), and its distance to the group's centre, float32."""
        scaled = self.scaling(columns)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*rows were left out", UserWarning)
            units = self.som.predict(scaled) if len(scaled) else np.zeros(0, np.int32)
        groups = np.where(units >= 0, self.of_unit[units], -1).astype(np.int32)
        away = np.linalg.norm(scaled - self.centres[groups], axis=1)
        return groups, np.where(groups >= 0, away, np.inf).astype(np.float32)

    def digest(self) -> str:
        """Tells whether another map gives the same groups."""
        scaling = self.scaling
        said = [scaling.features, scaling.log, scaling.centre.tolist(), scaling.scale.tolist(), self.of_unit.tolist()]
        weights = np.zeros(0) if self.som.weights is None else self.som.weights
        return short_digest(json.dumps([said, self.centres.tolist(), weights.tolist()]))

    def save(self, path: str | Path) -> None:
        """Write one npz, at once; nothing in it is pickled.

        Raises:
            UserError: there is no such folder.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self.som.save(temporary)
            scaling = self.scaling
            said = {
                "log": scaling.log,
                "centre": scaling.centre.tolist(),
                "scale": scaling.scale.tolist(),
                "of_unit": self.of_unit.tolist(),
                "centres": self.centres.tolist(),
            }
            with zipfile.ZipFile(temporary, "a") as file:  # of one date: the same map is the same file
                file.writestr(zipfile.ZipInfo(f"{_MEMBER}.json"), json.dumps(said))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Groups:
        """What ``save`` wrote.

        Raises:
            UserError: no such file, or it is none of these.
        """
        som = SOM.load(path)
        try:
            with zipfile.ZipFile(Path(path).expanduser()) as file:
                said = json.loads(file.read(f"{_MEMBER}.json"))
            features = som.features or ()
            centre, scale = (np.array(said[name], np.float64) for name in ("centre", "scale"))
            of_unit, centres = np.array(said["of_unit"], np.int32), np.array(said["centres"], np.float32)
            if centre.shape != (len(features),) or scale.shape != centre.shape or not (scale > 0).all():
                raise ValueError("its scaling does not fit its features")
            if of_unit.shape != (som.rows * som.columns,) or centres.shape[1:] != centre.shape:
                raise ValueError("its groups do not fit its units")
            if not np.isfinite(centres).all() or set(of_unit.tolist()) != set(range(len(centres))):
                raise ValueError("its groups are none")
            return cls(Scaling(features, tuple(map(str, said["log"])), centre, scale), som, of_unit, centres)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no map of groups of skyset: {error}") from error

    def plots(self) -> dict[str, Figure]:
        """Figures by name: ``hits``, ``errors``, ``u_matrix``, ``planes`` in the features' own units; ``groups`` where units
        are clustered."""
        som, grid = self.som, Grid(self.som.rows, self.som.columns, self.som.topology)
        figure, panels = figures.panels_of(grid, len(self.scaling.features))
        logged = np.isin(self.scaling.features, self.scaling.log)
        figures.draw_components(panels, grid, self.scaling.features, self.scaling.back(som.centres()), logged)
        drawn = {"hits": som.plot_hits(), "errors": som.plot_errors(), "u_matrix": som.plot_u_matrix(), "planes": figure}
        if self.count < len(self.of_unit):
            drawn["groups"], panels = figures.panels_of(grid, 1)
            figures.draw_groups(panels[0], grid, self.of_unit)
        return drawn


def check_clusters(clusters: int | None, shape: tuple[int, int]) -> None:
    """Whether so many clusters can be made of a map's units, before its rows are there; None: none are wanted.

    Raises:
        UserError: there are too few units.
        MissingPackage: scikit-learn is not installed.
    """
    if clusters is None:
        return
    if not 1 < clusters <= shape[0] * shape[1]:
        raise UserError(f"{clusters} clusters of {shape[0]} x {shape[1]} units: from 2 to {shape[0] * shape[1]}")
    if importlib.util.find_spec("sklearn") is None:
        raise MissingPackage(f"clusters need scikit-learn: {install_command('train')}", "scikit-learn")


def _clustered(centres: np.ndarray, hits: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each unit and the clusters' centres, in their order along the first principal component."""
    from sklearn.cluster import KMeans

    made = KMeans(clusters, n_init=10, random_state=seed % 2**32).fit(centres.astype(np.float64), sample_weight=hits)
    middle = made.cluster_centers_ - made.cluster_centers_.mean(0)
    axis = np.linalg.svd(middle, full_matrices=False)[2][0]
    order = np.argsort(middle @ axis * np.sign(axis[np.abs(axis).argmax()]), kind="stable")
    return np.argsort(order)[made.labels_].astype(np.int32), made.cluster_centers_[order].astype(np.float32)
