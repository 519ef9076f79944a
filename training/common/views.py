"""Views of galaxies on the device: rotation by any angle, mirroring, zoom and cropping in one resampling of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Of the views of a batch: angle, mirroring, zoom and shift, as ``resample`` takes them.
Geometry = tuple[Tensor, Tensor, Tensor, Tensor]


class Views(nn.Module):
    """Turns batches of uint8 images into what a model sees; random in training, fixed otherwise.

    The sky has no up and no handedness: any rotation and its mirror image are the same galaxy. One bilinear resampling does
    it all, so that a pixel is interpolated once. Random numbers come from the default generator of the CPU, which
    `Trainer` saves and restores: a resumed run draws what an unbroken one would.

    Args:
        size: pixels per side of the output.
        mean, std: of the channels, for pixels between 0 and 1; one value or one a channel.
        zoom: smallest and largest share of the image's side that a training view shows.
        eval_zoom: the share that all other views show.
        shift: views in training are off-centre by up to this share of the image's side.
        brightness: standard deviation of the factor, close to 1, that multiplies a training view.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        zoom: tuple[float, float] = (0.6, 1.0),
        eval_zoom: float = 0.8,
        shift: float = 0.02,
        brightness: float = 0.05,
    ):
        super().__init__()
        self.size, self.zoom, self.eval_zoom, self.shift, self.brightness = size, zoom, eval_zoom, shift, brightness
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Random views in training mode, the upright central view otherwise.

        Args:
            images: uint8, or float between 0 and 1, (batch, channels, height, width).

        Returns:
            float32 (batch, channels, size, size), normalised.
        """
        return self.random(images) if self.training else self.turned(images, 0)

    def random(self, images: Tensor) -> Tensor:
        """A view of each image: turned by any angle, mirrored half the time, zoomed, shifted, its brightness changed."""
        return self._random(images)[0]

    def _random(self, images: Tensor) -> tuple[Tensor, Geometry]:
        count = len(images)
        angle = torch.rand(count) * 2 * math.pi
        mirror = torch.randint(0, 2, (count,)) * 2.0 - 1
        zoom = torch.empty(count).uniform_(*self.zoom)
        shift = (torch.rand(count, 2) * 2 - 1) * self.shift * 2  # the grid runs from -1 to 1
        factor = 1 + self.brightness * torch.randn(count, 1, 1, 1)
        views = resample(images, self.size, angle, mirror, zoom, shift)
        return self.normalise(views * factor.to(views.device)), (angle, mirror, zoom, shift)

    def turned(self, images: Tensor, view: int, views: int = 1) -> Tensor:
        """View number ``view`` of ``views``: turned by equal steps, every second one mirrored."""
        return self.normalise(resample(images, self.size, *self._turn(len(images), view, views)))

    def _turn(self, count: int, view: int = 0, views: int = 1) -> Geometry:
        ones = torch.ones(count)
        angle, mirror = ones * (2 * math.pi * view / views), ones if view % 2 == 0 else -ones
        return angle, mirror, ones * self.eval_zoom, torch.zeros(count, 2)

    def with_masks(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The views of ``forward``, and of masks of the same sky: turned, mirrored, zoomed and shifted with their images.

        Args:
            images: as in ``forward``.
            masks: counts, (batch, classes, height, width) of any integer dtype up to 2^24, at any number of pixels.

        Returns:
            ``views, masks``: the latter in their own dtype, (batch, classes, size, size), see ``resample_counts``.
        """
        views, place = self._random(images) if self.training else (self.turned(images, 0), self._turn(len(images)))
        return views, resample_counts(masks, self.size, *place)

    def upright(self, maps: Tensor, view: int, views: int) -> Tensor:
        """Maps of view number ``view`` of ``views`` as the upright view would show them; 0 where the view showed nothing.

        Args:
            maps: float (batch, any, size, size).
        """
        if view == 0:
            return maps
        angle, mirror, _, still = self._turn(len(maps), view, views)
        # A mirroring followed by a turn is undone by the turn back, which the mirror shows as the turn itself.
        grid = _grid(maps, self.size, -angle * mirror, mirror, torch.ones(len(maps)), still)
        return functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean.to(pixels.device)) / self.std.to(pixels.device)


def resample(images: Tensor, size: int, angle: Tensor, mirror: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Turned, mirrored and zoomed cut-outs.

    Args:
        images: uint8, or float between 0 and 1, (batch, channels, height, width).
        size: pixels per side of the output.
        angle: (batch,) radians, counter-clockwise.
        mirror: (batch,) 1, or -1 to mirror left and right.
        zoom: (batch,) share of the image's side that the output shows.
        shift: (batch, 2) of the centre, right and down, in half sides.

    Returns:
        float32 (batch, channels, size, size) between 0 and 1. What lies outside an image is its reflection.
    """
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    views = pixels.new_empty(len(pixels), pixels.shape[1], size, size)
    for rows, chosen in _as_fine(pixels, size, zoom):
        grid = _grid(chosen, size, angle[rows], mirror[rows], zoom[rows], shift[rows])
        views[rows.to(pixels.device)] = _sampled(chosen, grid, "bilinear")
    return views


def _as_fine(pixels: Tensor, size: int, zoom: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of a batch no finer than their views: numbers of rows, and their pixels.

    Sampling takes the nearest pixels; a much finer image has to be averaged first, or noise turns into structure: by as
    much as this view shrinks it, whatever the others of the batch do.
    """
    finest = (size / zoom.double()).round().long().clamp(max=min(pixels.shape[-2:]))
    for side in finest.unique().tolist():
        rows = (finest == side).nonzero()[:, 0]
        chosen = pixels if len(rows) == len(pixels) else pixels[rows.to(pixels.device)]
        if side < min(chosen.shape[-2:]):
            chosen = functional.interpolate(chosen, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        yield rows, chosen


def _sampled(pixels: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(pixels, grid, mode=mode, padding_mode="reflection", align_corners=False)


def resample_counts(masks: Tensor, size: int, angle: Tensor, mirror: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Masks of counts, cut out as ``resample`` cuts images.

    A pixel of the result has the count of the nearest pixel at its place: counts stay counts, so many of so many
    volunteers. A mask much finer than the view is averaged first, as images are, and rounded to whole counts, so that
    what is smaller than a pixel of the view is not lost.

    Args:
        masks: (batch, classes, height, width) of any integer dtype up to 2^24, at any number of pixels.
        size, angle, mirror, zoom, shift: as in ``resample``.

    Returns:
        (batch, classes, size, size) in the dtype of ``masks``. What lies outside a mask is its reflection, as with images.
    """
    pixels = masks.float()
    counts = pixels.new_empty(len(pixels), pixels.shape[1], size, size)
    for rows, chosen in _as_fine(pixels, size, zoom):
        grid = _grid(chosen, size, angle[rows], mirror[rows], zoom[rows], shift[rows])
        counts[rows.to(pixels.device)] = _sampled(chosen.round(), grid, "nearest")
    return counts.to(masks.dtype)


def _grid(pixels: Tensor, size: int, angle: Tensor, mirror: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Where each pixel of the output lies in the input, (batch, size, size, 2); arguments as in ``resample``."""
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], dim=1), torch.stack([sin * mirror, cos, shift[:, 1]], dim=1)], dim=1
    ).to(pixels)
    return functional.affine_grid(matrix, [len(pixels), pixels.shape[1], size, size], align_corners=False)
