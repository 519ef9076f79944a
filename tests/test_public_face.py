"""What stands at the top of the repository for people who come from outside: licence, citation, contribution, CI."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]

#: Of the Citation File Format 1.2.0, as far as a program without authors' names needs it.
REQUIRED = {"cff-version", "message", "title", "authors"}
KNOWN = REQUIRED | {"abstract", "keywords", "license", "repository-code", "type", "url"}


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    if not (ROOT / "setup.cfg").is_file():
        pytest.skip("not a checkout")
    found = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    found.read(ROOT / "setup.cfg")
    return found


def test_the_citation_file_is_valid_and_says_what_the_metadata_say(settings):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert set(citation) >= REQUIRED and set(citation) <= KNOWN
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(isinstance(citation[name], str) and citation[name] for name in ("message", "title", "abstract"))
    assert citation["authors"] == [{"name": settings["metadata"]["author"]}]
    assert citation["repository-code"] == settings["metadata"]["url"]
    assert citation["license"] == settings["metadata"]["license_expression"]
    assert len(set(citation["keywords"])) == len(citation["keywords"]) >= 3


def test_one_licence_everywhere(settings):
    licence, author = (settings["metadata"][name] for name in ("license_expression", "author"))
    text = (ROOT / "LICENSE").read_text()
    assert licence == "BSD-3-Clause" and text.startswith("BSD 3-Clause License")
    assert re.search(r"Copyright \(c\) \d{4}, (.*)", text)[1] == author
    assert text.count("\n1. ") == text.count("\n2. ") == text.count("\n3. ") == 1
    card = (ROOT / "model_cards" / "star_galaxy" / "README.md").read_text()  # made from simulations by our code alone
    assert f"\nlicense: {licence.lower()}\n" in card and f"## Licence\n\n{licence}" in card


def test_all_addresses_of_the_repository_are_below_one(settings):
    urls = [settings["metadata"]["url"], *re.findall(r"https://\S+", settings["metadata"]["project_urls"])]
    assert all(url.startswith(urls[0]) for url in urls)
    texts = [path.read_text() for path in ROOT.glob("*.md")]
    found = {url for text in texts for url in re.findall(r"https://github\.com/skyset/[\w-]+", text)}
    assert found <= {urls[0]}


def test_ci_runs_what_a_developer_runs(settings):
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    pythons = re.findall(r"Python :: (3\.\d+)", settings["metadata"]["classifiers"])
    assert job["strategy"]["matrix"]["python-version"] == pythons


def test_programs_that_are_not_installed_and_cannot_be_are_named_and_nothing_fails(tmp_path):
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not here")
    command = [make, "--no-print-directory", "SHELL=/bin/sh", "peers", "PEERS=no-such-program another"]
    run = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "no-such-program another are not installed here: the tests that compare with them skip\n"


def test_what_runs_before_a_commit_is_the_makefiles_lint():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repo["hooks"]
    assert repo["repo"] == "local" and hook["language"] == "system"  # nothing is downloaded
    assert hook["entry"] == "make lint" and "\nlint:" in (ROOT / "Makefile").read_text()


TOPS = "skyset|tests|loaders|build_scripts|training|benchmarks|notebooks|docs|model_cards"


def test_files_and_folders_that_texts_name_are_there():
    ours = [path for path in ROOT.rglob("*.md") if not re.match(r"\.|site/|build/", str(path.relative_to(ROOT)))]
    pattern = re.compile(rf"\b((?:{TOPS})/[\w./-]*(?:/|\.py|\.md|\.ipynb))")
    named = {name for path in ours for name in pattern.findall(path.read_text())}
    missing = {name for name in named if not (ROOT / name).exists()} - {"build_scripts/my_survey/"}
    assert len(named) > 30 and not missing
