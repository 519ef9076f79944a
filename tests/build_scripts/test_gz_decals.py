"""Galaxy Zoo DECaLS: its tables, campaigns and rings, to rows; what any survey of images and votes does: see the kit's."""

import json
import shutil
import subprocess
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import skyset
from skyset.build_scripts.gz_decals.build_parent_sample import RELEASE, main
from skyset.building.images_and_votes.tables import recognise
from skyset.cli import app
from skyset.errors import UserError
from skyset.loaders.gz_decals import ARCHIVES, CONFIGS, DR5, DR12, QUESTIONS, RECORD, SURVEY, TABLES
from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.pixels import decode
from skyset.questions import check, table
from skyset.splits import SPLITS, split_of
from skyset.testing.zenodo import ZenodoServer, arrow_table, draw_decals, write_decals
from tests.building.images_and_votes.builds import rejected, rows, same
from tests.conftest import once

COUNT = 16


@pytest.fixture(scope="session")
def galaxies():
    return draw_decals(COUNT, seed=7)


@pytest.fixture(scope="session")
def record(tmp_path_factory, galaxies) -> Path:
    """The files of the record. Do not change it."""
    return once(tmp_path_factory, "decals_record", lambda folder: write_decals(folder, galaxies))


@pytest.fixture(scope="session")
def whole(tmp_path_factory, record) -> Path:
    """All galaxies, from the record's files in a folder. Do not change it."""

    def make(folder: Path) -> None:
        assert build(folder / "gz_decals", "--local_data_path", record) == 0

    return once(tmp_path_factory, "built_decals", make) / "gz_decals"


def build(root, *arguments, processes=1):
    return main(["-o", str(root), "--num_processes", str(processes), *map(str, arguments)])


def differences(root):
    return list(verify(root, CONFIGS[Manifest.load(root).config]))


def folder_of(path, galaxies, names, tables=("auto",)):
    """A folder with some images and tables."""
    path.mkdir(exist_ok=True)
    for name in names:
        (path / f"{name}.png").write_bytes(galaxies.images[name])
    for name in tables:
        pq.write_table(arrow_table(galaxies.tables[name]), path / f"{name}.parquet")
    return path


def rings_csv(path, galaxies, names=None, **columns):
    names = galaxies.names if names is None else names
    values = {"id_str": names, "ring": [k % 2 for k in range(len(names))]} | columns
    pd.DataFrame(values).to_csv(path, index=False)
    return path


# --- votes --------------------------------------------------------------------------------------------------


def test_the_questions_hang_together():
    for tree in QUESTIONS.values():
        check(tree)
    assert [len(q.answers) for q in DR5] == [3, 2, 2, 3, 5, 3, 3, 3, 6, 4]
    assert [len(q.answers) for q in DR12] == [3, 2, 2, 2, 3, 3, 3, 3, 5, 4]
    assert table(DR12)[-1] == {
        "question": "merging",
        "answer": "merger",
        "text": DR12[-1].text,
        "depends_on": "smooth-or-featured_smooth | smooth-or-featured_featured-or-disk",
    }
    names = [column.name for column in SURVEY.columns]
    assert {"bar_strong_debiased", "bar-dr12_yes_fraction", "bar-auto_weak_fraction", "merging_total-votes"} <= set(names)
    assert len(names) == len(set(names))


def test_campaigns_are_recognised_by_their_answers(tmp_path, galaxies):
    for name, words in (("dr5", "votes of GZD-5"), ("dr12", "votes of GZD-1 and GZD-2"), ("auto", "automatic votes")):
        pq.write_table(arrow_table(galaxies.tables[name]), tmp_path / f"{name}.parquet")
        found = recognise(tmp_path / f"{name}.parquet", RELEASE)
        assert found.kinds == (words,)
        assert [column for column in found.left_out if "concentration" not in column] == []


def test_every_vote_and_image_comes_through(whole, galaxies):
    found = rows(whole)
    assert found.keys() == set(galaxies.names) and differences(whole) == [] and rejected(whole) == {}
    for campaign, tag in (("dr5", ""), ("dr12", "-dr12"), ("auto", "-auto")):
        columns, tree = galaxies.tables[campaign], DR12 if campaign == "dr12" else DR5
        for number, name in enumerate(columns["iauname"].tolist()):
            for question in tree:
                for suffix in ("_total-votes", "_proportion_volunteers_asked"):
                    if question.name + suffix in columns:
                        wanted = columns[question.name + suffix][number]
                        assert found[name][question.name + tag + suffix] == np.float32(wanted)
                for stem, answer in zip(question.stems, question.answers, strict=True):
                    for suffix in ("", "_fraction", "_debiased"):
                        if stem + suffix in columns:
                            wanted = np.float32(columns[stem + suffix][number])
                            given = found[name][f"{question.name}{tag}_{answer}{suffix}"]
                            assert np.array_equal(np.float32(given), wanted, equal_nan=True)
    for number, name in enumerate(galaxies.names):
        row = found[name]
        assert row["image"] == galaxies.images[name]
        assert (row["ra"], row["dec"]) == (galaxies.ra[number], galaxies.dec[number])
        assert row["split"] == split_of(name, "gz_decals")
        assert row["wrong_size_warning"] == galaxies.tables["auto"]["wrong_size_warning"][number]
    absent = set(galaxies.names) - set(galaxies.tables["dr5"]["iauname"].tolist())
    assert absent and all(found[name]["bar_weak"] == -1 and np.isnan(found[name]["bar_weak_fraction"]) for name in absent)


def test_the_loader_hands_out_images_and_splits(whole, galaxies):
    loaded = load_dataset("gz_decals", data_dir=str(whole))
    assert set(loaded) == set(SPLITS) and sum(map(len, loaded.values())) == COUNT
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    for split in SPLITS:
        for row in skyset.load("gz_decals", str(whole), split=split):
            assert split_of(row["object_id"], "gz_decals") == split
            assert np.array_equal(row["image"], decode(galaxies.images[row["object_id"]], "png"))


def test_the_record_gives_the_same(tmp_path, record, whole):
    with ZenodoServer(record, RECORD) as server:
        assert build(tmp_path, "--api_url", server.api_url) == 0
        assert all(server.downloads(name) == 1 for name in (*TABLES, *ARCHIVES))
    assert same(rows(tmp_path), rows(whole)) and differences(tmp_path) == []


# --- configs ------------------------------------------------------------------------------------------------


def test_rings_by_tag_and_by_votes(tmp_path, galaxies, record, whole):
    root = tmp_path / "gz_decals"
    shutil.copytree(whole, root)
    names, votes = galaxies.names, np.arange(COUNT)
    advanced = {"iauname": names, "rare-features_ring": votes % 5, "rare-features_total": np.full(COUNT, 8)}
    advanced |= {
        "smooth-or-featured_featured-or-disk_fraction": np.where(votes % 4 == 3, 0.2, 0.6),
        "disk-edge-on_no_fraction": np.where(votes % 7 == 6, 0.5, 0.9),
        "local_png_loc": names,
    }
    pq.write_table(pa.table(advanced), tmp_path / "advanced.parquet")
    rings = rings_csv(tmp_path / "rings.csv", galaxies, names)
    assert (
        build(
            root,
            "--configs",
            "rings_basic",
            "rings_advanced",
            "--catalog",
            rings,
            "--catalog",
            tmp_path / "advanced.parquet",
        )
        == 0
    )
    basic, found = rows(root / "rings_basic"), rows(root / "rings_advanced")
    assert {name: row["label"] for name, row in basic.items()} == {name: k % 2 for k, name in enumerate(names)}
    kept = [k for k in range(COUNT) if k % 4 != 3 and k % 7 != 6]
    assert found.keys() == {names[k] for k in kept}
    for k in kept:
        row = found[names[k]]
        assert row["ring_fraction"] == np.float32(k % 5 / 8) and (row["ring_votes"], row["ring_total-votes"]) == (k % 5, 8)
        assert row["label"] == (1 if k % 5 >= 3 else 0 if k % 5 == 0 else -1)
        assert np.isnan(row["smooth_fraction"]) and row["featured_fraction"] == np.float32(0.6)
        assert row["edge_on_fraction"] == pytest.approx(0.1, abs=1e-6)
        assert row["image"] == galaxies.images[names[k]]
    assert all(row["split"] == split_of(name, "gz_decals") for name, row in (basic | found).items())
    notes = Manifest.load(root / "rings_advanced").build
    assert notes["config"] == "rings_advanced" and notes["selection"][-1]["left"] == len(kept)
    assert same(rows(root), rows(whole)) and differences(root) == []
    assert differences(root / "rings_basic") == [] and differences(root / "rings_advanced") == []


def test_rings_from_the_votes_prefer_the_network(tmp_path, galaxies, record):
    columns = galaxies.tables["dr5"] | {"rare-features_ring_fraction": np.full(len(galaxies.tables["dr5"]["iauname"]), 0.4)}
    folder = folder_of(tmp_path / "in", galaxies, galaxies.names, ("auto",))
    pq.write_table(arrow_table(columns), folder / "votes.parquet")
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    auto = galaxies.tables["auto"]
    passes = (auto["smooth-or-featured_smooth_fraction"] < 0.75) & (auto["disk-edge-on_yes_fraction"] < 0.25)
    has_votes = set(galaxies.tables["dr5"]["iauname"].tolist())
    wanted = {name for name, keep in zip(galaxies.names, passes, strict=True) if keep and name in has_votes}
    assert wanted and rows(tmp_path / "out" / "rings_advanced").keys() == wanted


@pytest.mark.parametrize("value", ["x", "2", "0.5"])
def test_a_label_that_is_none(tmp_path, galaxies, value, capsys):
    names = galaxies.names[:3]
    folder = folder_of(tmp_path / "in", galaxies, names, ())
    (folder / "rings.csv").write_text(
        "id_str,ring\n" + "".join(f"{n},{v}\n" for n, v in zip(names, ("1", "0", value), strict=True))
    )
    status = build(tmp_path / "out", "--local_data_path", folder)
    if value == "2":
        assert status == 1 and "ring is 2" in rejected(tmp_path / "out" / "rings_basic")[names[2]]
    else:
        assert status == 2 and "column ring" in capsys.readouterr().err


def test_configs_in_datasets(whole, tmp_path, capsys):
    assert datasets.get_dataset_config_names("gz_decals") == list(CONFIGS)
    assert datasets.get_dataset_split_names("gz_decals", data_dir=str(whole)) == list(Manifest.load(whole).splits)
    with pytest.raises(UserError, match=r"config rings_basic is not built in .*--configs rings_basic"):
        load_dataset("gz_decals", "rings_basic", data_dir=str(whole), split="train", streaming=True)
    with pytest.raises(UserError, match="gz_decals has no config 'rings'; known: default, rings_basic"):
        load_dataset("gz_decals", "rings", data_dir=str(whole), split="train", streaming=True)


def test_a_config_is_not_taken_for_another(tmp_path, galaxies, whole):
    root = tmp_path / "gz_decals"
    shutil.copytree(whole, root)
    assert build(root, "--configs", "rings_basic", "--catalog", rings_csv(tmp_path / "rings.csv", galaxies)) == 0
    with pytest.raises(UserError, match="holds config rings_basic of gz_decals, not default"):
        load_dataset("gz_decals", data_dir=str(root / "rings_basic"), split="train", streaming=True)
    assert same(rows(root), rows(whole)) and differences(root) == []  # the folder below is none of its partitions
    show = ["show", "gz_decals", "--data_dir"]
    for arguments in (
        ["verify", root / "rings_basic"],
        ["info", root / "rings_basic"],
        [*show, root / "rings_basic", "-o", tmp_path / "a.png"],
        [*show, root, "-o", tmp_path / "b.png"],
    ):
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments], prog_name="skyset")
        assert end.value.code == 0
    assert (tmp_path / "a.png").stat().st_size > 1000 < (tmp_path / "b.png").stat().st_size


@pytest.mark.datasets3
def test_the_script_form(whole):
    python = Path(__file__).parents[2] / ".venv-datasets3" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with datasets 3")
    script = Path(__file__).parents[2] / "loaders" / "gz_decals.py"
    code = (
        "import datasets, json; rows = datasets.load_dataset("
        f"{str(script)!r}, 'default', data_dir={str(whole)!r}, split='test', streaming=True, trust_remote_code=True); "
        "print(json.dumps([[row['object_id'], row['image'].size] for row in rows]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    wanted = {name for name, row in rows(whole).items() if row["split"] == "test"}
    assert {name for name, size in json.loads(done.stdout.splitlines()[-1])} == wanted


# --- real images --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_350_real_galaxies(real_decals, real):
    folder, out = real("gz_decals"), (real_decals.parent / "said.txt").read_text()
    assert "not used: volunteer_votes_panoptes.csv: column id_str holds no IAU names" in out
    table = pd.read_csv(folder / "example_ring_catalog_basic.csv").set_index("id_str")
    for root in (real_decals, real_decals / "rings_basic"):
        assert differences(root) == [] and rejected(root) == {}
        found = rows(root)
        assert found.keys() == set(table.index)
        for name, row in found.items():
            assert row["image"] == (folder / "images" / f"{name}.jpg").read_bytes()
    rings = load_dataset("gz_decals", "rings_basic", data_dir=str(real_decals))
    assert {split: len(rings[split]) for split in rings} == {"train": 274, "validation": 35, "test": 41}
    for split in rings.values():
        assert split.features["label"].names == ["no_ring", "ring"]
        for row in split.remove_columns("image"):
            wanted = table.loc[row["object_id"]]
            assert row["label"] == wanted["ring"]
            name = "disk-edge-on_no_fraction"
            assert row[name] == np.float32(wanted[name])
