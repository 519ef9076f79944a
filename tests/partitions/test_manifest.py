"""The manifest survives a round trip, a damaged one is refused in one line, and ``verify`` names every difference."""

import dataclasses
import json
import math
import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from skyset.errors import UserError
from skyset.files import write_atomically
from skyset.partitions.layout import MANIFEST, cell_of_path, partition_path
from skyset.partitions.manifest import Manifest, describe_file, keys_digest
from skyset.partitions.verify import verify
from skyset.partitions.writer import PartitionWriter
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Feature, Survey

SURVEY = Survey(
    name="toy",
    title="Toy survey",
    homepage="",
    citation="",
    license="",
    base_url="http://127.0.0.1/",
    columns=(
        Column("object_id", "S8"),
        Column("name", "S8"),
        Column("ra", "float32", (), "deg", "right ascension"),
        Column("dec", "float32", (), "deg", "declination"),
        HEALPIX,
        Column("image", "uint8", (70, 70), "count", "pixels"),
    ),
    features=(Feature("ra", "ra"),),
)
#: Two objects in each of two cells, by key.
POSITIONS = {"a": (10.0, 0.5), "b": (10.5, 0.5), "c": (100.0, 30.0), "d": (100.25, 30.0)}
FIRST, SECOND = (partition_path(int(healpix_cell(*POSITIONS[key]))) for key in "ac")


def record(key, ra=None, dec=None, cell=None):
    ra, dec = (POSITIONS[key][0] if ra is None else ra), (POSITIONS[key][1] if dec is None else dec)
    pixels = np.full((70, 70), ord(key), np.uint8)
    cell = int(healpix_cell(ra, dec)) if cell is None else cell
    return {"object_id": np.bytes_(key), "name": np.bytes_(key), "ra": ra, "dec": dec, "healpix": cell, "image": pixels}


def write(root, path, records):
    attributes = {"survey": "toy", "healpix": cell_of_path(path)}
    with PartitionWriter(root / path, SURVEY.columns, len(records), attributes) as writer:
        for values in records:
            writer.append(values)
    return describe_file(root, path, SURVEY, "train")


def manifest_of(entries):
    return Manifest("toy", list(SURVEY.columns), "object_id", list(entries), ["http://127.0.0.1/"], {"compression": "none"})


@pytest.fixture
def root(tmp_path):
    entries = [write(tmp_path, FIRST, [record("a"), record("b")]), write(tmp_path, SECOND, [record("c"), record("d")])]
    manifest_of(entries).save(tmp_path)
    return tmp_path


def replace_first(root, records):
    """Write other rows into the first file, and a manifest to match."""
    others = [entry for entry in Manifest.load(root).files if entry.path != FIRST]
    manifest_of([write(root, FIRST, records), *others]).save(root)


def differences(root):
    return list(verify(root, SURVEY))


def edit(root, **changes):
    """Change the manifest's entry of the first file."""
    values = json.loads((root / MANIFEST).read_text())
    next(entry for entry in values["files"] if entry["path"] == FIRST).update(changes)
    (root / MANIFEST).write_text(json.dumps(values))


# --- the manifest -------------------------------------------------------------------------------------------


def test_round_trip(root):
    manifest = Manifest.load(root)
    assert manifest.columns == list(SURVEY.columns)
    assert (manifest.rows, manifest.key, manifest.survey, manifest.nside) == (4, "object_id", "toy", 16)
    assert manifest.bytes == sum((root / path).stat().st_size for path in (FIRST, SECOND))
    assert [entry.path for entry in manifest.splits["train"]] == sorted([FIRST, SECOND])
    assert Manifest.load(f"file://{root}") == manifest
    before = (root / MANIFEST).read_bytes()
    manifest.save(root)
    assert (root / MANIFEST).read_bytes() == before


def test_entry_is_that_of_the_file(root):
    entry = next(entry for entry in Manifest.load(root).files if entry.path == FIRST)
    assert (entry.rows, entry.split, entry.healpix) == (2, "train", healpix_cell(10.0, 0.5))
    assert (entry.ra, entry.dec, entry.keys) == ((10.0, 10.5), (0.5, 0.5), keys_digest(["a", "b"]))


def test_keys_digest_depends_on_order_and_borders():
    assert len({keys_digest(keys) for keys in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_no_manifest(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no manifest.json in .*: not a folder of skyset partitions, or its build has not"):
        Manifest.load(tmp_path / folder)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is damaged: JSONDecodeError"),
        ('{"format": "skyset-manifest/1"', "is damaged: JSONDecodeError"),
        ("[]", "is damaged: TypeError"),
        ("{}", "is damaged: KeyError: 'format'"),
        ('{"format": "skyset-manifest/2"}', "has format 'skyset-manifest/2'; this skyset reads 'skyset-manifest/1'"),
        (
            '{"format": "skyset-manifest/1", "columns": [], "key": "object_id"}',
            "is damaged: KeyError: 'survey'",
        ),
        ("\xff", "is damaged"),
    ],
)
def test_damaged_or_foreign(tmp_path, text, match):
    (tmp_path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=match) as info:
        Manifest.load(tmp_path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../healpix=1/x.hdf5"},
        {"path": "/etc/healpix=1/x.hdf5"},
        {"path": "../../etc/passwd"},
        {"path": 5},
        {"path": None},
        {"rows": "2"},
        {"rows": -1},
        {"bytes": 0.5},
        {"ra": None},
        {"surprise": 1},
    ],
)
def test_entries_that_cannot_be(root, changes):
    edit(root, **changes)
    with pytest.raises(UserError, match=r"manifest\.json is damaged: "):
        Manifest.load(root)


def test_a_column_of_python_objects_is_refused(root):
    (root / MANIFEST).write_text((root / MANIFEST).read_text().replace('"uint8"', '"O"'))
    with pytest.raises(UserError, match="is damaged: ValueError: column image cannot have dtype O"):
        Manifest.load(root)


def test_writing_fails_without_a_trace(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("old")
    monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# --- verify -------------------------------------------------------------------------------------------------


def test_a_good_tree_has_no_differences(root):
    assert differences(root) == []
    assert list(verify(root)) == []


def test_flipped_byte(root):
    with h5py.File(root / FIRST) as file:
        place = file["image"].id.get_offset() + 100
    content = bytearray((root / FIRST).read_bytes())
    content[place] ^= 1
    (root / FIRST).write_bytes(content)
    (line,) = differences(root)
    assert line.startswith(f"{FIRST}: SHA-256 is ") and f"{MANIFEST} says" in line


def test_truncated(root):
    content = (root / FIRST).read_bytes()
    (root / FIRST).write_bytes(content[:-100])
    first, second = differences(root)
    assert first == f"{FIRST}: {len(content) - 100} bytes, {MANIFEST} says {len(content)}"
    assert second.startswith(f"{FIRST}: ") and "truncated" in second


def test_missing(root):
    (root / SECOND).unlink()
    assert differences(root) == [f"{SECOND}: missing"]


def test_not_listed(root):
    shutil.copy(root / FIRST, root / FIRST.replace("001-of-001", "extra"))
    assert differences(root) == [f"{FIRST.replace('001-of-001', 'extra')}: is there but not in {MANIFEST}"]


def test_listed_twice(root):
    manifest = Manifest.load(root)
    dataclasses.replace(manifest, files=[*manifest.files, manifest.files[0]]).save(root)
    lines = differences(root)
    path = manifest.files[0].path
    assert lines[0] == f"{path}: listed twice"
    assert lines[1:] == [f"{path}: object_id {key} is in {path} too" for key in ("ab" if path == FIRST else "cd")]


def test_row_in_a_wrong_cell(root):
    cell = int(healpix_cell(10.0, 0.5))
    replace_first(root, [record("a"), record("b", 200.0, -45.0, cell=cell)])
    cells = sorted([cell, int(healpix_cell(200.0, -45.0))])
    assert differences(root) == [f"{FIRST}: its rows lie in cells {cells}"]


def test_healpix_column_that_is_wrong(root):
    replace_first(root, [record("a", cell=5), record("b")])
    assert differences(root) == [f"{FIRST}: its rows lie in cells {sorted([5, int(healpix_cell(10.0, 0.5))])}"]


def test_columns_that_every_survey_has_are_needed(root):
    manifest = Manifest.load(root)
    dataclasses.replace(manifest, columns=[c for c in manifest.columns if c.name != "dec"]).save(root)
    with pytest.raises(UserError, match="is damaged: ValueError: no column dec"):
        Manifest.load(root)


def test_cell_that_differs_from_the_path(root):
    edit(root, healpix=7)
    with pytest.raises(UserError, match="is in cell 7"):
        Manifest.load(root)


def test_file_in_a_wrong_folder(root):
    wrong = partition_path(7)
    (root / wrong).parent.mkdir()
    (root / FIRST).rename(root / wrong)
    edit(root, path=wrong, healpix=7)
    assert f"{wrong}: its rows lie in cells [{int(healpix_cell(10.0, 0.5))}]" in differences(root)


def test_impossible_position(root):
    replace_first(root, [record("a"), record("b", math.nan, 0.5, cell=1)])
    assert differences(root) == [f"{FIRST}: position is not on the sky: ra nan, dec 0.5"]


@pytest.mark.parametrize(("name", "bounds", "smallest"), [("ra", [9.0, 10.5], 10.0), ("dec", [0.5, 0.75], 0.5)])
def test_wrong_bounds(root, name, bounds, smallest):
    edit(root, **{name: bounds})
    (line,) = differences(root)
    assert line.startswith(f"{FIRST}: {name} runs from {smallest} to ")
    assert line.endswith(f"{MANIFEST} says ({bounds[0]}, {bounds[1]})")


def test_wrong_checksum_rows_and_keys_in_the_manifest(root):
    edit(root, sha256="0" * 64)
    assert differences(root)[0].endswith(f"{MANIFEST} says 000000000000...")
    edit(root, sha256=Manifest.load(root).files[0].sha256, rows=3)
    assert any("has 2 rows, the manifest says 3" in line for line in differences(root))


def test_other_objects_than_listed(root):
    edit(root, keys=keys_digest(["a", "c"]))
    assert differences(root) == [f"{FIRST}: holds other objects than {MANIFEST} says"]


def test_object_in_two_files(root):
    copy = FIRST.replace("001-of-001", "more")
    entry = write(root, copy, [record("b")])
    manifest_of([*Manifest.load(root).files, entry]).save(root)
    assert differences(root) == [f"{copy}: object_id b is in {FIRST} too"]


def test_columns_of_another_version(root):
    other = dataclasses.replace(SURVEY, columns=SURVEY.columns[:-1])
    assert list(verify(root, other)) == [f"{MANIFEST}: the columns differ from those of this version's toy"]


def test_column_that_the_file_does_not_have(root):
    manifest = Manifest.load(root)
    dataclasses.replace(manifest, columns=[*manifest.columns, Column("flux", "float32")]).save(root)
    expected = [f"{MANIFEST}: the columns differ from those of this version's toy"]
    expected += [f"{path}: column flux is missing" for path in (FIRST, SECOND)]
    assert sorted(differences(root)) == sorted(expected)


# --- every difference is named ------------------------------------------------------------------------------


def change(root, act):
    """Change the parsed manifest."""
    values = json.loads((root / MANIFEST).read_text())
    act(values)
    (root / MANIFEST).write_text(json.dumps(values))


def entry_of(values, path=FIRST):
    return next(entry for entry in values["files"] if isinstance(entry, dict) and entry.get("path") == path)


def without(root, path):
    """A file that is gone, and its entry too."""
    (root / path).unlink()
    change(root, lambda values: values.update(files=[each for each in values["files"] if each["path"] != path]))


def put(root, path, content=b"x"):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def instead(root, path, make):
    (root / path).unlink()
    make(root / path)


def in_file(root, act):
    with h5py.File(root / FIRST, "r+") as file:
        act(file)


HOSTILE = [
    "/etc/healpix=1/x.hdf5",
    "../healpix=1/x.hdf5",
    "healpix=1/a\0b.hdf5",
    "healpix=1/a\nb.hdf5",
    "healpix=1/\ud800.hdf5",
    f"healpix=1/{'x' * 300}.hdf5",
    f"{'x/' * 5000}healpix=1/x.hdf5",
    "healpix=\u0663/x.hdf5",
    f"healpix={'9' * 5000}/x.hdf5",
    "./healpix=1/x.hdf5",
    {"a": 1},
    ["x"],
    None,
    5,
    True,
    "",
]

#: What is done to a folder, and what one of the lines must say.
PLANTED = {
    "rows of the head": (lambda r: change(r, lambda v: v.update(rows=5)), "rows is 5, its files have 4"),
    "bytes of the head": (lambda r: change(r, lambda v: v.update(bytes=5)), "bytes is 5, its files have "),
    "no rows in the head": (lambda r: change(r, lambda v: v.pop("rows")), "rows is None"),
    "rejected": (lambda r: change(r, lambda v: v.update(rejected=3)), "rejected is 3, rejected.csv has 0"),
    "rejected.csv": (lambda r: put(r, "rejected.csv", b"key,file,reason\na,b,c\n"), "rejected is 0, rejected.csv has 1"),
    "something new": (lambda r: change(r, lambda v: v.update(surprise=1)), "'surprise' is nothing that a manifest says"),
    "ordering": (lambda r: change(r, lambda v: v["healpix"].update(ordering="ring")), "not nside 16 and ordering nested"),
    "no ordering": (lambda r: change(r, lambda v: v["healpix"].pop("ordering")), "not nside 16 and ordering nested"),
    "key": (lambda r: change(r, lambda v: v.update(key="name")), "key is name, that of toy is object_id"),
    "split": (lambda r: change(r, lambda v: entry_of(v).update(split="test")), "is of split train by its folder"),
    "rows of an entry": (lambda r: change(r, lambda v: entry_of(v).update(rows=1)), "has 2 rows, the manifest says 1"),
    "entry's bytes": (lambda r: change(r, lambda v: entry_of(v).update(bytes=99_999)), "says 99999"),
    "surprise in an entry": (lambda r: change(r, lambda v: entry_of(v).update(surprise=1)), "surprise"),
    "no keys in an entry": (lambda r: change(r, lambda v: entry_of(v).pop("keys")), "keys"),
    "an entry twice": (lambda r: change(r, lambda v: v["files"].append(entry_of(v))), "listed twice"),
    "an entry that is none": (lambda r: change(r, lambda v: v["files"].append(7)), "entry 2"),
    "entry gone": (lambda r: change(r, lambda v: v["files"].remove(entry_of(v))), f"{FIRST}: is there but not in"),
    "file and entry gone": (lambda r: without(r, FIRST), "rows is 4, its files have 2"),
    "file gone": (lambda r: (r / FIRST).unlink(), f"{FIRST}: missing"),
    "a folder instead": (lambda r: instead(r, FIRST, Path.mkdir), f"{FIRST}: is a folder"),
    "a pipe instead": (lambda r: instead(r, FIRST, os.mkfifo), f"{FIRST}: is no regular file"),
    "a loop instead": (lambda r: instead(r, FIRST, lambda path: path.symlink_to(path.name)), f"{FIRST}: cannot be read"),
    "another ending": (lambda r: put(r, f"{FIRST}.bak"), f"{FIRST}.bak: is there but not in"),
    "deep": (lambda r: put(r, "healpix=1/a/b/c.fits"), "healpix=1/a/b/c.fits: is there but not in"),
    "at the root": (lambda r: put(r, "notes.txt"), "notes.txt: is there but not in"),
    "in a folder": (lambda r: put(r, "more/x.hdf5"), "more/x.hdf5: is there but not in"),
    "hidden": (lambda r: put(r, "healpix=1/.x.hdf5"), "healpix=1/.x.hdf5: is there but not in"),
    "of a killed build": (lambda r: put(r, ".manifest.json.7.deadbeef.tmp"), ".manifest.json.7.deadbeef.tmp: is there"),
    "column dropped": (
        lambda r: change(r, lambda v: v["columns"].remove(next(c for c in v["columns"] if c["name"] == "image"))),
        "column 'image' is there but not in",
    ),
    "unit": (lambda r: change(r, lambda v: v["columns"][2].update(unit="arcsec")), "the unit of ra is 'deg'"),
    "description": (lambda r: change(r, lambda v: v["columns"][2].update(description="x")), "the description of ra is not"),
    "unit in the file": (lambda r: in_file(r, lambda f: f["ra"].attrs.update(unit="rad")), "the unit of ra is 'rad'"),
    "another dataset": (lambda r: in_file(r, lambda f: f.create_dataset("x", data=[1])), "column 'x' is there but not in"),
    "another survey": (lambda r: in_file(r, lambda f: f.attrs.update(survey="other")), "its survey is other"),
    "odd attributes": (lambda r: in_file(r, lambda f: f.attrs.update(survey=[1, 2])), "its survey is [1 2]"),
    "an odd unit": (lambda r: in_file(r, lambda f: f["ra"].attrs.update(unit=[1, 2])), "the unit of ra is '[1 2]'"),
    "an odd description": (lambda r: in_file(r, lambda f: f["ra"].attrs.update(description=[1, 2])), "bytes, "),
    "compression": (lambda r: change(r, lambda v: v["build"].update(compression="gzip")), "says gzip"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_difference_is_named(root, name):
    act, said = PLANTED[name]
    act(root)
    lines = differences(root)
    assert any(said in line for line in lines), lines
    assert all(line.splitlines() == [line] for line in lines)


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path)[:30])
def test_paths_that_cannot_be_are_named_and_the_others_checked(root, path):
    change(root, lambda values: entry_of(values).update(path=path))
    (root / SECOND).unlink()
    lines = differences(root)
    assert sum(line.startswith(f"{MANIFEST}: entry ") for line in lines) == 1
    assert f"{SECOND}: missing" in lines and f"{FIRST}: is there but not in {MANIFEST}" in lines
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    with pytest.raises(UserError, match="is damaged"):
        Manifest.load(root)


#: Changes that leave one another's place alone.
APART = (
    "rejected",
    "something new",
    "ordering",
    "split",
    "another ending",
    "deep",
    "at the root",
    "hidden",
    "unit",
    "an entry that is none",
    "compression",
    "description",
)


@pytest.mark.parametrize("seed", range(20))
def test_several_differences_at_once_are_each_named(root, seed):
    chosen = random.Random(seed).sample(APART, 5)
    if {"unit", "description"} <= set(chosen):
        chosen.remove("unit")
    for name in chosen:
        PLANTED[name][0](root)
    lines = differences(root)
    for name in chosen:
        assert any(PLANTED[name][1] in line for line in lines), (name, lines)


def random_change(values, rng):
    """Change one place of a JSON document; where, and what it was."""
    place, path = values, []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        path.append(key)
        if path[0] in ("build", "sources"):  # what nothing on the disk tells of
            return random_change(values, rng)
        if isinstance(place[key], dict | list) and place[key]:
            place = place[key]
            continue
        old = place[key]
        new = rng.choice([None, -1, 0, 7, 10**18, 1.5, "x", "\0", "../x", [], {}, True])
        if new == old and type(new) is type(old):
            return random_change(values, rng)
        place[key] = new
        return path, old


@pytest.mark.parametrize("seed", range(60))
def test_a_change_anywhere_in_the_manifest_is_named(root, seed):
    """By verify's lines, or by the one line that refuses the manifest."""
    values = json.loads((root / MANIFEST).read_text())
    where = random_change(values, random.Random(seed))
    (root / MANIFEST).write_text(json.dumps(values))
    try:
        lines = differences(root)
    except UserError as error:
        lines = [str(error)]
    assert lines, where
    assert all("\n" not in line for line in lines)


def test_what_a_build_leaves_beside_the_partitions_is_no_difference(root):
    for path in ("README.md", "raw/x.fits.gz", "archives/a.json", "catalogs/x.csv", ".gitattributes", ".cache/x"):
        put(root, path)
    put(root, "other/manifest.json")
    put(root, "other/healpix=3/001-of-001.hdf5")
    assert differences(root) == []


def test_a_numbered_file_without_its_fellows(root):
    second = FIRST.replace("001-of-001", "002-of-003")
    (root / FIRST).rename(root / second)
    edit(root, path=second)
    assert differences(root) == [f"{FIRST.replace('001-of-001', '001-of-003')}: neither there nor in {MANIFEST}"]
