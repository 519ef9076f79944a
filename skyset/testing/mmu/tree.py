"""A survey's tree, cell by cell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from skyset.errors import UserError
from skyset.sky import healpix_cell
from skyset.testing.mmu.damage import damage
from skyset.testing.mmu.faults import check_faults, spoil, zeroed
from skyset.testing.mmu.files import write_file
from skyset.testing.mmu.kinds import layout_of
from skyset.testing.mmu.layout import Layout
from skyset.testing.mmu.rows import Piece, Planted, Row, Spot, Truth, dice, id_of

NSIDE = 16
CELLS = 12 * NSIDE**2
#: Objects that a cell has numbers for.
MOST = 1_000_000


def write(
    kind: str,
    folder: Path | str,
    rows: int = 5,
    cells: int | Sequence[int] = 4,
    seed: int = 0,
    faults: Collection[str] = (),
    *,
    configs: Sequence[str] = (),
    side: int | None = None,
    length: int | None = None,
    full_size: bool = False,
    keep: bool = True,
) -> Truth:
    """Write a tree in the layout of one of MultimodalUniverse's surveys.

    The same arguments give the same bytes of data. An object is the same however many rows and cells there are.

    Args:
        kind: one of `skyset.testing.mmu.KINDS`.
        folder: where it goes; nothing may be in it. Configurations are folders in it, or ``data``, as in the survey's own.
        rows: of a cell and configuration; dealt to splits in turn, where there are some.
        cells: how many HEALPix cells (of 3,072), or which.
        seed: another seed, another sky.
        faults: some of `skyset.testing.mmu.FAULTS`.
        configs: of the survey's; its first, unless they are named.
        side: pixels of images' sides, even; length: of the longest spectrum or light curve. Small by default.
        full_size: as published, instead.
        keep: rows are kept for the truth. Without, memory stays flat.

    Returns:
        What the tree holds.

    Raises:
        UserError: one of the arguments cannot be; the folder is not empty.
    """
    layout, tree = layout_of(kind), Path(folder)
    check_faults(faults, layout)
    _check(layout, rows, configs)
    if tree.exists() and (not tree.is_dir() or any(tree.iterdir())):
        raise UserError(f"{tree} is there and not empty: name another folder")
    chosen = _cells(cells, seed)
    sizes = layout.full if full_size else layout.small
    sizes = (side or sizes[0], length or sizes[1])
    truth = Truth(kind, tree)
    for piece in _pieces(layout, configs or layout.configs[:1], chosen, rows, seed, sizes, faults):
        clean = {id_of(row, layout.key): row for row in piece.rows}
        piece, planted = spoil(piece, layout, faults)
        write_file(tree / piece.path, layout, piece.rows)
        truth.planted += planted
        _note(truth, layout, piece, clean, keep)
    if "zero_rows" in faults:
        _add_zero_file(truth, layout, piece, chosen, keep)
    damage(truth, faults)
    return truth


def _check(layout: Layout, rows: int, configs: Sequence[str]) -> None:
    if not 1 <= rows <= MOST:
        raise UserError(f"a cell can have 1 to {MOST:,} rows, not {rows:,}")
    if unknown := set(configs) - set(layout.configs):
        raise UserError(f"{layout.name} has no configuration {sorted(unknown)[0]!r}; it has {', '.join(layout.configs)}")


def _cells(cells: int | Sequence[int], seed: int) -> list[int]:
    """Which cells; some at random never hold RA 0, Dec 0, where rows of zeros seem to be."""
    if not isinstance(cells, int):
        if not cells or not all(0 <= cell < CELLS for cell in cells):
            raise UserError(f"cells are numbers from 0 to {CELLS - 1:,}")
        return list(cells)
    if not 1 <= cells <= CELLS:
        raise UserError(f"there are 1 to {CELLS:,} cells, not {cells:,}")
    order = np.random.default_rng(seed).permutation(CELLS)
    origin = int(healpix_cell(0.0, 0.0))
    return sorted([*(int(cell) for cell in order if cell != origin), origin][:cells])


def _pieces(
    layout: Layout,
    configs: Sequence[str],
    cells: Sequence[int],
    rows: int,
    seed: int,
    sizes: tuple[int, int],
    faults: Collection[str],
) -> Iterator[Piece]:
    """Files one after the other, without faults."""
    number = 0
    alone = layout.form == "objects" or "tiny_files" in faults
    for config in configs:
        for cell in cells:
            spots = _spots(layout, config, cell, rows, seed, sizes)
            for split in layout.splits:
                drawn = [layout.row(spot) for spot in spots if spot.split == split]
                batches = [[row] for row in drawn] if alone else [drawn] if drawn else []
                for part, batch in enumerate(batches, 1):
                    path = layout.path.format(
                        config=config,
                        cell=f"{cell:0{layout.width}d}",
                        split=split,
                        part=f"{part:03d}-of-{len(batches):03d}",
                        part4=f"{part:04d}-of-{len(batches):04d}",
                        number=f"{part - 1:02d}",
                        name=id_of(batch[0], layout.key),
                    )
                    yield Piece(path, batch, split, number)
                    number += 1


def _spots(layout: Layout, config: str, cell: int, rows: int, seed: int, sizes: tuple[int, int]) -> list[Spot]:
    ra, dec = positions(cell, rows, dice(seed, f"{layout.name}/{config}", cell, MOST))
    place = (layout.configs.index(config) * CELLS + cell) * MOST
    return [
        Spot(
            number=place + index,
            index=index,
            cell=cell,
            ra=float(ra[index]),
            dec=float(dec[index]),
            config=config,
            split=layout.splits[index % len(layout.splits)],
            side=sizes[0],
            length=sizes[1],
            rng=dice(seed, f"{layout.name}/{config}", cell, index),
        )
        for index in range(rows)
    ]


def positions(cell: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right ascensions and declinations in a cell, not at its very edge, degrees."""
    from astropy_healpix import healpix_to_lonlat

    x, y = rng.uniform(0.02, 0.98, (count, 2)).T
    ra, dec = healpix_to_lonlat(np.full(count, cell), NSIDE, dx=x, dy=y, order="nested")
    return ra.deg, dec.deg


def _note(truth: Truth, layout: Layout, piece: Piece, clean: dict[str, Row], keep: bool) -> None:
    """Rows as they should be read: positions in degrees, whatever the file has."""
    ids = [id_of(row, layout.key) for row in piece.rows]
    truth.files[piece.path], truth.splits[piece.path] = ids, piece.split
    if not keep:
        return
    turned = any(planted.kind in ("radians", "hours") for planted in truth.planted)
    for object_id, row in zip(ids, piece.rows, strict=True):
        if turned and object_id in clean:
            angles = {name: value for name, value in clean[object_id].items() if name in _ANGLES}
            row = row | angles
        truth.rows.setdefault(object_id, row)


_ANGLES = ("ra", "RA", "PLUG_RA", "TARGET_RA", "dec", "DEC", "PLUG_DEC", "TARGET_DEC")


def _add_zero_file(truth: Truth, layout: Layout, like: Piece, cells: Sequence[int], keep: bool) -> None:
    """Rows of zeros sorted into cells as the others are: RA 0, Dec 0 has a cell, and their `healpix` says which."""
    origin = int(healpix_cell(0.0, 0.0))
    if origin in cells:
        return
    path = like.path.replace(f"healpix={cells[-1]:0{layout.width}d}", f"healpix={origin:0{layout.width}d}")
    row = zeroed(like.rows[0])
    if "healpix" in row:
        row["healpix"] = np.int64(origin)
    piece = replace(like, path=path, rows=[row, dict(row)], number=like.number + 1)
    write_file(truth.folder / path, layout, piece.rows)
    truth.planted += [
        Planted("zero_rows", path, index, id_of(row, layout.key), "everything but healpix is 0") for index in (0, 1)
    ]
    _note(truth, layout, piece, {}, keep)
