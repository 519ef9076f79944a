"""Which masks of Galaxy Zoo: 3D count, what is learned from them, and how predictions of them are measured."""

from types import SimpleNamespace

import numpy as np
import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from scipy.stats import binom
from sklearn.metrics import jaccard_score

from skyset.training.common import mask_baselines, mask_metrics, masks
from skyset.training.common.segmentation import (
    averaged_shares,
    begin_at_mean,
    binomial_losses,
    equal_weights,
    load_segmenter,
    maps_of,
    mean_shares,
    segment,
)
from skyset.training.common.views import Views

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


#: Networks of about ten thousand weights.
TINY = {
    "upernet": {"backbone_config": {"depths": [1, 1, 1, 1], "hidden_sizes": [4, 4, 8, 8]}, "hidden_size": 8},
    "segformer": {"hidden_sizes": [4, 8, 8, 8], "num_attention_heads": [1, 1, 1, 1], "decoder_hidden_size": 8},
}


# ---- which masks count


def test_an_empty_mask_is_an_answer_only_where_everybody_was_asked():
    """Columns: center, star, spiral, bar."""
    peaks = np.array([[15, 0, 0, 0], [0, 0, 9, 0], [0, 0, 0, 0], [12, 3, 0, 4], [40, 0, 21, 0]])
    votes = np.array([[-1, -1, 0.5, 0.0], [-1, -1, 0.9, 0.1], [-1, -1, -0.5, -0.5], [-1, -1, 0.0, 0.6], [-1, -1, 1, 0.02]])
    total = np.array([40, 40, 0, 9, 40])
    assert masks._asked(peaks, votes, total, 0.0).tolist() == [
        [15, 15, 0, 0],  # centre marked, no star: everybody could have marked one
        [0, 0, 15, 0],  # nobody marked centre or star, though arms were drawn
        [0, 0, 0, 0],
        [15, 15, 0, 15],
        [40, 15, 21, 0],  # shown to more than 15
    ]
    absent = masks._asked(peaks, votes, total, 0.05)
    assert absent[:, 3].tolist() == [15, 0, 0, 15, 15]  # 0 and 2 % of 40 votes; the third has none
    assert absent[:, 2].tolist() == [0, 15, 0, 0, 21]  # the fourth: nine votes say nothing


@pytest.fixture(scope="module")
def splits(built):
    return masks.load_drawn(str(built), (0.6, 0.2, 0.2))


def test_galaxies_are_read_as_numpy_gives_them_and_never_change_side(splits, built):
    rows = splits["train"]
    volunteers = masks.volunteers_of(rows)
    drawn = masks.drawn_galaxies(rows, volunteers, 525)
    for number in (0, len(rows) - 1):
        row, seen = rows[number], drawn[number]
        counts = np.asarray(row["segmentation"]["array"])
        np.testing.assert_array_equal(seen["masks"], counts)
        np.testing.assert_array_equal(seen["pixel_values"], row["image"].transpose(2, 0, 1))
        np.testing.assert_array_equal(volunteers[number] > 0, masks._asked(
            counts.max(axis=(1, 2))[None], row["segmentation"]["vote_fraction"][None], np.array([0]), 0)[0] > 0)  # fmt: skip
        shares = masks.shares_of(row, volunteers[number])
        assert np.isnan(shares).all(axis=(1, 2)).tolist() == (volunteers[number] <= 0).tolist()
    small = masks.drawn_galaxies(rows, volunteers, 50, classes=("bar", "center"))[0]
    assert small["masks"].shape == (2, 50, 50) and small["labels"].shape == (4,)
    names = {name: set(part["object_id"]) for name, part in splits.items()}
    others = {name: set(part["object_id"]) for name, part in masks.load_drawn(str(built), (0.7, 0.1, 0.2)).items()}
    assert not names["train"] & names["test"] and names["test"] == others["test"] and others["train"] >= names["train"]


def test_counts_of_larger_pixels_are_whole_means():
    counts = np.arange(2 * 6 * 8, dtype=np.uint8).reshape(2, 6, 8)
    larger = masks.reduced(counts, 2).astype(int) - counts[:, 0::3, 1:7].reshape(2, 2, 2, 3).mean(
        axis=3
    )  # rows 1, 4 are 8 on
    assert np.abs(larger - 8).max() <= 2 and masks.reduced(counts, 2).dtype == np.uint8
    dot = np.zeros((1, 60, 60), np.uint8)
    dot[0, 29:35, 29:35] = 15
    assert masks.reduced(dot, 6).max() >= 3, "what is smaller than a pixel is lost"
    np.testing.assert_array_equal(masks.reduced(counts, 6), counts[:, :, 1:7])


def test_classes_that_nobody_drew_are_named():
    some, none = np.array([[15, 15.0]]), np.array([[15, 0.0]])
    with pytest.raises(
        UserError, match=r"no bar was drawn on any of the 1 galaxies of the train split: .* --classes spiral$"
    ):
        masks.check_asked({"train": none}, ("spiral", "bar"))
    with pytest.raises(UserError, match="nor another class"):
        masks.check_asked({"train": some, "test": np.zeros((1, 2))}, ("spiral", "bar"))
    masks.check_asked({"train": some, "test": none}, ("spiral", "bar"))
    with pytest.raises(UserError, match="no such data_dir"):
        masks.load_drawn("nowhere/at/all")


# ---- loss and metrics


def example(galaxies: int = 6, size: int = 9):
    """Predicted shares, counts and volunteers of two classes; nobody was asked for the second class of galaxy 1."""
    dice = np.random.default_rng(0)
    p = dice.random((galaxies, 2, size, size)).astype(np.float32)
    volunteers = np.full((galaxies, 2), 15.0, np.float32)
    volunteers[1, 1], volunteers[2, 0] = 0, 20
    counts = dice.binomial(np.maximum(volunteers, 15).astype(int)[..., None, None], p**2).astype(np.uint8)
    return torch.from_numpy(p), torch.from_numpy(counts), torch.from_numpy(volunteers)


def test_the_loss_is_the_binomial_likelihood_and_knows_who_was_not_asked():
    p, counts, volunteers = example()
    found = binomial_losses(torch.logit(p), counts, volunteers)
    n, k = volunteers.numpy()[..., None, None], counts.numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        constant = binom.logpmf(k, n, k / n)  # what the loss leaves out, with the entropy of the drawn shares
        entropy = -np.nan_to_num(k / n * np.log(k / n)) - np.nan_to_num((1 - k / n) * np.log(1 - k / n))
        wanted = ((constant - binom.logpmf(k, n, p.numpy())) / n + entropy).mean(axis=(2, 3))
    wanted[1, 1] = 0
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    logits = torch.logit(p).requires_grad_()
    binomial_losses(logits, counts, volunteers).sum().backward()
    assert (logits.grad[1, 1] == 0).all() and (logits.grad[1, 0] != 0).all()


def test_metrics_follow_their_definitions():
    p, counts, volunteers = example()
    sums = torch.cat([mask_metrics.statistics(p[i : i + 2], counts[i : i + 2], volunteers[i : i + 2]) for i in (0, 2, 4)])
    found = mask_metrics.metrics_of(sums.numpy(), ("arm", "bar"))
    losses = binomial_losses(torch.logit(p), counts, volunteers).numpy()
    assert found["binomial_loss"] == pytest.approx(losses.sum() / 11, rel=1e-5)
    for k, name in enumerate(("arm", "bar")):
        asked = volunteers[:, k].numpy() > 0
        ours = p[:, k].numpy()[asked]
        theirs = (counts[:, k].numpy() / np.maximum(volunteers[:, k].numpy(), 1)[:, None, None])[asked]
        assert found[f"binomial_loss_{name}"] == pytest.approx(losses[asked, k].mean(), rel=1e-5)
        for voters in (3, 8):
            pairs = (theirs >= voters / 15 - 1e-9).ravel(), (ours >= voters / 15).ravel()
            assert found[f"iou_{voters}_{name}"] == pytest.approx(jaccard_score(*pairs))
        assert found[f"correlation_{name}"] == pytest.approx(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])
        bins = np.clip((ours * 10).astype(int), 0, 9)
        gaps = [abs(ours[bins == b].mean() - theirs[bins == b].mean()) * (bins == b).mean() for b in range(10)]
        assert found[f"ece_{name}"] == pytest.approx(sum(gaps), rel=1e-5)
        _, drawn, _, pixels = mask_metrics.calibration_of(sums.numpy())[k]
        assert pixels.sum() == ours.size and drawn[3] == pytest.approx(theirs[bins == 3].mean())
    assert found["iou_8"] == pytest.approx((found["iou_8_arm"] + found["iou_8_bar"]) / 2)
    perfect = counts / volunteers.clamp(min=1)[:, :, None, None]
    best = mask_metrics.metrics_of(mask_metrics.statistics(perfect, counts, volunteers).numpy(), ("arm", "bar"))
    assert best["iou_3"] == best["iou_8"] == 1 and best["correlation"] == pytest.approx(1)
    assert best["binomial_loss"] == pytest.approx(found["loss_floor"], rel=1e-4) and best["ece"] == pytest.approx(
        0, abs=1e-7
    )


def test_a_class_of_which_nothing_can_be_said_is_left_out_of_the_means():
    p, counts, volunteers = example()
    volunteers[:, 1] = 0
    sums = mask_metrics.statistics(p, counts, volunteers).numpy()
    found = mask_metrics.metrics_of(sums, ("arm", "bar"))
    assert all(np.isnan(found[f"{name}_bar"]) for name in mask_metrics.NAMES)
    assert all(found[name] == pytest.approx(found[f"{name}_arm"]) for name in mask_metrics.NAMES)
    lines = mask_metrics.classes_table(sums, ("arm", "bar")).splitlines()
    assert lines[3] == "| bar | 0 |" + "  |" * 6 and "±" in lines[2]


def test_errors_are_the_spread_over_samples_of_the_galaxies():
    p, counts, volunteers = example(30, 5)
    sums = mask_metrics.statistics(p, counts, volunteers).numpy()
    dice = np.random.default_rng(1)
    samples = [mask_metrics.metrics_of(sums[dice.integers(0, 30, 30)], ("arm", "bar")) for _ in range(400)]
    for name, error in mask_metrics.bootstrap_errors(sums, ("arm", "bar")).items():
        assert error == pytest.approx(np.std([one[name] for one in samples]), rel=0.2), name


# ---- what a network has to beat


def test_simpler_models_are_what_their_names_say():
    dice = torch.Generator().manual_seed(2)
    images = torch.rand(8, 3, 12, 12, generator=dice)
    chance = images[:, :1].repeat(1, 2, 1, 1) ** 2
    counts = torch.binomial(torch.full_like(chance, 15), chance, generator=dice)
    volunteers = torch.full((8, 2), 15.0)
    volunteers[:3, 1] = 0
    counts[:3, 1] = 0  # nobody was asked: these zeros are in no mean
    models = mask_baselines.fit_baselines(images, counts, volunteers)
    mean = models["mean mask"](images[:2])
    torch.testing.assert_close(mean[0, 0], counts[:, 0].mean(dim=0) / 15)
    torch.testing.assert_close(mean[1, 1], counts[3:, 1].mean(dim=0) / 15)
    profile = models["mean share by distance from the centre"](images[:1])[0, 0]
    ring = torch.hypot(torch.arange(12)[:, None] - 5.5, torch.arange(12)[None] - 5.5).round() == 3
    torch.testing.assert_close(profile[ring], mean[0, 0][ring].mean().expand(int(ring.sum())))
    for name in ("colours, logistic regression", "colours and distance, logistic regression"):
        shares = models[name](images)
        assert shares.shape == (8, 2, 12, 12) and (shares - chance).abs().mean() < 0.06
    flat = mask_baselines.fit_baselines(images, torch.zeros_like(counts), volunteers)
    assert flat["colours, logistic regression"](images).max() == 0


# ---- networks


def test_a_network_begins_at_the_mean_share_which_costs_one_for_each_class():
    rows = [{"masks": torch.zeros(2, 8, 8, dtype=torch.uint8), "labels": torch.tensor([15.0, 0])} for _ in range(3)]
    rows[1]["masks"][0, :2] = 12
    rows[2]["masks"][1, :4, :4], rows[2]["labels"][1] = 5, 20
    shares = mean_shares(rows)
    torch.testing.assert_close(shares, torch.tensor([0.8 * 0.25 / 3, 0.25 * 0.25]))
    model, _ = load_segmenter(None, "upernet", TINY["upernet"], ("spiral", "bar"))
    begin_at_mean(model, shares)
    torch.testing.assert_close(torch.sigmoid(model.decode_head.classifier.bias), shares)
    seen = torch.sigmoid(maps_of(model.eval(), torch.zeros(1, 3, 32, 32), (32, 32)))
    assert (seen.mean(dim=(0, 2, 3)) - shares).abs().max() < 0.03
    with torch.no_grad():
        model.decode_head.classifier.bias.zero_()
    model.config.skyset_task = "masks"  # trained before
    begin_at_mean(model, shares)
    assert not model.decode_head.classifier.bias.any()
    of = torch.full((1, 2), 1000.0)
    counts = torch.stack([torch.arange(1000) < 1000 * share for share in shares]).float().reshape(1, 2, 20, 50) * 1000
    constant = torch.logit(counts.mean(dim=(2, 3)) / 1000)[..., None, None].expand(counts.shape)
    costs = binomial_losses(constant, counts, of) * equal_weights(counts.mean(dim=(0, 2, 3)) / 1000)
    torch.testing.assert_close(costs, torch.ones(1, 2))


@pytest.mark.parametrize("kind", ["upernet", "segformer"])
def test_small_networks_have_a_map_a_class_and_segment_an_image(kind):
    model, normalisation = load_segmenter(None, kind, TINY[kind], ("spiral", "bar"))
    assert model.config.id2label == {0: "spiral", 1: "bar"}
    model.config.image_size, model.config.eval_zoom = 32, 0.8
    model.config.image_mean, model.config.image_std = list(normalisation.mean), list(normalisation.std)
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    shares = segment(model, image, number=3)
    assert shares.shape == (2, 50, 50) and shares.dtype == np.float32
    inside = np.isfinite(shares)
    assert inside[:, 5:45, 5:45].all() and inside.sum() == 2 * 40 * 40
    assert shares[inside].min() > 0 and shares[inside].max() < 1
    with pytest.raises(UserError, match="no segmenting model of type 'swiss'"):
        load_segmenter(None, "swiss")


def test_masks_of_other_models_are_averaged_where_they_see_the_sky():
    """A network that is the identity: its turned views agree, whatever their number."""
    images = (torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    smooth = torch.nn.functional.avg_pool2d(images.float(), 9, 1, 4).to(torch.uint8)
    views = Views(32, eval_zoom=0.7).eval()

    def model(pixel_values):
        return SimpleNamespace(logits=torch.logit(pixel_values, eps=1e-4))

    one, five = (averaged_shares(model, views, smooth, views(smooth), number) for number in (1, 5))
    torch.testing.assert_close(one, views(smooth), atol=1e-4, rtol=0)
    assert (one - five).abs().max() < 0.03
