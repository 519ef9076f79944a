"""Groups of sources that resemble each other: a self-organising map, trained in batches over any number of rows.

A map has ``rows x columns`` units, each with a centre among the features. Neighbouring units have similar centres, so that
the groups have an order that can be looked at. As in MegaCam image quality, where 3,000,000 sources of 6 features become 20
groups::

    som = SOM(4, 5, features=("ISOAREA_IMAGE", "ELONGATION", ...), log=("ISOAREA_IMAGE",)).fit(catalogue)
    hits = som.hits(sources_of_one_ccd)             # (4, 5): how many of its sources are in each group
    rows = som.representatives(sources_of_one_ccd)  # (20,): one of its sources for each group, drawn at random

The batch algorithm (Kohonen 2013, Neural Networks 37, 52) gives every row to the unit whose centre w is nearest, then moves
all centres to means that are weighted by the distance d between the units on the map, and repeats that ``epochs`` times::

    w_j = sum_i h_ij S_i / sum_i h_ij N_i        h_ij = exp(-d_ij**2 / (2 sigma**2))

with S_i the sum and N_i the number of unit i's rows; sigma shrinks geometrically from epoch to epoch and stays at its end
for the last quarter of them, so that centres settle. They start on the plane of the first two principal components.

What distances are measured in is part of the map: decimal logarithms of the features named in ``log``, minus the mean,
divided by the standard deviation. All methods take features as they are in the catalogue.

Rows pass through memory in blocks of a fixed number, however the caller has cut them into chunks, and are added up in their
order in float64: the same rows and seed give the same map, bit for bit, on the same kind of processor.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from skyset.errors import UserError
from skyset.extraction.compiled import jit
from skyset.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOPOLOGIES = ("rectangular", "hexagonal")
MISSING = ("raise", "drop")
#: Rows that pass through the compiled kernels together, and those of them that stay in the innermost cache.
BLOCK = 8192
_TILE = 512
#: Numbers of a block's distances to all units, float32, that torch has at a time: on a GPU 128 MB, else 2 MB, for the cache.
_GPU_NUMBERS, _CORE_NUMBERS = 1 << 25, 1 << 19
#: Share of a GPU's free memory in which rows are kept from one epoch to the next.
_GPU_SHARE = 0.5
#: Spread of the noise, in standard deviations, that tells units apart which would otherwise start at the same place.
_JITTER = 0.01
#: Width of the neighbourhood in the last epochs: adjacent units weigh 0.0003.
_LAST_SIGMA = 0.25
_FORMAT = "skyset self-organising map, 1"
_SMALLEST = np.finfo(np.float64).tiny
#: Units up to which figures have a number in each cell.
_LABELLED = 120


@dataclass(frozen=True, eq=False)
class Quality:
    """How a map describes some rows.

    Attributes:
        hits: int64 (rows, columns) of the map, rows of the data in each group.
        quantisation_error: mean distance of the rows to their units' centres, in standard deviations (without
            ``standardise``, in the features' units).
        topographic_error: share of the rows whose nearest and second nearest units are not neighbours (Kiviluoto 1996); on a
            rectangular map diagonal ones are. NaN for a map of one unit.
        dropped: rows left out for want of a value.
    """

    hits: np.ndarray
    quantisation_error: float
    topographic_error: float
    dropped: int = 0


class SOM:
    """A self-organising map.

    Wherever ``data`` is asked for, it is one of

    - an array or memmap (rows, features) of any real dtype and byte order;
    - a table with named columns: structured array, astropy Table, pyarrow Table or RecordBatch, pandas DataFrame, dict of
      arrays. Columns other than ``features`` are not looked at;
    - a Hugging Face dataset of such columns, streamed or not;
    - an iterable of such arrays or tables, such as a list, or ``parquet.iter_batches()``;
    - a function without arguments that gives any of these. ``fit`` reads the data ``epochs + 2`` times, so that an iterator
      that can be gone through once has to be given to it like that: ``som.fit(lambda: ParquetFile(path).iter_batches())``.

    One chunk is in memory at a time, and some MB for the blocks; not all of a memmap, and no copy of what is in memory.

    Args:
        rows, columns: units; the group of unit (r, c) is ``r * columns + c``.
        features: names of the columns; None for all of the first table's columns, or ``feature 0``, ... of arrays.
        log: names, or positions, of features of which the logarithm is taken: values must be above 0.
        standardise: divide each feature by its standard deviation. If not, its own units decide how much a feature counts.
        epochs: passes over the data.
        sigma: width of the neighbourhood in the first and the last epochs, in distances between adjacent units. None for
            half of the map's longer side, and 0.25; a larger end gives a smoother map with a larger quantisation error.
        topology: ``"rectangular"``, or ``"hexagonal"``: odd rows are shifted by half a unit.
        missing: what becomes of rows with a NaN, infinite or masked value, or one not above 0 of a feature in ``log``:
            ``"raise"`` refuses the first by name; ``"drop"`` leaves them out, warns, and gives them the group -1.
        seed: of the noise that the centres start with, and of ``representatives``.
        device: None for compiled code on one core of the processor; else where torch is to run, as ``"cuda"`` (it needs
            float64): the same, and the results agree with the compiled code's but for rounding.

    Attributes:
        features: tuple of names; None before ``fit`` where none were given.
        weights: float32 (rows * columns, features), centres, scaled as said above; None before ``fit``. See ``centres``.
        training: ``Quality`` on the rows that ``fit`` was given; None before it.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        rows: int = 4,
        columns: int = 5,
        *,
        features: Sequence[str] | None = None,
        log: Sequence[str | int] = (),
        standardise: bool = True,
        epochs: int = 20,
        sigma: tuple[float, float] | None = None,
        topology: str = "rectangular",
        missing: str = "raise",
        seed: int = 0,
        device: Any = None,
    ):
        if min(rows, columns, epochs) < 1:
            raise ValueError(f"rows, columns and epochs must be 1 or more, not {rows}, {columns} and {epochs}")
        if topology not in TOPOLOGIES or missing not in MISSING:
            raise ValueError(f"topology is one of {TOPOLOGIES}, missing one of {MISSING}, not {topology!r} and {missing!r}")
        if isinstance(log, str) or isinstance(features, str):
            raise ValueError("log and features are sequences of names, not one name")
        self.sigma = tuple(sigma) if sigma is not None else (max(rows, columns) / 2, _LAST_SIGMA)
        if len(self.sigma) != 2 or not np.inf > self.sigma[0] >= self.sigma[1] > 0:
            raise ValueError(f"sigma must be two finite widths, start >= end > 0, not {self.sigma}")
        if features is not None and (not len(features) or len(set(features)) < len(features)):
            raise ValueError(f"features must be different names, at least one, not {tuple(features)}")
        if features is not None and not all(isinstance(name, str) for name in features):
            raise ValueError(f"features must be names, not {tuple(features)}")
        self.rows, self.columns, self.epochs, self.topology = int(rows), int(columns), int(epochs), topology
        self.features = None if features is None else tuple(features)
        self.log, self.standardise, self.missing, self.seed = tuple(log), bool(standardise), missing, int(seed)
        self.device = device
        self.weights: np.ndarray | None = None
        self.training: Quality | None = None
        self._mean = self._scale = self._logged = np.zeros(0)

    def __repr__(self) -> str:
        trained = self.weights is not None
        state = f"{self.training.hits.sum():,} rows of {len(self.features)} features" if trained else "not trained"
        return f"SOM({self.rows} x {self.columns}, {self.topology}, {state})"

    # --- Training and asking ----------------------------------------------------------------------

    def fit(self, data: Any, weights: np.ndarray | None = None) -> SOM:
        """Train the map, from its start also where it was trained before.

        Args:
            data: see the class.
            weights: (rows,) how much each row counts, 0 or more; None for all alike. ``training`` counts rows all the same.

        Raises:
            UserError: a row or feature cannot be used, there are fewer rows than units, no feature varies, or the data are
                not the same at each pass.

        Warns:
            UserWarning: rows were left out (``missing="drop"``), or a feature is constant: it does not count in distances.
        """
        if not callable(data) and isinstance(data, Iterator):
            raise UserError("the data are needed several times, an iterator can be read once: give a function that opens it")
        names = self.features or _names(data)
        logged = _logged(self.log, names)
        importance, moments = _Importance(weights), _Moments(len(names))
        stream = _Stream(data, names, logged, self.missing, BLOCK)
        for block in stream:
            moments.add(block.values, importance.of(block))
        importance.check(stream.seen)
        stream.warn()
        if (kept := stream.seen - stream.dropped) < self.rows * self.columns:
            raise UserError(f"{kept} rows are not enough for {self.rows * self.columns} groups: give more, or a smaller map")
        mean, scale = _scaling(moments, names, self.standardise)
        engine, centres = self._engine(mean, scale), self._start(moments, scale)
        stream = _Stream(data, names, logged, self.missing, engine.block, expected=stream.seen)
        for sigma in self._progress(_widths(*self.sigma, self.epochs)):
            engine.set(centres)
            sums, mass = engine.sums(stream, importance)
            centres = _moved(centres, sums, mass, np.exp(-(self._distances() ** 2) / (2 * sigma**2)))
        engine.set(centres)
        training = self._quality(stream, engine, self._error_unit(scale))
        # Only now: a map whose training fails stays what it was.
        self.features, self.weights, self.training = names, centres, training
        self._mean, self._scale, self._logged = mean, scale, logged
        return self

    def predict(self, data: Any) -> np.ndarray:
        """Int32 (rows,) groups of the rows, -1 for those left out.

        Raises:
            UserError: the map is not trained, the data have not its features, or a row cannot be used.
        """
        stream, engine = self._trained(data)
        parts, done = [], 0
        for block in stream:
            part = np.full(block.numbers[-1] + 1 - done, -1, np.int32)
            part[block.numbers - done] = engine.winners(block)[0]
            parts.append(part)
            done += len(part)
        stream.warn()
        return np.concatenate([*parts, np.full(stream.seen - done, -1, np.int32)])

    def quality(self, data: Any) -> Quality:
        """Hits, quantisation and topographic error in one pass; the errors are NaN where there are no rows.

        Raises:
            UserError: as ``predict``.
        """
        stream, engine = self._trained(data)
        quality = self._quality(stream, engine, self._error_unit(self._scale))
        stream.warn()
        return quality

    def hits(self, data: Any) -> np.ndarray:
        """Int64 (rows, columns) of the map, see ``Quality``."""
        return self.quality(data).hits

    def quantisation_error(self, data: Any) -> float:
        """Mean distance to the nearest centre, see ``Quality``."""
        return self.quality(data).quantisation_error

    def topographic_error(self, data: Any) -> float:
        """Share of the rows between units that are not neighbours, see ``Quality``."""
        return self.quality(data).topographic_error

    def representatives(self, data: Any, *, nearest: bool = False, seed: int | None = None) -> np.ndarray:
        """One row for each group.

        Args:
            data: see the class.
            nearest: the row nearest to the unit's centre, of equals the first. If not, one of the group's rows drawn at
                random, each as likely as another.
            seed: of the draw; None for the map's.

        Returns:
            Int64 (rows * columns,) row numbers, counted from 0 with those left out; -1 where the group has no row.

        Raises:
            UserError: as ``predict``.
        """
        stream, engine = self._trained(data)
        units = self.rows * self.columns
        chosen, best = np.full(units, -1), np.full(units, np.inf)
        key = np.uint64((self.seed if seed is None else seed) % 2**64)
        for block in stream:
            winner, _, distance = engine.winners(block)
            _keep_smallest(winner, distance if nearest else _uniform(block.numbers, key), block.numbers, best, chosen)
        stream.warn()
        return chosen

    def centres(self) -> np.ndarray:
        """Float64 (rows * columns, features), the units' centres in the features' own units."""
        self._check_trained()
        values = self._mean + self.weights.astype(np.float64) * self._scale
        return np.where(self._logged, 10.0 ** np.where(self._logged, values, 0.0), values)

    def u_matrix(self) -> np.ndarray:
        """Float64 (rows, columns), mean distance of each centre to those of the units it shares an edge with; 0 if none."""
        self._check_trained()
        apart, beside = self._apart(), self._beside()
        return ((apart * beside).sum(1) / np.maximum(beside.sum(1), 1)).reshape(self.rows, self.columns)

    # --- Files --------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the map, its scaling and its ``training`` as npz; the file takes its place when it is complete.

        Raises:
            UserError: the map is not trained, or there is no such folder.
        """
        self._check_trained()
        kept = ("rows", "columns", "standardise", "epochs", "sigma", "topology", "missing", "seed")
        settings = {name: getattr(self, name) for name in kept}
        settings["log"] = [self.features[k] for k in np.flatnonzero(self._logged)]
        arrays = {"mean": self._mean, "scale": self._scale, "weights": self.weights, "features": np.array(self.features)}
        training = self.training
        errors = np.array([training.quantisation_error, training.topographic_error, training.dropped])
        with replacing(Path(path).expanduser()) as temporary, open(temporary, "wb") as file:
            np.savez(file, format=_FORMAT, settings=json.dumps(settings), hits=training.hits, errors=errors, **arrays)

    @classmethod
    def load(cls, path: str | Path, device: Any = None) -> SOM:
        """A map that ``save`` wrote. Nothing is unpickled.

        Raises:
            UserError: no such file, or it is no such map.
        """
        try:
            with np.load(Path(path).expanduser(), allow_pickle=False) as file:
                if str(file["format"]) != _FORMAT:
                    raise ValueError(f"its format is {str(file['format'])[:80]!r}")
                som = cls(**json.loads(str(file["settings"])), features=file["features"].tolist(), device=device)
                som._take(**{name: file[name] for name in ("mean", "scale", "weights", "hits", "errors")})
        except FileNotFoundError:
            raise UserError(f"there is no file {path}") from None
        except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no map of skyset: {str(error).splitlines()[0]}") from error
        return som

    def _take(self, mean: np.ndarray, scale: np.ndarray, weights: np.ndarray, hits: np.ndarray, errors: np.ndarray) -> None:
        units, width = self.rows * self.columns, len(self.features)
        shapes = (mean.shape, scale.shape, weights.shape, hits.shape, errors.shape)
        if shapes != ((width,), (width,), (units, width), (self.rows, self.columns), (3,)):
            raise ValueError(f"its arrays have the shapes {shapes}")
        if not all(np.isfinite(x).all() for x in (mean, scale, weights)) or scale.min() < 0:
            raise ValueError("its numbers are not finite")
        self._mean, self._scale = mean.astype(np.float64), scale.astype(np.float64)
        self._logged, self.weights = _logged(self.log, self.features), weights.astype(np.float32)
        self.training = Quality(hits.astype(np.int64), float(errors[0]), float(errors[1]), int(errors[2]))

    # --- Figures ------------------------------------------------------------------------------------

    def plot(self) -> Figure:
        """U-matrix, hits of the training, and all component planes in one figure."""
        self._check_trained()
        figure, panels = self._panels(2 + len(self.features))
        self._draw_u_matrix(panels[0])
        self._draw_hits(panels[1], self.training.hits)
        self._draw_components(panels[2:])
        return figure

    def plot_u_matrix(self) -> Figure:
        """Cells in the colour of ``u_matrix``, edges between them in that of the distance across."""
        self._check_trained()
        figure, panels = self._panels(1)
        self._draw_u_matrix(panels[0])
        return figure

    def plot_hits(self, hits: np.ndarray | None = None) -> Figure:
        """Rows in each group.

        Args:
            hits: (rows, columns) of the map, as ``som.hits(data)``; None for those of the training.

        Raises:
            ValueError: hits of another shape.
        """
        self._check_trained()
        hits = self.training.hits if hits is None else np.asarray(hits)
        if hits.shape != (self.rows, self.columns):
            raise ValueError(f"hits have the shape {hits.shape}, the map is {(self.rows, self.columns)}")
        figure, panels = self._panels(1)
        self._draw_hits(panels[0], hits)
        return figure

    def plot_components(self) -> Figure:
        """A panel for each feature: the units' centres in its own units, logarithmic colours for features in ``log``."""
        self._check_trained()
        figure, panels = self._panels(len(self.features))
        self._draw_components(panels)
        return figure

    def _panels(self, count: int) -> tuple[Figure, np.ndarray]:
        from matplotlib.figure import Figure

        across = min(count, 4)
        down = -(-count // across)
        shape = self.rows / self.columns * (0.866 if self.topology == "hexagonal" else 1.0)
        height = np.clip(3.2 * shape, 1.2, 8.0) + 0.5
        figure = Figure(figsize=(4.2 * across, height * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes in panels[count:]:
            axes.set_axis_off()
        return figure, panels[:count]

    def _draw_u_matrix(self, axes) -> None:
        from matplotlib.collections import LineCollection

        cells = self._draw_cells(axes, self.u_matrix(), "U-matrix: distances of centres", "{:.2f}", colours="magma_r")
        one, other = np.nonzero(np.triu(self._beside()))
        if not len(one):
            return
        # Units share an edge of this half length, across the middle of the line between them.
        half = 0.5 / np.sqrt(3) if self.topology == "hexagonal" else 0.5
        places = self._places()
        middle, along = (places[one] + places[other]) / 2, (places[other] - places[one])[:, ::-1] * [-half, half]
        across = self._apart()[one, other]
        width = min(5.0, 40 / max(self.rows, self.columns))
        ends = np.stack([middle - along, middle + along], 1)
        lines = LineCollection(ends, array=across, cmap="magma_r", linewidths=width)
        for drawn in (lines, cells):
            drawn.set_clim(across.min(), across.max())
        axes.add_collection(lines)

    def _draw_hits(self, axes, hits: np.ndarray) -> None:
        self._draw_cells(axes, hits, f"hits of {int(hits.sum()):,} rows", "{:,.0f}", colours="Blues", lowest=0)

    def _draw_components(self, panels) -> None:
        for axes, name, values, logged in zip(panels, self.features, self.centres().T, self._logged, strict=True):
            self._draw_cells(axes, values.reshape(self.rows, self.columns), name, None, logged=bool(logged))

    def _draw_cells(self, axes, values, title, text, *, colours="viridis", logged=False, lowest=None):
        """The units as cells; ``text`` is the format of the numbers in them, None for none."""
        from matplotlib.collections import PolyCollection
        from matplotlib.colors import LogNorm
        from matplotlib.ticker import LogFormatter

        places = self._places()
        angles = np.radians(np.arange(30, 390, 60) if self.topology == "hexagonal" else np.arange(45, 405, 90))
        radius = 1 / np.sqrt(3) if self.topology == "hexagonal" else np.sqrt(0.5)
        corners = radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        norm = LogNorm() if logged and values.min() < values.max() else None
        cells = PolyCollection(places[:, None] + corners, array=values.ravel(), cmap=colours, norm=norm)
        cells.set(edgecolors="white", linewidths=min(1.0, 8 / max(self.rows, self.columns)))
        axes.add_collection(cells)
        if lowest is not None:
            cells.set_clim(lowest, max(values.max(), lowest + 1))
        axes.set(xlim=(-0.6, places[:, 0].max() + 0.6), ylim=(places[:, 1].max() + 0.7, -0.7))
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize="medium")
        axes.spines[:].set_visible(False)
        bar = axes.figure.colorbar(cells, ax=axes, shrink=0.8)
        if norm is not None:  # 60, not 6 x 10^1
            bar.formatter, bar.minorformatter = LogFormatter(), LogFormatter()
        if text is not None and len(places) <= _LABELLED:
            for (x, y), value in zip(places, values.ravel(), strict=True):
                dark = np.dot(cells.cmap(cells.norm(value))[:3], [0.3, 0.59, 0.11]) < 0.5
                size = 8 if max(self.rows, self.columns) <= 6 else 5
                colour = "white" if dark else "black"
                axes.text(x, y, text.format(value), ha="center", va="center", fontsize=size, color=colour)
        return cells

    # --- The map's geometry -------------------------------------------------------------------------

    def _places(self) -> np.ndarray:
        """(units, 2), where the units lie on the map, x and y; adjacent ones are 1 apart."""
        down, across = np.divmod(np.arange(self.rows * self.columns), self.columns)
        if self.topology == "hexagonal":
            return np.stack([across + 0.5 * (down % 2), down * np.sqrt(0.75)], 1)
        return np.stack([across, down], 1).astype(np.float64)

    def _distances(self) -> np.ndarray:
        places = self._places()
        return np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))

    def _beside(self) -> np.ndarray:
        """Bool (units, units), whether they share an edge."""
        return np.abs(self._distances() - 1) < 0.1

    def _apart(self) -> np.ndarray:
        """(units, units), distances of the centres, in the units of the quantisation error."""
        centres = self.weights.astype(np.float64)
        return np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(-1)) * self._error_unit(self._scale)

    def _error_unit(self, scale: np.ndarray) -> float:
        return 1.0 if self.standardise else float(scale[0])

    # --- Steps --------------------------------------------------------------------------------------

    def _start(self, moments: _Moments, scale: np.ndarray) -> np.ndarray:
        """Centres on the plane of the first two principal components, one standard deviation of each to either side."""
        inverse = _inverse(scale)
        values, vectors = np.linalg.eigh(moments.scatter / moments.total * np.outer(inverse, inverse))
        axes = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1].T[:2]
        axes = np.concatenate([axes, np.zeros((2 - len(axes), axes.shape[1]))])  # a single feature has one component
        largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
        axes = axes * np.where(largest < 0, -1.0, 1.0)  # the sign of an eigenvector is anyone's
        places = self._places() - self._places().mean(0)
        places = places / np.maximum(np.abs(places).max(0), 1e-9)
        longer_first = places if self.columns >= self.rows else places[:, ::-1]
        noise = np.random.default_rng(self.seed % 2**63).normal(0, _JITTER, (len(places), len(inverse)))
        return (longer_first @ axes + noise).astype(np.float32)

    def _engine(self, mean: np.ndarray, scale: np.ndarray) -> _Compiled | _Torch:
        if self.device is None:
            return _Compiled(mean, _inverse(scale))
        return _Torch(mean, _inverse(scale), self.rows * self.columns, self.device)

    def _trained(self, data: Any) -> tuple[_Stream, _Compiled | _Torch]:
        """The data's rows, and what finds their units."""
        self._check_trained()
        engine = self._engine(self._mean, self._scale)
        engine.set(self.weights)
        return _Stream(data, self.features, self._logged, self.missing, engine.block), engine

    def _quality(self, stream: _Stream, engine: _Compiled | _Torch, unit: float) -> Quality:
        units = self.rows * self.columns
        near = self._distances() < (1.1 if self.topology == "hexagonal" else 1.5)
        hits, total, far = np.zeros(units, np.int64), 0.0, 0.0
        for block in stream:
            winner, second, distance = engine.winners(block)
            hits += np.bincount(winner, minlength=units)
            total += float(distance.sum(dtype=np.float64))
            far += np.count_nonzero(~near[winner, second])
        rows = float(hits.sum()) or np.nan
        topographic = far / rows if units > 1 else np.nan
        return Quality(hits.reshape(self.rows, self.columns), total / rows * unit, topographic, stream.dropped)

    def _progress(self, sigmas: np.ndarray) -> Iterable[float]:
        from skyset.progress import progress_bar

        return progress_bar(sigmas, unit="epoch", desc="map", leave=False, delay=2)

    def _check_trained(self) -> None:
        if self.weights is None:
            raise UserError("the map is not trained: call fit, or SOM.load")


def _widths(start: float, end: float, epochs: int) -> np.ndarray:
    settling = epochs // 4
    return np.append(np.geomspace(start, end, epochs - settling), np.full(settling, end))


def _moved(weights: np.ndarray, sums: np.ndarray, mass: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Centres after an epoch; those with no row anywhere near stay where they are."""
    around = near @ mass
    reached = around > 1e-30 * mass.sum()
    return np.where(reached[:, None], near @ sums / np.where(reached, around, 1.0)[:, None], weights).astype(np.float32)


def _logged(log: Sequence[str | int], names: tuple[str, ...]) -> np.ndarray:
    """Bool (features,)."""
    logged = np.zeros(len(names), bool)
    for which in log:
        if which not in names and not (isinstance(which, int) and 0 <= which < len(names)):
            raise UserError(f"log names {which!r}, which is none of the features {', '.join(names)}")
        logged[names.index(which) if which in names else which] = True
    return logged


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, 0 for constant features."""
    return np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 0.0)


def _scaling(moments: _Moments, names: tuple[str, ...], standardise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means, and what to divide by: standard deviations (0 for constant features), or their mean square for all features.

    The latter does not change what is nearest, and keeps numbers of any size within float32.
    """
    variance = np.diag(moments.scatter) / moments.total
    if not np.isfinite(variance).all():
        raise UserError(f"{names[int(np.argmin(np.isfinite(variance)))]} has values too large to be squared: name it in log")
    spread = np.sqrt(variance)
    constant = spread <= 1e-12 * np.abs(moments.mean)
    if constant.all():
        raise UserError(f"no feature varies: {', '.join(names)}")
    for name in np.array(names)[constant]:
        warnings.warn(f"{name} is constant: it does not count in the map", UserWarning, stacklevel=3)
    spread = np.where(constant, 0.0, spread)
    return moments.mean, spread if standardise else np.full(len(names), np.sqrt(np.mean(spread**2)))


# --- Rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Block:
    """Some rows, in memory that the next block uses again.

    Attributes:
        values: float64 (features, block), logarithms taken; columns beyond the rows are padding.
        numbers: int64 (rows,), increasing, which rows of the data these are.
    """

    values: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)


class _Stream:
    """The data as blocks of a fixed number of usable rows (the last has fewer), whatever chunks they come in.

    Args:
        expected: rows that each pass must have; None for any number.

    Attributes:
        seen, dropped: rows of the last pass, and those of them left out.
    """

    def __init__(
        self, data: Any, names: tuple[str, ...], logged: np.ndarray, missing: str, block: int, expected: int | None = None
    ):
        self.data, self.names, self.missing, self.block, self.expected = data, names, missing, block, expected
        self.logged = np.flatnonzero(logged)
        self.seen = self.dropped = 0

    def __iter__(self) -> Iterator[_Block]:
        self.seen = self.dropped = 0
        values, numbers, filled = np.ones((len(self.names), self.block)), np.zeros(self.block, np.int64), 0
        for chunk in _chunks(self.data, self.names):
            columns, length = _columns(chunk, self.names)
            start = 0
            while start < length:
                count = min(length - start, self.block - filled)
                for row, column in zip(values, columns, strict=True):
                    row[filled : filled + count] = _plain(column[start : start + count])
                numbers[filled : filled + count] = np.arange(self.seen, self.seen + count)
                start, self.seen = start + count, self.seen + count
                filled += self._keep_usable(values[:, filled : filled + count], numbers[filled : filled + count])
                if filled == self.block:
                    yield self._block(values, numbers)
                    filled = 0
        if filled:
            values[:, filled:] = 1.0
            yield self._block(values, numbers[:filled])
        if self.expected not in (None, self.seen):
            was = f"the data had {self.expected} rows at the first pass, and {self.seen} at a later one"
            raise UserError(f"{was}: they must be the same each time")

    def _block(self, values: np.ndarray, numbers: np.ndarray) -> _Block:
        for k in self.logged:
            np.log10(values[k], out=values[k])
        return _Block(values, numbers)

    def _keep_usable(self, values: np.ndarray, numbers: np.ndarray) -> int:
        """Move usable rows to the front; their number."""
        if np.isfinite(values).all() and all(values[k].min() >= _SMALLEST for k in self.logged):
            return len(numbers)
        usable = np.isfinite(values)
        usable[self.logged] &= values[self.logged] >= _SMALLEST
        if self.missing == "raise":
            row = int(np.argmin(usable.all(0)))
            k = int(np.argmin(usable[:, row]))
            why = "cannot be used" if not np.isfinite(values[k, row]) else "has no logarithm"
            advice = "choose other rows, or missing='drop' to leave such rows out"
            raise UserError(f"row {numbers[row]}: {self.names[k]} is {values[k, row]:g}, which {why}: {advice}")
        good = usable.all(0)
        kept = int(np.count_nonzero(good))
        values[:, :kept], numbers[:kept] = values[:, good], numbers[good]
        self.dropped += len(good) - kept
        return kept

    def warn(self) -> None:
        if self.dropped:
            text = f"{self.dropped:,} of {self.seen:,} rows were left out"
            warnings.warn(f"{text}: a feature is missing, not finite, or has no logarithm", UserWarning, stacklevel=3)


class _Importance:
    """How much rows count, by their numbers."""

    def __init__(self, weights: np.ndarray | None):
        self.weights = None if weights is None else np.asanyarray(weights)
        if self.weights is not None and (self.weights.ndim != 1 or self.weights.dtype.kind not in "buif"):
            raise ValueError(f"weights must be numbers (rows,), not {self.weights.dtype} {self.weights.shape}")

    def of(self, block: _Block) -> np.ndarray:
        """Float64, one for each column of the block, 0 for its padding."""
        result = np.zeros(block.values.shape[1])
        if self.weights is None:
            result[: len(block)] = 1.0
            return result
        if block.numbers[-1] >= len(self.weights):
            raise UserError(f"there are {len(self.weights)} weights, but more rows")
        result[: len(block)] = self.weights[block.numbers]
        if not np.isfinite(result).all() or result.min() < 0:
            raise UserError("weights must be finite and not negative")
        return result

    def check(self, rows: int) -> None:
        if self.weights is not None and len(self.weights) != rows:
            raise UserError(f"there are {len(self.weights)} weights, but {rows} rows")
        if self.weights is not None and not self.weights.any():
            raise UserError("all weights are 0")


def _chunks(data: Any, names: tuple[str, ...] | None) -> Iterator[Any]:
    """Arrays and tables that the data consist of."""
    if callable(data):
        data = data()
    if hasattr(data, "with_format") and hasattr(data, "select_columns"):  # a Hugging Face dataset, whose numpy format rounds
        if names is None:
            raise UserError("a dataset has more columns than the features of a map: name those with features=")
        data = data.select_columns(list(names)).with_format("arrow").iter(BLOCK)
    if hasattr(data, "to_batches") and hasattr(data, "num_rows"):  # an arrow table, whose columns may be in many pieces
        data = data.to_batches()
    if isinstance(data, np.ndarray) or _column_names(data) is not None:
        yield data
        return
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Path):
        raise UserError(f"data must be an array, a table, or an iterable of them, not {type(data).__name__}")
    yield from data


def _names(data: Any) -> tuple[str, ...]:
    """Features that the first chunk has."""
    for chunk in _chunks(data, None):
        names = _column_names(chunk)
        if names is None:
            names = tuple(f"feature {k}" for k in range(_table(chunk).shape[1]))
        if not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"features must have names that are text, not {names}")
        return names
    raise UserError("there are no rows in the data")


def _column_names(chunk: Any) -> tuple[str, ...] | None:
    """None where columns have no names."""
    if isinstance(chunk, np.ndarray):
        return chunk.dtype.names
    if isinstance(chunk, Mapping):
        return tuple(chunk)
    if hasattr(chunk, "colnames"):  # astropy
        return tuple(chunk.colnames)
    if hasattr(chunk, "schema") and hasattr(chunk, "num_rows"):  # pyarrow
        return tuple(chunk.schema.names)
    if hasattr(chunk, "iloc"):  # pandas
        return tuple(chunk.columns)
    return None


def _columns(chunk: Any, names: tuple[str, ...]) -> tuple[list[np.ndarray], int]:
    """One array a feature, without copies where the chunk has arrays; and their length."""
    known = _column_names(chunk)
    if known is None:
        table = _table(chunk)
        if table.shape[1] != len(names):
            raise UserError(f"the data have {table.shape[1]} features, the map {len(names)}: {', '.join(names)}")
        columns = list(table.T)
    else:
        if lacking := [name for name in names if name not in known]:
            raise UserError(f"the data have no column {', '.join(lacking)}; they have {', '.join(known)}")
        columns = [_column(chunk[name]) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.ndim != 1 or column.dtype.kind not in "buif" or len(column) != len(columns[0]):
            raise UserError(f"{name} must be one number a row, {len(columns[0])} of them, not {column.dtype} {column.shape}")
    return columns, len(columns[0])


def _column(values: Any) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        return values
    if hasattr(values, "unmasked"):  # astropy's masked quantities
        return np.ma.MaskedArray(np.asarray(values.unmasked), values.mask)
    if hasattr(values, "iloc") and hasattr(values.dtype, "na_value"):  # pandas' types with missing values
        return values.to_numpy(object, na_value=np.nan).astype(np.float64)
    return np.asarray(values)


def _table(chunk: Any) -> np.ndarray:
    if not isinstance(chunk, np.ndarray) or chunk.ndim != 2:
        what = f"an array of shape {chunk.shape}" if isinstance(chunk, np.ndarray) else type(chunk).__name__
        raise UserError(f"data must be arrays (rows, features) or tables with named columns, not {what}")
    return chunk


def _plain(values: np.ndarray) -> np.ndarray:
    """Masked values as NaN."""
    return values.astype(np.float64).filled(np.nan) if isinstance(values, np.ma.MaskedArray) else values


# --- Sums -----------------------------------------------------------------------------------------


class _Moments:
    """Mean and scatter about it of weighted rows, merged block by block (Chan, Golub & LeVeque 1983).

    Attributes:
        total: sum of weights.
        mean: (features,).
        scatter: (features, features), sum of weight x product of deviations from the mean.
    """

    def __init__(self, features: int):
        self.total, self.mean, self.scatter = 0.0, np.zeros(features), np.zeros((features, features))

    def add(self, values: np.ndarray, weight: np.ndarray) -> None:
        total = weight.sum()
        if total == 0:
            return
        mean, scatter = np.empty_like(self.mean), np.empty_like(self.scatter)
        _block_moments(values, weight, total, mean, scatter)
        both, shift = self.total + total, mean - self.mean
        with np.errstate(over="ignore", invalid="ignore"):  # refused by name when all rows have been seen
            self.scatter += scatter + np.outer(shift, shift) * (self.total * total / both)
        self.mean = self.mean + shift * (total / both)
        self.total = both


class _Compiled:
    """Nearest units and sums by the compiled kernels below."""

    block = BLOCK

    def __init__(self, mean: np.ndarray, inverse: np.ndarray):
        self.mean, self.inverse = mean, inverse
        self.scaled = np.empty((len(mean), BLOCK), np.float32)
        self.none, self.winner, self.second = (np.full(BLOCK, -1, np.int32) for _ in range(3))

    def set(self, weights: np.ndarray) -> None:
        self.weights = np.ascontiguousarray(weights)
        self.half_squares = (0.5 * (weights.astype(np.float64) ** 2).sum(1)).astype(np.float32)

    def _find(self, block: _Block) -> None:
        _standardise(block.values, self.mean, self.inverse, self.scaled)
        _nearest(self.scaled, self.weights, self.half_squares, self.none, self.winner)

    def sums(self, stream: _Stream, importance: _Importance) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the rows of each unit, float64 (units, features), and of their weights (units,)."""
        sums, mass = np.zeros(self.weights.shape), np.zeros(len(self.weights))
        for block in stream:
            self._find(block)
            _add(self.scaled, self.winner, importance.of(block), len(block), sums, mass)
        return sums, mass

    def winners(self, block: _Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nearest and second nearest unit of each row, and the distance to the nearest."""
        self._find(block)
        _nearest(self.scaled, self.weights, self.half_squares, self.winner, self.second)
        distance = np.empty(BLOCK, np.float32)
        _distances_to(self.scaled, self.weights, self.winner, distance)
        return self.winner[: len(block)], self.second[: len(block)], distance[: len(block)]


class _Torch:
    """The same on a torch device. Scaled rows stay on a GPU from one epoch to the next where there is room for them."""

    def __init__(self, mean: np.ndarray, inverse: np.ndarray, units: int, device: Any):
        try:
            import torch
        except ImportError as error:
            raise UserError("a map on a device needs the package torch; without device= it needs none") from error
        self.torch, self.device = torch, torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("torch finds no GPU here: leave out device=")
        self.mean, self.inverse = (torch.as_tensor(x[:, None]).to(self.device) for x in (mean, inverse))
        numbers = _GPU_NUMBERS if self.device.type == "cuda" else _CORE_NUMBERS
        self.block = int(np.clip(numbers // units, 1024, 1 << 18))
        self.kept: list[tuple[Any, Any]] | None = None

    def set(self, weights: np.ndarray) -> None:
        self.weights = self.torch.as_tensor(weights).to(self.device)
        self.half_squares = (0.5 * (self.weights.double() ** 2).sum(1)).float()

    def _scaled(self, block: _Block) -> Any:
        """(features, rows) float32."""
        values = self.torch.as_tensor(block.values[:, : len(block)]).to(self.device)
        return ((values - self.mean) * self.inverse).clamp(-_FARTHEST, _FARTHEST).float()

    def _scores(self, scaled: Any) -> Any:
        """(units, rows): half the squared distance to each unit, less what is the same for all units.

        Feature by feature, not as a matrix product, which a GPU may round to fewer digits.
        """
        scores = self.half_squares[:, None].repeat(1, scaled.shape[1])
        for k in range(len(scaled)):
            scores.addcmul_(self.weights[:, k, None], scaled[None, k], value=-1)
        return scores

    def sums(self, stream: _Stream, importance: _Importance) -> tuple[np.ndarray, np.ndarray]:
        torch, units = self.torch, len(self.weights)
        sums = torch.zeros(self.weights.shape, dtype=torch.float64, device=self.device)
        mass = torch.zeros(units, dtype=torch.float64, device=self.device)
        numbers = torch.arange(units, device=self.device)[:, None]
        for scaled, weight in self._rows(stream, importance):
            member = (self._scores(scaled).min(0).indices[None] == numbers).double() * weight
            sums += member @ scaled.double().T  # a scatter would add in an order of its own at each call
            mass += member.sum(1)
        return sums.cpu().numpy(), mass.cpu().numpy()

    def _rows(self, stream: _Stream, importance: _Importance) -> Iterator[tuple[Any, Any]]:
        if self.kept is not None:
            yield from self.kept
            return
        kept = [] if stream.expected * (4 * len(self.mean) + 8) < _GPU_SHARE * _free_bytes(self.device) else None
        for block in stream:
            weight = self.torch.as_tensor(importance.of(block)[: len(block)]).to(self.device)
            pair = (self._scaled(block), weight)
            if kept is not None:
                kept.append(pair)
            yield pair
        self.kept = kept

    def winners(self, block: _Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scaled = self._scaled(block)
        scores = self._scores(scaled)
        winner = scores.min(0).indices
        away = (scaled - self.weights[winner].T).square().sum(0).sqrt()
        if len(self.weights) > 1:
            scores.scatter_(0, winner[None], np.inf)
        second = scores.min(0).indices
        return winner.int().cpu().numpy(), second.int().cpu().numpy(), away.cpu().numpy()


def _free_bytes(device: Any) -> int:
    """Memory in which a device may keep rows: none of this machine's own."""
    if device.type != "cuda":
        return 0
    import torch

    return torch.cuda.mem_get_info(device)[0]


# --- Kernels --------------------------------------------------------------------------------------
# All run over whole blocks, padding too: what a row gives does not depend on its place in the block.

#: Sums may be taken in several lanes, multiplications and additions fused; NaN and infinity stay what they are.
_FAST = {"contract", "nsz", "reassoc"}
#: Scaled values beyond are taken for it, so that their squares are float32.
_FARTHEST = 1e18


@jit(fastmath=_FAST)
def _block_moments(values, weight, total, mean, scatter):
    features, rows = values.shape
    for k in range(features):
        row = values[k]
        sum_ = 0.0
        for i in range(rows):
            sum_ += weight[i] * row[i]
        mean[k] = sum_ / total
        for m in range(k + 1):
            other, a, b = values[m], mean[k], mean[m]
            sum_ = 0.0
            for i in range(rows):
                sum_ += weight[i] * (row[i] - a) * (other[i] - b)
            scatter[k, m] = sum_
            scatter[m, k] = sum_


@jit(fastmath=_FAST)
def _standardise(values, mean, inverse, scaled):
    for k in range(values.shape[0]):
        a, b = mean[k], inverse[k]
        for i in range(values.shape[1]):
            scaled[k, i] = np.float32(min(max((values[k, i] - a) * b, -_FARTHEST), _FARTHEST))


@jit(fastmath=_FAST)
def _nearest(scaled, weights, half_squares, without, nearest):
    """The unit of smallest |w|**2 / 2 - x.w, which is half the squared distance less |x|**2 / 2; of equals the first.

    The unit ``without`` is left out, for the second nearest; -1 for none.
    """
    score, best = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    chosen = np.empty(_TILE, np.int32)
    for start in range(0, scaled.shape[1], _TILE):
        other = without[start : start + _TILE]
        best[:] = np.inf
        chosen[:] = 0
        for j in range(weights.shape[0]):
            score[:] = half_squares[j]
            for k in range(weights.shape[1]):
                w, row = weights[j, k], scaled[k, start : start + _TILE]
                for i in range(_TILE):
                    score[i] -= w * row[i]
            unit = np.int32(j)
            for i in range(_TILE):  # choices instead of branches: many rows at a time
                nearer = (score[i] < best[i]) & (other[i] != unit)
                best[i] = score[i] if nearer else best[i]
                chosen[i] = unit if nearer else chosen[i]
        nearest[start : start + _TILE] = chosen


@jit
def _add(scaled, winner, weight, rows, sums, mass):
    for i in range(rows):
        j, w = winner[i], weight[i]
        mass[j] += w
        for k in range(scaled.shape[0]):
            sums[j, k] += w * scaled[k, i]


@jit
def _distances_to(scaled, weights, winner, distance):
    for i in range(scaled.shape[1]):
        square = np.float32(0)
        for k in range(scaled.shape[0]):
            apart = scaled[k, i] - weights[winner[i], k]
            square += apart * apart
        distance[i] = np.sqrt(square)


@jit
def _uniform(numbers, key):
    """Float64 in 0..1 for each row number: SplitMix64 (Steele, Lea & Flood 2014) of the number, with the seed's stream."""
    result = np.empty(len(numbers))
    state = _mixed(key + np.uint64(0x9E3779B97F4A7C15))
    for i in range(len(numbers)):
        mixed = _mixed(state + (np.uint64(numbers[i]) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
        result[i] = np.float64(mixed >> np.uint64(11)) * 2.0**-53
    return result


@jit
def _mixed(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit
def _keep_smallest(winner, values, numbers, best, chosen):
    for i in range(len(winner)):
        if values[i] < best[winner[i]]:
            best[winner[i]] = values[i]
            chosen[winner[i]] = numbers[i]
