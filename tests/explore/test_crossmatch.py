"""A stream of matched rows: the pairs that astropy finds, each once, with the pixels of both, in every format and share."""

import copy

import numpy as np
import pyarrow as pa
import pytest
from datasets.distributed import split_dataset_by_node
from pyarrow import csv, parquet

import skyset
from skyset.errors import PartitionError, UserError
from skyset.survey import Column
from skyset.tables.motion import moved
from tests.conftest import once
from tests.matched import MASKED, STAMPS, cutouts, declared, write_survey

OBJECTS = 90
RADIUS = 2.0
#: Two have two objects of the other survey beside them, the last has none.
SHARED = np.concatenate([np.arange(OBJECTS - 10), [0, 5]])
IMAGES = cutouts(OBJECTS)
MASKS = np.random.default_rng(1).integers(0, 9, (len(SHARED), 2, 80, 80)).astype(np.uint8)


def sky():
    """Places where methods of matching lose pairs first, then anywhere in a few cells."""
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 12, OBJECTS), rng.uniform(-6, 6, OBJECTS)
    ra[:7], dec[:7] = [0, 359.9999999, 1e-8, 77, 180, 45, 0], [0, 10, 11, 90, -89.99999, 0, 41.8103148957786]
    return ra, dec


def nearby(ra, dec, arcsec, seed=3):
    rng = np.random.default_rng(seed)
    moved = np.clip(dec + rng.normal(0, arcsec / 3600, len(dec)), -90, 90)
    return (ra + rng.normal(0, arcsec / 3600, len(ra)) / np.maximum(np.cos(np.radians(dec)), 1e-6)) % 360, moved


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Folders ``stamps`` and ``masked``; a survey that is known here, and one that is not."""
    skyset.register("masked", "tests.matched")

    def make(folder):
        ra, dec = sky()
        write_survey(folder / "stamps", STAMPS, ra, dec, 3, image=IMAGES, mag=np.arange(OBJECTS, dtype=np.float32))
        ra, dec = nearby(ra[SHARED], dec[SHARED], 0.3)
        write_survey(folder / "masked", MASKED, ra, dec, 5, bar=MASKS[:, 0], arm=MASKS[:, 1])
        table = pa.table({"NUMBER": np.arange(len(SHARED)), "ALPHA_J2000": ra, "DELTA_J2000": dec, "FLAGS": SHARED % 3})
        parquet.write_table(table, folder / "sources.parquet")
        table = pa.table(
            {"name": [f"o{n}" for n in SHARED], "RAhour": ra / 15, "Dec": dec, "count": [None, *SHARED[1:].tolist()]}
        )
        csv.write_csv(table, folder / "hours.csv")

    return once(tmp_path_factory, "matched_sides", make)


@pytest.fixture(scope="module")
def stream(sides):
    """Image and masks in four pieces, so that there is something to share."""
    return pieces_of(skyset.crossmatch(sides / "stamps", sides / "masked", radius=RADIUS), 25)


def pieces_of(stream, rows):
    """A stream whose pieces are of so many rows: as of large surveys, there is something to share and to mix."""
    source = stream._ex_iterable
    cut = [source.between(start, start + rows).pieces[0] for start in range(0, len(stream), rows)]
    return stream._with_source(source.with_changes(pieces=cut))


def pair(row):
    return int(row["stamps.object_id"][6:]), int(row["masked.object_id"][6:])


def check(row):
    """The pixels are those of the pair's objects."""
    left, right = pair(row)
    assert np.array_equal(row["stamps.image"], IMAGES[left])
    assert np.array_equal(row["masked.masks"]["array"], MASKS[right])
    return left, right


def astropy_pairs(left, right, radius):
    from astropy import units
    from astropy.coordinates import SkyCoord

    pytest.importorskip("scipy", reason="astropy's search needs scipy")
    first, second = (SkyCoord(*each, unit="deg") for each in (left, right))
    found = second.search_around_sky(first, radius * units.arcsec)
    return set(zip(found[0].tolist(), found[1].tolist(), strict=True))


def test_the_pairs_are_astropys_and_the_pixels_are_theirs(stream):
    ra, dec = sky()
    wanted = astropy_pairs((ra, dec), nearby(ra[SHARED], dec[SHARED], 0.3), RADIUS)
    found = [check(row) for row in stream]
    assert len(found) == len(stream) == len(set(found)) == len(wanted)
    assert set(found) == wanted
    row = next(iter(stream))
    assert row["stamps.image"].dtype == np.float32 and row["masked.masks"]["array"].dtype == np.uint8
    assert row["separation_arcsec"].dtype == np.float64 and 0 <= row["separation_arcsec"] <= RADIUS
    assert row["masked.masks"]["class"] == ["bar", "arm"]
    assert list(stream.features)[:2] == ["stamps.object_id", "stamps.ra"]


def test_shuffled_each_pair_comes_once_and_resuming_is_exact(stream):
    shuffled = stream.shuffle(seed=1)
    whole = [check(row) for row in shuffled]
    assert sorted(whole) == sorted(map(pair, stream)) and whole != list(map(pair, stream))
    assert [pair(row) for row in stream.shuffle(seed=1)] == whole != [pair(row) for row in stream.shuffle(seed=2)]
    for ordered in (stream, shuffled):
        rows = list(map(pair, ordered))
        for done, _ in enumerate(ordered, 1):
            if done % 7 == 0:
                other = copy.deepcopy(ordered)
                other.load_state_dict(copy.deepcopy(ordered.state_dict()))
                assert [pair(row) for row in other] == rows[done:]


@pytest.mark.parametrize("shuffled", [False, True])
def test_nodes_and_workers_share_the_pairs(stream, shuffled):
    torch = pytest.importorskip("torch")
    whole = sorted(map(pair, stream))
    stream = stream.shuffle(seed=4) if shuffled else stream
    found = []
    for rank in range(2):
        share = split_dataset_by_node(stream.with_format("torch"), rank, 2)
        for batch in torch.utils.data.DataLoader(share, batch_size=8, num_workers=2):
            rows = zip(batch["stamps.object_id"], batch["masked.object_id"], strict=True)
            numbers = [(int(a[6:]), int(b[6:])) for a, b in rows]
            assert batch["stamps.image"].dtype == torch.float32 and batch["masked.masks"]["array"].dtype == torch.uint8
            assert np.array_equal(batch["stamps.image"], IMAGES[[a for a, _ in numbers]])
            assert np.array_equal(batch["masked.masks"]["array"], MASKS[[b for _, b in numbers]])
            found += numbers
    assert sorted(found) == whole


def test_a_state_of_other_matches_is_refused(stream, sides):
    other = skyset.crossmatch(sides / "stamps", sides / "masked", radius=0.2)
    iterator = iter(other)
    next(iterator)
    with pytest.raises(ValueError, match="saved by another stream"):
        twin = copy.deepcopy(stream)
        twin.load_state_dict(other.state_dict())
        next(iter(twin))


@pytest.mark.parametrize("format", ["numpy", "torch", "arrow", "pandas", None])
def test_left_keeps_rows_without_a_match(sides, format):
    if format == "torch":
        pytest.importorskip("torch")
    stream = skyset.crossmatch(sides / "stamps", sides / "masked", radius=RADIUS, how="left", format=format)
    rows = list(stream)
    if format in ("arrow", "pandas"):
        rows = [row.to_pydict() if format == "arrow" else row.to_dict("list") for row in rows]
        rows = [{name: values[0] for name, values in row.items()} for row in rows]
    alone = [row for row in rows if not isinstance(row["masked.object_id"], str)]  # None, in pandas NaN
    assert len(rows) == len(stream) == len(SHARED) + 10 and len(alone) == 10
    for row in alone:
        assert int(row["stamps.object_id"][6:]) >= OBJECTS - 10
        assert row["masked.masks"] is None and row["stamps.image"] is not None
        assert np.isnan(float(row["separation_arcsec"]))
        assert row["masked.ra"] is None or np.isnan(row["masked.ra"])
    if format == "numpy":
        assert sorted(check(row) for row in rows if row["masked.masks"] is not None)[0] == (0, 0)


def test_batches_have_lists_where_rows_may_lack_a_value(sides):
    torch = pytest.importorskip("torch")
    stream = skyset.crossmatch(sides / "stamps", sides / "masked", radius=RADIUS, how="left")
    gone = [row is None for batch in stream.iter(32) for row in batch["masked.masks"]]
    assert gone.count(True) == 10 and len(gone) == len(stream)
    batches = list(torch.utils.data.DataLoader(stream.with_format("torch"), batch_size=16, num_workers=1))
    masks = [masks for batch in batches for masks in batch["masked.masks"]]
    assert masks.count(None) == 10 and len(masks) == len(stream)
    assert all(batch["stamps.image"].dtype == torch.float32 for batch in batches)
    matched = stream.filter(lambda row: row["masked.ra"] is not None)
    assert len(list(map(check, matched))) == len(SHARED)


def test_nearest_is_one_row_for_each_that_has_any(sides):
    nearest = list(skyset.crossmatch(sides / "stamps", sides / "masked", radius=RADIUS, how="nearest"))
    rows = [pair(row)[0] for row in nearest]
    assert sorted(rows) == list(range(OBJECTS - 10))
    every: dict = {}
    for row in skyset.crossmatch(sides / "stamps", sides / "masked", radius=RADIUS):
        every.setdefault(pair(row)[0], []).append(row["separation_arcsec"])
    assert all(row["separation_arcsec"] == min(every[pair(row)[0]]) for row in nearest)


def test_three_surveys_in_one_call(sides):
    stream = skyset.crossmatch(sides / "stamps", sides / "masked", sides / "sources.parquet", radius=RADIUS)
    rows = list(stream)
    assert {"separation_arcsec.masked", "separation_arcsec.sources", "sources.ALPHA_J2000"} <= set(stream.features)
    found = [(*check(row), int(row["sources.NUMBER"])) for row in rows]
    two = [numbers for numbers in found if numbers[0] == 0]
    assert sorted(two) == [(0, a, b) for a in (0, OBJECTS - 10) for b in (0, OBJECTS - 10)], "all combinations"
    assert len(found) == len(set(found)) == (OBJECTS - 12) + 2 * 4
    assert all(row["sources.FLAGS"] == SHARED[number] % 3 for row, (*_, number) in zip(rows, found, strict=True))
    assert rows[0]["sources.NUMBER"].dtype == np.int64


def test_a_catalogue_on_any_side_with_units_and_missing_values(sides):
    stream = skyset.crossmatch(sides / "hours.csv", sides / "stamps", radius=RADIUS, ra="RAhour:hour", dec="Dec")
    rows = list(stream)
    assert len(rows) == len(SHARED)
    for row in rows:
        number = int(row["stamps.object_id"][6:])
        assert row["hours.name"] == f"o{number}" and np.array_equal(row["stamps.image"], IMAGES[number])
    assert {int(row["hours.count"]) for row in rows if row["hours.name"] == "o0"} == {-1, 0}, "a missing integer is -1"
    both = skyset.crossmatch(
        sides / "sources.parquet", sides / "hours.csv", radius=0.01, ra=("", "RAhour:hour"), dec=("", "Dec")
    )
    assert len(list(both)) == len(SHARED)


def test_columns_of_any_name(sides, tmp_path, capsys):
    rows = {name: sky()[axis] for axis, name in enumerate(("ra", "dec"))}
    metals = np.arange(len(rows["ra"])) / 2
    more = {"[Fe/H]": metals, "B-V": metals, "\u03b1": metals, "..": metals, "": metals}
    parquet.write_table(pa.table({**rows, **more}), tmp_path / "mine.parquet")
    found = skyset.crossmatch(sides / "stamps", tmp_path / "mine.parquet", radius=np.int64(1), how="nearest")
    assert sorted(float(row["mine.[Fe_H]"]) for row in found) == sorted(metals), "each is nearest to itself"
    assert [n for n in found.features if n.startswith("mine.")] == [
        f"mine.{name}" for name in ("ra", "dec", "[Fe_H]", "B-V", "_", "__", "___")
    ]
    assert "'[Fe/H]' as [Fe_H]" in capsys.readouterr().out


def test_columns_that_are_not_selected_are_not_read(stream, monkeypatch):
    from skyset.partitions.byte_ranges import LocalFile

    read = []
    whole = LocalFile.read
    monkeypatch.setattr(LocalFile, "read", lambda self, parts: read.extend(p[1].nbytes for p in parts) or whole(self, parts))
    assert len(list(stream.select_columns(["stamps.mag", "masked.object_id"]))) == len(stream)
    assert max(read) < 1000
    read.clear()
    pixels = list(stream.select_columns(["stamps.image"]))
    ideal = len({row["stamps.image"].tobytes() for row in pixels}) * IMAGES[0].nbytes
    assert ideal <= sum(read) <= 1.2 * ideal, "an image that two objects match is read once"


def test_encoded_images_come_decoded(rings, tmp_path):
    rows = list(skyset.load(str(rings)))
    table = pa.table({name: [row[name] for row in rows[::2]] for name in ("object_id", "ra", "dec")})
    parquet.write_table(table, tmp_path / "half.parquet")
    found = list(skyset.crossmatch(tmp_path / "half.parquet", rings, radius=1))
    images = {row["object_id"]: row["image"] for row in rows}
    assert len(found) == len(rows) // 2 == 17
    assert all(np.array_equal(row["gz_decals.image"], images[row["half.object_id"]]) for row in found)
    left = skyset.crossmatch(rings, tmp_path / "half.parquet", radius=1, how="left", on_bad_partition="skip")
    assert [row["half.object_id"] is None for row in left].count(True) == 40 - 17, "of all splits"
    only = skyset.crossmatch(rings, tmp_path / "half.parquet", radius=1, how="left", split="test")
    assert len(only) == 4 and str(only.split) == "test"
    swapped = skyset.crossmatch(tmp_path / "half.parquet", rings, radius=1, how="left", on_bad_partition="skip")
    for stream in (swapped, swapped.shuffle(seed=1)):
        assert {row["gz_decals.image"].shape for row in stream} == {(16, 16, 3)}
    assert stream.skipped == {}


def test_unmatched_images_are_none_and_not_bad(rings, tmp_path):
    rows = list(skyset.load(str(rings)))
    ra = [row["ra"] for row in rows[:5]] + [200.0]
    parquet.write_table(pa.table({"ra": ra, "dec": [row["dec"] for row in rows[:5]] + [-80.0]}), tmp_path / "some.parquet")
    stream = skyset.crossmatch(tmp_path / "some.parquet", rings, radius=1, how="left", on_bad_partition="skip")
    assert [row["gz_decals.image"] is None for row in stream] == [False] * 5 + [True]
    assert stream.skipped == {}


def test_what_is_asked_for_wrongly_is_one_line(sides, tmp_path):
    def refused(*args, **options):
        with pytest.raises(UserError) as error:
            skyset.crossmatch(*args, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    a, b = sides / "stamps", sides / "masked"
    assert "how must be 'inner', 'left', 'nearest'" in refused(a, b, how="outer")
    for radius in (0, -1, float("nan"), 3601, "1"):
        assert "it must be above 0, up to 3600" in refused(a, b, radius=radius)
    assert "names=('a', 'b')" in refused(a, a)
    assert "cannot be a side's name" in refused(a, b, names=("x.y", "z"))
    assert "2 surveys and 1 names" in refused(a, b, names=("x",))
    assert "no manifest.json" in refused(a, tmp_path / "nothing")
    assert "no such file" in refused(a, tmp_path / "nothing.csv").lower()
    (tmp_path / "none.csv").write_text("name,flux\na,1\n")
    assert "which columns are the positions" in refused(a, tmp_path / "none.csv")
    (tmp_path / "far.csv").write_text("ra,dec\n100,-50\n")
    assert "no object of stamps lies within 1 arcsec of one of far" in refused(a, tmp_path / "far.csv")
    assert "has no rows of split 'test'" in refused(a, b, split="test")
    assert "has no column ra:mile" in refused(a, tmp_path / "far.csv", ra="ra:mile", dec="dec")
    assert len(list(skyset.crossmatch(a, a, names=("one", "two"), radius=0.001))) >= OBJECTS


def test_a_file_that_was_changed_since_is_named(tmp_path):
    survey = declared("changing", Column("value", "int32"))
    for name in ("one", "two"):
        write_survey(tmp_path / name, survey, [10, 11], [5, 5], value=np.arange(2))
    stream = skyset.crossmatch(tmp_path / "one", tmp_path / "two", names=("a", "b"), radius=1)
    write_survey(tmp_path / "two", survey, [10, 11], [5, 5.1], value=np.arange(2))
    with pytest.raises(PartitionError, match="was changed since the surveys were matched"):
        list(stream)


def test_proper_motions_are_followed_to_the_other_epoch(sides, tmp_path):
    ra, dec = sky()
    dec[3:5] = 3, 4  # at poles a motion is another one at its end, measured along another meridian
    stamps = write_survey(tmp_path / "stamps", STAMPS, ra, dec, image=IMAGES, mag=np.arange(OBJECTS, dtype=np.float32))
    later = {"pmra": np.full(OBJECTS, 1000.0), "pmdec": np.full(OBJECTS, -500.0)}
    then = moved(ra, dec, *later.values(), 16.0)
    parquet.write_table(pa.table({"ra": then[0], "dec": then[1], **later}), tmp_path / "stars.parquet")
    columns = [Column(name, "float64", (), "mas/yr") for name in later]
    survey = declared("stars", *columns, Column("ref_epoch", "float64", (), "yr"))
    write_survey(tmp_path / "stars", survey, *then, 4, ref_epoch=np.full(OBJECTS, 2016.0), **later)
    with pytest.raises(UserError, match="no object of stars"):
        skyset.crossmatch(tmp_path / "stars", stamps, radius=1)
    found = list(skyset.crossmatch(tmp_path / "stars", stamps, radius=0.01, pm=True))
    assert sorted(row["stars.object_id"][5:] for row in found) == sorted(map(str, range(OBJECTS)))
    options = {"radius": 0.01, "pm": True, "epochs": (2016.0, None)}
    assert len(list(skyset.crossmatch(tmp_path / "stars.parquet", stamps, **options))) == OBJECTS
    with pytest.raises(UserError, match="none of the catalogues has proper motions"):
        skyset.crossmatch(sides / "stamps", sides / "masked", pm=True)
