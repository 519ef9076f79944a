"""The engine ``compiled``: every quantity, by kernels compiled with numba (`background`, `segments`, `isophotes`,
`apertures`)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from skyset.extraction import apertures, isophotes, segments
from skyset.extraction.background import measure_background as measure_background
from skyset.extraction.columns import CHECKS, COLUMNS
from skyset.extraction.field import Field
from skyset.extraction.settings import Settings
from skyset.versions import __version__

TITLE = f"compiled (skyset {__version__})"
MEASURED, MADE = frozenset(COLUMNS), CHECKS


def refused(settings: Settings, weighted: bool) -> Iterable[str]:
    """What of the settings cannot be honoured: nothing."""
    return ()


class Seen:
    """The sources: isophotal numbers, float64 (n, len(isophotes.NAMES)), and a segmentation map where one is needed."""

    def __init__(self, numbers: np.ndarray, segmentation: np.ndarray | None = None) -> None:
        self.numbers, self.segmentation = numbers, segmentation

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.numbers[:, isophotes.INDEX[name]]


def find_sources(field: Field, settings: Settings, paint: bool) -> Seen:
    """The sources of a field; with a map of their pixels where ``paint``."""
    shape = field.image.shape
    if not field.threshold > 0:
        return Seen(np.zeros((0, len(isophotes.NAMES))), np.zeros(shape, np.int32) if paint else None)
    threshold = np.float32(field.threshold)
    found = segments.find(field.image, field.kernel, threshold, field.scale, settings.minarea, settings.maxarea)
    x, y, value, starts, centre = segments.deblend(
        *found, threshold, field.scale, settings.deblend_nthresh, settings.deblend_cont, settings.minarea
    )
    del found
    numbers = isophotes.measure(
        x,
        y,
        value,
        starts,
        centre,
        field.image,
        field.scale,
        field.noise,
        field.bad,
        field.threshold,
        field.analysis,
        field.sigma,
        float(settings.gain),
        settings.minarea,
    )
    into = np.arange(len(numbers))
    if settings.clean is not None and len(numbers) > 1:
        seen = Seen(numbers)
        ellipse = np.stack([seen[name] for name in ("a", "b", "cxx", "cyy", "cxy")], 1)
        # The isophote of the detection, whatever the analysis looks at.
        base = seen["threshold"] * (settings.threshold / settings.analysis)
        into = segments.clean(
            seen["x"].copy(),
            seen["y"].copy(),
            ellipse,
            seen["area_detected"].copy(),
            seen["flux_filtered"].copy(),
            seen["faint"].copy(),
            base,
            float(settings.clean),
        )
        isophotes.merge(numbers, into)
    # An object of which no pixel is above the analysis threshold is none.
    kept = np.flatnonzero((into == np.arange(len(into))) & (numbers[:, isophotes.INDEX["area"]] > 0))
    number = np.full(len(into), -1)
    number[kept] = np.arange(len(kept))
    return Seen(np.ascontiguousarray(numbers[kept]), segments.paint(x, y, starts, number[into], shape) if paint else None)


def filtered(field: Field) -> np.ndarray:
    """The image as the detection sees it, float32."""
    return segments.filtered(field.image, field.kernel) if field.kernel.size else field.image


class Light:
    """The light about each source: what `apertures` sums."""

    def __init__(self, field: Field, seen: Seen, settings: Settings) -> None:
        self.seen, self.x, self.y = seen, seen["x"].copy(), seen["y"].copy()
        mask_type = apertures.MASKS[settings.mask_type]
        self.field = field.image, seen.segmentation, field.bad, field.noise, field.sigma, float(settings.gain), mask_type

    def _several(self, *names: str) -> np.ndarray:
        return np.ascontiguousarray(self.seen.numbers[:, [isophotes.INDEX[name] for name in names]])

    def ellipses(self, factor: float, least: float, smallest: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `apertures.ellipses`."""
        return apertures.ellipses(self.field, self.x, self.y, self._several("cxx", "cyy", "cxy"), factor, least, smallest)

    def petrosian(self, factor: float, least: float, with_flux: bool) -> tuple[np.ndarray, ...]:
        """See `apertures.petrosian`."""
        return apertures.petrosian(self.field, self.x, self.y, self._several("cxx", "cyy", "cxy"), factor, least, with_flux)

    def circles(self, diameters: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `apertures.circles`."""
        return apertures.circles(self.field, self.x, self.y, diameters)

    def radii(self, flux: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `apertures.radii`."""
        return apertures.radii(self.field, self.x, self.y, self.seen["a"].copy(), flux, fractions)

    def windowed(self, half_light: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """`apertures.windowed`: its numbers and FLAGS_WIN (``flags``) by name, and FLAGS."""
        isophotal = self._several("x2", "y2", "xy", "errx2", "erry2", "errxy")
        moments, flags, incomplete = apertures.windowed(self.field, self.x, self.y, half_light, isophotal)
        names = ("x", "y", "x2", "y2", "xy", "errx2", "erry2", "errxy", "flux", "fluxvar")
        return {**dict(zip(names, moments.T, strict=True)), "flags": flags}, incomplete

    def vignets(self, width: int, height: int) -> np.ndarray:
        """See `segments.cut`."""
        image, segmentation, *_ = self.field
        return segments.cut(image, segmentation, self.x, self.y, width, height)
