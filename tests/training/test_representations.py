"""Representations extracted from a survey, and the search for similar galaxies among them."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from skyset.build_scripts.gz_decals.build_parent_sample import main as build_decals
from skyset.errors import UserError
from skyset.explore import description, similar
from tests.galaxies import CONVNEXT, VIT, build_rings, galaxy
from tests.processes import killed_once

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from skyset.training import (
    extract_representations,
    rings_from_representations,
)
from skyset.training.common.images import to_tensor
from skyset.training.common.models import load_encoder
from skyset.training.common.views import Views

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """A random, tiny ViT in a folder."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    encoder, _ = load_encoder(model_type="vit", config_overrides=json.loads(VIT))
    encoder.save_pretrained(folder)
    return folder


def extract(built: Path, vit: Path, output: Path, *more: str) -> list[str]:
    return [
        "--model_name_or_path",
        str(vit),
        "--dataset",
        str(built),
        "--output_dir",
        str(output),
        "--device",
        "cpu",
        "--batch_size",
        "5",
        "--rows_a_part",
        "7",
        *more,
    ]


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def test_vectors_are_the_models_and_keyed(built, vit, tmp_path):
    from datasets import load_dataset

    count = extract_representations.main(extract(built, vit, tmp_path / "out"))
    rows = list(load_dataset("gz3d", data_dir=str(built), split="train", streaming=True))
    table = read(tmp_path / "out")
    assert count == len(table) == len(rows) == 24
    assert table["object_id"].to_pylist() == [row["object_id"] for row in rows]
    assert table["ra"].to_pylist() == pytest.approx([row["ra"] for row in rows])
    assert table.schema.field("representation").type == pa.list_(pa.float32(), 16)
    encoder, normalisation = load_encoder(str(vit))
    views = Views(32, normalisation.mean, normalisation.std).eval()
    with torch.no_grad():
        hidden = encoder(pixel_values=views(to_tensor(rows[11]["image"], 40)[None])).last_hidden_state[0]
    np.testing.assert_allclose(table["representation"][11].as_py(), hidden[1:].mean(dim=0), atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[:2] == ["part-00000.parquet", "part-00001.parquet"]


def test_cls_half_precision_bf16_and_views(built, vit, tmp_path):
    extract_representations.main(extract(built, vit, tmp_path / "one", "--pool", "cls", "--dtype", "float16"))
    extract_representations.main(extract(built, vit, tmp_path / "two", "--pool", "cls", "--bf16", "--views", "2"))
    one, two = (np.array(read(tmp_path / name)["representation"].to_pylist()) for name in ("one", "two"))
    assert read(tmp_path / "one").schema.field("representation").type == pa.list_(pa.float16(), 16)
    cosine = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosine.min() > 0.95 and np.abs(one - two).max() > 1e-4


def test_a_convolutional_network_gives_its_pooled_output_and_has_no_cls(built, tmp_path):
    options = [
        "--model_type",
        "convnextv2",
        "--config_overrides",
        CONVNEXT,
        "--dataset",
        str(built),
        "--image_size",
        "32",
        "--device",
        "cpu",
    ]
    assert extract_representations.main([*options, "--output_dir", str(tmp_path / "a")]) == 24
    assert read(tmp_path / "a").schema.field("representation").type.list_size == 16
    with pytest.raises(UserError, match="no cls token"):
        extract_representations.main([*options, "--output_dir", str(tmp_path / "b"), "--pool", "cls"])


def test_an_interrupted_extraction_goes_on_and_has_each_object_once(built, vit, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extract_representations.main(extract(built, vit, whole))
    encode, calls = extract_representations.encode, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(extract_representations, "encode", failing)
        with pytest.raises(KeyboardInterrupt):
            extract_representations.main(extract(built, vit, broken))
    assert len(read(broken)) == 14  # two parts of seven; the fifteenth galaxy was waiting
    (broken / "part-00002.parquet.tmp").write_bytes(b"half a file")
    assert extract_representations.main(extract(built, vit, broken)) == 24
    assert read(broken).drop_columns("representation").equals(read(whole).drop_columns("representation"))
    first, second = (np.array(read(folder)["representation"].to_pylist()) for folder in (whole, broken))
    np.testing.assert_allclose(first, second, atol=1e-5)  # batches start elsewhere
    assert extract_representations.main(extract(built, vit, broken)) == 24  # nothing is left to do


@pytest.mark.slow
def test_a_killed_extraction_goes_on(built, vit, tmp_path):
    output = tmp_path / "out"
    words = extract(built, vit, output, "--rows_a_part", "2", "--batch_size", "1")
    encode = extract_representations.encode

    def slowly() -> None:
        extract_representations.encode = lambda *arguments: time.sleep(0.5) or encode(*arguments)
        extract_representations.main(words)

    assert killed_once((output / "part-00000.parquet").exists, slowly)
    assert len(read(output)) < 24
    assert extract_representations.main(words) == 24
    names = read(output)["object_id"].to_pylist()
    assert len(names) == len(set(names)) == 24


def test_other_settings_do_not_mix(built, vit, tmp_path):
    extract_representations.main(extract(built, vit, tmp_path))
    with pytest.raises(UserError, match="holds vectors with another pool"):
        extract_representations.main(extract(built, vit, tmp_path, "--pool", "cls"))
    (tmp_path / "part-00001.parquet").unlink()
    with pytest.raises(UserError, match="lost part-00001"):
        extract_representations.main(extract(built, vit, tmp_path))
    (tmp_path / "representations.json").unlink()
    before = (tmp_path / "part-00000.parquet").read_bytes()
    with pytest.raises(UserError, match=r"holds part-00000\.parquet and no representations\.json"):
        extract_representations.main(extract(built, vit, tmp_path))
    assert (tmp_path / "part-00000.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--dataset", "/no/such/folder"), "no survey and no folder /no/such/folder"),
        (("--key_column", "iau"), "has no column iau"),
        (("--model_name_or_path", "/no/such/model"), "no model /no/such/model"),
        (("--batch_size", "0"), "--batch_size must be 1 or more"),
    ],
)
def test_wrong_input_is_one_clear_line(built, vit, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        extract_representations.main([*extract(built, vit, tmp_path / "out"), *change])
    assert "\n" not in str(caught.value)


# ---- similar galaxies


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(500, 12)).astype(np.float32) * rng.uniform(0.1, 10, (500, 1)).astype(np.float32)
    found[7] = 0
    found[8] = np.nan
    found[300] = 3 * found[20]  # the same direction: cosine 1
    return found, np.array([f"J{number:06d}" for number in range(500)], dtype=object)


def brute_force(vectors: np.ndarray, row: int, k: int) -> list[int]:
    usable = [n for n in range(len(vectors)) if n != row and np.isfinite(vectors[n]).all() and vectors[n].any()]
    wide = vectors.astype(np.float64)
    cosine = {n: wide[n] @ wide[row] / np.linalg.norm(wide[n]) / np.linalg.norm(wide[row]) for n in usable}
    return sorted(usable, key=lambda n: -cosine[n])[:k]


def test_the_search_finds_what_brute_force_finds(vectors, monkeypatch):
    monkeypatch.setattr(similar, "CHUNK", 64)
    found, keys = vectors
    for row in (0, 20, 499):
        answer = similar.most_similar(found, keys, keys[row], 9)
        assert [key for key, _ in answer] == [keys[n] for n in brute_force(found, row, 9)]
        assert [cosine for _, cosine in answer] == sorted((cosine for _, cosine in answer), reverse=True)
    assert similar.most_similar(found, keys, keys[20], 1) == [(keys[300], pytest.approx(1, abs=1e-6))]
    assert len(similar.most_similar(found, keys, keys[0], 1000)) == 497  # without itself, zero and NaN
    with pytest.raises(UserError, match="no object J9"):
        similar.most_similar(found, keys, "J9")
    with pytest.raises(UserError, match="zero or not finite"):
        similar.most_similar(found, keys, keys[7])


def test_faiss_agrees(vectors):
    pytest.importorskip("faiss")
    found, keys = vectors
    exact, other = (similar.most_similar(found, keys, keys[0], 9, engine) for engine in ("numpy", "faiss"))
    assert [key for key, _ in exact] == [key for key, _ in other]


def published(path: Path, keys, vectors: np.ndarray, key: str, form: str) -> Path:
    columns = {key: keys}
    if form == "columns":  # not in order, and feat_10 sorts before feat_2 as text
        columns |= {f"feat_{n}": vectors[:, n] for n in reversed(range(vectors.shape[1]))} | {"redshift": vectors[:, 0] * 0}
    else:
        values = pa.array(vectors.ravel())
        columns["representation"] = (
            pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]) if form == "fixed" else pa.array(list(vectors))
        )
    pq.write_table(pa.table(columns), path, row_group_size=100)
    return path


@pytest.mark.parametrize(("key", "form"), [("iauname", "columns"), ("id_str", "fixed"), ("object_id", "lists")])
def test_files_in_the_published_forms(vectors, tmp_path, key, form):
    found, keys = vectors
    keys = [588018090547020096 + n for n in range(500)] if key == "id_str" else keys.tolist()
    path = published(tmp_path / "cnn_features.parquet", keys, found, key, form)
    loaded = similar.load_representations(path)
    assert loaded.keys.tolist() == [str(name) for name in keys]
    np.testing.assert_array_equal(loaded.vectors, found)
    in_memory = similar.most_similar(loaded.vectors, loaded.keys, str(keys[3]), 5)
    assert similar.most_similar_in_file(path, str(keys[3]), 5) == in_memory
    assert similar.find_representations(path) == path


def close(pairs):
    return [(name, pytest.approx(cosine, abs=1e-6)) for name, cosine in pairs]


def test_vectors_that_a_build_made_are_found(vectors, tmp_path):
    """``skyset build gz_decals --representations`` writes partitions, from the published names of columns."""
    rng = np.random.default_rng(1)
    names = [f"J{hour:02d}0000.00+{hour:02d}0000.0" for hour in range(12)]
    table = rng.normal(size=(12, 16)).astype(np.float32)
    file = tmp_path / "cnn_features_decals.parquet"
    pq.write_table(pa.table({"iauname": names, **{f"feat_{k}_pred": table[:, k] for k in range(16)}}), file)
    root = tmp_path / "gz_decals"
    arguments = ["--configs", "representations", "--representations", str(file), "--num_processes", "1", "-o", str(root)]
    assert build_decals(arguments) == 0
    assert similar.find_representations(root) == root / "representations"
    wanted = similar.most_similar(table, names, names[4], 5)
    for source in (root / "representations", file):
        found = similar.load_representations(source)
        assert similar.most_similar(found.vectors, found.keys, names[4], 5) == close(wanted)
        assert similar.most_similar_in_file(source, names[4], 5) == close(wanted)


def test_an_extraction_of_another_build_is_not_gone_on_with(built, vit, tmp_path, monkeypatch):
    """Also where the survey is given by its name."""
    data = tmp_path / "data" / "gz3d"
    shutil.copytree(built, data)
    monkeypatch.setenv("SKYSET_DATA", str(data.parent))
    settings = extract(Path("gz3d"), vit, tmp_path / "out")
    extract_representations.main(settings)
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["build"]["command"] = ["another"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError):
        extract_representations.main(settings)


def test_files_that_are_no_representations(vectors, tmp_path):
    found, keys = vectors
    floats = published(tmp_path / "floats.parquet", np.arange(500.0), found, "id_str", "fixed")
    with pytest.raises(UserError, match="digits of the ids are lost"):
        similar.load_representations(floats)
    pq.write_table(pa.table({"iauname": keys.tolist(), "redshift": found[:, 0]}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match="has no vectors"):
        similar.load_representations(tmp_path / "none.parquet")
    pq.write_table(pa.table({"name": keys.tolist()}), tmp_path / "nokey.parquet")
    with pytest.raises(UserError, match="none of the key columns"):
        similar.load_representations(tmp_path / "nokey.parquet")
    pq.write_table(pa.table({"iauname": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(UserError, match="differ in length"):
        similar.load_representations(tmp_path / "ragged.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        similar.load_representations(tmp_path / "text.parquet")
    with pytest.raises(UserError, match="no representations in"):
        similar.load_representations(tmp_path / "missing.parquet")
    assert similar.find_representations(tmp_path / "empty") is None


def test_the_search_in_files_holds_a_chunk_at_a_time(tmp_path):
    """30,000 vectors of 512 numbers, 61 MB, searched within 30 MB of numpy's memory."""
    import tracemalloc

    rng = np.random.default_rng(1)
    with pq.ParquetWriter(
        tmp_path / "v.parquet", pa.schema([("id_str", pa.int64()), ("v", pa.list_(pa.float32(), 512))])
    ) as writer:
        for start in range(0, 30000, 1000):
            values = pa.array(rng.normal(size=512 * 1000).astype(np.float32))
            lists = pa.FixedSizeListArray.from_arrays(values, 512)
            writer.write_table(pa.table({"id_str": np.arange(start, start + 1000), "v": lists}))
    tracemalloc.start()
    found = similar.most_similar_in_file(tmp_path / "v.parquet", "123", 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 5 and peak < 30e6


# ---- the description without training


def test_the_description_does_not_change_when_a_galaxy_is_turned_or_mirrored():
    image = galaxy(3, ring=True, size=128)
    same = [description.describe(turned) for turned in (image, np.rot90(image), np.rot90(image, 2), image[:, ::-1])]
    others = [description.describe(galaxy(number, ring=number % 2 == 0, size=128)) for number in range(10, 30)]
    spread = np.std(others, axis=0) + 1e-3

    def distance(a, b):
        return np.sqrt(np.mean(((a - b) / spread) ** 2))

    nearest = min(distance(same[0], other) for other in others)
    assert max(distance(same[0], turned) for turned in same[1:]) < 0.35 * nearest


def test_an_ellipse_is_measured():
    y, x = np.mgrid[:200, :200] - 99.5
    along, across = x * np.cos(0.5) + y * np.sin(0.5), y * np.cos(0.5) - x * np.sin(0.5)
    light = 200 * np.exp(-0.5 * ((along / 20) ** 2 + (across / 10) ** 2))
    found = description.outline(description.as_bands(light))
    assert found.ratio == pytest.approx(0.5, abs=0.03) and found.angle == pytest.approx(0.5, abs=0.02)
    profile = description.unwrap(description.as_bands(light), found)[0]
    assert profile.std(axis=1).max() < 8  # rings of that shape follow the light
    assert np.all(np.diff(profile.mean(axis=1)) <= 1e-6)


def test_gaussian_smoothing_and_its_derivatives():
    x = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    step = x[1]
    wave = np.sin(x)[None]
    damping = np.exp(-0.5 * (5 * step) ** 2)
    np.testing.assert_allclose(description.smooth(wave, 5, 1, circular=True), damping * wave, atol=1e-3)
    np.testing.assert_allclose(description.smooth(wave, 5, 1, True, order=1) / step, damping * np.cos(x)[None], atol=5e-3)
    np.testing.assert_allclose(description.smooth(wave, 5, 1, True, order=2) / step**2, -damping * wave, atol=3e-2)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40, 3), np.uint8),
        np.full((40, 40), 255, np.uint8),
        Image.new("L", (50, 30)),
        np.zeros((3, 40, 40), np.uint8),
    ],
)
def test_empty_and_grey_images_have_a_description(image):
    assert np.isfinite(description.describe(image)).all()
    assert len(description.describe(image)) == len(description.describe(galaxy(1, True)))


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="not an image"):
        description.describe(np.zeros((5, 40, 40)))


def test_described_rows_find_rings_beside_rings():
    rows = [{"object_id": f"{'ring' if n % 2 else 'disc'}{n}", "image": galaxy(n, ring=bool(n % 2))} for n in range(40)]
    described = similar.describe_rows(rows)
    assert described.name == similar.DESCRIPTION and len(described) == 40
    nearest = similar.most_similar(described.vectors, described.keys, "ring1", 6)
    assert sum(key.startswith("ring") for key, _ in nearest) >= 5


def coloured(seed: int, red: bool, size: float, clumpy: bool) -> np.ndarray:
    """A galaxy as a colour image of 96 x 96: smooth or in clumps, red or blue."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96] - 47.5
    light = 150 * np.exp(-np.hypot(x, y / 0.8) / size)
    for _ in range(12 if clumpy else 0):
        cx, cy = dice.normal(0, size, 2)
        light += 90 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    bands = light[..., None] * ([1.0, 0.8, 0.5] if red else [0.6, 0.8, 1.0]) + dice.normal(5, 2, (96, 96, 3))
    return np.clip(bands, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("turns", [0, 1])
def test_neighbours_are_alike_in_what_people_look_at(turns):
    """Colour, size and clumps: a smooth red galaxy's neighbours are not blue irregulars, however it is turned."""
    kinds = [(red, size, clumpy) for red in (True, False) for size in (5, 12) for clumpy in (True, False)]
    rows = [
        {"object_id": f"{kind}-{n}", "image": coloured(10 * k + n, *kind)} for k, kind in enumerate(kinds) for n in range(8)
    ]
    rows[0]["image"] = np.rot90(rows[0]["image"], turns)
    described = similar.describe_rows(rows)
    for kind in kinds:
        nearest = similar.most_similar(described.vectors, described.keys, f"{kind}-0", 5)
        assert sum(key.startswith(str(kind)) for key, _ in nearest) >= 4, (kind, nearest)


def test_what_a_description_says_of_a_galaxy():
    red, blue = (description.look(coloured(1, red, 8, False)) for red in (True, False))
    assert red["colour"][0] == pytest.approx(np.log(1.0 / 0.5), abs=0.05)
    assert blue["colour"][0] == pytest.approx(np.log(0.6 / 1.0), abs=0.05)
    small, large = (description.look(coloured(1, True, size, False)) for size in (4, 8))
    assert large["size"][0] - small["size"][0] == pytest.approx(np.log(2), abs=0.2)
    assert description.look(coloured(1, True, 8, True))["clumps"][0] > red["clumps"][0] + 0.3
    assert red["flatness"][0] == pytest.approx(0.8, abs=0.05)
    for image in (np.zeros((40, 40, 3), np.uint8), np.full((40, 40), 255, np.uint8)):
        assert all(np.isfinite(part).all() for part in description.look(image).values())


def test_the_figure_shows_every_image_and_what_was_compared():
    images = [galaxy(n, True) for n in range(7)]
    figure = similar.similar_figure(images, [f"galaxy {n}" for n in range(7)], similar.DESCRIPTION)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:7] == [f"galaxy {n}" for n in range(7)] and len(titles) == 10
    assert similar.DESCRIPTION in figure.get_supxlabel()


def test_rings_are_found_from_representations_as_they_are(tmp_path):
    folder = build_rings(tmp_path / "rings", 120)
    found = rings_from_representations.main(["--data_dir", str(folder), "--output_dir", str(tmp_path / "polar")])
    assert min(row["auc"] for row in found.values()) > 0.9
    assert json.loads((tmp_path / "polar" / "metrics.json").read_text()) == found
    assert (tmp_path / "polar" / "precision_recall.png").stat().st_size > 5000
    from skyset.training.common.rings import load_rings

    splits = load_rings(str(folder)).values()
    rows = [row for split in splits for row in split]
    vectors = np.array([[row["label"], 1, 0.5] for row in rows], np.float32)
    path = published(tmp_path / "v.parquet", [row["object_id"] for row in rows], vectors, "iauname", "fixed")
    perfect = rings_from_representations.main(
        ["--data_dir", str(folder), "--output_dir", str(tmp_path / "v"), "--representations", str(path)]
    )
    assert {row["auc"] for row in perfect.values()} == {1.0}
    other = published(tmp_path / "o.parquet", ["x", "y"], vectors[:2], "iauname", "fixed")
    with pytest.raises(UserError, match="no labelled galaxy"):
        rings_from_representations.main(
            ["--data_dir", str(folder), "--output_dir", str(tmp_path), "--representations", str(other)]
        )
