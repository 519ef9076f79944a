"""The background of an image: its mode in each mesh of a grid, and a bicubic spline through the meshes.

Source: Bertin & Arnouts 1996 (A&AS 117, 393), section 2; SExtractor manual, chapter "Modeling the background". The
histogram of a mesh is clipped at 3 sigma until it does not change; the mode is 2.5 median - 1.5 mean, or the median where
the two are far apart (a crowded mesh). The grid is median-filtered, then interpolated.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skyset.extraction.compiled import jit
from skyset.extraction.definitions import UNUSABLE
from skyset.extraction.settings import Settings

#: Pixels of a mesh that must be usable for it to count, as a share.
LEAST_SHARE = 0.5
_UNUSABLE = np.float32(UNUSABLE)
#: Pixels from this value on are none, in units of the scatter: squares must fit.
FAR = np.float32(1e15)
#: Values that are summed in single precision.
PART = 256
#: A histogram bin holds this many pixels of a Gaussian's core, over so many sigma each side, in at most so many bins.
BIN_PIXELS, HALF_WIDTH, MOST_BINS = 4, 5.0, 4096


@dataclass(frozen=True, eq=False)
class Background:
    """A grid of background levels and noises.

    ``mesh`` and ``rms_mesh``: float64 (rows, columns of meshes), counts, filtered. ``level`` and ``rms``: their medians.
    ``shape``: of the image (rows, columns); ``size``: of a mesh (width, height) in pixels. ``measured``: what the image has
    where another level was given (BACK_TYPE MANUAL), None where ``mesh`` is that.
    """

    mesh: np.ndarray
    rms_mesh: np.ndarray
    level: float
    rms: float
    shape: tuple[int, int]
    size: tuple[int, int]
    measured: Background | None = None

    @cached_property
    def _spline(self) -> np.ndarray:
        return spline(self.mesh)

    def subtract(self, image: np.ndarray, out: np.ndarray) -> None:
        """``image`` (any real dtype in native order) less the background into ``out``, float32; not finite pixels: 0."""
        _subtract(image, out, self._spline, *self.size)

    def map(self) -> np.ndarray:
        """The background of every pixel, float32 (rows, columns), counts."""
        return _evaluate(self._spline, *self.size, *self.shape)

    def rms_map(self) -> np.ndarray:
        """The noise of every pixel, float32 (rows, columns), counts."""
        return _evaluate(spline(self.rms_mesh), *self.size, *self.shape)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The background of some pixels by their 0-based whole coordinates, float32 (n,)."""
        return _at(self._spline, *self.size, np.asarray(x, np.int64), np.asarray(y, np.int64))


def measure_background(image: np.ndarray, settings: Settings, bad: np.ndarray | None = None) -> Background:
    """The background of an image (rows, columns); pixels that are not finite, or ``bad``, are not used.

    An image without usable pixels has level and rms NaN; a constant one has rms 0.
    """
    rows, columns = image.shape
    width, height = (min(size, side) for size, side in zip(settings.back_size, (columns, rows), strict=True))
    mesh, rms = _statistics(image, bad, width, height)
    if not np.isfinite(rms).any():
        empty = np.full(mesh.shape, np.nan)
        return Background(empty, empty, np.nan, np.nan, image.shape, (width, height))
    mesh, rms = _fill(mesh, rms)
    half_x, half_y = (size // 2 for size in settings.back_filter)
    mesh, rms = _filter(mesh, rms, half_x, half_y, settings.back_filter_threshold)
    positive = rms[rms > 0]
    found = Background(
        mesh, rms, float(np.median(mesh)), float(np.median(positive)) if len(positive) else 0.0, image.shape, (width, height)
    )
    if settings.back_value is None:
        return found
    level = float(settings.back_value)
    return dataclasses.replace(found, mesh=np.full(mesh.shape, level), level=level, measured=found)


def _statistics(image: np.ndarray, bad: np.ndarray | None, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Mode and noise of each mesh; where none has enough usable pixels, of all pixels together."""
    unit = _unit(image)
    bad = np.zeros((0, 0), np.bool_) if bad is None else bad
    mode, noise = _mesh_statistics(image, bad, width, height, np.float32(unit), LEAST_SHARE)
    if not np.isfinite(noise).any():
        rows, columns = image.shape
        mode[:], noise[:] = _mesh_statistics(image, bad, columns, rows, np.float32(unit), 0.0)
    return unit * mode, unit * noise


def _unit(image: np.ndarray) -> float:
    """A power of two near the scatter of the pixels: in such units their squares fit single precision, whatever theirs."""
    some = image[:: max(1, -(-image.shape[0] // 64)), :: max(1, -(-image.shape[1] // 64))].astype(np.float64)
    some = some[np.abs(some) < UNUSABLE]
    scatter = np.median(np.abs(some - np.median(some))) if len(some) else 0.0
    if not scatter > 0 and len(some):
        scatter = max(some.std(), 1e-7 * np.abs(some).max())
    return float(2.0 ** np.clip(np.round(np.log2(scatter)), -120, 120)) if scatter > 0 else 1.0


def _fill(mesh: np.ndarray, rms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meshes without a value take the mean of the nearest ones that have one."""
    if np.isfinite(rms).all():
        return mesh, rms
    return _fill_from_near(mesh, rms)


@jit
def _fill_from_near(mesh, rms):
    """Rings about a missing mesh are looked at until one is met, and as far as a nearer one could still lie."""
    rows, columns = mesh.shape
    out, noise = mesh.copy(), rms.copy()
    for j in range(rows):
        start = 1
        for i in range(columns):
            if np.isfinite(rms[j, i]):
                start = 1
                continue
            best, level, spread, count, ring = np.inf, 0.0, 0.0, 0, start
            while ring <= max(rows, columns) and ring * ring <= best:
                for y in range(j - ring, j + ring + 1):
                    if y < 0 or y >= rows:
                        continue
                    # Whole rows above and below, else only the two ends.
                    step = 1 if abs(y - j) == ring else 2 * ring
                    for x in range(i - ring, i + ring + 1, step):
                        if 0 <= x < columns and np.isfinite(rms[y, x]):
                            far = float((y - j) ** 2 + (x - i) ** 2)
                            if far < best:
                                best, level, spread, count = far, 0.0, 0.0, 0
                            if far == best:
                                level += mesh[y, x]
                                spread += rms[y, x]
                                count += 1
                ring += 1
            out[j, i], noise[j, i] = level / count, spread / count
            # The next one's nearest is at most one nearer: rings whose corners are not that far hold nothing.
            start = max(int((np.sqrt(best) - 1) / np.sqrt(2.0)), 1)
    return out, noise


@jit
def _filter(mesh, rms, half_x, half_y, threshold):
    """The median of each mesh's neighbourhood where it differs by more than the threshold."""
    rows, columns = mesh.shape
    out, noise = mesh.copy(), rms.copy()
    levels, noises = np.empty((2 * half_x + 1) * (2 * half_y + 1)), np.empty((2 * half_x + 1) * (2 * half_y + 1))
    for j in range(rows):
        # Cut at the borders on both sides: a window cut on one side only would shift a gradient.
        dy = min(half_y, j, rows - 1 - j)
        for i in range(columns):
            dx = min(half_x, i, columns - 1 - i)
            count = 0
            for y in range(j - dy, j + dy + 1):
                for x in range(i - dx, i + dx + 1):
                    levels[count], noises[count] = mesh[y, x], rms[y, x]
                    count += 1
            median = np.median(levels[:count])
            if abs(median - mesh[j, i]) >= threshold:
                out[j, i], noise[j, i] = median, np.median(noises[:count])
    return out, noise


@jit
def _mesh_statistics(image, bad, width, height, unit, least):
    rows, columns = image.shape
    ny, nx = -(-rows // height), -(-columns // width)
    mode, noise = np.full((ny, nx), np.nan), np.full((ny, nx), np.nan)
    scale = np.float32(1.0) / unit
    values, origin, sums = np.empty((nx, width * height), np.float32), np.empty(nx, np.float32), np.empty((nx, 2))
    room = np.zeros(MOST_BINS + 2, np.int32), np.zeros(MOST_BINS + 1, np.int32), np.empty(PART, np.int32)
    for j in range(ny):
        y0, y1 = j * height, min((j + 1) * height, rows)
        _take_band(image, bad, y0, y1, width, scale, origin, values, sums)
        for i in range(nx):
            x0, x1 = i * width, min((i + 1) * width, columns)
            some = values[i]
            if sums[i, 1] < FAR * FAR:
                count = (y1 - y0) * (x1 - x0)
                mean = sums[i, 0] / count
                sigma = np.sqrt(max(sums[i, 1] / count - mean * mean, 0.0))
            else:
                count = 0
                for y in range(y0, y1):
                    count = _take(image[y, x0:x1], bad, y, x0, scale, some, count)
                if count == 0 or count < least * (y1 - y0) * (x1 - x0):
                    continue
                origin[i] = _middle(some[0], some[count // 2], some[count - 1])
                mean, sigma, _ = _moments(some, count, origin[i], np.float32(-np.inf), np.float32(np.inf))
            mode[j, i], noise[j, i] = _mode(some, count, origin[i], mean, sigma, room)
    return mode, noise


@jit
def _middle(a, b, c):
    """The median of three keeps a star at the first pixel from costing the precision of all others."""
    return max(min(a, b), min(max(a, b), c))


@jit
def _take_band(image, bad, y0, y1, width, scale, origin, values, sums):
    """The pixels of the meshes beside each other, row by row as they lie in memory, in the unit of the scatter.

    ``sums``: of each mesh's values less its origin, and of their squares: not below FAR^2 where a pixel is not usable.
    """
    columns = image.shape[1]
    for i in range(len(values)):
        x0, x1 = i * width, min((i + 1) * width, columns)
        half = (y1 - y0) * (x1 - x0) // 2
        origin[i] = _middle(
            np.float32(image[y0, x0]) * scale,
            np.float32(image[y0 + half // (x1 - x0), x0 + half % (x1 - x0)]) * scale,
            np.float32(image[y1 - 1, x1 - 1]) * scale,
        )
        sums[i] = 0.0
        if not np.abs(origin[i]) < FAR:
            sums[i, 1] = np.inf
    for y in range(y0, y1):
        for i in range(len(values)):
            x0, x1 = i * width, min((i + 1) * width, columns)
            place = (y - y0) * (x1 - x0)
            for start in range(x0, x1, PART):
                end = min(start + PART, x1)
                total, square = _take_part(image, y, start, end, scale, origin[i], values, i, place + start - x0)
                sums[i, 0] += total
                sums[i, 1] += square
                if bad.size > 0 and _any(bad, y, start, end):
                    sums[i, 1] = np.inf


@jit
def _any(bad, y, start, end):
    found = False
    for x in range(start, end):
        found |= bad[y, x]
    return found


@jit(fastmath={"reassoc", "contract", "nsz"})
def _take_part(image, y, start, end, scale, origin, values, i, place):
    total, square = np.float32(0.0), np.float32(0.0)
    for k in range(end - start):
        value = np.float32(image[y, start + k]) * scale
        values[i, place + k] = value
        shifted = value - origin
        total += shifted
        square += shifted * shifted
    return total, square


@jit
def _take(line, bad, y, x0, scale, values, count):
    """Append the usable pixels of a line, in the unit of the scatter; what is beyond all measure is a mark, no light."""
    usable = 0
    for k in range(len(line)):
        value = np.float32(line[k]) * scale
        values[count + k] = value
        usable += np.abs(value) < FAR
    if usable == len(line) and bad.size == 0:
        return count + len(line)
    for k in range(len(line)):
        value = np.float32(line[k]) * scale
        if np.abs(value) < FAR and not (bad.size > 0 and bad[y, x0 + k]):
            values[count] = value
            count += 1
    return count


@jit(fastmath={"reassoc", "contract", "nsz"})
def _part(values, start, end, origin, low, high):
    """Count, sum and sum of squares of values - origin in a range: few enough at a time for single precision."""
    count, total, square = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for k in range(start, end):
        shifted = values[k] - origin
        inside = (shifted >= low) & (shifted <= high)
        shifted = shifted if inside else np.float32(0.0)
        count += np.float32(1.0) if inside else np.float32(0.0)
        total += shifted
        square += shifted * shifted
    return count, total, square


@jit
def _moments(values, length, origin, low, high):
    """Mean (from the origin) and standard deviation of the values in a range about the origin, and their number."""
    count, total, square = 0.0, 0.0, 0.0
    for start in range(0, length, PART):
        a, b, c = _part(values, start, min(start + PART, length), origin, low, high)
        count += a
        total += b
        square += c
    if count == 0:
        return 0.0, 0.0, 0.0
    mean = total / count
    return mean, np.sqrt(max(square / count - mean * mean, 0.0)), count


@jit
def _mode(values, length, origin, mean, sigma, room):
    """Mode and standard deviation of the first values by their clipped histogram; mean, sigma: of all, from the origin."""
    histogram, below, place = room
    mean, sigma, count = _moments(values, length, origin, np.float32(mean - 2 * sigma), np.float32(mean + 2 * sigma))
    if sigma <= 0.0 or count == 0:
        return origin + mean, 0.0
    bins = int(min(np.sqrt(2 / np.pi) * HALF_WIDTH / BIN_PIXELS * count + 1, MOST_BINS))
    step = 2 * HALF_WIDTH * sigma / bins
    start = mean - HALF_WIDTH * sigma
    histogram[: bins + 2] = 0
    inverse = np.float32(1.0 / step)
    # Bins from 1 on; the ends take what lies outside, so that no pixel needs a decision.
    shift = np.float32(1.5 - start / step)
    top = np.float32(bins + 1)
    for first in range(0, length, PART):
        part = min(PART, length - first)
        for k in range(part):
            place[k] = np.int32(min(max((values[first + k] - origin) * inverse + shift, np.float32(0.0)), top))
        for k in range(part):
            histogram[np.uint32(place[k])] += 1
    mean, median, sigma = _clipped(histogram[1 : bins + 1], below)
    mode = median
    if sigma > 0 and abs(mean - median) < 0.3 * sigma:
        mode = 2.5 * median - 1.5 * mean
    return origin + start + mode * step, sigma * step


@jit(fastmath={"reassoc", "contract"})
def _sums(histogram, start, end):
    """Of bins from start up to but without end: their number times the pixels, and its square times them; exact."""
    total, square = 0.0, 0.0
    for k in range(start, end):
        weighted = np.float64(histogram[k]) * np.float64(k)
        total += weighted
        square += weighted * np.float64(k)
    return total, square


@jit
def _between_bins(histogram, before, now):
    """What `_sums` loses where a range begins at ``now`` instead of ``before``."""
    if now >= before:
        return _sums(histogram, before, now)
    total, square = _sums(histogram, now, before)
    return -total, -square


@jit
def _clipped(histogram, below):
    """Mean, median and standard deviation of a histogram, in bins, clipped at 3 sigma until nothing changes.

    ``below``: room for the number of pixels below each bin (at least bins + 1).
    """
    bins = len(histogram)
    pixels = np.int32(0)
    below[0] = 0
    for k in range(bins):
        pixels += histogram[k]
        below[k + 1] = pixels
    low, high = 0, bins - 1
    total, square = _sums(histogram, 0, bins)
    mean, median, sigma, before = 0.0, 0.0, 10.0 * (bins - 1), 1.0
    for _ in range(100):
        if not (sigma >= 0.1 and abs(sigma / before - 1.0) > 1e-4):
            break
        before = sigma
        count = np.int64(below[high + 1] - below[low])
        if count == 0:
            break
        mean = total / count
        sigma = np.sqrt(max(square / count - mean * mean, 0.0))
        # Halves are filled bin by bin from both ends, the emptier one first, until they meet. All but the last steps of
        # this walk are known from the running sums: the upper half is always the first fuller than the lower one.
        lower = max(low, _first(below, low + 1, high + 2, below[low] + 0.5 * count) - 5)
        lesser = np.int64(below[lower] - below[low])
        upper = max(lower, _first(below, 0, high + 2, below[high + 1] - lesser) - 2)
        above = np.int64(below[high + 1] - below[upper + 1])
        while upper >= lower:
            if lesser < above:
                lesser += histogram[lower]
                lower += 1
            else:
                above += histogram[upper]
                upper -= 1
        edge = max(histogram[max(upper, 0)], histogram[min(lower, bins - 1)], 1)
        median = upper + 0.5 + (above - lesser) / (2.0 * edge)
        from_low = max(0, int(median - 3 * sigma + 0.5)) if median > 3 * sigma else 0
        to_high = max(from_low, min(bins - 1, int(median + 3 * sigma + 0.5)))
        lost, lost_square = _between_bins(histogram, low, from_low)
        gained, gained_square = _between_bins(histogram, high + 1, to_high + 1)
        total, square = total - lost + gained, square - lost_square + gained_square
        low, high = from_low, to_high
    return mean, median, sigma


@jit
def _first(values, start, end, wanted):
    """The first place in a rising part of an array whose value is at least ``wanted``, or its end."""
    while start < end:
        middle = (start + end) >> 1
        if values[middle] < wanted:
            start = middle + 1
        else:
            end = middle
    return start


def spline(mesh: np.ndarray) -> np.ndarray:
    """A grid (rows, columns), what bends the spline down its columns, and what bends it along the rows of both: float64
    (4, rows, columns), `second_derivatives`."""
    down = second_derivatives(mesh)
    return np.stack([mesh, down, *(second_derivatives(one.T).T for one in (mesh, down))])


def second_derivatives(mesh: np.ndarray) -> np.ndarray:
    """A sixth of the second derivatives of the spline down each column of a grid, in units of the grid's step."""
    out = np.empty_like(mesh)
    for column in range(mesh.shape[1]):
        _bend(np.ascontiguousarray(mesh[:, column]), out[:, column])
    return out


@jit
def _bend(knots, out):
    """The tridiagonal system of the natural spline, solved forth and back.

    On the way back each value is divided by six before the next one uses it: not the natural spline, but what SExtractor's
    and sep's maps follow to 1e-3 of the noise. It bends less, which differs where the grid is steep, at its borders.
    """
    count = len(knots)
    out[:] = 0.0
    if count < 3:
        return
    factor = np.zeros(count)
    for i in range(1, count - 1):
        pivot = -1.0 / (factor[i - 1] + 4.0)
        factor[i] = pivot
        out[i] = pivot * (out[i - 1] - 6.0 * (knots[i + 1] - 2 * knots[i] + knots[i - 1]))
    for i in range(count - 2, 0, -1):
        out[i] = (factor[i] * out[i + 1] + out[i]) / 6.0


@jit
def _place(pixel, size, meshes):
    """Mesh below a pixel's centre, and how far above it the pixel lies, in meshes."""
    position = (pixel + 0.5) / size - 0.5
    lower = min(max(int(np.floor(position)), 0), max(meshes - 2, 0))
    return lower, position - lower


@jit
def _between(below, above, bend_below, bend_above, share):
    rest = 1.0 - share
    return (
        rest * below
        + share * above
        + (rest * rest * rest - rest) * bend_below
        + (share * share * share - share) * bend_above
    )


@jit
def _knots(spline, height, y, knots, slopes):
    """Values of a row of the image at the centres of the mesh's columns, and what bends the spline through them."""
    ny, nx = spline.shape[1:]
    j, share = _place(y, height, ny)
    above = min(j + 1, ny - 1)
    if ny == 1:
        share = 0.0
    for bend, out in ((0, knots), (2, slopes)):
        for i in range(nx):
            bends = spline[bend + 1, j, i], spline[bend + 1, above, i]
            out[i] = _between(spline[bend, j, i], spline[bend, above, i], *bends, share)


@jit
def _shares(nx, width, columns):
    """Where the pixels of each interval between mesh centres end, and how far from its mesh each lies, in meshes, float32.

    A pixel's position is below the next mesh; the last interval takes all the rest.
    """
    ends, share = np.empty(max(nx - 1, 1), np.int64), np.zeros(columns, np.float32)
    ends[:] = columns
    start, inverse = 0, 1.0 / width
    for i in range(nx - 1):
        if i < nx - 2:
            ends[i] = max(start, min(columns, int(np.ceil((i + 1.5) * width - 0.5))))
        for x in range(start, ends[i]):
            share[x] = np.float32((x + 0.5) * inverse - 0.5 - i)
        start = ends[i]
    return ends, share


@jit
def _row(knots, slopes, ends, share, row):
    """The spline along a row: in each interval between mesh centres it is one cubic, evaluated for all its pixels."""
    nx, start = len(knots), 0
    if nx == 1:
        row[:] = knots[0]
        return
    for i in range(nx - 1):
        c0 = np.float32(knots[i])
        c1 = np.float32(knots[i + 1] - knots[i] - 2 * slopes[i] - slopes[i + 1])
        c2, c3 = np.float32(3 * slopes[i]), np.float32(slopes[i + 1] - slopes[i])
        for x in range(start, ends[i]):
            row[x] = c0 + share[x] * (c1 + share[x] * (c2 + share[x] * c3))
        start = ends[i]


@jit
def _evaluate(spline, width, height, rows, columns):
    out = np.empty((rows, columns), np.float32)
    knots, slopes = np.empty(spline.shape[2]), np.empty(spline.shape[2])
    ends, share = _shares(spline.shape[2], width, columns)
    for y in range(rows):
        _knots(spline, height, y, knots, slopes)
        _row(knots, slopes, ends, share, out[y])
    return out


@jit
def _subtract(image, out, spline, width, height):
    rows, columns = image.shape
    knots, slopes = np.empty(spline.shape[2]), np.empty(spline.shape[2])
    row, (ends, share) = np.empty(columns, np.float32), _shares(spline.shape[2], width, columns)
    for y in range(rows):
        _knots(spline, height, y, knots, slopes)
        _row(knots, slopes, ends, share, row)
        source, target = image[y], out[y]
        for x in range(columns):
            value = np.float32(source[x])
            target[x] = value - row[x] if np.abs(value) < _UNUSABLE else np.float32(0.0)


@jit
def _at(spline, width, height, x, y):
    out = np.empty(len(x), np.float32)
    knots, slopes = np.empty(spline.shape[2]), np.empty(spline.shape[2])
    last = -1
    for k in range(len(x)):
        if y[k] != last:
            _knots(spline, height, y[k], knots, slopes)
            last = y[k]
        if len(knots) == 1:
            out[k] = knots[0]
        else:
            i, share = _place(x[k], width, len(knots))
            out[k] = _between(knots[i], knots[i + 1], slopes[i], slopes[i + 1], share)
    return out
