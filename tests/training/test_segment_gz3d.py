"""Learning to draw as volunteers do, from end to end with networks of a few thousand weights."""

import json
import re
import shutil
from pathlib import Path

import pytest

from skyset.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from PIL import Image

from skyset.training import segment_gz3d
from skyset.training.common.images import Rows
from tests.ranks import on_two_ranks
from tests.training.test_masks import TINY

pytestmark = pytest.mark.usefixtures("cache_of_its_own")
KINDS = list(TINY)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny networks are faster so, and CI runs two workers on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(built: Path, output: Path, kind: str, *more: str) -> list[str]:
    settings = {
        "--data_dir": built,
        "--output_dir": output,
        "--model_type": kind,
        "--config_overrides": json.dumps(TINY[kind]),
        "--image_size": 32,
        "--max_steps": 4,
        "--per_device_train_batch_size": 5,
        "--learning_rate": 5e-3,
        "--save_strategy": "steps",
        "--save_steps": 2,
        "--eval_strategy": "steps",
        "--eval_steps": 2,
        "--logging_steps": 1,
        "--disable_tqdm": True,
        "--use_cpu": True,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    return [*words, "--split_shares", "0.6", "0.2", "0.2", *more]


def losses(output: Path) -> dict[int, float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


def killed_after(step: int, finished: Path, output: Path) -> Path:
    """A copy of a finished run as if it had been killed after the checkpoint of that step."""
    shutil.copytree(finished, output)
    for checkpoint in output.glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    for path in output.iterdir():
        if path.is_file():
            path.unlink()
    record = json.loads((finished / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**record, "finished": False, "files": {}, "card": {}}))
    return output


def same_weights(first: Path, second: Path) -> bool:
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(built, tmp_path_factory) -> Path:
    """A run of four steps that is measured, with checkpoints at 2 and 4."""
    output = tmp_path_factory.mktemp("masks") / "run"
    segment_gz3d.main(command(built, output, "segformer"))
    return output


def test_the_card_says_what_was_measured_and_on_what(finished, capsys):
    card = (finished / "README.md").read_text()
    found = json.loads((finished / "test_results.json").read_text())
    assert "# masks-gz3d-segformer-simulated" in card and "**The galaxies and their masks are simulated**" in card
    assert f"| this model | {found['test_binomial_loss']:.3f} | {found['test_loss_floor']:.3f} |" in card
    assert found["test_binomial_loss"] > found["test_loss_floor"] > 0
    for name in ("mean mask", "mean share by distance from the centre", "colours and distance, logistic regression"):
        assert len(re.findall(rf"\| {name} \| 0\.\d+ ", card)) == 1
    asked = dict(re.findall(r"\| (train|validation|test) \| \d+ \| (\d+ \| \d+ \| \d+ \| \d+) \|", card))
    assert set(asked) == {"train", "validation", "test"}
    tests = [int(count) for count in asked["test"].split(" | ")]
    assert [int(n) for n in re.findall(r"^\| (?:center|star|spiral|bar) \| (\d+) \|", card, re.M)] == tests
    assert max(tests) > min(tests), "all were asked for all: nothing is tested"
    for name in ("masks.png", "shares.png"):
        assert f"]({name})" in card and Image.open(finished / name).size[0] > 500
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed] == ["center", "star", "spiral", "bar"]
    config = json.loads((finished / "config.json").read_text())
    assert config["skyset_task"] == "masks" and config["id2label"]["3"] == "bar"
    assert not list(finished.rglob("*.bin.index*")) and list(finished.glob("*.safetensors"))


def test_a_killed_run_goes_on_to_the_losses_of_an_unbroken_one(built, finished, tmp_path):
    """Stock `Trainer` goes on with weights of a Segformer that are mostly random."""
    output = killed_after(2, finished, tmp_path / "killed")
    segment_gz3d.main(command(built, output, "segformer"))
    assert losses(output) == losses(finished) and len(losses(finished)) == 4
    assert same_weights(output, finished)
    assert (output / "test_results.json").read_text() == (finished / "test_results.json").read_text()


@pytest.mark.slow
def test_two_processes_draw_from_every_galaxy_once_an_epoch_and_go_on_alike(built, tmp_path):
    options = (
        "--train_on",
        "all",
        "--max_steps",
        "-1",
        "--num_train_epochs",
        "2",
        "--save_strategy",
        "epoch",
        "--eval_strategy",
        "epoch",
    )

    def train(rank: int) -> None:
        seen, get = [], Rows.__getitem__

        def spy(self, index):
            seen.append(int(index))
            return get(self, index)

        for kind in KINDS:
            del seen[:]
            Rows.__getitem__ = spy
            segment_gz3d.main(command(built, tmp_path / kind, kind, *options))
            assert torch.distributed.get_world_size() == 2
            (tmp_path / f"{kind}-{rank}.json").write_text(json.dumps(seen))
            torch.distributed.barrier()
            if rank == 0:
                killed_after(3, tmp_path / kind, tmp_path / f"{kind}-killed")
            torch.distributed.barrier()
            segment_gz3d.main(command(built, tmp_path / f"{kind}-killed", kind, *options))

    assert on_two_ranks(train) == [0, 0]
    for kind in KINDS:
        shares = [json.loads((tmp_path / f"{kind}-{rank}.json").read_text())[24:] for rank in (0, 1)]  # after begin_at_mean
        assert sorted(shares[0] + shares[1]) == sorted(list(range(24)) * 2), kind
        assert losses(tmp_path / f"{kind}-killed") == losses(tmp_path / kind)
        assert same_weights(tmp_path / f"{kind}-killed", tmp_path / kind)
        card = (tmp_path / kind / "README.md").read_text()
        assert "no number can be given" in card and "model-index" not in card and "simulated" in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--classes", "spiral", "disc"), "--classes takes some of center star spiral bar"),
        (("--split_shares", "0.9", "0.2", "0.1"), "--split_shares takes three shares"),
        (("--split_shares", "0.8", "0.0001", "0.1999"), "none of 24 galaxies falls into the validation split"),
        (("--absent_below", "1.5"), "--absent_below is a share"),
        (("--model_type", "vit", "--config_overrides", "{}"), "no segmenting model of type 'vit'"),
        (("--model_type", "upernet", "--config_overrides", "{}", "--gradient_checkpointing"), "cannot do that"),
        (("--data_dir", "nowhere"), "no such data_dir"),
    ],
)
def test_wrong_input_is_one_clear_line(built, tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        segment_gz3d.main([*command(built, tmp_path / "out", "segformer"), *change])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_models_of_other_tasks_and_other_settings_are_refused(built, finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "skyset_task": "rings"}))
    with pytest.raises(UserError, match="was trained for 'rings'"):
        segment_gz3d.main(command(built, tmp_path / "out", "segformer", "--model_name_or_path", str(other)))
    with pytest.raises(UserError, match="holds a run with other settings: classes"):
        segment_gz3d.main(command(built, finished, "segformer", "--classes", "center", "spiral"))
    with pytest.raises(UserError, match=r"absent_below 0\.0 \(now 0\.1\)"):
        segment_gz3d.main(command(built, finished, "segformer", "--absent_below", "0.1"))
