"""What is above the threshold: found, deblended, cleaned, with its isophotal numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skyset.extraction import isophotes
from skyset.extraction import segments
from skyset.extraction.field import Field
from skyset.extraction.settings import Settings


@dataclass(frozen=True, eq=False)
class Sources:
    """The sources: their isophotal numbers (rows as `isophotes.NAMES`), and a segmentation map where one is needed."""

    numbers: np.ndarray
    segmentation: np.ndarray | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.numbers[:, isophotes.INDEX[name]]

    def shape(self) -> np.ndarray:
        return np.ascontiguousarray(self.numbers[:, [isophotes.INDEX[name] for name in ("cxx", "cyy", "cxy")]])


def find_sources(field: Field, settings: Settings, paint: bool) -> Sources:
    shape = field.image.shape
    if not field.threshold > 0:
        return Sources(np.zeros((0, len(isophotes.NAMES))), np.zeros(shape, np.int32) if paint else None)
    threshold = np.float32(field.threshold)
    found = segments.find(field.image, field.kernel, threshold, field.scale, settings.minarea, settings.maxarea)
    x, y, value, starts, centre = segments.deblend(
        *found, threshold, field.scale, settings.deblend_nthresh, settings.deblend_cont, settings.minarea
    )
    del found
    numbers = isophotes.measure(
        x, y, value, starts, centre, field.image, field.scale, field.noise, field.bad, field.threshold, field.analysis,
        field.sigma, float(settings.gain), settings.minarea,
    )  # fmt: skip
    into = np.arange(len(numbers))
    if settings.clean is not None and len(numbers) > 1:
        seen = Sources(numbers)
        ellipse = np.stack([seen[name] for name in ("a", "b", "cxx", "cyy", "cxy")], 1)
        # The isophote of the detection, whatever the analysis looks at.
        base = seen["threshold"] * (settings.threshold / settings.analysis)
        into = segments.clean(
            seen["x"].copy(), seen["y"].copy(), ellipse, seen["area_detected"].copy(), seen["flux_filtered"].copy(),
            seen["faint"].copy(), base, float(settings.clean),
        )  # fmt: skip
        isophotes.merge(numbers, into)
    # An object of which no pixel is above the analysis threshold is none.
    kept = np.flatnonzero((into == np.arange(len(into))) & (numbers[:, isophotes.INDEX["area"]] > 0))
    number = np.full(len(into), -1)
    number[kept] = np.arange(len(kept))
    return Sources(np.ascontiguousarray(numbers[kept]), segments.paint(x, y, starts, number[into], shape) if paint else None)
