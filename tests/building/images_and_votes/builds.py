"""Galaxies for the survey of tests, and what its tests ask of a build."""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from skyset.partitions.manifest import Manifest
from skyset.partitions.verify import verify
from skyset.splits import SPLITS
from skyset.testing.zenodo import iau_name, picture, write_zip
from tests.building.images_and_votes.zoo import ARCHIVES, CAMPAIGN, CONFIGS, TABLE, main

COUNT = 12


@dataclass(frozen=True)
class Galaxies:
    """Names, a table of votes with positions in degrees, and a PNG by name; they lie in two cells."""

    names: list[str]
    table: pd.DataFrame
    images: dict[str, bytes]

    def write_record(self, folder: Path) -> Path:
        """The record's files: the table, and the images in three archives."""
        self.table.to_csv(folder / TABLE, index=False)
        for part, archive in enumerate(ARCHIVES):
            write_zip(folder / archive, {f"{name[:4]}/{name}.png": self.images[name] for name in self.names[part::3]})
        return folder

    def write_folder(self, folder: Path, names=None, **columns) -> Path:
        """Images of some galaxies as files, and their rows of the table, with more columns or others."""
        folder.mkdir(parents=True, exist_ok=True)
        names = self.names if names is None else names
        for name in names:
            (folder / f"{name}.png").write_bytes(self.images[name])
        self.rows(names).assign(**columns).to_csv(folder / TABLE, index=False)
        return folder

    def rows(self, names) -> pd.DataFrame:
        """Their rows of the table."""
        return self.table[self.table["name"].isin(names)].reset_index(drop=True)


@functools.cache
def galaxies() -> Galaxies:
    """Do not change them."""
    dice = np.random.default_rng(3)
    ra = np.round(np.where(np.arange(COUNT) % 2, 150.0, 153.5) + dice.random(COUNT), 6)
    dec = np.round(0.1 + dice.random(COUNT), 6)
    names = sorted(iau_name(*position) for position in zip(ra.tolist(), dec.tolist(), strict=True))
    order = np.argsort(ra)
    table = pd.DataFrame({"name": names, "ra": ra[order], "dec": dec[order], "z": np.round(dice.random(COUNT), 3)})
    for column in CAMPAIGN.columns:
        is_count = column.dtype == "int32"
        table[column.name] = dice.integers(1, 9, COUNT) if is_count else np.round(dice.random(COUNT), 3)
    return Galaxies(names, table, {name: picture(k, side=8) for k, name in enumerate(names)})


def build(root, *arguments, processes=1) -> int:
    """Exit status of a build in this process."""
    return main(["-o", str(root), "--num_processes", str(processes), *map(str, arguments)])


def remote(root, server, *arguments) -> int:
    return build(root, "--api_url", server.api_url, *arguments)


def rows(root) -> dict[str, dict]:
    """All columns of each row by name, with nothing but h5py."""
    found = {}
    for path in sorted([*Path(root).glob("healpix=*/*.hdf5"), *Path(root).glob("[tv]*/healpix=*/*.hdf5")]):
        with h5py.File(path) as file:
            columns = {name: file[name][:] for name in file}
        if "image_end" in columns:
            ends, data = columns.pop("image_end").tolist(), columns["image"].tobytes()
            columns["image"] = [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        split = path.relative_to(root).parts[0]
        for number, key in enumerate(columns["object_id"].astype(str).tolist()):
            assert key not in found, f"{key} is there twice"
            found[key] = {name: values[number] for name, values in columns.items()}
            found[key]["split"] = split if split in SPLITS else "train"
    return found


def same(one, other) -> bool:
    """Whether two builds have the same rows, byte by byte."""
    return one.keys() == other.keys() and all(
        np.asarray(value).tobytes() == np.asarray(other[key][name]).tobytes()
        for key, row in one.items()
        for name, value in row.items()
    )


def rejected(root) -> dict[str, str]:
    """Reason by name."""
    path = Path(root) / "rejected.csv"
    return {row["key"]: row["reason"] for row in csv.DictReader(path.read_text().splitlines())} if path.exists() else {}


def differences(root) -> list:
    """What `skyset verify` finds."""
    return list(verify(root, CONFIGS[Manifest.load(root).config]))
