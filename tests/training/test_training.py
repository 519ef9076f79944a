"""The training scripts' parts, and fine-tuning from end to end with networks of a few thousand parameters."""

import dataclasses
import hashlib
import importlib
import json
import math
import os
import pickle
import re
import runpy
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyset.errors import UserError
from skyset.secrets import login_of

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import transformers
from accelerate.state import AcceleratorState
from datasets import Dataset
from matplotlib.figure import Figure
from transformers import (
    AutoModelForImageClassification,
    TrainerCallback,
)

from skyset.training import finetune_rings
from skyset.training.common import (
    linear,
    metrics,
    timm_convnext,
)
from skyset.training.common.arguments import parse
from skyset.training.common.batches import EpochBatches
from skyset.training.common.blocks import block_depths, freeze_all_but, layer_decay_groups
from skyset.training.common.data import revision_of
from skyset.training.common.images import (
    LabelledImages,
    repeats_of_rows,
    to_tensor,
)
from skyset.training.common.models import (
    image_size,
    load_classifier,
    load_encoder,
)
from skyset.training.common.rings import label_by_votes, load_rings
from skyset.training.common.views import (
    Views,
    resample,
)
from tests.galaxies import (
    CONVNEXT,
    VIT,
    build_rings,
)
from tests.processes import forked, imported, killed_once, status_of

pytestmark = pytest.mark.usefixtures("cache_of_its_own", "undrawn")
SCRIPT = Path(finetune_rings.__file__)
SAVEFIG = Figure.savefig


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny networks are faster so, and CI runs two workers on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def quick_cards():
    """Most runs here are of one training over the same rows: what their cards say of them is worked out once for equal
    input, and their figures are drawn where a test looks at them (`drawn`)."""

    def once_for_equal_input(function, key_of):
        found = {}

        def remembered(*arguments):
            key = key_of(*arguments)
            if key not in found:
                found[key] = function(*arguments)
            return found[key]

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        scores = once_for_equal_input(finetune_rings.score_baselines, lambda *splits: tuple(s._fingerprint for s in splits))
        patch.setattr(finetune_rings, "score_baselines", scores)
        errors = once_for_equal_input(
            finetune_rings.bootstrap_errors,
            lambda labels, probabilities, threshold: (labels.tobytes(), probabilities.tobytes(), threshold),
        )
        patch.setattr(finetune_rings, "bootstrap_errors", errors)
        yield


@pytest.fixture
def drawn(undrawn, monkeypatch):
    """Figures are drawn."""
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)


@pytest.fixture(scope="module")
def rings(tmp_path_factory) -> Path:
    """The survey built from 60 simulated galaxies."""
    return build_rings(tmp_path_factory.mktemp("rings"), 60)


def command(rings: Path, output: Path, model: str = CONVNEXT, *more: str, kind: str = "convnextv2") -> list[str]:
    settings = {
        "--data_dir": rings,
        "--output_dir": output,
        "--model_type": kind,
        "--config_overrides": model,
        "--image_size": 32,
        "--per_device_train_batch_size": 8,
        "--learning_rate": 1e-3,
        "--logging_steps": 1,
        "--disable_tqdm": True,
        "--use_cpu": True,
    }
    return [str(word) for pair in settings.items() for word in pair] + list(more)


def losses(output: Path) -> dict[int, float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


# ---- metrics and small models, against definitions


def test_auc_and_average_precision_follow_their_definitions():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 12, 60) / 12  # with ties
    ones, zeros = scores[labels == 1], scores[labels == 0]
    pairs = [(a > b) + 0.5 * (a == b) for a in ones for b in zeros]
    assert metrics.auc(labels, scores) == pytest.approx(np.mean(pairs))
    expected, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        recall = labels[called].sum() / labels.sum()
        expected += (recall - recall_before) * labels[called].mean()
        recall_before = recall
    assert metrics.average_precision(labels, scores) == pytest.approx(expected)


def test_the_error_of_an_auc_is_its_spread_over_samples():
    rng = np.random.default_rng(4)
    labels = np.arange(300) % 3 == 0
    samples = [np.round(rng.normal(size=300) + labels, 1) for _ in range(400)]  # with ties
    spread = np.std([metrics.auc(labels, scores) for scores in samples])
    assert metrics.auc_error(labels, samples[0]) == pytest.approx(spread, rel=0.15)
    assert np.isnan(metrics.auc_error(np.array([1, 0, 0]), np.array([0.3, 0.2, 0.1])))
    drawn = metrics.bootstrap_errors(labels, 1 / (1 + np.exp(-samples[0])), samples=300)
    assert drawn["auc"] == pytest.approx(spread, rel=0.2) and set(drawn) > {"auc", "f1", "ece", "brier"}
    assert metrics.interval(0.99, 0.02) == (pytest.approx(0.9508), 1.0)


def test_metrics_of_a_small_table():
    labels, probabilities = np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.6, 0.1])
    found = metrics.binary_metrics(labels, probabilities, threshold=0.5)
    assert found["accuracy"] == found["precision"] == found["recall"] == found["f1"] == 0.5
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)
    assert found["auc"] == 0.75
    assert "auc" not in metrics.binary_metrics(np.array([1, 1]), np.array([0.2, 0.9]))
    with pytest.raises(ValueError, match="not a finite number"):
        metrics.auc(labels, np.array([0.1, np.nan, 0.3, 0.2]))


@pytest.mark.parametrize("decimals", [1, 9])
def test_samples_have_the_metrics_of_their_rows(decimals):
    rng = np.random.default_rng(5)
    probabilities = -np.sort(-np.round(rng.random(60), decimals))
    labels = rng.random(60) < probabilities
    for draw in range(20):
        rows = rng.integers(0, 60, 60) if draw else rng.choice(np.flatnonzero(labels), 60)  # the first has one class only
        wanted = metrics.binary_metrics(labels[rows], probabilities[rows], 0.4)
        found = metrics.metrics_of_sample(labels, probabilities, np.bincount(rows, minlength=60), 0.4)
        assert found == {name: pytest.approx(value, abs=1e-12) for name, value in wanted.items()}


def test_logistic_regression_is_at_its_minimum():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(80, 5)) * [1, 10, 0.1, 1, 0] + 3
    labels = (rows[:, 0] + rng.normal(size=80) > 3).astype(int)
    model = linear.Logistic.fit(rows, labels, strength=0.5)
    x, p = model.pipeline[:-1].transform(rows), model.probability(rows)
    gradient = 0.5 * x.T @ (p - labels) + model.pipeline[-1].coef_[0]
    assert x.shape == (80, 4) and np.abs(gradient).max() < 1e-6  # the constant column is left out
    assert abs((p - labels).sum()) < 1e-6  # the bias is not held back
    np.testing.assert_allclose(linear.sigmoid(model.score(rows)), p)
    few = [*np.flatnonzero(labels == 0)[:2], *np.flatnonzero(labels == 1)[:1]]
    wide = linear.Logistic.fit(rows[few], labels[few])  # fewer rows than columns
    tall = linear.Logistic.fit(np.repeat(rows[few], 9, 0), np.repeat(labels[few], 9), 1 / 9)
    np.testing.assert_allclose(wide.score(rows), tall.score(rows), atol=1e-6)
    for kind in (linear.Logistic, linear.KernelLogistic):
        with pytest.raises(UserError, match="one class only"):
            kind.fit(rows, np.ones(80))


def test_kernel_logistic_regression_learns_what_a_line_cannot():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, 2))
    labels = (np.hypot(*rows.T) > 1).astype(int)
    train, test = slice(0, 200), slice(200, 300)
    curved = linear.KernelLogistic.fit(rows[train], labels[train], 10).probability(rows[test])
    straight = linear.Logistic.fit(rows[train], labels[train]).probability(rows[test])
    assert metrics.auc(labels[test], curved) > 0.97 > 0.8 > metrics.auc(labels[test], straight)


def test_neighbours_are_those_of_a_full_sort():
    rng = np.random.default_rng(3)
    train, test, labels = rng.normal(size=(50, 6)), rng.normal(size=(9, 6)), rng.integers(0, 2, 50)
    shares = linear.neighbours_share(train, labels, test, k=7)
    for row, share in zip(test, shares, strict=True):
        cosine = train @ row / np.linalg.norm(train, axis=1)
        assert share == pytest.approx(labels[np.argsort(-cosine)[:7]].mean())


def test_folds_hold_each_row_once_and_equal_shares():
    labels = np.array([1] * 33 + [0] * 50)
    fold = linear.stratified_folds(labels, 5, seed=4)
    assert set(fold) == set(range(5))
    for value in (0, 1):
        sizes = np.bincount(fold[labels == value], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert (fold != linear.stratified_folds(labels, 5, seed=5)).any()


# ---- views


def gradient_images(count: int = 2, size: int = 40) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return torch.stack([x, y, (x - 0.5) ** 2 + (y - 0.5) ** 2])[None].repeat(count, 1, 1, 1)


def test_resampling_turns_and_mirrors_as_torch_does():
    images, one, still = gradient_images(), torch.ones(2), torch.zeros(2, 2)
    upright = resample(images, 40, torch.zeros(2), one, one, still)
    torch.testing.assert_close(upright, images, atol=1e-5, rtol=0)
    quarter = resample(images, 40, torch.full((2,), math.pi / 2), one, one, still)
    torch.testing.assert_close(quarter, torch.rot90(images, 1, (2, 3)), atol=1e-4, rtol=0)
    mirrored = resample(images, 40, torch.zeros(2), -one, one, still)
    torch.testing.assert_close(mirrored, images.flip(3), atol=1e-5, rtol=0)


def test_zoom_shows_the_middle_and_round_things_do_not_change():
    images, one, still = gradient_images(), torch.ones(2), torch.zeros(2, 2)
    zoomed = resample(images, 20, torch.zeros(2), one, one * 0.5, still)
    torch.testing.assert_close(zoomed, images[:, :, 10:30, 10:30], atol=1e-4, rtol=0)
    turned = resample(images, 40, torch.tensor([0.3, 2.0]), one, one * 0.6, still)
    upright = resample(images, 40, torch.zeros(2), one, one * 0.6, still)
    torch.testing.assert_close(turned[:, 2], upright[:, 2], atol=2e-3, rtol=0)


def test_views_are_random_in_training_only_and_follow_the_seed():
    images = (gradient_images() * 255).to(torch.uint8)
    views = Views(24, mean=(0.5,), std=(0.25,))
    torch.manual_seed(5)
    first, second = views(images), views(images)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first[0], first[1])  # every galaxy has a view of its own
    torch.manual_seed(5)
    torch.testing.assert_close(views(images), first, atol=0, rtol=0)
    views.eval()
    torch.testing.assert_close(views(images), views(images), atol=0, rtol=0)
    assert views(images).shape == (2, 3, 24, 24)
    expected = (resample(images, 24, torch.zeros(2), torch.ones(2), torch.ones(2) * 0.8, torch.zeros(2, 2)) - 0.5) / 0.25
    torch.testing.assert_close(views(images), expected)


def test_a_fine_image_is_averaged_before_it_is_sampled():
    noise = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(6))
    small = resample(noise, 32, torch.tensor([0.4]), torch.ones(1), torch.ones(1), torch.zeros(1, 2))
    assert small.std() < 0.25 * noise.std()


@pytest.mark.parametrize("zoom", [0.6, 0.8, 1.0])
def test_the_sharpness_of_a_view_does_not_depend_on_the_others_of_the_batch(zoom):
    """Reduced to the view's own number of pixels; with the prefilter of zoom 1, a view at .6 would lose three quarters."""
    random = torch.Generator().manual_seed(11)
    noise, none = torch.rand(4, 1, 160, 160, generator=random), torch.zeros(4)
    zooms = torch.tensor([zoom, 1.0, 0.7, 0.6])
    together = resample(noise, 96, none, torch.ones(4), zooms, torch.zeros(4, 2))
    alone = resample(noise[:1], 96, none[:1], torch.ones(1), zooms[:1], torch.zeros(1, 2))
    torch.testing.assert_close(together[:1], alone, atol=0, rtol=0)
    side = round(96 / zoom)
    first = (
        noise[:1]
        if side == 160
        else torch.nn.functional.interpolate(
            noise[:1], size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )
    )
    start = (side - 96) // 2
    if (side - 96) % 2 == 0:
        middle = first[:, :, start : start + 96, start : start + 96]
        assert together[0].std() == pytest.approx(float(middle.std()), rel=0.02)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
def test_images_of_any_mode_become_tensors(mode):
    grey = np.add.outer(np.arange(50), np.arange(60)).astype(np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    pixels = to_tensor(image, 20)
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 20, 20)
    expected = np.asarray(Image.fromarray(grey[:, 5:55]).resize((20, 20), Image.Resampling.BILINEAR))
    assert np.abs(pixels[0].numpy().astype(int) - expected).max() <= 3


def test_arrays_become_tensors_and_fluxes_are_refused():
    array = np.random.default_rng(7).integers(0, 255, (3, 30, 30), np.uint8)
    torch.testing.assert_close(to_tensor(array, 30), torch.from_numpy(array))
    torch.testing.assert_close(to_tensor(array.transpose(1, 2, 0), 30), torch.from_numpy(array))
    five = np.random.default_rng(8).integers(0, 255, (5, 30, 30), np.uint8)
    torch.testing.assert_close(to_tensor(five, 30, 5), torch.from_numpy(five))
    with pytest.raises(UserError, match="5 channels, the model takes 3"):
        to_tensor(five, 30, 3)
    with pytest.raises(UserError, match="float32"):
        to_tensor(array.astype(np.float32), 30)


# ---- batches


TRAININGS = [
    "classify_sdss",
    "finetune_rings",
    "segment_gz3d",
    "train_iqa",
    "train_photoz",
    "train_photoz --table x",
    "train_votes",
]


@pytest.mark.parametrize("words", [*TRAININGS, "predict", "extract_representations", "rings_from_representations"])
def test_every_script_prints_its_help(words, capsys):
    """A per cent sign in one help text of dataclasses is enough that argparse prints none."""
    name, *options = words.split()
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"skyset.training.{name}").main([*options, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and text.startswith("usage: "), text[:200]
    if words in TRAININGS:
        assert "with no value the last whole one" in " ".join(text.split())


@pytest.mark.parametrize(("rows", "batch", "world"), [(10, 3, 1), (17, 4, 2), (9, 1, 4), (5, 2, 4), (64, 8, 2)])
def test_processes_share_every_row_exactly_once_an_epoch(rows, batch, world):
    for epoch in (0, 1):
        ranks = [EpochBatches(rows, batch, 3, rank, world) for rank in range(world)]
        for sampler in ranks:
            sampler.set_epoch(epoch)
        shares = [list(sampler) for sampler in ranks]
        assert {len(share) for share in shares} == {len(ranks[0])}
        assert all(chunk for share in shares for chunk in share)
        assert sorted(row for share in shares for chunk in share for row in chunk) == list(range(rows))
    assert list(EpochBatches(rows, batch, 3)) != list(EpochBatches(rows, batch, 4))


def test_rings_are_repeated_in_training_only(rings):
    splits = load_rings(str(rings))
    train = LabelledImages(splits["train"], 16, repeats=(1, 3))
    seen = train.labels[train.order]
    assert np.bincount(seen).tolist() == [np.sum(train.labels == 0), 3 * np.sum(train.labels == 1)]
    assert len(LabelledImages(splits["test"], 16)) == len(splits["test"])
    weights = finetune_rings.balanced_weights(seen)
    assert weights[seen].mean() == pytest.approx(1)
    assert weights[0] * (seen == 0).sum() == pytest.approx(float(weights[1] * (seen == 1).sum()))


@pytest.mark.parametrize(("rings_there", "others"), [(100, 190), (100, 100), (40, 10), (7, 30)])
def test_repeats_balance_the_classes(rings_there, others):
    rows = Dataset.from_dict({"label": [1] * rings_there + [0] * others})
    repeats = finetune_rings.balancing_repeats(rows)
    labels = np.asarray(rows["label"])
    counts = repeats_of_rows(labels, repeats, seed=3)
    assert counts[labels == 1].sum() == counts[labels == 0].sum() == max(rings_there, others)
    for label in (0, 1):
        assert set(counts[labels == label]) <= {int(repeats[label]), int(repeats[label]) + 1}
    np.testing.assert_array_equal(repeats_of_rows(labels, repeats, seed=3), counts)
    assert repeats == (1.0, 1.0) or rings_there == 40 or (repeats_of_rows(labels, repeats, seed=4) != counts).any()


def test_the_revision_is_of_the_values_alone(tmp_path):
    """Not of where the images lay, when they were written, how the rows are cut into files, or how they are stored."""
    from skyset.build_scripts.gz_decals.build_parent_sample import main as build

    rings, raw = build_rings(tmp_path / "here", 12), tmp_path / "elsewhere"
    shutil.copytree(rings.parent / "raw", raw, copy_function=shutil.copyfile)
    built = ["--local_data_path", str(raw), "--num_processes", "1"]
    assert build([*built, "-o", str(tmp_path / "one")]) == 0
    assert build([*built, "-o", str(tmp_path / "two"), "--files_per_object"]) == 0
    found = {revision_of(str(folder), "rings_basic") for folder in (rings, tmp_path / "one", tmp_path / "two")}
    assert len(found) == 1 and len(found.pop()) == 12
    image = next((raw / "images").iterdir())
    Image.fromarray(np.asarray(Image.open(image)) // 2).save(image)
    assert build([*built, "-o", str(tmp_path / "three")]) == 0
    assert revision_of(str(tmp_path / "three"), "rings_basic") != revision_of(str(rings), "rings_basic")


def test_the_advanced_catalogue_is_labelled_by_votes(rings):
    rows = load_rings(str(rings))["train"]
    share = np.linspace(0, 1, len(rows))
    share[3] = np.nan  # nobody was asked
    labelled = label_by_votes(rows.add_column("ring_fraction", share), 0.5, 0.2)
    expected = [number for number, value in enumerate(share) if value > 0.5 or value < 0.2]
    assert labelled["object_id"][:] == [rows["object_id"][number] for number in expected]
    assert labelled["label"][:] == [int(share[number] > 0.5) for number in expected]
    assert labelled[0]["image"].size == rows[0]["image"].size
    assert labelled.features["label"].names == ["no_ring", "ring"]


# ---- models


def timm_state(depths, sizes, channels=3, conv_mlp=True) -> dict[str, torch.Tensor]:
    """A ConvNeXt state dict in timm's names and shapes."""
    random = torch.Generator().manual_seed(9)

    def tensor(*shape):
        return torch.randn(*shape, generator=random) * 0.2

    state = {
        "stem.0.weight": tensor(sizes[0], channels, 4, 4),
        "stem.0.bias": tensor(sizes[0]),
        "stem.1.weight": 1 + tensor(sizes[0]),
        "stem.1.bias": tensor(sizes[0]),
    }
    for stage, (depth, size) in enumerate(zip(depths, sizes, strict=True)):
        name = f"stages.{stage}"
        if stage:
            before = sizes[stage - 1]
            state |= {
                f"{name}.downsample.0.weight": 1 + tensor(before),
                f"{name}.downsample.0.bias": tensor(before),
                f"{name}.downsample.1.weight": tensor(size, before, 2, 2),
                f"{name}.downsample.1.bias": tensor(size),
            }
        tail = (1, 1) if conv_mlp else ()
        for block in range(depth):
            at = f"{name}.blocks.{block}"
            state |= {
                f"{at}.gamma": tensor(size),
                f"{at}.conv_dw.weight": tensor(size, 1, 7, 7),
                f"{at}.conv_dw.bias": tensor(size),
                f"{at}.norm.weight": 1 + tensor(size),
                f"{at}.norm.bias": tensor(size),
                f"{at}.mlp.fc1.weight": tensor(4 * size, size, *tail),
                f"{at}.mlp.fc1.bias": tensor(4 * size),
                f"{at}.mlp.fc2.weight": tensor(size, 4 * size, *tail),
                f"{at}.mlp.fc2.bias": tensor(size),
            }
    return state | {"head.norm.weight": 1 + tensor(sizes[-1]), "head.norm.bias": tensor(sizes[-1])}


def timm_forward(state: dict[str, torch.Tensor], depths, images: torch.Tensor) -> torch.Tensor:
    """ConvNeXt written out over timm's names: the mean over the image after the last stage, normalised."""
    f = torch.nn.functional

    def norm(x, name):
        return f.layer_norm(x.movedim(1, -1), x.shape[1:2], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6).movedim(
            -1, 1
        )

    x = norm(f.conv2d(images, state["stem.0.weight"], state["stem.0.bias"], stride=4), "stem.1")
    for stage, depth in enumerate(depths):
        at = f"stages.{stage}"
        if stage:
            x = norm(x, f"{at}.downsample.0")
            x = f.conv2d(x, state[f"{at}.downsample.1.weight"], state[f"{at}.downsample.1.bias"], stride=2)
        for block in range(depth):
            name = f"{at}.blocks.{block}"
            y = f.conv2d(x, state[f"{name}.conv_dw.weight"], state[f"{name}.conv_dw.bias"], padding=3, groups=x.shape[1])
            y = norm(y, f"{name}.norm").movedim(1, -1)
            y = f.gelu(f.linear(y, state[f"{name}.mlp.fc1.weight"].flatten(1), state[f"{name}.mlp.fc1.bias"]))
            y = f.linear(y, state[f"{name}.mlp.fc2.weight"].flatten(1), state[f"{name}.mlp.fc2.bias"])
            x = x + (y * state[f"{name}.gamma"]).movedim(-1, 1)
    return f.layer_norm(x.mean((2, 3)), x.shape[1:2], state["head.norm.weight"], state["head.norm.bias"], 1e-6)


@pytest.mark.parametrize(
    ("depths", "sizes", "conv_mlp"), [((1, 2, 1), (8, 12, 16), False), ((2, 2, 8, 2), (80, 160, 320, 640), True)]
)
def test_timm_convnext_gives_the_same_outputs(depths, sizes, conv_mlp):
    """The second is convnext_nano, the smallest of Zoobot's encoders."""
    state = timm_state(depths, sizes, conv_mlp=conv_mlp)
    model = timm_convnext.convert(state, num_labels=2).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(10))
    with torch.no_grad():
        expected = timm_forward(state, depths, images)
        found = model.base_model(images).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def test_a_folder_in_timms_format_loads_as_classifier_and_encoder(tmp_path):
    from safetensors.torch import save_file

    state = timm_state((1, 1), (8, 12), channels=1)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "convnext_nano", "num_classes": 0}))
    model, normalisation = load_classifier(str(tmp_path), labels=("no_ring", "ring"))
    assert model.config.num_channels == 1 and model.config.id2label == {0: "no_ring", 1: "ring"}
    assert (normalisation.mean, normalisation.std) == ((0.0,), (1.0,))
    encoder, _ = load_encoder(str(tmp_path))
    torch.testing.assert_close(encoder.embeddings.patch_embeddings.weight, state["stem.0.weight"])
    with pytest.raises(UserError, match="not a plain ConvNeXt"):
        timm_convnext.convert({**state, "stages.0.blocks.0.mlp.grn.weight": torch.ones(1)})
    state.pop("stages.1.blocks.0.norm.bias")
    with pytest.raises(UserError, match="lacks or misfits"):
        timm_convnext.convert(state)


@pytest.mark.parametrize(
    ("kind", "config", "blocks"), [("convnextv2", CONVNEXT, 3), ("vit", VIT, 3)], ids=["convnextv2", "vit"]
)
def test_layer_decay_and_freezing(kind, config, blocks):
    model, _ = load_classifier(model_type=kind, config_overrides=json.loads(config))
    depths, head = block_depths(model)
    assert head == blocks and set(depths.values()) == set(range(blocks + 1))
    groups = layer_decay_groups(model, 1e-2, 0.5, 0.05, {name for name in depths if name.endswith("weight")})
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-2 * 0.5 ** (head - depths[name]))
    assert rates[id(model.classifier.weight)] == 1e-2
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    freeze_all_but(model, 1)
    trained = {depths[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {head - 1, head}
    assert {group["name"] for group in layer_decay_groups(model, 1, 0.5, 0, set())} == {f"block {head - 1}", "head"}
    with pytest.raises(UserError, match="blocks"):
        freeze_all_but(model, 9)


def test_frozen_batch_normalisation_stands_still():
    config = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
    model, _ = load_classifier(model_type="resnet", config_overrides=config)
    freeze_all_but(model, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model(torch.randn(4, 3, 32, 32))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0, msg=name)


class Touches:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def spoiled(folder: Path, marker: Path, **changes) -> str:
    """A tiny model's folder whose configuration is changed, with code beside it that writes a file when it is run."""
    model, _ = load_classifier(model_type="convnextv2", config_overrides=json.loads(CONVNEXT))
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass OwnConfig: pass\nclass OwnModel: pass\n")
    return str(folder)


AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForImageClassification": "own.OwnModel", "AutoModel": "own.OwnModel"}


@pytest.mark.parametrize("load", [load_classifier, load_encoder])
def test_code_that_comes_with_a_model_is_not_run(tmp_path, load, caplog):
    marker = tmp_path / "was_run"
    known = spoiled(tmp_path / "known", marker, auto_map=AUTO_MAP)
    model, _ = load(known)
    assert "which is not run" in caplog.text and "ConvNextV2" in type(model).__name__
    model.save_pretrained(tmp_path / "saved")
    assert "auto_map" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    with pytest.raises(UserError, match="needs code of its own") as caught:
        load(spoiled(tmp_path / "unknown", marker, auto_map=AUTO_MAP, model_type="own"))
    assert "\n" not in str(caught.value) and not marker.exists()


@pytest.mark.parametrize("load", [load_classifier, load_encoder])
def test_pickled_damaged_and_missing_weights_are_refused(tmp_path, load):
    folder = Path(spoiled(tmp_path / "model", tmp_path / "was_run"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be used"):
        load(str(folder))
    weights.unlink()
    with pytest.raises(UserError, match="it has no safetensors"):
        load(str(folder))
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump(Touches(tmp_path / "was_run"), file)
    with pytest.raises(UserError, match=r"its weights are pickled \(pytorch_model\.bin\)"):
        load(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load(str(folder))
    assert not (tmp_path / "was_run").exists()


def test_a_fixed_image_size_is_kept():
    model, _ = load_classifier(model_type="vit", config_overrides=json.loads(VIT))
    assert image_size(model) == 32
    with pytest.raises(UserError, match="32 pixels"):
        image_size(model, 64)
    free, _ = load_classifier(model_type="convnextv2", config_overrides=json.loads(CONVNEXT))
    assert image_size(free, 48) == 48


# ---- fine-tuning from end to end


@pytest.mark.usefixtures("drawn")
def test_fine_tuning_writes_model_and_card(rings, tmp_path):
    output, cards = tmp_path / "out", tmp_path / "cards"
    options = (
        "--max_steps",
        "6",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "3",
        "--save_strategy",
        "steps",
        "--save_steps",
        "3",
        "--layer_decay",
        "0.8",
        "--class_weights",
        "--eval_views",
        "2",
        "--early_stopping_patience",
        "3",
        "--card_dir",
        str(cards),
    )
    found = finetune_rings.main(command(rings, output, CONVNEXT, *options))
    assert 0 <= found["auc"] <= 1 and set(found) == set(metrics.binary_metrics(np.array([0, 1]), np.array([0.1, 0.9])))
    card = (cards / "README.md").read_text()
    test_rows = len(load_rings(str(rings))["test"])
    assert f"{test_rows} galaxies of `gz_decals`, config `rings_basic`, split `test`" in card
    assert f"| this model | {found['auc']:.3f} |" in card
    assert "radial profiles, logistic regression" in card and "vote fractions" in card
    assert (cards / "roc.png").stat().st_size > 5000 and (cards / "calibration.png").stat().st_size > 5000
    from huggingface_hub import ModelCard

    results = {result.metric_type: result for result in ModelCard.load(cards / "README.md").data.eval_results}
    assert results["auc"].metric_value == pytest.approx(found["auc"], abs=1e-5)
    assert results["auc"].dataset_split == "test" and results["auc"].dataset_config == "rings_basic"
    assert len(results["auc"].dataset_revision) == 12
    again = AutoModelForImageClassification.from_pretrained(output)
    assert again.config.id2label == {0: "no_ring", 1: "ring"}
    from transformers import pipeline

    image = load_rings(str(rings))["test"][0]["image"]
    answer = {row["label"]: row["score"] for row in pipeline("image-classification", model=str(output))(image)}
    assert sum(answer.values()) == pytest.approx(1) and set(answer) == {"no_ring", "ring"}
    measured = finetune_rings.main(
        [
            "--do_train",
            "false",
            "--model_name_or_path",
            str(output),
            *command(rings, tmp_path / "again", CONVNEXT, "--eval_views", "2"),
        ]
    )
    assert measured["auc"] == pytest.approx(found["auc"], abs=1e-6)  # the saved model is the measured one


@pytest.mark.parametrize(
    ("kind", "config", "save_steps", "logging"),
    [
        pytest.param("convnextv2", CONVNEXT, 6, 1, id="convnextv2, between epochs"),
        pytest.param("convnextv2", CONVNEXT, 4, 3, id="convnextv2, inside an epoch, between reports"),
        pytest.param("vit", VIT, 4, 1, id="vit, inside an epoch"),
    ],
)
def test_a_resumed_run_continues_the_losses_of_an_unbroken_one(
    rings, tmp_path, kind, config, save_steps, logging, monkeypatch
):
    steps = str(save_steps)
    options = (
        "--num_train_epochs",
        "2",
        "--save_strategy",
        "steps",
        "--save_steps",
        steps,
        "--eval_strategy",
        "steps",
        "--eval_steps",
        steps,
        "--save_total_limit",
        "20",
        "--layer_decay",
        "0.7",
        "--logging_steps",
        str(logging),
    )
    finetune_rings.main(command(rings, tmp_path / "whole", config, *options, kind=kind))
    whole = losses(tmp_path / "whole")
    assert len(whole) == 12 // logging  # six steps an epoch

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            if state.global_step == 7:
                raise KeyboardInterrupt

    original = finetune_rings.ImageTrainer.__init__
    with monkeypatch.context() as patch:

        def with_stop(trainer, **others):
            original(trainer, **others)
            trainer.add_callback(Stop())

        patch.setattr(finetune_rings.ImageTrainer, "__init__", with_stop)
        with pytest.raises(KeyboardInterrupt):
            finetune_rings.main(command(rings, tmp_path / "broken", config, *options, kind=kind))
    finetune_rings.main(command(rings, tmp_path / "broken", config, *options, "--resume_from_checkpoint", kind=kind))
    assert losses(tmp_path / "broken") == whole
    first, second = (AutoModelForImageClassification.from_pretrained(tmp_path / name) for name in ("whole", "broken"))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0, msg=name)


def test_the_best_checkpoint_is_the_one_kept(rings, tmp_path):
    """For a ViT stock `Trainer` keeps the last weights instead, with a warning."""
    options = (
        "--num_train_epochs",
        "3",
        "--metric_for_best_model",
        "loss",
        "--save_total_limit",
        "9",
        "--learning_rate",
        "0.02",
    )
    finetune_rings.main(command(rings, tmp_path, VIT, *options, kind="vit"))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    best = AutoModelForImageClassification.from_pretrained(state["best_model_checkpoint"])
    kept = AutoModelForImageClassification.from_pretrained(tmp_path)
    for (name, a), b in zip(best.state_dict().items(), kept.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0, msg=name)


STEPS = (
    "--max_steps",
    "12",
    "--save_strategy",
    "steps",
    "--save_steps",
    "3",
    "--eval_strategy",
    "steps",
    "--eval_steps",
    "3",
    "--save_total_limit",
    "20",
)


@pytest.fixture(scope="module")
def finished(rings, tmp_path_factory) -> Path:
    """A run of 12 steps with checkpoints at 3, 6, 9 and 12, to copy."""
    output = tmp_path_factory.mktemp("finished") / "run"
    finetune_rings.main(command(rings, output, CONVNEXT, *STEPS))
    return output


@pytest.fixture
def unfinished(finished, tmp_path) -> Path:
    """The same as if it had been killed after the checkpoint of step 9."""
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    shutil.rmtree(output / "checkpoint-12")
    for path in output.iterdir():
        if path.is_file():
            path.unlink()
    record = json.loads((finished / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**record, "finished": False, "files": {}, "card": {}}))
    return output


def same_weights(first: Path, second: Path) -> bool:
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_the_same_command_goes_on_where_a_killed_run_stood(rings, finished, unfinished, caplog):
    found = finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS))
    assert "going on from" in caplog.text and "checkpoint-9" in caplog.text
    assert losses(unfinished) == losses(finished) and same_weights(unfinished, finished)
    assert found["auc"] == json.loads((finished / "test_results.json").read_text())["test_auc"]
    finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS, "--from_scratch"))
    assert losses(unfinished) == losses(finished) and same_weights(unfinished, finished)


@pytest.mark.parametrize(
    "damages",
    [
        {9: ("model.safetensors", "cut"), 6: ("optimizer.pt", "gone")},
        {9: ("optimizer.pt", "flipped"), 6: ("trainer_state.json", "cut")},
        {9: ("rng_state.pth", "cut"), 6: ("scheduler.pt", "gone")},
        {9: ("run.json", "gone"), 6: ("losses_0.json", "gone")},
    ],
    ids=lambda damages: ", ".join(f"{name} {damage}" for name, damage in damages.values()),
)
def test_checkpoints_that_are_cut_or_damaged_are_passed_over(rings, finished, unfinished, caplog, damages):
    for step, (name, damage) in damages.items():
        path = unfinished / f"checkpoint-{step}" / name
        content = bytearray(path.read_bytes())
        path.unlink()
        if damage != "gone":
            content[len(content) // 2] ^= 1
            path.write_bytes(content[: len(content) // 2 if damage == "cut" else None])
    finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS))
    for step, (name, _) in damages.items():
        assert re.search(rf"checkpoint-{step} is passed over: .*{name}", caplog.text)
    assert "going on from" in caplog.text and "checkpoint-3" in caplog.text
    assert losses(unfinished) == losses(finished) and same_weights(unfinished, finished)


def test_a_checkpoint_whose_best_is_gone_is_passed_over(rings, finished, unfinished, caplog):
    state = json.loads((unfinished / "checkpoint-9" / "trainer_state.json").read_text())
    shutil.rmtree(unfinished / f"checkpoint-{state['best_global_step']}")
    finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS))
    assert "passed over" in caplog.text or "begins at step 0" in caplog.text or state["best_global_step"] == 9
    assert losses(unfinished) == losses(finished) and same_weights(unfinished, finished)


def test_a_pickle_in_a_checkpoint_is_not_run(rings, finished, unfinished, caplog, tmp_path):
    """Also where its digest is right."""
    checkpoint = unfinished / "checkpoint-9"
    with open(checkpoint / "optimizer.pt", "wb") as file:
        pickle.dump(Touches(tmp_path / "was_run"), file)
    record = json.loads((checkpoint / "run.json").read_text())
    record["files"]["optimizer.pt"] = hashlib.sha256((checkpoint / "optimizer.pt").read_bytes()).hexdigest()
    (checkpoint / "run.json").write_text(json.dumps(record))
    finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS))
    assert "optimizer.pt cannot be read without running code" in caplog.text
    assert not (tmp_path / "was_run").exists() and same_weights(unfinished, finished)


def test_a_finished_run_says_so_and_trains_no_more(rings, finished, tmp_path, caplog):
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    found = finetune_rings.main(command(rings, output, CONVNEXT, *STEPS))
    assert "finished (step 12)" in caplog.text
    assert sorted(path.name for path in output.glob("checkpoint-*")) == sorted(f"checkpoint-{n}" for n in (3, 6, 9, 12))
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before
    (output / "README.md").unlink()  # the card is written again: where it is gone, or asked for
    again = finetune_rings.main(command(rings, output, CONVNEXT, *STEPS))
    assert again == pytest.approx(found) and (output / "README.md").exists()
    asked = finetune_rings.main(command(rings, output, CONVNEXT, *STEPS, "--do_predict"))
    assert asked == pytest.approx(found) and same_weights(output, finished)


def test_a_run_killed_after_its_last_checkpoint_is_concluded(rings, finished, tmp_path):
    """Stock `Trainer` would train one step more, and write checkpoint-13."""
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    for path in output.iterdir():
        if path.is_file():
            path.unlink()
    record = json.loads((finished / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**record, "finished": False, "files": {}, "card": {}}))
    finetune_rings.main(command(rings, output, CONVNEXT, *STEPS))
    assert not (output / "checkpoint-13").exists()
    assert losses(output) == losses(finished) and same_weights(output, finished)
    assert json.loads((output / "run.json").read_text())["finished"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--seed", "7"), "seed 42 (now 7)"),
        (("--learning_rate", "0.01"), "learning_rate 0.001 (now 0.01)"),
        (("--max_steps", "13"), "max_steps 12 (now 13)"),
        (("--image_size", "24"), "image_size 32 (now 24)"),
        (("--per_device_train_batch_size", "4"), "per_device_train_batch_size 8 (now 4)"),
        (("--zoom_min", "0.5"), "zoom [0.6, 1.0, 0.8] (now [0.5, 1.0, 0.8])"),
        (("--class_weights",), "class_weights False"),
        (("--lr_scheduler_type", "linear"), "lr_scheduler_type cosine (now linear)"),
        (("--config_overrides", VIT, "--model_type", "vit"), "model_type convnextv2 (now vit)"),
    ],
)
def test_another_run_is_refused_by_what_differs(rings, unfinished, change, message):
    before = sorted(path for path in unfinished.rglob("*"))
    for more in ((), ("--resume_from_checkpoint",), ("--resume_from_checkpoint", str(unfinished / "checkpoint-6"))):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS, *change, *more))
        assert "\n" not in str(caught.value)
    assert sorted(path for path in unfinished.rglob("*")) == before


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text('{"set')])
def test_checkpoints_say_whose_they_are_where_the_runs_record_is_lost(rings, finished, unfinished, spoil):
    spoil(unfinished / "run.json")
    with pytest.raises(UserError, match="holds a run with other settings: learning_rate"):
        finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS, "--learning_rate", "0.9"))
    finetune_rings.main(command(rings, unfinished, CONVNEXT, *STEPS))
    assert same_weights(unfinished, finished)


def test_a_run_on_other_data_is_refused(unfinished, tmp_path):
    other = build_rings(tmp_path, 61)
    with pytest.raises(UserError, match=r"holds a run with other settings: data \w{12} \(now \w{12}\)"):
        finetune_rings.main(command(other, unfinished, CONVNEXT, *STEPS))


def test_what_makes_no_difference_may_differ(rings, finished, unfinished, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(rings, moved)
    free = (
        "--logging_steps",
        "2",
        "--log_level",
        "error",
        "--dataloader_num_workers",
        "1",
        "--save_total_limit",
        "9",
        "--per_device_eval_batch_size",
        "3",
    )
    finetune_rings.main(command(moved, unfinished, CONVNEXT, *STEPS, *free))
    assert same_weights(unfinished, finished)


def test_files_of_others_are_never_replaced_unasked(rings, finished, tmp_path):
    output = tmp_path / "mine"
    shutil.copytree(finished, output)
    (output / "run.json").unlink()  # trained by another program
    for more in ((), ("--from_scratch",)):
        with pytest.raises(UserError, match="was not written by this run"):
            finetune_rings.main(command(rings, output, CONVNEXT, *STEPS, *more))
    (output / "README.md").unlink()
    with pytest.raises(UserError, match=r"holds .* of another run"):
        finetune_rings.main(command(rings, output, CONVNEXT, *STEPS))
    card = tmp_path / "notes"
    card.mkdir()
    (card / "README.md").write_text("my notes")
    with pytest.raises(UserError, match=r"README\.md was not written by this run"):
        finetune_rings.main(command(rings, tmp_path / "new", CONVNEXT, *STEPS, "--card_dir", str(card)))
    assert (card / "README.md").read_text() == "my notes" and not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_one_line(rings, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError) as caught:
            finetune_rings.main(command(rings, place, CONVNEXT, *STEPS))
        assert "--output_dir" in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_overwriting_removes_that_runs_files_and_no_others(rings, finished, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    (output / "notes.txt").write_text("mine")
    finetune_rings.main(command(rings, output, CONVNEXT, "--max_steps", "2", "--seed", "7", "--overwrite_output_dir"))
    assert (output / "notes.txt").read_text() == "mine"
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-2"]
    assert json.loads((output / "run.json").read_text())["settings"]["seed"] == 7
    (output / "checkpoint-2" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"checkpoint-2 holds notes\.txt, which no training wrote"):
        finetune_rings.main(command(rings, output, CONVNEXT, "--max_steps", "2", "--overwrite_output_dir"))
    assert (output / "checkpoint-2" / "notes.txt").read_text() == "mine"


def test_only_so_many_checkpoints_are_kept_and_the_best(rings, tmp_path):
    options = (
        "--max_steps",
        "6",
        "--save_strategy",
        "steps",
        "--save_steps",
        "1",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "1",
        "--save_total_limit",
        "2",
    )
    finetune_rings.main(command(rings, tmp_path / "run", CONVNEXT, *options))
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    kept = sorted(int(path.name.rpartition("-")[2]) for path in (tmp_path / "run").glob("checkpoint-*"))
    best = state["best_global_step"]
    assert kept == sorted({best, 6} | ({5} if best == 6 else set()))


def test_grey_models_remember_what_their_images_are_like(rings, tmp_path):
    grey = json.dumps({**json.loads(CONVNEXT), "num_channels": 1})
    options = ("--max_steps", "2", "--image_mean", "0.1", "--image_std", "0.2")
    found = finetune_rings.main(command(rings, tmp_path / "grey", grey, *options))
    encoder, normalisation = load_encoder(str(tmp_path / "grey"))
    assert (normalisation.mean, normalisation.std) == ((0.1,), (0.2,))
    assert image_size(encoder) == 32 and encoder.config.num_channels == 1
    assert 0 <= found["auc"] <= 1


def test_training_on_all_measures_nothing(rings, tmp_path):
    arguments = command(rings, tmp_path, CONVNEXT, "--train_on", "all", "--max_steps", "2")
    assert finetune_rings.main(arguments) == {}
    card = (tmp_path / "README.md").read_text()
    assert "no number can be given" in card and "model-index" not in card
    with pytest.raises(UserError, match="early_stopping"):
        finetune_rings.main([*arguments, "--early_stopping_patience", "2"])


def snippet_of(card: Path) -> str:
    """The Python that a card shows."""
    return re.search(r"```python\n(.*?)```", card.read_text(), re.DOTALL)[1]


def test_a_cards_python_runs_and_its_figures_have_intervals(rings, finished, capsys):
    text = (finished / "README.md").read_text()
    exec(snippet_of(finished / "README.md"), {})
    assert "no_ring" in capsys.readouterr().out
    found = json.loads((finished / "test_results.json").read_text())
    assert f"| this model | {found['test_auc']:.3f} |" in text
    assert text.count("| 95 % interval |") == 1 + 5  # beside four simpler models, this one again
    assert "license: cc-by-4.0" in text and "## Licence" in text and f"transformers {transformers.__version__}" in text
    assert re.search(r"The weights kept are those of step (\d+) of 12, chosen on the validation split: the best auc", text)
    assert "preselected" in text and "do not carry over" in text


def test_a_grey_models_python_runs(rings, tmp_path, capsys):
    grey = json.dumps({**json.loads(CONVNEXT), "num_channels": 1})
    finetune_rings.main(
        command(
            rings, tmp_path / "grey", grey, "--max_steps", "1", "--load_best_model_at_end", "false", "--eval_strategy", "no"
        )
    )
    exec(snippet_of(tmp_path / "grey" / "README.md"), {})
    assert re.search(r"J\S+ \[\[0\.\d+, 0\.\d+\]\]", capsys.readouterr().out)
    assert "those of the last step, 1; no validation chose them" in (tmp_path / "grey" / "README.md").read_text()


def measure(rings: Path, model: Path, output: Path, *more: str) -> str:
    """The card of a model that is measured and not trained."""
    finetune_rings.main(["--do_train", "False", "--model_name_or_path", str(model), *command(rings, output), *more])
    return (output / "README.md").read_text()


def test_a_card_without_training_says_so(rings, finished, tmp_path):
    card = measure(rings, finished, tmp_path / "one")
    assert f"Nothing was trained here: measured is the model `{finished}` as it was. From a random start, all of it" in card
    assert "The weights kept" not in card and "trained on these very galaxies" not in card
    exec(snippet_of(tmp_path / "one" / "README.md"), {})
    with pytest.raises(UserError, match="overwrite_output_dir"):
        measure(rings, finished, tmp_path / "one")
    before = (finished / "README.md").read_bytes()
    with pytest.raises(UserError, match="holds a training"):
        measure(rings, finished, finished, "--overwrite_output_dir")
    assert (finished / "README.md").read_bytes() == before
    with pytest.raises(UserError, match="name it with --model_name_or_path"):
        finetune_rings.main([*command(rings, tmp_path / "two"), "--do_train", "False"])


def test_a_model_that_saw_the_test_galaxies_is_said_to_have(rings, tmp_path):
    finetune_rings.main(command(rings, tmp_path / "all", CONVNEXT, "--train_on", "all", "--max_steps", "2"))
    said = "The model was trained on these very galaxies"
    assert said in measure(rings, tmp_path / "all", tmp_path / "measured")
    options = ("--model_name_or_path", str(tmp_path / "all"), "--max_steps", "1")
    finetune_rings.main([*command(rings, tmp_path / "after"), *options])
    assert said in (tmp_path / "after" / "README.md").read_text()  # though this training left them out
    bare = tmp_path / "bare"
    load_classifier(model_type="convnextv2", config_overrides=json.loads(CONVNEXT))[0].save_pretrained(bare)
    assert "is not recorded" in measure(rings, bare, tmp_path / "unknown")


def test_the_same_seed_trains_the_same_network(rings, finished, tmp_path):
    finetune_rings.main(command(rings, tmp_path, CONVNEXT, *STEPS))
    assert losses(tmp_path) == losses(finished) and same_weights(tmp_path, finished)


@pytest.mark.slow
def test_two_processes_train_on_every_row_exactly_once_an_epoch(rings, tmp_path):
    """Two gloo processes, told what ``torchrun`` tells; what each of them fetched is written down."""
    rows = len(load_rings(str(rings))["train"])
    options = (
        "--num_train_epochs",
        "2",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
        "--load_best_model_at_end",
        "false",
        "--repeat_rings",
        "1",
        "--per_device_train_batch_size",
        "5",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def train(rank: int) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
        AcceleratorState._reset_state(reset_partial_state=True)  # other tests trained in this process
        seen, get = [], LabelledImages.__getitems__

        def spy(self, indices):
            seen.extend((len(self), index) for index in indices)
            return get(self, indices)

        LabelledImages.__getitems__ = spy
        finetune_rings.main(command(rings, tmp_path / "two", CONVNEXT, *options))
        assert torch.distributed.get_world_size() == 2
        (tmp_path / f"seen-{rank}.json").write_text(json.dumps(seen))

    children = [forked(lambda rank=rank: train(rank)) for rank in (0, 1)]
    assert [status_of(child) for child in children] == [0, 0]
    seen = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    trained = [[index for size, index in share if size == rows] for share in seen]
    assert sorted(trained[0] + trained[1]) == sorted(list(range(rows)) * 2)
    assert abs(len(trained[0]) - len(trained[1])) <= 2 * math.ceil(rows / 10)
    metrics_two = json.loads((tmp_path / "two" / "test_results.json").read_text())
    assert 0 <= metrics_two["test_auc"] <= 1


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_by_the_same_command(rings, tmp_path):
    """Losses at the default of ten steps a report, and weights, to the last bit."""
    options = (
        "--max_steps",
        "30",
        "--save_strategy",
        "steps",
        "--save_steps",
        "4",
        "--eval_strategy",
        "no",
        "--load_best_model_at_end",
        "false",
        "--save_total_limit",
        "1",
    )
    words = command(rings, tmp_path / "killed", CONVNEXT, *options)
    at = words.index("--logging_steps")
    del words[at : at + 2]
    rng = np.random.default_rng(12)
    for after in (4, 12, 20):
        written = tmp_path / "killed" / f"checkpoint-{after}"
        assert killed_once(written.exists, lambda: finetune_rings.main(words), pause=rng.uniform(0, 0.1))
    finetune_rings.main(words)
    words[words.index(str(tmp_path / "killed"))] = str(tmp_path / "whole")
    finetune_rings.main(words)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 3
    assert same_weights(tmp_path / "killed", tmp_path / "whole")


# ---- wrong input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data_dir", "/no/such/folder"), "no such data_dir: /no/such/folder"),
        (("--model_type", "nonsense"), "no image classifier of type 'nonsense'"),
        (("--model_name_or_path", "/no/such/model"), "no model /no/such/model"),
        (("--config_overrides", "{depths"), "--config_overrides is not JSON"),
        (("--config_overrides", "[1]"), "must be a JSON object"),
        (("--resume_from_checkpoint",), "no checkpoint to resume from"),
        (("--n_blocks", "9"), "--n_blocks 9: the model has 3 blocks"),
        (("--freeze", "--n_blocks", "1"), "--freeze trains no block"),
        (("--catalog", "advanced"), "config rings_advanced is not built"),
        (("--zoom_min", "2"), "need 0 < zoom_min"),
        (("--max_stepz", "3"), "--max_stepz"),
        (("--save_strategy", "steps"), "--load_best_model_at_end requires the save and eval strategy to match"),
        (("--layer_decay", "0"), "--layer_decay must be above 0"),
        (("--repeat_rings", "0"), "--repeat_rings must be 1 or more"),
    ],
)
def test_wrong_input_is_one_clear_line(rings, tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        finetune_rings.main([*command(rings, tmp_path / "out"), *change])
    assert "\n" not in str(caught.value)


def test_where_no_model_is_named_a_small_one_starts_at_random(rings, tmp_path):
    rest = ("--max_steps", "2", "--disable_tqdm", "True", "--use_cpu", "True")
    finetune_rings.main(["--data_dir", str(rings), "--output_dir", str(tmp_path), *rest])
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert model.config.model_type == "convnextv2" and model.config.hidden_sizes == [16, 32, 64, 128]


def test_no_rings_in_a_split_is_said_plainly(tmp_path):
    folder = build_rings(tmp_path, 40, ring=lambda number: False)
    with pytest.raises(UserError, match=r"the train split has 0 rings and \d+ other galaxies"):
        load_rings(str(folder))


def test_the_script_ends_with_status_2_and_no_traceback(tmp_path):
    words = ["--data_dir", "/no/such/folder", "--output_dir", str(tmp_path), "--model_type", "vit"]
    process = imported([sys.executable, str(SCRIPT), *words])
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and "finetune_rings: no such data_dir: /no/such/folder" in error
    assert "Traceback" not in error


def test_a_login_on_the_command_line_is_no_part_of_the_arguments(monkeypatch):
    monkeypatch.setattr("skyset.secrets._logins", {})

    @dataclasses.dataclass
    class Rows:
        data_dir: str = ""

    (args,) = parse((Rows,), ["--data_dir", "https://alice:Secret12@host/gz_decals"])
    assert args.data_dir == "https://host/gz_decals" and login_of("https://host/") == ("alice", "Secret12")


@pytest.mark.parametrize(
    "script", ["finetune_rings", "rings_on_350", "rings_from_representations", "extract_representations", "star_galaxy"]
)
def test_no_script_starts_without_data_and_output(script, tmp_path, monkeypatch, capsys):
    """Whatever lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{script}.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT.with_name(f"{script}.py")), run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "--output_dir" in said, said
    assert not any(tmp_path.iterdir())
