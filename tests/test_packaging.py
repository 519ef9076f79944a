"""What is packed: every folder of Python and every file beside it, and the commands work from the wheel alone."""

import configparser
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Folders that are packages, by their importable names.
TOPS = {
    "skyset": "skyset",
    "loaders": "skyset.loaders",
    "build_scripts": "skyset.build_scripts",
    "training": "skyset.training",
}


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    if not (ROOT / "setup.cfg").is_file():
        pytest.skip("not a checkout")
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "setup.cfg")
    return found


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Every file of the checkout that git knows, or will know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no git checkout to compare with")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(names, tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that is made from it, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "copy"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    run_setuptools(copy, "build_sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (source,) = (folder / "sdist").iterdir()
    run_setuptools(source, "build_wheel", folder)
    return folder


def run_setuptools(source: Path, what: str, target: Path) -> None:
    code = f"from setuptools.build_meta import {what}; import sys; {what}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, target], cwd=source, check=True, capture_output=True)


def module_of(folder: Path) -> str:
    """The importable name of a folder of the checkout."""
    top, *rest = folder.relative_to(ROOT).parts
    return ".".join([TOPS[top], *rest])


def test_setup_cfg_lists_every_folder_of_python(settings):
    folders = {
        module_of(path.parent): str(path.parent.relative_to(ROOT))
        for top in TOPS
        for path in (ROOT / top).rglob("__init__.py")
    }
    listed = settings["options"]["packages"].split()
    assert sorted(listed) == sorted(folders), "setup.cfg: packages"
    places = dict(line.replace(" ", "").split("=") for line in settings["options"]["package_dir"].strip().splitlines())
    assert places == folders, "setup.cfg: package_dir"
    without = {
        path.parent for top in TOPS for path in (ROOT / top).rglob("*.py") if not (path.parent / "__init__.py").exists()
    }
    assert not without, "folders of Python without an __init__.py"


def test_setup_cfg_lists_every_file_beside_the_modules(settings, names):
    patterns = {package: text.split() for package, text in settings["options.package_data"].items()}
    for package, kinds in patterns.items():
        assert package in settings["options"]["packages"].split(), f"setup.cfg: package_data of {package}"
        assert kinds
    data = [Path(name) for name in names if name.partition("/")[0] in TOPS and not name.endswith(".py")]
    kinds_of = {path: patterns.get(module_of((ROOT / path).parent), []) for path in data}
    left_out = [str(path) for path, kinds in kinds_of.items() if not any(fnmatch(path.name, kind) for kind in kinds)]
    assert not left_out, "setup.cfg: package_data"


def test_the_sdist_holds_all_that_its_tests_need(built, names):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(names) - packed <= {".gitignore"}


def test_the_wheel_holds_every_module_and_file_and_nothing_else(built, names):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (licence,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
        (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    tops = {top: module.replace(".", "/") for top, module in TOPS.items()}
    wanted = {f"{tops[top]}/{rest}" for top, _, rest in (name.partition("/") for name in names) if top in tops}
    assert packed == wanted
    assert {"skyset/py.typed", "skyset/extraction/star_galaxy.npz", "skyset/build_scripts/gz3d/README.md"} <= packed
    assert licence and "\nLicense-Expression: BSD-3-Clause\n" in metadata and "\nProject-URL: " in metadata


RUN = """
import contextlib, io, sys
sys.path.insert(0, sys.argv[1])
import skyset
from skyset.cli import main
for command in ("surveys", "extract --help", "build gz3d --help", "bench --help", "card --help"):
    sys.argv = ["skyset", *command.split()]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
    print(command, len(said.getvalue()))
print(skyset.__file__)
"""


def test_the_commands_work_from_the_wheel_alone(built, tmp_path):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    command = [sys.executable, "-c", RUN, str(tmp_path / "site")]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    *commands, place = found.stdout.splitlines()
    assert place == str(tmp_path / "site" / "skyset" / "__init__.py")
    assert len(commands) == 5 and all(int(line.rsplit(" ", 1)[1]) > 200 for line in commands)
