"""Manifests from strangers: UserError in one line, or a manifest that is what it says."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.errors import UserError
from skyset.messages import LONGEST
from skyset.partitions.layout import MANIFEST, cell_of_path
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.survey import HEALPIX, Column
from tests.hostile.elsewhere import NAMES
from tests.hostile.good import COLUMNS, ROWS

PATH = "healpix=7/001-of-001.hdf5"
KNOWN = Manifest(
    "toy",
    [Column("object_id", "S8"), Column("ra", "float32"), Column("dec", "float32"), HEALPIX, *COLUMNS],
    "object_id",
    [FileEntry(PATH, "train", 7, ROWS, 9000, "0" * 64, "0" * 16, (1.0, 2.0), (3.0, 4.0))],
    ["http://127.0.0.1/"],
    {"compression": "none"},
)
ODD_PATHS = (
    "../healpix=1/x.hdf5",
    "/etc/passwd",
    "healpix=1/../../x.hdf5",
    "a/healpix=1/../x.hdf5",
    "healpix=1/\0.hdf5",
    "healpix=1/x.hdf5\n",
    "healpix=99999999999999999999/x.hdf5",
    "\\\\host\\healpix=1/x.hdf5",
    "../healpix=1/..hdf5",
    "http://x/healpix=1/x.hdf5",
    "healpix=²/x.hdf5",
    "healpix=٣/x.hdf5",
    "healpix=" + "9" * 5000 + "/x.hdf5",
)
ODD_DTYPES = (
    "bytes",
    "bytes_",
    "O",
    "V8",
    "S0",
    "S",
    "(2,",
    "f4,(",
    "i4,i4",
    "<u1",
    ">f8",
    "S2147483647",
    "M8[s]",
    "\0",
    "4f8",
    None,
)
ODD_NUMBERS = (-1, 0, 0.5, True, 2**31, 2**63, 2**64, 10**400, -(10**400), float("nan"), float("inf"), 1e308, "3", "NaN")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
odd_value = st.sampled_from([*ODD_PATHS, *ODD_DTYPES, *ODD_NUMBERS, [], {}, "", [[]], [None]]) | anything


def places(value, at: tuple = ()) -> Iterator[tuple]:
    """Paths of keys to all that a JSON value holds."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


GOOD_JSON = json.loads(KNOWN.to_json())
PLACES = sorted(places(GOOD_JSON), key=str)


@st.composite
def manifests(draw) -> str:
    """The JSON of a manifest, one to three of its values replaced, removed or doubled."""
    values = copy.deepcopy(GOOD_JSON)
    for *head, last in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        with contextlib.suppress(LookupError, TypeError, AttributeError):  # it went with what was replaced before
            inner = values
            for key in head:
                inner = inner[key]
            change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
            if change == "replace":
                inner[last] = draw(odd_value)
            elif change == "remove":
                del inner[last]
            else:
                inner.update(more=1) if isinstance(inner, dict) else inner.append(inner[last])
    return json.dumps(values)


def check_manifest(folder: Path, content: bytes) -> None:
    """UserError in one line, or a manifest that is what it says and the same after a round trip."""
    (folder / MANIFEST).write_bytes(content)
    try:
        manifest = Manifest.load(folder)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) <= LONGEST, str(error)[:300]
        return
    check_types(manifest)
    manifest.save(folder)
    again = Manifest.load(folder)
    assert again.to_json() == manifest.to_json()


def check_types(manifest: Manifest) -> None:
    assert all(isinstance(text, str) for text in (manifest.survey, manifest.key, *manifest.sources)), manifest
    assert isinstance(manifest.build, dict) and isinstance(manifest.sources, list), manifest
    assert all(type(number) is int for number in (manifest.rejected, manifest.nside)), manifest
    for column in manifest.columns:
        assert all(isinstance(text, str) for text in (column.name, column.dtype, column.unit, column.description)), column
        assert 0 < column.row_bytes < 2**63, column
    for entry in manifest.files:
        assert all(isinstance(text, str) for text in (entry.split, entry.sha256, entry.keys)), entry
        assert type(entry.rows) is type(entry.bytes) is type(entry.healpix) is int, entry
        assert 0 <= cell_of_path(entry.path) < 2**63 and ".." not in Path(entry.path).parts, entry
        assert [type(v) for v in (*entry.ra, *entry.dec)] == [float] * 4, entry


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("manifests")


def test_good_manifest(shelf):
    check_manifest(shelf, KNOWN.to_json().encode())
    assert Manifest.load(shelf) == KNOWN


@settings(max_examples=400, deadline=None)
@given(text=manifests())
def test_mutated_manifest(shelf, text):
    check_manifest(shelf, text.encode())


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_manifest_of_damaged_bytes(shelf, data):
    content = bytearray(KNOWN.to_json().encode())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    check_manifest(shelf, bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]))


@pytest.mark.parametrize("dtype", ODD_DTYPES)
def test_manifest_with_an_odd_dtype(shelf, dtype):
    values = copy.deepcopy(GOOD_JSON)
    values["columns"][-1]["dtype"] = dtype
    check_manifest(shelf, json.dumps(values).encode())


@pytest.mark.parametrize("path", ODD_PATHS)
def test_manifest_with_an_odd_path(shelf, path):
    values = copy.deepcopy(GOOD_JSON)
    values["files"][0]["path"] = path
    check_manifest(shelf, json.dumps(values).encode())


@pytest.mark.parametrize(
    "place",
    [
        ("files", 0, "rows"),
        ("files", 0, "bytes"),
        ("healpix", "nside"),
        ("rejected",),
        ("columns", -1, "shape", 0),
        ("files", 0, "ra", 0),
        ("files", 0, "healpix"),
    ],
)
def test_manifest_with_odd_numbers(shelf, place):
    for number in ODD_NUMBERS:
        values = copy.deepcopy(GOOD_JSON)
        *head, last = place
        inner = values
        for key in head:
            inner = inner[key]
        inner[last] = number
        check_manifest(shelf, json.dumps(values).encode())


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"build":{"a":['])
def test_manifest_nested_deeply(shelf, opening):
    check_manifest(shelf, opening.encode() * 200_000)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_whose_column_leads_elsewhere(shelf, name):
    values = copy.deepcopy(GOOD_JSON)
    values["columns"][-1]["name"] = name
    (shelf / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(UserError):
        Manifest.load(shelf)


def test_manifest_that_is_a_folder(tmp_path):
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(UserError):
        Manifest.load(tmp_path)
