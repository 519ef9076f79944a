"""The house: imports point one way, down the floors, without circles; importing skyset stays light."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOMES = {"skyset": ROOT / "skyset"} | {f"skyset.{top}": ROOT / top for top in ("loaders", "build_scripts", "training")}
#: From the top: each imports from itself and what stands below. What is not named here is a plain word, on the ground.
FLOORS = (
    ("skyset.__main__",),
    ("skyset.cli",),
    ("skyset.training",),
    ("skyset.build_scripts",),
    ("skyset.template",),
    ("skyset.testing",),
    ("skyset.loaders",),
    ("skyset.explore",),
    ("skyset.publishing",),
    ("skyset.extraction",),
    ("skyset.builder",),
    ("skyset.building",),
    ("skyset.adopting",),
    ("skyset.loading",),
    ("skyset.archives",),
    ("skyset.published",),
    ("skyset.tables",),
    ("skyset.partitions",),
    (
        "skyset.survey",
        "skyset.noted",
        "skyset.questions",
        "skyset.declaration",
        "skyset.figures",
        "skyset.band_figures",
        "skyset.group_figures",
    ),
)
#: The front door names what is behind it, when it is asked; explore and what stands above it come in by it, as users do.
DOOR = "skyset"


def modules() -> dict[str, Path]:
    found = {}
    for name, home in HOMES.items():
        for path in home.rglob("*.py"):
            parts = path.relative_to(home).with_suffix("").parts
            found[".".join((name, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = modules()
pytestmark = pytest.mark.skipif("skyset.cli" not in MODULES, reason="the code stands elsewhere: this is no checkout")


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {name if (name := f"{node.module}.{each.name}") in MODULES else node.module for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & set(MODULES)


@functools.cache
def arrows() -> dict[str, set[str]]:
    """What each module imports. To read them all takes a second, which not every worker of a run has to find."""
    return {name: imports(path) - {name} for name, path in MODULES.items()}


def floor(name: str) -> int:
    """How high a module stands."""
    for height, rooms in enumerate(reversed(FLOORS), 1):
        if any(name == room or name.startswith(f"{room}.") for room in rooms):
            return height
    return 0


def test_no_import_runs_up():
    up = [
        f"{name} -> {other}"
        for name, others in arrows().items()
        if name != DOOR
        for other in others
        if floor(other) > floor(name) or (other == DOOR and floor(name) < floor("skyset.explore"))
    ]
    assert up == []


def test_there_is_no_circle():
    left = {name: {other for other in others if other != DOOR} for name, others in arrows().items() if name != DOOR}
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    assert left == {}, "each of these waits for another of them"


def test_the_graph_is_drawn_from_the_code():
    assert "skyset.survey" in arrows()["skyset.loaders.gz3d"]
    assert "skyset.partitions.partition" in arrows()["skyset.loading.reader"]
    assert floor("skyset.files") == 0 < floor("skyset.survey") < floor("skyset.tables.match") < floor("skyset.loaders.gz3d")


@pytest.mark.datasets3
def test_importing_skyset_takes_the_light_set_alone():
    code = "import skyset, sys; print(*sorted(name for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"numpy", "h5py", "pyarrow", "pandas", "astropy", "datasets", "torch", "dask", "hats", "requests"}
    assert heavy & set(loaded) == set()
    own = {name for name in loaded if name.partition(".")[0] == "skyset"}
    assert own == {
        "skyset",
        "skyset.errors",
        "skyset.messages",
        "skyset.secrets",
        "skyset.versions",
        "skyset.loaders",
        "skyset.loading",
        "skyset.loading.places",
        "skyset.loading.registry",
        "skyset.partitions",
        "skyset.partitions.layout",
    }


@pytest.mark.parametrize("folder", ["loading", "adopting", "building", "archives", "tables", "partitions", "explore"])
def test_no_room_is_opened_by_its_door(folder):
    assert (ROOT / "skyset" / folder / "__init__.py").read_text() == ""
