"""Masks of counts, turned, mirrored, zoomed and shifted with their images."""

import math

import pytest

torch = pytest.importorskip("torch")

from skyset.training.common.views import Views, resample_counts

STILL = torch.zeros(1, 2)


def counts_of(size: int, classes: int = 2) -> torch.Tensor:
    """uint8 (3, classes, size, size): lopsided hills of up to 15 volunteers, another in each galaxy and class."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    places = torch.linspace(-0.5, 0.5, 3 * classes)
    hills = [15 * torch.exp(-((x - a) ** 2) / 0.1 - (y + a * a) ** 2 / 0.04) for a in places]
    return torch.stack(hills).round().to(torch.uint8).reshape(3, classes, size, size)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask_size", [60, 90])
def test_masks_stay_on_their_images_whatever_their_numbers_of_pixels(training, mask_size):
    counts = counts_of(mask_size)
    images = torch.nn.functional.interpolate(counts.float() / 15, size=(60, 60), mode="bilinear", antialias=True)
    views = Views(40, zoom=(0.6, 0.9), eval_zoom=0.8, brightness=0).train(training)
    torch.manual_seed(3)
    seen, masks = views.with_masks(images, counts)
    torch.testing.assert_close(masks.float() / 15, seen, atol=0.15, rtol=0)
    assert (masks.float() / 15 - seen).abs().mean() < 0.015
    assert masks.float().var(dim=(2, 3)).min() > 0.5, "a mask was lost"


def test_counts_stay_counts_and_no_random_number_is_drawn_for_them():
    counts = torch.where(counts_of(50) > 7, 15, 3).to(torch.uint8)
    images = torch.rand(3, 3, 50, 50)
    views = Views(31).train()
    torch.manual_seed(4)
    seen, masks = views.with_masks(images, counts)
    assert masks.dtype == torch.uint8 and {3, 15} < set(masks.unique().tolist()) <= set(range(3, 16))
    fine = Views(90).train()
    assert set(fine.with_masks(images, counts)[1].unique().tolist()) == {3, 15}  # not shrunk: never a mean of the two
    torch.manual_seed(4)
    torch.testing.assert_close(views.train()(images), seen, atol=0, rtol=0)
    seen, masks = views.eval().with_masks(images, counts)
    torch.testing.assert_close(views(images), seen, atol=0, rtol=0)
    assert masks.shape == (3, 2, 31, 31)


def test_quarter_turns_and_mirroring_move_every_count():
    counts = torch.arange(144, dtype=torch.uint8).reshape(1, 1, 12, 12)
    one = torch.ones(1)
    turned = resample_counts(counts, 12, torch.full((1,), math.pi / 2), one, one, STILL)
    assert torch.equal(turned, torch.rot90(counts, 1, (2, 3)))
    assert torch.equal(resample_counts(counts, 12, torch.zeros(1), -one, one, STILL), counts.flip(3))
    assert torch.equal(resample_counts(counts, 6, torch.zeros(1), one, one * 0.5, STILL), counts[:, :, 3:9, 3:9])


@pytest.mark.parametrize("view", range(5))
def test_maps_of_turned_views_are_turned_back(view):
    images = counts_of(64).float() / 15
    views = Views(48, eval_zoom=0.8).eval()
    back = views.upright(torch.cat([views.turned(images, view, 5), torch.ones(3, 1, 48, 48)], dim=1), view, 5)
    maps, covered = back[:, :-1], back[:, -1:]
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    assert covered[:, 0][:, torch.hypot(x, y) < 23].min() == pytest.approx(1, abs=1e-5)
    inside = covered > 0.999
    assert ((maps - views.turned(images, 0, 5)) * inside).abs().max() < 0.06
