"""The cross-validated comparison, its simulated galaxies and the network on polar grids."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.galaxies import build_rings

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from skyset.errors import UserError
from skyset.training import rings_on_350 as comparison
from skyset.training.common.metrics import auc
from skyset.training.common.polar_network import (
    PolarNetwork,
    mean_over_views,
    pretrain,
    train_on_labels,
)
from skyset.training.common.simulated import simulate

CARD = Path(__file__).resolve().parents[2] / "model_cards" / "rings_gz_decals_350"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_simulated_galaxies_follow_their_seed_and_rings_are_bumps():
    light, present, amounts = simulate(400, 32, 48, generator(1))
    assert light.shape == (400, 32, 48) and present.shape == amounts.shape == (400, 4)
    assert torch.isfinite(light).all() and 0.4 < present[:, 0].mean() < 0.6
    torch.testing.assert_close(simulate(400, 32, 48, generator(1))[0], light, atol=0, rtol=0)
    profile = light.median(dim=2).values.numpy()
    bumps = (np.diff(profile[:, 3:], axis=1)).max(axis=1)  # light that grows outwards
    bright = (amounts[:, 0] > np.log(0.6)).numpy()
    none = (present[:, 0] == 0).numpy()
    assert auc(bright[bright | none], bumps[bright | none]) > 0.7


def test_the_network_does_not_mind_turns_and_smooth_profiles():
    light, _, _ = simulate(3, 32, 48, generator(2))
    network = PolarNetwork(1).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(light.roll(16, dims=2)), network(light), atol=1e-5, rtol=1e-5)
    views = light[:, None].repeat(1, 2, 1, 1)
    torch.testing.assert_close(mean_over_views(lambda seen: network(seen)[:, 0], views), network(light)[:, 0].detach())


def test_pretraining_and_training_are_repeatable_and_learn():
    first, second = (pretrain(3, 32, 48, seed=4, batch=8) for _ in range(2))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0, msg=name)
    light, _, _ = simulate(64, 32, 48, generator(5))
    # Every second galaxy is made brighter outside: easy to tell.
    labels = (torch.arange(64) % 2).float()
    light = light + labels[:, None, None] * torch.linspace(0, 2, 32)[None, :, None]
    network = train_on_labels(PolarNetwork(1), light[:, None], labels, 12, 5e-3, 6, from_scratch=True)
    with torch.no_grad():
        assert auc(labels.numpy(), network(light)[:, 0].numpy()) > 0.95


def test_every_galaxy_is_scored_once_by_folds_that_leave_it_out():
    labels = np.arange(53) % 3 == 0
    galaxies = comparison.Galaxies(None, labels.astype(int), None, None, None, None, None)
    folds = []

    def method(_, fold):
        folds.append(fold)
        return fold.test.astype(float)

    scores = comparison.cross_validate(method, galaxies, repeats=2, seed=3)
    np.testing.assert_array_equal(scores, [np.arange(53)] * 2)
    assert len(folds) == 10 and len({fold.seed for fold in folds}) == 10
    for fold in folds:
        assert not set(fold.train) & set(fold.test) and len(fold.train) + len(fold.test) == 53
        assert {0, 1} == set(labels[fold.test].astype(int))


def test_noise_is_not_told_apart():
    """Whatever leaked from a test fold into choosing or fitting would show here."""
    rng = np.random.default_rng(7)
    found = []
    for seed in range(3):
        labels = rng.permutation(np.arange(100) % 2)
        galaxies = comparison.Galaxies(None, labels, None, None, None, None, None)
        method = comparison.selected(rng.normal(size=(100, 40)))
        found.append(comparison.summary(comparison.cross_validate(method, galaxies, 1, seed), labels, seed, 0)["auc"])
    assert 0.38 < np.mean(found) < 0.62


@pytest.mark.slow
def test_the_card_says_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    root = build_rings(tmp_path, 60)
    words = [
        "--data_dir",
        str(root),
        "--output_dir",
        str(tmp_path / "card"),
        "--repeats",
        "1",
        "--views",
        "2",
        "--pretraining_steps",
        "2",
        "--networks",
        "2",
        "--epochs",
        "1",
        "--scratch_epochs",
        "1",
        "--convnext_steps",
        "2",
        "--held_out",
        str(CARD / "held_out.json"),
    ]
    table = comparison.main(words)
    card = (tmp_path / "card" / "README.md").read_text()
    assert len(table) == 12
    for name, row in table.items():
        assert f"| {name} | {row['auc']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in card
        assert row["low"] < row["auc"] < row["high"] or row["auc"] in (0, 1)
    assert table["radial profiles, logistic regression"]["auc"] > 0.8  # simulated rings are easy
    assert "split: 5-fold cross-validation" in card and "60 images" in card
    assert json.loads((tmp_path / "card" / "auc.json").read_text())["table"] == table
    assert (tmp_path / "card" / "roc.png").exists() and (tmp_path / "card" / "calibration.png").exists()
    assert "AUC 0.764 (0.672 to 0.844)" in card and "120 other real galaxies" in card and "library_name: skyset" in card
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    with pytest.raises(UserError, match="overwrite_output_dir to replace"):
        comparison.main(words)
    (tmp_path / "held_out.json").write_text('{"galaxies": 3}')
    with pytest.raises(UserError, match="--held_out"):
        comparison.main([*words, "--overwrite_output_dir", "--held_out", str(tmp_path / "held_out.json")])


def test_the_interval_of_an_auc_is_that_of_other_galaxies(monkeypatch):
    """Drawn anew a thousand times, scores of galaxies of the same kind spread as the interval says."""
    rng = np.random.default_rng(8)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(200) % 2
        return labels, rng.normal(size=200) + labels

    found = []
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "redrawn", lambda *_: np.zeros(1))  # of these the value alone is looked at
        for _ in range(300):
            labels, scores = sample()
            found.append(comparison.summary(scores[None], labels, 0, 0.0)["auc"])
    labels, scores = sample()
    one = comparison.summary(scores[None], labels, 0, 0.0)
    assert (one["high"] - one["low"]) / (2 * 1.96) == pytest.approx(np.std(found), rel=0.25)


def test_the_published_card_is_what_the_script_wrote():
    """Its table holds the figures beside it, row by row, and its text those of the held-out check."""
    card, told = (CARD / "README.md").read_text(), json.loads((CARD / "auc.json").read_text())
    held_out = json.loads((CARD / "held_out.json").read_text())
    for name, row in told["table"].items():
        assert f"| {name} | {row['auc']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" in card
        assert row["low"] < row["auc"] < row["high"]
    assert comparison.held_out_text(held_out, told["table"]) in card
    assert "library_name: skyset" in card and "license: cc-by-4.0" in card and "whatever the method" not in card
