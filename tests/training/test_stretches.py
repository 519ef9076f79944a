"""Flux as a network sees it."""

import numpy as np
import pytest
import torch

from skyset.errors import UserError
from skyset.training.common.stretches import FluxViews, Stretch, check_square, noise_of_bands

SOFTENING = (0.02, 0.5)


def flux(rows=3, size=6):
    return torch.randn(rows, 2, size, size, generator=torch.Generator().manual_seed(0)) * 5


def test_asinh_is_linear_in_the_noise_and_logarithmic_in_the_light():
    stretch = Stretch("asinh", SOFTENING)
    values = torch.tensor([1e-4, 1e3, 1e4]).expand(2, 3)[None, :, None]
    faint, bright, brighter = stretch(values)[0, :, 0].unbind(1)
    assert torch.allclose(faint, 1e-4 / torch.tensor(SOFTENING), rtol=1e-4)
    assert torch.allclose(brighter - bright, torch.full((2,), np.log(10).item()), atol=1e-3)


def test_lupton_keeps_the_ratio_of_bands():
    stretched, image = Stretch("lupton", (1.0, 1.0))(flux()), flux()
    assert torch.allclose(stretched[:, 0] * image[:, 1], stretched[:, 1] * image[:, 0], atol=1e-3)
    assert torch.allclose(stretched.mean(1), torch.asinh(image.mean(1)), atol=1e-4)


def test_bytes_round_by_two_percent():
    stretch = Stretch("asinh", SOFTENING)
    image = torch.cat([flux(), flux() * 1000, torch.zeros(1, 2, 6, 6)]).abs()
    again = stretch.flux(stretch.to_bytes(image))
    assert ((again - image).abs() <= 0.034 * (image + stretch.scale(image)) * 1.01).all()
    assert torch.equal(stretch.flux(image.half()), image.half().float())


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_views_move_pixels_and_change_none(kind):
    stretch, image = Stretch("asinh", SOFTENING), flux(40)
    stored = stretch.to_bytes(image) if kind == "uint8" else image.half()
    views = FluxViews(stretch, "quarter")
    eight = torch.stack([views.turned(stored, view, 8) for view in range(8)])
    assert len({tuple(view[0].flatten().tolist()) for view in eight}) == 8
    torch.manual_seed(1)
    drawn = views.train()(stored)
    which = [(eight[:, row] == drawn[row]).flatten(1).all(1).nonzero().flatten().tolist() for row in range(40)]
    assert all(len(each) == 1 for each in which) and len({each[0] for each in which}) == 8
    assert torch.equal(views.eval()(stored), eight[0])


def test_any_angle_keeps_the_middle_and_none_keeps_all():
    stretch, image = Stretch("asinh", SOFTENING), torch.zeros(4, 2, 9, 9)
    image[:, :, 4, 4] = 7
    turned = FluxViews(stretch, "any").train()(image)
    assert torch.allclose(turned[:, :, 4, 4], stretch(image)[:, :, 4, 4], atol=1e-4)
    assert torch.equal(FluxViews(stretch, "none").train()(image), stretch(image))


def test_noise_is_of_pixels_that_are_not_padding():
    rng = np.random.default_rng(0)
    images = rng.normal(0, [[[[0.1]], [[2.0]]]], (20, 2, 16, 16))
    images[..., :6] = 0
    images[3, 0, 9, 9] = np.nan
    assert noise_of_bands(images) == pytest.approx((0.1, 2.0), rel=0.05)
    images[:, 1] = 0
    with pytest.raises(UserError, match="band 1 of the images is empty"):
        noise_of_bands(images)


def test_what_is_no_stretch_is_refused():
    with pytest.raises(UserError, match="no stretch 'log'"):
        Stretch("log", (1.0,))
    with pytest.raises(UserError, match="above 0 in every band"):
        Stretch("asinh", (1.0, 0.0))
    with pytest.raises(UserError, match="no turns"):
        FluxViews(Stretch("asinh", (1.0,)), "half")
    with pytest.raises(UserError, match="not 5 bands"):
        check_square((3, 8, 8), 5)
    assert check_square((5, 8, 8), 5) == 8
