"""Predictions with small random models: each row once, whatever is killed, however many processes."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from datasets import Dataset, Features, Image, Value
from transformers import set_seed

import skyset
from skyset.loaders import gz3d
from skyset.testing.votes import write_votes
from skyset.training import predict
from skyset.training.common.encoders import build
from skyset.training.common.images import to_tensor
from skyset.training.common.models import load_classifier, load_encoder, load_trained, remember
from skyset.training.common.photoz_config import PhotozConfig
from skyset.training.common.photoz_data import load_galaxies
from skyset.training.common.photoz_models import PhotozModel
from skyset.training.common.photoz_table import PhotozTable, PhotozTableConfig
from skyset.training.common.photoz_trainer import predict as predict_photoz
from skyset.training.common.pieces import Pieces
from skyset.training.common.segmentation import load_segmenter
from skyset.training.common.streams import find_image_column
from skyset.training.common.tasks import mark
from skyset.training.common.views import Views
from skyset.training.common.votes import VoteModel, as_dicts
from tests.galaxies import CONVNEXT
from tests.training.test_segment_gz3d import TINY
from tests.training.test_votes import TREE

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def votes_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "votes"
    set_seed(0)
    model, normalisation = build(
        VoteModel, "votes", None, "convnextv2", json.loads(CONVNEXT), size=32, tree=as_dicts(TREE), campaign="test"
    )
    remember(model, 32, normalisation, 0.8)
    torch.nn.init.normal_(model.head.weight, std=1.0)  # answers that differ from galaxy to galaxy
    model.save_pretrained(folder)
    return folder


def command(model, dataset, output, *more):
    words = "--model", model, "--dataset", dataset, "-o", output, "--device", "cpu", "--batch_size", 7, "--rows_a_piece", 16
    return [str(word) for word in (*words, *more)]


def test_predictions_are_what_the_model_says_of_each_row_once(votes_model, survey, tmp_path, capsys):
    output = tmp_path / "votes.parquet"
    assert predict.main(command(votes_model, survey, output)) == 60
    assert capsys.readouterr().out == f"60 predictions in {output}\n"
    found = pq.read_table(output).to_pydict()
    model, normalisation = load_trained(str(votes_model), "votes")
    views = Views(32, normalisation.mean, normalisation.std, eval_zoom=0.8).eval()
    rows = list(skyset.load("gz_decals", data_dir=str(survey), split="all", streaming=True).with_format("numpy"))
    assert found["object_id"] == [row["object_id"] for row in rows]
    assert found["ra"] == [row["ra"] for row in rows] and found["dec"] == [row["dec"] for row in rows]
    pixels = torch.stack([to_tensor(row["image"], 40, 3) for row in rows])
    expected = model.eval().answers(views(pixels))
    for stem in expected[0]:
        assert found[f"{stem}_fraction"] == pytest.approx([each[stem] for each in expected], abs=1e-5)
    assert len(set(found["a_x_fraction"])) > 50
    assert np.all(np.array(found["b_u_concentration"]) > 1)


def test_a_split_alone_and_a_batch_of_any_size_give_the_same(votes_model, survey, tmp_path):
    predict.main(command(votes_model, survey, tmp_path / "all.parquet"))
    predict.main(command(votes_model, survey, tmp_path / "test.parquet", "--split", "test", "--batch_size", 64))
    every, some = (pq.read_table(tmp_path / name).to_pydict() for name in ("all.parquet", "test.parquet"))
    rows = [every["object_id"].index(name) for name in some["object_id"]]
    assert 0 < len(rows) < 60 and [every["ra"][row] for row in rows] == some["ra"]
    assert [every["a_y_fraction"][row] for row in rows] == pytest.approx(some["a_y_fraction"], abs=1e-6)


class Killed(BaseException):
    """As if by a signal."""


def test_a_killed_run_makes_only_the_pieces_that_are_missing(votes_model, survey, tmp_path, monkeypatch):
    whole, output = tmp_path / "whole.parquet", tmp_path / "votes.parquet"
    predict.main(command(votes_model, survey, whole, "--samples", 3))
    wrote, written = Pieces.write, []

    def killing(self, number, table):
        if number == 2:
            raise Killed
        wrote(self, number, table)

    monkeypatch.setattr(Pieces, "write", killing)
    with pytest.raises(Killed):
        predict.main(command(votes_model, survey, output, "--samples", 3))
    assert not output.exists() and len(list(tmp_path.glob("votes.parquet.pieces/0*.parquet"))) == 2
    monkeypatch.setattr(Pieces, "write", lambda self, number, table: (written.append(number), wrote(self, number, table)))
    assert predict.main(command(votes_model, survey, output, "--samples", 3, "--rows_a_piece", 5)) == 60
    assert written == [2, 3]
    assert pq.read_table(output).equals(pq.read_table(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["votes.parquet", "whole.parquet"]
    written.clear()
    assert predict.main(command(votes_model, survey, output, "--samples", 3)) == 60 and not written


def test_processes_share_the_rows_in_any_number(votes_model, survey, tmp_path, monkeypatch, capsys):
    whole, output = tmp_path / "whole.parquet", tmp_path / "votes.parquet"
    predict.main(command(votes_model, survey, whole))
    assert predict.main(command(votes_model, survey, output, "--shard", "1/2")) == 0
    assert "process 1 of 2 is done" in capsys.readouterr().out and not output.exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert predict.main(command(votes_model, survey, output)) == 0  # pieces 1 and 3 were there, 2 is another's
    monkeypatch.setenv("RANK", "2")
    assert predict.main(command(votes_model, survey, output)) == 60
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_draws_are_of_the_dirichlet_distribution(votes_model, survey, tmp_path):
    output = tmp_path / "votes.parquet"
    predict.main(command(votes_model, survey, output, "--samples", 400, "--split", "test"))
    table = pq.read_table(output)
    draws = {name: np.stack(table[f"{name}_samples"].to_numpy()) for name in ("a_x", "a_y", "a_z", "b_u", "b_v")}
    assert draws["a_x"].shape == (len(table), 400)
    assert draws["a_x"] + draws["a_y"] + draws["a_z"] == pytest.approx(1, abs=1e-5)
    strength = table["b_u_concentration"].to_numpy() + table["b_v_concentration"].to_numpy()
    share = table["b_u_fraction"].to_numpy()
    assert draws["b_u"].mean(1) == pytest.approx(share, abs=0.02)
    # of a beta distribution, the Dirichlet's margin
    assert draws["b_u"].std(1) == pytest.approx(np.sqrt(share * (1 - share) / (1 + strength)), rel=0.25)


def test_a_classifier_gives_the_probability_of_each_class(survey, tmp_path):
    model, normalisation = load_classifier(None, "convnextv2", json.loads(CONVNEXT), ("no_ring", "ring"))
    remember(model, 32, normalisation)
    mark(model, "rings")
    model.save_pretrained(tmp_path / "rings")
    predict.main(command(tmp_path / "rings", survey, tmp_path / "rings.parquet", "--views", 2, "--split", "test"))
    found = pq.read_table(tmp_path / "rings.parquet")
    assert found.column_names == ["object_id", "ra", "dec", "probability_no_ring", "probability_ring"]
    assert found["probability_no_ring"].to_numpy() + found["probability_ring"].to_numpy() == pytest.approx(1, abs=1e-5)


def test_masks_become_areas_and_maps(built, tmp_path):
    model, normalisation = load_segmenter(None, "segformer", TINY["segformer"], gz3d.CLASSES)
    remember(model, 32, normalisation, 1.0)
    mark(model, "masks")
    model.save_pretrained(tmp_path / "masks")
    predict.main(command(tmp_path / "masks", built, tmp_path / "masks.parquet", "--maps", "--key_column", "object_id"))
    table = pq.read_table(tmp_path / "masks.parquet")
    assert set(gz3d.CLASSES) <= {name.rpartition("_")[0] for name in table.column_names}
    percent = np.stack(table["bar_percent"].to_numpy())
    assert percent.shape == (len(table), 32 * 32) and percent.dtype == np.uint8 and percent.max() <= 100
    assert percent.mean(1) / 100 == pytest.approx(table["bar_mean"].to_numpy(), abs=0.006)
    predict.main(command(tmp_path / "masks", built, tmp_path / "half.parquet", "--bf16", "--views", 2))
    assert pq.read_table(tmp_path / "half.parquet")["bar_mean"].to_numpy() == pytest.approx(percent.mean(1) / 100, abs=0.1)
    assert (percent >= 20).mean(1) == pytest.approx(table["bar_area_3"].to_numpy(), abs=0.2)


@pytest.mark.parametrize("pdf", ["point", "bayes"])
def test_redshifts_are_those_of_the_model(galaxiesml, tmp_path, pdf):
    set_seed(1)
    encoder = {"depths": [1, 1], "hidden_sizes": [4, 8], "num_stages": 2, "patch_size": 16}
    model = PhotozModel(PhotozConfig("convnext", pdf, width=16, depth=1, components=2, image_encoder=encoder))
    mark(model, "photoz")
    model.save_pretrained(tmp_path / "photoz")
    more = ("--config", "64", "--split", "test", *(("--samples", 300) if pdf == "bayes" else ()))
    predict.main(command(tmp_path / "photoz", galaxiesml, tmp_path / "half.parquet", *more, "--bf16"))
    predict.main(command(tmp_path / "photoz", galaxiesml, tmp_path / "z.parquet", *more))
    table = pq.read_table(tmp_path / "z.parquet")
    galaxies = load_galaxies(str(galaxiesml), "64")["test"]
    expected, distributions = predict_photoz(model, galaxies, range(len(galaxies)))
    assert table["object_id"].cast("string").to_pylist() == galaxies.object_id.tolist()
    assert table["redshift"].to_numpy() == pytest.approx(expected, abs=1e-4)
    assert pq.read_table(tmp_path / "half.parquet")["redshift"].to_numpy() == pytest.approx(expected, abs=0.1)
    with pytest.raises(UserError, match="redshift is a column of the data and of the predictions"):
        predict.table_of({"redshift": [1.0]}, {"redshift": np.ones(1)})
    for data, config, message in (
        (galaxiesml, "16", "has no dataset '16'; it holds galaxiesml"),
        (tmp_path, "64", "no manifest"),
    ):
        with pytest.raises(UserError, match=message):
            load_galaxies(str(data), config)
    for load in (load_encoder, load_classifier):
        with pytest.raises(UserError, match="was trained for 'photoz': no other training can start from it"):
            load(str(tmp_path / "photoz"))
    if pdf == "point":
        assert distributions is None and "redshift_p16" not in table.column_names
        return
    cdf, grid = distributions
    draws = np.stack(table["redshift_samples"].to_numpy())
    at = np.array([np.interp(value, grid, row) for value, row in zip(table["redshift_p84"].to_numpy(), cdf, strict=True)])
    assert at == pytest.approx(0.84, abs=1e-3)
    assert (draws <= table["redshift_p84"].to_numpy()[:, None]).mean(1) == pytest.approx(0.84, abs=0.1)


def test_a_model_for_tables_reads_a_table(tmp_path):
    set_seed(2)
    names = {"magnitudes": ["mag_g", "mag_r"], "errors": ["mag_g_err", "mag_r_err"]}
    PhotozTable(config := PhotozTableConfig(["g", "r"], width=8, depth=1, components=2, members=2, folds=0, columns=names))
    model = PhotozTable(config)
    mark(model, "photoz_table")
    model.save_pretrained(tmp_path / "table")
    lines = ["object_id,mag_g,mag_r,mag_g_err,mag_r_err"]
    lines += [f"a{row},{20 + row / 10},{19.5 + row / 20},0.02,0.03" for row in range(40)] + ["none,,,,"]
    (tmp_path / "galaxies.csv").write_text("\n".join(lines) + "\n")
    output = tmp_path / "z.parquet"
    assert predict.main(command(tmp_path / "table", tmp_path / "galaxies.csv", output, "--samples", 5)) == 41
    table = pq.read_table(output)
    assert table["object_id"].to_pylist() == [f"a{row}" for row in range(40)] + ["none"]
    assert np.isfinite(table["redshift"].to_numpy()[:40]).all() and np.isnan(table["redshift"].to_numpy()[40])
    assert (table["redshift_p16"].to_numpy()[:40] < table["redshift_p84"].to_numpy()[:40]).all()
    with pytest.raises(UserError, match="reads tables"):
        predict.main(command(tmp_path / "table", tmp_path / "galaxies.csv", tmp_path / "b.parquet", "--views", 2))
    with pytest.raises(UserError, match="is no file"):
        predict.main(command(tmp_path / "table", tmp_path, tmp_path / "b.parquet"))


def test_what_is_there_is_not_destroyed(votes_model, survey, tmp_path):
    output = tmp_path / "votes.parquet"
    output.write_text("mine")
    with pytest.raises(UserError, match="was not written by this script: choose another name, or give --overwrite"):
        predict.main(command(votes_model, survey, output, "--split", "test"))
    assert output.read_text() == "mine"
    count = predict.main(command(votes_model, survey, output, "--split", "test", "--overwrite"))
    with pytest.raises(UserError, match="has another samples \\(0, now 2\\)"):
        predict.main(command(votes_model, survey, output, "--split", "test", "--samples", 2))
    assert len(pq.read_table(output)) == count


def test_the_old_table_stays_until_the_new_one_is_whole(votes_model, survey, tmp_path, monkeypatch):
    output, test = tmp_path / "votes.parquet", ("--split", "test")
    predict.main(command(votes_model, survey, output, *test))
    before = output.read_bytes()

    def killing(self, number, table):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Pieces, "write", killing)
        predict.main(command(votes_model, survey, output, *test, "--samples", 2, "--overwrite"))
    assert output.read_bytes() == before
    predict.main(command(votes_model, survey, output, *test, "--samples", 2, "--overwrite"))
    assert "a_x_samples" in pq.read_schema(output).names


def test_what_a_kill_leaves_is_gone_on_from_and_what_others_left_is_kept(votes_model, survey, tmp_path):
    output, test = tmp_path / "votes.parquet", ("--split", "test")
    pieces = tmp_path / "votes.parquet.pieces"
    pieces.mkdir()  # killed before it said whose it is
    count = predict.main(command(votes_model, survey, output, *test))
    pieces.mkdir()
    (pieces / "000000.parquet").write_bytes(b"")  # killed while it was removed
    assert predict.main(command(votes_model, survey, output, *test)) == count and not pieces.exists()
    output.unlink()
    assert predict.main(command(votes_model, survey, output, *test, "--shard", "1/2")) == 0
    (pieces / "000000.parquet").write_bytes(b"")  # a disk that lost power
    assert predict.main(command(votes_model, survey, output, *test)) == count
    pieces.mkdir()
    (pieces / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.txt, which is not of this script"):
        predict.main(command(votes_model, survey, output, *test, "--overwrite"))
    assert (pieces / "thesis.txt").read_text() == "mine"


def test_what_the_environment_says_wrongly_is_one_line(votes_model, survey, tmp_path, monkeypatch):
    for rank in ("x", "5"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(UserError, match="RANK/WORLD_SIZE"):
            predict.main(command(votes_model, survey, tmp_path / "votes.parquet"))


def test_data_that_were_built_anew_make_no_mixed_table(votes_model, survey, tmp_path):
    assert predict.main(command(votes_model, survey, tmp_path / "votes.parquet", "--shard", "0/2")) == 0
    from skyset.build_scripts.gz_decals.build_parent_sample import main as rebuild

    write_votes(tmp_path / "raw", 60, seed=4, volunteers=20, side=32)
    words = ["--local_data_path", str(tmp_path / "raw"), "-o", str(tmp_path / "new"), "--num_processes", "1"]
    assert rebuild(words) == 0
    with pytest.raises(UserError, match="of an interrupted command, has another data"):
        predict.main(command(votes_model, tmp_path / "new", tmp_path / "votes.parquet", "--shard", "1/2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "nowhere"}, "nowhere"),
        ({"--dataset": "nowhere"}, "no survey and no folder nowhere"),
        ({"--image_column": "picture"}, "the data have no column picture"),
        ({"--key_column": "name"}, "has no column name"),
        ({"--shard": "4/4"}, "give K/N, K from 0 to N - 1"),
        ({"--views": "0"}, "--views must be 1 or more, not 0"),
        ({"--samples": "-1"}, "--samples must not be negative"),
        ({"-o": "votes.csv"}, "predictions are written as Parquet"),
        ({"--maps": "True"}, "--maps is for models that segment"),
        ({"--split": "none"}, "none"),
        ({"--seed": "-1"}, "--seed must not be negative"),
        ({"--device": "gpu"}, "--device gpu"),
        ({"--key_column": "image"}, "a key is one value a row"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(votes_model, survey, tmp_path, change, message):
    words = {"--model": votes_model, "--dataset": survey, "-o": tmp_path / "votes.parquet"} | change
    with pytest.raises(UserError, match=message) as raised:
        predict.main([str(word) for pair in words.items() for word in pair])
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_data_without_images_are_not_asked_which_column_is_one():
    columns = {f"magnitude_{n}": Value("float32") for n in range(30)}
    for images, message in (
        ({}, "the data have no images; they have magnitude_0"),
        ({"picture": Image()}, "one of picture$"),
    ):
        rows = Dataset.from_dict({name: [None] for name in columns | images}, features=Features(columns | images))
        with pytest.raises(UserError, match=message):
            find_image_column(rows.to_iterable_dataset())


def test_a_folder_that_is_no_model_of_ours_says_so(survey, tmp_path):
    encoder, _ = load_classifier(None, "convnextv2", json.loads(CONVNEXT))
    encoder.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="does not say what it was trained for"):
        predict.main(command(tmp_path / "other", survey, tmp_path / "z.parquet"))
