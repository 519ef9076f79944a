"""Networks for photometric redshifts, how they are trained, and what their cards say."""

import json
import math
import os
import shutil
import socket

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch.utils.flop_counter import FlopCounterMode

from skyset.errors import UserError
from skyset.training import train_photoz
from skyset.training.common import photoz_data, photoz_metrics
from skyset.training.common.photoz_config import PDFS, TRUNKS, PhotozConfig
from skyset.training.common.photoz_heads import BayesianLast, Bins, Mixture, Point
from skyset.training.common.photoz_models import PhotozModel
from skyset.training.common.photoz_trainer import predict, redshifts_of
from skyset.training.common.resident import Resident
from tests.conftest import once
from tests.processes import forked, status_of

pytestmark = pytest.mark.usefixtures("cache_of_its_own")

SMALL = {
    "width": 16,
    "depth": 1,
    "components": 2,
    "image_encoder": {"depths": [1, 1], "hidden_sizes": [4, 8], "num_stages": 2, "patch_size": 16},
}


@pytest.fixture
def no_card(monkeypatch):
    """What a card says is seen once."""
    monkeypatch.setattr(train_photoz, "measured_card", lambda story, *_: train_photoz.Card(story.name, story.text(), None))


def command(data, output, *more):
    settings = {
        "--data_dir": data,
        "--output_dir": output,
        "--config_name": "64",
        "--image_size": 32,
        "--config_overrides": json.dumps(SMALL),
        "--per_device_train_batch_size": 8,
        "--num_train_epochs": 2,
        "--logging_steps": 1,
        "--disable_tqdm": True,
        "--use_cpu": True,
    }
    return [str(word) for pair in settings.items() for word in pair] + [str(word) for word in more]


def losses(output):
    state = json.loads((output / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


# ---- networks


def size_of(**settings):
    return sum(parameter.numel() for parameter in PhotozModel(PhotozConfig(**settings)).parameters())


def test_the_papers_networks_are_as_large_as_the_papers():
    assert size_of(trunk="nn", pdf="point", image_size=0) == 122_006
    hybrid = PhotozModel(PhotozConfig(trunk="hybrid", pdf="point", image_size=127))
    assert sum(parameter.numel() for parameter in hybrid.parameters()) == 7_151_073
    with FlopCounterMode(display=False) as count:  # of a training step, in which no gradient of the pixels is needed
        hybrid(torch.zeros(1, 5, 127, 127), torch.full((1, 10), 22.0)).logits.sum().backward()
    assert count.get_total_flops() == pytest.approx(1.735e9, rel=2e-3)


@pytest.mark.parametrize("trunk", [trunk for trunk in TRUNKS if trunk not in ("cnn", "hybrid")])
@pytest.mark.parametrize("pdf", PDFS)
def test_every_network_says_what_is_asked_and_comes_back_from_its_folder(trunk, pdf, tmp_path):
    torch.manual_seed(0)
    model = PhotozModel(PhotozConfig(trunk=trunk, pdf=pdf, image_size=64, rows=100, **SMALL)).eval()
    pixels, photometry = torch.randn(3, 5, 64, 64), torch.randn(3, 10) + 22
    photometry[1, 3] = photometry[2, 7] = math.nan  # a magnitude, an error
    logits = model(pixels, photometry).logits
    z = torch.tensor([0.1, 0.7, 2.0])
    assert model.head.loss(logits, z).shape == (3,) and torch.isfinite(logits).all()
    z_phot, distributions = redshifts_of(model, logits.detach().numpy())
    assert z_phot.shape == (3,) and (distributions is None) == (pdf == "point")
    if distributions:
        cdf, grid = distributions
        assert cdf.shape == (3, len(grid)) and (np.diff(cdf, axis=1) >= -1e-6).all()
        assert (cdf[:, 0] == 0).all() and cdf[:, -1] == pytest.approx(1)
        assert (z_phot >= 0).all() and (z_phot <= grid[-1]).all()
    model.save_pretrained(tmp_path)
    again = PhotozModel.from_pretrained(tmp_path).eval()
    assert all(torch.equal(values, again.state_dict()[name]) for name, values in model.state_dict().items())
    assert torch.allclose(again(pixels, photometry).logits, logits, atol=1e-6)


def test_a_photometry_that_is_missing_is_told_from_one_that_is_average():
    torch.manual_seed(0)
    model = PhotozModel(PhotozConfig(trunk="mlp", image_size=0, **SMALL)).eval()
    average = torch.tensor([[*model.config.magnitude_mean, *np.exp(model.config.error_mean)]]).float()
    missing = average.clone()
    missing[0, 2] = math.nan
    assert not torch.allclose(model(None, average).logits, model(None, missing).logits)


@pytest.mark.parametrize("pdf", PDFS)
def test_what_is_said_stays_float32_under_bfloat16(pdf):
    model = PhotozModel(PhotozConfig(trunk="mlp", pdf=pdf, image_size=0, **SMALL))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(None, torch.full((2, 10), 22.0)).logits
    assert logits.dtype == torch.float32 and torch.isfinite(model.head.loss(logits, torch.tensor([0.3, 1.0]))).all()


@pytest.mark.parametrize("trunk", ["cnn", "convnext"])
def test_gradient_checkpointing_changes_no_gradient(trunk):
    torch.manual_seed(0)
    model = PhotozModel(PhotozConfig(trunk=trunk, image_size=32, dropout=0.0, **SMALL)).train()
    pixels, photometry = torch.randn(2, 5, 32, 32), torch.randn(2, 10) + 22
    found = []
    for enable in (False, True):
        if enable:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model.head.loss(model(pixels, photometry).logits, torch.tensor([0.2, 1.0])).sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


# ---- heads, against definitions


def test_the_losses_of_points_are_those_of_the_papers():
    raw, z = torch.tensor([[0.5], [1.0], [3.0]]), torch.tensor([0.4, 1.0, 1.0])
    for kind, scale in (("hsc", 1 + z), ("paper", 1 + raw[:, 0]), ("example", torch.ones(3))):
        dz = (raw[:, 0] - z) / scale
        assert torch.allclose(Point(4, kind).loss(raw, z), 1 - 1 / (1 + (dz / 0.15) ** 2), atol=1e-6)
    steep = torch.tensor([[-1.0]], requires_grad=True)
    Point(4, "paper").loss(steep, torch.tensor([0.5])).sum().backward()
    assert torch.isfinite(steep.grad).all()


@pytest.mark.parametrize("head", [Mixture(6, 3, 0.5, 0.3), Bins(6, 40, 4.0), BayesianLast(6, 50, 0.5, 0.3)])
def test_the_loss_is_of_the_density_whose_integral_is_the_cdf(head):
    torch.manual_seed(1)
    raw = head(torch.randn(5, 6)).detach()
    z = torch.tensor([0.13, 0.41, 0.7, 1.3, 2.2])
    step = 1e-3
    nodes = torch.expm1(torch.cat([torch.log1p(z) - step, torch.log1p(z) + step]))
    cdf = head.cdf(raw, nodes)
    density = (cdf.diagonal(5) - cdf[:, :5].diagonal()) / (2 * step)
    loss = head.loss(raw, z)
    if isinstance(head, BayesianLast):  # a bound of it, and the divergence from the prior
        assert (loss - raw[:, 3] >= -density.log() - 1e-2).all()
    else:
        assert loss.numpy() == pytest.approx(-density.log().numpy(), abs=0.02)


def test_the_bayesian_layer_is_a_normal_distribution_over_weights():
    torch.manual_seed(2)
    head = BayesianLast(6, 50, 0.0, 1.0)
    with torch.no_grad():
        head.weight += torch.randn(65) * 0.3
        head.factor += torch.randn(65, 65) * 0.05
    factor = torch.tril(head.factor, -1) + torch.diag(head.factor.diagonal().exp())
    weights = torch.distributions.MultivariateNormal(head.weight, scale_tril=factor)
    prior = torch.distributions.MultivariateNormal(torch.zeros(65), torch.eye(65))
    features = torch.randn(3, 6)
    mean, variance, _, divergence = head(features).unbind(1)
    assert divergence[0].item() == pytest.approx(torch.distributions.kl_divergence(weights, prior).item() / 50, rel=1e-4)
    hidden = torch.nn.functional.pad(torch.tanh(head.reduce(features)), (0, 1), value=1.0)
    drawn = hidden @ weights.sample((20_000,)).T
    assert mean.detach().numpy() == pytest.approx(drawn.mean(1).detach().numpy(), abs=0.05)
    assert variance.detach().numpy() == pytest.approx(drawn.var(1).detach().numpy(), rel=0.05)


# ---- training


@pytest.fixture(scope="session")
def trained(galaxiesml, tmp_path_factory):
    """A run of ten steps on images that lie on the device as bytes, with a checkpoint after each epoch."""

    def make(folder):
        more = ("--resident", "--resident_as", "uint8", "--save_total_limit", "5", "--data_note", "Drawn by a test.")
        train_photoz.main(command(galaxiesml, folder / "run", *more))

    return once(tmp_path_factory, "photoz_trained", make) / "run"


def test_a_killed_run_goes_on_to_the_losses_of_an_unbroken_one(galaxiesml, trained, tmp_path, no_card):
    place = tmp_path / "run"
    shutil.copytree(trained / "checkpoint-5", place / "checkpoint-5")
    more = ("--resident", "--resident_as", "uint8", "--save_total_limit", "5", "--resume_from_checkpoint")
    metrics = train_photoz.main(command(galaxiesml, place, *more))
    assert losses(place) == losses(trained) and len(losses(place)) == 10
    assert (place / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    known = json.loads((trained / "test_results.json").read_text())
    assert {name: known[f"test_{name}"] for name in metrics} == metrics


def test_its_card_says_what_was_measured_and_on_what(trained):
    card = (trained / "README.md").read_text()
    metrics = json.loads((trained / "test_results.json").read_text())
    for name in ("scatter", "outliers", "crps", "pit_ks"):
        assert f"{metrics[f'test_{name}']:.4f}" in card
    words = (
        "**Drawn by a test.**", "12 galaxies of `galaxiesml`, config `64`", "| random forest, 100 trees |",
        "| 10 neighbours in magnitudes |", "## Over redshift", "**Nothing of it was measured here**", "| 0.0167 | 0.0377 |",
        "a mixture of 2 normal distributions", "pipeline_tag: tabular-regression", "turned by quarters",
    )  # fmt: skip
    assert [word for word in words if word not in card] == []
    assert all((trained / name).stat().st_size > 5000 for name in ("redshifts.png", "over_redshift.png", "pit.png"))


def test_a_model_from_its_folder_says_what_it_said(galaxiesml, trained):
    model = train_photoz.load_trained(str(trained), "photoz")[0]
    galaxies = photoz_data.load_galaxies(str(galaxiesml), "64")["test"]
    z_phot, (cdf, _) = predict(model, galaxies, range(12), views=8)
    assert z_phot.shape == (12,) and cdf[:, -1] == pytest.approx(1)
    one, _ = predict(model, galaxies, [3], views=8)
    assert one[0] == pytest.approx(z_phot[3], abs=1e-3)


def test_seeds_are_measured_together_as_an_ensemble(galaxiesml, tmp_path, no_card):
    more = ("--config_name", "tabular", "--model", "bnn", "--seeds", "2", "--max_steps", "2", "--eval_strategy", "no")
    more += ("--save_strategy", "no", "--load_best_model_at_end", "false")
    train_photoz.main(command(galaxiesml, tmp_path, *more))
    together = json.loads((tmp_path / "ensemble.json").read_text())
    galaxies = photoz_data.load_galaxies(str(galaxiesml), "tabular", images=False)["test"]
    models = [train_photoz.load_trained(str(tmp_path / f"seed_{seed}"), "photoz")[0] for seed in (42, 43)]
    said = [predict(model, galaxies, range(12))[1] for model in models]
    assert not np.allclose(said[0][0], said[1][0])
    mean = photoz_metrics.all_metrics((said[0][0] + said[1][0]) / 2, said[0][1], galaxies.z.numpy())
    assert together == pytest.approx(mean, abs=1e-5)


def test_two_processes_cut_every_row_from_the_device_exactly_once_an_epoch(galaxiesml, tmp_path, no_card):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def train(rank):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
        AcceleratorState._reset_state(reset_partial_state=True)
        seen, get = [], Resident.__getitems__

        def spy(self, rows):
            seen.extend((len(self), int(row)) for row in rows)
            return get(self, rows)

        Resident.__getitems__ = spy
        more = ("--resident", "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false")
        words = command(galaxiesml, tmp_path / "two", *more, "--per_device_train_batch_size", "7")
        where = words.index("--use_cpu")
        train_photoz.main(words[:where] + words[where + 2 :])
        assert torch.distributed.get_world_size() == 2  # without --use_cpu, as torchrun starts it
        (tmp_path / f"seen-{rank}.json").write_text(json.dumps(seen))

    children = [forked(lambda rank=rank: train(rank)) for rank in (0, 1)]
    assert [status_of(child) for child in children] == [0, 0]
    seen = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    trained = [[row for size, row in share if size == 40] for share in seen]
    assert sorted(trained[0] + trained[1]) == sorted(list(range(40)) * 2)
    assert abs(len(trained[0]) - len(trained[1])) <= 2 * math.ceil(40 / 14)


def test_the_paper_is_trained_as_in_the_paper_unless_told_otherwise():
    words = train_photoz.with_recipe(["--model", "hybrid", "--output_dir", "o", "--data_dir", "d", "--learning_rate", "2"])
    kinds = train_photoz.PhotozModelArguments, train_photoz.DataArguments, train_photoz.PhotozTrainingArguments
    _, _, args = train_photoz.parse(kinds, words)
    assert (args.per_device_train_batch_size, args.weight_decay, args.num_train_epochs) == (256, 0, 200)
    assert args.learning_rate == 2 and args.lr_scheduler_type == "constant"
    assert train_photoz.with_recipe(["--model=nn"])[-3:] == ["--early_stopping_patience", "10", "--model=nn"]
    assert train_photoz.with_recipe(["--model", "mdn"]) == ["--model", "mdn"]


@pytest.mark.parametrize(("stored", "size"), [(127, 64), (64, 32), (64, 64), (9, 3)])
def test_the_middle_of_an_image_has_its_target_in_the_middle(stored, size):
    image = np.zeros((5, stored, stored), np.float32)
    image[:, stored // 2, stored // 2] = 1
    middle = photoz_data.flux_of(image, size)
    assert middle.shape == (5, size, size) and (middle[:, size // 2, size // 2] == 1).all()


# ---- what cannot be trained on


def rows_of(**changes):
    from datasets import Dataset

    rows = {"object_id": ["a", "b", "c"], "specz_redshift": [0.1, 0.2, 0.3]}
    rows |= {f"{b}_cmodel_{what}": [20.0, 21.0, 22.0] for b in "grizy" for what in ("mag", "magsigma")}
    rows |= changes
    return Dataset.from_dict({name: values for name, values in rows.items() if values is not None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"specz_redshift": [0.1, math.nan, 0.3]}, "has 1 redshifts that are no numbers above -1, the first is nan of b"),
        ({"specz_redshift": [0.1, 0.2, -9.0]}, "the first is -9.0 of c"),
        ({"specz_redshift": None}, "has no specz_redshift: nothing can be learned"),
        ({"r_cmodel_mag": None}, "has no r_cmodel_mag: no photometry"),
        ({"z_cmodel_mag": [math.nan] * 3}, "has no z magnitude of any galaxy"),
        ({f"{b}_cmodel_mag": [20.0, math.nan, 21.0] for b in "grizy"}, "1 galaxies of the train split have no magnitude"),
    ],
)
def test_galaxies_without_redshifts_or_photometry_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        photoz_data._galaxies(rows_of(**changes), "train", False, True)


def test_a_magnitude_that_is_missing_is_taken():
    galaxies = photoz_data._galaxies(rows_of(g_cmodel_mag=[20.0, math.nan, 21.0]), "train", False, True)
    found = photoz_data.statistics(galaxies)
    assert found["magnitude_mean"][0] == pytest.approx(20.5) and found["rows"] == 3
    assert np.isfinite([*found["magnitude_std"], *found["error_std"]]).all()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--config_name", "tabular", "--model", "cnn"), "tabular has no images"),
        (("--model_type", "vit"), "not for redshifts"),
        (
            ("--model", "nn", "--eval_strategy", "no", "--load_best_model_at_end", "false"),
            "counts evaluations: give --eval_strategy epoch",
        ),
        (("--config_overrides", '{"components": 0.5}'), "make no network"),
        (("--config_overrides", '{"trunk": "resnet"}'), "no model 'resnet'; there are nn, cnn"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(galaxiesml, tmp_path, more, words):
    with pytest.raises(UserError, match=words):
        train_photoz.main(command(galaxiesml, tmp_path / "o", *more))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"bands": list("yzirg")}, (), "the model takes the bands y, z, i, r, g, the data have g, r, i, z, y"),
        ({"image_size": 127}, (), "the network takes 127 pixels, the images have 64"),
        ({}, ("--image_size", "16"), "the model takes 32 pixels, not --image_size 16"),
        ({"skyset_task": "rings"}, (), "was trained for 'rings': it is no model of 'photoz'"),
        ({}, ("--model", "mdn"), "is a convnext, not --model mdn"),
        ({}, ("--pdf", "bins"), "says mixture, not --pdf bins"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(galaxiesml, trained, tmp_path, change, more, words):
    """The bands of another order among them."""
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(trained / "model.safetensors", model)
    config = json.loads((trained / "config.json").read_text()) | change
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=words):
        train_photoz.main(command(galaxiesml, tmp_path / "o", "--model_name_or_path", model, "--resident", *more))
