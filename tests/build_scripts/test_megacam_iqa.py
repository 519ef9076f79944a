"""MegaCam image quality from simulated exposures: every number against the frames, splits, kills, bad input."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from pyarrow import parquet

pytest.importorskip("numba", reason="MegaCam's sources are measured and grouped with numba")

from skyset.build_scripts.megacam_iqa import tiny
from skyset.build_scripts.megacam_iqa.build_parent_sample import main
from skyset.build_scripts.megacam_iqa.frames import ccds, frames
from skyset.build_scripts.megacam_iqa.passes import configuration_asked
from skyset.build_scripts.megacam_iqa.sources import COLUMNS, FOR_PSFEX, How, measure_ccd
from skyset.build_scripts.megacam_iqa.staging import stage
from skyset.errors import UserError
from skyset.extraction.detect import measure
from skyset.extraction.ldac import read_ldac, write_ldac
from skyset.loaders.megacam_iqa import CLASSES, CONFIGS, FEATURES, GROUPS, STAMP
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.runner import InlineExecutor
from skyset.testing.cadc import CadcServer
from skyset.testing.caom2 import stored_files
from skyset.testing.megacam import make_exposures
from tests.conftest import once
from tests.processes import killed_once, steps_of

#: All but those of `built`.
pytestmark = pytest.mark.usefixtures("undrawn")


def build(root, *arguments):
    return main(["-o", str(root), "--num_processes", "1", *map(str, arguments)])


@pytest.fixture(scope="module")
def exposures(tmp_path_factory):
    """Four exposures each of two classes, of four small CCDs."""

    def make(folder):
        make_exposures(folder, 8, ccds=4, shape=(256, 128), classes=("GOOD", "BT"), density=8)

    return once(tmp_path_factory, "megacam_exposures", make)


def asked(folder):
    return "--local_data_path", folder, "--labels", folder / "labels.json"


@pytest.fixture(scope="module")
def built(exposures, tmp_path_factory):
    folder = once(tmp_path_factory, "megacam_built", lambda folder: build(folder / "o", *asked(exposures), "--keep_staged"))
    return folder / "o"


def table(root, config="representative"):
    """All columns of a dataset in the order of keys, and the split of each row."""
    manifest, parts, splits = Manifest.load(root / config), [], []
    for entry in manifest.files:
        with h5py.File(root / config / entry.path) as file:
            parts.append({column.name: file[column.name][:] for column in manifest.columns})
        splits += [entry.split] * entry.rows
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["object_id"])
    return {name: values[order] for name, values in columns.items()} | {"split": np.array(splits)[order]}


def digest(root):
    """Of all rows of both datasets and the catalogue, wherever they lie."""
    every = [table(root, config) for config in CONFIGS]
    made = hashlib.sha256(repr(parquet.read_table(root / "objects_catalog.parquet").to_pydict()).encode())
    for columns in every:
        for name in sorted(columns):
            made.update(columns[name].tobytes())
    return made.hexdigest()


def rejected(root, config="representative"):
    path = root / config / "rejected.csv"
    return {row["key"]: row["reason"] for row in csv.DictReader(path.read_text().splitlines())} if path.exists() else {}


def test_all_is_as_the_manifests_say(built):
    for config, survey in CONFIGS.items():
        assert list(verify(built / config, survey)) == []
    assert sorted(path.name for path in (built / "som").iterdir()) == [
        "errors.png",
        "hits.png",
        "made_of",
        "planes.png",
        "som.npz",
        "u_matrix.png",
    ]
    notes = Manifest.load(built / "representative").build
    assert notes["classes"] == {"GOOD": 4, "BT": 4} and notes["split_by"] == "exposure" and not notes["simulated"]


def test_an_image_is_made_of_the_pixels_around_the_sources_that_were_drawn(built, exposures):
    rows, sources = table(built), table(built, "sources")
    by_key = {key.decode(): place for place, key in enumerate(sources["object_id"])}
    name = rows["FITS_ID"][0].decode()
    of_exposure = {f.ccd: f for f in frames(exposures / f"{name}.fits.fz")}
    settings = configuration_asked(main_arguments())
    checked = 0
    for k in np.flatnonzero(rows["FITS_ID"] == name.encode()):
        frame = of_exposure[rows["CCD_ID"][k]]
        found = measure(frame.pixels, settings.for_header(frame.header), ["X_IMAGE"], mask=frame.bad, check=["-BACKGROUND"])
        assert (
            len(found)
            == rows["n_sources"][k]
            == np.count_nonzero((sources["FITS_ID"] == name.encode()) & (sources["CCD_ID"] == frame.ccd))
        )
        image = np.pad(found.check["-BACKGROUND"], STAMP)
        for group, number in enumerate(rows["drawn"][k]):
            top, left = STAMP * (group // 5), STAMP * (group % 5)
            tile = rows["image"][k, top : top + STAMP, left : left + STAMP]
            assert (number < 0) == rows["empty"][k, group]
            if number < 0:
                assert not tile.any() and np.isnan(rows["features"][k, group]).all()
                continue
            place = by_key[f"{name}_{frame.ccd:02d}_{number:05d}"]
            assert sources["unit"][place] == group
            x, y = (round(float(sources[axis][place])) - 1 + STAMP - STAMP // 2 for axis in "XY")
            np.testing.assert_allclose(tile, image[y : y + STAMP, x : x + STAMP], rtol=1e-3, atol=1e-3)
            assert [sources[each][place] for each in FEATURES] == pytest.approx(
                list(rows["features"][k, group]), nan_ok=True
            )
            checked += 1
    assert checked > 20


def main_arguments():
    from skyset.build_scripts.megacam_iqa.build_parent_sample import parser

    return parser().parse_args([])


def test_hits_and_statistics_are_those_of_the_sources(built):
    rows, sources = table(built), table(built, "sources")
    assert rows["hits"].sum() > 300
    for k in range(len(rows["object_id"])):
        mine = (sources["FITS_ID"] == rows["FITS_ID"][k]) & (sources["CCD_ID"] == rows["CCD_ID"][k])
        units = sources["unit"][mine]
        assert rows["hits"][k].tolist() == [np.count_nonzero(units == group) for group in range(GROUPS)]
        assert rows["hit_shares"][k].sum() == pytest.approx(1)
        for place, name in enumerate(FEATURES):
            values = sources[name][mine]
            assert rows["feature_median"][k, place] == pytest.approx(np.nanmedian(values))
        assert np.nanmedian(sources["BACKGROUND"][mine]) == pytest.approx(0, abs=1e-6)


def test_no_exposure_is_on_two_sides(built):
    rows, sources = table(built), table(built, "sources")
    for columns in (rows, sources):
        pairs = {(name, split) for name, split in zip(columns["FITS_ID"], columns["split"], strict=True)}
        assert len(pairs) == 8
    for number in (CLASSES.index("GOOD"), CLASSES.index("BT")):
        split = {
            name: split
            for name, split, label in zip(rows["FITS_ID"], rows["split"], rows["label"], strict=True)
            if label == number
        }
        assert sorted(split.values()) == ["test", "train", "train", "validation"]
    labels = json.loads((Path(built) / "catalog" / f"{rows['FITS_ID'][0].decode()}.json").read_text())
    assert labels["fits_id"] == rows["FITS_ID"][0].decode()


def test_the_catalogue_has_the_same_sources(built):
    catalogue, sources = parquet.read_table(built / "objects_catalog.parquet"), table(built, "sources")
    assert sorted(catalogue["OBJECT_ID"].to_pylist()) == [key.decode() for key in sources["object_id"]]
    assert parquet.ParquetFile(built / "objects_catalog.parquet").num_row_groups == 8
    order = np.argsort(catalogue["OBJECT_ID"].to_numpy())
    np.testing.assert_array_equal(catalogue["ISO0"].to_numpy()[order], sources["ISO0"])
    assert [CLASSES.index(each) for each in catalogue["gt_label1"].to_numpy()[order]] == sources["gt_label1"].tolist()


def test_the_same_command_again_leaves_all_files_alone(built, exposures):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*.hdf5")}
    assert build(built, *asked(exposures), "--keep_staged") == 0
    assert before == {path: path.stat().st_mtime_ns for path in built.rglob("*.hdf5")}


def test_killed_in_the_first_pass_and_started_again_it_has_the_same_rows(built, exposures, tmp_path):
    root = tmp_path / "o"
    assert killed_once(lambda: len(list(root.glob("catalog/*o.json"))) > 2, lambda: build(root, *asked(exposures)))
    assert build(root, *asked(exposures)) == 0
    assert digest(root) == digest(built)
    assert not (root / "staged").exists() and [list(verify(root / config)) for config in CONFIGS] == [[], []]


def test_killed_at_any_step_of_the_second_pass_it_has_the_same_rows(built, exposures, tmp_path):
    root = tmp_path / "o"
    shutil.copytree(built, root, ignore=shutil.ignore_patterns("representative", "sources", "objects_catalog*", "som*"))
    stops = iter(range(3, 1000, 17))
    kills = 0
    while steps_of(root, lambda: build(root, *asked(exposures)), next(stops)):
        kills += 1
    assert kills > 3
    assert digest(root) == digest(built) and [list(verify(root / config)) for config in CONFIGS] == [[], []]


def test_another_label_needs_no_cutouts_another_draw_measures_again(built, exposures, tmp_path, capsys):
    root = tmp_path / "o"
    shutil.copytree(built, root, ignore=shutil.ignore_patterns("staged"))
    (tmp_path / "labels.json").write_text((exposures / "labels.json").read_text().replace('"GOOD"', '"BGP"'))
    options = "--local_data_path", exposures, "--labels", tmp_path / "labels.json"
    assert build(root, *options) == 0 and "measured again" not in capsys.readouterr().out
    before, after = table(built), table(root)
    assert set(after["label"].tolist()) == {2, 3} and (after["image"] == before["image"]).all()
    assert build(root, *options, "--pick", "central") == 0
    assert "8 exposures are measured again for their cutouts" in capsys.readouterr().out
    assert not (table(root)["image"] == before["image"]).all() and list(verify(root / "representative")) == []


def test_other_groups_pictures_and_splits(built, exposures, tmp_path):
    root = tmp_path / "o"
    shutil.copytree(built, root, ignore=shutil.ignore_patterns("representative", "sources"))
    given = root / "som" / "som.npz"
    options = "--som", given, "--pick", "central", "--split_by_object"
    assert build(root, *asked(exposures), *options, "--keep_staged") == 0
    rows, sources = table(root), table(root, "sources")
    assert (rows["hits"] == table(built)["hits"]).all() and not (rows["drawn"] == table(built)["drawn"]).all()
    assert len({(name, split) for name, split in zip(sources["FITS_ID"], sources["split"], strict=True)}) > 16
    assert Manifest.load(root / "sources").build["split_by"].startswith("object")
    shutil.rmtree(root / "representative"), shutil.rmtree(root / "sources")
    pytest.importorskip("sklearn")
    assert build(root, *asked(exposures), "--map", "4x4", "--clusters", "6", "--features", "ISO0", "FWHM") == 0
    rows = table(root)
    assert rows["image"].shape[1:] == (2 * STAMP, 3 * STAMP) and rows["hits"].shape[1:] == (6,)
    assert list(verify(root / "representative", CONFIGS["representative"])) == []
    assert (root / "som" / "groups.png").exists()


def test_from_the_archive_one_file_at_a_time(built, exposures, tmp_path):
    root = tmp_path / "o"
    files = [each for each in stored_files(exposures) if each.name.endswith(".fz")]
    future = type(files[0])(**{**vars(files[0]), "data_release": "2099-01-01T00:00:00"})
    with CadcServer(exposures, [future, *files[1:]]) as server:
        options = [
            "--archive_url",
            server.url,
            "--kind",
            "o",
            "--labels",
            exposures / "labels.json",
            "--allow_few_exposures",
        ]
        assert build(root, *options) == 1
        downloads = [server.downloads(each.name) for each in files]
        assert build(root, *options) == 1
        assert downloads == [server.downloads(each.name) for each in files] == [0] + [1] * 7
    assert not (root / "raw").exists()
    [(name, reason)] = rejected(root).items()
    assert name == future.name.partition(".")[0] and "proprietary until 2099-01-01" in reason
    mine, whole = table(root, "sources"), table(built, "sources")
    there = whole["FITS_ID"] != name.encode()
    np.testing.assert_array_equal(mine["ISO0"], whole["ISO0"][there])


def test_what_the_archive_does_not_give_is_named_and_comes_when_it_does(built, exposures, tmp_path, capsys):
    """Proprietary, refused with 401 and 403, of another sum, cut where it is stored; others break off and go on."""
    stored, root = tmp_path / "stored", tmp_path / "o"
    shutil.copytree(exposures, stored)
    paths = sorted(stored.glob("*.fz"))
    names = [path.name.partition(".")[0] for path in paths]
    paths[4].write_bytes(paths[4].read_bytes()[:-40000])
    files = stored_files(stored)
    files[0] = replace(files[0], data_release="2099-01-01T00:00:00")
    files[3] = replace(files[3], md5="0" * 32)
    with CadcServer(stored, files) as server:
        options = "--archive_url", server.url, "--kind", "o", "--labels", stored / "labels.json", "--allow_few_exposures"
        for k, kind, times in ((1, "401", None), (2, "403", None), (5, "cut", 2), (6, "503", 1)):
            server.storage.fault(f"*{paths[k].name}", kind, times)
        assert build(root, *options, "--map", "1x2") == 1
        reasons = rejected(root)
        said = ["proprietary until 2099", "401 Unauthorized", "403 Forbidden", "MD5 is", "truncated: the data of HDU"]
        assert all(reasons[name].startswith(words) for name, words in zip(names, said, strict=False)) and len(reasons) == 5
        assert reasons == rejected(root, "sources") and server.downloads(paths[0].name) == 0
        assert "5 objects were rejected" in (out := capsys.readouterr().out) and "labels are of exposures" not in out
        assert not (root / "raw").exists() and set(table(root)["FITS_ID"].astype(str)) == set(names[5:])
        server.storage.clear()
        assert build(root, *options, "--map", "1x2") == 1  # exposures that came before are measured again: another map
    assert set(rejected(root)) == {names[0], names[3], names[4]} and "3 objects were rejected" in capsys.readouterr().out
    mine, whole = table(root, "sources"), table(built, "sources")
    there = np.isin(whole["FITS_ID"].astype(str), [*names[1:3], *names[5:]])
    for each in ("object_id", "ISO0", "X"):
        np.testing.assert_array_equal(mine[each], whole[each][there])
    assert [list(verify(root / config)) for config in CONFIGS] == [[], []] and not (root / "raw").exists()


def plain(source, target, change=lambda hdus: None):
    """A copy without compression, changed."""
    with fits.open(source) as file:
        hdus = [fits.PrimaryHDU(header=file[0].header)]
        hdus += [fits.ImageHDU(each.data, each.header) for each in file[1:]]
    change(hdus)
    fits.HDUList(hdus).writeto(target, output_verify="silentfix")


@pytest.fixture(scope="module")
def bad(exposures, tmp_path_factory):
    """Exposures with something wrong each, and what a build makes of them."""
    folder = tmp_path_factory.mktemp("bad")
    files = sorted(exposures.glob("*.fz"))
    raw = folder / "raw"
    raw.mkdir()
    names = [path.name.partition(".")[0] for path in files]
    shutil.copy(files[0], raw)
    (raw / files[1].name).write_bytes(files[1].read_bytes()[:-40000])

    def zeros(hdus):
        hdus[2].data[:] = 0

    def blank(hdus):
        for hdu in hdus[1:]:  # noise alone
            noise = np.random.default_rng(1).normal(1000, 5, hdu.data.shape)
            hdu.data = noise.astype(np.uint16)

    def fewer(hdus):
        del hdus[3], hdus[0].header["EXPTIME"]
        for hdu in hdus:
            hdu.header.remove("EXPTIME", ignore_missing=True)
        hdus[0].header["NEXTEND"] = 36

    for path, change in zip(files[2:5], (zeros, blank, fewer), strict=True):
        plain(path, raw / f"{path.name.partition('.')[0]}.fits", change)
    shutil.copy(files[0], raw / f"{names[0]}.fits.gz")  # no gzip at all
    plain(files[0], raw / f"{names[0]}.fits")
    (raw / "notes.fits").write_text("no FITS")
    fits.PrimaryHDU(np.ones((30, 30), np.float32)).writeto(raw / "weight.fits")
    labels = {names[0]: "GOOD", names[1]: "BT", names[2][:-1]: "BGP, B_SEEING", "999999": "RBT"}
    (folder / "labels.json").write_text(json.dumps({"annotations": labels}))
    return folder, names


@pytest.fixture(scope="module")
def built_of_bad(bad, tmp_path_factory):
    folder, _ = bad
    options = "--local_data_path", folder / "raw", "--labels", folder / "labels.json", "--allow_few_exposures"
    assert build(folder / "o", *options) == 1
    return folder / "o"


def test_what_cannot_be_used_is_named(built_of_bad, bad):
    _, names = bad
    reasons = rejected(built_of_bad)
    assert reasons == rejected(built_of_bad, "sources")
    assert set(reasons) == {names[0], names[1], "notes", "weight"}
    assert reasons["weight"].startswith("no image of MegaCam: ")
    assert "there already" in reasons[names[0]] and re.search("ccd|ends", reasons[names[1]])
    assert [list(verify(built_of_bad / config, CONFIGS[config])) for config in CONFIGS] == [[], []]


def test_ccds_without_light_or_sources_and_missing_ones(built_of_bad, bad):
    _, names = bad
    rows, notes = table(built_of_bad), Manifest.load(built_of_bad / "representative").build
    counts = {name: np.count_nonzero(rows["FITS_ID"] == name.encode()) for name in names}
    assert [counts[name] for name in names[:5]] == [4, 0, 3, 4, 3]
    assert notes["ccds_without_light"] and all(each.startswith(names[2]) for each in notes["ccds_without_light"])
    blank = rows["FITS_ID"] == names[3].encode()
    assert rows["empty"][blank].all() and not rows["image"][blank].any() and not rows["hits"][blank].any()
    assert (
        (rows["drawn"][blank] == -1).all()
        and (rows["hit_shares"][blank] == 0).all()
        and (rows["n_sources"][blank] == 0).all()
    )
    assert len(notes["ccds_without_source"]) == 4
    fewer = rows["FITS_ID"] == names[4].encode()
    assert np.isnan(rows["EXPTIME"][fewer]).all()
    assert any("3 of 36 CCDs" in note for note in notes["of_exposures"][names[4]])
    assert any("EXPTIME" in note for note in notes["of_exposures"][names[4]])


def test_labels_one_two_or_none(built_of_bad, bad):
    _, names = bad
    rows = table(built_of_bad)
    found = {name.decode(): (a, b) for name, a, b in zip(rows["FITS_ID"], rows["label"], rows["label2"], strict=True)}
    assert found == {names[0]: (0, -1), names[2]: (2, 1), names[3]: (-1, -1), names[4]: (-1, -1)}


def test_few_exposures_of_a_class_are_refused(built_of_bad, bad, tmp_path, capsys):
    folder, _ = bad
    options = "--local_data_path", folder / "raw", "--labels", folder / "labels.json"
    assert build(built_of_bad, *options) == 2
    assert "need 4 exposures of a class, there are 3 of no label, 1 of GOOD, 1 of BGP, 1 of BT" in capsys.readouterr().err


def test_few_exposures_are_refused_before_they_are_measured(exposures, tmp_path, capsys):
    options = "--local_data_path", exposures, "--labels", exposures / "labels.json", "--limit", "5"
    assert build(tmp_path / "o", *options) == 2
    said = capsys.readouterr().err
    assert "there are 3 of GOOD, 2 of BT (--allow_few" in said and "measuring" not in said


def test_a_maps_shape_that_is_none_says_what_is_meant(tmp_path, capsys):
    with pytest.raises(SystemExit):
        build(tmp_path, "--tiny", "--map", "4")
    assert "rows and columns are meant, such as 4x5, not '4'" in capsys.readouterr().err


def test_labels_without_their_exposures_are_told(built, exposures, tmp_path, capsys):
    root = tmp_path / "o"
    shutil.copytree(built, root)
    values = json.loads((exposures / "labels.json").read_text())
    values["annotations"] |= {"777777": "GOOD", "777778p": "BT"}
    (tmp_path / "labels.json").write_text(json.dumps(values))
    assert build(root, "--local_data_path", exposures, "--labels", tmp_path / "labels.json", "--keep_staged") == 0
    assert "2 labels are of exposures that are not here: 777777, 777778" in capsys.readouterr().out
    assert digest(root) == digest(built)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which exposures?"),
        (("--tiny", "--ids", "979412p"), "leave out --ids"),
        (("--local_data_path", "nowhere"), "there is no folder nowhere"),
        (("--local_data_path", "{exposures}", "--ids", "5"), "has no 5"),
        (("--local_data_path", "{exposures}", "--set", "DETECT_THRESH"), "KEYWORD=VALUE is meant"),
        (("--local_data_path", "{exposures}", "--som", "{exposures}/labels.json"), "no map"),
        (("--local_data_path", "{exposures}", "--stamp", "2"), "a cutout has 4 to 256 pixels"),
        (("--local_data_path", "{exposures}", "--filter", "r"), "--filter asks the archive"),
        (("--local_data_path", "{exposures}", "--ldac", "nowhere"), "--ldac nowhere: there is no such folder"),
        (("--tiny", "--clusters", "21"), "21 clusters of 4 x 5 units: from 2 to 20"),
        (("--tiny", "--features", "ISO0", "FWHM", "ISO0"), "each feature once"),
        (("--tiny", "--som", "som.npz", "--map", "4x6"), "a map that is made already: leave out --map, or --som"),
    ],
)
def test_what_cannot_be_asked_for(exposures, tmp_path, capsys, arguments, words):
    words_of = [each.format(exposures=exposures) for each in arguments]
    assert build(tmp_path / "o", *words_of, "--allow_few_exposures", *(["--limit", "1"] * ("--som" in arguments))) == 2
    assert words in capsys.readouterr().err


def test_what_is_to_be_compiled_is_compiled_beside_and_awaited(monkeypatch, capsys):
    how = How(configuration_asked(main_arguments()))
    monkeypatch.setattr("skyset.extraction.compiled.is_to_compile", lambda kernel: True)
    with tiny._compiling(how):
        pass
    assert re.fullmatch(r"compiled, in \d+ s: it is kept for the next time\n", capsys.readouterr().err)
    with pytest.raises(UserError, match="stamp"), tiny._compiling(how):
        raise UserError("stamp")
    monkeypatch.setattr("skyset.extraction.compiled.is_to_compile", lambda kernel: False)
    monkeypatch.setattr(tiny, "WorkerPool", None)
    with tiny._compiling(how):
        pass
    assert capsys.readouterr().err == ""


def test_without_numba_help_is_help_and_a_build_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from skyset.build_scripts.megacam_iqa.build_parent_sample import main\n"
        "from skyset.testing.megacam.__main__ import main as simulate\n"
        "statuses = [main(['--tiny', '-o', 'o']), simulate(['-o', 's'])]\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print(*statuses, end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    install = "pip install 'skyset-surveys[extraction]'"
    assert done.stderr.splitlines() == [
        f"skyset: {what} needs numba: {install}" for what in ("finding and grouping sources", "simulating exposures")
    ]
    assert "--local_data_path" in done.stdout and done.stdout.endswith("2 2 0\n") and not list(tmp_path.iterdir())


def test_catalogues_that_are_there_are_taken(built, exposures, tmp_path, capsys):
    """Ours of the frames, and one as SExtractor makes of the file as it is, with overscan and not turned."""
    root, folder = tmp_path / "o", tmp_path / "ldac"
    folder.mkdir()
    name = next(exposures.glob("*.fz")).name.partition(".")[0]
    source = exposures / f"{name}.fits.fz"
    shutil.copy(built / "LDAC" / f"{name}.ldac", folder)
    options = "--local_data_path", exposures, "--labels", exposures / "labels.json", "--ids", name, "--ldac", folder
    assert build(root, *options, "--allow_few_exposures", "--map", "1x2") == 0
    assert f"catalogues of 1 of 1 exposure are taken from {folder}" in capsys.readouterr().out
    mine, whole = table(root, "sources"), table(built, "sources")
    there = whole["FITS_ID"] == name.encode()
    for each in ("X", "Y", *FEATURES, "FLAGS"):
        np.testing.assert_allclose(mine[each], whole[each][there], rtol=1e-6)
    assert not (root / "LDAC" / f"{name}.ldac").exists()
    how = How(configuration_asked(main_arguments()))
    for ccd in ccds(source):
        ours, header = measure_ccd(ccd, how), ccd.header
        known = next(e for e in read_ldac(folder / f"{name}.ldac") if e.header["EXTNAME"] == header.get("EXTNAME"))
        left, below = (int(each) - 1 for each in re.findall(r"\[(\d+):\d+,(\d+)", header["DATASEC"])[0])
        x, y = known.table["X_IMAGE"].value, known.table["Y_IMAGE"].value
        turned = ccd.frame().turned
        rows, width = ccd.frame().pixels.shape
        known.table["X_IMAGE"] = ((width + 1 - x) if turned else x) + left
        known.table["Y_IMAGE"] = ((rows + 1 - y) if turned else y) + below
        stored = fits.Header({"NAXIS1": header["NAXIS1"], "NAXIS2": header["NAXIS2"]})
        again = measure_ccd(ccd, how, known.table, stored)
        np.testing.assert_allclose(again.rows["X"], ours.rows["X"], atol=1e-3)
        np.testing.assert_allclose(again.rows["ra"], ours.rows["ra"], atol=1e-6)
        np.testing.assert_allclose(again.stamps.astype("f4"), ours.stamps.astype("f4"), rtol=1e-2, atol=1e-2)


def test_a_source_is_the_same_with_and_without_what_psfex_asks_for(tmp_path):
    """FLAGS has 1 and 16 where apertures are measured: those are left to the LDAC file."""
    [path] = make_exposures(tmp_path, 1, ccds=4, shape=(256, 256), density=12)
    configuration, ccd = configuration_asked(main_arguments()), ccds(path)[0]
    plain, more = (measure_ccd(ccd, How(configuration, columns)) for columns in (COLUMNS, (*COLUMNS, *FOR_PSFEX)))
    np.testing.assert_array_equal(more.rows, plain.rows)
    flags = more.measured.columns["FLAGS"]
    assert (flags & 17).any() and (flags & 2).any() and not (more.rows["FLAGS"] & 17).any()
    np.testing.assert_array_equal(more.rows["FLAGS"], flags & ~17)


def test_ldac_files_are_as_astropy_reads_them(built):
    sources = table(built, "sources")
    for path in sorted((built / "LDAC").glob("*.ldac"))[:2]:
        with fits.open(path) as file:
            assert [hdu.name for hdu in file[1:]] == ["LDAC_IMHEAD", "LDAC_OBJECTS"] * 4
            x = np.concatenate([hdu.data["X_IMAGE"] for hdu in file[2::2]])
            ra = np.concatenate([hdu.data["ALPHA_J2000"] for hdu in file[2::2]])
        mine = sources["FITS_ID"] == path.stem.encode()
        np.testing.assert_allclose(np.sort(x), np.sort(sources["X"][mine]), rtol=1e-6)
        np.testing.assert_allclose(np.sort(ra), np.sort(sources["ra"][mine]), rtol=1e-9)


@pytest.mark.skipif(not (shutil.which("psfex") and shutil.which("scamp")), reason="PSFEx or SCAMP is not installed")
def test_psfex_and_scamp_read_an_exposures_ldac(tmp_path):
    [path] = make_exposures(tmp_path, 1, ccds=4, shape=(512, 512), density=12)
    how = How(configuration_asked(main_arguments()), (*COLUMNS, *FOR_PSFEX))
    staged = stage(path, tmp_path, "x", how, InlineExecutor())
    ldac = f"LDAC/{staged.fits_id}.ldac"
    options = "-CHECKPLOT_TYPE NONE -CHECKIMAGE_TYPE NONE -WRITE_XML N -NTHREADS 1 -PSF_SIZE 15,15"
    subprocess.run(["psfex", ldac, *options.split()], cwd=tmp_path, check=True, capture_output=True)
    with fits.open(tmp_path / "LDAC" / f"{staged.fits_id}.psf") as file:
        assert [hdu.header["ACCEPTED"] > 5 for hdu in file[1:]] == [True] * 4
    every = read_ldac(tmp_path / ldac)
    ra, dec, flux = (
        np.concatenate([e.table[name].value for e in every]) for name in ("ALPHA_J2000", "DELTA_J2000", "FLUX_AUTO")
    )
    bright = flux > 0
    ones = np.ones(np.count_nonzero(bright), "f4")
    reference = QTable(
        {
            "X_WORLD": ra[bright] * u.deg,
            "Y_WORLD": dec[bright] * u.deg,
            "ERRA_WORLD": 1e-6 * ones * u.deg,
            "ERRB_WORLD": 1e-6 * ones * u.deg,
            "MAG": (20 - 2.5 * np.log10(flux[bright])) * u.mag,
            "MAGERR": 0.01 * ones * u.mag,
            "OBSDATE": 2015 * u.yr * ones,
        }
    )
    write_ldac(tmp_path / "reference.ldac", [(every[0].header, reference)])
    options = "-ASTREF_CATALOG FILE -ASTREFCAT_NAME reference.ldac -MATCH N -SOLVE_PHOTOM N -DISTORT_DEGREES 1"
    more = "-SN_THRESHOLDS 5,100 -CHECKPLOT_TYPE NONE -WRITE_XML N -NTHREADS 1"
    command = ["scamp", ldac, *options.split(), *more.split()]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert int(re.search(r"(\d+) detections loaded", done.stdout + done.stderr)[1]) > 100
    assert (tmp_path / "LDAC" / f"{staged.fits_id}.head").read_text(errors="replace").count("\nEND") == 4
