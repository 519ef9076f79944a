"""The one rule of where a survey's data are looked for, place by place, and what is said where nothing is found."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skyset.cli import app
from skyset.loading import places
from skyset.loading.places import find_root, looked_in, survey_in

pytestmark = pytest.mark.datasets3


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a project in it, where we work."""
    work = tmp_path / "home" / "me" / "project"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    monkeypatch.delenv("SKYSET_DATA", raising=False)
    monkeypatch.chdir(work)
    return tmp_path / "home" / "me"


def make(folder, survey="gz3d", config=None) -> str:
    """A folder with the beginning of a manifest."""
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    build = {"config": config} if config else {}
    (folder / "manifest.json").write_text(json.dumps({"format": "skyset-manifest/1", "survey": survey, "build": build}))
    return str(folder)


def test_what_is_asked_for_is_all_that_is_looked_at(home):
    make("data/gz3d")
    assert find_root("gz3d", "elsewhere") == str(home / "project" / "elsewhere")
    assert find_root("gz3d", "~/x") == str(home / "x")
    assert find_root("gz3d", "hf://datasets/me/gz3d") == "hf://datasets/me/gz3d"
    assert find_root("gz_decals", "hf://datasets/me/x/", config="rings") == "hf://datasets/me/x/rings"
    assert find_root("gz_decals", "x", config="rings") == str(home / "project" / "x" / "rings")


def test_a_config_alone_is_found_in_its_own_folder(home):
    alone = make("rings", "gz_decals", "rings_basic")
    assert find_root("gz_decals", "rings", config="rings_basic") == alone
    assert find_root("gz_decals", "rings", config="rings_advanced") == f"{alone}/rings_advanced"
    below = make("rings/rings_basic", "gz_decals", "rings_basic")
    assert find_root("gz_decals", "rings", config="rings_basic") == below


def test_each_place_comes_before_those_after_it(home, monkeypatch):
    """From the last of the rule to the first."""
    script = home / "loaders"
    found = [None]
    for folder in (
        home,
        home / "data" / "some",
        home / "gz3d",
        home / "data" / "gz3d",
        ".",
        "data/mine-demo",
        "data/mine",
        "gz3d",
        "data/gz3d",
    ):
        assert find_root("gz3d") == found[-1]
        found.append(make(folder))
        assert find_root("gz3d") == found[-1]
    assert find_root("gz3d", base_path=str(script)) == found[-1]
    make(script)
    assert find_root("gz3d", base_path=str(script)) == str(script)
    monkeypatch.setenv("SKYSET_DATA", "~/all")
    for folder in (home / "all", home / "all" / "some", home / "all" / "gz3d"):
        found.append(make(folder))
        assert find_root("gz3d", base_path=str(script)) == found[-1]


def test_folders_that_the_readme_builds_are_found(home):
    names = {"gz3d": "data/gz3d", "sdss_galaxy_zoo": "data/sdss", "gz_decals": "data/gz_decals", "gz2": "data/gz2"}
    made = {name: make(folder, name) for name, folder in names.items()}
    assert {name: find_root(name) for name in names} == made
    os.chdir(home / "project" / "data")
    assert find_root("gz3d") == made["gz3d"]


def test_configs_lie_below(home):
    only = make("data/whatever/rings_basic", "gz_decals", "rings_basic")
    assert find_root("gz_decals", config="rings_basic") == only
    assert find_root("gz_decals") is None and find_root("gz_decals", config="rings_advanced") is None


def test_other_surveys_and_broken_manifests_are_passed_over(home):
    make("data/a", "sdss_galaxy_zoo")
    make(".", "sdss_galaxy_zoo")
    (home / "project" / "data" / "b").mkdir()
    for text in ("", "{", "[]", '{"survey": 5}', '{"survey": "gz3d', "[" * 100_000):
        (home / "project" / "data" / "b" / "manifest.json").write_text(text)
        assert find_root("gz3d") is None
    os.mkfifo(home / "project" / "data" / "manifest.json")  # is not waited at
    assert find_root("gz3d") is None and survey_in(home / "project" / "data") is None


def test_a_manifest_of_another_order_is_read_whole(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"files": ["x" * 9000], "survey": "gz3d"}))
    assert survey_in(tmp_path) == "gz3d"


def test_a_search_is_bounded(home, monkeypatch):
    for number in range(30):
        (home / "project" / "data" / f"{number:02d}").mkdir(parents=True)
    looked = []
    monkeypatch.setattr(places, "MAX_FOLDERS", 10)
    monkeypatch.setattr(places, "survey_in", lambda folder: looked.append(folder))
    assert find_root("gz3d") is None and len(looked) < 20


def test_above_the_home_and_in_other_peoples_folders_nothing_is_looked_for(home, monkeypatch, tmp_path):
    make(tmp_path / "home" / "data" / "gz3d")
    assert find_root("gz3d") is None
    outside = tmp_path / "scratch" / "notebooks"
    outside.mkdir(parents=True)
    monkeypatch.chdir(outside)
    root = make(tmp_path / "scratch" / "data" / "gz3d")
    assert find_root("gz3d") == root
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert find_root("gz3d") is None


def test_the_message_names_the_places(home, monkeypatch):
    folders = f"{home}/project and of its parents up to {home}"
    text = f"looked for manifest.json in data/gz3d, gz3d, data/* and . of {folders}, and in $SKYSET_DATA (not set)"
    assert looked_in("gz3d") == text
    monkeypatch.setenv("SKYSET_DATA", "/all")
    assert looked_in("gz3d").endswith("and in $SKYSET_DATA (/all)")
    done = CliRunner().invoke(app, ["show", "gz3d"])
    assert done.exit_code == 2
    assert f"of its parents up to {home}" in " ".join((done.output + done.stderr).split())
