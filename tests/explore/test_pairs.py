"""No pair is lost or invented, wherever on the sky and however many; keys match exactly; tables keep ids and units."""

import gzip
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from typer.testing import CliRunner

import skyset
from skyset.cli import app
from skyset.errors import UserError
from skyset.explore.catalogue import catalogue_of
from skyset.explore.pairs import pairs_table
from skyset.explore.pairs_file import write_pairs
from skyset.loaders.crossmatch import SURVEY
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.tables import match
from skyset.tables.match import Pairs, match_keys, match_positions, nearest, separation_arcsec
from skyset.tables.open import open_catalog

NONE = np.zeros(0)
#: Where methods of matching lose pairs: poles, RA = 0, the equator, corners of HEALPix base cells (with seven neighbours).
CORNERS = [
    (0.0, 0.0),
    (123.0, 90.0),
    (0.0, -90.0),
    (0.0, 41.8103148957786),
    (45.0, 0.0),
    (90.0, 66.44353569089876),
    (359.9999999, 89.9),
    (180.0, -89.9999),
    (10.0, 20.0),
]
RADII = [0.01, 1.0, 30.0, 600.0, 3600.0]


def vincenty(ra1, dec1, ra2, dec2):
    """Separation in arcsec by another formula than ours, accurate at all separations."""
    a, b, difference = np.radians(dec1), np.radians(dec2), np.radians(np.subtract(ra1, ra2))
    across = np.cos(b) * np.sin(difference)
    along = np.cos(a) * np.sin(b) - np.sin(a) * np.cos(b) * np.cos(difference)
    cosine = np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(difference)
    return np.degrees(np.arctan2(np.hypot(across, along), cosine)) * 3600


def offset(ra, dec, distance_deg, angle):
    """The position at a distance in a direction, by rotation; ra in 0..360."""
    a, d = np.radians(dec), np.radians(distance_deg)
    sine = np.sin(a) * np.cos(d) + np.cos(a) * np.sin(d) * np.cos(angle)
    step = np.arctan2(np.sin(angle) * np.sin(d) * np.cos(a), np.cos(d) - np.sin(a) * sine)
    return np.mod(ra + np.degrees(step), 360), np.degrees(np.arcsin(np.clip(sine, -1, 1)))


def cluster(rng, ra, dec, radius_deg, count):
    """Objects around a place, with every distance up to some radii; a few at the very place and opposite it."""
    place = offset(ra, dec, 4 * radius_deg * rng.random(count) ** 2, 2 * np.pi * rng.random(count))
    return tuple(np.concatenate([x, extra]) for x, extra in zip(place, ([ra, ra + 180, ra], [dec, -dec, dec]), strict=True))


def check_against_all(left, right, radius):
    """Every pair is compared. Whether one at the very edge is within is for the answer's own separations to say."""
    pairs = match_positions(*left, *right, radius)
    apart = vincenty(left[0][:, None], left[1][:, None], right[0][None], right[1][None])
    found = np.zeros(apart.shape, int)
    np.add.at(found, (pairs.left, pairs.right), 1)
    blur = 1e-9 + 1e-9 * radius
    assert found.max(initial=0) <= 1
    assert found[apart < radius - blur].all()
    assert not found[apart > radius + blur].any()
    assert np.all(pairs.separation <= radius)
    np.testing.assert_allclose(pairs.separation, apart[pairs.left, pairs.right], rtol=1e-9, atol=1e-8)
    assert np.array_equal(np.lexsort((pairs.right, pairs.separation, pairs.left)), np.arange(len(pairs)))
    assert (pairs.left.dtype, pairs.right.dtype, pairs.separation.dtype) == (np.int64, np.int64, np.float64)
    return pairs


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    centre=st.one_of(st.sampled_from(CORNERS), st.tuples(st.floats(0, 360), st.floats(-90, 90))),
    radius=st.one_of(st.sampled_from(RADII), st.floats(0.001, 90 * 3600.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_against_every_pair(centre, radius, seed):
    rng = np.random.default_rng(seed)
    left, right = (cluster(rng, *centre, min(radius / 3600, 40), 60) for _ in range(2))
    left = left[0] + rng.choice([0, 360, -360], len(left[0])) * (radius > 1), left[1]
    pairs = check_against_all(left, right, radius)
    assert len(pairs) >= 4  # the centres


@pytest.mark.parametrize("order", [0, 4, 9])
@pytest.mark.parametrize("radius", [0.05, 5.0])
def test_borders_and_corners_of_healpix_cells(order, radius):
    from astropy_healpix import HEALPix

    healpix = HEALPix(2**order, "nested")
    rng = np.random.default_rng(order)
    cells = np.append(rng.integers(0, healpix.npix, 20), [0, healpix.npix - 1])
    lon, lat = (x.deg.ravel() for x in healpix.boundaries_lonlat(cells, 2))  # corners and middles of the sides
    sides = [offset(lon, lat, radius / 3600 * rng.random(len(lon)), 7 * rng.random(len(lon))) for _ in range(2)]
    check_against_all(*sides, radius)


def test_the_whole_sky_against_every_pair():
    rng = np.random.default_rng(1)
    left, right = ((rng.uniform(0, 360, 1500), np.degrees(np.arcsin(rng.uniform(-1, 1, 1500)))) for _ in range(2))
    for radius in (60.0, 3600.0, 20 * 3600.0):
        check_against_all(left, right, radius)


@pytest.mark.parametrize("dec", [0.0, -30.0, 89.999999, -90.0])
def test_edge_of_the_radius_is_within(dec):
    """Whatever a pair's separation is said to be: this radius finds it, the next smaller number does not."""
    rng = np.random.default_rng(3)
    place = np.array([359.99999]), np.array([dec])
    around = offset(*place, rng.uniform(0, 1e-3, 200), 2 * np.pi * rng.random(200))
    wide = match_positions(*place, *around, 4.0)
    assert len(wide) == 200
    for radius in wide.separation:
        assert np.isclose(match_positions(*place, *around, radius).separation[-1], radius, rtol=0, atol=0)
        below = match_positions(*place, *around, np.nextafter(radius, 0))
        assert len(below) == np.count_nonzero(wide.separation < radius)


def test_right_ascensions_are_taken_modulo_360():
    turns = np.array([-1e-20, 360.0, 0.0, -360.0, 720.0, -1e-5, 359.99999])
    pairs = match_positions(turns, np.zeros(7), turns, np.zeros(7), 0.1)
    assert len(pairs) == 7 * 7
    assert pairs.separation.max() == pytest.approx(0.036)


def test_radius_zero_finds_the_same_position():
    pairs = match_positions([0.0, 10, 20], [5.0, 5, 90], [360.0, 10, 10, 77], [5.0, 5, 5, 90], 0)
    assert pairs.left.tolist() == [0, 1, 1]  # RA 20 and RA 77 at the pole are some 1e-14 arcsec apart
    assert pairs.right.tolist() == [0, 1, 2]
    assert not pairs.separation.any()


def test_separations_keep_their_accuracy_when_small():
    """1e-6 arcsec apart, where the cosine of the angle is 1 to all digits."""
    step = 2.0**-32  # degrees, exact
    np.testing.assert_allclose(
        separation_arcsec([0, 10, 0], [0, 0, 60], [step, 10, 360 - step], [0, step, 60]),
        np.array([1, 1, 0.5]) * step * 3600,
        rtol=1e-12,
    )
    assert separation_arcsec(0, 90, 55, -90) == pytest.approx(180 * 3600)


def test_against_astropy():
    pytest.importorskip("scipy")
    from astropy import units
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(5)
    left = rng.uniform(359.5, 360.5, 3000) % 360, rng.uniform(-0.5, 0.5, 3000)
    right = left[0] + rng.normal(0, 2e-4, 3000), left[1] + rng.normal(0, 2e-4, 3000)
    pairs = match_positions(*left, *right, 1.5)
    theirs = SkyCoord(*left, unit="deg").search_around_sky(SkyCoord(*right, unit="deg"), 1.5 * units.arcsec)
    order = np.lexsort((theirs[2].arcsec, theirs[1]))
    assert np.array_equal(pairs.left, theirs[1][order])
    assert np.array_equal(pairs.right, theirs[0][order])
    np.testing.assert_allclose(pairs.separation, theirs[2].arcsec[order], atol=1e-7)


def test_duplicates_give_all_pairs_and_the_first_is_nearest():
    pairs = match_positions([1.0, 1.0], [2.0, 2.0], [1.0, 5.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], 1)
    assert pairs.left.tolist() == [0, 0, 0, 1, 1, 1]
    assert pairs.right.tolist() == [0, 2, 3, 0, 2, 3]
    assert nearest(pairs).right.tolist() == [0, 0]
    mutual = nearest(pairs, one_to_one=True)
    assert (mutual.left.tolist(), mutual.right.tolist()) == ([0], [0])


@pytest.mark.parametrize("left, right", [((NONE,) * 2, ([1.0], [2.0])), (([1.0], [2.0]), (NONE,) * 2), ((NONE,) * 2,) * 2])
def test_nothing_on_a_side(left, right):
    for pairs in (match_positions(*left, *right, 1), nearest(match_positions(*left, *right, 1), one_to_one=True)):
        assert len(pairs) == 0
        assert (pairs.left.dtype, pairs.right.dtype, pairs.separation.dtype) == (np.int64, np.int64, np.float64)


@pytest.mark.parametrize(
    "ra, dec, radius, message",
    [
        ([1.0, np.nan, 2], [1.0, 1, np.inf], 1, "2 of 3 positions of the left catalogue are missing"),
        (np.ma.masked_array([1.0, 2], [False, True]), [1.0, 1], 1, "1 of 2 positions of the left catalogue are missing"),
        ([1.0, 2], [90.0, 90.1], 1, "1 of 2 positions of the left catalogue are not on the sky"),
        ([1.0], [1.0], -1, "radius is -1"),
        ([1.0], [1.0], np.nan, "radius is nan"),
        ([1.0], [1.0], 90 * 3600 + 1, "radius is 324001"),
    ],
)
def test_positions_that_cannot_be_matched(ra, dec, radius, message):
    with pytest.raises(UserError, match=message):
        match_positions(ra, dec, [1.0], [1.0], radius)


def test_positions_of_different_lengths():
    with pytest.raises(ValueError, match="left ra has shape"):
        match_positions([1.0, 2.0], [1.0], [1.0], [1.0], 1)


def test_dense_clump_is_counted_before_it_fills_the_memory():
    rng = np.random.default_rng(0)
    clump = rng.normal(10, 1e-6, 10_000), rng.normal(20, 1e-6, 10_000)
    tracemalloc.start()
    with pytest.raises(UserError, match="more than 2,000,000 pairs within 1 arcsec"):
        match_positions(*clump, *clump, 1, max_pairs=2_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # 100 million pairs are 2.4 GB


def test_pairs_are_allowed_up_to_the_maximum():
    clump = np.full(100, 10.0), np.linspace(20, 20.0001, 100)
    assert len(match_positions(*clump, *clump, 1, max_pairs=10_000)) == 10_000
    pairs = match_positions(*clump, *clump, 0, max_pairs=100)  # more candidates than pairs
    assert pairs.left.tolist() == pairs.right.tolist() == list(range(100))
    with pytest.raises(UserError, match="more than 99 pairs"):
        match_positions(*clump, *clump, 0, max_pairs=99)


def test_pieces_do_not_show(monkeypatch):
    rng = np.random.default_rng(8)
    left, right = ((rng.normal(0, 1e-3, 300) % 360, rng.normal(0, 1e-3, 300)) for _ in range(2))
    whole = match_positions(*left, *right, 3)
    for size in (1, 7, 1000):
        monkeypatch.setattr(match, "_CHUNK", size)
        pieces = match_positions(*left, *right, 3)
        for name in ("left", "right", "separation"):
            assert np.array_equal(getattr(whole, name), getattr(pieces, name))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), unique_by=lambda pair: pair[:2]))
@example([])
def test_nearest_against_a_loop(triples):
    triples.sort(key=lambda t: (t[0], t[2], t[1]))
    columns = np.array(triples, np.int64).reshape(-1, 3).T
    pairs = Pairs(columns[0], columns[1], columns[2].astype(float))
    by_left, by_right = {}, {}
    for left, right, apart in sorted(triples, key=lambda t: (t[2], t[0], t[1])):
        by_left.setdefault(left, (apart, right))
        by_right.setdefault(right, (apart, left))
    expected = {left: min((a, r) for lft, r, a in triples if lft == left)[1] for left in by_left}
    found = nearest(pairs)
    assert dict(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected
    mutual = nearest(pairs, one_to_one=True)
    back = {right: left for right, (_, left) in by_right.items()}
    wanted = [(left, right) for left, right in expected.items() if back[right] == left]
    assert list(zip(mutual.left.tolist(), mutual.right.tolist(), strict=True)) == sorted(wanted)


# --- Keys -----------------------------------------------------------------------------------------

NAMES = st.lists(st.one_of(st.none(), st.sampled_from(["", " ", "a", "A", "a ", "b", "\u00fc", "J0004+02"])), max_size=12)


def combinations(left, right, usable):
    return [(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if usable(a) and a == b]


def as_list(pairs):
    assert pairs.separation is None
    assert pairs.left.dtype == pairs.right.dtype == np.int64
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(NAMES, NAMES)
def test_text_keys_against_a_loop(left, right):
    expected = combinations(left, right, lambda key: key is not None and key.strip())
    forms = [
        list,
        lambda k: pa.array(k, pa.string()),
        lambda k: pa.chunked_array([pa.array(k, pa.large_string())]),
        lambda k: pa.array(k, pa.string()).dictionary_encode(),
        lambda k: np.array(k, object),
    ]
    for form in forms:
        assert as_list(match_keys(form(left), forms[0](right))) == expected
    plain = [["" if key is None else key for key in side] for side in (left, right)]
    encoded = np.array([key.encode() for key in plain[1]], "S12")
    assert as_list(match_keys(np.array(plain[0], "U12"), encoded)) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(*[st.lists(st.one_of(st.none(), st.sampled_from([0, -1, 2**62, 2**62 + 1, 587722984435351614]))) for _ in "ab"])
def test_integer_keys_against_a_loop(left, right):
    expected = combinations(left, right, lambda key: key is not None)
    sides = [pa.array(side, pa.int64()) for side in (left, right)]
    assert as_list(match_keys(*sides)) == expected
    masked = np.ma.masked_array([0 if k is None else k for k in left], [k is None for k in left], dtype=np.int64)
    assert as_list(match_keys(masked, sides[1])) == expected
    assert as_list(match_keys(sides[0].cast(pa.string()), sides[1])) == expected


def test_integers_of_other_widths_and_byte_orders():
    fits = np.array([587722984435351614, 7], ">i8")
    assert as_list(match_keys(fits, np.array([7, 587722984435351614], np.uint64))) == [(0, 1), (1, 0)]
    assert as_list(match_keys(fits, np.array(["007", "7"]))) == [(1, 1)]


@pytest.mark.parametrize(
    "keys, message",
    [
        (np.array([5.87e17]), "left catalogue are double.*64-bit identifiers"),
        ([True], "left catalogue are bool, neither text nor integers"),
        (np.array([2**64 - 1], np.uint64), "cannot be compared"),
        (np.array([b"\xff"]), "cannot be compared"),
    ],
)
def test_keys_that_cannot_be_compared(keys, message):
    with pytest.raises(UserError, match=message):
        match_keys(keys, np.array([1]))


def test_too_many_equal_keys():
    many = np.full(100_000, 5)
    with pytest.raises(UserError, match="more than 200,000,000 pairs of equal keys"):
        match_keys(many, many)


def test_key_pairs_have_no_nearest():
    with pytest.raises(UserError, match="no separations"):
        nearest(match_keys(["a"], ["a"]))


# --- Catalogues and tables ------------------------------------------------------------------------


def catalogue(ids, ra, dec, **more):
    units = {"ra": {"unit": "deg"}, "dec": {"unit": "deg"}}
    table = pa.table({"object_id": ids, "ra": ra, "dec": dec, **more})
    return table.cast(pa.schema([field.with_metadata(units.get(field.name)) for field in table.schema]))


def test_catalogue_of_partitions(built):
    table, manifest = catalogue_of(built, ["healpix"]), Manifest.load(built)
    assert table.schema.names == ["object_id", "ra", "dec", "healpix"]
    assert table.num_rows == manifest.rows > 0
    assert [table.schema.field(name).metadata for name in ("ra", "dec")] == [{b"unit": b"deg"}] * 2
    assert table["healpix"].to_pylist() == [entry.healpix for entry in manifest.files for _ in range(entry.rows)]
    itself = match_positions(table["ra"], table["dec"], table["ra"], table["dec"], 0)
    assert set(zip(itself.left.tolist(), itself.right.tolist(), strict=True)) >= {(i, i) for i in range(len(table))}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"columns": ["no_such"]}, "no column no_such"),
        ({"object_id": "Object_id"}, "did you mean object_id"),
        ({"columns": ["false_color"]}, "has no one value a row"),
        ({"object_id": "healpix", "columns": ["object_id"]}, "another column"),
    ],
)
def test_columns_that_partitions_do_not_have(built, arguments, message):
    with pytest.raises(UserError, match=message):
        catalogue_of(built, **arguments)


def test_damaged_partitions(built, tmp_path):
    (tmp_path / "manifest.json").write_bytes((built / "manifest.json").read_bytes())
    with pytest.raises(UserError, match="no such file"):
        catalogue_of(tmp_path)
    with pytest.raises(UserError, match="no manifest"):
        catalogue_of(tmp_path / "nowhere")


def test_catalogue_of_files(tmp_path):
    from astropy.table import Table

    rows = {"iauname": ["J1", "J2"], "RA": [1.5, 2.5], "DEC": np.array([-3, 4], np.int16), "redshift": [0.1, np.nan]}
    Table(rows, units={"RA": "deg"}).write(tmp_path / "a.fits")
    parquet.write_table(pa.table(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("iauname,RA,DEC,redshift\nJ1,1.5,-3,0.1\nJ2,2.5,4,nan\n")
    for kind in ("fits", "parquet", "csv"):
        table = catalogue_of(tmp_path / f"a.{kind}", ["redshift"], object_id="iauname", ra="RA", dec="DEC")
        assert table.schema.names == ["object_id", "ra", "dec", "redshift"]
        assert table.schema.field("dec") == pa.field("dec", pa.float64())
        assert table.select(range(3)).to_pydict() == {"object_id": ["J1", "J2"], "ra": [1.5, 2.5], "dec": [-3.0, 4.0]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("object_id,ra,dec\n5.87722984435352E+17,1,2\n", "a.csv: column object_id.*identifiers that went through"),
        ("object_id,ra,dec\n1,12:30:00,2\n", "ra is text, 12:30:00; positions in decimal degrees"),
        ("object_id,ra\n1,12\n", "no column dec"),
    ],
)
def test_files_without_positions(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        catalogue_of(tmp_path / "a.csv")


def test_positions_in_hours_and_radians_are_turned_into_degrees(tmp_path):
    from astropy.table import Table

    Table({"object_id": [1], "ra": [1.5], "dec": [np.pi / 6]}, units={"ra": "hour", "dec": "rad"}).write(tmp_path / "a.fits")
    table = catalogue_of(tmp_path / "a.fits")
    assert (table["ra"][0].as_py(), table["dec"][0].as_py()) == (22.5, pytest.approx(30))
    assert table.schema.field("ra").metadata == {b"unit": b"deg"}
    Table({"object_id": [1], "ra": [1.5], "dec": [3.0]}, units={"ra": "mag"}).write(tmp_path / "b.fits")
    with pytest.raises(UserError, match="ra is in mag; deg, hour and rad are known"):
        catalogue_of(tmp_path / "b.fits")


def test_table_of_pairs(tmp_path):
    left = catalogue(["a", "b", "c"], [10.0, 20.0, 30.0], [0.0, 0.0, 0.0], votes=[1, 2, 3])
    right = catalogue(pa.array([2**60 + 1, 5], pa.int64()), [20.0, 10.0], [1 / 7200, 0.0])
    pairs = match_positions(left["ra"], left["dec"], right["ra"], right["dec"], 1)
    table = pairs_table(pairs, left, right, ("_gz", "_sdss"))
    assert table.to_pylist()[1] == {
        "object_id_gz": "b",
        "ra_gz": 20.0,
        "dec_gz": 0.0,
        "votes_gz": 2,
        "object_id_sdss": 2**60 + 1,
        "ra_sdss": 20.0,
        "dec_sdss": 1 / 7200,
        "separation_arcsec": pytest.approx(0.5),
    }
    units = {field.name: field.metadata[b"unit"] for field in table.schema if field.metadata}
    degrees = dict.fromkeys(("ra_gz", "dec_gz", "ra_sdss", "dec_sdss"), b"deg")
    assert units == {**degrees, "separation_arcsec": b"arcsec"}

    write_pairs(table, tmp_path / "new" / "pairs.parquet")
    assert parquet.read_table(tmp_path / "new" / "pairs.parquet").equals(table, check_metadata=True)
    write_pairs(table, tmp_path / "pairs.csv.gz")
    lines = gzip.decompress((tmp_path / "pairs.csv.gz").read_bytes()).decode().splitlines()
    assert lines[0] == ",".join(table.schema.names)
    assert lines[1].startswith("a,10.0,0.0,1,5,10.0,0.0,0.0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "pairs.csv.gz"]  # nothing temporary is left


def test_pairs_by_key_get_their_separations():
    left, right = catalogue(["a", "b"], [1.0, 2.0], [0.0, None]), catalogue(["b", "a"], [2.0, 1.0], [0.0, 1.0])
    table = pairs_table(match_keys(left["object_id"], right["object_id"]), left, right)
    assert table["object_id_right"].to_pylist() == ["a", "b"]
    np.testing.assert_allclose(table["separation_arcsec"], [3600, np.nan])


def test_table_of_no_pairs(tmp_path):
    table = catalogue(["a"], [1.0], [0.0])
    empty = pairs_table(match_positions([1.0], [0.0], [5.0], [0.0], 1), table, table)
    write_pairs(empty, tmp_path / "none.parquet")
    assert parquet.read_table(tmp_path / "none.parquet").schema.equals(empty.schema)
    assert empty.num_rows == 0


def test_tables_that_cannot_be_made(tmp_path):
    table = catalogue(["a"], [1.0], [0.0])
    pairs = match_keys(["a"], ["a"])
    with pytest.raises(UserError, match="two columns would be called dec, object_id, ra"):
        pairs_table(pairs, table, table, ("", ""))
    for name in ("pairs.fit", "pairs.gz", "pairs.txt.gz"):
        with pytest.raises(UserError, match=r"written as \.parquet, \.csv, \.csv\.gz, \.fits, \.vot"):
            write_pairs(pairs_table(pairs, table, table), tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_pairs(pairs_table(pairs, table, table), tmp_path / "file" / "pairs.csv.gz")


# --- the command ------------------------------------------------------------------------------------------


def skyset_crossmatch(*arguments):
    return CliRunner().invoke(app, ["crossmatch", *map(str, arguments)])


def test_the_command_matches_folders_and_files(built_sdss, tmp_path):
    catalog = built_sdss / "ZooSpecPhotoDR19_filtered.csv.gz"
    done = skyset_crossmatch(built_sdss, catalog, "--ids", "object_id=objid", "-o", tmp_path / "pairs.parquet")
    assert done.exit_code == 0 and "72 pairs of 72 and 72 objects" in done.output
    table = parquet.read_table(tmp_path / "pairs.parquet")
    assert table["object_id_left"].to_pylist() == [str(n) for n in table["object_id_right"].to_pylist()]
    assert max(table["separation_arcsec"].to_pylist()) < 1e-6
    done = skyset_crossmatch(
        built_sdss, catalog, "--key", "dr7objid", "--ids", "object_id=objid", "-o", tmp_path / "k.csv.gz"
    )
    assert done.exit_code == 0 and "72 pairs of 72 and 72 objects" in done.output
    assert pd.read_csv(tmp_path / "k.csv.gz")["separation_arcsec"].max() < 1e-6


def test_names_match_where_a_file_has_no_positions(built_sdss, tmp_path):
    names = pd.read_csv(built_sdss / "ZooSpecPhotoDR19_filtered.csv.gz")["objid"][:7]
    pd.DataFrame({"id_str": names.astype(str)}).to_csv(tmp_path / "features.csv", index=False)
    arguments = ("--key", "object_id=id_str", "--ids", "object_id=id_str", "-o", tmp_path / "k.csv.gz")
    assert "7 pairs of 72 and 7 objects" in skyset_crossmatch(built_sdss, tmp_path / "features.csv", *arguments).output
    assert len(pd.read_csv(tmp_path / "k.csv.gz")) == 7
    done = skyset_crossmatch(built_sdss, tmp_path / "features.csv", "--ids", "object_id=id_str", "-o", tmp_path / "p.csv.gz")
    assert done.exit_code == 2 and "the positions? --ra COLUMN --dec COLUMN (there are: id_str)" in done.output


def test_a_key_that_one_side_lacks_is_an_error(built_sdss, tmp_path):
    names = pd.read_csv(built_sdss / "ZooSpecPhotoDR19_filtered.csv.gz")["objid"][:7].astype(str)
    pd.DataFrame({"iauname": names, "n": 1}).to_csv(tmp_path / "features.csv", index=False)
    for key, lacking in (("iauname", built_sdss), ("object_id", tmp_path / "features.csv")):
        done = skyset_crossmatch(built_sdss, tmp_path / "features.csv", "--key", key, "-o", tmp_path / "k.csv.gz")
        assert done.exit_code == 2 and f"{lacking} has no column {key}" in done.output
    arguments = ("--key", "object_id=iauname", "-o", tmp_path / "k.csv.gz")
    assert "7 pairs of 72 and 7 objects" in skyset_crossmatch(built_sdss, tmp_path / "features.csv", *arguments).output


@pytest.mark.parametrize(
    "names",
    [
        ("ra", "dec"),
        ("RA", "DEC"),
        ("RAJ2000", "DEJ2000"),
        ("ALPHA_J2000", "DELTA_J2000"),
        ("ALPHAWIN_J2000", "DELTAWIN_J2000"),
        ("RA_ICRS", "DE_ICRS"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "fits", "vot", "parquet"])
def test_usual_names_of_positions_need_not_be_said(names, ending, tmp_path):
    ours = catalogue(["a", "b"], [10.0, 11.0], [1.0, 2.0])
    write_pairs(ours, tmp_path / "ours.parquet")
    theirs = ours.rename_columns(["NUMBER" if ending != "csv" else "name", *names])
    write_pairs(theirs, tmp_path / f"theirs.{ending}")
    done = skyset_crossmatch(tmp_path / "ours.parquet", tmp_path / f"theirs.{ending}", "-o", tmp_path / "p.csv")
    assert done.exit_code == 0 and "2 pairs of 2 and 2 objects" in done.output, done.output
    pairs = pd.read_csv(tmp_path / "p.csv")
    assert pairs["object_id_right"].tolist() == ["a", "b"] and pairs["separation_arcsec"].max() < 1e-6


def test_positions_under_any_name_and_columns_on_request(tmp_path):
    (tmp_path / "a.csv").write_text("id,lon,lat,mag\na,10.0,1.0,20.5\nb,11.0,2.0,\n")
    (tmp_path / "b.csv").write_text("objid, RA, Dec, mag, z\n7, 10.0, 1.0, 20.25, 0.5\n8, 11.0, 2.0, 21.0, 0.25\n")
    arguments = [tmp_path / "a.csv", tmp_path / "b.csv", "--ra", "lon=RA", "--dec", "lat=Dec"]
    for ending in ("csv", "csv.gz", "parquet", "fits", "vot"):
        done = skyset_crossmatch(*arguments, "--columns", "mag,z", "-o", tmp_path / f"pairs.{ending}")
        assert done.exit_code == 0, done.output
        table = open_catalog(tmp_path / f"pairs.{ending}").table()
        assert table.schema.names == [
            "object_id_left",
            "ra_left",
            "dec_left",
            "mag_left",
            "object_id_right",
            "ra_right",
            "dec_right",
            "mag_right",
            "z_right",
            "separation_arcsec",
        ]
        rows = table.to_pydict()
        assert (rows["object_id_left"], rows["object_id_right"]) == (["a", "b"], [7, 8])
        assert (rows["mag_left"][0] == 20.5 and rows["mag_left"][1] in (None,)) or np.isnan(rows["mag_left"][1])
        assert (rows["mag_right"], rows["z_right"]) == ([20.25, 21.0], [0.5, 0.25])
        if ending in ("parquet", "fits", "vot"):
            assert table.schema.field("ra_left").metadata[b"unit"] == b"deg"
    for wrong, words in (
        (["--columns", "zz"], "has a column zz"),
        (["--ra", "lon"], "b.csv has no column lon"),
        (["--ids", "nobody"], "a.csv has no column nobody"),
    ):
        done = skyset_crossmatch(*arguments, *wrong, "-o", tmp_path / "w.csv")
        assert done.exit_code == 2 and words in done.output, done.output
        assert not (tmp_path / "w.csv").exists()


def test_where_the_pairs_go_is_looked_at_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for output, words in (("pairs.txt", "pairs are written as"), ("file/pairs.csv", "cannot write"), (".", "pairs are")):
        done = skyset_crossmatch("no such catalogue.csv", "nor this.csv", "-o", tmp_path / output)
        assert done.exit_code == 2 and words in done.output and "no such" not in done.output


def test_a_catalogue_without_rows_or_without_positions(tmp_path):
    write_pairs(catalogue(["a"], [10.0], [1.0]), tmp_path / "full.csv")
    for row, said in (("", "0 pairs of 1 and 0 objects"), ("b,,\n", "1 objects without")):
        (tmp_path / "none.csv").write_text(f"object_id,ra,dec\n{row}")
        done = skyset_crossmatch(tmp_path / "full.csv", tmp_path / "none.csv", "-o", tmp_path / "p.parquet")
        assert done.exit_code == 0 and said in done.output, done.output
        assert parquet.read_table(tmp_path / "p.parquet").num_rows == 0


def test_pairs_as_partitions(built_sdss, tmp_path):
    root = tmp_path / "pairs"
    assert skyset_crossmatch(built_sdss, built_sdss, "--radius", 3600, "--partitions", root).exit_code == 0
    assert list(verify(root, SURVEY)) == []
    wanted = match_positions(*(np.array(catalogue_of(built_sdss)[name]) for name in ("ra", "dec", "ra", "dec")), 3600)
    rows = list(skyset.load("crossmatch", data_dir=str(root)))
    assert len(rows) == len(wanted) > 144
    for row in rows:
        assert row["pair"] == f"{row['object_id']}|{row['object_id_right']}"
        assert row["separation_arcsec"] <= 3600
    again = skyset_crossmatch(built_sdss, built_sdss, "--partitions", root)
    assert again.exit_code == 2 and "is not empty" in again.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "where to?"),
        (("-o", "pairs.txt"), "written as .parquet, .csv, .csv.gz, .fits, .vot"),
        (("-o", "p.parquet", "--best", "x"), "mutual"),
        (("-o", "p.parquet", "--radius", "-1"), "radius"),
        (("-o", "p.parquet", "--key", "nothing"), "no column nothing"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(built_sdss, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = skyset_crossmatch(built_sdss, built_sdss, *arguments)
    assert done.exit_code == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
