"""What the pixels of a source say: barycentre, ellipse, areas, core width, flux, and their errors; compiled.

Source: SExtractor manual, chapters "Positions and shapes" (moments, their errors) and "Photometry" (isophotal fluxes).
FWHM_IMAGE: a Gaussian through the pixels of the core, those above a fifth of the peak and the analysis threshold, by least
squares of ln(value) on the squared distance with weights value^2, less half a pixel's area in quadrature for the width of a
pixel.
Positions here are 0-based.
"""

from __future__ import annotations

import numpy as np

from skyset.extraction.compiled import jit
from skyset.extraction.definitions import BLENDED, CORE, FLATTEST, ISOPHOTE_INCOMPLETE, TRUNCATED

#: The columns of what `measure` gives.
NAMES = (
    "x",
    "y",
    "x2",
    "y2",
    "xy",
    "cxx",
    "cyy",
    "cxy",
    "a",
    "b",
    "theta",
    "errx2",
    "erry2",
    "errxy",
    "xmin",
    "xmax",
    "ymin",
    "ymax",
    "xpeak",
    "ypeak",
    "area_detected",
    "area",
    "flux",
    "flux_filtered",
    "fluxvar",
    "peak",
    "peak_filtered",
    "threshold",
    "faint",
    "fwhm",
    "flags",
    "iso0",
    "iso1",
    "iso2",
    "iso3",
    "iso4",
    "iso5",
    "iso6",
    "iso7",
)
INDEX = {name: k for k, name in enumerate(NAMES)}
#: A matrix of second moments with a smaller determinant is that of a line or a point: (1/12)^2, of one pixel.
SINGULAR = 1.0 / 144.0
PIXEL = 1.0 / 12.0

(
    _X,
    _Y,
    _X2,
    _Y2,
    _XY,
    _CXX,
    _CYY,
    _CXY,
    _A,
    _B,
    _THETA,
    _ERRX2,
    _ERRY2,
    _ERRXY,
    _XMIN,
    _XMAX,
    _YMIN,
    _YMAX,
    _XPEAK,
    _YPEAK,
    _AREA_DETECTED,
    _AREA,
    _FLUX,
    _FLUX_FILTERED,
    _FLUXVAR,
    _PEAK,
    _PEAK_FILTERED,
    _THRESHOLD,
    _FAINT,
    _FWHM,
    _FLAGS,
    _ISO0,
) = range(32)


@jit
def measure(x, y, value, starts, centre, image, scale, noise, bad, threshold, analysis, sigma, gain, minarea):
    """One row of numbers (`NAMES`) an object, float64 (objects, len(NAMES)).

    x, y, value, starts, centre: as from `segments.deblend`. image: float32 (rows, columns), background subtracted. scale:
    what multiplies the thresholds; noise: what multiplies ``sigma`` (counts): float32 (rows, columns) or (0, 0). bad: bool,
    or (0, 0). threshold, analysis: counts. gain: electrons a count, 0: none.
    """
    objects = len(starts) - 1
    out = np.zeros((objects, len(NAMES)))
    for n in range(objects):
        part = slice(starts[n], starts[n + 1])
        pixels = x[part], y[part], value[part]
        _object(pixels, centre[n], image, scale, noise, bad, threshold, analysis, sigma, gain, minarea, out[n])
    return out


@jit
def _object(pixels, centre, image, scale, noise, bad, threshold, analysis, sigma, gain, minarea, out):
    x, y, value = pixels
    count = len(x)
    rows, columns = image.shape
    x0, y0 = x[0], y[0]
    deblended = np.isfinite(centre[0])
    s, sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    xmin, xmax, ymin, ymax = x0, x0, y0, y0
    flux, variance, peak, peak_filtered = 0.0, 0.0, -np.inf, -np.inf
    xpeak, ypeak, lowest = x0, y0, np.inf
    truncated, damaged = False, False
    for k in range(count):
        i, j = x[k], y[k]
        dx, dy, v = np.float64(i - x0), np.float64(j - y0), np.float64(value[k])
        s += v
        sx += v * dx
        sy += v * dy
        sxx += v * dx * dx
        syy += v * dy * dy
        sxy += v * dx * dy
        xmin, xmax, ymin, ymax = min(xmin, i), max(xmax, i), min(ymin, j), max(ymax, j)
        truncated |= i == 0 or j == 0 or i == columns - 1 or j == rows - 1
        if bad.size > 0 and not damaged:
            damaged = _touches(bad, i, j)
        raw = np.float64(image[j, i])
        flux += raw
        lowest = min(lowest, np.float64(scale[j, i]) if scale.size > 0 else 1.0)
        variance += (sigma * noise[j, i]) ** 2 if noise.size > 0 else sigma * sigma
        if gain > 0 and raw > 0:
            variance += raw / gain
        peak = max(peak, raw)
        if v > peak_filtered:
            peak_filtered, xpeak, ypeak = v, i, j
    mx, my = sx / s, sy / s
    vx, vy, vxy = sxx / s - mx * mx, syy / s - my * my, sxy / s - mx * my
    if deblended:
        # The barycentre of the branch stays; the outskirts were shared out by it, and do not move it.
        bx, by = centre[0] - x0, centre[1] - y0
        vx, vy, vxy = vx + (mx - bx) ** 2, vy + (my - by) ** 2, vxy + (mx - bx) * (my - by)
        mx, my = bx, by
    out[_FLAGS] = deblended * BLENDED + truncated * TRUNCATED + damaged * ISOPHOTE_INCOMPLETE
    out[_X], out[_Y] = x0 + mx, y0 + my
    _ellipse(vx, vy, vxy, out)
    ex, ey, exy = 0.0, 0.0, 0.0
    base, level = threshold * lowest, analysis * lowest
    area = 0
    iso = out[_ISO0 : _ISO0 + 8]
    ratio = np.log(peak / level) / 8 if peak > level > 0 else 0.0
    for k in range(count):
        raw = np.float64(image[y[k], x[k]])
        dx, dy = x[k] - out[_X], y[k] - out[_Y]
        error = (sigma * noise[y[k], x[k]]) ** 2 if noise.size > 0 else sigma * sigma
        if gain > 0 and value[k] > 0:
            error += value[k] / gain
        ex += error * dx * dx
        ey += error * dy * dy
        exy += error * dx * dy
        if raw > (analysis * scale[y[k], x[k]] if scale.size > 0 else analysis):
            area += 1
            if ratio > 0:
                # Levels that the pixel lies above: 0 and all below it.
                for step in range(8):
                    if raw > level * np.exp(ratio * step):
                        iso[step] += 1
                    else:
                        break
    out[_ERRX2], out[_ERRY2], out[_ERRXY] = _errors(ex / s**2, ey / s**2, exy / s**2, vx, vy, vxy, s, variance)
    out[_XMIN], out[_XMAX], out[_YMIN], out[_YMAX] = xmin, xmax, ymin, ymax
    out[_XPEAK], out[_YPEAK] = xpeak, ypeak
    out[_AREA_DETECTED], out[_AREA], out[_FLUX], out[_FLUX_FILTERED], out[_FLUXVAR] = count, area, flux, s, variance
    out[_PEAK], out[_PEAK_FILTERED], out[_THRESHOLD] = peak, peak_filtered, level
    out[_FAINT] = _faint(x, y, value, minarea) - base
    out[_FWHM] = _core(x, y, image, out[_X], out[_Y], out[_A] * out[_B], max(CORE * peak, level))


@jit
def _touches(bad, i, j):
    rows, columns = bad.shape
    for y in range(max(0, j - 1), min(rows, j + 2)):
        for x in range(max(0, i - 1), min(columns, i + 2)):
            if bad[y, x]:
                return True
    return False


@jit
def _ellipse(vx, vy, vxy, out):
    """Axes, angle and coefficients of the ellipse with these second moments."""
    if vx * vy - vxy * vxy < SINGULAR:
        vx, vy = vx + PIXEL, vy + PIXEL
    determinant = vx * vy - vxy * vxy
    half, part = 0.5 * (vx + vy), np.sqrt(0.25 * (vx - vy) ** 2 + vxy * vxy)
    out[_X2], out[_Y2], out[_XY] = vx, vy, vxy
    out[_A], out[_B] = np.sqrt(half + part), np.sqrt(max(half - part, 0.0))
    out[_THETA] = 0.5 * np.arctan2(2 * vxy, vx - vy) if part > 0 else 0.0
    out[_CXX], out[_CYY], out[_CXY] = vy / determinant, vx / determinant, -2 * vxy / determinant


@jit
def _errors(ex, ey, exy, vx, vy, vxy, s, variance):
    """Variances of the barycentre; those of a point cannot be less than if its light fell anywhere on its pixel."""
    if vx * vy - vxy * vxy < SINGULAR and ex * ey - exy * exy < (PIXEL * variance / s**2) ** 2:
        more = PIXEL * variance / s**2
        return ex + more, ey + more, exy
    return ex, ey, exy


@jit
def _faint(x, y, value, minarea):
    """The value of about the ``minarea``-th brightest pixel: what decides whether an object is cleaned away.

    About: SExtractor passes over one pixel, the one after the first ``minarea``, and takes the first where there are no
    more. Found by comparing what it cleans with what the brightest pixels say; done likewise, since a third of what is
    cleaned hangs on it. The order is that of its scan: a row's pixels to the left of the row before come first.
    """
    count = len(value)
    if count < minarea:
        return 0.0
    ordered = np.empty(2 * count, np.float32)
    head, tail, k, left = count, count, 0, x[0]
    while k < count and tail - head <= minarea:
        row, first = y[k], k
        while k < count and y[k] == row:
            k += 1
        out = first
        while out < k and x[out] < left:
            out += 1
        for n in range(out - 1, first - 1, -1):
            head -= 1
            ordered[head] = value[n]
        for n in range(out, k):
            ordered[tail] = value[n]
            tail += 1
        left = x[first]
    if count == minarea:
        return np.float64(ordered[head])
    top = ordered[head : head + minarea].copy()
    top.sort()
    for n in range(tail - head - minarea - 1 + count - k):
        v = ordered[head + minarea + 1 + n] if head + minarea + 1 + n < tail else value[k + n - (tail - head - minarea - 1)]
        if v > top[0]:
            j = 0
            while j + 1 < minarea and top[j + 1] < v:
                top[j] = top[j + 1]
                j += 1
            top[j] = v
    return np.float64(top[0])


@jit
def _core(x, y, image, mx, my, ab, level):
    """FWHM of a Gaussian core; 0 where the pixels do not fall off."""
    s, sx, sy, sxx, sxy = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(len(x)):
        v = np.float64(image[y[k], x[k]])
        if v > level:
            square = (x[k] - mx) ** 2 + (y[k] - my) ** 2
            weight, height = v * v, np.log(v)
            s += weight
            sx += weight * square
            sy += weight * height
            sxx += weight * square * square
            sxy += weight * square * height
    determinant = s * sxx - sx * sx
    if abs(determinant) <= 0.0:
        return 0.0
    slope = -(s * sxy - sx * sy) / determinant
    slope = max(slope, 1.0 / (FLATTEST * ab))
    return np.sqrt(max(4 * np.log(2.0) / slope - 0.5, 0.0))


@jit
def merge(numbers, into):
    """Add what was cleaned away to what took it in: pixels, light and extent, but not position and shape."""
    for n in range(len(into)):
        k = into[n]
        if k == n:
            continue
        for column in (_AREA_DETECTED, _FLUX, _FLUX_FILTERED, _FLUXVAR):
            numbers[k, column] += numbers[n, column]
        for column in (_XMIN, _YMIN):
            numbers[k, column] = min(numbers[k, column], numbers[n, column])
        for column in (_XMAX, _YMAX):
            numbers[k, column] = max(numbers[k, column], numbers[n, column])
