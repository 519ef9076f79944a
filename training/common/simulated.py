"""Simulated galaxies on polar grids, with and without rings: as many labelled images as one likes, for pretraining.

A galaxy is a disc, a bulge, and by chance a ring (with a gap inside it), a bar, spiral arms, bright clumps, lopsidedness
and stars in the way, seen at an inclination, with noise. Lengths are in units of the ellipse that ``description`` fits,
which is never quite the galaxy's own. The ranges of the parameters were written down once, by eye, not fitted to labels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from skyset.explore import description

#: What a simulated galaxy is labelled with: present or not, and how much.
PRESENT = ("ring", "bar", "arms", "clumps")
AMOUNTS = ("log ring contrast", "ring radius", "log bulge light", "disc scale length")


class _Draw:
    """Random numbers per galaxy, shaped (galaxies, 1, 1) for use on its grid."""

    def __init__(self, galaxies: int, generator: torch.Generator):
        self.shape, self.generator = (galaxies, 1, 1), generator

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.rand(self.shape, generator=self.generator) * (high - low) + low

    def log_uniform(self, low: float, high: float) -> Tensor:
        return torch.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, spread: float) -> Tensor:
        return torch.randn(self.shape, generator=self.generator) * spread

    def chance(self, probability: float) -> Tensor:
        return (torch.rand(self.shape, generator=self.generator) < probability).float()

    def angle(self) -> Tensor:
        return self.uniform(0, 2 * math.pi)


def simulate(galaxies: int, radii: int, angles: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Galaxies on polar grids.

    Args:
        galaxies, radii, angles: shape of the result.
        generator: of the random numbers.

    Returns:
        ``light`` (galaxies, radii, angles): arcsinh(counts / 8), as ``description`` scales it; ``present`` (galaxies, 4):
        0 or 1 for each of ``PRESENT``; ``amounts`` (galaxies, 4) for each of ``AMOUNTS``.
    """
    draw = _Draw(galaxies, generator)
    radius = ((torch.arange(radii) + 0.5) / radii * description.EXTENT)[None, :, None]
    turn = (torch.arange(angles) / angles * 2 * math.pi)[None, None, :]
    flat = draw.uniform(0.3, 1)
    sky_x, sky_y = radius * torch.cos(turn), radius * torch.sin(turn) * flat  # on the sky
    x, y = _own_plane(sky_x, sky_y, flat, draw)
    r, theta = torch.sqrt(x * x + y * y + 1e-6), torch.atan2(y, x) + draw.angle()

    scale = draw.uniform(0.35, 1.0)
    disc = torch.exp(-r / scale)
    bulge_light = draw.uniform(0, 1) ** 1.5 * 3
    bulge_radius = torch.sqrt(sky_x**2 + (sky_y / draw.uniform(0.6, 1)) ** 2 + 1e-6) / draw.uniform(0.08, 0.5)
    bulge = bulge_light * torch.exp(-draw.uniform(1, 2.5) * bulge_radius ** (1 / draw.uniform(0.8, 3)))
    has_ring, contrast, ring_radius = draw.chance(0.5), draw.log_uniform(0.1, 2), draw.uniform(0.5, 2)
    ring, gap = _ring(r, theta, ring_radius, draw)
    has_bar, bar = draw.chance(0.4), _bar(r, theta, scale, draw)
    has_arms, arms = draw.chance(0.4), _arms(r, theta, draw)
    has_clumps = draw.chance(0.4)
    light = disc * (1 - has_ring * gap) + bulge + has_ring * contrast * torch.exp(-ring_radius / scale) * ring
    clumps = _spots(x, y, 8, 0.6, (0.04, 0.4), (0.05, 0.2), 0.7, draw)
    light = light + has_bar * bar + has_arms * disc * arms + has_clumps * clumps
    side = draw.angle()
    lopsided = draw.chance(0.3) * draw.uniform(0, 0.6) * (x * torch.cos(side) + y * torch.sin(side)).clamp(-1.5, 1.5)
    light = (light * (1 + lopsided)).clamp(min=0) + _spots(sky_x, sky_y, 2, 0.25, (0.2, 2), (0.12, 0.12), 1.5, draw)

    counts = light / light[:, :2].mean(dim=(1, 2), keepdim=True) * draw.log_uniform(40, 220)
    # The rings of the grid hold more pixels further out, so that less noise is left there.
    noise = draw.uniform(0.3, 4) / torch.sqrt(1.5 * radius + 0.3)
    counts = counts + noise * torch.randn(galaxies, radii, angles, generator=generator)
    present = torch.cat([has_ring, has_bar, has_arms, has_clumps], dim=1)[..., 0]
    amounts = [torch.log(has_ring * contrast + 0.05), has_ring * ring_radius, torch.log(bulge_light + 0.1), scale]
    return torch.asinh(counts.clamp(max=255) / description.SOFTENING), present, torch.cat(amounts, dim=1)[..., 0]


def _own_plane(sky_x: Tensor, sky_y: Tensor, flat: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Positions in the galaxy's own plane, whose angle, flatness and centre differ a little from the fitted ellipse's."""
    turn, own_flat = draw.normal(0.1), (flat * torch.exp(draw.normal(0.15))).clamp(0.2, 1)
    x = sky_x * torch.cos(turn) + sky_y * torch.sin(turn) + draw.normal(0.03)
    y = (sky_y * torch.cos(turn) - sky_x * torch.sin(turn)) / own_flat + draw.normal(0.03)
    return x, y


def _turned(r: Tensor, theta: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    turn = draw.angle()
    return r * torch.cos(theta - turn), r * torch.sin(theta - turn)


def _ring(r: Tensor, theta: Tensor, ring_radius: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    """A slightly oval ring, brighter on one or two sides, and the gap inside it as a share of the disc."""
    x, y = _turned(r, theta, draw)
    own = torch.sqrt(x**2 + (y / draw.uniform(0.85, 1)) ** 2 + 1e-6)
    width = draw.uniform(0.06, 0.25) * ring_radius.clamp(max=0.6)
    sides = torch.where(draw.chance(0.5) > 0, 1.0, 2.0)
    uneven = 1 + draw.uniform(0, 0.6) * torch.cos(sides * theta + draw.angle())
    ring = torch.exp(-0.5 * ((own - ring_radius) / width) ** 2) * uneven
    gap = draw.uniform(0, 0.5) * torch.exp(-0.5 * ((own - 0.65 * ring_radius) / (0.2 * ring_radius)) ** 2)
    return ring, gap


def _bar(r: Tensor, theta: Tensor, scale: Tensor, draw: _Draw) -> Tensor:
    x, y = _turned(r, theta, draw)
    length = draw.uniform(0.3, 1)
    shape = (x**2 + (y / draw.uniform(0.2, 0.5)) ** 2) / length**2
    return draw.uniform(0.2, 1.5) * torch.exp(-length / scale) * torch.exp(-(shape**1.5))


def _arms(r: Tensor, theta: Tensor, draw: _Draw) -> Tensor:
    """One to three logarithmic spirals outside the centre, as a share of the disc."""
    number = torch.floor(draw.uniform(1, 4))
    winding = draw.uniform(1.5, 6) * (2 * draw.chance(0.5) - 1)
    phase = number * theta + winding * torch.log(r + 0.05)
    return draw.uniform(0.2, 1) * torch.exp((torch.cos(phase) - 1) * draw.uniform(1, 4)) * (r > 0.3)


def _spots(x: Tensor, y: Tensor, most: int, chance: float, light: tuple, size: tuple, spread: float, draw: _Draw) -> Tensor:
    """Up to ``most`` round spots."""
    total = torch.zeros(())
    for _ in range(most):
        squared = (x - draw.normal(spread)) ** 2 + (y - draw.normal(spread)) ** 2
        total = total + draw.chance(chance) * draw.uniform(*light) * torch.exp(-squared / (2 * draw.uniform(*size) ** 2))
    return total
