"""HATS catalogues, ours and anybody's, in a folder or behind a URL, read as partitions are: by file, columns and rows."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyset import remote
from skyset.errors import PartitionError, UserError
from skyset.messages import say
from skyset.partitions.manifest import FileEntry, Manifest
from skyset.partitions.parquet_columns import columns_in, uneven_in
from skyset.partitions.parquet_file import DAMAGE, OpensParquet, ParquetFile, Place
from skyset.sky import cell_boxes
from skyset.survey import Column, Survey, plain_features, undescribed

#: What the folder of a collection has, and that of a catalogue; earlier versions of HATS call the latter ``properties``.
COLLECTION, CATALOGUE = "collection.properties", ("hats.properties", "properties")
#: What ``skyset hats`` notes in a collection.
NOTE = "skyset_hats.json"
#: Names of the column of objects' names that are looked for where no survey tells it.
_KEYS = ("object_id", "source_id", "objid", "id")
_FILE = re.compile(r"Norder=(\d{1,2})/Dir=\d+/Npix=(\d{1,19})(?:\.\w+|/[\w.-]+\.\w+)")
_MOST, _MOST_FOOTERS = 1 << 20, 1 << 30
#: Footers that are waited for at a time.
_THREADS = 16
#: Rows that tell the shapes of lists.
_SAMPLE = 64


def parsed(text: str) -> dict[str, str]:
    """The values of ``key=value`` lines, as Java's properties are; other lines are left out."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = (line.split("=", 1) for line in lines if "=" in line and line[0] not in "#!")
    return {name.strip(): value.strip().replace("\\\\", "\\") for name, value in pairs}


def read_properties(path: Path) -> dict[str, str]:
    """The values of a file of ``key=value`` lines, as Java's properties are; other lines are left out.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return parsed(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def catalogue_in(folder: Path) -> Path | None:
    """The HATS catalogue that a folder is, or that of the collection that it is; None where it is neither.

    Raises:
        UserError: a collection without its catalogue.
    """
    if not (folder / COLLECTION).is_file():
        return folder if any((folder / name).is_file() for name in CATALOGUE) and (folder / "dataset").is_dir() else None
    name = read_properties(folder / COLLECTION).get("hats_primary_table_url", "")
    catalogue = folder / name
    if not name or not (catalogue / "dataset").is_dir() or not catalogue.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} is a HATS collection whose catalogue {name!r} is not there")
    return catalogue


def read_hats(root: str, survey_of: Callable[[str, str | None], Survey]) -> tuple[str, Survey, Manifest] | None:
    """A HATS catalogue, or that of a collection.

    Args:
        root: a folder or URL.
        survey_of: a survey's declaration by its name and config; UserError where it is not known.

    Returns:
        The catalogue's ``dataset``, a declaration of its columns, and a manifest that is nowhere on a disk, whose
        ``build["position"]`` names the columns of positions. None where there is no catalogue.

    Raises:
        UserError: the catalogue is damaged, or has no rows.
    """
    root = root.rstrip("/")
    properties, folder = _properties(root)
    if properties is None:
        return None
    try:
        footers = _footers(f"{folder}/dataset/_metadata")
        files = _rows_by_file(f"{folder}/dataset", properties, footers)
        survey = _ours(root, properties, survey_of) or _anybodys(f"{folder}/dataset", files, properties, footers)
    except (*DAMAGE, PartitionError) as error:
        raise UserError(f"{folder} cannot be read: {str(error) or type(error).__name__}") from error
    position = [properties.get("hats_col_ra", "ra"), properties.get("hats_col_dec", "dec")]
    if missing := sorted(set(position) - set(survey.by_name)):
        raise UserError(f"{folder} has no column of positions {missing[0]}")
    entries = _entries(f"{folder}/dataset", files)
    build = {"position": position, "hats": True}
    return f"{folder}/dataset", survey, Manifest(survey.name, list(survey.columns), survey.key, entries, [folder], build)


def files_of(root: str) -> tuple[str, dict[str, str], list[str]] | None:
    """The files of a HATS catalogue behind a URL, or of that of a collection.

    Args:
        root: the URL.

    Returns:
        The catalogue's folder, its properties, and its files below ``dataset`` in order; None where there is no catalogue.
        No file of rows is looked into.

    Raises:
        UserError: the catalogue is damaged.
    """
    root = root.rstrip("/")
    properties, folder = _properties(root)
    if properties is None:
        return None
    dataset = f"{folder}/dataset"
    try:
        alone = properties.get("hats_npix_suffix", ".parquet") != "/"
        paths = (
            _listed(dataset, properties)
            if alone
            else list(_rows_by_file(dataset, properties, _footers(f"{dataset}/_metadata")))
        )
        if odd := next((path for path in paths if not _FILE.fullmatch(path)), None):
            raise ValueError(f"{odd[:200]!r} is no file of a catalogue")
    except (*DAMAGE, PartitionError) as error:
        raise UserError(f"{folder} cannot be read: {str(error) or type(error).__name__}") from error
    return folder, properties, sorted(paths, key=_place)


def _text(where: str) -> str | None:
    """A small file; None where there is none."""
    try:
        if "://" in where:
            return remote.read_whole(where, _MOST).decode("utf-8", "replace")
        with open(where, "rb") as file:
            return file.read(_MOST).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error}") from error


def _properties(root: str) -> tuple[dict[str, str] | None, str]:
    """Those of a catalogue, and its folder."""
    folder = root
    if (collection := _text(f"{root}/{COLLECTION}")) is not None:
        name = parsed(collection).get("hats_primary_table_url", "")
        if not name or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name.split("/"):
            raise UserError(f"{root} is a HATS collection whose catalogue {name!r} is not in it")
        folder = f"{root}/{name}"
    found = next((text for name in CATALOGUE if (text := _text(f"{folder}/{name}")) is not None), None)
    if found is None and collection is not None:
        raise UserError(f"{root} is a HATS collection whose catalogue {folder.rpartition('/')[2]!r} is not there")
    values = None if found is None else parsed(found)
    return (None if values is None or not any(name.startswith("hats_") for name in values) else values), folder


def _rows_by_file(dataset: str, properties: dict[str, str], footers: pq.FileMetaData | None) -> dict[str, int]:
    """Rows of each file, by its path below ``dataset``, in the order of the sky.

    The footers of all files stand in ``_metadata``; where that is not there, each file's is read.
    """
    rows: dict[str, int] = {}
    groups = [footers.row_group(number) for number in range(footers.num_row_groups)] if footers is not None else []
    for group in groups:
        path = group.column(0).file_path
        rows[path] = rows.get(path, 0) + group.num_rows
    if not rows:
        paths = _listed(dataset, properties)
        with ThreadPoolExecutor(_THREADS) as pool:
            counts = pool.map(lambda path: _count(f"{dataset}/{path}"), paths)
            rows = dict(zip(paths, counts, strict=True))
    for path in rows:
        if not _FILE.fullmatch(path):
            raise ValueError(f"{path[:200]!r} is no file of a catalogue")
    rows = {path: rows[path] for path in sorted(rows, key=_place) if rows[path]}
    if not rows:
        raise ValueError("it has no rows")
    return rows


def _place(path: str) -> tuple[int, str]:
    order, pixel = _cell(path)
    return pixel << 2 * (29 - min(order, 29)), path


def _cell(path: str) -> tuple[int, int]:
    match = _FILE.fullmatch(path)
    assert match is not None
    return int(match[1]), int(match[2])


def _footers(where: str) -> pq.FileMetaData | None:
    if "://" not in where:
        return pq.read_metadata(where) if Path(where).is_file() else None
    try:
        return pq.read_metadata(io.BytesIO(remote.read_whole(where, _MOST_FOOTERS)))
    except FileNotFoundError:
        return None


def _count(path: str) -> int:
    with ParquetFile(path, []) as file:
        return file.rows


def _listed(dataset: str, properties: dict[str, str]) -> list[str]:
    """The files' paths, as a folder or the list of partitions has them."""
    suffix = properties.get("hats_npix_suffix", ".parquet")
    if "://" not in dataset:
        found = Path(dataset).glob(f"Norder=*/Dir=*/Npix=*{'/*.parquet' if suffix == '/' else suffix}")
        return sorted(path.relative_to(dataset).as_posix() for path in found)
    if suffix == "/":
        raise ValueError("it has folders of files, and no list of them in dataset/_metadata")
    listed = _text(f"{dataset.rpartition('/')[0]}/partition_info.csv") or ""
    lines = [line.split(",") for line in listed.splitlines() if line.strip()]
    names = lines[0] if lines else []
    cells = [(int(line[names.index("Norder")]), int(line[names.index("Npix")])) for line in lines[1:]]
    return [f"Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}{suffix}" for order, pixel in cells]


def _entries(dataset: str, files: dict[str, int]) -> list[FileEntry]:
    """What a manifest would say; there are no checksums, and behind a URL no sizes."""
    by_order: dict[int, list[str]] = {}
    for path in files:
        by_order.setdefault(_cell(path)[0], []).append(path)
    boxes: dict[str, list[float]] = {}
    for order, paths in by_order.items():
        pixels = [_cell(path)[1] for path in paths]
        if max(pixels) >= 12 << 2 * order:
            raise UserError(f"{dataset}: Npix={max(pixels)} is no cell of order {order}")
        boxes.update(zip(paths, cell_boxes(pixels, 2**order).tolist(), strict=True))
    far = "://" in dataset
    return [
        FileEntry(
            path,
            "train",
            _cell(path)[1],
            rows,
            0 if far else _size(f"{dataset}/{path}"),
            "",
            "",
            (boxes[path][0], boxes[path][1]),
            (boxes[path][2], boxes[path][3]),
        )
        for path, rows in files.items()
    ]


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _ours(root: str, properties: dict[str, str], survey_of: Callable) -> Survey | None:
    """The survey that ``skyset hats`` exported, as its loader hands it out; None where it is not known here."""
    note = _text(f"{root}/{NOTE}")
    if note is None or "skyset_survey" not in properties:
        return None
    try:
        declared = survey_of(properties["skyset_survey"], properties.get("skyset_config"))
        values = json.loads(note)
        columns = values["columns"]
        places = {each["column"]: Place(each["name"], each.get("field", "")) for each in columns}
        built = [Column(each["column"], each["dtype"], tuple(each["shape"]), each["unit"]) for each in columns]
        survey = declared.as_built(built, dict(values.get("noted", {})))
    except (UserError, ValueError, LookupError, TypeError):
        return None
    there = {column.name: (column.dtype, column.shape) for column in built}
    if any(there.get(column.name) != (column.dtype, column.shape) for column in survey.columns):
        return None
    return replace(survey, opens=OpensParquet(places), trims=())  # what was exported has no padding


def _anybodys(dataset: str, files: Mapping[str, int], properties: dict[str, str], footers: pq.FileMetaData | None) -> Survey:
    """A declaration of the columns that the file with the most rows has."""
    name = properties.get("obs_collection") or Path(dataset).parent.name
    survey = anybodys(f"{dataset}/{max(files, key=files.__getitem__)}", dataset, name, footers)
    return replace(
        survey,
        title=properties.get("obs_title", name),
        homepage=properties.get("obs_copyright_url", ""),
        license=properties.get("obs_copyright", ""),
    )


def anybodys(
    path: str, where: str, name: str, footers: pq.FileMetaData | None = None, keys: Sequence[str] = _KEYS
) -> Survey:
    """A declaration of the columns that anybody's Parquet file has.

    Args:
        path: the file, local or a URL.
        where: what it is of, for messages.
        name: the survey's.
        footers: of all files, where they are at hand: they tell which lists are of several lengths.
        keys: names, in small letters, of the column of objects' names: the first that there is.

    Raises:
        PartitionError: the file is damaged.
    """
    with ParquetFile(path, []) as file:
        schema, uneven = file.schema, uneven_in(footers or file.footer)
        columns, places, others = columns_in(schema, lambda names: file.head(names, _SAMPLE), uneven)
    if others:
        say(f"{where}: left out, as no numbers, text or arrays of at most one axis of any length: {', '.join(others)}")
    encoded = {name for name in schema.names if pa.types.is_struct(schema.field(name).type) and name in places}
    lower = {column.name.lower(): column.name for column in columns if not column.shape and not column.is_ragged}
    return undescribed(
        word_of(name, "hats"),
        columns,
        plain_features(columns, {}, tuple(encoded)),
        title=name,
        key=next((lower[each] for each in keys if each in lower), columns[0].name if columns else ""),
        opens=OpensParquet(places, fill=True),
    )


def word_of(text: str, otherwise: str) -> str:
    """A name of ASCII letters, digits and _ made of any text; ``otherwise`` where nothing is left."""
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or otherwise
