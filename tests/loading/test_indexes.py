"""Where indexes lie by a tree's path and by name."""

import json
import os
from pathlib import Path

import pytest

from skyset.loading.indexes import cache_folder, default_index, index_named, index_of, note_index, plain_name


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKYSET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def finish(index, time=None):
    index.mkdir(parents=True)
    (index / "manifest.json").write_text("{}")
    if time:
        os.utime(index / "manifest.json", (time, time))


def test_places(cache, tmp_path):
    index = default_index(tmp_path / "My Tree")
    assert (
        index.parent == cache / "adopted" and index.name.startswith("My_Tree-") and len(index.name) == len("My_Tree-") + 16
    )
    assert index_of(tmp_path / "My Tree") is None
    finish(index)
    assert index_of(tmp_path / "x" / ".." / "My Tree") == index == index_named("My_Tree")
    assert index_of(tmp_path / "Other") is None


def test_names(cache, tmp_path):
    first, second = default_index(tmp_path / "a", "mine"), default_index(tmp_path / "b", "mine")
    finish(first, 2000)
    (second / "sub").mkdir(parents=True)
    (second / "sub" / "manifest.json").write_text("{}")
    os.utime(second / "sub" / "manifest.json", (1000, 1000))
    assert index_named("mine") == first and index_of(tmp_path / "b") == second
    assert index_named("mi") is None and index_named("*") is None and index_named("") is None


def test_an_index_elsewhere_is_found_by_its_tree_and_its_name(cache, tmp_path):
    tree, index = tmp_path / "tree", tmp_path / "index"
    assert note_index(tree, "mine", index) and index_of(tree) is None  # nothing is there yet
    finish(index)
    (index / "manifest.json").write_text(json.dumps({"sources": [str(tree)]}))
    assert index_of(tree) == index_named("mine") == index and index_of(tmp_path / "other") is None
    finish(default_index(tree), 1000)  # an older one in the cache
    assert index_of(tree) == index
    (index / "manifest.json").write_text(json.dumps({"sources": [str(tmp_path / "other")]}))
    assert index_named("mine") is None and index_of(tree) == default_index(tree)


def test_a_cache_that_cannot_be_written_is_no_error(cache, tmp_path):
    cache.write_text("")
    assert not note_index(tmp_path / "tree", "mine", tmp_path / "index")


def test_the_cache_is_where_it_is_usually(monkeypatch, tmp_path):
    monkeypatch.delenv("SKYSET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "skyset"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "skyset"


def test_plain_names():
    assert plain_name("a b/ü") == "a_b" and plain_name("..") == "tree" and plain_name("sdss_dr17.1") == "sdss_dr17.1"
