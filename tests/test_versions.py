"""The distribution's name and version, and what stands in it."""

import configparser
import importlib.metadata
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import skyset
from skyset.versions import DISTRIBUTION
from skyset.versions import default_user_agent
from skyset.versions import install_command

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


def test_the_sdist_holds_all_that_its_tests_need(tmp_path):
    """Every file of the checkout under a folder that tests read, or import from."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout to compare with")
    make = (
        "from setuptools.build_meta import build_sdist; import sys, os; os.chdir(sys.argv[1]); "
        "print(build_sdist(sys.argv[2]))"
    )
    copy = tmp_path / "copy"
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-c", make, copy, tmp_path], check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(names) - packed <= {".gitignore"}
