"""The one place that reaches into `datasets`: what it relies on is there, and nobody else notices it."""

import inspect
import os
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import datasets
import datasets.combine
import datasets.distributed
import datasets.inspect
import datasets.iterable_dataset
import datasets.load
import pytest
from datasets import load_dataset
from datasets import load_dataset_builder

import skyset
from skyset import registry
from skyset.errors import UserError
from skyset.stream import SurveyStream
from skyset.stream import SurveyTable

pytestmark = pytest.mark.datasets3

WRAPPED = {
    (datasets.load, "dataset_module_factory"): "path",
    (datasets.inspect, "dataset_module_factory"): "path",
    (datasets.distributed, "_split_by_node_iterable_dataset"): "dataset",
    (datasets.combine, "_concatenate_iterable_datasets"): "dsets",
    (datasets.combine, "_concatenate_map_style_datasets"): "dsets",
    (datasets.combine, "_interleave_iterable_datasets"): "datasets",
    (datasets.combine, "_interleave_map_style_datasets"): "datasets",
}


@pytest.fixture
def add_survey(tmp_path, monkeypatch):
    """Write an importable loader module, as a third party would ship one; returns its name."""

    def add(module: str, text: str) -> str:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        return module

    monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    return add


# --- what datasets must have ------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "argument"), WRAPPED.items(), ids=lambda x: x if isinstance(x, str) else x[1])
def test_wrapped_functions_are_there_and_take_what_we_hand_on(place, argument):
    module, name = place
    stock = getattr(module, name).skyset_wraps
    assert next(iter(inspect.signature(stock).parameters)) == argument
    assert getattr(module, name).__doc__ == stock.__doc__ and getattr(module, name).__name__ == name


def test_the_functions_are_what_datasets_itself_calls():
    assert "dataset_module_factory(" in inspect.getsource(datasets.load.load_dataset_builder)
    assert "_split_by_node_iterable_dataset(" in inspect.getsource(datasets.distributed.split_dataset_by_node)
    assert "_concatenate_iterable_datasets(" in inspect.getsource(datasets.combine.concatenate_datasets)
    assert "_interleave_iterable_datasets(" in inspect.getsource(datasets.combine.interleave_datasets)


def test_streams_and_builders_have_what_we_override():
    stock = datasets.IterableDataset
    for name in ("_prepare_ex_iterable_for_iteration", "with_format", "shuffle", "take", "skip", "iter", "filter",
                 "select_columns", "remove_columns", "rename_column", "rename_columns"):  # fmt: skip
        ours = list(inspect.signature(getattr(SurveyStream, name)).parameters)
        theirs = list(inspect.signature(getattr(stock, name)).parameters)
        assert hasattr(SurveyStream, name) and name in vars(SurveyStream), name
        assert ours[: len(theirs)] == theirs or {"args", "options"} & set(ours), name
    parameters = inspect.signature(stock._prepare_ex_iterable_for_iteration).parameters
    assert list(parameters) == ["self", "batch_size", "drop_last_batch"]
    source = inspect.getsource(datasets.builder.DatasetBuilder.as_streaming_dataset)
    assert "_as_streaming_dataset_single" in source
    module = datasets.load.DatasetModule("module", "hash", {"dataset_name": "x"})
    assert (module.module_path, module.hash, module.builder_kwargs) == ("module", "hash", {"dataset_name": "x"})


def test_methods_that_keep_the_class_keep_their_names_and_docs():
    for ours, stock in ((SurveyStream, datasets.IterableDataset), (SurveyTable, datasets.Dataset)):
        for name in ("map", "filter", "take", "shard"):
            assert getattr(ours, name).__name__ == name and getattr(ours, name).__doc__
            assert getattr(stock, name) is not getattr(ours, name)
    assert SurveyTable.map.__doc__ == datasets.Dataset.map.__doc__
    assert datasets.Dataset.from_dict({"a": [1]}).map(lambda row: row).__class__ is datasets.Dataset


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


def test_installing_twice_wraps_once():
    before = {place: getattr(*place) for place in WRAPPED}
    registry.install()
    assert {place: getattr(*place) for place in WRAPPED} == before
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
