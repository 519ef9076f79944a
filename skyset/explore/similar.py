"""Galaxies that look alike: exact search by cosine among vectors of a network, or of a description without training.

Vectors come from ``training/extract_representations.py`` or from published files such as ``cnn_features_decals.parquet``.
Where there are none, ``describe_rows`` makes some from the images (`description.look`). faiss is used if asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from skyset.errors import MissingPackage, PartitionError, UserError
from skyset.explore import description
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import Manifest
from skyset.partitions.partition import Partition
from skyset.pixels import as_array
from skyset.tables.representations import CHUNK, iter_vectors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The column that ``skyset build --representations`` makes.
VECTOR = "representation"
#: What a description without training weighs, by the parts of `skyset.explore.description.look`: about as the eye does.
WEIGHTS = {
    "colour": 2.0,
    "size": 1.0,
    "concentration": 1.0,
    "flatness": 1.0,
    "clumps": 1.2,
    "brightness": 0.6,
    "profiles": 1.0,
    "bend": 1.0,
    "modes": 1.0,
}
DESCRIPTION = "colour, size, shape, concentration, clumps and profile (no training)"


@dataclass(frozen=True)
class Representations:
    """Vectors by key.

    Args:
        keys: (rows,) str.
        vectors: (rows, width) float32.
        name: where they are from, in words that can stand in a figure.
    """

    keys: np.ndarray
    vectors: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.keys)


def find_representations(root: str | Path) -> Path | None:
    """Vectors for a survey's folder, None where there are none: parquet files, or partitions of representations.

    That is the file or folder itself, its ``representations``, or a folder beside it named ``<survey>_representations``.
    """
    root = Path(root).expanduser()
    if root.suffix == ".parquet" and root.is_file():
        return root
    for place in (root / "representations", root.with_name(root.name + "_representations"), root):
        if place.is_dir() and (any(place.glob("*.parquet")) or (place != root and (place / MANIFEST).is_file())):
            return place
    return None


def read_representations(path: str | Path, rows: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Keys and vectors, some rows at a time.

    Args:
        path: partitions of representations, a parquet file, or a folder of them, see `skyset.tables.representations`.
        rows: at a time.

    Yields:
        ``keys`` (rows,) str, ``vectors`` (rows, width) float32.

    Raises:
        UserError: no such file, no key, or no vectors in it.
    """
    if (Path(path).expanduser() / MANIFEST).is_file():
        yield from _read_partitions(str(Path(path).expanduser()))
        return
    files = _files(path)
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"no representations in {path}")
    for file in files:
        yield from iter_vectors(file, rows=rows)


def _read_partitions(root: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Those that ``skyset build --representations`` made, a partition at a time."""
    manifest = Manifest.load(root)
    columns = {column.name: column for column in manifest.columns}
    if not {"object_id", VECTOR} <= columns.keys():
        raise UserError(f"{root} has no column {VECTOR}")
    try:
        for entry in manifest.files:
            wanted = [columns["object_id"], columns[VECTOR]]
            with Partition(f"{root}/{entry.path}", wanted, trusted_rows=entry.rows) as partition:
                vectors = partition.read(VECTOR).astype(np.float32, copy=False)
                yield np.asarray(partition.text("object_id"), dtype=object), vectors
    except PartitionError as error:
        raise UserError(str(error)) from error


def load_representations(path: str | Path) -> Representations:
    """All vectors in memory, 1.7 GB for 340,000 of 1280 numbers; ``most_similar_in_file`` does without.

    Raises:
        UserError: as ``read_representations``, or files whose vectors differ in length.
    """
    keys: list[np.ndarray] = []
    vectors, filled = np.empty((0, 0), np.float32), 0
    for some, chunk in read_representations(path):
        if not keys:
            vectors = np.empty((_row_count(path), chunk.shape[1]), np.float32)  # never two copies of all
        if chunk.shape[1] != vectors.shape[1]:
            raise UserError(f"the files in {path} hold vectors of different length")
        keys.append(some)
        vectors[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    if not keys:
        raise UserError(f"no representations in {path}")
    return Representations(np.concatenate(keys), vectors, f"vectors of {Path(path).name}")


def _row_count(path: str | Path) -> int:
    if (Path(path).expanduser() / MANIFEST).is_file():
        return Manifest.load(Path(path).expanduser()).rows
    return sum(pq.read_metadata(file).num_rows for file in _files(path))


def _files(path: str | Path) -> list[Path]:
    """The parquet files that a file or folder stands for."""
    path = Path(path).expanduser()
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def describe_rows(rows: Iterable[dict], image: str = "image", key: str = "object_id") -> Representations:
    """Vectors made from the images themselves, about 10 ms each: what a person would compare, see `description.look`.

    Numbers of the description are scaled to the same spread over the rows, and its parts to ``WEIGHTS``, however many
    numbers they have. A last number, the same in all, makes cosines fall with the distance of two descriptions: without it
    an average galaxy, near the middle of all, would resemble whatever lies in the same direction.

    Args:
        rows: with an image (PIL or array) and a key each.
    """
    keys, descriptions = [], []
    for row in rows:
        keys.append(_key(row[key]))
        descriptions.append({name: part.ravel().astype(np.float32) for name, part in description.look(row[image]).items()})
    if not keys:
        raise UserError("there are no rows to describe")
    parts = [weight * _scaled(np.array([each[name] for each in descriptions])) for name, weight in WEIGHTS.items()]
    vectors = np.concatenate(parts, axis=1)
    far = 3 * np.sqrt((vectors**2).sum(axis=1).mean()) or 1.0
    vectors = np.column_stack([vectors, np.full(len(vectors), far, np.float32)])
    return Representations(np.array(keys, dtype=object), vectors, DESCRIPTION)


def _scaled(part: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and, together, a variance of 1; constant columns become 0."""
    spread = part.std(axis=0)
    return (part - part.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf) / np.float32(np.sqrt(part.shape[1]))


def _key(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def most_similar(
    vectors: np.ndarray, keys: Sequence[str] | np.ndarray, to: str, k: int = 12, engine: str = "numpy"
) -> list[tuple[str, float]]:
    """The ``k`` rows with the largest cosine to the row ``to``, itself left out.

    Args:
        vectors: (rows, width).
        keys: (rows,).
        to: a key.
        engine: ``"numpy"``, or ``"faiss"``, which copies the vectors and pays off for many searches only.

    Returns:
        ``(key, cosine)``, most similar first; of equals, the earlier row first. Exact in either engine.

    Raises:
        UserError: no such key, or its vector has no direction.
    """
    names = np.asarray(keys, dtype=object)
    query = _direction(_vector_of(to, [(names, vectors)]), to)
    if engine == "faiss":
        return _faiss(np.asarray(vectors, np.float32), names, query, to, k)
    chunks = ((names[start : start + CHUNK], vectors[start : start + CHUNK]) for start in range(0, len(names), CHUNK))
    return nearest(chunks, query, to, k)


def most_similar_in_file(path: str | Path, to: str, k: int = 12) -> list[tuple[str, float]]:
    """As ``most_similar``, reading the files twice instead of holding them: ``CHUNK`` rows at a time are in memory."""
    query = _direction(_vector_of(to, read_representations(path)), to)
    return nearest(read_representations(path), query, to, k)


def _vector_of(to: str, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    for keys, vectors in chunks:
        found = np.flatnonzero(keys == to)
        if len(found):
            return np.asarray(vectors[found[0]], np.float32)
    raise UserError(f"no object {to} among the representations")


def _direction(vector: np.ndarray, key: str) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise UserError(f"the representation of {key} is zero or not finite")
    return vector / np.float32(length)


def nearest(chunks: Iterable[tuple[np.ndarray, np.ndarray]], query: np.ndarray, to: str, k: int) -> list[tuple[str, float]]:
    """The ``k`` rows of all chunks with the largest cosine to a unit vector; rows named ``to`` are left out.

    Rows whose vectors are zero or not finite are never similar.
    """
    if k < 1:
        raise UserError(f"k must be 1 or more, not {k}")
    best_keys, best = np.empty(0, dtype=object), np.empty(0, np.float32)
    for keys, vectors in chunks:
        vectors = np.asarray(vectors, np.float32)
        if vectors.shape[1] != len(query):
            raise UserError(f"vectors of {vectors.shape[1]} and of {len(query)} numbers cannot be compared")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            cosine = (vectors @ query) / np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        allowed = np.isfinite(cosine) & (keys != to)
        best_keys, best = np.append(best_keys, keys[allowed]), np.append(best, cosine[allowed])
        order = np.argsort(-best, kind="stable")[:k]
        best_keys, best = best_keys[order], best[order]
    return list(zip(best_keys.tolist(), best.astype(float).tolist(), strict=True))


def _faiss(vectors: np.ndarray, keys: np.ndarray, query: np.ndarray, to: str, k: int) -> list[tuple[str, float]]:
    try:
        import faiss
    except ImportError as error:
        raise MissingPackage("engine 'faiss' needs the package faiss-cpu", "faiss") from error
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.flatnonzero(np.isfinite(length[:, 0]) & (length[:, 0] > 0) & (keys != to))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors[usable] / length[usable]))
    cosine, rows = index.search(query[None], min(k, len(usable)))
    return [(str(keys[usable[row]]), float(value)) for value, row in zip(cosine[0], rows[0], strict=True)]


def similar_figure(images: Sequence, titles: Sequence[str], caption: str = "", columns: int = 5) -> Figure:
    """A grid of images; the first one, that the others resemble, is framed.

    Args:
        images: PIL images, or arrays (height, width[, 3]).
        titles: one line per image.
        caption: below the grid: which representation was compared.

    Row 0 of the images is north, and east is left.
    """
    from matplotlib.figure import Figure

    lines = -(-len(images) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.7 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for number, axes in enumerate(panels):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(number == 0)
        if number < len(images):
            axes.imshow(as_array(images[number]), cmap="gray")
            axes.set_title(titles[number], fontsize="x-small")
        else:
            axes.set_axis_off()
    panels[0].spines[:].set(color="tab:red", linewidth=3)
    compared = f"; cosine of: {caption}" if caption else ""
    figure.supxlabel(f"north is up, east is left{compared}", fontsize="small")
    return figure
