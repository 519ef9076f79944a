"""Compiled kernels over modes and pixels, object after object."""

from __future__ import annotations

import math

import numpy as np

from skyset.extraction.compiled import jit

_FAST = {"nsz", "arcp", "contract", "reassoc"}  # all but what NaN and infinity need


@jit(fastmath=_FAST, error_model="numpy")
def _rows(values, place, first, last, rows):
    """The table between its nodes of ln n (cubic Hermite): H and dH/d ln kappa, and both over ln n, of kappa nodes."""
    step = place[1]
    i = min(max(int(place[0]), 0), values.shape[0] - 2)
    f = place[0] - i
    v0, v1 = (1 + 2 * f) * (1 - f) ** 2, f * f * (3 - 2 * f)
    s0, s1 = f * (1 - f) ** 2 * step, f * f * (f - 1) * step
    d1 = 6 * f * (1 - f) / step
    t0, t1 = (1 - f) * (1 - 3 * f), f * (3 * f - 2)
    for j in range(first, last):
        a, b = values[i, j], values[i + 1, j]
        for c in range(2):
            rows[j, c] = v0 * a[c] + v1 * b[c] + s0 * a[c + 2] + s1 * b[c + 2]
            rows[j, c + 2] = d1 * (b[c] - a[c]) + t0 * a[c + 2] + t1 * b[c + 2]


@jit(fastmath=_FAST, error_model="numpy")
def jacobian_columns(theta, ix, iy, amplitude, side, table, axes, rows, columns):
    """The Jacobian without the phase, float64 (6, modes), of flux, ln r, e1, e2, ln n, and the model itself."""
    e1, e2 = theta[2], theta[3]
    eta = math.hypot(e1, e2)
    c = math.cosh(eta)
    s = math.sinh(eta) / eta if eta > 1e-3 else 1 + eta * eta / 6
    t = (c - s) / (eta * eta) if eta > 1e-3 else 1 / 3 + eta * eta / 30
    log_n, n_step, log_kappa, step = axes[0], axes[1], axes[2], axes[3]
    nodes = table.shape[1]
    start = theta[1] + math.log(2 * math.pi / side) - log_kappa
    most = 0
    for m in range(len(ix)):
        most = max(most, ix[m] * ix[m] + iy[m] * iy[m])
    first = min(max(int((start - eta / 2) / step), 0), nodes)
    last = min(max(int((start + eta / 2 + 0.5 * math.log(most)) / step) + 3, 0), nodes)
    _rows(table, ((theta[4] - log_n) / n_step, n_step), first, last, rows)
    flux = theta[0]
    for m in range(len(ix)):
        kx, ky = float(ix[m]), float(iy[m])
        kk, a, b = kx * kx + ky * ky, kx * kx - ky * ky, 2 * kx * ky
        ab = a * e1 + b * e2
        square = c * kk + s * ab
        place = (start + 0.5 * math.log(square)) / step
        j = int(place)
        if place < 0:
            h, slope, h_n = 1.0, 0.0, 0.0
        elif j >= nodes - 1:
            h, slope, h_n = 0.0, 0.0, 0.0
        else:
            f = place - j
            g = 1 - f
            v0, v1, s0, s1 = (1 + 2 * f) * g * g, f * f * (3 - 2 * f), f * g * g * step, -f * f * g * step
            h = v0 * rows[j, 0] + v1 * rows[j + 1, 0] + s0 * rows[j, 1] + s1 * rows[j + 1, 1]
            h_n = v0 * rows[j, 2] + v1 * rows[j + 1, 2] + s0 * rows[j, 3] + s1 * rows[j + 1, 3]
            slope = 6 * f * g / step * (rows[j + 1, 0] - rows[j, 0])
            slope += g * (1 - 3 * f) * rows[j, 1] + f * (3 * f - 2) * rows[j + 1, 1]
        p = amplitude[m]
        columns[0, m] = p * h
        columns[1, m] = p * flux * slope
        along = 0.5 * p * flux * slope / square
        columns[2, m] = along * (e1 * (s * kk + t * ab) + s * a)
        columns[3, m] = along * (e2 * (s * kk + t * ab) + s * b)
        columns[4, m] = p * flux * h_n
        columns[5, m] = p * flux * h


@jit(fastmath=_FAST, error_model="numpy")
def _turns(theta, side, ix, iy, cosines, sines):
    """cos and sin of k.(x, y)."""
    half = side // 2 + 1
    cx, sx = np.empty(half), np.empty(half)
    cy, sy = np.empty(2 * half), np.empty(2 * half)
    for j in range(half):
        angle = 2 * math.pi * j * theta[5] / side
        cx[j], sx[j] = math.cos(angle), math.sin(angle)
        angle = 2 * math.pi * j * theta[6] / side
        cy[half + j], sy[half + j] = math.cos(angle), math.sin(angle)
        cy[half - j], sy[half - j] = cy[half + j], -sy[half + j]
    for m in range(len(ix)):
        a, b, c, d = cx[ix[m]], sx[ix[m]], cy[half + iy[m]], sy[half + iy[m]]
        cosines[m] = a * c - b * d
        sines[m] = b * c + a * d


@jit(fastmath=_FAST, error_model="numpy")
def _dot(a, b):
    total = 0.0
    for m in range(len(a)):
        total += a[m] * b[m]
    return total


@jit(fastmath=_FAST, error_model="numpy")
def normal_equations(theta, active, data_re, data_im, ix, iy, amplitude, side, table, axes, scale, chi2, gradient, normal):
    """chi2, -1/2 of its gradient, and J^T J of each active object; ``scale`` turns sums over half the modes into chi2."""
    modes = len(ix)
    rows = np.empty((table.shape[1], 4))
    columns = np.empty((8, modes))
    cosines, sines = np.empty(modes), np.empty(modes)
    real, imaginary = np.empty(modes), np.empty(modes)
    for place in range(len(active)):
        i = active[place]
        own = amplitude[i if len(amplitude) > 1 else 0]
        jacobian_columns(theta[place], ix, iy, own, side, table, axes, rows, columns)
        _turns(theta[place], side, ix, iy, cosines, sines)
        unit = 2 * math.pi / side
        for m in range(modes):
            re, im = data_re[i, m], data_im[i, m]
            real[m] = re * cosines[m] - im * sines[m] - columns[5, m]
            imaginary[m] = re * sines[m] + im * cosines[m]
            columns[6, m] = -unit * iy[m] * columns[5, m]
            columns[5, m] *= -unit * ix[m]
        total = 0.0
        for m in range(modes):
            if own[m] > 0:
                total += real[m] * real[m] + imaginary[m] * imaginary[m]
        chi2[place] = total * scale
        for p in range(7):
            gradient[place, p] = scale * _dot(columns[p], real if p < 5 else imaginary)
            for q in range(p + 1):
                value = 0.0 if q < 5 <= p else scale * _dot(columns[p], columns[q])
                normal[place, p, q] = value
                normal[place, q, p] = value


@jit(fastmath=_FAST, error_model="numpy")
def model_modes(theta, active, ix, iy, amplitude, phase, side, table, axes, out):
    """The model, complex (active, modes)."""
    modes, nodes = len(ix), table.shape[1]
    rows = np.empty((nodes, 4))
    cosines, sines = np.empty(modes), np.empty(modes)
    log_n, n_step, log_kappa, step = axes[0], axes[1], axes[2], axes[3]
    most = 0
    for m in range(modes):
        most = max(most, ix[m] * ix[m] + iy[m] * iy[m])
    for place in range(len(active)):
        which = active[place] if len(amplitude) > 1 else 0
        flux, e1, e2 = theta[place, 0], theta[place, 2], theta[place, 3]
        eta = math.hypot(e1, e2)
        c, s = math.cosh(eta), math.sinh(eta) / eta if eta > 1e-3 else 1 + eta * eta / 6
        start = theta[place, 1] + math.log(2 * math.pi / side) - log_kappa
        first = min(max(int((start - eta / 2) / step), 0), nodes)
        last = min(max(int((start + eta / 2 + 0.5 * math.log(most)) / step) + 3, 0), nodes)
        _rows(table, ((theta[place, 4] - log_n) / n_step, n_step), first, last, rows)
        _turns(theta[place], side, ix, iy, cosines, sines)
        for m in range(modes):
            kx, ky = float(ix[m]), float(iy[m])
            at = (start + 0.5 * math.log(c * (kx * kx + ky * ky) + s * ((kx * kx - ky * ky) * e1 + 2 * kx * ky * e2))) / step
            j = int(at)
            if at < 0:
                h = 1.0
            elif j >= nodes - 1:
                h = 0.0
            else:
                f = at - j
                g = 1 - f
                h = g * g * ((1 + 2 * f) * rows[j, 0] + f * step * rows[j, 1])
                h += f * f * ((3 - 2 * f) * rows[j + 1, 0] - g * step * rows[j + 1, 1])
            out[place, m] = flux * amplitude[which, m] * h * phase[which, m] * complex(cosines[m], -sines[m])


@jit(fastmath=_FAST, error_model="numpy")
def jacobian_modes(theta, active, ix, iy, amplitude, phase, side, table, axes, out):
    """The model's derivatives, complex (active, 7, modes)."""
    modes = len(ix)
    rows = np.empty((table.shape[1], 4))
    columns = np.empty((8, modes))
    cosines, sines = np.empty(modes), np.empty(modes)
    unit = 2 * math.pi / side
    for place in range(len(active)):
        which = active[place] if len(amplitude) > 1 else 0
        jacobian_columns(theta[place], ix, iy, amplitude[which], side, table, axes, rows, columns)
        _turns(theta[place], side, ix, iy, cosines, sines)
        for m in range(modes):
            turn = phase[which, m] * complex(cosines[m], -sines[m])
            for p in range(5):
                out[place, p, m] = columns[p, m] * turn
            out[place, 5, m] = complex(0, -unit * ix[m] * columns[5, m]) * turn
            out[place, 6, m] = complex(0, -unit * iy[m] * columns[5, m]) * turn


@jit(fastmath=_FAST, error_model="numpy")
def pixel_sums(pixels, weights, model, point, out):
    """For each object sums over pixels: weights, pixels used, the model's light on the others; then, weighted, residuals,
    data, point source, and of their products: residuals squared, data squared, data by point, point squared."""
    for i in range(len(pixels)):
        total, used, dark, a, d, p, aa, dd, dp, pp = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for y in range(pixels.shape[1]):
            for x in range(pixels.shape[2]):
                weight = weights[i, y, x] if weights.size > 0 else 1.0
                datum, light, spread = pixels[i, y, x], model[i, y, x], point[i, y, x]
                away = datum - light
                total += weight
                used += 1.0 if weight > 0 else 0.0
                dark += 0.0 if weight > 0 else light
                a += weight * away
                d += weight * datum
                p += weight * spread
                aa += weight * away * away
                dd += weight * datum * datum
                dp += weight * datum * spread
                pp += weight * spread * spread
        out[:, i] = total, used, dark, a, d, p, aa, dd, dp, pp
