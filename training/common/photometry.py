"""Magnitudes and their errors from a table, and what a network is given of them.

A magnitude is a number, +inf (looked for and not detected: its flux is 0; tables say 99), or NaN (not observed, or not
known; tables say -99, NaN or nothing): missing ones are inputs, not rejects. In fluxes errors are normal.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from skyset.errors import UserError
from skyset.tables.catalog import Catalog, require
from skyset.tables.open import open_catalog

#: Beyond these a magnitude is none: BPZ's and RAIL's 99 and -99, and what others write.
FAINTEST, BRIGHTEST = 50.0, -50.0
#: Magnitude of the unit of flux, and magnitudes of a factor e of flux.
ZERO, POGSON = 25.0, 2.5 / math.log(10)
#: Smallest spread of a principal component that is brought to 1: what is smaller is no more than rounding.
LEAST_SPREAD = 0.02
#: Bands in the order of their wavelengths, by the names surveys give them.
ORDER = ("fuv", "nuv", "u", "b", "g", "v", "r", "i", "z", "y", "j", "h", "k", "ks", "w1", "w2")
#: How columns of redshifts are named, the likeliest first.
REDSHIFTS = ("redshift", "specz_redshift", "z_spec", "zspec", "specz", "z_true", "true_redshift")
#: A column of a magnitude, with its band: mag_g_lsst, g_cmodel_mag, MAG_AUTO_G, petroMag_r, g_mag, mag_g.
_BAND = "|".join(ORDER)
_MAGNITUDE = re.compile(rf"[a-z]*mag_(?:[a-z]+_)??(?P<after>{_BAND})(?:_[a-z]+)?|(?P<before>{_BAND})_(?:[a-z]+_)?mag")
_ERROR = re.compile("err|sigma")


@dataclass
class TableArguments:
    """A table of magnitudes instead of images."""

    table: str | None = field(
        default=None,
        metadata={
            "help": "Train on a table of magnitudes and redshifts: HDF5 (RAIL's), FITS, Parquet, CSV, VOTable, SQLite."
        },
    )
    eval_table: str | None = field(
        default=None, metadata={"help": "Table to measure on, once; default: a tenth of --table, which is not trained on."}
    )
    magnitudes: str | None = field(
        default=None,
        metadata={"help": "Columns of magnitudes, {} for the band: mag_{}_lsst. By default found by their usual names."},
    )
    magnitude_errors: str | None = field(
        default=None,
        metadata={"help": "Columns of their errors: mag_err_{}_lsst. By default found; 'none' where there are none."},
    )
    bands: str | None = field(
        default=None, metadata={"help": "From blue to red, with commas: u,g,r,i,z,y. By default found."}
    )
    redshift: str | None = field(default=None, metadata={"help": "Column of the redshifts; by default found."})
    model: str = field(default="mdn", metadata={"help": "An ensemble of mixture density networks.", "choices": ["mdn"]})
    point: str | None = field(
        default=None,
        metadata={
            "help": "The redshift that p(z) becomes: best (few outliers, small scatter), median, mode. Default best.",
            "choices": ["best", "median", "mode"],
        },
    )


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are used.

    Args:
        bands: from blue to red.
        magnitudes: a column each.
        errors: likewise, or none.
        redshift: the column, or None where it is not needed.
    """

    bands: tuple[str, ...]
    magnitudes: tuple[str, ...]
    errors: tuple[str, ...]
    redshift: str | None


def find_columns(names: Sequence[str], asked: TableArguments, where: str, redshift: bool = True) -> Columns:
    """The columns asked for, or found by their usual names.

    Args:
        names: of the table's columns.
        asked: by the user.
        where: is the table, for messages.
        redshift: whether one is needed.

    Raises:
        UserError: a column that is not there, or which ones are magnitudes cannot be told.
    """
    if asked.magnitudes:
        found = _by_pattern(names, asked, where)
    else:
        found = _by_usual_names(names, where)
        if asked.bands:
            wanted = _split(asked.bands)
            found = {band: found[require(list(found), band, f"{where}: among its magnitudes,")] for band in wanted}
    errors = tuple(_error_of(names, band, column, asked, where) for band, column in found.items())
    missing = [band for band, error in zip(found, errors, strict=True) if not error]
    if missing and len(missing) < len(errors):
        raise UserError(f"{where}: no errors of the magnitudes in {', '.join(missing)}: name them with --magnitude_errors")
    column = _redshift(names, asked.redshift, where) if redshift else None
    return Columns(tuple(found), tuple(found.values()), () if missing else errors, column)


def _by_pattern(names: Sequence[str], asked: TableArguments, where: str) -> dict[str, str]:
    if "{}" not in asked.magnitudes or not asked.bands:
        raise UserError("--magnitudes is a name with {} for the band, and --bands says which: --bands u,g,r,i,z,y")
    return {band: require(names, asked.magnitudes.replace("{}", band), where) for band in _split(asked.bands)}


def _split(text: str) -> list[str]:
    bands = [band.strip() for band in text.split(",") if band.strip()]
    if not bands or len(set(bands)) < len(bands):
        raise UserError(f"--bands {text}: name each band once, with commas between: u,g,r,i,z,y")
    return bands


def _by_usual_names(names: Sequence[str], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        if (match := _MAGNITUDE.fullmatch(name.lower())) and not _ERROR.search(name.lower()):
            band = match["before"] or match["after"]
            if band in found:
                raise UserError(f"{where}: {found[band]} and {name} are both magnitudes in {band}: choose with --magnitudes")
            found[band] = name
    if not found:
        raise UserError(f"{where}: no columns are named as magnitudes are: give --magnitudes 'mag_{{}}' --bands g,r,i")
    return {band: found[band] for band in sorted(found, key=ORDER.index)}


def _error_of(names: Sequence[str], band: str, column: str, asked: TableArguments, where: str) -> str:
    """The column of a magnitude's error, empty where there is none."""
    if asked.magnitude_errors == "none":
        return ""
    if asked.magnitude_errors:
        if "{}" not in asked.magnitude_errors:
            raise UserError("--magnitude_errors is a name with {} for the band: mag_err_{}_lsst")
        return require(names, asked.magnitude_errors.replace("{}", band), where)
    usual = [f"{column}{end}" for end in ("_err", "err", "sigma", "_sigma", "_error", "error")]
    usual += [re.sub("mag", middle, column, count=1, flags=re.I) for middle in ("mag_err", "magerr", "mag_error", "err_mag")]
    usual += [f"{start}{column}" for start in ("e_", "err_")]
    known = {name.lower(): name for name in names if name != column}
    return next((known[each.lower()] for each in usual if each.lower() in known), "")


def _redshift(names: Sequence[str], asked: str | None, where: str) -> str:
    if asked:
        return require(names, asked, where)
    known = {name.lower(): name for name in names}
    found = next((known[name] for name in REDSHIFTS if name in known), None)
    if found is None:
        raise UserError(f"{where}: no column is named as redshifts are ({', '.join(REDSHIFTS)}): give --redshift NAME")
    return found


@dataclass(frozen=True)
class Photometry:
    """Rows of a table.

    Args:
        columns: they are from.
        magnitudes: float32 (rows, bands): +inf not detected, NaN not observed.
        errors: float32 (rows, bands), of the magnitudes; NaN where there is none.
        redshifts: float64 (rows,); NaN where none is known.
        digest: 12 digits of a SHA-256 over these values.
    """

    columns: Columns
    magnitudes: np.ndarray
    errors: np.ndarray
    redshifts: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.magnitudes)

    def rows(self, which: np.ndarray) -> Photometry:
        """Some of the rows, by number or by mask; the digest is that of the whole."""
        return Photometry(self.columns, self.magnitudes[which], self.errors[which], self.redshifts[which], self.digest)


def read_photometry(path: str, asked: TableArguments, like: Columns | None = None, redshift: bool = True) -> Photometry:
    """Magnitudes, errors and redshifts of all rows of a table.

    Args:
        path: what `skyset.tables.open` opens.
        asked: columns.
        like: columns of the table that was trained on, which this one must have too.
        redshift: whether redshifts are needed.

    Raises:
        UserError: no such file or column, no rows, or a column that is not numeric.
    """
    names = open_catalog(path).schema.names
    columns = like or find_columns(names, asked, path, redshift)
    wanted = [*columns.magnitudes, *columns.errors, *([columns.redshift] if columns.redshift and redshift else [])]
    catalog = open_catalog(path, [require(names, name, path) for name in wanted])
    values = _numbers(catalog, wanted)
    count = len(columns.bands)
    magnitudes = values[:, :count]
    magnitudes = np.where(magnitudes >= FAINTEST, np.inf, np.where(magnitudes <= BRIGHTEST, np.nan, magnitudes))
    errors = values[:, count : 2 * count] if columns.errors else np.full(magnitudes.shape, np.nan)
    errors = np.where((errors > 0) & (errors < FAINTEST) & np.isfinite(magnitudes), errors, np.nan)
    redshifts = values[:, -1] if redshift and columns.redshift else np.full(len(values), np.nan)
    redshifts = np.where(np.isfinite(redshifts) & (redshifts > -1), redshifts, np.nan)
    arrays = magnitudes.astype(np.float32), errors.astype(np.float32), redshifts
    digest = hashlib.sha256(repr((columns.bands, [array.shape for array in arrays])).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return Photometry(columns, *arrays, digest.hexdigest()[:12])


def _numbers(catalog: Catalog, names: Sequence[str]) -> np.ndarray:
    """Columns as float64 (rows, columns), NaN for null."""
    for name in names:
        kind = catalog.schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise UserError(f"{catalog.path}: column {name} is {kind}, not numbers")
    if not catalog.rows:
        raise UserError(f"{catalog.path}: has no rows")
    values = np.empty((catalog.rows, len(names)))
    first = 0
    for batch in catalog.batches():
        for number, name in enumerate(names):
            column = pc.fill_null(pc.cast(batch[name], pa.float64()), math.nan)
            values[first : first + batch.num_rows, number] = column.to_numpy(zero_copy_only=False)
        first += batch.num_rows
    return values


# --- For a network --------------------------------------------------------------------------------


def flux_of(magnitudes: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Fluxes of magnitude ``ZERO`` as 1, and their errors, NaN where there is none; a missing magnitude's flux is 0."""
    flux = torch.where(magnitudes.isnan(), 0.0, torch.exp((ZERO - magnitudes) / POGSON))
    return flux, flux * errors / POGSON


def scaling_of(photometry: Photometry) -> dict[str, list]:
    """What ``features`` needs to know of a survey, from its training rows: saved in the model's configuration.

    Returns:
        By name, a number a band: ``softening`` (flux where an asinh magnitude turns linear: the median error) and
        ``faint_error`` (flux error where none is given: that of the faintest twentieth); ``mean``, ``std`` of magnitudes and
        colours; ``axes``, principal components of the magnitudes, (bands, bands).

    Raises:
        UserError: a band without a single magnitude.
    """
    flux, error = (values.numpy() for values in flux_of(*map(torch.from_numpy, (photometry.magnitudes, photometry.errors))))
    softening, faint = [], []
    for number, band in enumerate(photometry.columns.bands):
        seen = np.isfinite(photometry.magnitudes[:, number])
        if not seen.any():
            raise UserError(f"no row has a magnitude in {band}: leave it out with --bands")
        limit = np.quantile(flux[seen, number], 0.05)
        known = error[:, number][np.isfinite(error[:, number])]
        faintest = error[(flux[:, number] <= limit) & np.isfinite(error[:, number]), number]
        softening.append(float(np.median(known)) if len(known) else float(limit / 5))
        faint.append(float(np.median(faintest)) if len(faintest) else 0.0)
    scaling = {"softening": softening, "faint_error": faint}
    asinh, observed = _asinh(torch.from_numpy(flux), torch.from_numpy(photometry.magnitudes), torch.tensor(softening))
    values = torch.cat([asinh, asinh[:, :-1] - asinh[:, 1:]], 1).double()
    use = torch.cat([observed, observed[:, :-1] & observed[:, 1:]], 1)
    count = use.sum(0).clamp(min=1)
    mean = torch.where(use, values, 0).sum(0) / count
    std = (torch.where(use, values - mean, 0).square().sum(0) / count).sqrt().clamp(min=1e-3)
    scaled = torch.where(use, (values - mean) / std, 0.0)[:, : len(softening)]
    return scaling | {"mean": mean.tolist(), "std": std.tolist(), "axes": _axes(scaled).tolist()}


def _axes(scaled: Tensor) -> Tensor:
    """Principal components of scaled magnitudes, as a matrix that gives each a spread of 1: float64 (bands, bands)."""
    _, lengths, axes = torch.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
    axes = axes[: len(lengths)]
    spreads = (lengths / math.sqrt(len(scaled))).clamp(min=LEAST_SPREAD)
    missing = torch.zeros(axes.shape[1], axes.shape[1] - len(axes), dtype=axes.dtype)  # fewer rows than bands
    return torch.cat([axes.T / spreads, missing], 1)


def _asinh(flux: Tensor, magnitudes: Tensor, softening: Tensor) -> tuple[Tensor, Tensor]:
    """Asinh magnitudes (Lupton et al. 1999, AJ 118, 1406), and where the band was observed."""
    return ZERO - POGSON * (torch.asinh(flux / (2 * softening)) + torch.log(softening)), ~magnitudes.isnan()


@dataclass(frozen=True)
class Scaling:
    """A survey's numbers as tensors; see ``scaling_of``."""

    softening: Tensor
    faint_error: Tensor
    mean: Tensor
    std: Tensor
    axes: Tensor

    def features(
        self, magnitudes: Tensor, errors: Tensor, noise: float | Tensor = 0.0, draws: Tensor | None = None
    ) -> Tensor:
        """Standardised asinh magnitudes, colours of neighbouring bands, which bands were not observed, and the magnitudes'
        principal components, by which small differences of colours are seen.

        Args:
            magnitudes, errors: (rows, bands).
            noise: how many errors the fluxes are moved by normal ``draws``, to be other measurements of the same galaxies.
            draws: (..., rows, bands), or None.

        Returns:
            float32 (..., rows, 4 * bands - 1): 0 where a band was not observed.
        """
        flux, error = flux_of(magnitudes, errors)
        if draws is not None:
            error = torch.where(error.isnan(), torch.where(magnitudes.isnan(), 0.0, self.faint_error), error)
            flux = flux + noise * error * draws
        asinh, observed = _asinh(flux, magnitudes, self.softening)
        values = torch.cat([asinh, asinh[..., :-1] - asinh[..., 1:]], -1)
        use = torch.cat([observed, observed[..., :-1] & observed[..., 1:]], -1)
        scaled = torch.where(use, (values - self.mean) / self.std, 0.0)
        unseen = (~observed).float().expand(*scaled.shape[:-1], -1)
        return torch.cat([scaled, unseen, scaled[..., : len(self.axes)] @ self.axes], -1)
