"""Sources of an image, with SExtractor's quantities under its names: `extract` and `measure`.

    from skyset.extraction.detect import extract
    sources = extract(image, threshold=2.5, gain=1.6, pixel_scale=0.187, zero_point=26.0, seeing=0.7)

Bertin & Arnouts 1996 (A&AS 117, 393) and the SExtractor manual (https://sextractor.readthedocs.io) define what is measured.
``field`` makes the pixels ready, an engine finds what is in them and sums its light (`engines`: our own compiled kernels, or
the package sep), ``quantities`` works out the columns. ``mosaic`` does whole files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyset.errors import UserError
from skyset.extraction import columns as names
from skyset.extraction.columns import CHECKS
from skyset.extraction.engines import default_columns, load_engine, refuse
from skyset.extraction.field import Field, bad_weights, in_shape, usable_pixels
from skyset.extraction.quantities import Quantities, network
from skyset.extraction.settings import Settings
from skyset.extraction.tables import as_arrow, as_table

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import QTable
    from astropy.wcs import WCS

    from skyset.extraction.engines import Engine
    from skyset.extraction.field import Background


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in one image.

    ``columns``: by name, arrays with a row a source, dtypes and units as ``columns.COLUMNS`` has them. ``background``,
    ``rms``: medians over the image, counts; ``threshold``, ``analysis_threshold``: counts above the background; ``shape``:
    of the image; ``check``: the check images asked for, by type, float32 (SEGMENTATION int32: 0, or NUMBER); ``seeing``: of
    the settings, or measured from the stars, arcsec, where CLASS_STAR was wanted; NaN where there were none; ``engine``:
    what found and measured them, with its version.
    """

    columns: dict[str, np.ndarray]
    background: float
    rms: float
    threshold: float
    analysis_threshold: float
    shape: tuple[int, int]
    check: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seeing: float = 0.0
    engine: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def extract(
    image: np.ndarray,
    *,
    settings: Settings | None = None,
    columns: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    flag_image: np.ndarray | None = None,
    wcs: WCS | None = None,
    classifier: str | Path | None = None,
    engine: str | None = None,
    output: str = "astropy",
    **changes: Any,
) -> QTable | pa.Table:
    """Find the sources of an image and measure them.

    Args:
        image: (rows, columns), counts; any real dtype and byte order; NaN, infinite and masked pixels are not used.
        settings: how; ``changes`` are fields of `Settings` that differ from it: ``threshold=3, minarea=5, kernel=weights,
            deblend_nthresh=32, deblend_cont=0.005, back_size=64, back_filter=3, gain=1.6, pixel_scale=0.168,
            zero_point=27.0, seeing=0.6, saturation=60000`` and so on. Without ``pixel_scale`` it is that of the WCS.
        columns: SExtractor's names (`columns.COLUMNS` lists them); default: of `columns.DEFAULT`, with a WCS the position
            too, what the engine measures. What is not asked for is not computed: without FLUX_AUTO and the like the time
            halves.
        mask: bool (rows, columns), True where a pixel is bad.
        weight: (rows, columns), as ``weight_type`` says: relative inverse variances, variances or rms.
        flag_image: integers (rows, columns) for IMAFLAGS_ISO.
        wcs: for ALPHA_J2000 and other world coordinates; 0-based pixels, as astropy has them.
        classifier: a user's ``default.nnw`` for CLASS_STAR; None: our own network.
        engine: ``"compiled"``, our own kernels, which need numba, or ``"sep"``, the package sep; None: compiled where
            numba is installed, else sep. docs/extraction_engines.md compares them.
        output: ``"astropy"`` for a QTable with units, ``"arrow"`` for a pyarrow.Table with them in the fields' metadata.

    Returns:
        One row a source, in the order in which a scan from the first row meets them; positions as FITS counts: the first
        pixel's centre is (1, 1). Background, rms, thresholds and engine are in the table's ``meta`` (schema metadata).

    Raises:
        ValueError: the image is not two-dimensional or not of numbers, mask or weight has another shape, a setting cannot
            be meant.
        UserError: a column is not known, or needs something that was not given (a WCS, a flag image); the engine is not
            installed, or cannot measure a column or honour a setting: all of these are named.

    An image without usable pixels, or without noise, has no sources, and a warning says so. CLASS_STAR needs ``seeing`` (a
    number, or ``"auto"``) and ``pixel_scale`` or a WCS: without them 1.2 and 1 arcsec are taken, with a `NotGivenWarning`.
    """
    if output not in ("astropy", "arrow"):
        raise ValueError(f"output is {output!r}: it is 'astropy' or 'arrow'")
    how = dataclasses.replace(settings, **changes) if settings is not None else Settings(**changes)
    wanted = names.check(columns if columns is not None else default_columns(load_engine(engine), wcs is not None))
    found = measure(
        image, how, wanted, mask=mask, weight=weight, flag_image=flag_image, wcs=wcs, classifier=classifier, engine=engine
    )
    table = as_table(found.columns, wanted)
    table.meta |= {key: getattr(found, key) for key in ("background", "rms", "threshold", "analysis_threshold", "engine")}
    return table if output == "astropy" else as_arrow(table)


def measure(
    image: np.ndarray,
    settings: Settings,
    columns: Sequence[str],
    *,
    mask: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    flag_image: np.ndarray | None = None,
    wcs: WCS | None = None,
    classifier: str | Path | None = None,
    check: Sequence[str] = (),
    engine: str | None = None,
    overwrite: bool = False,
) -> Measured:
    """As `extract`, without the table: for many small images, or where check images are wanted too (see `CHECKS`).

    overwrite: a float32 image in native order is used up, which saves a copy.
    """
    wanted = _wanted(columns, wcs, flag_image)
    if unknown := [kind for kind in check if kind not in CHECKS]:
        raise ValueError(f"check images are {', '.join(CHECKS)}; not {', '.join(unknown)}")
    chosen = load_engine(engine)
    refuse(chosen, wanted, check, settings, weighted=weight is not None)
    pixels, bad, own = usable_pixels(image, mask)
    del image
    weight = in_shape(weight, pixels.shape, "weight")
    flag_image = in_shape(flag_image, pixels.shape, "flag image")
    if weight is not None:
        bad = bad_weights(weight, settings, bad)
    background = chosen.measure_background(pixels, settings, bad)
    field = Field.make(pixels, bad, own or overwrite, background, weight, settings)
    del pixels
    seen = chosen.find_sources(field, settings, paint=bool(check) or _needs_map(wanted, classifier))
    values = Quantities(chosen.Light(field, seen, settings), seen, field, settings, background, wanted, wcs)
    if flag_image is not None:
        values.flag_image = flag_image
    if classifier is not None:
        values.network = network(Path(classifier))
    table = {name: np.asarray(values[name], names.COLUMNS[name].dtype) for name in wanted}
    made = {kind: _check_image(kind, chosen, background, values) for kind in check}
    levels = background.level, background.rms, field.threshold, field.analysis
    return Measured(table, *levels, field.image.shape, made, values.seeing, chosen.TITLE)


def _needs_map(wanted: Sequence[str], classifier: str | Path | None) -> bool:
    """Isophotes, and SExtractor's classifier, know their pixels; all else has to tell them from the neighbours'."""
    known = {"isophote"} if classifier is None else {"isophote", "classifier"}
    return any(
        names.COLUMNS[name].stage not in known and not (names.COLUMNS[name].stage == "world" and "WIN" not in name)
        for name in wanted
    )


def _wanted(columns: Sequence[str], wcs: WCS | None, flag_image: np.ndarray | None) -> list[str]:
    """The names of the columns, checked against what was given."""
    wanted = names.check(columns)
    for stage, given, need in (("world", wcs, "a WCS (wcs=)"), ("external", flag_image, "a flag image (flag_image=)")):
        asked = [name for name in wanted if names.COLUMNS[name].stage == stage]
        if asked and given is None:
            raise UserError(f"{', '.join(asked)}: needs {need}, and there is none")
        if asked and stage == "world" and wcs is not None and not (wcs.naxis == 2 and wcs.has_celestial):
            kinds = ", ".join(str(kind) or "(none)" for kind in wcs.wcs.ctype)
            raise UserError(
                f"{', '.join(asked)}: needs a celestial WCS with two axes, and wcs= has {wcs.naxis} ({kinds})"
                + "; wcs.celestial has those of the sky" * wcs.has_celestial
            )
    return wanted


def _check_image(kind: str, engine: Engine, background: Background, values: Quantities) -> np.ndarray:
    """A check image by SExtractor's name."""
    field, segmentation = values.field, values.seen.segmentation
    assert segmentation is not None  # it is painted where there are check images
    if kind == "SEGMENTATION":
        return segmentation
    if kind == "MINIBACKGROUND":
        return (background.measured or background).mesh.astype(np.float32)
    if kind == "MINIBACK_RMS":
        return background.rms_mesh.astype(np.float32)
    if kind == "BACKGROUND":
        return background.map()
    if kind == "BACKGROUND_RMS":
        return background.rms_map()
    if kind == "FILTERED":
        return engine.filtered(field)
    if kind == "OBJECTS":
        return np.where(segmentation > 0, field.image, np.float32(0))
    if kind == "-OBJECTS":
        return np.where(segmentation > 0, np.float32(0), field.image)
    if kind == "APERTURES":
        return _draw_apertures(field.image + background.map(), values)
    return field.image


def _draw_apertures(image: np.ndarray, values: Quantities) -> np.ndarray:
    """The image with the Kron ellipses drawn on it, as bright as its brightest percent."""
    rows, columns = image.shape
    level = np.nanpercentile(image, 99.9) if image.size else 0
    angle = np.radians(np.arange(0, 360, 0.5))
    kron = values["KRON_RADIUS"]
    a, b, theta = (values.seen[name][:, None] for name in ("a", "b", "theta"))
    along, across = kron[:, None] * a * np.cos(angle), kron[:, None] * b * np.sin(angle)
    x = np.rint(values.x[:, None] + along * np.cos(theta) - across * np.sin(theta)).astype(np.int64)
    y = np.rint(values.y[:, None] + along * np.sin(theta) + across * np.cos(theta)).astype(np.int64)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    image[y[inside], x[inside]] = level
    return image
