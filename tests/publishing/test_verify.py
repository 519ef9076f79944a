"""`skyset verify` on pushed Parquet and on HATS: planted changes are named, each by its kind; nothing else is."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skyset.cli import app
from skyset.errors import UserError
from skyset.files import file_sha256
from skyset.loading import registry
from skyset.loading.arrow import arrow_array
from skyset.partitions.layout import partition_path
from skyset.partitions.manifest import Manifest, describe_file
from skyset.partitions.writer import PartitionWriter
from skyset.publishing.contents import Form, Item, make_shard
from skyset.publishing.hats import NOTE, Asked, export
from skyset.publishing.journal import Sent
from skyset.publishing.record import described, record_text
from skyset.publishing.shards import planned
from skyset.publishing.source import sources
from skyset.publishing.trees import prepared
from skyset.publishing.verify import verify_published
from skyset.publishing.verify_values import different
from skyset.sky import healpix_cell
from skyset.survey import HEALPIX, Column, Survey, plain_features
from tests.conftest import once

COLUMNS = (
    Column("object_id", "S16", (), "", "name"),
    Column("ra", "float64", (), "deg", "right ascension (ICRS)"),
    Column("dec", "float64", (), "deg", "declination (ICRS)"),
    HEALPIX,
    Column("image", "float32", (3, 6, 6), "nJy", "bands g, r, i"),
    Column("flags", "int16", (4,), "", "bits"),
    Column("mag", "float32", (), "mag", "magnitude"),
    Column("note", "S8", (), "", "a word"),
)
SURVEY = Survey(
    name="planted",
    title="Small images",
    homepage="https://example.org",
    citation="",
    license="CC-BY-4.0",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}, ()),
    image_axes={"image": 1},
)
ROWS, MARGIN = 24, 1200
FORMATS = ("pushed", "hats")


@pytest.fixture(scope="module", autouse=True)
def known():
    """The survey is registered as users' are, under this module's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._modules, "planted", __name__)
        yield


def write_survey(root):
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(44.2, 45.8, ROWS), rng.uniform(-0.8, 0.8, ROWS)
    cells = healpix_cell(ra, dec)
    entries = []
    for split in ("train", "test"):
        chosen = np.flatnonzero((np.arange(ROWS) % 6 == 0) == (split == "test"))
        for cell in np.unique(cells[chosen]).tolist():
            rows = chosen[cells[chosen] == cell]
            path = partition_path(cell, split=None if split == "train" else split)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            with PartitionWriter(root / path, COLUMNS, len(rows), {"survey": "planted", "healpix": cell}) as writer:
                for row in rows.tolist():
                    values = {"object_id": f"o{row:03d}", "ra": ra[row], "dec": dec[row], "healpix": cell, "note": f"w{row}"}
                    values |= {"image": rng.normal(size=(3, 6, 6)).astype("f4"), "mag": np.float32(row or np.nan)}
                    values |= {"flags": rng.integers(0, 99, 4).astype("i2")}
                    writer.append(SURVEY.record(values))
            entries.append(describe_file(root, path, SURVEY, split))
    Manifest("planted", list(COLUMNS), "object_id", entries, ["here"], {"command": ["test"]}).save(root)


def write_pushed(root, folder):
    """What `skyset push` puts into a repository, a file for each partition."""
    (source,) = map(prepared, sources(str(root)).values())
    form, items = Form(), []
    for shard in planned(source.manifest, form.how(source), 1, source.cells):
        (folder / shard.path).parent.mkdir(parents=True, exist_ok=True)
        sent = Sent(*make_shard(source, shard, form, folder / shard.path))
        items.append((Item(shard.path, sent.bytes, sent.rows, shard=shard), sent, shard.made_of))
    (folder / "README.md").write_text("# A card\n")
    git = hashlib.sha1(b"blob 9\0# A card\n").hexdigest()
    text = record_text(source.manifest.survey, "parquet", items, {"README.md": git}, {"default": described(source)}, False)
    (folder / "manifest.json").write_bytes(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory, known):
    """Folders ``source``, ``pushed`` and ``hats`` of the same rows. Do not change them."""

    def make(folder):
        write_survey(folder / "source")
        write_pushed(folder / "source", folder / "pushed")
        export(str(folder / "source"), folder / "hats", Asked(max_rows=6, margin=MARGIN))

    return once(tmp_path_factory, "verify_planted", make)


def lines(folder, against=None):
    return list(verify_published(str(folder), against and str(against)))


@dataclass
class Plant:
    """A folder to be changed."""

    root: Path
    kind: str
    rng: np.random.Generator

    def __post_init__(self):
        self.list = self.root / ("manifest.json" if self.kind == "pushed" else NOTE)
        self.values = json.loads(self.list.read_text())
        self.top = "data" if self.kind == "pushed" else "planted"

    def files(self, margin=False):
        top = f"planted_{MARGIN}arcs" if margin else self.top
        return sorted(path for path in (self.root / top).rglob("*.parquet"))

    def one(self, least=2, margin=False):
        found = [path for path in self.files(margin) if pq.read_metadata(path).num_rows >= least]
        return found[self.rng.integers(len(found))]

    def save(self):
        self.list.write_text(json.dumps(self.values))

    def sealed(self, path, rows=None):
        """The list says the file's new bytes: what is named then is named by what is in it."""
        for entry in self.values["files"]:
            if entry["path"] == path.relative_to(self.root).as_posix():
                entry |= {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
                entry["rows"] = rows or entry["rows"]
        if self.kind == "pushed":
            self.values["bytes"] = sum(entry["bytes"] for entry in self.values["files"])
        self.save()

    def write(self, path, table):
        pq.write_table(table, path)
        self.sealed(path)

    def change(self, name, change, margin=False):
        """One value of a column of a random file's random row."""
        path = self.one(margin=margin)
        table = read(path)
        row, number = int(self.rng.integers(len(table))), table.schema.get_field_index(name)
        field, values = table.schema.field(number), values_of(table, name)
        values[row] = change(values[row])
        kind = field.type
        column = pa.array(values, kind) if isinstance(values, list) else arrow_array(values, kind)
        self.write(path, table.set_column(number, field, column))
        return path, table["object_id"][row].as_py()


def read(path):
    return pq.read_table(path, partitioning=None)


def values_of(table, name):
    column = table[name].combine_chunks()
    if name == "image":
        return column.storage.flatten().flatten().flatten().to_numpy().reshape(-1, 3, 6, 6).copy()
    return column.to_pylist()


def named(plant, path):
    return path.relative_to(plant.root).as_posix()


def flipped_byte(plant):
    path = plant.one()
    data = bytearray(path.read_bytes())
    data[plant.rng.integers(4, len(data) - 4000)] ^= 1 << int(plant.rng.integers(8))
    path.write_bytes(data)
    return f"{named(plant, path)}: SHA-256"


def flipped_value(plant):
    def flip(image):
        image.view("u4")[tuple(plant.rng.integers(0, image.shape))] ^= 1
        return image

    path, key = plant.change("image", flip)
    return f"{named(plant, path)}: image is not that of the source in 1 row: {key}"


def other_number(plant):
    path, key = plant.change("mag", lambda mag: mag + 0.5 if mag == mag else 1.0)
    return f"{named(plant, path)}: mag is not that of the source in 1 row: {key}"


def lost_value(plant):
    path, key = plant.change("mag", lambda _: None)
    return f"{named(plant, path)}: mag is not that of the source in 1 row: {key}"


def other_flag(plant):
    path, key = plant.change("flags", lambda flags: [flags[0] ^ 4, *flags[1:]])
    return f"{named(plant, path)}: flags is not that of the source in 1 row: {key}"


def other_text(plant):
    path, key = plant.change("note", lambda _: "else")
    return f"{named(plant, path)}: note is not that of the source in 1 row: {key}"


def shifted_position(plant):
    path, key = plant.change("ra", lambda ra: ra + 20)
    told = "in none of its cells" if plant.kind == "pushed" else "not that of the position"
    return f"{named(plant, path)}: ", f"1 row is {told}: {key}"


def moved_a_little(plant):
    path, key = plant.change("dec", lambda dec: dec + 1e-9)
    return f"{named(plant, path)}: dec is not that of the source in 1 row: {key}"


def no_position(plant):
    path, key = plant.change("dec", lambda _: float("nan"))
    return f"{named(plant, path)}: 1 row is not on the sky: {key}"


def other_id(plant):
    path, _ = plant.change("object_id", lambda _: "stranger")
    return f"{named(plant, path)}: 1 row is not in the source: stranger"


def bands_reversed(plant):
    path, key = plant.change("image", lambda image: image[::-1])
    return f"{named(plant, path)}: image of {key} has the source's bands in another order: [2, 1, 0]"


def duplicated(plant):
    path = plant.one()
    table, row = read(path), 1
    plant.write(path, pa.concat_tables([table.slice(0, row + 1), table.slice(row)]))
    return f"{named(plant, path)}: 1 row is there twice by object_id: {table['object_id'][row].as_py()}"


def missing_row(plant):
    path = plant.one()
    table, row = read(path), int(plant.rng.integers(2))
    plant.write(path, pa.concat_tables([table.slice(0, row), table.slice(row + 1)]))
    return f"{named(plant, path)}: has {len(table) - 1} rows", f"{table['object_id'][row].as_py()}", "1 row is missing"


def in_another_file(plant):
    first, second = (path for path in plant.files()[:2])
    table, other = read(first), read(second)
    plant.write(first, table.slice(1))
    plant.write(second, pa.concat_tables([other, table.slice(0, 1)]))
    told = "in none of its cells" if plant.kind == "pushed" else "of another partition"
    return f"{named(plant, second)}: 1 row is {told}: {table['object_id'][0].as_py()}"


def other_row_order(plant):
    path = plant.one()
    table = read(path)
    plant.write(path, table.take(list(range(len(table)))[::-1]))
    return f"{named(plant, path)}: its rows " + ("are in another order" if plant.kind == "pushed" else "do not ascend")


def other_dtype(plant):
    path = plant.one()
    table = read(path)
    number = table.schema.get_field_index("mag")
    wide = pa.field("mag", pa.float64(), metadata=table.schema.field(number).metadata)
    plant.write(path, table.set_column(number, wide, pc.cast(table["mag"], pa.float64())))
    return f"{named(plant, path)}: column mag is float64, "


def other_shape(plant):
    path = plant.one()
    table = read(path)
    number = table.schema.get_field_index("image")
    kind = datasets.Features({"image": datasets.Array3D((6, 6, 3), "float32")}).arrow_schema.field(0).type
    column = arrow_array(values_of(table, "image").reshape(-1, 6, 6, 3), kind)
    plant.write(path, table.set_column(number, pa.field("image", kind), column))
    return f"{named(plant, path)}: column image is float32 (6, 6, 3), "


def other_unit(plant):
    if plant.kind == "pushed":
        columns = plant.values["datasets"]["default"]["columns"]
        next(column for column in columns if column["name"] == "mag")["unit"] = "Jy"
        plant.save()
        return "manifest.json: the unit of mag is 'Jy', the source says 'mag'"
    path = plant.one()
    table = read(path)
    number = table.schema.get_field_index("mag")
    field = table.schema.field(number).with_metadata({"unit": "Jy"})
    plant.write(path, table.set_column(number, field, table["mag"]))
    return f"{named(plant, path)}: the unit of mag is 'Jy', "


def column_gone(plant):
    path = plant.one()
    plant.write(path, read(path).drop_columns(["note"]))
    return f"{named(plant, path)}: column 'note' is missing"


def other_columns_order(plant):
    path = plant.one()
    table = read(path)
    plant.write(path, table.select(table.schema.names[::-1]))
    return f"{named(plant, path)}: its columns are in another order"


def file_gone(plant):
    path = plant.one()
    path.unlink()
    return f"{named(plant, path)}: missing"


def cut(plant):
    path = plant.one()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - int(plant.rng.integers(1, len(data)))])
    plant.sealed(path)
    return f"{named(plant, path)}: cannot be read: "


def no_parquet(plant):
    path = plant.one()
    path.write_bytes(b"PAR1" + plant.rng.bytes(300) + b"PAR1")
    plant.sealed(path)
    return f"{named(plant, path)}: cannot be read: "


def one_too_many(plant):
    path = plant.one()
    more = path.with_name("healpix-9999.parquet" if plant.kind == "pushed" else "Npix=11.parquet")
    shutil.copy(path, more)
    return f"{named(plant, more)}: is there but not in "


def not_listed(plant):
    if plant.kind == "pushed":
        gone = plant.values["files"].pop(int(plant.rng.integers(len(plant.values["files"]))))
        plant.save()
        return f"{gone['path']}: is there but not in manifest.json"
    file = plant.root / "planted" / "partition_info.csv"
    head, *rest = file.read_text().splitlines(keepends=True)
    order, pixel = rest.pop(int(plant.rng.integers(len(rest)))).strip().split(",")
    file.write_text(head + "".join(rest))
    return f"planted/partition_info.csv: Norder={order}, Npix={pixel} is there but not listed"


def other_count(plant):
    if plant.kind == "pushed":
        plant.values["rows"] -= 1
        plant.save()
        return f"manifest.json: rows is {ROWS - 1}, its files have {ROWS}"
    file = plant.root / "planted" / "hats.properties"
    file.write_text(file.read_text().replace(f"hats_nrows={ROWS}", f"hats_nrows={ROWS + 2}"))
    return f"planted/hats.properties: hats_nrows is {ROWS + 2}, its files have {ROWS}"


def footer_lost(plant):
    folder = plant.root / "planted" / "dataset"
    files = plant.files()
    lost = files.pop(int(plant.rng.integers(len(files))))
    footers = [pq.read_metadata(path) for path in files]
    for path, footer in zip(files, footers, strict=True):
        footer.set_file_path(path.relative_to(folder).as_posix())
    pq.write_metadata(pq.read_schema(folder / "_common_metadata"), folder / "_metadata", metadata_collector=footers)
    return f"planted/dataset/_metadata: has 0 rows of {lost.relative_to(folder).as_posix()}"


def margin_row_gone(plant):
    path = plant.one(2, margin=True)
    table = read(path)
    plant.write(path, table.slice(1))
    return f"{named(plant, path)}: 1 row is missing from the margin of {MARGIN} arcsec: {table['object_id'][0].as_py()}"


def margin_row_too_many(plant):
    path = plant.one(1, margin=True)
    table, row = (
        read(path),
        read(plant.root / "planted" / path.relative_to(plant.root / f"planted_{MARGIN}arcs")).slice(0, 1),
    )
    plant.write(path, pa.concat_tables([row, table]))
    return f"{named(plant, path)}: 1 row is in the partition itself, and no margin: {row['object_id'][0].as_py()}"


BOTH = (
    *(flipped_byte, flipped_value, other_number, lost_value, other_flag, other_text, shifted_position, moved_a_little),
    *(no_position, other_id, bands_reversed, duplicated, missing_row, in_another_file, other_row_order, other_dtype),
    *(other_shape, other_unit, column_gone, other_columns_order, file_gone, cut, no_parquet, one_too_many, not_listed),
    other_count,
)
KINDS = {"pushed": BOTH, "hats": (*BOTH, footer_lost, margin_row_gone, margin_row_too_many)}


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_said_of_what_is_whole(made, kind):
    assert lines(made / kind) == []
    assert lines(made / kind, made / "source") == []


@pytest.mark.parametrize("kind", FORMATS)
def test_every_planted_change_is_named(made, kind, tmp_path):
    kinds = KINDS[kind]
    assert len(kinds) >= 20
    for number in range(100):
        change = kinds[number % len(kinds)]
        shutil.copytree(made / kind, tmp_path / "copy")
        told = change(Plant(tmp_path / "copy", kind, np.random.default_rng(number)))
        found = "\n".join(lines(tmp_path / "copy", made / "source"))
        for each in (told,) if isinstance(told, str) else told:
            assert each in found, f"{change.__name__} {number}: {each!r} in\n{found}"
        shutil.rmtree(tmp_path / "copy")


def test_equal_bits_are_no_difference_whatever_the_lists():
    nan, none = np.array([0x7FC00001], "u4").view("f4")[0], None
    both = [pa.array([[1.0, nan], none, [], [0.0, 2.0]], pa.list_(pa.float32()))] * 2
    assert different(*both).tolist() == [False] * 4
    assert different(both[0], pa.array([[1.0, 3.0], [], none, [-0.0, 2.0]], pa.list_(pa.float32()))).all()
    fixed = pa.array([[1.0, float("nan")], none, [0.0, 0.0], [0.0, 3.0]], pa.list_(pa.float32(), 2))
    assert different(both[0], fixed).tolist() == [False, False, True, True]
    pictures = pa.array([{"bytes": b"a", "path": none}, {"bytes": b"b", "path": none}, none])
    others = pa.array([{"path": none, "bytes": b"a"}, {"path": none, "bytes": b"c"}, none])
    assert different(pictures, others).tolist() == [False, True, False]
    assert different(pa.array(["a", none, "c"]), pa.array(["a", "b", "d"])).tolist() == [False, True, True]


def run(capsys, *arguments):
    """Exit status and all that is printed of the command."""
    with pytest.raises(SystemExit) as ended:
        app(["verify", *map(str, arguments)])
    told = capsys.readouterr()
    return ended.value.code, told.out + told.err


@pytest.mark.parametrize("kind", FORMATS)
def test_the_command_says_ok_or_names_each_difference(made, kind, tmp_path, capsys):
    status, text = run(capsys, made / kind, "--against", made / "source")
    assert (status, "every value as in" in text) == (0, True)
    shutil.copytree(made / kind, tmp_path / "copy")
    told = flipped_byte(Plant(tmp_path / "copy", kind, np.random.default_rng(1)))
    status, text = run(capsys, tmp_path / "copy")
    assert (status, told in text, "1 difference in" in text, "Traceback" in text) == (1, True, True, False)
    status, text = run(capsys, tmp_path / "copy", "--against", tmp_path / "nowhere")
    assert (status, text.count("\n")) == (2, 1)


def test_partitions_have_nothing_to_be_compared_with(made, capsys):
    assert run(capsys, made / "source")[0] == 0
    status, text = run(capsys, made / "source", "--against", made / "source")
    assert (status, "holds no pushed Parquet" in text) == (2, True)


@pytest.mark.parametrize("kind", FORMATS)
def test_anything_may_be_damaged_without_a_traceback(made, kind, tmp_path):
    for number, path in enumerate(sorted(path for path in (made / kind).rglob("*") if path.is_file())):
        shutil.copytree(made / kind, tmp_path / "copy")
        victim = tmp_path / "copy" / path.relative_to(made / kind)
        for data in (b"", path.read_bytes()[: path.stat().st_size // 2], np.random.default_rng(number).bytes(900)):
            victim.write_bytes(data)
            if victim.name == "manifest.json":
                with pytest.raises(UserError):
                    lines(tmp_path / "copy")
            elif victim.parent.name == "hats" or victim.name != "README.md":
                assert lines(tmp_path / "copy"), victim
        shutil.rmtree(tmp_path / "copy")


def test_a_note_of_other_columns_is_named(made, tmp_path):
    shutil.copytree(made / "hats", tmp_path / "copy")
    note = tmp_path / "copy" / NOTE
    note.write_text(note.read_text().replace('"name": "mag"', '"name": "magnitude"'))
    assert "planted/dataset/_common_metadata: column 'magnitude' is missing, skyset_hats.json has it" in lines(
        tmp_path / "copy"
    )


def test_rows_whose_ids_may_repeat_and_groups_of_layers(built, tmp_path):
    write_pushed(built, tmp_path)  # GZ3D's unique key is no feature
    assert lines(tmp_path, built) == []
    plant = Plant(tmp_path, "pushed", np.random.default_rng(0))
    path = plant.one()
    table = read(path)
    plant.write(path, table.slice(1))
    found = lines(tmp_path, built)
    assert any(f"{named(plant, path)}: has {len(table) - 1} rows" in line for line in found)
    assert any("1 row is missing, of the source's" in line and table["object_id"][0].as_py() in line for line in found)


def foreign(made, folder):
    """The catalogue as others write one: no notes, no checksums, no map, a footer that nobody asks for."""
    shutil.copytree(made / "hats" / "planted", folder)
    (folder / "skymap.fits").unlink()
    (folder / "dataset" / "_metadata").unlink()
    return folder


def test_of_others_catalogues_structure_and_positions_are_checked(made, tmp_path, capsys):
    folder = foreign(made, tmp_path / "theirs")
    assert lines(folder) == []
    status, text = run(capsys, folder)
    assert (status, "of checksums nothing is known" in text) == (0, True)
    with pytest.raises(UserError, match="nothing says of which survey"):
        lines(folder, made / "source")
    properties = (folder / "hats.properties").read_text()
    (folder / "hats.properties").write_text(properties.replace("hats_max_rows=6", "hats_max_rows=5000"))
    assert lines(folder) == []  # theirs is the limit
    margin = tmp_path / "their_margin"
    shutil.copytree(made / "hats" / f"planted_{MARGIN}arcs", margin)
    for path in margin.rglob("*.parquet"):
        table = read(path)
        pq.write_table(table.take(list(range(len(table)))[::-1]), path)
    assert lines(margin) == []  # in whatever order
    path = max(folder.rglob("*.parquet"), key=lambda path: pq.read_metadata(path).num_rows)
    table = read(path)
    ra = table["ra"].to_numpy().copy()
    ra[1] += 0.001
    pq.write_table(table.set_column(table.schema.get_field_index("ra"), "ra", pa.array(ra)), path)
    assert any("_healpix_29 of 1 row is not that of the position: row 1 " in line for line in lines(folder))
    path.write_bytes(path.read_bytes()[:-9])
    assert any(f"{path.relative_to(folder)}: cannot be read" in line for line in lines(folder))
    path.unlink()
    assert any("is listed, its file is missing" in line for line in lines(folder))


def test_what_was_pushed_is_verified_on_the_hub(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made / "pushed", folder)
    flipped_byte(Plant(folder, "pushed", np.random.default_rng(3)))
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/planted_verify", recursive=True)
    try:
        assert lines("memory://planted_verify", made / "source") == lines(folder, made / "source") != []
    finally:
        memory.rm("/planted_verify", recursive=True)
    with pytest.raises(UserError, match="no Parquet that"):
        lines("memory://planted_verify")
