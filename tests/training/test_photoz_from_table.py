"""Training from a table of magnitudes, from end to end with networks of a few hundred weights."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from matplotlib.figure import Figure
from safetensors.torch import load_file

from skyset.training import train_photoz
from skyset.training.common import photoz_baselines
from skyset.training.common.mixtures import Mixture
from skyset.training.common.models import load_trained
from skyset.training.common.photoz_metrics import point_metrics
from skyset.training.common.photoz_points import point
from skyset.training.common.photoz_table import predict
from tests.processes import killed_once

SMALL = {"width": 8, "depth": 1, "components": 2, "members": 2, "folds": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny networks are faster so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures are drawn for the card of ``trained`` alone."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_bytes(b"not drawn"))


def write_table(path, rows=160, seed=0, **changes):
    """Galaxies whose colours grow with redshift; a tenth is not detected in g, a tenth not observed in i."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.1, 1.5, rows)
    table = {"redshift": z}
    for band, slope in (("g", 2.5), ("r", 1.5), ("i", 1.0)):
        table[f"mag_{band}_lsst"] = (21 + slope * z + rng.normal(0, 0.05, rows)).astype(np.float32)
        table[f"mag_err_{band}_lsst"] = np.full(rows, 0.05, np.float32)
    table["mag_g_lsst"][: rows // 10] = 99
    table["mag_i_lsst"][-(rows // 10) :] = np.nan
    pq.write_table(pa.table(table | changes), path)
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photoz_tables")
    write_table(folder / "test.parquet", 60, 1)
    return write_table(folder / "train.parquet")


def command(table, output, *more, **settings):
    words = {"--table": table, "--eval_table": table.with_name("test.parquet"), "--model": "mdn", "--output_dir": output}
    words |= {"--config_overrides": json.dumps(SMALL | settings), "--max_steps": 60, "--save_steps": 10, "--eval_steps": 30}
    words |= {"--per_device_train_batch_size": 40, "--logging_steps": 10, "--baselines": "false"}
    return [*(str(word) for pair in words.items() for word in pair), *more]


@pytest.fixture(scope="module")
def trained(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photoz_trained") / "out"
    metrics = train_photoz.main(command(tables, folder))
    return folder, metrics


def test_model_card_and_figures_are_of_what_was_measured(tables, trained, capsys):
    folder, metrics = trained
    assert metrics["scatter"] < 0.3 and metrics["crps"] < 0.35
    model, _ = load_trained(str(folder), "photoz_table")
    rows, components = predict(model, str(tables.with_name("test.parquet")))
    assert components.shape == (60, 2, 2, 3) and np.isposinf(rows.magnitudes[:6, 0]).all()
    grid = np.expm1(np.linspace(0, np.log(5), 1001))
    cdf = Mixture(components).cdf(grid)
    truth = pq.read_table(tables.with_name("test.parquet"))["redshift"].to_numpy()
    found = {kind: point_metrics(point(cdf, grid, kind), truth) for kind in ("best", "median")}
    assert model.config.point == "best" and metrics["outliers"] == pytest.approx(found["best"]["outliers"], abs=0.02)
    assert metrics["scatter"] == pytest.approx(found["best"]["scatter"], abs=0.005)
    card = (folder / "README.md").read_text()
    assert f"| median | {found['median']['scatter']:.3f}" in card
    assert f"{metrics['scatter']:.4f}" in card and "Cross-validated" in card and "g 6, i 6" in card
    assert {path.name for path in folder.glob("*.png")} == {"redshifts.png", "over_redshift.png", "pit.png"}
    held_out = json.loads((folder / "eval_results.json").read_text())
    assert held_out["eval_crps"] > 0 and f"{held_out['eval_scatter']:.4f}" in card
    exec(re.search(r"```python\n(.*?)```", card, re.S)[1], {})
    assert "of [[" in capsys.readouterr().out
    assert train_photoz.main(command(tables, folder)) == pytest.approx(metrics)  # nothing is trained again
    with pytest.raises(UserError, match=r"other settings: .*seed"):
        train_photoz.main(command(tables, folder, "--seed", "3"))


def test_killed_it_goes_on_to_the_same_weights(tables, trained, tmp_path):
    words = command(tables, tmp_path)
    assert killed_once((tmp_path / "checkpoint-10" / "run.json").exists, lambda: train_photoz.main(words))
    train_photoz.main([*words, "--resume_from_checkpoint"])
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path, trained[0]))
    assert all(torch.equal(one[name], other[name]) for name in other)
    logs = [json.loads((folder / "trainer_state.json").read_text())["log_history"] for folder in (tmp_path, trained[0])]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in logs]
    assert losses[0] == losses[1] and len(losses[1]) == 6


def test_without_a_table_to_measure_on_a_tenth_is_left_out(tables, tmp_path):
    words = command(tables, tmp_path / "out", "--max_steps", "4", folds=0)
    words[words.index("--eval_table") : words.index("--eval_table") + 2] = []
    train_photoz.main(words)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "16 galaxies" in card and "on 144 galaxies" in card and "Cross-validated" not in card
    assert train_photoz.main([*words, "--train_on", "all", "--output_dir", str(tmp_path / "all")]) == {}
    assert "none is left to measure" in (tmp_path / "all" / "README.md").read_text()


def test_a_model_is_measured_without_training(tables, trained, tmp_path):
    words = ["--eval_table", str(tables.with_name("test.parquet")), "--model_name_or_path", str(trained[0])]
    metrics = train_photoz.main([*words, "--do_train", "false", "--point", "median", "--output_dir", str(tmp_path)])
    assert metrics["crps"] == pytest.approx(trained[1]["crps"], rel=1e-3) and metrics["rms"] != trained[1]["rms"]
    card = (tmp_path / "README.md").read_text()
    assert "Nothing was trained here" in card and "is the median of p(z)" in card


@pytest.mark.parametrize(
    ("changes", "more", "match"),
    [
        ({"redshift": np.full(160, np.nan)}, (), "no row has a redshift"),
        ({"redshift": np.ones(160)}, (), "all redshifts are the same"),
        ({"mag_i_lsst": np.full(160, np.nan)}, (), "no row has a magnitude in i"),
        ({}, ("--model", "cnn"), "invalid choice: 'cnn'"),
        ({}, ("--bands", "g,r"), "the table's bands are g, r, but the model takes g, r, i"),
        ({}, ("--eval_table", "TABLE"), "not measured on what it learned"),
        ({}, ("--freeze",), "are not for tables"),
        ({}, ("--config_overrides", '{"members": 3, "folds": 2}'), "3 members cannot share 2 folds"),
        ({}, ("--config_overrides", '{"widht": 3}'), "no setting widht .there are: width"),
        ({}, ("--config_overrides", '{"width": "3"}'), "--config_overrides make no network"),
        ({}, ("--table", "no.hdf5"), "No such file"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(tables, trained, tmp_path, changes, more, match):
    table = write_table(tmp_path / "t.parquet", **changes)
    write_table(tmp_path / "test.parquet", 60, 1)
    more = [str(table) if word == "TABLE" else word for word in more]
    if "--bands" in more:
        more += ["--model_name_or_path", str(trained[0])]
    with pytest.raises(UserError, match=match):
        train_photoz.main(command(table, tmp_path / "out", *more))


def test_simpler_models_have_the_distributions_of_the_galaxies_they_know(monkeypatch):
    monkeypatch.setattr(photoz_baselines, "TREES", 10)
    rng = np.random.default_rng(0)
    z = rng.uniform(0, 2, 120)
    train, grid = np.column_stack([z, rng.normal(size=120)]), np.linspace(0, 3, 301)
    found = dict(photoz_baselines.score_baselines(train, z, train[:20], grid))
    assert {"random forest", "10 neighbours", "MLP"} <= set(found)
    for name, cdf in found.items():
        assert cdf.shape == (20, 301) and (np.diff(cdf, axis=1) >= 0).all() and (cdf[:, -1] == 1).all(), name
        medians = grid[(cdf < 0.5).sum(axis=1)]
        assert np.median(np.abs(medians - z[:20])) < 0.25, name
