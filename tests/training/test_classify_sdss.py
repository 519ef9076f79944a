"""Spiral or elliptical: splits, photometry, figures by redshift, and the script from end to end with a tiny network."""

import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from datasets import Dataset, DatasetDict
from transformers import TrainerCallback, pipeline

from skyset.training import classify_sdss, predict
from skyset.training.common import morphology
from skyset.training.common.card import Card
from skyset.training.common.classify import balanced_weights
from skyset.training.common.models import load_trained
from tests.galaxies import CONVNEXT
from tests.two_processes import rows_read

pytestmark = pytest.mark.usefixtures("cache_of_its_own")
#: The weights of the last step are kept.
LAST = ("--eval_strategy", "no", "--load_best_model_at_end", "False")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(survey: Path, output: Path, *more: str) -> list[str]:
    settings = {
        "--data_dir": survey,
        "--output_dir": output,
        "--model_type": "convnextv2",
        "--config_overrides": CONVNEXT,
        "--image_size": 32,
        "--load_size": 32,
        "--per_device_train_batch_size": 16,
        "--learning_rate": 0.01,
        "--max_steps": 4,
        "--eval_strategy": "steps",
        "--eval_steps": 2,
        "--save_strategy": "steps",
        "--save_steps": 2,
        "--logging_steps": 1,
        "--disable_tqdm": True,
        "--use_cpu": True,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    return [*words, "--split_shares", "0.6", "0.2", "0.2", *more]


@pytest.fixture(scope="module")
def finished(built_sdss, tmp_path_factory) -> Path:
    """A run of 4 steps with checkpoints at 2 and 4, and 20 trees in its forest. Do not change it."""
    output = tmp_path_factory.mktemp("morphology") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "TREES", 20)
        patch.setattr(classify_sdss, "bootstrap_errors", functools.partial(classify_sdss.bootstrap_errors, samples=20))
        classify_sdss.main(command(built_sdss, output))
    return output


@pytest.fixture
def plain_card(monkeypatch):
    """Without simpler models and figures, which take longer than these trainings."""
    monkeypatch.setattr(classify_sdss, "measured_card", lambda story, *_: Card(story.name, story.text(), None))


def losses(output: Path) -> dict[int, float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


# ---- galaxies


def test_a_galaxy_stays_on_its_side_and_uncertain_ones_are_left_out(built_sdss, monkeypatch, caplog):
    splits = morphology.load_morphology(str(built_sdss), (0.6, 0.2, 0.2))
    names = [name for rows in splits.values() for name in rows["object_id"]]
    assert len(names) == len(set(names)) == 72 and set(splits["train"]["label"]) == {0, 1}
    whole = morphology.load_splits(str(built_sdss))["train"]
    labels = [2 if number < 10 else -1 if number == 10 else label for number, label in enumerate(whole["label"])]
    other = DatasetDict(train=whole.remove_columns("label").add_column("label", labels))
    monkeypatch.setattr(morphology, "load_splits", lambda *_: other)
    fewer = morphology.load_morphology("anywhere", (0.6, 0.2, 0.2))
    assert "11 of 72 galaxies are neither spiral nor elliptical" in caplog.text
    for name, rows in fewer.items():
        left = set(splits[name]["object_id"]) - set(whole["object_id"][:11])
        assert set(rows["object_id"]) == left
    labels = [0] * 72
    monkeypatch.setattr(
        morphology,
        "load_splits",
        lambda *_: DatasetDict(train=whole.remove_columns("label").add_column("label", labels)),
    )
    with pytest.raises(UserError, match=r"the train split has \d+ spiral and 0 elliptical galaxies: both are needed"):
        morphology.load_morphology("anywhere", (0.6, 0.2, 0.2))


def test_photometry_is_free_of_extinction_and_knows_what_is_missing():
    columns = {f"modelMag_{band}": [20.0 - n, 18.0] for n, band in enumerate("ugriz")}
    columns |= {f"extinction_{band}": [0.5 - 0.1 * n, 0.0] for n, band in enumerate("ugriz")}
    columns |= {"petroMag_r": [17.3, np.nan], "petroR50_r": [2.0, 0.0], "petroR90_r": [6.0, 5.0]}
    found = morphology.photometry(Dataset.from_dict(columns))
    np.testing.assert_allclose(found[0, :4], 0.9, atol=1e-6)
    np.testing.assert_allclose(found[0, 4:], [17, 2, 6, 3, 17 + 2.5 * np.log10(8 * np.pi)], atol=1e-6)
    assert np.isnan(found[1]).tolist() == [False] * 4 + [True, False, False, True, True]


def test_every_galaxy_is_in_one_bin_of_redshift():
    redshift = np.append(np.random.default_rng(0).uniform(0.01, 0.2, 57), [np.nan] * 3)
    parts = morphology.by_redshift(redshift)
    assert [len(rows) for *_, rows in parts] == [12, 11, 11, 11, 12, 3] and parts[-1][0] == "not known"
    assert sorted(np.concatenate([rows for *_, rows in parts])) == list(range(60))
    for name, middle, rows in parts[:-1]:
        low, high = map(float, name.split(" to "))
        assert (low - 5e-4 <= redshift[rows]).all() and (redshift[rows] <= high + 5e-4).all() and low < middle < high
    labels = (np.arange(60) % 2).astype(int)
    table = morphology.redshift_table(redshift, labels, {"right": labels * 1.0, "wrong": 1.0 - labels}, 0.5)
    assert table.count("| 1.000 | 1.000 | 0.000 | 0.000 |") == 6
    assert [name for name, *_ in morphology.by_redshift(redshift[-3:])] == ["any"]
    assert "| 2.000" not in table and "| any | 1 | 0% | 1.000 |  |" in morphology.redshift_table(
        redshift[-1:], labels[:1], {"right": np.zeros(1)}, 0.5
    )


def test_weights_balance_the_classes_that_are_there():
    labels = np.array([0, 0, 0, 2])
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([2 / 3, 0, 2]) and weights[labels].mean() == pytest.approx(1)


# ---- from end to end


def test_training_writes_a_model_and_its_card(finished, capsys):
    card = (finished / "README.md").read_text()
    found = {name[5:]: value for name, value in json.loads((finished / "test_results.json").read_text()).items()}
    assert {"auc", "accuracy", "f1", "ece"} <= set(found)
    for name in ("this model", "photometry, random forest", "30 principal components of the pixels, logistic regression"):
        assert f"| {name} |" in card
    assert "## By redshift" in card and "**Simulated galaxies**" in card and "simulated images of SDSS" in card
    assert "| spiral | elliptical |" in card and re.search(r"\| 0\.\d{3} to 0\.\d{3} \| \d+ \|", card)
    assert all((finished / name).stat().st_size > 8000 for name in ("roc.png", "redshift.png", "calibration.png"))
    forest = re.search(r"\| photometry, random forest \| ([\d.]+) ", card)[1]
    assert float(forest) > 0.95  # made-up galaxies have two sequences of colour
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    assert re.search(r"\d+ \{0: 'spiral', 1: 'elliptical'\} \[\[0\.\d+, 0\.\d+\]\]", capsys.readouterr().out)
    config = json.loads((finished / "config.json").read_text())
    assert config["skyset_task"] == "morphology" and config["id2label"] == {"0": "spiral", "1": "elliptical"}
    labels = {each["label"] for each in pipeline("image-classification", model=str(finished))(picture())}
    assert labels == {"spiral", "elliptical"}


def test_the_model_predicts_for_every_galaxy_of_a_survey(finished, built_sdss, tmp_path):
    words = ["--model", finished, "--dataset", built_sdss, "-o", tmp_path / "shapes.parquet", "--device", "cpu"]
    assert predict.main([str(word) for word in words]) == 72
    found = pq.read_table(tmp_path / "shapes.parquet")
    total = np.add(found["probability_spiral"], found["probability_elliptical"])
    np.testing.assert_allclose(total, 1, atol=1e-5)


def picture():
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def test_a_killed_run_goes_on_with_the_losses_of_an_unbroken_one(plain_card, built_sdss, finished, tmp_path, monkeypatch):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            if state.global_step == 3:
                raise KeyboardInterrupt

    original = classify_sdss.ImageTrainer.__init__

    def init(trainer, **others):
        original(trainer, **others)
        trainer.add_callback(Stop())

    words = command(built_sdss, tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(classify_sdss.ImageTrainer, "__init__", init)
        with pytest.raises(KeyboardInterrupt):
            classify_sdss.main(words)
    classify_sdss.main(words)
    assert losses(tmp_path / "broken") == losses(finished) and len(losses(finished)) == 4
    whole, broken = ((folder / "model.safetensors").read_bytes() for folder in (finished, tmp_path / "broken"))
    assert whole == broken


def test_a_trained_model_is_measured_and_one_of_another_task_refused(plain_card, built_sdss, finished, tmp_path):
    measure = ("--do_train", "False", "--model_name_or_path")
    again = classify_sdss.main(command(built_sdss, tmp_path / "again", *measure, str(finished)))
    assert again["auc"] == json.loads((finished / "test_results.json").read_text())["test_auc"]
    other = tmp_path / "other"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"skyset_task": "rings"}))
    with pytest.raises(UserError, match="was trained for 'rings': it is no model of 'morphology'"):
        classify_sdss.main(command(built_sdss, tmp_path / "refused", *measure, str(other)))
    with pytest.raises(UserError, match="no model of 'rings'"):
        load_trained(str(finished), "rings")


def test_data_that_were_built_anew_are_refused_by_both_manifests(built_sdss, finished, tmp_path):
    other = tmp_path / "sdss_galaxy_zoo"
    shutil.copytree(built_sdss, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"it read the data of .*, now they are those of") as caught:
        classify_sdss.main(command(other, finished))
    for folder in (built_sdss, other):
        assert f"{folder}/manifest.json (SHA-256 " in str(caught.value)


def test_training_on_all_measures_nothing_and_seeds_have_a_spread(plain_card, built_sdss, tmp_path):
    quick = ("--max_steps", "1", *LAST)
    assert classify_sdss.main(command(built_sdss, tmp_path / "all", "--train_on", "all", *quick)) == {}
    card = (tmp_path / "all" / "README.md").read_text()
    assert "no number can be given" in card and "model-index" not in card and "72 galaxies" in card
    mean = classify_sdss.main(command(built_sdss, tmp_path / "seeds", "--seeds", "2", "--class_weights", *quick))
    places = [tmp_path / f"seeds/seed_{seed}/test_results.json" for seed in (42, 43)]
    singles = [json.loads(place.read_text())["test_brier"] for place in places]
    assert mean["brier"] == pytest.approx(np.mean(singles)) and singles[0] != singles[1]


@pytest.mark.slow
def test_two_processes_train_on_every_galaxy_exactly_once_an_epoch(plain_card, built_sdss, tmp_path):
    rows = len(morphology.load_morphology(str(built_sdss), (0.6, 0.2, 0.2))["train"])
    options = ("--max_steps", "-1", "--num_train_epochs", "1", "--save_strategy", "no", *LAST)
    seen = rows_read(classify_sdss.main, command(built_sdss, tmp_path / "two", *options), tmp_path)
    assert sorted(row for size, row in seen if size == rows) == list(range(rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data_dir", "/no/such/folder"), "no such data_dir: /no/such/folder"),
        (("--split_shares", "0.5", "0.5", "0.1"), "three shares above 0 that sum to 1"),
        (("--threshold", "1"), "need 0 < threshold < 1"),
        (("--model_type", "nothing"), "no image classifier of type 'nothing'"),
        (("--train_on", "all", "--early_stopping_patience", "2"), "--early_stopping_patience"),
    ],
)
def test_wrong_input_is_one_clear_line(built_sdss, tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        classify_sdss.main([*command(built_sdss, tmp_path / "out"), *change])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
