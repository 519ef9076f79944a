"""GalaxiesML from a simulated archive to rows: values against the sky's truth, what stays out, what survives a kill."""

import csv
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

import skyset
from skyset.archives.hsc_skymap import PIXEL
from skyset.build_scripts.galaxiesml.build_parent_sample import main
from skyset.build_scripts.galaxiesml.published import alone
from skyset.building.cutouts.stamps import read_stamp
from skyset.building.tars.read import index, read_sample
from skyset.building.tars.sink import TarSink
from skyset.extraction.morphology import hsc_psf
from skyset.loaders.galaxiesml import BANDS, CONFIGS
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.testing.hsc import HscArchive
from skyset.testing.hsc_blobs import NOISE, SEEING, BlobSky
from skyset.testing.hsc_sky import stamp_bytes, window
from tests.processes import steps_of

MODULE = "skyset.build_scripts.galaxiesml.build_parent_sample"
GALAXIES = 6
HOLE = 4


@pytest.fixture(scope="module")
def sky():
    plain = BlobSky(GALAXIES, seed=2)
    hole = int(plain.table["object_id"][HOLE])
    return BlobSky(GALAXIES, seed=2, bad=True, holes={hole: "y"})


@pytest.fixture(scope="module", autouse=True)
def account():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSP_PDR_USR", "user")
        patch.setenv("SSP_PDR_PWD", "pass")
        yield


def build(root, *arguments):
    return main(["-o", str(root), "--num_processes", "1", *map(str, arguments)])


def rows(root):
    """All columns of each row by id, with the split whose folder it lies in."""
    found = {}
    for path in sorted(root.glob("*/healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            for number, key in enumerate(file["object_id"][:].astype(str).tolist()):
                assert key not in found
                found[key] = {name: file[name][number] for name in file} | {"split": path.parents[1].name}
    return found


def same(one, other):
    return one.keys() == other.keys() and all(
        np.asarray(one[key][name]).tobytes() == np.asarray(other[key][name]).tobytes() for key in one for name in one[key]
    )


def rejected(root):
    with open(root / "rejected.csv", newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


def archived(folder):
    """Files of each galaxy, by key, in a folder of archives."""
    return {
        sample.key: read_sample(path, sample.start, sample.length)
        for path in sorted(folder.glob("*.tar"))
        for sample in index(path)
    }


@pytest.fixture(scope="module")
def built(sky, account, tmp_path_factory):
    """Everything that can be asked for, and how often the archive was asked. Do not change it."""
    root = tmp_path_factory.mktemp("galaxiesml") / "galaxiesml"
    with HscArchive(sky) as server:
        options = ["--archive_url", server.url, "--psf", "--planes", "image", "mask", "variance"]
        assert build(root, *options) == 1
        first = len(server.requests)
        assert build(root, *options) == 1
        again = len(server.requests) - first
    return root, first, again


def keys_of(sky):
    return [str(number) for number in sky.table["object_id"][:GALAXIES].tolist()]


# --- what comes in ------------------------------------------------------------------------------------------


def test_every_galaxy_that_the_cuts_leave_with_its_catalogue(sky, built):
    root, *_ = built
    found, keys = rows(root / "127"), keys_of(sky)
    assert sorted(found) == sorted(set(keys) - {keys[HOLE]})
    for number, key in enumerate(keys):
        if number == HOLE:
            continue
        for name in ("ra", "dec", "specz_redshift", "specz_mag_i", *(f"{band}_cmodel_mag" for band in BANDS)):
            assert found[key][name] == sky.table[name][number], name
        assert found[key]["specz_name"].decode() == sky.table["specz_name"][number]
        assert found[key]["coord"].decode() == sky.table["coord"][number] and found[key]["specz_flag_homogeneous"]
    assert rejected(root / "127") == {keys[HOLE]: "no image: no data in band y there"}


def test_frames_have_their_galaxy_in_the_middle_and_all_of_its_light(sky, built):
    for key, row in rows(built[0] / "127").items():
        number = keys_of(sky).index(key)
        for place, band in enumerate(BANDS):
            image, padded = row["image"][place], int(row[f"{band}_n_padded"])
            assert image.dtype == np.float32 and 127**2 - 121**2 <= padded <= 127**2 - 118**2
            assert np.count_nonzero(image == 0) >= padded
            assert (row["variance"][place] == np.inf).sum() == padded
            assert (row["mask"][place] == 1 << 8).sum() == padded
            assert np.array_equal(np.isfinite(row["variance"][place]), row["mask"][place] != 1 << 8)
            assert row["variance"][place][63, 63] == np.float32(NOISE[band] ** 2)
            part = image[33:94, 33:94].astype(float)
            y, x = (np.mgrid[33:94, 33:94] * part / part.sum()).sum(axis=(1, 2))
            assert np.hypot(x - 63, y - 63) < 0.75
            mag = 27 - 2.5 * np.log10(part.sum())
            assert mag == pytest.approx(sky.table[f"{band}_cmodel_mag"][number], abs=0.06)
            psf = sky.psf(band, row["ra"], row["dec"])
            assert np.allclose(row["psf"][place], psf, atol=1e-6) and row["psf"].shape == (5, 41, 41)


def test_shapes_are_those_of_the_sky(sky, built):
    """Gaussians are Sersic profiles of n = 0.5; half of their light is within 1.177 sigma."""
    for key, row in rows(built[0] / "127").items():
        number = keys_of(sky).index(key)
        angle = (np.degrees(sky.angle[number]) + 180) % 180 - 90
        for band in BANDS:
            long, short = np.hypot(sky.sigma[number], SEEING[band] / 2.355) / PIXEL
            assert row[f"{band}_major_axis"] == pytest.approx(long, rel=0.12)
            assert row[f"{band}_ellipticity"] == pytest.approx(1 - short / long, abs=0.05)
            assert row[f"{band}_half_light_radius"] == pytest.approx(1.177 * np.sqrt(long * short), rel=0.08)
            assert row[f"{band}_sersic_index"] == pytest.approx(0.5, abs=max(0.1, 5 * row[f"{band}_sersic_n_err"]))
            assert row[f"{band}_sersic_r_e"] == pytest.approx(1.177 * sky.sigma[number].max() / PIXEL, rel=0.08)
            assert row[f"{band}_sersic_q"] == pytest.approx(sky.sigma[number, 1] / sky.sigma[number, 0], abs=0.06)
            assert row[f"{band}_sersic_flags"] in range(512) and row[f"{band}_total_galaxies"] >= 1
            if short / long < 0.85:
                turned = row[f"{band}_pos_angle"] - angle
                assert abs((turned + 90) % 180 - 90) < 6 and abs((row[f"{band}_sersic_pa"] - angle + 90) % 180 - 90) < 6


def test_three_datasets_with_the_same_galaxies_on_the_same_sides(built):
    root, *_ = built
    large = rows(root / "127")
    for name, other in (("64", rows(root / "64")), ("tabular", rows(root / "tabular"))):
        pixels = {"image", "mask", "variance"} & set(CONFIGS[name].by_name)
        for key, row in large.items():
            assert row["split"] in ("train", "validation", "test")
            for column in other[key]:
                wanted = row[column][:, 31:95, 31:95] if column in pixels else row[column]
                assert np.asarray(other[key][column]).tobytes() == wanted.tobytes() if column != "split" else wanted
        assert other.keys() == large.keys()
        assert list(verify(root / name, CONFIGS[name])) == [] and Manifest.load(root / name).config == name
    assert "psf" not in next(iter(rows(root / "tabular").values()))
    assert not any("raw" in column.name for column in Manifest.load(root / "127").columns)
    loaded = skyset.load("galaxiesml", "64", data_dir=str(root), split=next(iter(large.values()))["split"], streaming=True)
    row = next(iter(loaded.with_format("numpy")))
    assert row["image"].shape == (5, 64, 64) and row["image"].dtype == np.float32


def test_the_same_command_again_asks_for_nothing(built):
    _, first, again = built
    assert first > 10 and again == 0


# --- what can be asked for ----------------------------------------------------------------------------------


def test_frames_as_published_and_padding_by_nan_from_the_archives_alone(sky, built, tmp_path):
    root, *_ = built
    options = ["--from_tar", root / "Images", "--no_sersic", "--configs", "127", "--pad", "nan", "--centring", "published"]
    assert build(tmp_path, *options) == 0
    wanted = rows(root / "127")
    for key, row in rows(tmp_path / "127").items():
        assert row["split"] == wanted[key]["split"]
        for place, band in enumerate(BANDS):
            image, n_padded = row["image"][place], row[f"{band}_n_padded"]
            assert np.isnan(image).sum() == n_padded and np.isnan(image[[0, -1]]).all()
            edge = int(np.isnan(image[:, 63]).argmin())
            assert edge == int((127 - (~np.isnan(image[:, 63])).sum()) / 2)
            assert np.isnan(row[f"{band}_sersic_index"]) and row[f"{band}_sersic_flags"] == -1
            assert row[f"{band}_half_light_radius"] == pytest.approx(wanted[key][f"{band}_half_light_radius"], rel=0.01)
    assert {"mask", "variance", "psf"}.isdisjoint(row)
    settings = Manifest.load(tmp_path / "127").build["settings"]
    assert settings == {"pad": "nan", "centring": "published", "planes": [], "psf": False, "sersic": False}


def test_published_splits_are_kept(sky, built, tmp_path):
    root, *_ = built
    keys = sorted(rows(root / "127"))
    table = tmp_path / "splits.csv"
    table.write_text("object_id,split\n" + "".join(f"{key},{('testing', 'validation')[key == keys[0]]}\n" for key in keys))
    options = ["--from_tar", root / "Images", "--no_sersic", "--configs", "tabular", "--splits", table]
    assert build(tmp_path / "out", *options) == 0
    assert {key: row["split"] for key, row in rows(tmp_path / "out" / "tabular").items()} == {
        key: "validation" if key == keys[0] else "test" for key in keys
    }


def test_without_psfs_profiles_are_fitted_through_the_median_seeing(sky, built, tmp_path):
    from skyset.extraction.morphology import measure_cutouts

    root, *_ = built
    assert build(tmp_path, "--from_tar", root / "Images", "--limit", 1, "--configs", "127") == 0
    (row,) = rows(tmp_path / "127").values()
    bare = np.where(row["image"] == 0, np.nan, row["image"])
    found = measure_cutouts(bare[None], BANDS, {band: hsc_psf(band) for band in BANDS}, fitted=True)
    for name, values in found.items():
        assert row[name] == pytest.approx(values[0], rel=1e-3, nan_ok=True), name


def test_the_query_is_printed_and_nothing_else_happens(tmp_path, capsys):
    assert build(tmp_path / "out", "--print_sql") == 0
    assert "pdr2_wide.forced" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_one_build_at_a_time_in_a_folder(built, tmp_path, capsys):
    with alone(tmp_path):
        assert build(tmp_path, "--from_tar", built[0] / "Images") == 2
    assert capsys.readouterr().err == f"skyset: another build is running in {tmp_path}\n"


def test_without_numba_it_says_what_to_install_before_anything_is_asked(tmp_path):
    code = f"import sys; sys.modules['numba'] = None; from {MODULE} import main; sys.exit(main(sys.argv[1:]))"
    ended = subprocess.run([sys.executable, "-c", code, "-o", tmp_path / "out"], capture_output=True, text=True)
    assert ended.returncode == 2 and not (tmp_path / "out").exists()
    assert ended.stderr.startswith("skyset: measuring shapes needs numba: pip install 'skyset-surveys[extraction]'")
    assert ended.stderr.count("\n") == 1


# --- what cannot be used ------------------------------------------------------------------------------------


def spoilt(sky, folder, samples):
    """Archives of the samples, each but the first with a fault of its own; the reason by key."""
    first, *others = sorted(samples)
    reasons = {}

    def without(name):
        return lambda files: {key: data for key, data in files.items() if key != name}

    aside = window(sky.table["ra"][0], sky.table["dec"][0] + 1, 0.003, 0.003)
    faults = {
        "r.fits: the FITS file is of band i, not r": lambda files: files | {"r.fits": files["i.fits"]},
        "z.fits: its image is NaN everywhere": lambda files: files | {"z.fits": blank(files["z.fits"])},
        "no image in y": without("y.fits"),
        "u.fits is among its files, which is no band's image": lambda files: files | {"u.fits": files["g.fits"]},
        "g.fits: truncated FITS file": lambda files: files | {"g.fits": files["g.fits"][:30_000]},
        "i.fits: the target": lambda files: files | {"i.fits": stamp_bytes(sky, "i", aside)},
    }
    with TarSink(folder, key="object_id") as sink:
        sink.add(first, samples[first])
        for number, (reason, fault) in enumerate(faults.items()):
            files = dict(samples[others[number % len(others)]])
            row = json.loads(files.pop("json"))
            row.pop("sha256")
            key = str(int(first) + 1000 + number)
            sink.add(key, fault(files) | {"json": json.dumps(row | {"object_id": key}).encode()})
            reasons[key] = reason
    return first, reasons


def blank(data):
    """A cutout whose image is NaN."""
    size = read_stamp(data).image.size
    start = data.index(b"XTENSION")
    start = data.index(b"END" + 77 * b" ", start) // 2880 * 2880 + 2880
    return data[:start] + np.full(size, np.nan, ">f4").tobytes() + data[start + 4 * size :]


def test_what_cannot_be_used_is_rejected_by_name(sky, built, tmp_path, capsys):
    samples = archived(built[0] / "Images")
    good, reasons = spoilt(sky, tmp_path / "tars", samples)
    options = ["--from_tar", tmp_path / "tars", "--no_sersic"]
    assert build(tmp_path / "out", *options) == 1
    for config in CONFIGS:
        assert [*rows(tmp_path / "out" / config)] == [good]
        said = rejected(tmp_path / "out" / config)
        assert said.keys() == reasons.keys() and all(said[key].startswith(reason) for key, reason in reasons.items()), said
        assert list(verify(tmp_path / "out" / config, CONFIGS[config])) == []
    capsys.readouterr()
    assert build(tmp_path / "strict", *options, "--strict") == 2
    assert "--strict stops at the first" in capsys.readouterr().err


def test_an_archive_that_was_cut_gives_what_it_still_has(built, tmp_path):
    samples = archived(built[0] / "Images")
    with TarSink(tmp_path / "tars", key="object_id") as sink:
        for key in sorted(samples):
            sink.add(key, samples[key])
    path = tmp_path / "tars" / "images-00000.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    assert build(tmp_path / "out", "--from_tar", tmp_path / "tars", "--no_sersic", "--configs", "tabular") == 1
    found = rows(tmp_path / "out" / "tabular")
    assert 0 < len(found) < len(samples) and set(found) < set(samples)
    assert [*rejected(tmp_path / "out" / "tabular")] == ["images-00000.tar"]


def test_bands_of_different_tracts_are_each_centred_by_their_own_sky(sky, built, tmp_path):
    samples = archived(built[0] / "Images")
    key = min(samples)
    files, row = dict(samples[key]), json.loads(samples[key]["json"])
    tract = read_stamp(files["r.fits"]).tract
    files["r.fits"] = stamp_bytes(sky, "r", window(row["ra"], row["dec"], 10 / 3600, 10 / 3600, tract + 1))
    assert read_stamp(files["r.fits"]).tract == tract + 1
    del row["sha256"]
    with TarSink(tmp_path / "tars", key="object_id") as sink:
        sink.add(key, files | {"json": json.dumps(row).encode()})
    assert build(tmp_path / "out", "--from_tar", tmp_path / "tars", "--no_sersic", "--configs", "127") == 0
    image = rows(tmp_path / "out" / "127")[key]["image"][1].astype(float)[48:79, 48:79]
    assert np.abs((np.mgrid[-15:16, -15:16] * image / image.sum()).sum(axis=(1, 2))).max() < 0.75


# --- kills --------------------------------------------------------------------------------------------------


def test_killed_at_ten_moments_it_has_the_same_rows_and_asks_no_complete_list_twice(tmp_path):
    root, whole, sky = tmp_path / "out", tmp_path / "whole", BlobSky(4, seed=2)
    with HscArchive(sky) as server:
        options = ["--archive_url", server.url, "--no_sersic"]
        assert build(whole, *options) == 0
        lists = dict(server.lists)
        server.clear()
        costly = 0
        for step in range(5, 55, 5):  # a build of what is complete takes more
            before = server.lists.copy()
            assert steps_of(root, lambda: build(root, *options), step)
            asked = server.lists - before
            assert max(asked.values(), default=0) <= 1
            costly += bool(asked)
        assert build(root, *options) == 0
        # A kill may cost the lists that were on their way, two at a time.
        assert server.lists.keys() == lists.keys() and server.lists.total() <= len(lists) + 2 * costly
        asked = len(server.requests)
        assert build(root, *options) == 0 and len(server.requests) == asked
    for config in CONFIGS:
        assert same(rows(root / config), rows(whole / config))
        assert list(verify(root / config, CONFIGS[config])) == []
