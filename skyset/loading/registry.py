"""The surveys by name, and the one place that reaches into `datasets` so that ``load_dataset("<survey>")`` finds them.

`datasets` has no public way to register a builder. The functions of ``install`` are wrapped; the wrappers hand everything
that is not ours on unchanged. ``tests/test_datasets_names.py`` says what breaks should a new version move one.
"""

from __future__ import annotations

import contextlib
import contextvars
import difflib
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skyset.errors import UserError
from skyset.loading import places
from skyset.loading.places import survey_in
from skyset.partitions.layout import MANIFEST

if TYPE_CHECKING:
    from skyset.survey import Survey

#: A folder with one of these is a HATS collection or catalogue.
HATS = ("collection.properties", "hats.properties", "properties")
#: How the list of files begins that is pushed with Parquet.
PUBLISHED = b'"format": "skyset-published/'
#: Of a tree of other files: it is not walked through to its end.
MANY_FILES = 50_000
#: Packages declare their surveys under this name: ``skyset.surveys = mine = my_package.mine``.
ENTRY_POINTS = "skyset.surveys"
#: What the indexes of somebody else's trees name as their survey.
ADOPTED = "adopted"

_modules: dict[str, str] = {}
_anybodys: contextvars.ContextVar[bool] = contextvars.ContextVar("anybodys", default=False)


def register(name: str, module: str) -> None:
    """Make ``load_dataset(name)`` use the builder in a module (which has ``SURVEY`` and a ``SurveyBuilder``).

    `skyset build` finds the module's build script by its ``BUILD_SCRIPT``, the name of a module like
    ``skyset.build_scripts.gz3d.build_parent_sample``.

    Args:
        name: of the survey.
        module: its importable name, or its file, such as ``my_survey/my_survey.py``.

    Raises:
        UserError: there is no such file.
    """
    _modules[name] = _importable(module)


def register_module(module: str) -> str:
    """Register a loader by its importable name, or by its file, under its survey's name; returns that.

    Raises:
        UserError: it cannot be imported, or has no ``SURVEY``.
    """
    from skyset.survey import Survey

    try:
        name = _importable(module)
        declared = importlib.import_module(name).SURVEY
    except UserError as error:
        raise UserError(f"--module {error}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's module raises; a script's sys.exit() must not end us
        raise UserError(f"--module {module}: {type(error).__name__}: {error}") from error
    if not isinstance(declared, Survey):
        raise UserError(f"--module {module}: SURVEY is no skyset.survey.Survey")
    register(declared.name, name)
    return declared.name


def _importable(module: str) -> str:
    """The name by which a module is imported, here and in worker processes, that may be given by its file."""
    path = Path(module).expanduser()
    if path.suffix != ".py":
        return module
    if not path.is_file():
        raise UserError(f"{module}: there is no such file")
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    return path.stem


@functools.cache
def _register_entry_points() -> None:
    """Surveys of other installed packages; none takes the name of one that is known already."""
    for found in importlib.metadata.entry_points(group=ENTRY_POINTS):
        _modules.setdefault(found.name, found.value)


def is_known(name: str) -> bool:
    """Whether there is a survey of this name, ours or another package's."""
    if name not in _modules:
        _register_entry_points()
    return name in _modules


def near_miss(name: str) -> str | None:
    """The survey that somebody may have meant who wrote this: other capitals, a hyphen, a letter more or less."""
    plain = name.lower().replace("-", "_").removesuffix(".py")
    return next(iter(difflib.get_close_matches(plain, surveys(), 1, cutoff=0.8)), None)


def surveys() -> list[str]:
    """Names that ``load_dataset`` and ``skyset build`` know, sorted."""
    _register_entry_points()
    return sorted(_modules)


def loader(name: str) -> ModuleType:
    """The module of a survey's loader; UserError with the known names if there is none, or if it cannot be imported."""
    if not is_known(name):
        _refuse_unadopted(name)
        raise UserError(_unknown(name))
    module = _modules[name]
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if module.startswith("skyset."):
            raise
        raise UserError(f"the survey {name} cannot be loaded: {module}: {error}") from error
    if not hasattr(found, "SURVEY"):
        folder = next(iter(getattr(found, "__path__", ())), "") if getattr(found, "__file__", None) is None else ""
        why = f"the folder {folder} stands in its way" if folder else "it has no SURVEY"
        raise UserError(f"the survey {name} cannot be loaded: {module}: {why}")
    return found


def _unknown(name: str) -> str:
    """Why nothing is found by a name, or in a folder."""
    known = ", ".join(surveys())
    if _is_local_folder(name) and is_adopted(name):
        return f"{name} is an adopted tree, and no survey's name: name its folder alone, without --data_dir"
    if _is_local_folder(name):
        return (
            f"the folder {name} has no data that can be loaded: no {MANIFEST}, HDF5, Parquet or HATS; known surveys: {known}"
        )
    if is_place(name):
        return f"there is no folder {name}; known surveys: {known}"
    meant = near_miss(name)
    hint = f"did you mean {meant}? " if meant else ""
    return f"unknown survey {name!r}; {hint}known: {known}; no folder here and no adopted tree has this name"


def _refuse_unadopted(path: str, cells: bool = False) -> None:
    """UserError where this is a folder of somebody's HDF5 that nobody has adopted."""
    if not _is_local_folder(path) or is_adopted(path):
        return
    from skyset.partitions.tree.unadopted import how_to_adopt, is_unadopted

    if is_unadopted(path, cells):
        raise UserError(f"{path} is no folder of skyset's, and has no index: {how_to_adopt(path)}")


def _has_script(path: str) -> bool:
    """Whether a folder has a loading script of its own, as those of MultimodalUniverse's repository do."""
    folder = Path(path).expanduser()
    return (folder / f"{folder.name}.py").is_file()


def _is_local_folder(path: str) -> bool:
    return "://" not in str(path) and Path(path).expanduser().is_dir()


def configs(name: str) -> dict[str, Survey]:
    """The datasets of a survey, ``load_dataset(name, config)``: each with its declaration; the first is the default."""
    module = loader(name)
    return getattr(module, "CONFIGS", {"default": module.SURVEY})


def has_config(name: str, config: str) -> bool:
    """Whether a survey is known and has this dataset; those of a tree are as its index names them."""
    return is_known(name) and (name == ADOPTED or config in configs(name))


def default_config(name: str) -> str:
    """The dataset of a survey that is meant where none is named."""
    return next(iter(configs(name)))


def survey(name: str, config: str | None = None) -> Survey:
    """A survey's declaration, by default that of its first dataset; UserError with the known names if there is none."""
    known = configs(name)
    config = next(iter(known)) if config is None or name == ADOPTED else config
    if config not in known:
        raise UserError(f"{name} has no config {config!r}; known: {', '.join(known)}")
    return known[config]


def find_root(name: str, data_dir: str | None = None, base_path: str | None = None, config: str | None = None) -> str | None:
    """Folder or URL of the manifest of a survey's dataset, None where there is none; see ``places.find_root``.

    Args:
        name: the survey's, or a word that is none: then only ``data_dir`` leads anywhere.
        data_dir: the folder or URL that is asked for.
        base_path: of the loading script.
        config: one of its datasets, by default the first.
    """
    if config is None:
        config = "default"
        with contextlib.suppress(UserError):  # a word that is no survey's, or somebody's package that is broken
            config = default_config(name)
    return places.find_root(name, data_dir, base_path, config)


def build_script(name: str) -> ModuleType:
    """The module that builds a survey, with ``main(arguments, program) -> exit status``; UserError if there is none."""
    script = _build_script(name)
    if script is None:
        raise UserError(f"{name} has no build script; those that have: {', '.join(buildable())}")
    try:
        return importlib.import_module(script)
    except ImportError as error:
        raise UserError(f"the build script of {name} cannot be imported: {script}: {error}") from error


def buildable() -> list[str]:
    """Names that ``skyset build`` knows, sorted."""
    return [name for name in surveys() if _build_script(name)]


def how_to_make(name: str, options: str = "--tiny") -> str:
    """The command that makes a survey's partitions: with these options if it has a build script."""
    if name == ADOPTED:
        return "skyset adopt DIR"
    if name == "crossmatch":
        return "skyset crossmatch LEFT RIGHT --partitions DIR"
    if name == "matched":
        return "skyset crossmatch LEFT RIGHT --partitions DIR --images"
    return f"skyset build {name} {options}"


def _build_script(name: str) -> str | None:
    """The importable name of a survey's build script."""
    if not is_known(name) or not _modules[name].startswith("skyset.loaders."):
        try:
            return getattr(loader(name), "BUILD_SCRIPT", None)
        except UserError:
            if is_known(name):  # one that cannot be imported must not hide the others
                return None
            raise
    scripts = {found.name for found in pkgutil.iter_modules(importlib.import_module("skyset.build_scripts").__path__)}
    script = f"skyset.build_scripts.{name}.build_parent_sample"
    return script if name in scripts and importlib.util.find_spec(script) is not None else None


@functools.cache
def code_digest() -> str:
    """Digest of the code that makes rows, for the cache's path."""
    from datasets import __version__ as version  # what one version caches, an older one cannot always read

    digest = hashlib.sha256(version.encode())
    home = Path(__file__).parents[1]
    files = [home / f"{name}.py" for name in ("survey", "noted", "values", "builder", "pixels")] + [*_loader_files()]
    files += [path for folder in ("partitions", "published", "loading") for path in (home / folder).rglob("*.py")]
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _loader_files() -> Iterator[Path]:
    for folder in importlib.import_module("skyset.loaders").__path__:
        yield from Path(folder).glob("*.py")


def _survey_of(path: str) -> str | None:
    """The survey that the first argument of ``load_dataset`` means: its name, or its loading script; else None."""
    name = Path(path).name.removesuffix(".py")
    if not is_known(name):
        return None
    script = Path(path)
    if script.suffix == ".py" and script.is_file():
        return name if script.resolve() == Path(str(loader(name).__file__)).resolve() else None
    return name if path in (name, f"{name}.py") else None


def install() -> None:
    """Register the surveys of ``skyset.loaders`` and connect them with `datasets`; called by ``import skyset``.

    `datasets` takes half a second and 100 MB, which many commands and worker processes have no use for: where it is not
    imported yet, they are connected as soon as it is.
    """
    for found in pkgutil.iter_modules(importlib.import_module("skyset.loaders").__path__):
        register(found.name, f"skyset.loaders.{found.name}")
    if "datasets" in sys.modules:
        connect()
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(importlib.abc.MetaPathFinder):
    """Sees `datasets` being imported, and connects the surveys once it is there."""

    def find_spec(self, name: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name != "datasets":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                connect()

            vars(spec.loader)["exec_module"] = exec_module
        return spec


def connect() -> None:
    """Make `datasets` know the surveys; once."""
    import datasets.arrow_dataset
    import datasets.combine
    import datasets.distributed
    import datasets.inspect
    import datasets.load

    for module in (datasets.load, datasets.inspect):
        _wrap(module, "dataset_module_factory", _finding_surveys)
    _wrap(datasets.arrow_dataset, "get_formatter", _giving_arrays)
    _wrap(datasets.Dataset, "load_from_disk", _knowing_ours)
    _wrap(datasets.distributed, "_split_by_node_iterable_dataset", _keeping_ours)
    for action in ("concatenate", "interleave"):
        _wrap(datasets.combine, f"_{action}_iterable_datasets", _keeping_ours)
        _wrap(datasets.combine, f"_{action}_map_style_datasets", _keeping_ours)


def _wrap(module: ModuleType | type, name: str, wrapper: Callable[[Callable], Callable]) -> None:
    """Replace a function of a module, or a static one of a class, by a wrapped one, once."""
    function = getattr(module, name)
    if not hasattr(function, "skyset_wraps"):
        wrapped: Any = functools.wraps(function)(wrapper(function))
        wrapped.skyset_wraps = function
        setattr(module, name, staticmethod(wrapped) if isinstance(module, type) else wrapped)


@contextlib.contextmanager
def anybodys() -> Iterator[None]:
    """Within it other people's Parquet is found for our reader too; else ``load_dataset`` of it is what it ever was."""
    token = _anybodys.set(True)
    try:
        yield
    finally:
        _anybodys.reset(token)


def _finding_surveys(find: Callable) -> Callable:
    """``dataset_module_factory`` that knows our names and folders; ``load_dataset`` asks it first."""

    def find_module(path, *args, **kwargs):
        given = str(path)
        name = _survey_of(given)
        if name is not None:
            # `datasets` would list the data folder here; the manifest makes that needless.
            return _module(name)
        if (catalogue := _catalogue_in(given, kwargs)) is not None:
            return catalogue
        if "://" in given and not args and (_anybodys.get() or not given.startswith("hf://")):
            return _module_at(find, given, kwargs)
        if not is_pushed(given) and (found := _survey_in_folder(given, kwargs.get("data_dir"))):
            return _module(found.pop("survey"), **found)
        if (_anybodys.get() or is_pushed(given)) and has_parquet(given) and not _is_packaged(given):
            from skyset.loading.parquet_modules import ours

            return ours(find(path, *args, **kwargs), code_digest(), fill=is_pushed(given))
        if given == "hdf5" and (files := _partitions_in(kwargs.get("data_dir"))) and not kwargs.get("data_files"):
            return find(path, *args, **{**kwargs, "data_files": files})
        meant = None if os.path.exists(given) or "/" in given.rstrip("/") else near_miss(given.rstrip("/"))
        if meant and not _is_packaged(given):
            raise UserError(f"there is no dataset {given!r} here; did you mean {meant}?")
        if not kwargs.get("data_files") and not _is_packaged(given) and not _has_script(given):
            _refuse_unadopted(given, cells=True)
        return find(path, *args, **kwargs)

    return find_module


def _module(name: str, **builder_options):
    from datasets.load import DatasetModule

    return DatasetModule(loader(name).__name__, "", {"dataset_name": name, **builder_options})


def _is_packaged(name: str) -> bool:
    """Whether `datasets` itself has a builder of this name."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return name in _PACKAGED_DATASETS_MODULES


def _survey_in_folder(path: str, data_dir: str | None) -> dict | None:
    """Which survey and config a local folder of partitions holds: options for its builder; None where it is none of ours.

    The folder of a survey of which only configs are built has no manifest; theirs tell.
    """
    from skyset.loading.trees import index_at
    from skyset.partitions.manifest import Manifest

    folder = Path(path).expanduser() / (data_dir or "")
    if "://" in path or _is_packaged(path) or not Path(path).expanduser().is_dir():
        return None
    manifests = [folder, *sorted(each.parent for each in islice(folder.glob(f"*/{MANIFEST}"), 100))]
    name = next(filter(None, map(survey_in, manifests)), None)
    if name is None and (index := index_at(folder)) is not None:
        return {"survey": ADOPTED, "data_dir": str(index)}
    if name is None or not is_known(name):
        return None
    found = {"survey": name, "data_dir": str(folder)}
    # Of an index the builder knows its datasets, and refuses a name of none of them.
    if name != ADOPTED and (folder / MANIFEST).is_file() and (config := Manifest.load(folder).config) != "default":
        found["config_name"] = config
    return found


def is_adopted(path: str) -> bool:
    """Whether this is a local folder of somebody's files that was adopted, or the index of one."""
    return (_survey_in_folder(str(path), None) or {}).get("survey") == ADOPTED


def index_named(name: str) -> str | None:
    """The index of the adopted tree that was given a name; None where there is none, or it is a survey's name or a place."""
    if is_known(name) or is_place(name) or "://" in name:
        return None
    from skyset.loading import indexes

    index = indexes.index_named(name)
    return None if index is None else str(index)


def _catalogue_in(path: str, options: dict):
    """What `datasets` reads of a local folder that is a HATS collection or catalogue; None of anything else."""
    folder = Path(path).expanduser()
    if (
        "://" in path
        or _is_packaged(path)
        or options.get("data_files")
        or options.get("data_dir")
        or not is_catalogue(folder)
    ):
        return None
    from skyset.loading.parquet_modules import catalogue_module

    return catalogue_module(str(folder), survey, code_digest())


def _module_at(find: Callable, url: str, options: dict):
    """What lies behind a URL: partitions of a survey, or Parquet files; UserError of anything else."""
    from skyset.loading.parquet_modules import module_at
    from skyset.partitions.manifest import raw_values

    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        values = raw_values(url) if not url.startswith("hf://") else {}
        if is_known(str(values["survey"])):
            return _module(values["survey"], data_dir=url)
    return module_at(find, url, dict(options), survey, code_digest())


def is_pushed(path: str) -> bool:
    """Whether this is a local folder as `skyset push` makes it of Parquet: its list of files says so."""
    try:
        with open(Path(path).expanduser() / MANIFEST, "rb") as file:
            return PUBLISHED in file.read(100)
    except OSError:
        return False


def is_catalogue(folder: Path) -> bool:
    """Whether this is a local folder of HATS, collection or catalogue."""
    return any((folder / name).is_file() for name in HATS)


def has_parquet(folder: str | Path) -> bool:
    """Whether a local folder has Parquet files, in it or in folders below it, as far as these are looked through."""
    files = (name for _, _, names in os.walk(Path(folder).expanduser()) for name in names)
    return any(name.endswith(".parquet") for name in islice(files, MANY_FILES))


def is_repository(name: str) -> bool:
    """Whether this may be the name of a set on the Hub, ``user/name``, and no folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name, flags=re.ASCII) is not None and not Path(name).expanduser().exists()


def folders_below(folder: str | Path) -> dict[str, str]:
    """The datasets of a survey whose folder has no manifest of its own: their folders by config, in the survey's order."""
    found: dict[str, str] = {}
    known = _survey_in_folder(str(folder), None) or {}
    name = known.get("survey")
    if name == ADOPTED:
        from skyset.loading.trees import configs_in

        return {config: str(index) for config, index in configs_in(known["data_dir"]).items()}
    for config in configs(name) if name else ():
        if survey_in(Path(folder).expanduser() / config) == name:
            found[config] = str(Path(folder).expanduser() / config)
    return found


def is_folder(path: str) -> bool:
    """Whether this is a local folder of one of our surveys, of HATS or of pushed Parquet, or a tree that was adopted, and no
    survey's name."""
    if is_known(str(path)):
        return False
    return is_pushed(path) or is_catalogue(Path(path).expanduser()) or _survey_in_folder(str(path), None) is not None


def is_place(path: str) -> bool:
    """Whether this is meant for a folder or URL, rather than for a name."""
    return "/" in str(path) or os.sep in str(path) or Path(path).is_dir()


def _partitions_in(data_dir: str | None) -> dict[str, list[str]] | None:
    """Files by split of a local folder that has our manifest: the stock ``hdf5`` module would read the manifest too."""
    from skyset.partitions.manifest import Manifest

    folder = Path(data_dir or "").expanduser().absolute()
    if data_dir is None or "://" in str(data_dir) or survey_in(folder) in (None, ADOPTED):
        return None
    return {name: [str(folder / entry.path) for entry in files] for name, files in Manifest.load(folder).splits.items()}


def _giving_arrays(find: Callable) -> Callable:
    """``get_formatter`` that gives tables of ours, which it knows by their features, numpy arrays without a format."""

    def find_formatter(format_type, features=None, **kwargs):
        from skyset.loading.formatting import ArrayFeatures, ArrayFormatter

        if format_type is None and isinstance(features, ArrayFeatures):
            return ArrayFormatter(features=features, **kwargs)
        return find(format_type, features=features, **kwargs)

    return find_formatter


def _knowing_ours(load: Callable) -> Callable:
    """``Dataset.load_from_disk`` that knows the tables of our surveys by what built them."""

    def load_table(*args, **kwargs):
        from skyset.loading.stream import adopt

        table = load(*args, **kwargs)
        module = _modules.get(table.info.dataset_name)
        return adopt(table) if module and module.rpartition(".")[2] == table.info.builder_name else table

    return load_table


def _keeping_ours(function: Callable) -> Callable:
    """A function of one dataset, or a list of them, that gives back one of ours for ours."""

    def keep(given, *args, **kwargs):
        from skyset.loading.stream import SurveyStream, SurveyTable, adopt

        result = function(given, *args, **kwargs)
        every = given if isinstance(given, list) else [given]
        ours = any(isinstance(one, SurveyStream | SurveyTable) for one in every)
        return adopt(result, any(getattr(one, "pil", False) for one in every)) if ours else result

    return keep
