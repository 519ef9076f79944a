"""The map: how it is trained, what it says of rows, and its file."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from skyset.errors import UserError
from skyset.extraction.som import figures
from skyset.extraction.som.grid import TOPOLOGIES, Grid
from skyset.extraction.som.quality import Quality
from skyset.extraction.som.rows import BLOCK, Importance, Stream, names_in
from skyset.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skyset.extraction.som.sums import Compiled, Moments, Torch

MISSING = ("raise", "drop")
#: Spread of the noise, in standard deviations, that distinguishes units which would otherwise start at the same place.
_JITTER = 0.01
#: Width of the neighbourhood in the last epochs: adjacent units weigh 0.0003.
_LAST_SIGMA = 0.25
_FORMAT = "skyset self-organising map, 2"
_ARRAYS = ("mean", "scale", "weights", "hits", "errors", "unit_errors", "history")


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
        history: float64 (epochs,), root mean square distance of the rows to their units' centres at the start of each epoch,
            in the units of the quantisation error; empty before ``fit``.

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
        self._grid = Grid(self.rows, self.columns, topology)
        self.features = None if features is None else tuple(features)
        self.log, self.standardise, self.missing, self.seed = tuple(log), bool(standardise), missing, int(seed)
        self.device = device
        self.weights: np.ndarray | None = None
        self.training: Quality | None = None
        self.history = np.zeros(0)
        self._mean = self._scale = self._logged = np.zeros(0)

    def __repr__(self) -> str:
        state = "not trained"
        if self.weights is not None:
            features, _, training = self._fitted()
            state = f"{training.hits.sum():,} rows of {len(features)} features"
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
        from skyset.extraction.som.sums import Moments  # here: a map is named by many that make none, and numba takes long

        if not callable(data) and isinstance(data, Iterator):
            raise UserError("the data are needed several times, an iterator can be read once: give a function that opens it")
        names = self.features or names_in(data)
        logged = _logged(self.log, names)
        importance, moments = Importance(weights), Moments(len(names))
        stream = Stream(data, names, logged, self.missing, BLOCK)
        for block in stream:
            moments.add(block.values, importance.of(block))
        importance.check(stream.seen)
        stream.warn()
        if (kept := stream.seen - stream.dropped) < self.rows * self.columns:
            raise UserError(f"{kept} rows are not enough for {self.rows * self.columns} groups: give more, or a smaller map")
        mean, scale = _scaling(moments, names, self.standardise)
        engine, centres = self._engine(mean, scale), self._start(moments, scale)
        stream = Stream(data, names, logged, self.missing, engine.block, expected=stream.seen)
        spread, history = float((np.diag(moments.scatter) * _inverse(scale) ** 2).sum()), []
        for sigma in self._progress(_widths(self.sigma[0], self.sigma[1], self.epochs)):
            engine.set(centres)
            sums, mass = engine.sums(stream, importance)
            history.append(_root_mean_square(spread, centres, sums, mass))
            centres = _moved(centres, sums, mass, np.exp(-(self._grid.distances() ** 2) / (2 * sigma**2)))
        engine.set(centres)
        training = self._quality(stream, engine, self._error_unit(scale))
        # Only now: a map whose training fails stays what it was.
        self.features, self.weights, self.training = names, centres, training
        self.history = np.array(history) * self._error_unit(scale)
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
        from skyset.extraction.som.kernels import keep_smallest, uniform

        stream, engine = self._trained(data)
        units = self.rows * self.columns
        chosen, best = np.full(units, -1), np.full(units, np.inf)
        key = np.uint64((self.seed if seed is None else seed) % 2**64)
        for block in stream:
            winner, _, distance = engine.winners(block)
            keep_smallest(winner, distance if nearest else uniform(block.numbers, key), block.numbers, best, chosen)
        stream.warn()
        return chosen

    def centres(self) -> np.ndarray:
        """Float64 (rows * columns, features), the units' centres in the features' own units."""
        _, weights, _ = self._fitted()
        values = self._mean + weights.astype(np.float64) * self._scale
        return np.where(self._logged, 10.0 ** np.where(self._logged, values, 0.0), values)

    def u_matrix(self) -> np.ndarray:
        """Float64 (rows, columns), mean distance of each centre to those of the units it shares an edge with; 0 if none."""
        apart, beside = self._apart(), self._grid.beside()
        return ((apart * beside).sum(1) / np.maximum(beside.sum(1), 1)).reshape(self.rows, self.columns)

    # --- Files --------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the map, its scaling and its ``training`` as npz; the file takes its place when it is complete.

        Raises:
            UserError: the map is not trained, or there is no such folder.
        """
        features, weights, training = self._fitted()
        kept = ("rows", "columns", "standardise", "epochs", "sigma", "topology", "missing", "seed")
        settings = {name: getattr(self, name) for name in kept}
        settings["log"] = [features[k] for k in np.flatnonzero(self._logged)]
        arrays: dict[str, Any] = {"mean": self._mean, "scale": self._scale, "weights": weights}
        arrays["features"] = np.array(features)
        errors = np.array([training.quantisation_error, training.topographic_error, training.dropped])
        arrays |= {"unit_errors": np.stack([training.distances, training.strays]), "history": self.history}
        with replacing(Path(path).expanduser()) as temporary, open(temporary, "wb") as file:
            np.savez(file, format=_FORMAT, settings=json.dumps(settings), hits=training.hits, errors=errors, **arrays)

    @classmethod
    def load(cls, path: str | Path, device: Any = None) -> SOM:
        """A map that ``save`` wrote. Nothing is unpickled.

        Raises:
            UserError: no such file, or it is no such map.
        """
        try:
            with Path(path).expanduser().open("rb") as raw, np.load(_npz(raw), allow_pickle=False) as file:
                if str(file["format"]) != _FORMAT:
                    raise ValueError(f"its format is {str(file['format'])[:80]!r}")
                som = cls(**json.loads(str(file["settings"])), features=file["features"].tolist(), device=device)
                som._take(**{name: file[name] for name in _ARRAYS})
        except FileNotFoundError:
            raise UserError(f"there is no file {path}") from None
        except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no map of skyset: {str(error).splitlines()[0]}") from error
        return som

    def _take(self, **arrays: np.ndarray) -> None:
        features = self.features or ()
        units, width, shape = self.rows * self.columns, len(features), (self.rows, self.columns)
        wanted = ((width,), (width,), (units, width), shape, (3,), (2, *shape), (self.epochs,))
        if (shapes := tuple(arrays[name].shape for name in _ARRAYS)) != wanted:
            raise ValueError(f"its arrays have the shapes {shapes}")
        if not all(np.isfinite(arrays[name]).all() for name in ("mean", "scale", "weights")) or arrays["scale"].min() < 0:
            raise ValueError("its numbers are not finite")
        self._mean, self._scale = arrays["mean"].astype(np.float64), arrays["scale"].astype(np.float64)
        self._logged, self.weights = _logged(self.log, features), arrays["weights"].astype(np.float32)
        (quantisation, topographic, dropped), each = arrays["errors"].tolist(), arrays["unit_errors"].astype(np.float64)
        self.training = Quality(arrays["hits"].astype(np.int64), quantisation, topographic, int(dropped), each[0], each[1])
        self.history = arrays["history"].astype(np.float64)

    # --- Figures ------------------------------------------------------------------------------------

    def plot(self) -> Figure:
        """U-matrix, hits of the training, and all component planes in one figure."""
        features, _, training = self._fitted()
        figure, panels = figures.panels_of(self._grid, 2 + len(features))
        figures.draw_u_matrix(panels[0], self._grid, self.u_matrix(), self._apart())
        figures.draw_hits(panels[1], self._grid, training.hits)
        figures.draw_components(panels[2:], self._grid, features, self.centres(), self._logged)
        return figure

    def plot_u_matrix(self) -> Figure:
        """Cells in the colour of ``u_matrix``, edges between them in that of the distance across."""
        figure, panels = figures.panels_of(self._grid, 1)
        figures.draw_u_matrix(panels[0], self._grid, self.u_matrix(), self._apart())
        return figure

    def plot_hits(self, hits: np.ndarray | None = None) -> Figure:
        """Rows in each group.

        Args:
            hits: (rows, columns) of the map, as ``som.hits(data)``; None for those of the training.

        Raises:
            ValueError: hits of another shape.
        """
        _, _, training = self._fitted()
        hits = training.hits if hits is None else np.asarray(hits)
        if hits.shape != (self.rows, self.columns):
            raise ValueError(f"hits have the shape {hits.shape}, the map is {(self.rows, self.columns)}")
        figure, panels = figures.panels_of(self._grid, 1)
        figures.draw_hits(panels[0], self._grid, hits)
        return figure

    def plot_errors(self) -> Figure:
        """Errors of the training: of each unit's rows, and how they fell from epoch to epoch."""
        _, _, training = self._fitted()
        figure, panels = figures.panels_of(self._grid, 3)
        figures.draw_errors(panels[:2], self._grid, training)
        figures.draw_history(panels[2], self.history)
        return figure

    def plot_components(self) -> Figure:
        """A panel for each feature: the units' centres in its own units, logarithmic colours for features in ``log``."""
        features, _, _ = self._fitted()
        figure, panels = figures.panels_of(self._grid, len(features))
        figures.draw_components(panels, self._grid, features, self.centres(), self._logged)
        return figure

    def _apart(self) -> np.ndarray:
        """(units, units), distances of the centres, in the units of the quantisation error."""
        centres = self._fitted()[1].astype(np.float64)
        return np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(-1)) * self._error_unit(self._scale)

    def _error_unit(self, scale: np.ndarray) -> float:
        return 1.0 if self.standardise else float(scale[0])

    # --- Steps --------------------------------------------------------------------------------------

    def _start(self, moments: Moments, scale: np.ndarray) -> np.ndarray:
        """Centres on the plane of the first two principal components, one standard deviation of each to either side."""
        inverse = _inverse(scale)
        values, vectors = np.linalg.eigh(moments.scatter / moments.total * np.outer(inverse, inverse))
        axes = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1].T[:2]
        axes = np.concatenate([axes, np.zeros((2 - len(axes), axes.shape[1]))])  # a single feature has one component
        largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
        axes = axes * np.where(largest < 0, -1.0, 1.0)  # the sign of an eigenvector is anyone's
        places = self._grid.places() - self._grid.places().mean(0)
        places = places / np.maximum(np.abs(places).max(0), 1e-9)
        longer_first = places if self.columns >= self.rows else places[:, ::-1]
        noise = np.random.default_rng(self.seed % 2**63).normal(0, _JITTER, (len(places), len(inverse)))
        return (longer_first @ axes + noise).astype(np.float32)

    def _engine(self, mean: np.ndarray, scale: np.ndarray) -> Compiled | Torch:
        from skyset.extraction.som.sums import Compiled, Torch

        if self.device is None:
            return Compiled(mean, _inverse(scale))
        return Torch(mean, _inverse(scale), self.rows * self.columns, self.device)

    def _trained(self, data: Any) -> tuple[Stream, Compiled | Torch]:
        """The data's rows, and what finds their units."""
        features, weights, _ = self._fitted()
        engine = self._engine(self._mean, self._scale)
        engine.set(weights)
        return Stream(data, features, self._logged, self.missing, engine.block), engine

    def _quality(self, stream: Stream, engine: Compiled | Torch, unit: float) -> Quality:
        units, shape = self.rows * self.columns, (self.rows, self.columns)
        near = self._grid.distances() < (1.1 if self.topology == "hexagonal" else 1.5)
        hits, total, far = (np.zeros(units) for _ in range(3))
        for block in stream:
            winner, second, distance = engine.winners(block)
            hits += np.bincount(winner, minlength=units)
            total += np.bincount(winner, distance, units)
            far += np.bincount(winner, ~near[winner, second], units)
        rows = hits.sum() or np.nan
        topographic = far.sum() / rows if units > 1 else np.nan
        each = np.where(hits > 0, hits, np.nan)
        distances, strays = total / each * unit, far / each if units > 1 else far * np.nan
        quantisation, whole = float(total.sum() / rows * unit), hits.astype(np.int64).reshape(shape)
        return Quality(
            whole, quantisation, float(topographic), stream.dropped, distances.reshape(shape), strays.reshape(shape)
        )

    def _progress(self, sigmas: np.ndarray) -> Iterable[float]:
        from skyset.progress import progress_bar

        return progress_bar(sigmas, unit="epoch", desc="map", leave=False, delay=2)

    def _fitted(self) -> tuple[tuple[str, ...], np.ndarray, Quality]:
        """Features, weights and training; UserError where the map has none."""
        if self.features is None or self.weights is None or self.training is None:
            raise UserError("the map is not trained: call fit, or SOM.load")
        return self.features, self.weights, self.training


def _widths(start: float, end: float, epochs: int) -> np.ndarray:
    settling = epochs // 4
    return np.append(np.geomspace(start, end, epochs - settling), np.full(settling, end))


def _root_mean_square(spread: float, centres: np.ndarray, sums: np.ndarray, mass: np.ndarray) -> float:
    """Distance of the rows to their units' centres, from the sums of each unit's and ``spread``, that of all squares."""
    weights = centres.astype(np.float64)
    squares = spread - 2 * (weights * sums).sum() + (mass * (weights**2).sum(1)).sum()
    return float(np.sqrt(max(squares, 0.0) / mass.sum()))


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


def _scaling(moments: Moments, names: tuple[str, ...], standardise: bool) -> tuple[np.ndarray, np.ndarray]:
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


def _npz(file: BinaryIO) -> BinaryIO:
    """The file, if it is a ZIP archive: of another, numpy would say that it may hold pickled data, and how to load it."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no whole .npz file")
    file.seek(0)
    return file
