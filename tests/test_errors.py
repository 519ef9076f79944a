"""One ``except`` catches whatever skyset raises on purpose."""

import importlib
import inspect
import pkgutil

import pytest

import skyset
from skyset.errors import SkysetError

PACKAGES = ("skyset", "skyset.loaders", "skyset.build_scripts")


def modules():
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if found.name.endswith("__main__"):
                continue
            try:
                yield importlib.import_module(found.name)
            except ImportError as error:  # an optional package
                if str(error.name).startswith("skyset"):
                    raise


def test_every_public_exception_is_a_skyset_error():
    own = {
        value
        for module in modules()
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {"UserError", "FetchError", "TapError", "VOTableError", "ImageError"} <= {each.__name__ for each in own}
    assert [each for each in own if not issubclass(each, SkysetError | Warning)] == []


def test_one_except_is_enough():
    with pytest.raises(skyset.SkysetError, match="unknown survey"):
        skyset.load("no_such_survey")
