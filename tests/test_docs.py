"""What the pages show runs, and says what it says: their Python over small samples, their commands against the command line.

A block marked ``python`` runs, in the order of its page; lines that begin with ``#>`` are what it prints. One marked ``py``
needs something that is not here (the Hub, a GPU, another program's files).
"""

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from skyset.cli import app
from skyset.loading import registry
from skyset.template import build_my_survey

ROOT = Path(__file__).parents[1]
WRITTEN = sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", "training/README.md", *WRITTEN]
RUN = [page for page in PAGES if "```python\n" in (ROOT / page).read_text()]

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def samples(built, rings, tmp_path, monkeypatch):
    """A working directory with a few rows of the surveys that the pages load."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gz3d").symlink_to(built)
    (tmp_path / "data" / "gz_decals").symlink_to(rings)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", RUN)
def test_the_python_of_a_page_prints_what_it_says(page, samples):
    if page == "docs/extract.md" and not importlib.util.find_spec("numba"):
        pytest.skip("numba is not here")
    names = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block, page, "exec"), names)
        wanted = [line.removeprefix("#> ") for line in block.splitlines() if line.startswith("#>")]
        assert said.getvalue().splitlines() == wanted, block


def commands(page: str) -> list[list[str]]:
    """The ``skyset`` commands of a page, comments taken off."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("skyset ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_page_have_the_options_that_it_gives(page):
    known = get_command(app).commands
    for _, name, *arguments in commands(page):
        if name.startswith("--"):
            continue
        arguments = arguments[: arguments.index("&&")] if "&&" in arguments else arguments
        if name == "build":
            script = build_my_survey if arguments[0] == "my_survey" else registry.build_script(arguments[0])
            parser = script.parser("skyset build")
            options = {option for action in parser._actions for option in action.option_strings}
        else:
            options = {option for parameter in known[name].params for option in parameter.opts}
        options |= {"--module", "--help"}
        given = [argument for argument in arguments if argument.startswith("--")]
        assert not set(given) - options, f"{page}: skyset {name} {shlex.join(arguments)}"


def test_the_front_page_is_short_and_names_every_survey():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(registry.buildable())


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(page):
    made = {"surveys/index.md", "contributing.md"}  # by docs/hooks.py
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", (ROOT / page).read_text())
    missing = [link for link in links if link not in made and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


@pytest.fixture(scope="module")
def surveys():
    """``docs/surveys.py``, as the site's builder imports it."""
    spec = importlib.util.spec_from_file_location("surveys", ROOT / "docs" / "surveys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted({path.stem for path in ROOT.glob("loaders/*.py")} - {"__init__"}))
def test_the_page_of_a_survey_has_every_column_and_feature(surveys, name):
    page = surveys.survey_page(name)
    assert page.startswith("# ") and registry.survey(name).citation in page and "license_name" not in page
    for config, declared in registry.configs(name).items():
        assert f"`{config}` ({len(declared.columns)} columns)" in page
        for feature in declared.features:
            assert f"| `{feature.name}" in page, (config, feature.name)
    for column in registry.survey(name).columns:
        kind = "string" if column.is_text else column.dtype
        shape = " x ".join(map(str, column.shape))
        assert f"| `{column.name}` | {kind} | {shape} | {column.unit} | {column.description} |" in page
    assert registry.how_to_make(name, f"-o data/{name}") in page and f"[`{name}`]({name}.md)" in surveys.survey_index()


def test_every_public_module_is_in_the_reference(surveys):
    pages = "\n".join(surveys.reference_pages(ROOT / "skyset").values())
    found = re.findall(r"^::: (.+)$", pages, re.MULTILINE)
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "skyset").rglob("*.py")}
    assert {module for module in modules if "._" not in module} <= set(found)
    assert len(set(found)) == len(found) and all(importlib.util.find_spec(module) for module in found)
