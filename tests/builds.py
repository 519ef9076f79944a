"""Run the GZ3D build as a user does and look at what it left, with nothing but h5py and csv."""

import csv
import hashlib
import os
import sys
from pathlib import Path

import h5py

from skyset.archives.fetch import Fetcher
from skyset.build_scripts.gz3d.build_parent_sample import main
from skyset.building import build as build_module
from skyset.loaders.gz3d import SURVEY
from skyset.partitions.verify import verify
from tests.processes import imported, interruptible

SCRIPT = Path(__file__).parents[1] / "build_scripts" / "gz3d" / "build_parent_sample.py"


def build(root, *arguments, processes=1):
    """Exit status of a build in this process."""
    return main(["-o", str(root), "--num_processes", str(processes), *map(str, arguments)])


def start(root, *arguments, processes=2, **options):
    """The real script in a process group of its own."""
    command = [sys.executable, str(SCRIPT), "-o", str(root), "--num_processes", str(processes), *map(str, arguments)]
    options = {"start_new_session": True} | options
    if "--scheduler" in arguments:  # Dask's threads do not come through a fork
        return interruptible(command, **options)
    return imported(command, first=lambda: setattr(build_module, "Fetcher", Fetcher), **options)


def rows(root):
    """Digest of all columns of each row, by key; AssertionError where a key comes twice."""
    found = {}
    for path in sorted(Path(root).glob("healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            columns = {c.name: file[c.name][:] for c in SURVEY.columns}
        for k, key in enumerate(columns["file_name"].astype(str).tolist()):
            assert key not in found, f"{key} is there twice"
            parts = (name.encode() + values[k].tobytes() for name, values in columns.items())
            found[key] = hashlib.sha256(b"".join(parts)).hexdigest()
    return found


def files(root):
    """Bytes of every partition, by relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in Path(root).glob("healpix=*/*")}


def rejected(root):
    """Reason by the file's name (its key where it has none), from ``rejected.csv``; empty where there is none."""
    path = Path(root) / "rejected.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {Path(row["file"]).name or row["key"]: row["reason"] for row in csv.DictReader(file)}


def differences(root):
    return list(verify(root, SURVEY))


def leftovers(root):
    """What a finished build must not leave behind."""
    wanted = {"manifest.json", "rejected.csv", "README.md"}
    names = {path.relative_to(root).as_posix() for path in Path(root).rglob("*") if path.is_file()}
    return sorted(name for name in names if name not in wanted and not (name.startswith("healpix=") and "/." not in name))


def link(source, target, names=None):
    """A folder with hard links to some of the files of another."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if names is None or path.name in names:
            os.link(path, target / path.name)
    return target
