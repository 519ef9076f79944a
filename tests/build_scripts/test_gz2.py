"""Galaxy Zoo 2, from the release's tables, with and without images, to rows that are equal to the tables."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from datasets import concatenate_datasets, get_dataset_config_names, load_dataset

import skyset
from skyset.build_scripts.gz2.build_parent_sample import main
from skyset.cli import app
from skyset.loaders.gz2 import ARCHIVE, CONFIGS, MAPPING, QUESTIONS, RECORD, VOTES
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.questions import check, table
from skyset.splits import SPLITS, split_of
from skyset.testing.zenodo import ZenodoServer, picture, write_zip

COUNT = 15
IDS = [587722981736120347 + 13 * k for k in range(COUNT)]


def build(root, *arguments, processes=1):
    return main(["-o", str(root), "--num_processes", str(processes), *map(str, arguments)])


def rows(root, config="default", **options):
    """All rows by name, as the loader hands them out."""
    splits = load_dataset("gz2", config, data_dir=str(root), **options)
    found = [row | {"split": split} for split, rows in splits.items() for row in rows.with_format("numpy")]
    assert len({row["object_id"] for row in found}) == len(found)
    return {row["object_id"]: row for row in found}


def rejected(root):
    path = Path(root) / "rejected.csv"
    return {row["key"]: row["reason"] for row in csv.DictReader(path.read_text().splitlines())} if path.exists() else {}


def differences(root):
    return list(verify(root, CONFIGS[Manifest.load(root).config]))


@pytest.fixture(scope="module")
def all_votes() -> pd.DataFrame:
    """A table like that of Hart et al. 2016, with every third galaxy a ring; all in one cell."""
    dice = np.random.default_rng(7)
    columns = {
        "dr7objid": IDS,
        "ra": np.round(180.5 + dice.random(COUNT), 5),
        "dec": np.round(dice.random(COUNT), 5),
        "rastring": "12:00:00.00",
        "sample": "original",
        "gz2_class": "Sb+t",
        "total_classifications": 40,
        "total_votes": 200,
    }
    for column in VOTES:
        integer = column.dtype == "int16"
        columns[column.name] = dice.integers(0, 2, COUNT) if integer else np.round(dice.random(COUNT), 3)
    columns["t08_odd_feature_a19_ring_count"] = np.array([1, 5, 20] * (COUNT // 3))
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def votes(all_votes) -> pd.DataFrame:
    """The votes on a few answers, which is what most tests need."""
    few = ("t02_edgeon_a04_yes", "t04_spiral_a08", "t08_odd_feature_a19")
    return all_votes.drop(columns=[column.name for column in VOTES if not column.name.startswith(few)])


@pytest.fixture
def folder(tmp_path, votes) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    votes.to_csv(folder / "gz2_hart16.csv.gz", index=False)
    return folder


# --- the votes alone ----------------------------------------------------------------------------------------


def test_the_questions_hang_together():
    check(QUESTIONS["gz2"])
    lines = table(QUESTIONS["gz2"])
    assert len(lines) == 37 and sorted(int(line["answer"][1:3]) for line in lines) == [*range(1, 35), 36, 37, 38]
    assert get_dataset_config_names("gz2") == list(CONFIGS)


def test_real_galaxies_are_equal_to_the_table(tmp_path, real):
    """264 of the 19,761 of Stripe 82's table."""
    path = real("gz2/gz2_stripe82_excerpt.fits.gz")
    assert build(tmp_path, "--local_data_path", path.parent, processes=2) == 0
    assert differences(tmp_path) == [] and rejected(tmp_path) == {}
    published = Table.read(path)
    published.sort("objid")
    loaded = concatenate_datasets(list(load_dataset("gz2", data_dir=str(tmp_path)).values())).with_format("numpy")
    columns = loaded[:]
    order = np.argsort(columns["objid"])
    assert len(published.colnames) == 228 and columns["objid"].dtype == np.int64
    for name in published.colnames:
        wanted, given = np.asarray(published[name]), np.asarray(columns[name])[order]
        assert np.array_equal(given, wanted.astype(str) if wanted.dtype.kind == "S" else wanted), name
    names = np.asarray(columns["object_id"])[order].tolist()
    assert names == [str(objid) for objid in published["objid"].tolist()]
    rings = [load_dataset("gz2", "rings", data_dir=str(tmp_path), split=split) for split in SPLITS]
    share = np.asarray(published["t08_odd_feature_a19_ring_count"]) / published["total_classifications"]
    labels = sorted(concatenate_datasets(rings)["label"])
    counts = [int(((share >= 0.05) & (share <= 0.25)).sum()), int((share < 0.05).sum()), int((share > 0.25).sum())]
    assert [labels.count(label) for label in (-1, 0, 1)] == counts


def test_a_table_without_images(tmp_path, folder, all_votes, capsys):
    all_votes.to_csv(folder / "gz2_hart16.csv.gz", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert "a catalogue of votes alone" in capsys.readouterr().out
    found = rows(tmp_path / "out")
    assert found.keys() == {str(objid) for objid in IDS}
    for record in all_votes.to_dict("records"):
        row = found[str(record["dr7objid"])]
        assert "image" not in row and "objid" not in row and row["split"] == split_of(row["object_id"], "gz2")
        for name, value in record.items():
            assert row[name] == (np.float32(value) if isinstance(value, float) and name not in ("ra", "dec") else value), (
                name
            )
    assert differences(tmp_path / "out") == []
    with pytest.raises(SystemExit) as end:
        app(["show", "gz2", "--data_dir", str(tmp_path / "out"), "-o", str(tmp_path / "a.png")], prog_name="skyset")
    assert end.value.code in (0, None) and (tmp_path / "a.png").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "fits", "vot.gz"])
def test_every_format_gives_the_same(tmp_path, votes, suffix):
    path = tmp_path / f"table.{suffix}"
    if suffix == "csv":
        votes.to_csv(path, index=False)
    elif suffix == "parquet":
        votes.to_parquet(path)
    elif suffix == "fits":
        Table.from_pandas(votes).write(path)
    else:
        Table.from_pandas(votes).write(tmp_path / "table.vot", format="votable")
        subprocess.run(["gzip", tmp_path / "table.vot"], check=True)
    assert build(tmp_path / "out", "--catalog", path, "--no_images") == 0
    found = rows(tmp_path / "out")
    assert all(found[str(objid)]["dr7objid"] == objid for objid in IDS)
    name = "t04_spiral_a08_spiral_debiased"
    assert [found[str(objid)][name] for objid in IDS] == votes[name].astype(np.float32).tolist()


def test_rings_by_the_share_of_all_volunteers(tmp_path, folder):
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    found = rows(tmp_path / "out", "rings")
    assert [found[str(objid)]["label"] for objid in IDS] == [0, -1, 1] * 5
    assert [found[str(objid)]["ring_votes"] for objid in IDS] == [1, 5, 20] * 5
    assert found[str(IDS[1])]["ring_fraction"] == np.float32(5 / 40)
    whole = rows(tmp_path / "out")
    assert all(row["split"] == whole[name]["split"] and row["ra"] == whole[name]["ra"] for name, row in found.items())
    assert differences(tmp_path / "out" / "rings") == []


def test_two_tables_and_a_column_nobody_knows(tmp_path, folder, votes, capsys):
    first, second = votes[:10].drop(columns=["gz2_class"]), votes[5:].assign(moon=1)
    (folder / "gz2_hart16.csv.gz").unlink()
    first.to_csv(folder / "a.csv", index=False)
    second.to_csv(folder / "b.csv", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert "b.csv: columns that are left out: moon" in capsys.readouterr().out
    found = rows(tmp_path / "out")
    assert len(found) == COUNT
    assert [found[str(objid)]["gz2_class"] for objid in IDS] == [""] * 5 + ["Sb+t"] * 10


def test_ids_that_were_floats_are_refused(tmp_path, folder, votes, capsys):
    votes.assign(dr7objid=votes["dr7objid"].astype(float)).to_csv(folder / "b.csv", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 2
    error = capsys.readouterr().err
    assert "column dr7objid" in error and "floating point" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("column", ["dr8objid", "specobjid"])
def test_other_ids_that_were_floats_are_refused(tmp_path, folder, votes, capsys, column):
    ids = [f"{1.23764870420562e18 + 1e6 * k:.14E}" for k in range(COUNT)]
    votes.assign(**{column: ids}).to_csv(folder / "gz2_hart16.csv.gz", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 2
    error = capsys.readouterr().err
    assert f"column {column}" in error and "floating point" in error and len(error.splitlines()) == 1
    votes.assign(**{column: [float(k) for k in range(1, COUNT + 1)]}).to_csv(folder / "gz2_hart16.csv.gz", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    assert rows(tmp_path / "out")[str(IDS[4])][column] == 5


def test_second_rows_and_impossible_positions(tmp_path, folder, votes):
    spoilt = pd.concat([votes, votes[3:4]])
    spoilt.iloc[5, spoilt.columns.get_loc("dec")] = np.nan
    spoilt.iloc[6, spoilt.columns.get_loc("ra")] = 400
    spoilt.to_csv(folder / "gz2_hart16.csv.gz", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 1
    reasons = rejected(tmp_path / "out")
    assert reasons.keys() == {str(IDS[3]), str(IDS[5]), str(IDS[6])} and "second row" in reasons[str(IDS[3])]
    assert all("not on the sky" in reasons[str(IDS[k])] for k in (5, 6)) and len(rows(tmp_path / "out")) == COUNT - 2


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("t02_edgeon_a04_yes_count", 40000, "int16 cannot hold"),
        ("total_votes", 1.5, "cannot hold"),
        ("t02_edgeon_a04_yes_debiased", "many", "column t02_edgeon_a04_yes_debiased"),
    ],
)
def test_a_number_that_does_not_fit(tmp_path, folder, votes, capsys, column, value, words):
    spoilt = votes.astype({column: object})
    spoilt.loc[4, column] = value
    spoilt.to_csv(folder / "gz2_hart16.csv.gz", index=False)
    assert build(tmp_path / "out", "--local_data_path", folder) == 2
    error = capsys.readouterr().err
    assert column in error and words in error and len(error.splitlines()) == 1


def test_what_is_asked_for_wrongly(tmp_path, folder, capsys):
    (tmp_path / "stars.csv").write_text("objid,ra,dec\n1,2,3\n")
    for arguments, words in (
        (["--local_data_path", tmp_path / "nowhere"], "is not a folder"),
        (["--catalog", tmp_path / "stars.csv", "--no_images"], "no votes of Galaxy Zoo 2"),
        (["--local_data_path", folder, "--configs", "representations"], "needs --representations"),
        (["--local_data_path", folder, "--configs", "rings"], "no manifest.json"),
    ):
        assert build(tmp_path / "out", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1


# --- with images --------------------------------------------------------------------------------------------


def test_images_by_objid_and_by_asset(tmp_path, folder):
    images = {objid: picture(k, kind="JPEG") for k, objid in enumerate(IDS)}
    pd.DataFrame({"objid": [*IDS[10:], IDS[10]], "sample": "original", "asset_id": [*range(1, 6), 99]}).to_csv(
        folder / MAPPING, index=False
    )
    for objid in IDS[:10]:
        (folder / f"{objid}.jpg").write_bytes(images[objid])
    assets = {f"images/{k}.jpg": images[objid] for k, objid in enumerate(IDS[10:], 1)}
    write_zip(folder / "images_gz2.zip", assets | {"images/99.jpg": picture(99), "images/500.jpg": picture(98)})
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    stored = load_dataset("gz2", data_dir=str(tmp_path / "out"), split="train")
    for row in stored:
        assert np.array_equal(np.asarray(row["image"]), np.asarray(pixels(images[int(row["object_id"])])))
    assert len(rows(tmp_path / "out")) == COUNT and "image" in rows(tmp_path / "out", "rings")[str(IDS[0])]
    assert set(pd.read_csv(tmp_path / "out" / "unused.csv")["key"]) == {99, 500}


def test_images_that_come_later(tmp_path, folder):
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    for k, objid in enumerate(IDS):
        (folder / f"{objid}.jpg").write_bytes(picture(k, kind="JPEG"))
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    for config in ("default", "rings"):
        found = rows(tmp_path / "out", config)
        assert len(found) == COUNT and all(np.asarray(row["image"]).shape == (24, 24, 3) for row in found.values())
    assert differences(tmp_path / "out") == [] and differences(tmp_path / "out" / "rings") == []


def test_a_mapping_that_changed_changes_the_images(tmp_path, folder):
    images = [picture(k, kind="JPEG") for k in range(COUNT)]
    for k, data in enumerate(images):
        (folder / f"{k}.jpg").write_bytes(data)
    for order in (range(COUNT), range(COUNT - 1, -1, -1)):
        pd.DataFrame({"objid": IDS, "sample": "original", "asset_id": order}).to_csv(folder / MAPPING, index=False)
        assert build(tmp_path / "out", "--local_data_path", folder) == 0
        found = rows(tmp_path / "out")
        for objid, k in zip(IDS, order, strict=True):
            assert np.array_equal(found[str(objid)]["image"], np.asarray(pixels(images[k])))


def pixels(data):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data))


def test_from_zenodo_and_the_published_table(tmp_path, folder):
    record = tmp_path / "record"
    record.mkdir()
    images = {objid: picture(k, kind="JPEG") for k, objid in enumerate(IDS)}
    pd.DataFrame({"objid": IDS, "sample": "original", "asset_id": range(COUNT)}).to_csv(record / MAPPING, index=False)
    members = {f"images/{k}.jpg": images[objid] for k, objid in enumerate(IDS)}
    write_zip(record / ARCHIVE, members | {"images/14.jpg": images[IDS[14]][:200]})
    shutil.copy(folder / "gz2_hart16.csv.gz", record)
    with ZenodoServer(record, RECORD) as server:
        published = f"{server.api_url}{RECORD}/files/gz2_hart16.csv.gz/content"
        where = ["--api_url", server.api_url, "--catalog_url", published]
        assert build(tmp_path / "tiny", "--tiny", *where) == 0
        assert len(rows(tmp_path / "tiny")) == 5
        for _ in range(2):
            assert build(tmp_path / "out", *where) == 1
            assert (
                rejected(tmp_path / "out").keys() == {str(IDS[14])}
                and "truncated" in rejected(tmp_path / "out")[str(IDS[14])]
            )
            assert len(rows(tmp_path / "out")) == COUNT - 1
        assert server.downloads(ARCHIVE) > 0
    assert not (tmp_path / "out" / "raw").exists() and differences(tmp_path / "out") == []


def test_representations_by_objid(tmp_path, folder, votes):
    vectors = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32)
    names = [str(objid) for objid in (*IDS[:3], 588018090547020096)]
    pq.write_table(pa.table({"id_str": names, "feat": list(vectors)}), tmp_path / "cnn_features_gz2.parquet")
    arguments = ("--local_data_path", folder, "--representations", tmp_path / "cnn_features_gz2.parquet")
    assert build(tmp_path / "out", *arguments) == 1
    found = rows(tmp_path / "out", "representations")
    assert found.keys() == set(names[:3]) and rejected(tmp_path / "out" / "representations").keys() == {names[3]}
    for number, name in enumerate(names[:3]):
        assert np.array_equal(found[name]["representation"], vectors[number])
        assert found[name]["ra"] == votes["ra"][number]


def test_representations_whose_ids_were_floats(tmp_path, folder, capsys):
    pq.write_table(pa.table({"id_str": [5.88e17], "feat": [[1.0] * 9]}), tmp_path / "features.parquet")
    assert build(tmp_path / "out", "--local_data_path", folder, "--representations", tmp_path / "features.parquet") == 2
    assert "column id_str" in capsys.readouterr().err


@pytest.mark.datasets3
def test_the_script_form(tmp_path, folder):
    python = Path(__file__).parents[2] / ".venv-datasets3" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with datasets 3")
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    script = Path(__file__).parents[2] / "loaders" / "gz2.py"
    code = (
        f"import datasets, json; rows = datasets.load_dataset({str(script)!r}, 'rings', data_dir={str(tmp_path / 'out')!r}, "
        "split='train', streaming=True, trust_remote_code=True); print(json.dumps([row['object_id'] for row in rows]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    wanted = {row["object_id"] for row in skyset.load("gz2", str(tmp_path / "out"), config="rings")}
    assert set(json.loads(done.stdout.splitlines()[-1])) == wanted
