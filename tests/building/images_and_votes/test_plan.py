"""Builds from a folder: what comes in, what stays out and why, and what is made again."""

import shutil
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyset.pixels import decode
from skyset.sky import position_of
from skyset.splits import split_of
from skyset.testing.zenodo import picture, write_zip
from tests.building.images_and_votes.builds import COUNT, build, differences, rejected, rows, same
from tests.building.images_and_votes.zoo import CAMPAIGN, TABLE

ONLY = ("--configs", "default")

# --- what comes in ------------------------------------------------------------------------------------------


def test_every_vote_and_image_comes_through(whole, galaxies):
    found = rows(whole)
    assert found.keys() == set(galaxies.names) and differences(whole) == [] and rejected(whole) == {}
    for record in galaxies.table.to_dict("records"):
        row = found[record["name"]]
        assert row["image"] == galaxies.images[record["name"]] and row["split"] == split_of(record["name"], "zoo")
        assert (row["ra"], row["dec"], row["redshift"]) == (record["ra"], record["dec"], np.float32(record["z"]))
        assert all(row[column.name] == np.dtype(column.dtype).type(record[column.name]) for column in CAMPAIGN.columns)
        assert "warning" not in row


def test_a_dataset_that_is_cut_out(whole, galaxies):
    found, default = rows(whole / "rings"), rows(whole)
    assert found.keys() == default.keys() and differences(whole / "rings") == []
    for record in galaxies.table.to_dict("records"):
        row, name = found[record["name"]], record["name"]
        share = record["ring_yes_count"] / (record["ring_yes_count"] + record["ring_no_count"])
        assert row["ring_share"] == np.float32(share) and row["label"] == (1 if share > 0.5 else 0 if share < 0.25 else -1)
        assert all(row[column] == default[name][column] for column in ("image", "ra", "dec", "split"))


def test_decoded_pixels(tmp_path, galaxies):
    folder = galaxies.write_folder(tmp_path / "in", galaxies.names[:3])
    assert build(tmp_path / "out", "--local_data_path", folder, "--decode") == 0
    for root in (tmp_path / "out", tmp_path / "out" / "rings"):
        for name, row in rows(root).items():
            assert row["image"].dtype == np.uint8 and np.array_equal(row["image"], decode(galaxies.images[name], "png"))


def test_a_published_split_goes_first(tmp_path, galaxies):
    names = galaxies.names
    folder = galaxies.write_folder(tmp_path / "in", split=["val"] * 5 + ["test"] * 5 + ["", "no split"])
    assert build(tmp_path / "out", "--local_data_path", folder) == 0
    wanted = ["validation"] * 5 + ["test"] * 5 + [split_of(name, "zoo") for name in names[10:]]
    for root in (tmp_path / "out", tmp_path / "out" / "rings"):
        assert [rows(root)[name]["split"] for name in names] == wanted


def test_images_in_archives_and_folders_whatever_their_extensions_say(tmp_path, galaxies):
    names = galaxies.names
    folder = galaxies.write_folder(tmp_path / "in", names[:4])
    galaxies.table.to_csv(folder / TABLE, index=False)
    (folder / f"{names[0]}.png").rename(folder / f"{names[0]}.jpeg")  # a PNG that says JPEG
    shutil.move(folder / f"{names[1]}.png", folder / f"{names[1]}.PNG")
    (folder / "a" / "b").mkdir(parents=True)
    write_zip(
        folder / "a" / "b" / "c.zip",
        {f"x/{name}.png": galaxies.images[name] for name in names[4:]}
        | {f"__MACOSX/._{names[0]}.png": b"macOS", "readme.txt": b"no image"},
    )
    assert build(tmp_path / "out", "--local_data_path", folder, *ONLY) == 0
    assert {name: row["image"] for name, row in rows(tmp_path / "out").items()} == galaxies.images


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGBA", "1"])
def test_unusual_pngs_are_kept_and_decode_to_rgb(tmp_path, galaxies, mode):
    names, strange = galaxies.names[:2], picture(5, side=8, mode=mode)
    folder = galaxies.write_folder(tmp_path / "in", names)
    (folder / f"{names[0]}.png").write_bytes(strange)
    assert build(tmp_path / "kept", "--local_data_path", folder, *ONLY) == 0
    assert rows(tmp_path / "kept")[names[0]]["image"] == strange
    assert build(tmp_path / "decoded", "--local_data_path", folder, *ONLY, "--decode") == 0
    pixels = rows(tmp_path / "decoded")[names[0]]["image"]
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8 and np.array_equal(pixels, decode(strange, "png"))


def test_vectors_by_name_need_neither_images_nor_votes(tmp_path, galaxies):
    names = [*galaxies.names[:3], "J000000.80+004200.0", galaxies.names[0]]
    vectors = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    pq.write_table(pa.table({"name": names, "feat": list(vectors)}), tmp_path / "features.parquet")
    arguments = ("--configs", "representations", "--representations", tmp_path / "features.parquet")
    assert build(tmp_path / "alone", *arguments) == 1
    assert not (tmp_path / "alone" / "manifest.json").exists()
    assert build(tmp_path / "out", *arguments, "--local_data_path", galaxies.write_folder(tmp_path / "in")) == 1
    for root in (tmp_path / "alone", tmp_path / "out"):
        found = rows(root / "representations")
        assert found.keys() == set(names) and "second row" in rejected(root / "representations")[names[0]]
        assert all(np.array_equal(found[name]["vector"], vectors[k]) for k, name in enumerate(names[:4]))
        assert found[names[3]]["ra"] == position_of(names[3])[0] and differences(root / "representations") == []
    where = galaxies.table.set_index("name").loc[names[0], "ra"]
    assert rows(tmp_path / "out" / "representations")[names[0]]["ra"] == where
    assert rows(tmp_path / "alone" / "representations")[names[0]]["ra"] == position_of(names[0])[0]


# --- what stays out -----------------------------------------------------------------------------------------


def test_rows_without_image_images_without_row_and_second_rows(tmp_path, galaxies, capsys):
    names, images = galaxies.names[:6], galaxies.images
    folder = galaxies.write_folder(tmp_path / "in", names)
    pd.concat([galaxies.rows(names), galaxies.rows(names[3:4])]).to_csv(folder / TABLE, index=False)
    (folder / f"{names[0]}.png").unlink()
    (folder / "J111111.11+111111.1.png").write_bytes(images[names[0]])
    (folder / f"{names[1]}.jpg").write_bytes(images[names[1]])
    assert build(tmp_path / "out", "--local_data_path", folder) == 1
    assert rows(tmp_path / "out").keys() == set(names[1:])
    assert rejected(tmp_path / "out") == {
        names[0]: "in the catalogue, but there is no image of it",
        names[3]: f"a second row of {names[3]} in {TABLE} (row 7)",
    }
    assert set(pd.read_csv(tmp_path / "out" / "unused.csv")["key"]) == {"J111111.11+111111.1", names[1]}
    assert "2 images are of no galaxy in the catalogues, or second ones" in capsys.readouterr().out
    assert "not among the objects" in rejected(tmp_path / "out" / "rings")[names[0]]


def test_images_without_row_alone_are_no_fault(tmp_path, galaxies):
    folder = galaxies.write_folder(tmp_path / "in")
    galaxies.rows(galaxies.names[:9]).to_csv(folder / TABLE, index=False)
    assert build(tmp_path / "out", "--local_data_path", folder, *ONLY) == 0
    assert len(rows(tmp_path / "out")) == 9 and len(pd.read_csv(tmp_path / "out" / "unused.csv")) == COUNT - 9


@pytest.mark.parametrize("name", ["../../x", "", "J" * 30, "J000411.19+0209\u00e9", ".hidden"])
def test_names_that_cannot_be_ones(tmp_path, galaxies, name):
    names = galaxies.names[:3]
    folder = galaxies.write_folder(tmp_path / "in", names)
    (folder / TABLE).unlink()
    values = {"name": [*names, name], "shape_round_count": [1] * 4, "ra": [10.0] * 4, "dec": [1.0] * 4}
    pq.write_table(pa.table(values), folder / "votes.parquet")
    assert build(tmp_path / "out", "--local_data_path", folder, "--files_per_object") == 1
    assert rows(tmp_path / "out").keys() == set(names) and name in rejected(tmp_path / "out")


BAD_IMAGES = {
    "truncated": (lambda data: data[: len(data) // 2], "truncated"),
    "empty": (lambda data: b"", "empty"),
    "html": (lambda data: b"<!DOCTYPE html><html>no</html>", "no image"),
    "bmp": (lambda data: b"BM" + data, "BMP"),
    "flipped": (lambda data: data[:60] + bytes(b ^ 0xFF for b in data[60:90]) + data[90:], "damaged"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("decoded", [False, True])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, galaxies, kind, decoded):
    names = galaxies.names[:3]
    folder = galaxies.write_folder(tmp_path / "in", names)
    spoil, word = BAD_IMAGES[kind]
    (folder / f"{names[1]}.png").write_bytes(spoil(galaxies.images[names[1]]))
    arguments = ("--local_data_path", folder, *ONLY, *(["--decode"] if decoded else []))
    assert build(tmp_path / "out", *arguments) == 1
    assert rows(tmp_path / "out").keys() == {names[0], names[2]} and word in rejected(tmp_path / "out")[names[1]]
    (folder / f"{names[1]}.png").write_bytes(galaxies.images[names[1]])
    assert build(tmp_path / "out", *arguments) == 0 and rejected(tmp_path / "out") == {}
    assert rows(tmp_path / "out").keys() == set(names)


def test_hostile_archives(tmp_path, galaxies):
    names, images = galaxies.names[:6], galaxies.images
    folder = tmp_path / "in"
    folder.mkdir()
    galaxies.rows(names).to_csv(folder / TABLE, index=False)
    path = write_zip(
        folder / "a.zip",
        {
            f"{names[0]}.png": images[names[0]],
            f"../../{names[1]}.png": images[names[1]],
            f"/{names[2]}.png": images[names[2]],
        },
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{names[3]}.png", bytes(65 << 20))
        archive.writestr(f"{names[4]}.png", images[names[4]])
        archive.writestr(f"{names[5]}.png", images[names[5]], zipfile.ZIP_STORED)
    data = path.read_bytes()
    at = data.rindex(f"{names[4]}.png".encode())  # in the list at the end: flags are 38 bytes before the name
    data = data[: at - 38] + bytes([data[at - 38] | 1]) + data[at - 37 :]
    stored = data.index(images[names[5]])
    data = data[: stored + 50] + bytes([data[stored + 50] ^ 1]) + data[stored + 51 :]
    path.write_bytes(data)
    (folder / "b.zip").write_bytes(b"<html>down for maintenance</html>")
    (folder / "c.zip").write_bytes(data[: len(data) // 2])
    assert build(tmp_path / "out", "--local_data_path", folder, *ONLY) == 1
    assert rows(tmp_path / "out").keys() == {names[0]}
    reasons = rejected(tmp_path / "out")
    assert "leads out of" in reasons[names[1]] and "leads out of" in reasons[names[2]]
    assert "68157440 bytes unpacked" in reasons[names[3]] and reasons[names[4]] == "encrypted"
    assert "Bad CRC-32" in reasons[names[5]]
    assert "no ZIP archive" in reasons["b.zip"] and "no ZIP archive" in reasons["c.zip"]
    assert not list(tmp_path.parent.glob("*.png")) and not (tmp_path / f"{names[1]}.png").exists()


def test_a_join_that_fails_is_one_line_that_names_file_and_column(tmp_path, galaxies, capsys):
    folder = galaxies.write_folder(tmp_path / "in", galaxies.names[:3], warning=["1", "0", "perhaps"])
    assert build(tmp_path / "out", "--local_data_path", folder) == 2
    error = capsys.readouterr().err
    assert f"{TABLE}: column warning: holds 'perhaps', no int32" in error and len(error.splitlines()) == 1


def test_tables_of_something_else_are_named_and_not_used(tmp_path, galaxies, capsys):
    folder = galaxies.write_folder(tmp_path / "in", galaxies.names[:3], seeing=1.0)
    (folder / "numbers.csv").write_text("name,ring_yes_count\n20686062,1\n")
    (folder / "stars.csv").write_text("gaia,mag\n1,2\n")
    (folder / "broken.parquet").write_bytes(b"PAR1")
    assert build(tmp_path / "out", "--local_data_path", folder, *ONLY) == 0
    out = capsys.readouterr().out
    assert "not used: numbers.csv: column name holds no IAU names (20686062)" in out and "broken.parquet" in out
    assert "not used: stars.csv: no column name or other_name" in out
    assert f"{TABLE}: columns that are left out: seeing" in out and len(rows(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--local_data_path", "nowhere"], "--local_data_path nowhere is not a folder"),
        (["--local_data_path", "{folder}", "--configs", "representations"], "representations needs --representations FILE"),
        (["--local_data_path", "{empty}"], "nothing to build: no catalogue of Zoo"),
        (["--configs", "rings", "--catalog", "{folder}/votes.csv"], "no manifest.json"),
        (["--local_data_path", "{empty}", "--catalog", "{folder}/votes.csv"], "none of 3 galaxies"),
        (["--local_data_path", "{folder}", "--catalog", "nothing.csv"], "nothing.csv"),
        (["--local_data_path", "{folder}", "--representations", "{folder}/votes.csv"], "no columns of a representation"),
        (["--local_data_path", "{bare}", "--configs", "rings"], "needs a catalogue with ring_yes_count and ring_no_count"),
        (["--local_data_path", "{folder}", "--decode", "--configs", "default", "rings"], "nothing tells the size"),
    ],
)
def test_what_was_asked_for_wrongly_is_one_line(tmp_path, galaxies, capsys, arguments, words):
    folders = {"folder": galaxies.write_folder(tmp_path / "in", galaxies.names[:3])}
    for name in ("empty", "bare"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
    galaxies.table[["name", "shape_round_count"]].to_csv(folders["bare"] / TABLE, index=False)
    if "--decode" in arguments:
        for path in folders["folder"].glob("*.png"):
            path.write_bytes(b"no image")
    assert build(tmp_path / "out", *(argument.format(**folders) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


def test_a_dataset_without_any_of_the_first_galaxies_is_left_out(tmp_path, galaxies, capsys):
    counts = galaxies.table["ring_yes_count"].where(np.arange(COUNT) >= 8)
    folder = galaxies.write_folder(tmp_path / "in", ring_yes_count=counts)
    assert build(tmp_path / "out", "--local_data_path", folder, "--tiny") == 0
    assert len(rows(tmp_path / "out")) == 5 and not (tmp_path / "out" / "rings").exists()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not built: rings")]
    assert len(lines) == 1 and "none of the 4 galaxies" in lines[0]


# --- going on -----------------------------------------------------------------------------------------------


def test_other_catalogues_make_the_rows_again(tmp_path, galaxies):
    folder, root = galaxies.write_folder(tmp_path / "in", z=0.25), tmp_path / "out"
    assert build(root, "--local_data_path", folder) == 0
    before = (root / "manifest.json").read_bytes()
    assert build(root, "--local_data_path", folder) == 0
    assert (root / "manifest.json").read_bytes() == before
    galaxies.write_folder(folder, z=0.5)
    assert build(root, "--local_data_path", folder) == 0
    assert {row["redshift"] for row in rows(root).values()} == {np.float32(0.5)}
    galaxies.table[["name"]].assign(warning=1, shape_flat_count=1).to_csv(folder / "more.csv", index=False)
    assert build(root, "--local_data_path", folder) == 0
    assert {row["warning"] for row in rows(root).values()} == {1} and differences(root) == []


def test_a_dataset_depends_on_every_catalogue_its_values_come_from(tmp_path, galaxies):
    folder, root = galaxies.write_folder(tmp_path / "in"), tmp_path / "out"
    assert build(root, "--local_data_path", folder) == 0
    for votes in (1, 3):
        galaxies.table[["name", "shape_round_count"]].to_csv(tmp_path / "a.csv", index=False)
        galaxies.table[["name"]].assign(ring_yes_count=votes, ring_no_count=1).to_csv(tmp_path / "b.csv", index=False)
        arguments = ("--configs", "rings", "--catalog", tmp_path / "a.csv", "--catalog", tmp_path / "b.csv")
        assert build(root, *arguments) == 0
        assert {row["ring_share"] for row in rows(root / "rings").values()} == {np.float32(votes / (votes + 1))}


def test_images_that_changed_are_read_again(tmp_path, galaxies):
    names, images = galaxies.names[:6], galaxies.images
    folder = galaxies.write_folder(tmp_path / "in", names[:3])
    galaxies.rows(names).to_csv(folder / TABLE, index=False)
    for seed in (100, 200):
        new = {name: picture(seed + k, side=8) for k, name in enumerate(names)}
        (folder / f"{names[0]}.png").write_bytes(new[names[0]])
        write_zip(folder / "a.zip", {f"{name}.png": new[name] for name in names[3:]})
        assert build(tmp_path / "out", "--local_data_path", folder) == 0
        for root in (tmp_path / "out", tmp_path / "out" / "rings"):
            found = rows(root)
            assert all(found[name]["image"] == new[name] for name in (names[0], *names[3:]))
            assert all(found[name]["image"] == images[name] for name in names[1:3])


def test_pixels_do_not_take_the_place_of_images_unless_asked_for(tmp_path, galaxies, capsys):
    arguments = ("--local_data_path", galaxies.write_folder(tmp_path / "in", galaxies.names[:3]), *ONLY)
    root = tmp_path / "out"
    assert build(root, *arguments) == 0
    before = rows(root)
    capsys.readouterr()
    assert build(root, *arguments, "--decode") == 2
    assert f"{root} was built with image as bytes, this would make it image as uint8 (" in capsys.readouterr().err
    assert same(rows(root), before) and differences(root) == []
    assert build(root, *arguments, "--decode", "--overwrite") == 0
    assert rows(root)[galaxies.names[0]]["image"].shape == (8, 8, 3)
