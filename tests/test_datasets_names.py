"""What skyset takes from inside `datasets` is there, as it is used: setup.cfg's upper bound may rise where this file passes.

`datasets` has no public way to register a builder, to keep dtypes, or to resume exactly. So we wrap, override and read names
that it may change at any release; each stands here with what a user would see break.
"""

import ast
import configparser
import importlib
import inspect
import re
from functools import partial
from importlib.metadata import version
from pathlib import Path

import datasets
import datasets.builder
import datasets.combine
import datasets.distributed
import datasets.load
import numpy as np
import pytest
from datasets import iterable_dataset as stock
from datasets.formatting.np_formatter import NumpyFormatter

from skyset.loading.steps import links, makes_batches
from skyset.loading.stream import SurveyStream, SurveyTable

pytestmark = pytest.mark.datasets3

IS_OLD = version("datasets").startswith("3.")
ROOT = Path(__file__).parents[1]

FIND = 'load_dataset("gz3d") goes to the Hub instead of to our partitions'
KEEP = "concatenated, interleaved and split datasets lose their dtypes and exact resuming"
SHOW = "tables of ours give nested lists in place of arrays"
BUILD = "loaders cannot make splits, tables or streams"
STREAM = "streams cannot be iterated, or are read twice or never by workers and nodes"
RESUME = "state_dict and load_state_dict do not resume at the row where they were taken"
DTYPES = 'with_format("numpy") and ("torch") widen uint8 to int64 and narrow float64 to float32'
IMAGES = "encoded images are decoded twice, or not at all"

#: What is wrapped or called: where it is, the arguments that we hand on by place or by name, what breaks without it.
CALLED = {
    "load.dataset_module_factory": ("path", "data_dir", "data_files", FIND),
    "inspect.dataset_module_factory": ("path", "data_dir", "data_files", FIND),
    "load.DatasetModule": ("module_path", "hash", "builder_kwargs", "builder_configs_parameters", FIND),
    "load.BuilderConfigsParameters": ("metadata_configs", "builder_configs", FIND),
    "arrow_dataset.get_formatter": ("format_type", SHOW),
    "Dataset.load_from_disk": ("dataset_path", "load_from_disk gives tables that are not ours any more"),
    "Dataset.save_to_disk": ("self", "dataset_path", "saved tables cannot be read without skyset"),
    "distributed._split_by_node_iterable_dataset": ("dataset", KEEP),
    "combine._concatenate_iterable_datasets": ("dsets", KEEP),
    "combine._concatenate_map_style_datasets": ("dsets", KEEP),
    "combine._interleave_iterable_datasets": ("datasets", KEEP),
    "combine._interleave_map_style_datasets": ("datasets", KEEP),
    "builder.DatasetBuilder.__init__": ("self", "config_name", "hash", "base_path", "data_files", "data_dir", BUILD),
    "builder.DatasetBuilder._info": ("self", BUILD),
    "builder.DatasetBuilder._split_generators": ("self", "dl_manager", BUILD),
    "builder.DatasetBuilder._as_dataset": ("self", BUILD),
    "builder.DatasetBuilder._as_streaming_dataset_single": ("self", "splits_generator", BUILD),
    "builder.ArrowBasedBuilder._generate_tables": ("self", BUILD),
    "builder.ArrowBasedBuilder._get_examples_iterable_for_split": ("self", "split_generator", BUILD),
    "builder.BuilderConfig.create_config_id": ("self", "config_kwargs", "tables of other options come from the cache"),
    "iterable_dataset.IterableDataset.__init__": (
        "self",
        "ex_iterable",
        "info",
        "split",
        "formatting",
        "distributed",
        "token_per_repo_id",
        STREAM,
    ),
    "iterable_dataset.IterableDataset._prepare_ex_iterable_for_iteration": ("self", "batch_size", "drop_last_batch", STREAM),
    "iterable_dataset.IterableDataset._resolve_features": ("self", KEEP),
    "iterable_dataset.IterableDataset._step": ("self", "step", "offset", KEEP),
    "iterable_dataset.ExamplesIterable": ("generate_examples_fn", "kwargs", STREAM),
    "iterable_dataset.FormattingConfig": ("format_type", DTYPES),
    "iterable_dataset.RepeatExamplesIterable": ("ex_iterable", "num_times", STREAM),
    "iterable_dataset._BaseExamplesIterable._init_state_dict": ("self", RESUME),
    "iterable_dataset._BaseExamplesIterable.load_state_dict": ("self", "state_dict", RESUME),
    "iterable_dataset._BaseExamplesIterable.state_dict": ("self", RESUME),
    "iterable_dataset._BaseExamplesIterable.shuffle_data_sources": ("self", "generator", STREAM),
    "iterable_dataset._BaseExamplesIterable.shard_data_sources": ("self", "num_shards", "index", "contiguous", STREAM),
    "iterable_dataset._BaseExamplesIterable.split_shard_indices_by_worker": (
        "self",
        "num_shards",
        "index",
        "contiguous",
        STREAM,
    ),
    "formatting._register_formatter": ("formatter_cls", "format_type", DTYPES),
    "formatting.get_format_type_from_alias": ("format_type", DTYPES),
    "formatting.formatting.LazyBatch": ("pa_table", "formatter", SHOW),
    "formatting.formatting.LazyRow": ("pa_table", "formatter", SHOW),
    "formatting.formatting.PythonFormatter": ("features", "lazy", SHOW),
    "formatting.formatting.PythonFormatter.format_row": ("self", "pa_table", SHOW),
    "formatting.formatting.PythonFormatter.format_column": ("self", "pa_table", SHOW),
    "formatting.formatting.PythonFormatter.format_batch": ("self", "pa_table", SHOW),
    "formatting.np_formatter.NumpyFormatter._consolidate": ("self", "column", DTYPES),
    "formatting.np_formatter.NumpyFormatter._tensorize": ("self", "value", DTYPES),
    "formatting.np_formatter.NumpyFormatter.recursive_tensorize": ("self", "data_struct", DTYPES),
    "Features.encode_example": ("self", "example", IMAGES),
    "Features.decode_example": ("self", "example", "token_per_repo_id", IMAGES),
    "Features.decode_column": ("self", "column", "column_name", SHOW),
    "Features.decode_batch": ("self", "batch", SHOW),
    "Features._to_yaml_list": ("self", "the card beside a HATS catalogue lacks its features"),
    "table.cast_table_to_features": ("table", "features", "cast and cast_column of streams change nothing in tables"),
}
if not IS_OLD:
    CALLED["Dataset._fast_select_column"] = ("self", "column_name", SHOW)
TORCH = "formatting.torch_formatter.TorchFormatter"
if datasets.config.TORCH_AVAILABLE:
    CALLED |= {
        f"{TORCH}._consolidate": ("self", "column", DTYPES),
        f"{TORCH}._tensorize": ("self", "value", DTYPES),
        f"{TORCH}.recursive_tensorize": ("self", "data_struct", DTYPES),
    }

#: What skyset reads or sets of what `datasets` makes, by class.
READ = {
    "_BaseExamplesIterable": ("_state_dict", "iter_arrow", "is_typed", "features", "num_shards"),
    "ExamplesIterable": (),
    "BufferShuffledExamplesIterable": ("ex_iterable", "buffer_size", "generator"),
    "CyclingMultiSourcesExamplesIterable": ("ex_iterables", "stopping_strategy"),
    "RandomlyCyclingMultiSourcesExamplesIterable": ("ex_iterables", "stopping_strategy"),
    "FilteredExamplesIterable": ("ex_iterable", "function"),
    "FormattedExamplesIterable": ("ex_iterable", "formatting", "_features"),
    "FormattingConfig": ("format_type", "is_table", "is_tensor"),
    "HorizontallyConcatenatedMultiSourcesExamplesIterable": ("ex_iterables",),
    "VerticallyConcatenatedMultiSourcesExamplesIterable": ("ex_iterables",),
    "MappedExamplesIterable": (
        "ex_iterable",
        "function",
        "with_indices",
        "batched",
        "batch_size",
        "drop_last_batch",
        "formatting",
    ),
    "RebatchedArrowExamplesIterable": ("ex_iterable",),
    "RepeatExamplesIterable": ("ex_iterable", "num_times"),
    "SelectColumnsIterable": ("ex_iterable", "column_names"),
    "SkipExamplesIterable": ("ex_iterable", "n", "block_sources_order_when_shuffling"),
    "TakeExamplesIterable": ("ex_iterable", "n", "block_sources_order_when_shuffling"),
    "StepExamplesIterable": ("ex_iterable", "step", "offset"),
    "IterableDataset": (
        "_ex_iterable",
        "_info",
        "_split",
        "_formatting",
        "_distributed",
        "_token_per_repo_id",
        "_starting_state_dict",
        "_state_dict",
        "epoch",
    ),
}

#: Taken as they are: types to compare with, and names that nothing is handed to.
TYPES = {
    "packaged_modules._PACKAGED_DATASETS_MODULES": dict,
    "features.features._ArrayXD": type,
    "formatting.np_formatter.NumpyFormatter": type,
    "formatting.torch_formatter.TorchFormatter": type,
    "exceptions.DatasetGenerationError": type,
    "data_files.DataFilesDict": type,
    "data_files.DataFilesList": type,
    "packaged_modules.parquet.Parquet": type,
    "packaged_modules.parquet.ParquetConfig": type,
}


def found(place: str):
    """What stands at ``place`` in `datasets`; a failure says what is gone."""
    thing, names = datasets, place.split(".")
    for depth, name in enumerate(names, 1):
        if not hasattr(thing, name) and inspect.ismodule(thing):
            try:
                importlib.import_module(".".join(["datasets", *names[:depth]]))
            except ModuleNotFoundError:
                return None
        thing = getattr(thing, name, None)
    return getattr(thing, "skyset_wraps", thing)


def source() -> stock.ExamplesIterable:
    return stock.ExamplesIterable(lambda: iter([(0, {"a": 1}), (1, {"a": 2})]), {})


def stock_object(name: str):
    """One of `datasets`' own, made as `datasets` makes it."""
    arguments = {
        "_BaseExamplesIterable": (),
        "ExamplesIterable": (lambda: iter(()), {}),
        "BufferShuffledExamplesIterable": (source(), 2, np.random.default_rng(0)),
        "CyclingMultiSourcesExamplesIterable": ([source(), source()],),
        "RandomlyCyclingMultiSourcesExamplesIterable": ([source(), source()], np.random.default_rng(0)),
        "FilteredExamplesIterable": (source(), bool),
        "FormattedExamplesIterable": (source(), stock.FormattingConfig("numpy"), None, {}),
        "FormattingConfig": ("numpy",),
        "HorizontallyConcatenatedMultiSourcesExamplesIterable": ([source()],),
        "VerticallyConcatenatedMultiSourcesExamplesIterable": ([source()],),
        "MappedExamplesIterable": (source(), dict),
        "RebatchedArrowExamplesIterable": (source(), 2),
        "RepeatExamplesIterable": (source(), 2),
        "SelectColumnsIterable": (source(), ["a"]),
        "SkipExamplesIterable": (source(), 1),
        "TakeExamplesIterable": (source(), 1),
        "StepExamplesIterable": (source(), 2, 0),
        "IterableDataset": (source(),),
    }
    return getattr(stock, name)(*arguments[name])


@pytest.mark.parametrize("place", CALLED)
def test_what_we_call_or_wrap_takes_what_we_hand_on(place):
    *arguments, breaks = CALLED[place]
    thing = found(place)
    assert thing is not None, f"datasets.{place} is gone in {datasets.__version__}: {breaks}"
    known = inspect.signature(thing).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    missing = [name for name in arguments if name not in known and not takes_any]
    assert not missing, f"datasets.{place} of {datasets.__version__} takes no {', '.join(missing)}: {breaks}"
    first = next(iter(known))
    assert first in (arguments[0], "args"), f"datasets.{place} begins with {first}, not {arguments[0]}: {breaks}"


@pytest.mark.parametrize("name", READ)
def test_what_we_read_of_streams_is_there(name):
    assert hasattr(stock, name), f"datasets.iterable_dataset.{name} is gone in {datasets.__version__}: {STREAM}"
    made = stock_object(name)
    kinds = (inspect.getattr_static(made, each, None) for each in READ[name])
    missing = [
        each
        for each, kind in zip(READ[name], kinds, strict=True)
        if not isinstance(kind, property) and not hasattr(made, each)
    ]
    assert not missing, f"{name} of datasets {datasets.__version__} has no {', '.join(missing)}: {STREAM}; {RESUME}"


@pytest.mark.parametrize("place", TYPES)
def test_what_we_compare_with_is_of_its_kind(place):
    assert isinstance(found(place), TYPES[place]), f"datasets.{place} is gone in {datasets.__version__}: {FIND}; {SHOW}"


def test_the_functions_are_what_datasets_itself_calls():
    for caller, called in (
        (datasets.load.load_dataset_builder, "dataset_module_factory("),
        (datasets.distributed.split_dataset_by_node, "_split_by_node_iterable_dataset("),
        (datasets.combine.concatenate_datasets, "_concatenate_iterable_datasets("),
        (datasets.combine.interleave_datasets, "_interleave_iterable_datasets("),
        (datasets.builder.DatasetBuilder.as_streaming_dataset, "_as_streaming_dataset_single"),
        (stock.IterableDataset.__iter__, "_prepare_ex_iterable_for_iteration("),
    ):
        assert called in inspect.getsource(caller), f"datasets calls {called} no more: what wraps it is never asked"


def test_wrapped_functions_keep_their_names_and_docs():
    for place in CALLED:
        owner, _, name = place.rpartition(".")
        thing = getattr(found(owner) if owner else datasets, name)
        if hasattr(thing, "skyset_wraps"):
            assert (thing.__name__, thing.__doc__) == (thing.skyset_wraps.__name__, thing.skyset_wraps.__doc__), place


def test_streams_override_with_the_arguments_of_stock():
    theirs = stock.IterableDataset
    for name in (
        "_prepare_ex_iterable_for_iteration",
        "with_format",
        "shuffle",
        "take",
        "skip",
        "iter",
        "filter",
        "repeat",
        "select_columns",
        "remove_columns",
        "rename_column",
        "rename_columns",
        "cast",
        "cast_column",
        "load_state_dict",
    ):
        assert name in vars(SurveyStream) and hasattr(theirs, name), name
        wanted, given = (list(inspect.signature(getattr(each, name)).parameters) for each in (theirs, SurveyStream))
        assert given[: len(wanted)] == wanted or {"args", "options"} & set(given), name
    for name in ("set_format", "cast", "cast_column", "save_to_disk"):
        assert name in vars(SurveyTable) and hasattr(datasets.Dataset, name), name


def test_methods_that_keep_the_class_keep_their_names_and_docs():
    for ours, theirs in ((SurveyStream, datasets.IterableDataset), (SurveyTable, datasets.Dataset)):
        for name in ("map", "filter", "take", "shard"):
            assert getattr(ours, name).__name__ == name and getattr(ours, name).__doc__
            assert getattr(theirs, name) is not getattr(ours, name)
    assert SurveyTable.map.__doc__ == datasets.Dataset.map.__doc__
    assert datasets.Dataset.from_dict({"a": [1]}).map(lambda row: row).__class__ is datasets.Dataset


def test_a_batch_of_stock_is_recognised_by_its_function():
    rows = datasets.Dataset.from_dict({"a": [1, 2]}).to_iterable_dataset()
    mapped = next(link for link in links(rows.batch(2)._ex_iterable) if hasattr(link, "function"))
    assert makes_batches(mapped), "stream.batch(n).shuffle() mixes rows of batches; lengths are wrong"
    plain = next(link for link in links(rows.map(partial(dict, b=1))._ex_iterable) if hasattr(link, "function"))
    assert not makes_batches(plain)


def test_tables_have_what_we_set():
    table = datasets.Dataset.from_dict({"a": [1]})
    assert isinstance(table._info, datasets.DatasetInfo) and table._format_type is None, SHOW
    formatter = NumpyFormatter(dtype=np.float32)
    assert formatter.np_array_kwargs == {"dtype": np.float32} and formatter.features is None, DTYPES


def test_builders_know_where_their_cache_is():
    code = inspect.getsource(datasets.builder.DatasetBuilder.__init__)
    assert "self._cache_dir_root = " in code, "cache_limit= has no folder for its blocks"


# --- the list is whole, and the bound is what was tried ---------------------------------------------------


def reaching() -> list[ast.Module]:
    """The modules of ours that import `datasets`."""
    folders = [ROOT / name for name in ("skyset", "loaders", "build_scripts", "training")]
    texts = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    return [ast.parse(text) for text in texts if re.search(r"^\s*(import|from) datasets\b", text, re.MULTILINE)]


def test_every_name_from_inside_datasets_stands_above():
    known = {part for place in (*CALLED, *TYPES) for part in place.split(".")} | set(READ)
    taken = {
        name.name
        for tree in reaching()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("datasets.")
        for name in node.names
    }
    assert taken <= known | {"iterable_dataset"}, "name it above, with what breaks where it is gone"


def test_every_private_name_that_is_not_ours_stands_above():
    known = {part for place in (*CALLED, *TYPES) for part in place.split(".")}
    known |= {name for names in READ.values() for name in names}
    trees = reaching()
    ours = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours |= {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    ours |= {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "twin", "made")
    }
    # Of sys; of tables and of builders, tested above; asked for, of datasets 3 alone.
    others = {"_getframe", "_format_type", "_cache_dir_root", "_shuffling"}
    private = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match(r"_[a-zA-Z]", node.attr)
    }
    assert private - ours - others <= known, "name it above, with what breaks where it is gone"


def test_the_bound_is_the_next_major_version():
    if not (ROOT / "setup.cfg").is_file():
        pytest.skip("not a checkout")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg")
    bound = re.search(r"^datasets >= 3\.6, < (\d+)$", settings["options"]["install_requires"], re.MULTILINE)
    assert bound, "without an upper bound the next major version breaks installations that worked"
    assert int(datasets.__version__.partition(".")[0]) < int(bound[1])
    pins = re.search(r"^datasets==(\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert int(pins[1]) == int(bound[1]) - 1, "CI runs the newest version that the bound allows"
