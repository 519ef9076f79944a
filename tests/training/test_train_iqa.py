"""Image quality of MegaCam: network, splits, votes of exposures against definitions, and the script from end to end."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sk = pytest.importorskip("sklearn.metrics")
pytest.importorskip("numba", reason="MegaCam's sources are measured and grouped with numba")

from types import SimpleNamespace

from transformers import AutoModel, TrainerCallback

from skyset.loaders.megacam_iqa import CLASSES
from skyset.training import predict, train_iqa
from skyset.training.common import quality_data, quality_metrics
from skyset.training.common.card import Card
from skyset.training.common.models import load_trained
from skyset.training.common.quality import QualityConfig, QualityModel, StampViews, image_of, stamps_of
from skyset.training.common.quality_data import Known
from tests.conftest import once
from tests.megacam_rows import write_megacam
from tests.two_processes import rows_read

pytestmark = pytest.mark.usefixtures("cache_of_its_own")
TINY = '{"channels": [4, 4], "width": 8}'


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ccds(tmp_path_factory) -> Path:
    """40 CCDs of 20 exposures, four of each class; stamps and hits differ by class. Do not change it."""
    return once(tmp_path_factory, "iqa_rows", lambda folder: write_megacam(folder / "megacam_iqa")) / "megacam_iqa"


def command(root: Path, output: Path, *more: str) -> list[str]:
    settings = {
        "--data_dir": root,
        "--output_dir": output,
        "--config_overrides": TINY,
        "--per_device_train_batch_size": 12,
        "--max_steps": 4,
        "--eval_strategy": "steps",
        "--eval_steps": 2,
        "--save_strategy": "steps",
        "--save_steps": 2,
        "--logging_steps": 1,
        "--disable_tqdm": True,
        "--use_cpu": True,
    }
    return [*(str(word) for pair in settings.items() for word in pair), *more]


@pytest.fixture(scope="module")
def finished(ccds, tmp_path_factory) -> Path:
    """A run of 4 steps with checkpoints at 2 and 4, with others beside it. Do not change it."""
    output = tmp_path_factory.mktemp("iqa") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality_metrics, "SAMPLES", 20)
        train_iqa.main(command(ccds, output, "--compare"))
    return output


@pytest.fixture
def plain_card(monkeypatch):
    monkeypatch.setattr(train_iqa, "measured_card", lambda story, *_: Card(story.name, story.text(), None))


def losses(output: Path) -> dict[int, float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


# ---- network and inputs


def test_cutouts_are_turned_in_their_places():
    stamps = torch.arange(2 * 6 * 9.0).reshape(2, 6, 3, 3)
    image = image_of(stamps, (2, 3))
    assert image.shape == (2, 6, 9) and torch.equal(image[:, :3, 3:6], stamps[:, 1])
    assert torch.equal(stamps_of(image, (2, 3), 3), stamps)
    views = StampViews((2, 3), 3)
    assert torch.equal(views.eval()(image), image) and torch.equal(views.turned(image, 0), image)
    seen = {tuple(views.turned(image, view)[0, :3, :3].flatten().tolist()) for view in range(8)}
    assert len(seen) == 8
    turned = stamps_of(views.train()(image), (2, 3), 3)
    for row in range(2):
        kinds = [stamps_of(views.turned(image, view), (2, 3), 3)[row] for view in range(8)]
        assert sum(torch.equal(turned[row], kind) for kind in kinds) == 1


@pytest.mark.parametrize("inputs", ["joint", "image", "hits"])
def test_a_network_sees_what_it_is_asked_to(inputs):
    torch.manual_seed(0)
    model = QualityModel(QualityConfig(inputs, (2, 2), 8, 8, channels=(4,), num_labels=5)).eval()
    image, hits = torch.randn(3, 16, 16), torch.randint(0, 50, (3, 4)).float()
    logits = model(image, hits).logits
    assert logits.shape == (3, 5)
    assert torch.equal(model(image + 1, hits).logits, logits) == (inputs == "hits")
    assert torch.equal(model(image, hits + 9).logits, logits) == (inputs == "image")


def test_a_cutout_does_not_see_its_neighbours():
    model = QualityModel(QualityConfig("image", (1, 2), 8, 8, channels=(4, 4), num_labels=2))
    part = model.parts["image"]
    seen = {}
    part.each.register_forward_hook(lambda module, inputs, output: seen.setdefault(len(seen), output))
    image = torch.randn(1, 8, 16)
    part(image)
    image[:, :, 8:] = 9
    part(image)
    assert torch.equal(seen[0][0], seen[1][0]) and not torch.equal(seen[0][1], seen[1][1])


def test_scales_are_medians_of_what_is_there(ccds):
    splits, spoilt = quality_data.load_ccds(str(ccds))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 24, "validation": 8, "test": 8} and spoilt == 0
    assert quality_data.shape_of(splits["train"]) == ((4, 5), 24)
    found = quality_data.scales_of(splits["train"])
    pixels, hits = (np.stack(list(splits["train"][name])) for name in ("image", "hits"))
    median = np.median(pixels[pixels != 0])
    assert found["image_median"] == median
    assert found["image_mad"] == pytest.approx(1.4826 * np.median(np.abs(pixels[pixels != 0] - median)))
    np.testing.assert_allclose(found["hits_median"], np.median(np.log1p(hits), axis=0))
    assert found["hits_mad"][7] == 1.0  # the group is empty in all


def test_exposures_are_on_one_side_unless_the_split_leaks(ccds):
    sides = {leaked: quality_data.load_ccds(str(ccds), leaked)[0] for leaked in (False, True)}
    for leaked, splits in sides.items():
        parts = [set(Known.of(rows).exposures) for rows in splits.values()]
        assert bool(parts[0] & parts[2]) == leaked and sum(map(len, splits.values())) == 40


def test_inputs_that_are_no_numbers_are_left_out_and_named(ccds, monkeypatch, caplog):
    splits = quality_data.load_splits(str(ccds), "representative")

    def spoil(row):
        image = np.array(row["image"], np.float32)
        image[3, 5] = np.nan
        return {"image": image} if row["object_id"] == "1000003p_01" else {}

    splits["train"] = splits["train"].map(spoil)
    monkeypatch.setattr(quality_data, "load_splits", lambda *_: splits)
    kept, spoilt = quality_data.load_ccds("anywhere")
    assert spoilt == 1 and len(kept["train"]) == 23 and "1 CCDs with pixels or hits that are no numbers" in caplog.text
    assert "1000003p_01" in caplog.text and "1000003p_01" not in kept["train"]["object_id"]
    splits["train"] = splits["train"].filter(lambda row: row["label"] == 0)
    with pytest.raises(UserError, match="all training CCDs are GOOD: two classes are needed"):
        quality_data.load_ccds("anywhere")


def test_a_loss_that_is_no_number_is_one_line():
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])
    with pytest.raises(UserError, match="the loss of 1 of 2 CCDs is not a finite number"):
        train_iqa.finite_cross_entropy(SimpleNamespace(logits=logits), torch.tensor([0, 1]))


# ---- figures, against definitions


def test_exposures_are_what_their_ccds_vote_for():
    known = Known(np.array([0, 0, 3, 3, 1]), np.array([-1, -1, 4, 4, -1]), np.array(["a", "a", "b", "b", "c"]))
    shares = np.zeros((5, 5))
    shares[0, :2], shares[1, :2] = [0.4, 0.6], [0.9, 0.1]  # one is wrong, their mean is right
    shares[2, 4] = shares[3, 4] = 1  # called by the second label
    shares[4, 1] = 1
    found = quality_metrics.measure(known, shares)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["agreement"] == 1 and found["ccd_accuracy"] == 0.4
    assert found["usable_auc"] == 1 and found["coverage_97"] == 0
    assert found["macro_f1"] == pytest.approx(sk.f1_score([0, 3, 1], [0, 4, 1], average="macro", labels=[0, 1, 3]))
    table = quality_metrics.confusion_table(known, shares)
    assert "| BT | 0 | 0 | 0 | 0 | 1 | 0% |" in table and "| BGP | 0 | 0 | 0 | 0 | 0 |  |" in table


def test_abstaining_leaves_out_the_least_sure():
    right = np.array([True, True, False, True])
    coverage, risk = quality_metrics.risk_curve(right, np.array([0.9, 0.8, 0.5, 0.5]))
    assert coverage.tolist() == [0.25, 0.5, 1.0] and risk.tolist() == [0, 0, 0.25]


# ---- from end to end


def test_training_writes_a_model_and_its_card(finished, capsys):
    card = (finished / "README.md").read_text()
    for said in (
        "No exposure of theirs was trained on.",
        "**The exposures are simulated**",
        "97 % agreement",
        "8 CCDs of 4 exp",
    ):
        assert said in card
    beside = {name: json.loads((finished / "beside" / name / "test_results.json").read_text()) for name in ("image", "hits")}
    assert f"| representative image alone | {beside['image']['test_accuracy']:.3f} |" in card
    assert f"| hits alone | {beside['hits']['test_accuracy']:.3f} |" in card
    assert "| this model, split that leaks: no measurement |" in card and "| always " in card
    assert "**The split leaks**" in (finished / "beside" / "leaked" / "README.md").read_text()
    assert all((finished / name).stat().st_size > 8000 for name in ("confusion.png", "risk.png"))
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    assert re.findall(r"p_0\d (\w+) [01]\.\d\d", capsys.readouterr().out) == list(CLASSES)
    model, _ = load_trained(str(finished), "quality")
    assert isinstance(AutoModel.from_pretrained(finished), QualityModel)
    assert model.config.image_mad > 1 and len(model.config.hits_median) == 20
    with pytest.raises(UserError, match="was trained for 'quality': it is no model of 'rings'"):
        load_trained(str(finished), "rings")


def test_the_model_predicts_for_every_ccd(finished, ccds, tmp_path):
    words = ["--model", finished, "--dataset", ccds, "-o", tmp_path / "quality.parquet", "--device", "cpu"]
    words += ["--config", "representative", "--views", 2]
    assert predict.main([str(word) for word in words]) == 40
    table = pq.read_table(tmp_path / "quality.parquet")
    np.testing.assert_allclose(sum(np.array(table[f"probability_{name}"]) for name in CLASSES), 1, atol=1e-5)


def test_a_killed_run_goes_on_with_the_losses_of_an_unbroken_one(plain_card, ccds, finished, tmp_path, monkeypatch):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            if state.global_step == 3:
                raise KeyboardInterrupt

    original = train_iqa.ImageTrainer.__init__

    def init(trainer, **others):
        original(trainer, **others)
        trainer.add_callback(Stop())

    words = command(ccds, tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(train_iqa.ImageTrainer, "__init__", init)
        with pytest.raises(KeyboardInterrupt):
            train_iqa.main(words)
    train_iqa.main(words)
    assert losses(tmp_path / "broken") == losses(finished) and len(losses(finished)) == 4
    whole, broken = ((folder / "model.safetensors").read_bytes() for folder in (finished, tmp_path / "broken"))
    assert whole == broken


@pytest.mark.slow
def test_two_processes_train_on_every_ccd_exactly_once_an_epoch(plain_card, ccds, tmp_path):
    options = ("--max_steps", "-1", "--num_train_epochs", "1", "--per_device_train_batch_size", "5", "--save_strategy", "no")
    options += ("--eval_strategy", "no", "--load_best_model_at_end", "False")
    seen = rows_read(train_iqa.main, command(ccds, tmp_path / "two", *options), tmp_path)
    assert sorted(row for size, row in seen if size == 24) == list(range(24))


def test_what_is_finished_is_not_trained_again(ccds, finished, caplog):
    caplog.set_level(logging.WARNING)
    found = train_iqa.main(command(ccds, finished, "--compare"))
    assert found["accuracy"] == json.loads((finished / "test_results.json").read_text())["test_accuracy"]
    assert caplog.text.count("nothing is left to train") == 4


def test_the_joined_network_learns_what_its_hits_say(plain_card, ccds, tmp_path):
    """One group of twenty has four times the sources; the images of these rows say nothing."""
    options = ("--max_steps", "30", "--learning_rate", "0.02", "--eval_strategy", "no", "--save_strategy", "no")
    options += ("--load_best_model_at_end", "False", "--gradient_checkpointing", "True")
    assert train_iqa.main(command(ccds, tmp_path / "learned", *options))["accuracy"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data_dir", "/no/such/folder"), "no such data_dir: /no/such/folder"),
        (("--model_type", "vit"), "not for image quality: give --model"),
        (("--config_overrides", '{"depth": 3}'), "--config_overrides takes channels, dropout, width, not depth"),
        (("--config_overrides", '{"channels": [4, 4, 4, 4, 4]}'), "halve cutouts of 24 pixels too often"),
        (("--config_overrides", '{"width": "wide"}'), "--config_overrides make no network"),
        (("--compare", "--train_on", "all"), "--compare measures trainings"),
        (("--model_name_or_path", "/no/such/model"), "/no/such/model"),
    ],
)
def test_wrong_input_is_one_clear_line(ccds, tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        train_iqa.main([*command(ccds, tmp_path / "out"), *change])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_data_of_another_map_and_rebuilt_ones_are_refused(ccds, finished, tmp_path):
    other = tmp_path / "megacam_iqa"
    shutil.copytree(ccds, other)
    path = other / "representative" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"it read the data of .*, now they are those of"):
        train_iqa.main(command(other, finished))
    small = tmp_path / "small"
    model = QualityModel(QualityConfig("joint", (2, 2), 8, 8, channels=(4,), num_labels=5))
    train_iqa.mark(model, "quality")
    model.save_pretrained(small)
    with pytest.raises(UserError, match="the model takes"):
        train_iqa.main(command(ccds, tmp_path / "out", "--do_train", "False", "--model_name_or_path", str(small)))
