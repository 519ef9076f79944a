"""Surveys are found by name, folder and near miss, and nobody else notices."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import datasets
import datasets.arrow_dataset
import datasets.combine
import datasets.inspect
import datasets.load
import numpy as np
import pytest
from datasets import load_dataset, load_dataset_builder

import skyset
from skyset.errors import UserError
from skyset.loading import registry
from skyset.loading.stream import SurveyStream
from skyset.partitions.manifest import Manifest

pytestmark = pytest.mark.datasets3


@pytest.fixture
def add_survey(tmp_path, monkeypatch):
    """Write an importable loader module, as a third party would ship one; returns its name."""

    def add(module: str, text: str) -> str:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        return module

    monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    return add


# --- finding surveys --------------------------------------------------------------------------------------


def test_surveys_are_listed():
    assert skyset.surveys() == sorted(skyset.surveys()) and "gz3d" in skyset.surveys()


@pytest.mark.skipif(version("datasets").startswith("3."), reason="datasets 3 runs the file itself: test_script_form.py")
@pytest.mark.parametrize("path", ["gz3d", "gz3d.py", "file"])
def test_script_form_works_on_datasets_5_once_skyset_is_imported(built, path):
    path = registry.loader("gz3d").__file__ if path == "file" else path
    data = load_dataset(path, trust_remote_code=True, data_dir=str(built), split="train", streaming=True)
    assert type(data) is SurveyStream
    assert next(iter(data))["object_id"] == next(iter(skyset.load("gz3d", str(built))))["object_id"]


def test_builder_and_its_names(built):
    builder = load_dataset_builder("gz3d", data_dir=str(built))
    assert (builder.name, builder.dataset_name) == ("gz3d", "gz3d")
    assert builder.info.license and builder.info.citation.startswith("@article")
    assert datasets.get_dataset_config_names("gz3d") == ["default"]


def test_other_names_pass_untouched(tmp_path, monkeypatch):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    rows = load_dataset("csv", data_files="rows.csv", split="train", cache_dir=str(tmp_path / "cache"))
    assert type(rows) is datasets.Dataset and rows[0] == {"a": 1, "b": 2}
    assert type(load_dataset("csv", data_files="rows.csv", split="train", streaming=True)) is datasets.IterableDataset
    for path in ("user/gz3d", "./gz3d", "gz3d/", "GZ3D", "gz3d_new", str(tmp_path / "gz3d")):
        assert registry._survey_of(path) is None
    with pytest.raises(Exception, match=r"(?i)nothing|offline|exist|find"):
        load_dataset("nothing")


def test_somebody_elses_script_of_the_same_name_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "gz3d.py").write_text("raise SystemExit('not ours')\n")
    monkeypatch.chdir(tmp_path)
    assert registry._survey_of("gz3d.py") is None and registry._survey_of(str(tmp_path / "gz3d.py")) is None
    assert registry._survey_of("gz3d") == "gz3d"


# --- folders, near misses, the stock module ---------------------------------------------------------------


def rows_of(found):
    return [(row["object_id"], row["image"].shape) for row in found]


@pytest.mark.parametrize("streaming", [True, False])
def test_a_folder_loads_as_its_survey_and_config(rings, built, tmp_path, monkeypatch, streaming):
    monkeypatch.chdir(rings.parents[1])
    options = {"streaming": streaming, "cache_dir": str(tmp_path)}
    wanted = rows_of(load_dataset("gz_decals", data_dir=str(rings), split="train", **options))
    for path in ("data/rings", "./data/rings/", str(rings)):
        assert rows_of(load_dataset(path, split="train", **options)) == wanted
    assert rows_of(load_dataset("data", data_dir="rings", split="train", **options)) == wanted
    wanted = rows_of(load_dataset("gz_decals", "rings_basic", data_dir=str(rings), split="test", **options))
    for arguments in (("data/rings", "rings_basic"), ("data/rings/rings_basic",), (str(rings / "rings_basic"),)):
        assert rows_of(load_dataset(*arguments, split="test", **options)) == wanted
    every = load_dataset("data/rings", "rings_basic", **options)
    assert set(every) == {"train", "test", "validation"} and rows_of(every["test"]) == wanted
    some = load_dataset(str(built), split="train", image_size=8, **options)
    assert next(iter(some))["image"].shape == (8, 8, 3)


def test_a_folder_of_configs_alone_and_one_of_no_survey(rings, tmp_path):
    shutil.copytree(rings / "rings_basic", tmp_path / "some" / "rings_basic")
    rows = load_dataset(str(tmp_path / "some"), "rings_basic", split="test", streaming=True)
    assert rows_of(rows) == rows_of(load_dataset(str(rings), "rings_basic", split="test", streaming=True))
    with pytest.raises(UserError, match=r"no manifest\.json in"):
        load_dataset(str(tmp_path / "some"), split="train", streaming=True)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "csv" / "manifest.json").write_text('{"survey": "nobodys"}')
    assert registry._survey_in_folder(str(tmp_path / "csv"), None) is None
    for packaged in ("csv", "hdf5"):
        assert registry._survey_in_folder(packaged, str(rings)) is None
    (tmp_path / "csv" / "manifest.json").unlink()
    rows = load_dataset(str(tmp_path / "csv"), split="train", cache_dir=str(tmp_path / "cache"))
    assert type(rows) is datasets.Dataset and rows[0] == {"a": 1, "b": 2}


NEAR = {
    "gz3D": "gz3d",
    "GZ3D": "gz3d",
    "gz_decal": "gz_decals",
    "gz-decals": "gz_decals",
    "GZ_DECALS": "gz_decals",
    "gz3d/": "gz3d",
    "sdss_galaxyzoo": "sdss_galaxy_zoo",
}


@pytest.mark.parametrize("name", NEAR)
def test_a_near_miss_is_answered_without_the_hub(name, monkeypatch):
    for module in (datasets.load, datasets.inspect):
        stock = registry._finding_surveys(lambda *_, **__: pytest.fail("the Hub was asked"))
        monkeypatch.setattr(module, "dataset_module_factory", stock)
    with pytest.raises(UserError, match=f"^there is no dataset '{name}' here; did you mean {NEAR[name]}\\?$"):
        load_dataset(name)
    with pytest.raises(UserError, match=f"^there is no dataset '{name}' here; did you mean {NEAR[name]}\\?$"):
        datasets.get_dataset_config_names(name)
    if "/" not in name:
        with pytest.raises(UserError, match=f"unknown survey '{name}'; did you mean {NEAR[name]}\\? known: "):
            skyset.load(name)


def test_names_of_others_go_to_the_hub(tmp_path, monkeypatch):
    asked = []
    find = registry._finding_surveys(lambda path, *_, **__: asked.append(path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gz_decal").mkdir()
    others = ["user/gz3d", "user/gz3D", "data/gz3d", "csv", "hdf5", "squad", "gz_decal"]
    for name in others:
        find(name)
    assert asked == others


def test_load_takes_the_config_second(rings, built, monkeypatch):
    monkeypatch.chdir(rings.parents[1])
    wanted = rows_of(load_dataset("gz_decals", "rings_basic", data_dir=str(rings), split="test", streaming=True))
    for found in (
        skyset.load("gz_decals", "rings_basic", split="test"),
        skyset.load("gz_decals", "rings_basic", "data/rings", split="test"),
        skyset.load("gz_decals", config="rings_basic", data_dir="data/rings", split="test"),
        skyset.load("gz_decals", name="rings_basic", split="test"),
        skyset.load("data/rings", "rings_basic", split="test"),
        skyset.load(rings / "rings_basic", split="test"),
    ):
        assert rows_of(found) == wanted
    for found in (skyset.load("gz3d", built), skyset.load("gz3d", None, built), skyset.load("gz3d", data_dir=str(built))):
        assert next(iter(found))["image"].dtype == np.uint8
    for arguments in (("gz_decals", "rings"), ("gz_decals", None, None, "rings")):
        with pytest.raises(UserError, match="gz_decals has no config 'rings'; known: default, rings_basic"):
            skyset.load(*arguments[:3], **({"config": arguments[3]} if len(arguments) > 3 else {}))


@pytest.mark.parametrize("streaming", [True, False])
def test_load_dataset_refuses_a_config_that_there_is_not(built, rings, tmp_path, streaming):
    options = {"split": "train", "streaming": streaming, "cache_dir": str(tmp_path)}
    for survey, root, known in (("gz3d", built, "default"), ("gz_decals", rings, "default, rings_basic")):
        with pytest.raises(UserError, match=f"^{survey} has no config 'nosuch'; known: {known}"):
            load_dataset(survey, "nosuch", data_dir=str(root), **options)
    assert len(load_dataset("gz3d", "default", data_dir=str(built), image_size=8, **options).features) == 8


STOCK = """
import sys
{recipe}
assert "skyset" not in sys.modules
print(len(rows), *rows.column_names)
"""
hdf5_module = pytest.mark.skipif(version("datasets").startswith("3."), reason="the module came with datasets 4")


@hdf5_module
@pytest.mark.parametrize("survey", ["gz3d", "sdss_galaxy_zoo", "gz_decals"])
def test_the_cards_recipe_for_stock_datasets(built, built_sdss, rings, tmp_path, survey):
    root = {"gz3d": built, "sdss_galaxy_zoo": built_sdss, "gz_decals": rings}[survey]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / survey).symlink_to(root)
    card = registry.build_script(survey).__file__.replace("build_parent_sample.py", "README.md")
    block = re.search("<!-- stock: .*?```python\n(.*?)```", Path(card).read_text(), re.DOTALL)
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", STOCK.format(recipe=block[1])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows, *columns = done.stdout.split()
    manifest = Manifest.load(root)
    assert int(rows) == sum(entry.rows for entry in manifest.splits["train"])
    assert set(columns) == {column.name for column in manifest.columns if not column.is_bytes}


@hdf5_module
def test_the_stock_module_reads_partitions_and_nothing_else(built_sdss, tmp_path):
    root = shutil.copytree(built_sdss, tmp_path / "sdss_galaxy_zoo")
    (root / "rejected.csv").write_text("key,file,reason\n")
    (root / "raw").mkdir()
    (root / "raw" / "image.fits").write_bytes(b"x")
    wanted = sorted(row["object_id"] for row in skyset.load("sdss_galaxy_zoo", data_dir=str(built_sdss)))
    for streaming in (True, False):
        rows = load_dataset("hdf5", data_dir=str(root), split="train", streaming=streaming, cache_dir=str(tmp_path / "c"))
        assert type(rows) in (datasets.IterableDataset, datasets.Dataset)
        assert sorted(row["object_id"].decode() for row in rows) == wanted


def test_installing_twice_wraps_once():
    wrapped = (
        (datasets.load, "dataset_module_factory"),
        (datasets.inspect, "dataset_module_factory"),
        (datasets.arrow_dataset, "get_formatter"),
        (datasets.Dataset, "load_from_disk"),
        (datasets.combine, "_concatenate_iterable_datasets"),
    )
    before = {place: getattr(*place) for place in wrapped}
    registry.install()
    assert {place: getattr(*place) for place in wrapped} == before
    assert not any(hasattr(function.skyset_wraps, "skyset_wraps") for function in before.values())


def test_third_party_survey(add_survey, built, tmp_path):
    module = add_survey(
        "my_loader",
        """
        import dataclasses
        from skyset.builder import SurveyBuilder
        from skyset.loaders.gz3d import SURVEY as PARENT

        SURVEY = dataclasses.replace(PARENT, name="mine")


        class Mine(SurveyBuilder):
            SURVEY = SURVEY
        """,
    )
    skyset.register("mine", module)
    root = tmp_path / "mine"
    root.mkdir()
    for path in built.iterdir():
        (root / path.name).symlink_to(path)
    (root / "manifest.json").unlink()
    (root / "manifest.json").write_text((built / "manifest.json").read_text().replace('"gz3d"', '"mine"', 1))
    rows = skyset.load("mine", str(root))
    assert "mine" in skyset.surveys() and registry.survey("mine").name == "mine"
    assert [row["object_id"] for row in rows] == [row["object_id"] for row in skyset.load("gz3d", str(built))]


def test_a_folder_that_hides_a_loader_is_named(tmp_path, monkeypatch):
    """Python takes it for a package without files."""
    monkeypatch.setattr(registry, "_modules", registry._modules | {"hidden_survey": "hidden_survey", "os_survey": "os"})
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hidden_survey").mkdir()
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'hidden_survey'} stands in its way"):
        skyset.load("hidden_survey")
    with pytest.raises(UserError, match="os_survey cannot be loaded: os: it has no SURVEY"):
        load_dataset("os_survey")


def test_a_loaders_file_is_registered_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(UserError, match=r"nowhere/mine.py: there is no such file"):
        skyset.register("filed_survey", "nowhere/mine.py")
    (tmp_path / "filed_loader.py").write_text("from skyset.loaders.gz3d import SURVEY\n")
    skyset.register("filed_survey", str(tmp_path / "filed_loader.py"))
    assert registry.survey("filed_survey").name == "gz3d" and str(tmp_path) in sys.path


def test_unknown_survey_is_one_line_that_names_the_known():
    with pytest.raises(UserError, match=r"unknown survey 'gz4d'; known: .*gz3d"):
        registry.survey("gz4d")
    with pytest.raises(UserError, match=r"unknown survey 'gz4d'; known: .*gz3d"):
        skyset.load("gz4d")


def test_root_is_found_in_the_usual_places_in_order(tmp_path, monkeypatch):
    def place(*parts):
        folder = tmp_path.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").touch()
        return str(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKYSET_DATA", raising=False)
    assert registry.find_root("gz3d") is None
    assert registry.find_root("gz3d", "~/x") == str(Path.home() / "x")
    assert registry.find_root("gz3d", "hf://datasets/me/gz3d") == "hf://datasets/me/gz3d"
    for parts in ((), ("gz3d",), ("data", "gz3d")):
        expected = place(*parts)
        assert registry.find_root("gz3d") == expected
    script = place("loaders")
    assert registry.find_root("gz3d", base_path=script) == script
    monkeypatch.setenv("SKYSET_DATA", str(tmp_path / "everything"))
    everything = place("everything", "gz3d")
    assert registry.find_root("gz3d", base_path=script) == everything
    assert registry.find_root("gz3d", data_dir="here") == os.path.join(tmp_path, "here")


def test_import_order_does_not_matter():
    code = "import datasets; from datasets import load_dataset; import skyset; import skyset; print(load_dataset.__module__)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "datasets.load"


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("partitions/layout.py", True),
        ("loading/reader.py", True),
        ("survey.py", True),
        ("pixels.py", True),
        ("values.py", True),
        ("cli.py", False),
        ("explore/info.py", False),
        ("building/build.py", False),
        ("archives/fetch.py", False),
    ],
)
def test_only_code_that_makes_rows_is_in_the_caches_key(tmp_path, monkeypatch, edited, changes):
    """An edit to the command line must not cost everybody their Arrow caches."""
    home = tmp_path / "skyset"
    shutil.copytree(Path(registry.__file__).parents[1], home, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(registry, "__file__", str(home / "loading" / "registry.py"))
    digest = registry.code_digest.__wrapped__
    before = digest()
    with open(home / edited, "a") as file:
        file.write("# another line\n")
    assert (digest() != before) == changes
