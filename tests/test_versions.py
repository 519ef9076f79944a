"""The distribution's name, version and hints."""

import configparser
import importlib.metadata
import re
from pathlib import Path

import pytest

import skyset
from skyset.versions import DISTRIBUTION, default_user_agent, install_command

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    if not (ROOT / "setup.cfg").is_file():
        pytest.skip("not a checkout")
    found = configparser.ConfigParser(interpolation=configparser.ExtendedInterpolation())
    found.read(ROOT / "setup.cfg")
    return found


def test_the_distribution_is_skyset_surveys_in_one_version(settings):
    assert settings["metadata"]["name"] == DISTRIBUTION == "skyset-surveys"  # "skyset" on PyPI is somebody else's
    assert settings["metadata"]["version"] == "attr: skyset.versions.__version__"
    assert importlib.metadata.version("skyset-surveys") == skyset.__version__
    assert default_user_agent() == f"skyset/{skyset.__version__}"


def test_every_hint_names_the_distribution_or_the_checkout(settings):
    texts = [path for kind in ("*.py", "*.md", "*.ipynb") for path in ROOT.rglob(kind) if ".venv" not in str(path)]
    read = [path.read_text() for path in texts if path != Path(__file__)]
    hints = [hint for text in read for hint in re.findall(r"pip install [^\n`]*", text)]
    named = [re.search(r"['\" ](skyset[\w-]*|\.)(\[\w+\])?['\"]?", hint) for hint in hints]
    assert {match[1] for match in named if match} == {".", "skyset-surveys"}
    assert install_command("scale") == "pip install 'skyset-surveys[scale]'"
    extras = {match[2].strip("[]") for match in named if match and match[2]} - {"extra"}
    assert extras <= set(settings["options.extras_require"])


def test_pythons_that_are_declared(settings):
    kinds = re.findall(r"Python :: (3\.\d+)", settings["metadata"]["classifiers"])
    assert kinds == ["3.11", "3.12", "3.13"]
    assert settings["options"]["python_requires"] == ">=3.11"
