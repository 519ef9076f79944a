"""Images in units of flux as a network sees them: stretched, turned and mirrored on the device, whole batches at a time.

Faint and bright pixels of a galaxy differ by a factor of 10,000. The stretch is asinh(flux / softening) (Lupton, Gunn &
Szalay 1999, AJ 118, 1406): linear in the noise, logarithmic in the light, so that a change of magnitude is a shift. Nothing
is zoomed and no brightness changed: both would be another flux, and another redshift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from skyset.errors import UserError
from skyset.training.common.views import resample

STRETCHES = ("asinh", "lupton", "linear")
#: As the authors of GalaxiesML divide fluxes in their example.
LINEAR = 255.0
#: Turns by quarters and their mirror images, which move pixels and change none; turns by any angle, which resample them.
TURNS = ("quarter", "any", "none")
_QUARTERS = 8
#: Bytes hold asinh(flux / softening) from -2 in steps of 1/15, up to 15: they round by 2 % of the softening, or of the flux.
_LOWEST, _STEPS = -2.0, 15.0


@dataclass(frozen=True)
class Stretch:
    """How flux becomes a network's input.

    Args:
        kind: ``asinh`` of each band; ``lupton``: all bands times one factor, asinh of their mean over it, so that colours
            stay (Lupton et al. 2004, PASP 116, 133); ``linear``: flux / 255.
        softening: (bands,) flux where each band's stretch turns from linear to logarithmic, about its noise.
    """

    kind: str
    softening: tuple[float, ...]

    def __post_init__(self):
        if self.kind not in STRETCHES:
            raise UserError(f"no stretch {self.kind!r}; there are {', '.join(STRETCHES)}")
        if not all(np.isfinite(value) and value > 0 for value in self.softening):
            raise UserError(f"the softening must be above 0 in every band, not {list(self.softening)}")

    def scale(self, like: Tensor) -> Tensor:
        """The softening, (bands, 1, 1), where ``like`` is."""
        return torch.tensor(self.softening, dtype=torch.float32, device=like.device).view(-1, 1, 1)

    def __call__(self, flux: Tensor) -> Tensor:
        """Stretched, float32; ``flux`` is float (batch, bands, height, width)."""
        if self.kind == "linear":
            return flux.float() / LINEAR
        relative = flux.float() / self.scale(flux)
        if self.kind == "asinh":
            return torch.asinh(relative)
        mean = relative.mean(dim=1, keepdim=True)
        factor = torch.where(mean.abs() > 1e-6, torch.asinh(mean) / torch.where(mean.abs() > 1e-6, mean, 1), 1)
        return relative * factor

    def to_bytes(self, flux: Tensor) -> Tensor:
        """uint8 of the same shape, from which ``flux`` comes back to 3.4 % or 0.034 of the softening."""
        value = torch.asinh(flux.float() / self.scale(flux))
        return ((value - _LOWEST) * _STEPS).round().clamp(0, 255).to(torch.uint8)

    def flux(self, stored: Tensor) -> Tensor:
        """Flux, float32, of what ``to_bytes`` made (uint8), or of flux in any float dtype."""
        if stored.dtype != torch.uint8:
            return stored.float()
        return torch.sinh(stored.float() / _STEPS + _LOWEST) * self.scale(stored)


def noise_of_bands(images: np.ndarray) -> tuple[float, ...]:
    """Noise of a pixel of each band: 1.48 median absolute deviations of the pixels that are not 0, which pads the frame.

    Args:
        images: float (rows, bands, height, width); a few hundred are enough.

    Raises:
        UserError: a band has no such pixels, or does not vary: there is no flux in it.
    """
    found = []
    for number, band in enumerate(np.moveaxis(np.asarray(images, np.float64), 1, 0)):
        values = band[np.isfinite(band) & (band != 0)]
        noise = 1.4826 * np.median(np.abs(values - np.median(values))) if values.size else 0.0
        if not noise > 0:
            raise UserError(f"band {number} of the images is empty: no flux varies in it")
        found.append(float(noise))
    return tuple(found)


class FluxViews(nn.Module):
    """Turns batches of flux into what a network sees; random in training, upright otherwise.

    Random numbers come from the default generator of the CPU, which `Trainer` saves and restores.

    Args:
        stretch: of the flux.
        turns: ``quarter``, ``any`` (bilinear, on flux) or ``none``.
    """

    def __init__(self, stretch: Stretch, turns: str = "quarter"):
        super().__init__()
        if turns not in TURNS:
            raise UserError(f"no turns {turns!r}; there are {', '.join(TURNS)}")
        self.stretch, self.turns = stretch, turns

    def forward(self, images: Tensor) -> Tensor:
        """Random views in training mode, the upright one otherwise.

        Args:
            images: flux in any float dtype, or bytes of ``Stretch.to_bytes``, (batch, bands, size, size).

        Returns:
            float32 of the same shape, stretched.
        """
        return self.random(images) if self.training else self.turned(images, 0)

    def random(self, images: Tensor) -> Tensor:
        """A turned and mirrored view of each image."""
        count = len(images)
        if self.turns == "quarter":
            which = torch.randint(0, _QUARTERS, (count,))
            return self.stretch(self.stretch.flux(_each_turned(images, which)))
        flux = self.stretch.flux(images)
        if self.turns == "any":
            angle, mirror = torch.rand(count) * 2 * torch.pi, torch.randint(0, 2, (count,)) * 2.0 - 1
            flux = resample(flux, flux.shape[-1], angle, mirror, torch.ones(count), torch.zeros(count, 2))
        return self.stretch(flux)

    def turned(self, images: Tensor, view: int, views: int = 1) -> Tensor:
        """View number ``view``, of eight that are turned by quarters and mirrored; the first is upright."""
        return self.stretch(self.stretch.flux(_turned(images, view % _QUARTERS)))


def _turned(images: Tensor, number: int) -> Tensor:
    turned = torch.rot90(images, number % 4, (-2, -1))
    return turned.flip(-1) if number >= 4 else turned


def _each_turned(images: Tensor, which: Tensor) -> Tensor:
    views = torch.empty_like(images)
    for number in which.unique().tolist():
        rows = (which == number).nonzero()[:, 0].to(images.device)
        views[rows] = _turned(images[rows], number)
    return views


def check_square(shape: Sequence[int], bands: int) -> int:
    """Pixels a side of images of ``shape`` (bands, height, width).

    Raises:
        UserError: another number of bands, or a frame that is not square.
    """
    if len(shape) != 3 or shape[0] != bands or shape[1] != shape[2]:
        raise UserError(f"images of shape {tuple(shape)} are not {bands} bands of a square frame")
    return int(shape[1])
