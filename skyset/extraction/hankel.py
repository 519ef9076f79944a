"""Sersic profiles in Fourier space: their Hankel transforms, tabulated over wavenumber and index, with derivatives.

A circular profile I(r) of unit flux has the two-dimensional Fourier transform::

    H(k) = 2 pi int_0^inf I(r) J0(k r) r dr,        H(0) = 1

Over ln r that is a convolution, done by one FFT (FFTLog: Talman 1978, J. Comput. Phys. 29, 35; Hamilton 2000, MNRAS 312,
257). With the bias 1 used here the kernel's Mellin transform is a pure phase, so nothing is amplified. The profiles are
smooth and end steeply over ln r, and the error is that of rounding: some 1e-12.

The Sersic table is made at first use in some 0.1 s and kept: nothing is stored on disk.

ln Gamma and b are our own: scipy.special has both (loggamma, gammaincinv), but nothing else here needs scipy, and
thirty lines do. ``simulate`` has its own b on purpose: truth and fit share no code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

#: Sersic indices that the table holds.
N_MIN, N_MAX = 0.3, 8.0
#: Step of ln r and ln k, and how many: 82 e-folds, so that what an FFT wraps around is below rounding.
STEP, POINTS = 0.04, 2048
#: Nodes of ln n, and the part of ln(k r_e) that is kept; below, H is 1 to 1e-5 for every n, above it is not needed.
_N_NODES = 129
_LOW, _HIGH = -14.0, 11.0


def _log_gamma(z: np.ndarray) -> np.ndarray:
    """ln Gamma of complex numbers with a positive real part (Stirling's series eight steps up; DLMF 5.11.1)."""
    shift = sum(np.log(z + step) for step in range(8))
    z = z + 8
    series = 1 / (12 * z) - 1 / (360 * z**3) + 1 / (1260 * z**5) - 1 / (1680 * z**7)
    return (z - 0.5) * np.log(z) - z + 0.5 * math.log(2 * math.pi) + series - shift


def log_radii() -> np.ndarray:
    """ln r of the samples, float64 (POINTS,), symmetric about 0; the ln k of the transform are the same numbers."""
    return (np.arange(POINTS) - POINTS // 2) * STEP


def hankel_transform(light: np.ndarray) -> np.ndarray:
    """H(k) of circular profiles.

    Args:
        light: 2 pi r^2 I(r) at ``exp(log_radii())``, float64 (..., POINTS); it falls off at both ends.

    Returns:
        float64 (..., POINTS), H at k = ``exp(log_radii())``.
    """
    x = log_radii()
    omega = 2 * np.pi * np.fft.rfftfreq(POINTS, STEP)
    # int e^t J0(e^t) e^{-i w t} dt = 2^{-i w} Gamma(1/2 - i w/2) / Gamma(1/2 + i w/2)   (DLMF 10.22.43)
    kernel = np.exp(-1j * (omega * math.log(2) + 2 * _log_gamma(0.5 + 0.5j * omega).imag))
    spectrum = np.fft.rfft(np.fft.ifftshift(light * np.exp(-x), axes=-1))
    return np.fft.fftshift(np.fft.irfft(kernel * spectrum.conj(), POINTS), axes=-1) * np.exp(-x)


def _half_light(a: float) -> float:
    """The b where the regularised incomplete gamma function P(a, b) is 1/2, by Newton steps on its series (DLMF 8.7.1)."""
    b = max(a - 1 / 3 + 0.02 / a, 0.05)
    for _ in range(50):
        density = math.exp((a - 1) * math.log(b) - b - math.lgamma(a))
        term = total = 1 / a
        step = 0
        while term > 1e-17 * total:
            step += 1
            term *= b / (a + step)
            total += term
        change = (density * b * total - 0.5) / density
        b = max(b - change, b / 4)
        if abs(change) < 1e-14 * b:
            break
    return b


def sersic_b(n) -> np.ndarray:
    """b of I(r) = I_e exp(-b ((r / r_e)^(1/n) - 1)), for which half the light lies within r_e: gamma(2n, b) = Gamma(2n) / 2.

    Args:
        n: Sersic index, any shape, positive.
    """
    n = np.asarray(n, np.float64)
    return np.array([_half_light(2 * each) for each in n.ravel()]).reshape(n.shape)


def sersic_light(n: float, log_r: np.ndarray) -> np.ndarray:
    """2 pi r^2 I(r) of a Sersic profile with unit flux and unit half-light radius, at ``log_r``."""
    b = float(sersic_b(n))
    norm = 2 * n * math.log(b) - math.log(n) - math.lgamma(2 * n)
    return np.exp(norm + 2 * log_r - b * np.exp(np.minimum(log_r / n, 50.0)))


@dataclass(frozen=True, eq=False)
class SersicTable:
    """H(kappa, n) for a bicubic Hermite interpolation, kappa = k r_e.

    Attributes:
        values: float64 (n nodes, kappa nodes, 4): H, dH/d ln kappa, dH/d ln n, d2H/d ln kappa d ln n.
        log_n, log_kappa: the first node of each axis.
        n_step, kappa_step: the step between nodes, in ln.
    """

    values: np.ndarray
    log_n: float
    n_step: float
    log_kappa: float
    kappa_step: float


@lru_cache(maxsize=1)
def sersic_table() -> SersicTable:
    """The table, made once a process."""
    log_r = log_radii()
    nodes = np.linspace(math.log(N_MIN), math.log(N_MAX), _N_NODES)
    # Derivatives over ln n by a five-point difference of the profile itself, which is smooth: error some 1e-10.
    h = 2e-3
    light = {shift: np.stack([sersic_light(math.exp(node + shift * h), log_r) for node in nodes]) for shift in range(-2, 3)}
    slope = (light[-2] - 8 * light[-1] + 8 * light[1] - light[2]) / (12 * h)
    keep = (log_r > _LOW) & (log_r < _HIGH)
    parts = []
    for each in (light[0], slope):
        parts += [hankel_transform(each), hankel_transform(_scaled_slope(each))]
    values = np.ascontiguousarray(np.stack(parts, axis=-1)[:, keep])
    return SersicTable(values, float(nodes[0]), float(nodes[1] - nodes[0]), float(log_r[keep][0]), STEP)


def _scaled_slope(light: np.ndarray) -> np.ndarray:
    """The light whose transform is dH/d ln k: H(k) keeps its form when r shrinks as k grows, so it is -d/d ln r."""
    omega = 2 * np.pi * np.fft.rfftfreq(POINTS, STEP)
    # The Nyquist frequency of a derivative of real samples has no part.
    omega[-1] = 0
    weighted = light * np.exp(-log_radii())  # falls off at both ends, as an FFT wants; d/dx (w e^x) = (w' + w) e^x
    derivative = np.fft.irfft(1j * omega * np.fft.rfft(weighted), POINTS)
    return -(derivative + weighted) * np.exp(log_radii())


@lru_cache(maxsize=16)
def _moffat_nodes(beta: float) -> tuple[np.ndarray, np.ndarray]:
    x = log_radii()
    light = 2 * (beta - 1) * np.exp(2 * x - beta * np.logaddexp(0.0, 2 * x))
    return hankel_transform(light), hankel_transform(_scaled_slope(light))


def moffat_transform(beta: float, log_k: np.ndarray) -> np.ndarray:
    """H(k) of I(r) = (beta - 1) / pi (1 + r^2)^(-beta), ``beta`` above 1; cubic Hermite between nodes, good to 1e-6."""
    value, slope = _moffat_nodes(beta)
    place = (log_k - log_radii()[0]) / STEP
    i = np.clip(place.astype(np.int64), 0, POINTS - 2)
    f = np.clip(place - i, 0, 1)
    g = 1 - f
    between = (1 + 2 * f) * g**2 * value[i] + f**2 * (3 - 2 * f) * value[i + 1]
    return between + STEP * f * g * (g * slope[i] - f * slope[i + 1])
