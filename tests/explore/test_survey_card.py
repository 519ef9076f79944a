"""``skyset card`` of a survey and of a folder: blocks, figures, the Hub's rules."""

import shutil
from pathlib import Path

import PIL.Image
import pytest
from huggingface_hub import DatasetCard
from typer.testing import CliRunner

from skyset.cli import app
from skyset.loading import registry
from skyset.publishing.metadata import split_card
from skyset.testing.hub import HubServer
from tests.hub import talking_to


@pytest.fixture
def folder(rings, tmp_path) -> Path:
    return Path(shutil.copytree(rings, tmp_path / "rings"))


def card(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["card", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_folders_card_shows_what_is_there(folder, tmp_path):
    status, said = card(folder, "--check")
    assert status == 1 and "is not up to date" in said and "sky.png: there is no such file" in said
    assert card(folder) == (0, f"{folder / 'README.md'}: brought up to date\n")
    text = (folder / "README.md").read_text()
    assert "40 rows in" in text and "![One object](figures/object.png)" in text
    assert split_card(text)[0]["size_categories"] == ["n<1K"]
    assert PIL.Image.open(folder / "figures" / "sky.png").size[0] > 400
    assert card(folder, "--check") == (0, f"OK: {folder / 'README.md'}\n")
    assert card(folder) == (0, f"{folder / 'README.md'}: is up to date\n")
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 0, result.output
    with HubServer(tmp_path / "hub") as hub, talking_to(hub):
        DatasetCard(text).validate(repo_type="dataset")
        with pytest.raises(ValueError, match="license"):
            DatasetCard(text.replace("license: cc-by-4.0", "license: mine")).validate(repo_type="dataset")


def test_what_the_hub_refuses_is_named(folder):
    path = folder / "README.md"
    path.write_text(path.read_text().replace("license: cc-by-4.0", "license: public"))
    before = path.read_text()
    for options in ((), ("--check",)):
        status, said = card(folder, *options)
        assert status and '"license" must be one of the Hub\'s ids' in said
    assert path.read_text() == before


def test_pictures_of_ones_own_are_not_replaced(folder, tmp_path):
    mine = tmp_path / "mine" / "figures" / "sky.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    status, said = card(folder, "-o", tmp_path / "mine" / "README.md")
    assert status == 2 and "sky.png is there, and no figure of this card" in said.replace("\n", " "), said
    assert mine.read_bytes() == b"mine" and not (tmp_path / "mine" / "README.md").exists()
    mine.unlink()
    for _ in range(2):
        assert card(folder, "-o", tmp_path / "mine" / "README.md")[0] == 0
    assert mine.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", registry.buildable())
def test_the_cards_of_the_repository_pass(name):
    status, said = card(name, "--check")
    assert status == 0, said


def test_somebody_elses_text_is_not_replaced(folder):
    (folder / "README.md").write_text("# My own\n")
    status, said = card(folder)
    assert status == 2 and (folder / "README.md").read_text() == "# My own\n", said
    status, said = card(folder, "-o", folder / "CARD.md")
    assert status == 0 and (folder / "CARD.md").is_file(), said


@pytest.mark.parametrize("where", ["no_such_survey", "nothing/here"])
def test_what_there_is_not(where):
    status, said = card(where)
    assert status == 2 and "Traceback" not in said
