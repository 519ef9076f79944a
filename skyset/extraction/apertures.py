"""Fluxes and sizes in apertures about each source, its neighbours taken away; compiled, without the GIL.

Source: SExtractor manual, chapter "Photometry": Kron (1980, ApJS 43, 305) and Petrosian (1976, ApJ 209, L1) ellipses, fluxes
in circles, radii that hold a fraction of the light; chapter "Windowed positional parameters". Positions here are 0-based.

All kernels take ``field``: image (float32, background subtracted), segments (int32: 0, or a source's number from 1), bad
(bool, or (0, 0)), noise (float32 that multiplies sigma, or (0, 0)), sigma (counts), gain (electrons a count, 0: none),
mask_type (`MASKS`).
"""

from __future__ import annotations

import numpy as np

from skyset.extraction.compiled import jit
from skyset.extraction.definitions import APERTURE_INCOMPLETE, CROWDED, KRON_ZONE, NEIGHBOURS, WINDOW_FWHM
from skyset.extraction.isophotes import PIXEL

#: MASK_TYPE: what stands in a neighbour's pixels: what lies there, nothing, or the pixel opposite of the source's centre.
MASKS = {"none": 0, "blank": 1, "correct": 2}
#: The growth curve: rings out to 6 A_IMAGE, each pixel in 5 x 5 parts.
RINGS, PARTS = 64, 5
#: Petrosian: steps of the radius, and the ring (1 to 1.2) and disc (to 1.1) that are compared, all in bins of one width.
PETRO_BIN, PETRO_STEP, PETRO_RING, PETRO_DISC, PETRO_RATIO = 0.03, 10, 12, 11, 0.2
#: Windowed centres: reach in window sigmas, most steps, the step at which they rest (pixels), parts of a pixel at the rim,
#: and the least half-light radius that a window is made for (pixels), as SExtractor has it.
WIN_REACH, WIN_STEPS, WIN_REST, WIN_PARTS, WIN_LEAST = 4.0, 16, 1e-4, 3, 0.5

#: FLAGS_WIN: second moments that no light can have, or not above 0; no flux; barycentre and moments of the isophote instead.
WIN_INCONSISTENT, WIN_NEGATIVE, WIN_NO_FLUX, WIN_REVERTED = 1, 2, 4, 8


@jit(inline="always")
def _pixel(image, segments, bad, mask_type, number, x, y, i, j):
    """What counts for a source in a pixel: whether at all, its value, whether a neighbour's, whether bad.

    The arrays one by one: to take them out of ``field`` here would count references at every pixel.
    """
    other = segments[j, i]
    neighbour = other != 0 and other != number
    spoilt = bad.size > 0 and bad[j, i]
    if not spoilt and (not neighbour or mask_type == 0):
        return True, np.float64(image[j, i]), neighbour, spoilt
    if mask_type != 2:
        return False, 0.0, neighbour, spoilt
    k, m = int(np.floor(2 * x - i + 0.5)), int(np.floor(2 * y - j + 0.5))
    rows, columns = image.shape
    if 0 <= k < columns and 0 <= m < rows:
        other = segments[m, k]
        if (other == 0 or other == number) and not (bad.size > 0 and bad[m, k]):
            return True, np.float64(image[m, k]), neighbour, spoilt
    return True, 0.0, neighbour, spoilt


@jit
def _box(shape, x, y, reach_x, reach_y):
    """The part of the image within reach, and whether all of it is in the image."""
    rows, columns = shape
    x0, x1 = int(np.floor(x - reach_x + 0.5)), int(np.floor(x + reach_x + 0.5)) + 1
    y0, y1 = int(np.floor(y - reach_y + 0.5)), int(np.floor(y + reach_y + 0.5)) + 1
    whole = x0 >= 0 and y0 >= 0 and x1 <= columns and y1 <= rows
    return max(x0, 0), min(x1, columns), max(y0, 0), min(y1, rows), whole


@jit
def _reach(cxx, cyy, cxy, radius):
    """Half the width and height of the ellipse cxx x^2 + cyy y^2 + cxy x y = radius^2."""
    determinant = cxx * cyy - 0.25 * cxy * cxy
    return radius * np.sqrt(cyy / determinant), radius * np.sqrt(cxx / determinant)


@jit(inline="always")
def _chord(cxx, cyy, cxy, radius, x, dy, x0, x1):
    """The pixels of a row inside an ellipse: from, and up to but without; rounding is left to whoever looks at each."""
    # cxx dx^2 + cxy dy dx + (cyy dy^2 - radius^2) = 0
    inside = (cxy * dy) ** 2 - 4 * cxx * (cyy * dy * dy - radius * radius)
    if inside < 0:
        return x0, x0
    root = np.sqrt(inside)
    first, last = (-cxy * dy - root) / (2 * cxx), (-cxy * dy + root) / (2 * cxx)
    return max(x0, int(np.floor(x + first))), min(x1, int(np.floor(x + last)) + 2)


@jit(inline="always")
def _variance(noise, sigma, i, j):
    return (sigma * noise[j, i]) ** 2 if noise.size > 0 else sigma * sigma


@jit
def ellipses(field, x, y, shape, factor, least, smallest):
    """Kron radii and the fluxes in Kron ellipses.

    x, y: float64 (n,); shape: float64 (n, 3): Cxx, Cyy, Cxy; factor, least: PHOT_AUTOPARAMS; smallest: PHOT_AUTOAPERS,
    diameters. Returns float64 (n,): radius in units of A and B (0: a circle of the smallest diameter), flux, its variance;
    int64 (n,): flags.
    """
    count = len(x)
    radius, flux, variance, flags = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    for n in range(count):
        cxx, cyy, cxy = shape[n]
        # PHOT_AUTOAPERS: where the ellipse is smaller than a circle of that diameter, the circle is used.
        area = 1.0 / np.sqrt(cxx * cyy - 0.25 * cxy * cxy)
        if KRON_ZONE**2 * area > 0.25 * smallest[0] ** 2:
            first, flags[n] = _first_moment(field, n + 1, x[n], y[n], cxx, cyy, cxy, KRON_ZONE)
        else:
            first, flags[n] = _first_moment(field, n + 1, x[n], y[n], 1.0, 1.0, 0.0, 0.5 * smallest[0])
        radius[n] = max(factor * first, least)
        if radius[n] ** 2 * area > 0.25 * smallest[1] ** 2:
            flux[n], variance[n], more = _flux(field, n + 1, x[n], y[n], cxx, cyy, cxy, radius[n])
        else:
            radius[n] = 0.0
            flux[n], variance[n], more = _flux(field, n + 1, x[n], y[n], 1.0, 1.0, 0.0, 0.5 * smallest[1])
        flags[n] |= more
    return radius, flux, variance, flags


@jit
def _first_moment(field, number, x, y, cxx, cyy, cxy, zone):
    """Mean radius of the light, in units of A and B, neighbours' pixels left out; flags of the zone."""
    image, segments, bad, _, _, _, mask_type = field
    reach_x, reach_y = _reach(cxx, cyy, cxy, zone)
    x0, x1, y0, y1, whole = _box(image.shape, x, y, reach_x, reach_y)
    moment, light = 0.0, 0.0
    pixels, crowded, spoilt = 0, 0, 0
    for j in range(y0, y1):
        dy = j - y
        first, last = _chord(cxx, cyy, cxy, zone, x, dy, x0, x1)
        for i in range(first, last):
            dx = i - x
            square = cxx * dx * dx + cyy * dy * dy + cxy * dx * dy
            if square <= zone * zone:
                other = segments[j, i]
                neighbour, is_bad = other != 0 and other != number, bad.size > 0 and bad[j, i]
                pixels += 1
                crowded += neighbour
                spoilt += is_bad
                if not is_bad and (mask_type == 0 or not neighbour):
                    value = np.float64(image[j, i])
                    moment += np.sqrt(square) * value
                    light += value
    return (moment / light if light > 0 and moment > 0 else 0.0), _zone_flags(pixels, crowded, spoilt, whole)


@jit
def _zone_flags(pixels, crowded, spoilt, whole):
    flags = 0
    if crowded > CROWDED * pixels:
        flags |= NEIGHBOURS
    if spoilt > 0 or not whole:
        flags |= APERTURE_INCOMPLETE
    return flags


@jit
def _flux(field, number, x, y, cxx, cyy, cxy, radius):
    """Flux in an ellipse of whole pixels, its variance, flags."""
    image, segments, bad, noise, sigma, gain, mask_type = field
    reach_x, reach_y = _reach(cxx, cyy, cxy, radius)
    x0, x1, y0, y1, whole = _box(image.shape, x, y, reach_x, reach_y)
    flux, variance = 0.0, 0.0
    pixels, crowded, spoilt = 0, 0, 0
    for j in range(y0, y1):
        dy = j - y
        first, last = _chord(cxx, cyy, cxy, radius, x, dy, x0, x1)
        for i in range(first, last):
            dx = i - x
            if cxx * dx * dx + cyy * dy * dy + cxy * dx * dy <= radius * radius:
                counts, value, neighbour, is_bad = _pixel(image, segments, bad, mask_type, number, x, y, i, j)
                pixels += 1
                crowded += neighbour
                spoilt += is_bad
                if counts:
                    flux += value
                    variance += _variance(noise, sigma, i, j)
    if gain > 0 and flux > 0:
        variance += flux / gain
    return flux, variance, _zone_flags(pixels, crowded, spoilt, whole)


@jit
def petrosian(field, x, y, shape, factor, least, with_flux):
    """Petrosian radii (0.2 of the mean surface brightness within) and, if wanted, fluxes in the ellipses; as `ellipses`."""
    image, segments, bad, _, _, _, mask_type = field
    count = len(x)
    radius, flux, variance, flags = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    bins = int(KRON_ZONE / PETRO_BIN + 0.5)
    light, pixels = np.empty(bins + 2), np.empty(bins + 2)
    for n in range(count):
        cxx, cyy, cxy = shape[n]
        light[:], pixels[:] = 0.0, 0.0
        every, crowded, spoilt = 0, 0, 0
        reach_x, reach_y = _reach(cxx, cyy, cxy, KRON_ZONE)
        x0, x1, y0, y1, whole = _box(image.shape, x[n], y[n], reach_x, reach_y)
        for j in range(y0, y1):
            dy = j - y[n]
            first, last = _chord(cxx, cyy, cxy, KRON_ZONE, x[n], dy, x0, x1)
            for i in range(first, last):
                dx = i - x[n]
                square = cxx * dx * dx + cyy * dy * dy + cxy * dx * dy
                if square < KRON_ZONE**2:
                    other = segments[j, i]
                    neighbour, is_bad = other != 0 and other != n + 1, bad.size > 0 and bad[j, i]
                    every += 1
                    crowded += neighbour
                    spoilt += is_bad
                    if not is_bad and (mask_type == 0 or not neighbour):
                        place = int(np.sqrt(square) * (1 / PETRO_BIN)) + 1
                        light[place] += image[j, i]
                        pixels[place] += 1
        flags[n] = _zone_flags(every, crowded, spoilt, whole)
        for k in range(1, bins + 2):
            light[k] += light[k - 1]
            pixels[k] += pixels[k - 1]
        best = 0.0
        for step in range(1, bins // PETRO_RING + 1):
            inner, outer, disc = PETRO_STEP * step, PETRO_RING * step, PETRO_DISC * step
            if outer >= bins:
                break
            best = disc * PETRO_BIN
            ring = pixels[outer] - pixels[inner]
            if ring > 0 and pixels[disc] > 0:
                within = light[disc] / pixels[disc]
                if (light[outer] - light[inner]) / ring < PETRO_RATIO * within:
                    break
        radius[n] = max(factor * best, least)
        if with_flux:
            flux[n], variance[n], more = _flux(field, n + 1, x[n], y[n], cxx, cyy, cxy, radius[n])
            flags[n] |= more
    return radius, flux, variance, flags


@jit
def radii(field, x, y, a, flux, fractions):
    """Radii of circles (pixels, float64 (n, fractions)) with fractions of ``flux``, 0 where it is not positive; flags."""
    count = len(x)
    out, flags = np.zeros((count, len(fractions))), np.zeros(count, np.int64)
    growth = np.empty(RINGS + 1)
    most = 0.0
    for fraction in fractions:
        most = max(most, fraction)
    for n in range(count):
        if not flux[n] > 0:
            continue
        step = 6.0 * a[n] / RINGS
        if not _box(field[0].shape, x[n], y[n], 6.0 * a[n] + 1, 6.0 * a[n] + 1)[4]:
            flags[n] |= APERTURE_INCOMPLETE
        # Most of the light is near: the outer rings are looked at only where it is not.
        rings = RINGS // 4
        while True:
            _growth(field, n + 1, x[n], y[n], step, rings, growth)
            reached = False
            for k in range(1, rings + 1):
                reached |= growth[k] >= most * flux[n]
            if reached or rings == RINGS:
                break
            rings *= 2
        for f in range(len(fractions)):
            out[n, f] = _crossing(growth[: rings + 1], fractions[f] * flux[n], step)
    return out, flags


@jit
def _growth(field, number, x, y, step, rings, growth):
    """Light within 0, 1, 2 ... steps of the centre."""
    image, segments, bad, _, _, _, mask_type = field
    growth[:] = 0.0
    reach = rings * step
    x0, x1, y0, y1, _ = _box(image.shape, x, y, reach + 0.5, reach + 0.5)
    inverse = 1.0 / step
    rim = (reach + 0.7072) ** 2
    for j in range(y0, y1):
        dy = j - y
        for i in range(x0, x1):
            dx = i - x
            if dx * dx + dy * dy >= rim:
                continue
            counts, value, _, _ = _pixel(image, segments, bad, mask_type, number, x, y, i, j)
            if not counts:
                continue
            far = np.sqrt(dx * dx + dy * dy)
            inner, outer = int(max(far - 0.7072, 0.0) * inverse), int((far + 0.7072) * inverse)
            if inner == outer:
                # The whole pixel lies in one ring, as most do where rings are wide.
                if inner < rings:
                    growth[inner + 1] += value
                continue
            part = value / PARTS**2
            for q in range(PARTS):
                sy = dy + (q + 0.5) / PARTS - 0.5
                for p in range(PARTS):
                    sx = dx + (p + 0.5) / PARTS - 0.5
                    ring = int(np.sqrt(sx * sx + sy * sy) * inverse)
                    if ring < rings:
                        growth[ring + 1] += part
    for k in range(1, rings + 1):
        growth[k] += growth[k - 1]


@jit
def _crossing(growth, wanted, step):
    """Where a growth curve first reaches a value."""
    for k in range(1, len(growth)):
        if growth[k] >= wanted:
            rise = growth[k] - growth[k - 1]
            return step * (k - 1 + (wanted - growth[k - 1]) / rise) if rise > 0 else step * k
    return step * (len(growth) - 1)


@jit
def circles(field, x, y, diameters):
    """Fluxes in circles, their variances (float64 (n, diameters)), and flags; pixels at the rim count by the part inside."""
    image, segments, bad, noise, sigma, gain, mask_type = field
    count = len(x)
    flux, variance = np.zeros((count, len(diameters))), np.zeros((count, len(diameters)))
    flags = np.zeros(count, np.int64)
    # A row of pixels in parts: the squares of their distances along it, and how many parts of a column are in the circle.
    room = PARTS * (min(int(np.max(diameters)) if len(diameters) else 0, image.shape[1]) + 3)
    across, inside = np.empty(room), np.empty(room)
    for n in range(count):
        for d in range(len(diameters)):
            radius = 0.5 * diameters[d]
            _, _, _, _, whole = _box(image.shape, x[n], y[n], radius, radius)
            x0, x1, y0, y1, _ = _box(image.shape, x[n], y[n], radius + 0.5, radius + 0.5)
            spoilt = 0
            for i in range(x0, x1):
                for p in range(PARTS):
                    part = i - x[n] + (p + 0.5) / PARTS - 0.5
                    across[PARTS * (i - x0) + p] = part * part
            for j in range(y0, y1):
                _parts_inside(across, PARTS * (x1 - x0), j - y[n], radius * radius, inside)
                for i in range(x0, x1):
                    share = 0.0
                    for p in range(PARTS):
                        share += inside[PARTS * (i - x0) + p]
                    if share <= 0:
                        continue
                    share /= PARTS**2
                    other = segments[j, i]
                    counts, value, is_bad = True, np.float64(image[j, i]), bad.size > 0 and bad[j, i]
                    if is_bad or (other != 0 and other != n + 1):
                        counts, value, _, is_bad = _pixel(image, segments, bad, mask_type, n + 1, x[n], y[n], i, j)
                    spoilt += is_bad
                    if counts:
                        flux[n, d] += share * value
                        variance[n, d] += share * _variance(noise, sigma, i, j)
            if gain > 0 and flux[n, d] > 0:
                variance[n, d] += flux[n, d] / gain
            if spoilt > 0 or not whole:
                flags[n] |= APERTURE_INCOMPLETE
    return flux, variance, flags


@jit
def _parts_inside(across, length, dy, square, inside):
    """How many parts of each column of a row's parts lie inside a circle."""
    inside[:length] = 0.0
    for q in range(PARTS):
        part = dy + (q + 0.5) / PARTS - 0.5
        along = part * part
        for k in range(length):
            inside[k] += 1.0 if across[k] + along < square else 0.0


@jit
def _share(dx, dy, radius, parts):
    """The part of a pixel inside a circle, by points."""
    far = np.sqrt(dx * dx + dy * dy)
    if far > radius + 0.7072:
        return 0.0
    if far < radius - 0.7072:
        return 1.0
    inside = 0
    for q in range(parts):
        sy = dy + (q + 0.5) / parts - 0.5
        for p in range(parts):
            sx = dx + (p + 0.5) / parts - 0.5
            inside += sx * sx + sy * sy < radius * radius
    return inside / parts**2


@jit
def windowed(field, x, y, half_light, moments):
    """Centres, moments, their errors and fluxes under a Gaussian window with the FWHM of a source's half-light diameter.

    half_light: radius, pixels, (n,). moments: of the isophotes, (n, 6): x2, y2, xy, errx2, erry2, errxy. Returns float64
    (n, 10): x, y, x2, y2, xy, errx2, erry2, errxy, flux, its variance; int64 (n,): FLAGS_WIN; int64 (n,): FLAGS.

    A centre that moves further from the barycentre than the source is large, sqrt(x2 + y2), follows a neighbour or the sky;
    with that, or without second moments, the barycentre and the moments of the isophote stand instead.
    """
    image = field[0]
    rows, columns = image.shape
    count = len(x)
    out, flags, incomplete = np.zeros((count, 10)), np.zeros(count, np.int64), np.zeros(count, np.int64)
    for n in range(count):
        sigma = 2 * max(half_light[n], WIN_LEAST) / WINDOW_FWHM if half_light[n] > 0 else 0.0
        cx, cy = x[n], y[n]
        row = out[n]
        for _ in range(WIN_STEPS if sigma > 0 else 0):
            light, sx, sy = _window(field, n + 1, cx, cy, sigma, row, False)
            if not light > 0:
                break
            sx, sy = 2 * sx / light, 2 * sy / light
            cx, cy = cx + sx, cy + sy
            if not (0 <= cx < columns and 0 <= cy < rows):
                break
            if sx * sx + sy * sy < WIN_REST**2:
                break
        light, sx, sy = 0.0, 0.0, 0.0
        if sigma > 0 and 0 <= cx < columns and 0 <= cy < rows:
            light, sx, sy = _window(field, n + 1, cx, cy, sigma, row, True)
            if not _box(image.shape, cx, cy, WIN_REACH * sigma, WIN_REACH * sigma)[4]:
                incomplete[n] = APERTURE_INCOMPLETE
        if not light > 0:
            row[:] = 0.0
        if not row[2] * row[3] - row[4] * row[4] >= 0:
            flags[n] |= WIN_INCONSISTENT
        if not (row[2] > 0 and row[3] > 0):
            flags[n] |= WIN_NEGATIVE
        if not row[8] > 0:
            flags[n] |= WIN_NO_FLUX
        row[0], row[1] = cx, cy
        away = (cx - x[n]) ** 2 + (cy - y[n]) ** 2
        if flags[n] & (WIN_INCONSISTENT | WIN_NEGATIVE) or not away <= moments[n, 0] + moments[n, 1]:
            flags[n] |= WIN_REVERTED
            row[0], row[1], row[2:8] = x[n], y[n], moments[n]
    return out, flags, incomplete


@jit
def _window(field, number, x, y, width, row, full):
    """Weighted light, and first moments; where ``full``, second moments, errors and the flux go to ``row``."""
    image, segments, bad, noise, sigma, gain, mask_type = field
    reach = WIN_REACH * width
    x0, x1, y0, y1, _ = _box(image.shape, x, y, reach + 0.5, reach + 0.5)
    scale = 0.5 / (width * width)
    light, sx, sy = 0.0, 0.0, 0.0
    xx, yy, xy, ex, ey, exy, weights, total = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    # A Gaussian of the distance is the product of two, of dx and of dy.
    along = np.exp(-((np.arange(x0, x1) - x) ** 2) * scale)
    inner, rim = max(reach - 0.7072, 0.0) ** 2, (reach + 0.7072) ** 2
    for j in range(y0, y1):
        dy = j - y
        across = np.exp(-dy * dy * scale)
        for i in range(x0, x1):
            dx = i - x
            square = dx * dx + dy * dy
            if square >= rim:
                continue
            share = 1.0 if square < inner else _share(dx, dy, reach, WIN_PARTS)
            if share <= 0:
                continue
            counts, value, _, _ = _pixel(image, segments, bad, mask_type, number, x, y, i, j)
            if not counts:
                continue
            weight = share * across * along[i - x0]
            light += weight * value
            sx += weight * value * dx
            sy += weight * value * dy
            if full:
                xx += weight * value * dx * dx
                yy += weight * value * dy * dy
                xy += weight * value * dx * dy
                variance = _variance(noise, sigma, i, j)
                if gain > 0 and value > 0:
                    variance += value / gain
                ex += weight * weight * variance * dx * dx
                ey += weight * weight * variance * dy * dy
                exy += weight * weight * variance * dx * dy
                weights += weight * weight
                total += weight * weight * variance
    if full and light > 0:
        row[2], row[3], row[4] = xx / light, yy / light, xy / light
        row[2] -= (sx / light) ** 2
        row[3] -= (sy / light) ** 2
        row[4] -= sx * sy / light**2
        # A pixel's light may come from anywhere on it: its own variance adds to that of each axis.
        ex, ey = ex + PIXEL * total, ey + PIXEL * total
        row[5], row[6], row[7] = 4 * ex / light**2, 4 * ey / light**2, 4 * exy / light**2
        full_weight = np.pi * width * width
        row[8], row[9] = full_weight * light / weights, full_weight**2 * total / weights**2
    return light, sx, sy
