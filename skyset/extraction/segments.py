"""Which pixels belong to which source: thresholding, connected pixels, deblending, cleaning; compiled, without the GIL.

Source: Bertin & Arnouts 1996 (A&AS 117, 393), sections 4 and 5, and the chapters "Detection", "Deblending" and "Cleaning" of
the SExtractor manual. Instead of labelling an object anew at each of its levels, as described there, its pixels
are joined once from the brightest level down: the same tree, in a time that hardly depends on the number of levels.
"""

from __future__ import annotations

import numpy as np

from skyset.extraction.compiled import jit

#: A branch of fewer pixels (or fewer than DETECT_MINAREA) is noise.
LEAST_BRANCH = 3
#: Pixels that are compared with the threshold together.
STRIDE = 64
#: Objects further apart than this many times the sum of their A_IMAGE do not clean each other away.
CLEAN_ZONE = 10.0


@jit(fastmath={"contract"})
def _filtered_row(image, weights, y, row):
    """One row of the image correlated with the weights; outside the image there is nothing."""
    rows, columns = image.shape
    height, width = weights.shape
    if height == width == 3 and 0 < y < rows - 1 and columns > 2:
        _nine(image, weights, y, row)
        return
    row[:] = np.float32(0.0)
    for j in range(height):
        line = y + j - height // 2
        if line < 0 or line >= rows:
            continue
        for i in range(width):
            weight = weights[j, i]
            shift = i - width // 2
            first, last = max(0, -shift), min(columns, columns - shift)
            if last <= first:
                continue
            source = image[line, first + shift : last + shift]
            target = row[first:last]
            for x in range(len(target)):
                target[x] += weight * source[x]


@jit(fastmath={"contract"})
def _nine(image, weights, y, row):
    """The usual filter of 3 x 3 weights, in one look at each pixel instead of nine."""
    last = image.shape[1] - 1
    for x in (0, last):
        row[x] = np.float32(0.0)
        for j in range(3):
            for i in range(max(0, 1 - x), min(3, last + 2 - x)):
                row[x] += weights[j, i] * image[y + j - 1, x + i - 1]
    a, b, c = weights[0]
    d, e, f = weights[1]
    g, h, k = weights[2]
    for x in range(1, last):
        value = a * image[y - 1, x - 1]
        value += b * image[y - 1, x]
        value += c * image[y - 1, x + 1]
        value += d * image[y, x - 1]
        value += e * image[y, x]
        value += f * image[y, x + 1]
        value += g * image[y + 1, x - 1]
        value += h * image[y + 1, x]
        value += k * image[y + 1, x + 1]
        row[x] = value


@jit
def filtered(image, weights):
    """The image as the detection sees it, float32."""
    out = np.empty(image.shape, np.float32)
    for y in range(len(image)):
        _filtered_row(image, weights, y, out[y])
    return out


@jit
def _root(parent, k):
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@jit
def _grown(array, length):
    """A copy with room for twice as many, where an array is full."""
    if length < len(array):
        return array
    out = np.empty(2 * len(array), array.dtype)
    out[:length] = array[:length]
    return out


@jit
def _any_above(row, start, threshold):
    """Whether any of the next pixels is: few are, and so many are looked at together."""
    found = False
    for x in range(STRIDE):
        found |= row[start + x] > threshold
    return found


@jit
def find(image, weights, threshold, scale, minarea, maxarea):
    """Groups of at least ``minarea`` pixels above a threshold that touch at a side or a corner.

    image: float32 (rows, columns), background subtracted, 0 where bad. weights: float32, odd sides; (0, 0): no filter.
    threshold: counts; scale: float32 (rows, columns) that multiplies it, or (0, 0).
    Returns x, y (int32), filtered value (float32) of all their pixels, group by group, and where each group starts
    (int64, groups + 1); groups in the order of their first pixel.
    """
    rows, columns = image.shape
    filtered_row = np.empty(columns, np.float32)
    # Runs of pixels above the threshold: row, first, last + 1, and the run that stands for its group.
    run_y, run_a, run_b = np.empty(4096, np.int32), np.empty(4096, np.int32), np.empty(4096, np.int32)
    parent = np.empty(4096, np.int64)
    value = np.empty(65536, np.float32)
    runs, pixels = 0, 0
    before, here = 0, 0
    for y in range(rows):
        row = image[y]
        if weights.size > 0:
            _filtered_row(image, weights, y, filtered_row)
            row = filtered_row
        before, here = here, runs
        above = before
        # Room for all that a row can hold.
        while runs + columns // 2 + 1 > len(run_y):
            run_y, run_a, run_b = _grown(run_y, len(run_y)), _grown(run_a, len(run_a)), _grown(run_b, len(run_b))
            parent = _grown(parent, len(parent))
        while pixels + columns > len(value):
            value = _grown(value, len(value))
        x = 0
        while x < columns:
            if scale.size == 0:
                while x + STRIDE <= columns and not _any_above(row, x, threshold):
                    x += STRIDE
                while x < columns and not row[x] > threshold:
                    x += 1
            else:
                while x < columns and not row[x] > threshold * scale[y, x]:
                    x += 1
            if x == columns:
                break
            run_y[runs], run_a[runs], parent[runs] = y, x, runs
            while x < columns and (row[x] > threshold if scale.size == 0 else row[x] > threshold * scale[y, x]):
                value[pixels] = row[x]
                pixels += 1
                x += 1
            run_b[runs] = x
            # Runs of the row above that touch: from one pixel to the left to one to the right.
            while above < here and run_b[above] < run_a[runs]:
                above += 1
            k = above
            while k < here and run_a[k] <= x:
                one, other = _root(parent, k), _root(parent, runs)
                parent[max(one, other)] = min(one, other)
                k += 1
            runs += 1
    area = np.zeros(runs, np.int64)
    for k in range(runs):
        area[_root(parent, k)] += run_b[k] - run_a[k]
    starts = np.empty(runs + 1, np.int64)
    groups, total = 0, 0
    for k in range(runs):
        if area[k] >= minarea and (maxarea == 0 or area[k] <= maxarea):
            starts[groups] = total
            total += area[k]
            area[k] = groups
            groups += 1
        else:
            area[k] = -1
    starts[groups] = total
    out_x, out_y, out_value = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)
    filled = starts[:groups].copy()
    pixel = 0
    for k in range(runs):
        group = area[_root(parent, k)]
        if group < 0:
            pixel += run_b[k] - run_a[k]
            continue
        for x in range(run_a[k], run_b[k]):
            place = filled[group]
            out_x[place], out_y[place], out_value[place] = x, run_y[k], value[pixel]
            filled[group] += 1
            pixel += 1
    return out_x, out_y, out_value, starts[: groups + 1].copy()


@jit
def deblend(x, y, value, starts, threshold, scale, levels, contrast, minarea):
    """Split groups of pixels (as from `find`) into objects.

    levels: DEBLEND_NTHRESH; contrast: DEBLEND_MINCONT.
    Returns x, y, value again, object by object; where each object starts; and the barycentre of its branch for those that
    were split off (float64 (objects, 2)), NaN for the others.
    """
    pixels, groups = len(x), len(starts) - 1
    owner = np.empty(pixels, np.int64)
    centre = np.empty((1024, 2))
    objects = 0
    area = np.zeros(1024, np.int64)
    for group in range(groups):
        first, last = starts[group], starts[group + 1]
        label = owner[first:last]
        base = threshold
        if scale.size > 0:
            base = np.inf
            for k in range(first, last):
                base = min(base, threshold * scale[y[k], x[k]])
        parts, centres = 1, centre[:1]
        label[:] = 0
        if levels > 1:
            least = min(minarea, LEAST_BRANCH)
            parts, centres = _split(x[first:last], y[first:last], value[first:last], base, levels, contrast, least, label)
        while objects + parts >= len(area):
            area = _grown(area, len(area))
            more = np.empty((2 * len(centre), 2))
            more[:objects] = centre[:objects]
            centre = more
        for k in range(parts):
            area[objects + k] = 0
            centre[objects + k] = np.nan
            if parts > 1:
                centre[objects + k] = centres[k]
        for k in range(len(label)):
            label[k] += objects
            area[label[k]] += 1
        objects += parts
    begins = np.zeros(objects + 1, np.int64)
    for k in range(objects):
        begins[k + 1] = begins[k] + area[k]
    filled = begins[:objects].copy()
    out_x, out_y, out_value = np.empty(pixels, np.int32), np.empty(pixels, np.int32), np.empty(pixels, np.float32)
    for k in range(pixels):
        place = filled[owner[k]]
        out_x[place], out_y[place], out_value[place] = x[k], y[k], value[k]
        filled[owner[k]] += 1
    return out_x, out_y, out_value, begins, centre[:objects].copy()


@jit
def _grid(x, y):
    """Numbers of the pixels, from 1, on a grid with an empty border; its width; each pixel's place on it."""
    x0, y0 = x[0], y[0]
    x1, y1 = x0, y0
    for k in range(len(x)):
        x0, x1, y0, y1 = min(x0, x[k]), max(x1, x[k]), min(y0, y[k]), max(y1, y[k])
    width = np.int64(x1 - x0 + 3)
    grid = np.zeros(width * (y1 - y0 + 3), np.int32)
    place = np.empty(len(x), np.int64)
    for k in range(len(x)):
        place[k] = (y[k] - y0 + 1) * width + (x[k] - x0 + 1)
        grid[place[k]] = k + 1
    return grid, width, place


@jit
def _peaks(value, grid, place, around):
    """How many pixels have no brighter neighbour; counting ends at two."""
    found = 0
    for k in range(len(value)):
        highest = True
        for step in around:
            other = grid[place[k] + step] - 1
            if other >= 0 and (value[other] > value[k] or (value[other] == value[k] and other < k)):
                highest = False
                break
        if highest:
            found += 1
            if found == 2:
                break
    return found


@jit
def _split(x, y, value, base, levels, contrast, minarea, label):
    """Label a group's pixels by object, from 0; returns the number of objects, and their branches' barycentres."""
    count = len(x)
    whole = np.empty((0, 2))
    if count < 2 * minarea:
        return 1, whole
    grid, width, place = _grid(x, y)
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    if _peaks(value, grid, place, around) < 2:
        return 1, whole
    peak, total = np.float64(value[0]), 0.0
    for one in value:
        peak = max(peak, np.float64(one))
        total += one
    if not peak > base > 0:
        return 1, whole
    level, limits = _levels(value, base, peak, levels)
    seeds, heights = _branches(value, grid, place, around, level, limits, contrast * total, minarea)
    if len(seeds) < 2:
        return 1, whole
    label[:] = -1
    _flood(grid, place, around, level, seeds, heights, label)
    return len(seeds), _share_out(x, y, value, label, len(seeds))


@jit
def _levels(value, base, peak, levels):
    """The number of each pixel's level, and the levels' thresholds, spaced exponentially from base to peak."""
    limits = base * (peak / base) ** (np.arange(levels) / levels)
    level = np.empty(len(value), np.int64)
    scale = levels / np.log(peak / base)
    for k in range(len(value)):
        n = min(max(int(scale * np.log(value[k] / base)), 0), levels - 1)
        while n + 1 < levels and value[k] > limits[n + 1]:
            n += 1
        while n > 0 and not value[k] > limits[n]:
            n -= 1
        level[k] = n
    return level, limits


@jit
def _branches(value, grid, place, around, level, limits, least, minarea):
    """A pixel, and the level, of each branch of the tree that is an object of its own.

    Going down, where two or more branches meet of which each holds more than ``least`` counts above the level at which
    it begins, those not split higher up are objects (Bertin & Arnouts 1996, section 5).
    """
    count, levels = len(value), len(limits)
    # Pixels from the highest level to the lowest.
    ends = np.zeros(levels + 1, np.int64)
    for k in range(count):
        ends[levels - 1 - level[k] + 1] += 1
    for k in range(levels):
        ends[k + 1] += ends[k]
    order, filled = np.empty(count, np.int64), ends[:levels].copy()
    for k in range(count):
        n = levels - 1 - level[k]
        order[filled[n]] = k
        filled[n] += 1
    parent = np.full(count, -1, np.int64)
    area, flux = np.zeros(count, np.int64), np.zeros(count)
    seen, strong_below, whole = np.full(count, -1, np.int64), np.zeros(count, np.int64), np.ones(count, np.bool_)
    # Branches of the level above: a pixel, whether not split yet, whether bright enough.
    branch, unsplit, strong = np.empty(count, np.int64), np.empty(count, np.bool_), np.empty(count, np.bool_)
    branches = 0
    seeds, heights, found = np.empty(16, np.int64), np.empty(16, np.int64), 0
    for n in range(levels - 1, -1, -1):
        added = order[ends[levels - 1 - n] : ends[levels - n]]
        for k in added:
            parent[k], area[k], flux[k] = k, 1, value[k]
            root = k
            for step in around:
                other = grid[place[k] + step] - 1
                if other >= 0 and parent[other] >= 0:
                    other = _root(parent, other)
                    if other != root:
                        if area[other] > area[root]:
                            root, other = other, root
                        parent[other] = root
                        area[root] += area[other]
                        flux[root] += flux[other]
        for b in range(branches):
            root = _root(parent, branch[b])
            if seen[root] != n:
                seen[root], strong_below[root], whole[root] = n, 0, True
            strong_below[root] += strong[b]
            whole[root] &= unsplit[b]
        for b in range(branches):
            root = _root(parent, branch[b])
            if strong_below[root] > 1:
                if strong[b] and unsplit[b]:
                    seeds, heights = _grown(seeds, found), _grown(heights, found)
                    seeds[found], heights[found] = branch[b], n + 1
                    found += 1
                whole[root] = False
        kept = 0
        for b in range(branches):
            root = _root(parent, branch[b])
            if seen[root] == n:  # once a root
                seen[root] = -2 - n
                branch[kept], unsplit[kept] = root, whole[root]
                strong[kept] = flux[root] - limits[n] * area[root] > least
                kept += 1
        for k in added:
            root = _root(parent, k)
            if area[root] >= minarea and seen[root] != -2 - n:
                seen[root] = -2 - n
                branch[kept], unsplit[kept] = root, True
                strong[kept] = flux[root] - limits[n] * area[root] > least
                kept += 1
        branches = kept
    return seeds[:found], heights[:found]


@jit
def _flood(grid, place, around, level, seeds, heights, label):
    """Label the pixels that are connected with a seed at its level."""
    queue = np.empty(len(place), np.int64)
    for number in range(len(seeds)):
        queue[0], head, tail = seeds[number], 0, 1
        label[seeds[number]] = number
        while head < tail:
            k = queue[head]
            head += 1
            for step in around:
                other = grid[place[k] + step] - 1
                if other >= 0 and label[other] < 0 and level[other] >= heights[number]:
                    label[other] = number
                    queue[tail] = other
                    tail += 1


@jit
def _share_out(x, y, value, label, objects):
    """Give each pixel below the junctions to the object that most probably owns it.

    Each object is a bivariate Gaussian with the peak and the moments of its own pixels; the likeliest one takes the pixel:
    where SExtractor throws dice, the same image gives the same objects. Returns their barycentres.
    """
    s, sx, sy = np.zeros(objects), np.zeros(objects), np.zeros(objects)
    sxx, syy, sxy, peak = np.zeros(objects), np.zeros(objects), np.zeros(objects), np.zeros(objects)
    for k in range(len(x)):
        n = label[k]
        if n >= 0:
            v, dx, dy = np.float64(value[k]), np.float64(x[k] - x[0]), np.float64(y[k] - y[0])
            s[n] += v
            sx[n] += v * dx
            sy[n] += v * dy
            sxx[n] += v * dx * dx
            syy[n] += v * dy * dy
            sxy[n] += v * dx * dy
            peak[n] = max(peak[n], v)
    shape = np.empty((objects, 3))
    for n in range(objects):
        sx[n] /= s[n]
        sy[n] /= s[n]
        # A pixel's own width keeps the matrix from being singular.
        vx, vy = sxx[n] / s[n] - sx[n] ** 2 + 1 / 12, syy[n] / s[n] - sy[n] ** 2 + 1 / 12
        vxy = sxy[n] / s[n] - sx[n] * sy[n]
        determinant = vx * vy - vxy * vxy
        shape[n, 0], shape[n, 1], shape[n, 2] = vy / determinant, vx / determinant, -2 * vxy / determinant
    height = np.log(peak)
    for k in range(len(x)):
        if label[k] >= 0:
            continue
        best = -np.inf
        for n in range(objects):
            dx, dy = x[k] - x[0] - sx[n], y[k] - y[0] - sy[n]
            likely = height[n] - 0.5 * (shape[n, 0] * dx * dx + shape[n, 1] * dy * dy + shape[n, 2] * dx * dy)
            if likely > best:
                best, label[k] = likely, n
    centre = np.empty((objects, 2))
    centre[:, 0], centre[:, 1] = sx + x[0], sy + y[0]
    return centre


def paint(x, y, starts, keep, shape):
    """The segmentation map, int32 (rows, columns): 0, or an object's number from 1; keep: its number from 0, or -1."""
    # numpy's memory comes in large pages, numba's in small ones, which take three times as long to be handed out.
    out = np.zeros(shape, np.int32)
    _paint(x, y, starts, keep, out)
    return out


@jit
def _paint(x, y, starts, keep, out):
    for n in range(len(starts) - 1):
        for k in range(starts[n], starts[n + 1]):
            out[y[k], x[k]] = keep[n] + 1


@jit
def clean(x, y, shape, area, flux, faint, threshold, beta):
    """Which objects would not have been found without the wings of a brighter neighbour.

    x, y: barycentres; shape: float64 (n, 5): A, B, Cxx, Cyy, Cxy; area: pixels and flux: counts above the detection
    threshold, on the filtered image; faint: height above the threshold of the pixel at which an object would no longer
    have been large enough; threshold: counts, of each object; beta: CLEAN_PARAM.
    Each object is a Moffat profile I0 (1 + alpha R^2)^-beta that falls to the threshold at its isophote. Returns for each
    object the one that takes it in, or itself (int64 (n,)).
    """
    count = len(x)
    peak, alpha = np.empty(count), np.empty(count)
    for n in range(count):
        ellipse = np.pi * shape[n, 0] * shape[n, 1]
        peak[n] = flux[n] / (2 * ellipse)
        alpha[n] = ((peak[n] / threshold[n]) ** (1 / beta) - 1) * ellipse / area[n] if peak[n] > threshold[n] else 0.0
    into = np.arange(count)
    # By their widths, in powers of two, so that one long trail does not make everything a neighbour of everything.
    width = np.empty(count, np.int64)
    for n in range(count):
        width[n] = max(int(np.log2(max(shape[n, 0], 1.0))), 0)
    for kind in range(np.max(width) + 1):
        members = np.flatnonzero(width == kind)
        members = members[np.argsort(y[members])]
        sorted_y = y[members]
        for n in range(count):
            if alpha[n] <= 0:
                continue
            reach = CLEAN_ZONE * (shape[n, 0] + 2.0 ** (kind + 1))
            first, last = np.searchsorted(sorted_y, y[n] - reach), np.searchsorted(sorted_y, y[n] + reach)
            for k in members[first:last]:
                dx, dy = x[k] - x[n], y[k] - y[n]
                # The fainter of two goes into the brighter.
                if abs(dx) > reach or flux[k] >= flux[n]:
                    continue
                if dx * dx + dy * dy > (CLEAN_ZONE * (shape[n, 0] + shape[k, 0])) ** 2:
                    continue
                value = 1 + alpha[n] * (shape[n, 2] * dx * dx + shape[n, 3] * dy * dy + shape[n, 4] * dx * dy)
                wing = peak[n] * value**-beta if value > 1 else 0.0
                if wing > faint[k] and (into[k] == k or flux[n] > flux[into[k]]):
                    into[k] = n
    # An object that took others in and is itself taken in hands them on.
    for n in range(count):
        while into[into[n]] != into[n]:
            into[n] = into[into[n]]
    return into


@jit
def cut(image, segments, x, y, width, height):
    """Pixels around positions (0-based), float32 (n, height, width); -1e30 outside the image and on other sources."""
    rows, columns = image.shape
    out = np.full((len(x), height, width), np.float32(-1e30))
    for n in range(len(x)):
        x0, y0 = int(np.floor(x[n] + 0.5)) - width // 2, int(np.floor(y[n] + 0.5)) - height // 2
        for j in range(max(0, -y0), min(height, rows - y0)):
            for i in range(max(0, -x0), min(width, columns - x0)):
                other = segments[y0 + j, x0 + i]
                if other == 0 or other == n + 1:
                    out[n, j, i] = image[y0 + j, x0 + i]
    return out
