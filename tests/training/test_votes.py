"""Training on votes from end to end with networks of a few thousand parameters, and what all trainings share."""

import itertools
import json
import os
import re
import resource
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from accelerate.state import AcceleratorState
from datasets import Dataset
from scipy import stats
from transformers import AutoModel, TrainerCallback
from transformers.models.convnext.modeling_convnext import ConvNextLayer
from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2Layer

from skyset.loaders import gz2, gz_decals
from skyset.questions import Question, tagged
from skyset.testing.hub import HubServer
from skyset.testing.votes import draw_shape, draw_votes, shares_of
from skyset.training import train_votes
from skyset.training.common import vote_metrics
from skyset.training.common.arguments import SMALL, ModelArguments, begin_script
from skyset.training.common.card import Card, Measured
from skyset.training.common.data import load_splits
from skyset.training.common.images import Rows
from skyset.training.common.models import load_classifier, load_encoder, load_trained
from skyset.training.common.runs import read_record
from skyset.training.common.segmentation import load_segmenter
from skyset.training.common.vote_card import without_images
from skyset.training.common.vote_data import Votes, answered, campaigns_in, read_votes, votes_of_table
from skyset.training.common.vote_figures import points_of
from skyset.training.common.votes import VoteModel, votes_loss
from tests.galaxies import CONVNEXT, VIT
from tests.hub import TOKEN, talking_to
from tests.processes import forked, status_of

pytestmark = pytest.mark.usefixtures("cache_of_its_own")
TREE = (Question("a", "A?", ("x", "y", "z")), Question("b", "B?", ("u", "v"), ("a_x",)))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


#: The weights of the last step are kept.
LAST = ("--eval_strategy", "no", "--load_best_model_at_end", "False")


def command(survey: Path, output: Path, *more: str, model: str = CONVNEXT, kind: str = "convnextv2") -> list[str]:
    settings = {
        "--data_dir": survey,
        "--output_dir": output,
        "--model_type": kind,
        "--config_overrides": model,
        "--image_size": 32,
        "--load_size": 32,
        "--per_device_train_batch_size": 16,
        "--max_steps": 4,
        "--eval_strategy": "steps",
        "--eval_steps": 2,
        "--save_strategy": "steps",
        "--save_steps": 2,
        "--logging_steps": 1,
        "--disable_tqdm": True,
        "--use_cpu": True,
    }
    return [str(word) for pair in settings.items() for word in pair] + list(more)


@pytest.fixture(scope="module")
def finished(survey, tmp_path_factory) -> Path:
    """A run of 4 steps with checkpoints at 2 and 4. Do not change it."""
    output = tmp_path_factory.mktemp("votes") / "run"
    train_votes.main(command(survey, output, "--data_note", "The galaxies are simulated."))
    return output


@pytest.fixture
def plain_card(monkeypatch):
    """Without simpler models and figures, which take longer than these trainings."""

    def card(story, splits, votes, strengths, constants, figures, elsewhere) -> Card:
        measured = Measured(
            "gz_decals", "default", "test", story.data, {"loss": figures["loss"]}, 9, {}, names={"loss": "loss"}
        )
        return Card(story.name, story.text(), measured, **story.known())

    monkeypatch.setattr(train_votes, "measured_card", card)


def losses(output: Path) -> dict[int, float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


# ---- what a random start is like


def test_layers_of_the_small_networks_add_something_from_the_first_step():
    """ConvNeXt's own first weights are for wide networks: in narrow ones the layers' share was below a thousandth."""
    small, _ = load_encoder(None, "convnextv2", ModelArguments(config_overrides=SMALL).overrides)
    for model in (small, load_segmenter(None, "upernet", {}, ("spiral",))[0]):
        shares = []

        def note(_, seen, out, shares=shares):
            shares.append(((out - seen[0]).std() / seen[0].std()).item())

        for part in model.modules():
            if isinstance(part, (ConvNextLayer, ConvNextV2Layer)):
                part.register_forward_hook(note)
        with torch.no_grad():
            model.eval()(pixel_values=torch.randn(1, 3, 64, 64))
        assert len(shares) == 5 and min(shares) > 0.05


@pytest.mark.parametrize(("more", "rate"), [({}, 3e-3), ({"model_type": "vit"}, 1e-4), ({"model_name_or_path": "x"}, 1e-4)])
def test_the_learning_rate_that_nobody_gave_is_that_of_the_network(more, rate):
    args = SimpleNamespace(do_train=True, should_log=False, learning_rate=None)
    begin_script(ModelArguments(**more), args)
    assert args.learning_rate == rate
    begin_script(ModelArguments(**more), args := SimpleNamespace(do_train=True, should_log=False, learning_rate=0.5))
    assert args.learning_rate == 0.5


# ---- loss, floors, baselines, against definitions


def test_the_loss_is_that_of_scipy_summed_over_the_questions_that_were_asked():
    dice = np.random.default_rng(0)
    counts, strengths = dice.integers(0, 20, (6, 5)), dice.uniform(1, 101, (6, 5))
    counts[0, 3:] = counts[1] = 0
    found = votes_loss(torch.tensor(counts).double(), torch.tensor(strengths), TREE).numpy()
    parts = [(counts[:, part], strengths[:, part]) for part in (slice(0, 3), slice(3, 5))]
    wanted = [-stats.dirichlet_multinomial.logpmf(n, a, n.sum(axis=1)) for n, a in parts]
    np.testing.assert_allclose(found, np.stack(wanted, axis=1), atol=1e-12)
    assert found[0, 1] == 0 and (found[1] == 0).all()
    np.testing.assert_allclose(vote_metrics.negative_log_probability(*parts[0]), wanted[0], atol=1e-12)


def test_questions_that_nobody_was_asked_have_no_gradient():
    strengths = torch.full((1, 5), 3.0, requires_grad=True)
    votes_loss(torch.tensor([[4.0, 0, 1, 0, 0]]), strengths, TREE).sum().backward()
    assert (strengths.grad[0, :3] != 0).all() and (strengths.grad[0, 3:] == 0).all()


def test_floors_are_those_of_all_that_volunteers_may_say():
    share = np.array([0.2, 0.3, 0.5])
    every = [k for k in itertools.product(range(8), repeat=3) if sum(k) == 7]
    chances = stats.multinomial.pmf(every, 7, share)
    assert vote_metrics.multinomial_entropy([7], share[None])[0] == pytest.approx(-(chances * np.log(chances)).sum())
    wanted = sum(stats.binom.pmf(k, 7, 0.3) * abs(k / 7 - 0.3) for k in range(8))
    assert vote_metrics.expected_deviation(7, 0.3) == pytest.approx(wanted)
    assert vote_metrics.expected_deviation([5, 5], [0.0, 1.0]).tolist() == [0, 0]


def test_floors_from_votes_alone_are_those_of_the_true_shares():
    dice, known = np.random.default_rng(1), np.array([2.0, 5.0, 0.5])
    true = dice.dirichlet(known, 400)
    counts = np.array([dice.multinomial(30, share) for share in true])
    fitted = vote_metrics.always_the_same(counts)
    np.testing.assert_allclose(fitted, known, rtol=0.2)
    loss, deviation = vote_metrics.floors(counts, fitted)
    assert loss.mean() == pytest.approx(vote_metrics.multinomial_entropy(np.full(400, 30), true).mean(), rel=0.02)
    assert deviation.mean() == pytest.approx(vote_metrics.expected_deviation(30, true).mean(), rel=0.03)
    same = np.broadcast_to(fitted, counts.shape)
    for other in (fitted * 1.1, fitted * [1.1, 1, 1]):
        assert vote_metrics.negative_log_probability(counts, same).sum() < (
            vote_metrics.negative_log_probability(counts, np.broadcast_to(other, counts.shape)).sum()
        )


def simulated_votes(count: int, volunteers: int = 40) -> tuple[Votes, np.ndarray]:
    """Votes on the tree of GZD-5, and concentrations that know the true shares."""
    dice = np.random.default_rng(2)
    stems = [stem for question in gz_decals.DR5 for stem in question.stems]
    counts, shares = [], []
    for _ in range(count):
        true = shares_of(draw_shape(dice))
        drawn = draw_votes(true, volunteers, dice)
        counts.append([drawn[stem] for stem in stems])
        shares.append(np.concatenate([true[question.name] for question in gz_decals.DR5]))
    return Votes.of(gz_decals.DR5, np.array(counts, np.float32)), 1e4 * np.array(shares)


def test_who_knows_the_true_shares_is_at_the_floor_and_calibrated():
    votes, strengths = simulated_votes(150)
    constants = vote_metrics.constants_of(votes)
    found = vote_metrics.overall(vote_metrics.measure(votes, strengths, constants), 150)
    assert found["loss"] == pytest.approx(found["loss_floor"], rel=0.08) and found["loss_of_mean"] > 1.3 * found["loss"]
    assert found["deviation"] == pytest.approx(found["deviation_floor"], rel=0.08)
    assert found["accuracy"] > 0.98 > 0.8 > found["accuracy_of_mean"]
    expected, seen, ranks = points_of(votes, strengths, 0.5)
    assert abs(ranks.mean() - 0.5) < 0.02 and stats.kstest(ranks, "uniform").statistic < 0.05
    assert np.abs(expected - seen).mean() < 0.06
    halves = [
        vote_metrics.measure(votes.taking(rows), strengths[rows], constants) for rows in np.arange(150).reshape(10, 15)
    ]
    spread = {name: np.std([vote_metrics.overall(part, 15)[name] for part in halves]) for name in ("loss", "deviation")}
    errors = vote_metrics.errors_of(votes, strengths)
    for name, value in spread.items():
        assert 0.4 < errors[name] * 10**0.5 / value < 2.5


def test_only_galaxies_that_reached_a_question_count():
    counts = np.array([[8, 2, 0, 7, 1], [1, 9, 0, 0, 1]], np.float32)  # one of ten was led to b in the second
    votes = Votes.of(TREE, counts)
    np.testing.assert_allclose(votes.reached, [[1, 0.8], [1, 0.1]])
    first, second = vote_metrics.measure(votes, counts + 1.0, np.ones(5))
    assert (first.reached, first.confident, first.right) == (2, 2, 2)
    assert (second.galaxies, second.reached, second.confident) == (2, 1, 1)
    assert second.deviation == pytest.approx(abs(8 / 10 - 7 / 8))
    assert "| `b` | 1 | 8 | 0.075 |" in vote_metrics.table_of([first, second])


# ---- votes of tables


def columns_of(campaign, size: int, value) -> dict[str, list]:
    tree = tagged(campaign.tree, campaign.tag)
    suffixes = [measure.suffix for measure in campaign.answers]
    return {stem + suffix: [value] * size for q in tree for stem in q.stems for suffix in suffixes}


def test_campaigns_are_recognised_by_their_columns():
    both = columns_of(gz_decals.GZD5, 1, 3) | columns_of(gz_decals.GZD12, 1, 3) | columns_of(gz_decals.NETWORK, 1, 0.5)
    assert [each.name for each in campaigns_in(both)] == ["votes of GZD-5", "votes of GZD-1 and GZD-2"]
    assert campaigns_in(both, "gzd-5") == [gz_decals.GZD5] and campaigns_in(both, "automatic") == [gz_decals.NETWORK]
    assert campaigns_in(columns_of(gz2.CAMPAIGN, 1, 3)) == [gz2.CAMPAIGN]
    assert campaigns_in(columns_of(gz_decals.UNTAGGED, 1, 0.5)) == [gz_decals.UNTAGGED]
    with pytest.raises(UserError, match="no 'GZ2'; they have votes of GZD-5"):
        campaigns_in(both, "GZ2")
    with pytest.raises(UserError, match="the data have no votes"):
        campaigns_in(["ra", "dec", "label"])


def test_several_campaigns_are_learned_together():
    rows = Dataset.from_dict(columns_of(gz_decals.GZD5, 2, 3) | columns_of(gz_decals.GZD12, 2, 2))
    votes = read_votes(rows, [gz_decals.GZD5, gz_decals.GZD12])
    assert len(votes.tree) == 20 and votes.counts.shape[1] == sum(len(q.answers) for q in gz_decals.DR5 + gz_decals.DR12)
    assert votes.voters[0, 0] == 9 and votes.voters[0, 10] == 6 and votes.tree[10].name == "smooth-or-featured-dr12"


def test_counts_that_are_not_given_are_no_votes(caplog):
    columns = columns_of(gz2.CAMPAIGN, 3, -1)
    first = "t01_smooth_or_features_"
    columns |= {
        f"{first}{answer}_count": [5, -1, 0] for answer in ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
    }
    columns["t07_rounded_a16_completely_round_count"] = [float("nan"), 4.0, -1.0]
    votes = read_votes(Dataset.from_dict(columns), [gz2.CAMPAIGN])
    assert votes.voters[:, 0].tolist() == [15, 0, 0] and votes.voters[:, 6].tolist() == [0, 4, 0]
    assert [q.name for q in answered(votes)] == ["t01_smooth_or_features", "t07_rounded"]
    assert "nobody answered t02_edgeon" in caplog.text
    few = votes.asking(answered(votes))
    assert few.counts.shape == (3, 6) and few.counts[1].tolist() == [0, 0, 0, 4, 0, 0]
    with pytest.raises(UserError, match="nobody was asked smooth-or-featured"):
        votes.asking(gz_decals.DR5)
    with pytest.raises(UserError, match="nobody answered anything"):
        read_votes(Dataset.from_dict(columns_of(gz2.CAMPAIGN, 3, -1)), [gz2.CAMPAIGN])


def test_shares_stand_for_volunteers_where_nobody_was_counted():
    columns = {
        "smooth-or-featured_featured-or-disk_fraction": [0.7, 0.2],  # of three answers one: not enough
        "disk-edge-on_no_fraction": [0.75, 2.0],  # of two answers one: the other is the rest
        "has-spiral-arms_yes_fraction": [0.5, 0.5],
        "has-spiral-arms_no_fraction": [0.5, float("nan")],
    }
    votes = read_votes(Dataset.from_dict(columns), campaigns_in(columns), assumed=40)
    assert not votes.counted and [q.name for q in votes.tree] == ["disk-edge-on", "has-spiral-arms"]
    np.testing.assert_allclose(votes.counts, [[10, 30, 15, 15], [0, 0, 0, 0]], atol=1e-5)
    figures = vote_metrics.overall(vote_metrics.measure(votes, votes.counts + 1.0, np.ones(4)), 2)
    assert "loss_floor" not in figures and figures["loss"] < figures["loss_of_mean"]


# ---- from end to end


def snippet_of(card: Path) -> str:
    return re.search(r"```python\n(.*?)```", card.read_text(), re.DOTALL)[1]


def test_training_writes_a_model_and_its_card(finished, capsys):
    card = (finished / "README.md").read_text()
    found = {name[5:]: value for name, value in json.loads((finished / "test_results.json").read_text()).items()}
    assert {"loss", "loss_of_mean", "loss_floor", "deviation", "deviation_floor"} <= set(found)
    for row in (
        f"| this model | {found['loss']:.3f} |",
        f"| always the mean of the training galaxies | {found['loss_of_mean']:.3f} |",
    ):
        assert row in card
    assert f"| floor, see below | {found['loss_floor']:.3f} |" in card and "| polar features, linear |" in card
    assert "The galaxies are simulated." in card and "| `spiral-arm-count` |" in card
    assert all((finished / name).stat().st_size > 8000 for name in ("calibration.png", "galaxies.png"))
    exec(snippet_of(finished / "README.md"), {})
    said = capsys.readouterr().out
    assert re.search(r"smooth-or-featured_smooth 0\.\d\d", said) and len(said.splitlines()) == 1 + 34
    config = json.loads((finished / "config.json").read_text())
    assert config["skyset_task"] == "votes" and config["image_size"] == 32 and config["eval_zoom"] == 0.8
    record = read_record(finished)
    assert record["source"]["manifest"].endswith("gz_decals/manifest.json") and record["settings"]["data"]
    assert record["versions"]["torch"] == torch.__version__


def test_the_model_is_found_by_those_who_load_it(plain_card, finished, survey, tmp_path):
    model, _ = load_trained(str(finished))
    assert isinstance(AutoModel.from_pretrained(finished), VoteModel)
    assert model.head.out_features == 34 and model.config.questions == gz_decals.DR5
    answers = model.eval().answers(torch.zeros(2, 3, 32, 32))
    assert len(answers) == 2 and sum(answers[0][stem] for stem in gz_decals.DR5[3].stems) == pytest.approx(1)
    encoder, _ = load_encoder(str(finished))
    rings, _ = load_classifier(str(finished), labels=("no", "yes"))
    for name, weights in model.encoder.state_dict().items():
        assert torch.equal(weights, encoder.state_dict()[name]) and torch.equal(weights, rings.base_model.state_dict()[name])
    with pytest.raises(UserError, match=r"run was trained for 'votes': it is no model of 'rings'"):
        load_trained(str(finished), "rings")
    words = command(survey, tmp_path / "measured", "--do_train", "False", "--model_name_or_path", str(finished))
    again = train_votes.main(words)
    assert again["loss"] == pytest.approx(json.loads((finished / "test_results.json").read_text())["test_loss"])
    rings.save_pretrained(tmp_path / "rings")
    words[words.index(str(finished))] = str(tmp_path / "rings")
    with pytest.raises(UserError, match="does not say what it was trained for: it is no model of 'votes'"):
        train_votes.main([*words, "--overwrite_output_dir"])


class Stop(TrainerCallback):
    """Ctrl-C after the third step."""

    def on_step_end(self, args, state, control, **others):
        if state.global_step == 3:
            raise KeyboardInterrupt


def with_callback(patch: pytest.MonkeyPatch, callback: TrainerCallback) -> None:
    original = train_votes.ImageTrainer.__init__

    def init(trainer, **others):
        original(trainer, **others)
        trainer.add_callback(callback)

    patch.setattr(train_votes.ImageTrainer, "__init__", init)


def same_weights(first: Path, second: Path) -> bool:
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("kind", "config"), [("convnextv2", CONVNEXT), ("vit", VIT)])
def test_a_resumed_run_continues_the_losses_of_an_unbroken_one(
    plain_card, survey, finished, tmp_path, monkeypatch, kind, config
):
    whole, more = finished, ()
    if kind == "vit":
        whole, more = tmp_path / "whole", ("--gradient_checkpointing", "--bf16", "--layer_decay", "0.7")
        train_votes.main(command(survey, whole, *more, model=config, kind=kind))
    words = command(survey, tmp_path / "broken", *more, model=config, kind=kind)
    with monkeypatch.context() as patch:
        with_callback(patch, Stop())
        with pytest.raises(KeyboardInterrupt):
            train_votes.main(words)
    train_votes.main([*words, "--resume_from_checkpoint"])
    assert losses(tmp_path / "broken") == losses(whole) and len(losses(whole)) == 4
    assert same_weights(tmp_path / "broken", whole)


def test_the_loss_of_a_step_is_that_of_its_galaxies_whatever_the_number_of_answers(survey, finished):
    trainer = SimpleNamespace(args=SimpleNamespace(world_size=1))
    rows = train_votes.ImageTrainer._get_num_items_in_batch(trainer, [{"labels": torch.zeros(3, 34)}], torch.device("cpu"))
    assert int(rows) == 3
    found = json.loads((finished / "test_results.json").read_text())
    assert found["test_loss_of_mean"] / 2 < losses(finished)[1] < found["test_loss_of_mean"] * 2


def test_several_seeds_give_mean_and_spread(plain_card, survey, tmp_path, caplog):
    words = command(survey, tmp_path / "seeds", "--seeds", "2", "--seed", "5", "--max_steps", "1", *LAST)
    mean = train_votes.main(words)
    singles = [json.loads((tmp_path / f"seeds/seed_{seed}/test_results.json").read_text())["test_loss"] for seed in (5, 6)]
    assert mean["loss"] == pytest.approx(np.mean(singles)) and singles[0] != singles[1]
    card = (tmp_path / "seeds" / "README.md").read_text()
    assert f"| loss | {np.mean(singles):.4g} | {np.std(singles, ddof=1):.4g} |" in card and "(seed_6/README.md)" in card
    assert train_votes.main(words) == pytest.approx(mean) and "nothing is left to train" in caplog.text
    (tmp_path / "seeds" / "README.md").write_text("mine")
    with pytest.raises(UserError, match="was not written by this run"):
        train_votes.main(words)
    for more in (["--do_train", "False", "--model_name_or_path", "x"], ["--push_to_hub"], ["--resume_from_checkpoint", "x"]):
        with pytest.raises(UserError, match="leave out --seeds"):
            train_votes.main([*words, *more])


def test_a_full_disk_leaves_the_last_checkpoint_whole(plain_card, survey, finished, tmp_path):
    words = command(survey, tmp_path / "run")

    class Fill(TrainerCallback):
        def on_save(self, args, state, control, **others):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    def train() -> None:
        with pytest.MonkeyPatch.context() as patch:
            with_callback(patch, Fill())
            with pytest.raises(
                UserError, match=r"no room left to write a checkpoint .* goes on from checkpoint-2"
            ) as caught:
                train_votes.main(words)
        assert "\n" not in str(caught.value)

    assert status_of(forked(train)) == 0
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    train_votes.main(words)
    assert losses(tmp_path / "run") == losses(finished) and same_weights(tmp_path / "run", finished)


def test_data_that_were_built_anew_are_refused_by_both_manifests(survey, finished, tmp_path):
    other = tmp_path / "gz_decals"
    shutil.copytree(survey, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"it read the data of .*, now they are those of") as caught:
        train_votes.main(command(other, finished))
    for folder in (survey, other):
        assert f"{folder}/manifest.json (SHA-256 " in str(caught.value)


def test_a_checkpoint_of_pickles_is_refused(survey, finished, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    record = json.loads((output / "checkpoint-4" / "run.json").read_text())
    record["files"]["pytorch_model.bin"] = record["files"].pop("model.safetensors")
    (output / "checkpoint-4" / "model.safetensors").rename(output / "checkpoint-4" / "pytorch_model.bin")
    (output / "checkpoint-4" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="its weights are pickled"):
        train_votes.main(command(survey, output, "--resume_from_checkpoint", str(output / "checkpoint-4")))


def test_a_model_is_pushed_once_with_its_card_and_nothing_pickled(plain_card, survey, tmp_path, monkeypatch):
    with HubServer(tmp_path / "hub") as hub, talking_to(hub):
        hub.add_user("alice", TOKEN)
        words = command(
            survey, tmp_path / "out", "--max_steps", "1", "--eval_strategy", "no", "--load_best_model_at_end", "0"
        )
        train_votes.main([*words, "--push_to_hub", "--hub_model_id", "alice/votes", "--hub_token", TOKEN])
        from huggingface_hub import HfApi

        files = set(HfApi().list_repo_files("alice/votes"))
        commits = HfApi().list_repo_commits("alice/votes")
    named = {"README.md", "config.json", "model.safetensors", "run.json"}
    assert files - {".gitattributes"} == named
    assert sum("model and card" in commit.title for commit in commits) == 1
    assert TOKEN not in (tmp_path / "out" / "run.json").read_text()


def test_training_on_all_measures_nothing(survey, tmp_path):
    assert train_votes.main(command(survey, tmp_path, "--train_on", "all", "--max_steps", "1")) == {}
    card = (tmp_path / "README.md").read_text()
    assert "no number can be given" in card and "model-index" not in card and "60 galaxies" in card


@pytest.mark.slow
def test_two_processes_train_on_every_galaxy_exactly_once_an_epoch(plain_card, survey, tmp_path):
    rows = len(load_splits(str(survey))["train"])
    options = ("--max_steps", "-1", "--num_train_epochs", "1", "--eval_strategy", "no", "--save_strategy", "no")
    options += ("--load_best_model_at_end", "false", "--per_device_train_batch_size", "9")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def train(rank: int) -> None:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
        AcceleratorState._reset_state(reset_partial_state=True)
        seen, get = [], Rows.__getitems__
        Rows.__getitems__ = lambda self, rows: (seen.extend((len(self), row) for row in rows), get(self, rows))[1]
        train_votes.main(command(survey, tmp_path / "two", *options))
        (tmp_path / f"seen-{rank}.json").write_text(json.dumps(seen))

    children = [forked(lambda rank=rank: train(rank)) for rank in (0, 1)]
    assert [status_of(child) for child in children] == [0, 0]
    shares = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(index for share in shares for size, index in share if size == rows) == list(range(rows))
    assert json.loads((tmp_path / "two" / "test_results.json").read_text())["test_loss"] > 0


def test_what_a_network_cannot_do_is_one_line(survey, tmp_path):
    with pytest.raises(UserError, match="convnextv2 has no gradient checkpointing"):
        train_votes.main(command(survey, tmp_path, "--gradient_checkpointing"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data_dir", "/no/such/folder"), "/no/such/folder"),
        (("--config_name", "rings_basic"), "rings_basic"),
        (("--campaign", "GZ2"), "the data have no 'GZ2'"),
        (("--image_column", "picture"), "the data have no column picture"),
        (("--reached", "2"), "need 0 < reached <= 1"),
        (("--pool", "cls"), "has no cls token"),
        (("--seeds", "0"), "--seeds must be 1 or more"),
        (("--train_on", "all", "--early_stopping_patience", "2"), "--early_stopping_patience"),
    ],
)
def test_wrong_input_is_one_clear_line(survey, tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        train_votes.main([*command(survey, tmp_path / "out"), *change])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_table_without_images_gives_the_mean_and_the_floor(tmp_path):
    votes, _ = simulated_votes(60)
    stems = [stem for question in gz_decals.DR5 for stem in question.stems]
    lines = [",".join(["iauname", *stems, *(f"{stem}_fraction" for stem in stems)])]
    for number, row in enumerate(votes.counts):
        shares = np.concatenate([part / max(1, part.sum()) for part in votes.parts(row)])
        lines.append(",".join([f"J{number}", *map(str, row.astype(int)), *map(str, shares)]))
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    fitted, others = votes_of_table(str(tmp_path / "votes.csv"))
    assert len(fitted.counts) + len(others.counts) == 60 and len(fitted.counts) > 40
    said = without_images(fitted, others)
    mean, floor = (float(line.split("|")[2]) for line in said.splitlines()[2:4])
    assert floor < 0.8 * mean and f"The mean of {len(fitted.counts)} galaxies" in said


def test_the_floors_of_real_votes(real):
    """Of 4,000 galaxies of DECaLS, 40 volunteers each."""
    fitted, others = votes_of_table(str(real("gz_decals/volunteer_votes_panoptes.csv")))
    found = vote_metrics.overall(
        vote_metrics.measure(others, np.tile([2.0, 2.0, 0.5], (len(others.counts), 1)), vote_metrics.constants_of(fitted)),
        len(others.counts),
    )
    assert len(fitted.counts) + len(others.counts) == 4000
    assert found["loss_of_mean"] == pytest.approx(6.477, abs=0.001) and found["loss_floor"] == pytest.approx(4.135, abs=0.01)
    assert found["deviation_of_mean"] == pytest.approx(0.194, abs=0.001)
    assert found["deviation_floor"] == pytest.approx(0.047, abs=0.001)
