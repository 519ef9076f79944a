"""``skyset report``: the page says what is in the files, whatever somebody wrote into them, and is never long."""

import base64
import csv
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from skyset.cli import app
from skyset.cli.places import build_of
from skyset.explore.report import charts, pictures
from skyset.explore.report.command import look, page
from skyset.explore.report.compare import Comparison, column_changes, option_changes
from skyset.explore.report.sample import BLOCK, Build, blocks, take
from skyset.explore.report.statistics import bins_for, histogram, summarised
from skyset.files import file_sha256
from skyset.loading import registry
from skyset.partitions.manifest import FileEntry, Manifest, keys_digest
from skyset.partitions.writer import PartitionWriter
from skyset.publishing import plan, push
from skyset.publishing.request import Request
from skyset.survey import HEALPIX, Column
from skyset.testing.hub import HubServer
from skyset.testing.server import ArchiveServer
from tests.conftest import once
from tests.explore.pages import Page, check
from tests.hub import TOKEN, talking_to

EVIL = "<img src=x onerror=alert(1)>\"'&"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def skyset(*arguments):
    """Exit status, and all that was printed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def report_on(root, tmp_path, *options, status=0):
    """The page on a folder."""
    output = tmp_path / "report.html"
    got, said = skyset("report", root, "-o", output, *options)
    assert got == status, said
    return check(output.read_text())


COLUMNS = (
    Column("object_id", "S64", (), "", "name"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    HEALPIX,
    Column("mag", "float32", (), "mag", "a magnitude"),
    Column("number", "int32", (), "", "a number; -1 where there is none"),
    Column("kind", "S64", (), "", "a word"),
    Column("vector", "float32", (3,), "", "three values"),
    Column("png", "bytes", (), "", "bytes of any length"),
)


def rows_of(cell, count, seed=0):
    random = np.random.default_rng([cell, seed])
    for k in range(count):
        yield {
            "object_id": f"o{cell}-{k}".encode(),
            "ra": random.uniform(0, 360),
            "dec": random.uniform(-90, 90),
            "healpix": cell,
            "mag": np.float32(np.nan if k % 5 == 0 else random.normal(20, 2)),
            "number": -1 if k % 4 == 0 else int(random.integers(0, 9)),
            "kind": (b"", b"spiral", b"ring")[k % 3],
            "vector": random.normal(size=3).astype(np.float32),
            "png": bytes(k % 7),
        }


def write(root, cells, columns=COLUMNS, change=lambda row: row, rejected=0, **build):
    """Partitions of a survey that nobody declared, and their manifest; ``cells`` is rows by cell."""
    root.mkdir(exist_ok=True)
    files = []
    for cell, count in cells.items():
        path = f"healpix={cell}/001-of-001.hdf5"
        rows = [change(row) for row in rows_of(cell, count)]
        with PartitionWriter(root / path, columns, count) as writer:
            for row in rows:
                writer.append(row)
        ra, dec = ([float(row[name]) for row in rows] for name in ("ra", "dec"))
        keys = [row["object_id"].decode() for row in rows]
        size, digest = (root / path).stat().st_size, file_sha256(root / path)
        bounds = (min(ra), max(ra)), (min(dec), max(dec))
        files.append(FileEntry(path, "train", cell, count, size, digest, keys_digest(keys), *bounds))
    build = {"command": ["skyset", "build"], "versions": {"numpy": "2.0"}} | build
    Manifest("nobodys", list(columns), "object_id", files, build.pop("sources", ["here"]), build, rejected).save(root)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Fifty rows in three cells. Do not change it."""
    return once(tmp_path_factory, "report_plain", lambda folder: write(folder, {3: 20, 700: 20, 3071: 10}))


def stored(root, name):
    with_files = sorted(Path(root).glob("healpix=*/*.hdf5"))
    parts = []
    for path in with_files:
        with h5py.File(path) as file:
            parts.append(file[name][:])
    return np.concatenate(parts)


def drawn(page, name):
    """Edges and counts of a column's histogram."""
    (found,) = [a for a in page.attributes("svg") if a.get("aria-label", "").startswith(f"Histogram of {name}:")]
    low, high = map(float, found["data-edges"].split())
    return low, high, np.array(found["data-counts"].split(), int)


def test_a_surveys_page_has_its_pictures_and_the_files_own_values(built, tmp_path):
    page = report_on(built, tmp_path, "--images", "2")
    manifest = Manifest.load(built)
    assert len(page.attributes("img")) == 2
    table = {
        row[0]: dict(zip(["column", "dtype", "shape", "unit", "missing", "low", "median", "high"], row, strict=False))
        for row in page.rows("Columns on disk")[1:]
    }
    assert list(table) == [column.name for column in manifest.columns]
    for column in manifest.columns:
        row = table[column.name]
        assert (row["dtype"], row["unit"]) == (column.dtype, column.unit)
        if column.dtype.startswith(("float", "int")):
            values = stored(built, column.name).astype(float)
            found = [float(row[name]) for name in ("low", "median", "high")]
            assert found == pytest.approx([values.min(), np.median(values), values.max()], rel=1e-5)
    low, high, counts = drawn(page, "ra")
    values = stored(built, "ra").astype(float)
    assert (low, high) == (values.min(), values.max())
    assert counts.tolist() == np.histogram(values, np.linspace(low, high, 33))[0].tolist()
    listed = {row[0]: row[3] for row in page.rows("Files, as the manifest has them")[1:]}
    assert listed == {entry.path: file_sha256(built / entry.path) for entry in manifest.files}
    assert file_sha256(built / "manifest.json") in "".join(page.texts("p"))
    assert "Statistics and pictures are of all 24 rows" in page.texts("footer")[0]


def test_missing_values_texts_arrays_and_bytes_are_counted(plain, tmp_path):
    page = report_on(plain, tmp_path)
    table = {row[0]: row for row in page.rows("Columns on disk")[1:]}
    assert [table[name][4] for name in ("mag", "number", "kind", "ra")] == ["10 (20.0%)", "13 (26.0%)", "18 (36.0%)", "0"]
    assert table["kind"][5:] == ["", "", "", "a word (2 different texts)"]
    assert drawn(page, "vector")[2].sum() == 150
    low, high, counts = drawn(page, "png")
    lengths = np.array([k % 7 for cell in (20, 20, 10) for k in range(cell)])
    assert (low, high, counts.tolist()) == (-0.5, 6.5, np.bincount(lengths).tolist())
    kept = stored(plain, "number")
    assert drawn(page, "number")[2].tolist() == np.bincount(kept[kept >= 0]).tolist()
    assert "This dataset has no images." in "".join(page.texts("p"))


def test_nothing_that_somebody_wrote_becomes_part_of_the_page(tmp_path):
    columns = (
        *COLUMNS[:4],
        Column("<svg onload=alert(2)>", "float32", (), "<b>", f"</td></script><script>{EVIL}"),
        COLUMNS[6],
    )

    def change(row):
        return {k: v for k, v in row.items() if k not in ("mag", "number", "vector", "png")} | {
            "object_id": f"<i>{row['object_id'].decode()}</i>".encode(),
            "<svg onload=alert(2)>": row["mag"],
            "kind": EVIL.encode(),
        }

    root = write(
        tmp_path / "evil",
        {5: 12},
        columns,
        change,
        3,
        command=["skyset", EVIL],
        sources=["javascript:alert(3)", EVIL],
        versions={EVIL: EVIL},
        config="x",
        **{EVIL: {"a": [EVIL]}},
    )
    with open(root / "rejected.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("key", "file", "reason"),
                (EVIL, EVIL, f"</textarea>{EVIL} 12"),
                ("b", "", "too small: 3"),
                ("c", "", "too small: 41"),
            ]
        )
    page = report_on(root, tmp_path)
    rejected = page.rows("3 objects that did not get in")
    assert [row[:2] for row in rejected[1:]] == [["too small: #", "2"], [f"</textarea>{EVIL} #".replace("(1)", "(#)"), "1"]]
    assert EVIL in "".join(page.texts("span"))
    assert [a["href"] for a in page.attributes("a") if not a["href"].startswith("#")] == []
    other = shutil.copytree(root, tmp_path / "other")
    status, _ = skyset("report", "--compare", root, other, "-o", tmp_path / "two.html")
    assert status == 0
    check((tmp_path / "two.html").read_text())


def test_a_survey_of_any_size_is_looked_at_in_bounded_work(tmp_path):
    """3,072 cells and a million rows: one file with 326 rows under 3,072 names."""
    count = 326
    root = write(tmp_path / "large", {0: count})
    first, entry = root / "healpix=0" / "001-of-001.hdf5", Manifest.load(root).files[0]
    manifest = Manifest.load(root)
    manifest.files = []
    for cell in range(3072):
        path = f"healpix={cell}/001-of-001.hdf5"
        (root / path).parent.mkdir(exist_ok=True)
        if cell:
            os.link(first, root / path)
        manifest.files.append(
            FileEntry(path, "train", cell, count, entry.bytes, entry.sha256, entry.keys, entry.ra, entry.dec)
        )
    manifest.save(root)
    build = Build(str(root), manifest, None)
    looked = look(build, count=0)
    assert looked.sample.rows <= 20_480 and looked.sample.opened <= 640 and not looked.problems
    text = page(looked)
    check(text)
    assert (
        f"a sample of {looked.sample.rows:,} of 1,001,472 rows, from {looked.sample.opened} files, drawn with seed 0" in text
    )
    assert look(build, count=0).sample.files.tolist() == looked.sample.files.tolist()
    values = looked.sample.values["dec"]
    with h5py.File(first) as file:
        every = file["dec"][:]
    assert np.isin(values, every).all()
    assert abs(values.mean() - every.mean()) < 5 * every.std() / np.sqrt(len(values) / 32)


def test_each_row_has_the_same_chance():
    files = [
        FileEntry(f"healpix={k}/a.hdf5", "train", k, rows, 1, "", "", (0, 0), (0, 0))
        for k, rows in enumerate([500, 1, 40, 3000])
    ]
    hits = np.zeros(3541)
    starts = np.cumsum([0, 500, 1, 40])
    for seed in range(400):
        runs, whole = blocks(files, 10 * BLOCK, seed)
        assert not whole
        for number, stretches in runs:
            for start, stop in stretches:
                hits[starts[number] + start : starts[number] + stop] += 1
    expected = 400 * 10 / 113  # blocks: 16, 1, 2 and 94
    assert abs(hits.mean() - expected) < 1 and hits.min() > expected / 3 and hits.max() < 2.2 * expected


def test_all_rows_are_read_where_they_are_few(plain):
    build = Build(str(plain), Manifest.load(plain), None)
    whole = take(build, 50, 0)
    assert whole.whole and whole.rows == 50
    part = take(build, 49, 0)
    assert not part.whole and part.rows <= 52


def test_what_is_wrong_with_files_is_named_and_the_page_is_made(plain, tmp_path):
    root = shutil.copytree(plain, tmp_path / "broken")
    whole = (root / "healpix=3" / "001-of-001.hdf5").read_bytes()
    (root / "healpix=3" / "001-of-001.hdf5").write_bytes(whole[:-100])
    (root / "healpix=700" / "001-of-001.hdf5").unlink()
    page = report_on(root, tmp_path, status=1)
    problems = "".join(page.texts("section", **{"class": "problem"}))
    assert "2 problems" in problems
    assert f"healpix=3/001-of-001.hdf5: has {len(whole) - 100:,} bytes, the manifest says {len(whole):,}" in problems
    assert "healpix=700/001-of-001.hdf5: is missing" in problems
    assert "the 10 of 50 rows that could be read" in page.texts("footer")[0]
    (root / "healpix=3" / "001-of-001.hdf5").write_bytes(bytes(len(whole)))  # as long as it should be, and no HDF5
    assert "healpix=3/001-of-001.hdf5: " in "".join(report_on(root, tmp_path, status=1).texts("li"))


def test_a_build_without_rows_and_unreadable_notes(tmp_path):
    root = write(tmp_path / "none", {}, rejected=2, cuts=[{"name": "read"}])
    (root / "rejected.csv").write_bytes(b"key,file,reason\n" + b"x" * 200_000 + b",,\n")
    page = report_on(root, tmp_path, status=1)
    assert "This dataset has no rows." in page.texts("p")
    problems = page.texts("section", **{"class": "problem"})[0]
    assert "rejected.csv: cannot be read: field larger than field limit" in problems
    assert "manifest.json: its cuts cannot be read" in problems


def test_errors_are_one_line_and_nothing_is_replaced(plain, tmp_path):
    mine = tmp_path / "notes.html"
    mine.write_text("mine")
    cases = [
        (["report", tmp_path / "nowhere", "-o", tmp_path / "r.html"], "no manifest.json in"),
        (["report", "-o", tmp_path / "r.html"], "of what? skyset report DIR"),
        (["report", plain, "--compare", plain, plain], "of what?"),
        (["report", plain, "-o", mine], "is there and is no report"),
        (["report", plain, "-o", tmp_path / "no" / "r.html"], "there is no folder"),
        (["report", plain, "-o", plain / "healpix=3" / "r.html"], "among the partitions"),
        (["report", plain, "-o", plain / "healpix=3" / "001-of-001.hdf5"], "a report is a web page"),
        (["report", plain, "-o", plain / "manifest.json"], "a report is a web page"),
        (["report", plain, "-o", tmp_path / "r.pdf"], "name it r.html"),
    ]
    before = {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    for arguments, said in cases:
        status, output = skyset(*arguments)
        assert status == 2 and said in output and len(output.strip().splitlines()) == 1, output
    assert mine.read_text() == "mine" and {p: p.read_bytes() for p in plain.rglob("*") if p.is_file()} == before
    assert skyset("report", plain, "-o", mine, "--overwrite")[0] == 0
    assert skyset("report", plain, "-o", mine)[0] == 0, "a report is replaced by the next one"


def test_a_report_may_lie_beside_the_manifest(plain, tmp_path):
    root = shutil.copytree(plain, tmp_path / "beside")
    assert skyset("report", root, "-o", root / "report")[0] == 0
    assert skyset("verify", root)[1] == skyset("verify", plain)[1].replace(str(plain), str(root)), "verify knows it"


def test_configs_cuts_and_classes(built_sdss, rings, tmp_path):
    page = report_on(built_sdss, tmp_path, "--images", "0")
    cuts = page.rows("Cuts on the catalogue")
    counted = Manifest.load(built_sdss).build["cuts"]
    assert [(row[0], row[1], row[2]) for row in cuts[1:]] == [
        (c["name"], str(c["removed"]), str(c["left"])) for c in counted
    ]
    labels = np.bincount(stored(built_sdss, "label"), minlength=3)
    balance = page.texts("div", role="group", **{"aria-label": "Rows of each class of label"})[0]
    assert balance.startswith(f"0: spiral{labels[0]} (")
    page = report_on(rings, tmp_path, "--images", "1")
    others = page.rows("Other datasets of this folder")
    assert [row[0] for row in others[1:]] == ["rings_basic"]
    assert others[1][4] == f"skyset report {rings / 'rings_basic'}"


def test_published_files_are_looked_at_where_they_lie(tmp_path):
    from tests.published.files import write as write_published

    folder = write_published(tmp_path / "published", sizes=(64,))
    page = report_on(folder, tmp_path, "--images", "1")
    assert "galaxiesml, 64" in page.texts("h1") and len(page.attributes("img")) == 1
    assert "no checksums of them are known" in "".join(page.texts("caption"))
    assert [row[0] for row in page.rows("Other datasets")[1:]] == ["tabular"]


def changed_copy(plain, folder):
    """The plain build with a cell less, a cell more, other values, another unit, dtype and option, a column gone."""
    columns = [Column(c.name, c.dtype, c.shape, "Jy" if c.name == "mag" else c.unit, c.description) for c in COLUMNS[:-1]]
    columns[5] = Column("number", "int64", (), "", COLUMNS[5].description)

    def change(row):
        row = {name: value for name, value in row.items() if name != "png"}
        if row["object_id"] == b"o3-7":
            row |= {"number": row["number"] + 40, "vector": row["vector"] + np.float32([0, 2, 0])}
        if row["object_id"] == b"o3-5":
            row |= {"mag": np.float32(1)}  # was NaN
        if row["healpix"] == 9:
            row |= {"object_id": row["object_id"].replace(b"o9-", b"o3071-")}  # the same objects in another cell
        return row

    return write(folder, {3: 20, 9: 6, 40: 4, 700: 20}, columns, change, versions={"numpy": "2.1"}, compression="gzip")


def test_hats_and_what_was_pushed_make_the_same_page(built_sdss, tmp_path):
    exported, copy = tmp_path / "hats", tmp_path / "pushed"
    assert CliRunner().invoke(app, ["hats", str(built_sdss), "-o", str(exported)]).exit_code == 0
    with HubServer(tmp_path / "hub") as hub, talking_to(hub):
        hub.add_user("alice", TOKEN)
        push.push(plan.planned(Request("sdss_galaxy_zoo", built_sdss, "alice/sdss", work_dir=tmp_path / "work")))
        for path, content in hub.files("alice/sdss").items():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(content)
        builds = [build_of(str(built_sdss)), build_of(str(exported)), build_of(str(copy))]
        looked = [look(build, count=1) for build in [*builds, build_of("hf://datasets/alice/sdss")]]
    with ArchiveServer(tmp_path) as server:
        looked.append(look(build_of(f"{server.url}hats"), count=0))
    first = looked[0]
    assert first.sample.rows > 10 and [each.problems for each in looked] == [[]] * 5
    for each in looked[1:]:
        assert (each.sample.rows, each.cells) == (first.sample.rows, first.cells)
        assert sorted(each.sample.values["ra"]) == sorted(first.sample.values["ra"])
        assert "no checksums of them are known" in page(each) or each.build.manifest.files[0].sha256 in page(each)
    assert [len(each.pictures) for each in looked] == [1, 1, 1, 1, 0]
    compared = Comparison(
        builds[0], replace(builds[2], manifest=replace(builds[2].manifest, key=builds[0].manifest.key))
    ).run()
    assert (compared.rows.common, compared.rows.only) == (first.sample.rows, (0, 0))


def test_two_builds_are_compared_row_by_row(plain, tmp_path):
    other = changed_copy(plain, tmp_path / "other")
    status, said = skyset("report", "--compare", plain, other, "-o", tmp_path / "two.html")
    assert status == 0, said
    page = check((tmp_path / "two.html").read_text())
    rows = dict(page.rows("Rows by their object_id")[1:])
    assert rows == {"in both": "46", "only in A": "4", "only in B": "4", "in both, in another cell of the sky": "6"}
    assert any(text.startswith("Only in A: o3071-6 o3071-7 o3071-8 o3071-9") for text in page.texts("p"))
    columns = page.rows("of the columns")[1:]
    assert columns == [["mag", "unit", "mag", "Jy"], ["number", "dtype", "int32", "int64"], ["png", "column", "bytes", ""]]
    values = {row[0]: row for row in page.rows("with values that differ")[1:]}
    assert values.keys() == {"mag", "number", "vector"}
    assert values["number"][1:3] == ["1 of 40", "40"]
    assert re.fullmatch(r"o3-7: -?\d+ → \d+", values["number"][4])
    assert values["mag"][4] == "o3-5: nan → 1"
    assert values["vector"][4].startswith("o3-7: 1 of 3 elements, [1]: ")
    options = {row[0]: row[1:] for row in page.rows("What the manifests say")[1:]}
    assert options == {"versions.numpy": ["2.0", "2.1"], "compression": ["", "gzip"]}
    (svg,) = [a for a in page.attributes("svg") if a.get("aria-label", "").startswith("Histograms of dec ")]
    low, high = map(float, svg["data-edges"].split())
    for counts, root in zip(svg["data-counts"].split(" | "), (plain, other), strict=True):
        expected = np.histogram(stored(root, "dec"), np.linspace(low, high, 33))[0]
        assert counts == " ".join(map(str, expected))


def test_the_same_builds_do_not_differ(plain, tmp_path):
    build = Build(str(plain), Manifest.load(plain), None)
    compared = Comparison(build, build).run()
    assert (compared.rows.common, compared.rows.only) == (50, (0, 0))
    assert all(not changed.different and changed.compared == 50 for changed in compared.changed.values())
    assert column_changes(COLUMNS, COLUMNS) == [] and option_changes(build.manifest.build, build.manifest.build) == []
    skyset("report", "--compare", plain, plain, "-o", tmp_path / "same.html")
    words = "".join(Page((tmp_path / "same.html").read_text()).texts("p"))
    assert "The same columns" in words and "The same options, versions and sources." in words


def test_bins_end_before_what_lies_far_out():
    values = np.concatenate([np.linspace(0, 1, 1000), [1e6, -1e6, 2e6]])
    found = histogram(values, bins_for([values]))
    assert (found.below, found.above) == (found.below, found.above) and found.below >= 1 and found.above >= 2
    assert found.counts.sum() + found.below + found.above == 1003 and found.bins.edges[-1] <= 1
    assert bins_for([np.array([-1e308, 1e308])]) is None
    assert bins_for([np.array([])]) is None
    column = Column("x", "float64")
    for numbers in ([np.nan] * 3, [np.inf, -np.inf, np.nan], [1e308, 1e308], [5e-324, 0], [7.0]):
        summary = summarised(column, np.array(numbers))
        assert summary.missing == np.isnan(numbers).sum() and summary.infinite == np.isinf(numbers).sum()
    assert summarised(Column("b", "bool"), np.array([True, False, True])).histogram.counts.tolist() == [1, 2]
    assert summarised(Column("u", "uint64"), np.array([0, 2**64 - 1], np.uint64)).high == 2**64 - 1
    assert summarised(Column("i", "int32"), np.array([-1, -5, 3])).missing == 0, "-1 is a value where -5 is one"


def test_the_maps_projection_is_mollweides():
    from matplotlib.projections.geo import MollweideAxes

    lon, lat = np.meshgrid(np.linspace(-179, 179, 31), np.linspace(-90, 90, 41))
    x, y = charts.mollweide(lon.ravel(), lat.ravel())
    expected = MollweideAxes.MollweideTransform(10).transform(np.radians(np.stack([lon.ravel(), lat.ravel()], 1)))
    assert np.allclose(-x / 480 * 2 * np.sqrt(2), expected[:, 0], atol=2e-3)
    assert np.allclose(-y / 240 * np.sqrt(2), expected[:, 1], atol=2e-3)


def test_cells_are_coloured_by_their_rows():
    counts = np.array([1, 1, 7, 30, 200, 999])
    step, starts = charts.steps_of(counts)
    assert starts[0] == 1 and max(starts) <= 999 and (np.diff(step) >= 0).all() and step[0] == 0 < step[-1]
    assert charts.steps_of(np.array([5, 5]))[1] == [5]
    assert charts.coarser({0: 1, 3: 2, 4: 5}, 32) == ({0: 3, 1: 5}, 16)


def test_a_row_that_cannot_be_drawn_is_named_and_the_others_are(built):
    import dataclasses

    def plot(row):
        if row["object_id"] == names[0]:
            raise RuntimeError("</script>no such band")
        return registry.survey("gz3d").plot(row)

    manifest = Manifest.load(built)
    survey = dataclasses.replace(registry.survey("gz3d"), plot=plot)
    build = Build(str(built), manifest, survey)
    sample = take(build, 24, 0)
    names = sample.values["object_id"][pictures.chosen(build, sample, 2, 0)].astype(str).tolist()
    found, problems = pictures.drawn(build, sample, 2, 0)
    assert len(found) == 1 and len(problems) == 1
    assert "RuntimeError: </script>no such band" in problems[0] and problems[0].startswith("healpix=")


def test_a_picture_takes_no_more_bytes_than_it_may():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3))
    figure.subplots().imshow(np.random.default_rng(0).random((300, 600)))
    source, shape = pictures._jpeg(figure, 9_000)
    assert len(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))) <= 9_000 and shape == pytest.approx(2)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_it_without_an_error(plain, tmp_path):
    """A hostile page too: were anything of it run, the title would be another; the page's own script runs."""
    root = shutil.copytree(plain, tmp_path / "hostile")
    manifest = Manifest.load(root)
    manifest.sources = ["<script>document.title='taken'</script>", "<img src=x onerror=\"document.title='taken'\">"]
    manifest.save(root)
    assert skyset("report", root, "-o", tmp_path / "r.html")[0] == 0
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--dump-dom",
        "--enable-logging=stderr",
        "--force-dark-mode",
        f"--user-data-dir={tmp_path / 'profile'}",
        (tmp_path / "r.html").as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "CONSOLE" not in shown.stderr, shown.stderr[-2000:]
    title = re.search(r"<title>(.*?)</title>", shown.stdout)[1]
    assert title == "nobodys"
    button = re.search(r'<button id="theme"[^>]*>(\w+)</button>', shown.stdout)
    assert button and "hidden" not in button[0] and button[1] in ("Light", "Dark")


def test_a_survey_of_somebodys_own_is_drawn_by_its_declaration(tmp_path):
    from PIL import Image

    from tests import own_survey

    raw = tmp_path / "raw"
    raw.mkdir()
    random = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(raw / f"g{n}.jpg")
    (raw / "objects.csv").write_text("object_id,ra,dec,mag_r\n" + "".join(f"g{n},{50 * n},{n},2{n}\n" for n in range(3)))
    assert own_survey.main(["--local_data_path", str(raw), "-o", str(tmp_path / "mine"), "--num_processes", "1"]) == 0
    registry.register("my_survey", "tests.own_survey")
    try:
        page = report_on(tmp_path / "mine", tmp_path, "--images", "1")
    finally:
        registry._modules.pop("my_survey")
    assert "Galaxies of mine" in page.texts("p") and len(page.attributes("img")) == 1
    page = report_on(tmp_path / "mine", tmp_path, "--images", "1")  # the survey is not known any more: its pixels are
    assert "A survey that this skyset does not know" in page.texts("p") and len(page.attributes("img")) == 1
