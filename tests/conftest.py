"""A small archive of simulated GZ3D files and the partitions built from it, made once for all workers of a test run."""

import contextlib
import gc
import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from skyset.testing.gz3d import write_archive

GALAXIES = 24
EXTRACTION = Path(__file__).parent / "extraction"
#: The environment for datasets 3 does without numba; there, the engine sep measures.
collect_ignore = (
    []
    if importlib.util.find_spec("numba")
    else [str(path) for path in EXTRACTION.glob("test_*.py") if path.name != "test_sep_engine.py"]
)

# Tests never reach for the network, and never for data that lie where they happen to run. huggingface_hub looks at this
# when it is imported: therefore nothing above may import skyset.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("SKYSET_DATA", None)
# A worker has one core; libraries that share out their sums among more wait for each other. They, too, look at this when
# they are imported, as do processes that a test starts.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


# The same examples each time, however busy the machine is; HYPOTHESIS_PROFILE=explore draws others.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_said_of_time() -> None:
    """What is printed depends neither on how busy the machine is nor on which test is the first to compile."""
    from skyset import progress

    progress.LINE_EVERY = 3600.0
    if importlib.util.find_spec("numba"):
        from skyset.extraction import compiled

        with contextlib.redirect_stderr(io.StringIO()):
            compiled._say_once()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What the tests import and are, millions of objects, stays until the end: no collection of garbage looks at it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m datasets3``, files without that mark are not imported: most of what they import is not used then."""
    if config.option.markexpr == "datasets3" and collection_path.match("test_*.py"):
        return "datasets3" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: at the end of a run no worker waits long for another."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills, shared by the workers of one run."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            folder.mkdir(parents=True)
            make(folder)
            done.touch()
    return folder


#: Real files: some in the repository, all of them beside it where it is developed.
REAL = (Path(__file__).parent / "data", Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The place of a real file or folder by its name, ``"sdss/skyserver_jpegs"``; where there is none the test skips."""

    def find(name: str) -> Path:
        found = next((folder / name for folder in REAL if (folder / name).exists()), None)
        return found or pytest.skip(f"{name} is neither in tests/data nor in ../shared/data")

    return find


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """24 galaxies in groups, so that several share a HEALPix cell, with metadata table and SHA-1 list."""
    return once(tmp_path_factory, "archive", lambda folder: write_archive(folder, GALAXIES, clustered=True))


@pytest.fixture(scope="session")
def built(archive, tmp_path_factory) -> Path:
    """The archive as partitions, in a folder named ``gz3d``. Do not change it."""

    def make(folder: Path) -> None:
        from skyset.build_scripts.gz3d.build_parent_sample import main as build

        arguments = ["--local_data_path", str(archive), "-o", str(folder / "gz3d"), "--num_processes", "1"]
        assert build(arguments) == 0

    return once(tmp_path_factory, "built", make) / "gz3d"


@pytest.fixture(scope="session")
def galaxies():
    """80 galaxies for SDSS Galaxy Zoo's services: all but the eight that a cut each removes are good."""
    from skyset.testing.sdss import draw_galaxies

    return draw_galaxies(80)


@pytest.fixture(scope="session")
def built_sdss(tmp_path_factory, galaxies) -> Path:
    """Those that pass the cuts as partitions, in a folder named ``sdss_galaxy_zoo``. Do not change it."""

    def make(folder: Path) -> None:
        from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import main as build
        from skyset.testing.sdss import SDSSServer

        with SDSSServer(galaxies) as server:
            where = ["--tap_url", server.tap_url, "--hips_url", server.hips_url, "-o", str(folder / "sdss_galaxy_zoo")]
            assert build([*where, "--num_processes", "1", "--slices", "4"]) == 0

    return once(tmp_path_factory, "built_sdss", make) / "sdss_galaxy_zoo"


@pytest.fixture(scope="session")
def real_decals(tmp_path_factory, real) -> Path:
    """The 350 real galaxies as partitions, in a folder named ``gz_decals``, beside ``said.txt``. Do not change it."""
    raw = real("gz_decals")

    def make(folder: Path) -> None:
        from skyset.build_scripts.gz_decals.build_parent_sample import main as build

        arguments = ["--local_data_path", str(raw), "-o", str(folder / "gz_decals"), "--num_processes", "1"]
        with open(folder / "said.txt", "w") as said, contextlib.redirect_stdout(said):
            assert build(arguments) == 0

    return once(tmp_path_factory, "real_decals", make) / "gz_decals"


def build_rings(folder: Path, *options: str) -> None:
    """Galaxy Zoo DECaLS in ``data/rings``, with its configs ``default`` and ``rings_basic``, of 40 pictures of noise."""
    import numpy as np
    import PIL.Image

    from skyset.build_scripts.gz_decals.build_parent_sample import main as build

    (folder / "raw" / "images").mkdir(parents=True)
    lines = [
        "id_str,ring,smooth-or-featured_featured-or-disk_fraction,disk-edge-on_no_fraction,"
        "has-spiral-arms_no_fraction,file_loc"
    ]
    for n in range(40):
        name = f"J{n % 24:02d}{n // 24:02d}12.00+{n:02d}{n:02d}30.0"
        pixels = np.random.default_rng(n).integers(0, 255, (16, 20, 3), np.uint8)[:, 2:18]
        PIL.Image.fromarray(pixels).save(folder / "raw" / "images" / f"{name}.png")
        lines.append(f"{name},{n % 2},0.9,0.8,0.7,{name}.png")
    (folder / "raw" / "example_ring_catalog_basic.csv").write_text("\n".join(lines))
    arguments = ["--local_data_path", str(folder / "raw"), "-o", str(folder / "data" / "rings"), "--num_processes", "1"]
    assert build([*arguments, *options]) == 0


@pytest.fixture(scope="session")
def rings(tmp_path_factory) -> Path:
    """See ``build_rings``; images of 16 x 16 as PNG. Do not change it."""
    return once(tmp_path_factory, "rings", build_rings) / "data" / "rings"


@pytest.fixture(scope="session")
def decoded_rings(tmp_path_factory) -> Path:
    """The same with the images' pixels. Do not change it."""
    return once(tmp_path_factory, "decoded_rings", lambda folder: build_rings(folder, "--decode")) / "data" / "rings"


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures at which a test does not look take half a second each: a file stands where one would be saved."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **_: Path(path).write_bytes(b"not drawn"))


@pytest.fixture(scope="module")
def cache_of_its_own(tmp_path_factory):
    """Arrow files of the tests' surveys do not go into the user's cache, nor do those of processes started here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        yield
