"""The manifest survives a round trip, a damaged one is refused in one line, and ``verify`` names every difference."""

import dataclasses
import json
import math
import shutil

import h5py
import numpy as np
import pytest

from skyset.errors import UserError
from skyset.manifest import NAME
from skyset.manifest import Manifest
from skyset.manifest import describe_file
from skyset.manifest import keys_digest
from skyset.manifest import verify
from skyset.manifest import write_atomically
from skyset.partitions import PartitionWriter
from skyset.partitions import partition_path
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Feature
from skyset.survey import Survey
from skyset.survey import healpix_cell

SURVEY = Survey(
    name="toy", title="Toy survey", homepage="", citation="", license="", base_url="http://127.0.0.1/",
    columns=(
        Column("object_id", "S8"),
        Column("ra", "float32", (), "deg", "right ascension"),
        Column("dec", "float32", (), "deg", "declination"),
        HEALPIX,
        Column("image", "uint8", (70, 70), "count", "pixels"),
    ),
    features=(Feature("ra", "ra"),),
)  # fmt: skip
#: Two objects in each of two cells, by key.
POSITIONS = {"a": (10.0, 0.5), "b": (10.5, 0.5), "c": (100.0, 30.0), "d": (100.25, 30.0)}
FIRST, SECOND = (partition_path(int(healpix_cell(*POSITIONS[key]))) for key in "ac")


def record(key, ra=None, dec=None, cell=None):
    ra, dec = (POSITIONS[key][0] if ra is None else ra), (POSITIONS[key][1] if dec is None else dec)
    pixels = np.full((70, 70), ord(key), np.uint8)
    cell = int(healpix_cell(ra, dec)) if cell is None else cell
    return {"object_id": np.bytes_(key), "ra": ra, "dec": dec, "healpix": cell, "image": pixels}


def write(root, path, records):
    with PartitionWriter(root / path, SURVEY.columns, len(records)) as writer:
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
    values = json.loads((root / NAME).read_text())
    next(entry for entry in values["files"] if entry["path"] == FIRST).update(changes)
    (root / NAME).write_text(json.dumps(values))


# --- the manifest -------------------------------------------------------------------------------------------


def test_round_trip(root):
    manifest = Manifest.load(root)
    assert manifest.columns == list(SURVEY.columns)
    assert (manifest.rows, manifest.key, manifest.survey, manifest.nside) == (4, "object_id", "toy", 16)
    assert manifest.bytes == sum((root / path).stat().st_size for path in (FIRST, SECOND))
    assert [entry.path for entry in manifest.splits["train"]] == sorted([FIRST, SECOND])
    assert Manifest.load(f"file://{root}") == manifest
    before = (root / NAME).read_bytes()
    manifest.save(root)
    assert (root / NAME).read_bytes() == before


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
    (tmp_path / NAME).write_bytes(text.encode("latin-1"))
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
    (root / NAME).write_text((root / NAME).read_text().replace('"uint8"', '"O"'))
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
    assert line.startswith(f"{FIRST}: SHA-256 is ") and f"{NAME} says" in line


def test_truncated(root):
    content = (root / FIRST).read_bytes()
    (root / FIRST).write_bytes(content[:-100])
    first, second = differences(root)
    assert first == f"{FIRST}: {len(content) - 100} bytes, {NAME} says {len(content)}"
    assert second.startswith(f"{FIRST}: ") and "truncated" in second


def test_missing(root):
    (root / SECOND).unlink()
    assert differences(root) == [f"{SECOND}: missing"]


def test_not_listed(root):
    shutil.copy(root / FIRST, root / FIRST.replace("001-of-001", "extra"))
    assert differences(root) == [f"{FIRST.replace('001-of-001', 'extra')}: is there but not in {NAME}"]


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
    assert line.endswith(f"{NAME} says ({bounds[0]}, {bounds[1]})")


def test_wrong_checksum_rows_and_keys_in_the_manifest(root):
    edit(root, sha256="0" * 64)
    assert differences(root)[0].endswith(f"{NAME} says 000000000000...")
    edit(root, sha256=Manifest.load(root).files[0].sha256, rows=3)
    assert any("has 2 rows, the manifest says 3" in line for line in differences(root))


def test_other_objects_than_listed(root):
    edit(root, keys=keys_digest(["a", "c"]))
    assert differences(root) == [f"{FIRST}: holds other objects than {NAME} says"]


def test_object_in_two_files(root):
    copy = FIRST.replace("001-of-001", "002-of-002")
    entry = write(root, copy, [record("b")])
    manifest_of([*Manifest.load(root).files, entry]).save(root)
    assert differences(root) == [f"{copy}: object_id b is in {FIRST} too"]


def test_columns_of_another_version(root):
    other = dataclasses.replace(SURVEY, columns=SURVEY.columns[:-1])
    assert list(verify(root, other)) == [f"{NAME}: the columns differ from those of this version's toy"]


def test_column_that_the_file_does_not_have(root):
    manifest = Manifest.load(root)
    dataclasses.replace(manifest, columns=[*manifest.columns, Column("flux", "float32")]).save(root)
    expected = [f"{NAME}: the columns differ from those of this version's toy"]
    expected += [f"{path}: column flux is missing" for path in (FIRST, SECOND)]
    assert sorted(differences(root)) == sorted(expected)
