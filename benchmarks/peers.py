"""The strongest ways of others to stream the same rows: what they write, and how they iterate, near and far.

It needs no skyset: `remote.py` runs it with the Python that has the packages (`pip install litdata mosaicml-streaming
webdataset h5py datasets`). Rows are read from partitions; a row is its pixels as raw bytes, of known shapes: the cheapest
form that each of them has.

    python benchmarks/peers.py write litdata PARTITIONS FOLDER
    python benchmarks/peers.py read litdata FOLDER_OR_URL CACHE [FOLDER_TO_WARM_UP_WITH]
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

SHARD = 64 << 20  # bytes of a chunk, shard or file, as their documentations advise
ROW_GROUP = 8 << 20
PIXELS_FROM = 4096  # bytes of a row


def rows(partitions: str) -> Iterator[dict[str, np.ndarray]]:
    """The pixels of all rows, by column."""
    import h5py

    for path in sorted(Path(partitions).glob("healpix=*/*.hdf5")):
        with h5py.File(path) as file:
            names = [name for name, data in file.items() if data[:1].nbytes >= PIXELS_FROM]
            for row in range(len(file[names[0]])):
                yield {name: file[name][row] for name in names}


# --- writing -------------------------------------------------------------------------------------------------------------


def write_parquet(partitions: str, folder: str) -> None:
    """Raw bytes in columns of binary, row groups of a few megabytes, no compression: pixels of noise have none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, number, source = None, 0, rows(partitions)
    first = next(source)
    size = sum(array.nbytes for array in first.values())
    source = _chain(first, source)
    schema = pa.schema([(name, pa.binary()) for name in first])
    while some := list(islice(source, max(1, ROW_GROUP // size))):
        if writer is None or number * ROW_GROUP % (1 << 29) == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(f"{folder}/{number:05d}.parquet", schema, compression="none", use_dictionary=False)
        writer.write_table(pa.table({name: [row[name].tobytes() for row in some] for name in first}, schema))
        number += 1
    writer.close()


def _chain(first: dict, rest: Iterator[dict]) -> Iterator[dict]:
    yield first
    yield from rest


def write_litdata(partitions: str, folder: str) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(folder, chunk_bytes=SHARD)
    for number, row in enumerate(rows(partitions)):
        cache[number] = {name: array.tobytes() for name, array in row.items()}
    cache.done()
    cache.merge()


def write_mds(partitions: str, folder: str) -> None:
    from streaming import MDSWriter

    source = rows(partitions)
    first = next(source)
    with MDSWriter(out=folder, columns=dict.fromkeys(first, "bytes"), size_limit=SHARD) as writer:
        for row in _chain(first, source):
            writer.write({name: array.tobytes() for name, array in row.items()})


def write_webdataset(partitions: str, folder: str) -> None:
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxsize=SHARD, verbose=0) as writer:
        for number, row in enumerate(rows(partitions)):
            writer.write({"__key__": f"{number:08d}", **{f"{name}.bin": array.tobytes() for name, array in row.items()}})


# --- reading: each yields the bytes of a row's columns --------------------------------------------------------------------


def _listed(where: str, ending: str) -> list[str]:
    """The files of a folder, or of a URL by the list that `remote.py` puts there."""
    if "://" not in where:
        return sorted(map(str, Path(where).glob(f"*{ending}")))
    import requests

    return [f"{where}/{name}" for name in requests.get(f"{where}/files.json", timeout=30).json() if name.endswith(ending)]


def read_parquet(where: str, cache: str) -> Iterator[list[bytes]]:
    from datasets import load_dataset

    files = _listed(where, ".parquet")
    for row in load_dataset("parquet", data_files=files, split="train", streaming=True, cache_dir=cache):
        yield list(row.values())


def read_hdf5(where: str, cache: str) -> Iterator[list[np.ndarray]]:
    """The partitions themselves by the stock module of `datasets`, through fsspec."""
    from datasets import load_dataset

    files = _listed(where, ".hdf5") if "://" in where else sorted(map(str, Path(where).glob("healpix=*/*.hdf5")))
    stream = load_dataset("hdf5", data_files=files, split="train", streaming=True, cache_dir=cache)
    for row in stream.with_format("numpy"):
        yield [value for value in row.values() if getattr(value, "nbytes", 0) >= PIXELS_FROM]


def _as_bucket(where: str) -> str:
    """A URL as the address in a bucket of an S3 server, for libraries that speak S3 and no HTTP."""
    parts = urlsplit(where)
    endpoint = f"{parts.scheme}://{parts.netloc}"
    os.environ |= {"S3_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}
    return f"s3:/{parts.path}"


def read_litdata(where: str, cache: str) -> Iterator[list[bytes]]:
    from litdata import StreamingDataset
    from litdata.streaming import downloader

    place = _as_bucket(where) if "://" in where else where
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # its fastest client takes no server on this machine otherwise
    for row in StreamingDataset(place, cache_dir=cache, shuffle=False, max_pre_download=4):
        yield list(row.values())


def read_mds(where: str, cache: str) -> Iterator[list[bytes]]:
    from streaming import StreamingDataset

    places = {"remote": _as_bucket(where), "local": cache} if "://" in where else {"local": where}
    for row in StreamingDataset(**places, shuffle=False, batch_size=1):
        yield list(row.values())


def read_webdataset(where: str, cache: str) -> Iterator[list[bytes]]:
    import webdataset

    files = _listed(where, ".tar")
    files = [f"pipe:curl -s {file}" for file in files] if "://" in where else files
    for row in webdataset.WebDataset(files, shardshuffle=False, empty_check=False):
        yield [value for name, value in row.items() if name.endswith("bin")]


NAMES = ("hdf5", "parquet", "litdata", "mds", "webdataset")


def measure(rows: Iterator, began: float) -> dict:
    """Seconds to the first row and to the last, and of CPU for these; rows. Each pixel is copied out."""
    count, first, before = 0, 0.0, _cpu()
    buffer = io.BytesIO()
    for row in rows:
        first = first or time.perf_counter() - began
        for value in row:
            buffer.write(value if isinstance(value, bytes) else np.ascontiguousarray(value).view(np.uint8).data)
            buffer.seek(0)
        count += 1
    return {"first": first, "seconds": time.perf_counter() - began, "rows": count, "cpu": _cpu() - before}


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    what, name, source, target, *near = sys.argv[1:]
    sys.path.remove(str(Path(__file__).resolve().parent))  # a module here is called as a package of theirs
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    if what == "write":
        globals()[f"write_{name}"](source, target)
        print(json.dumps({}))
        return
    _import(name)
    for folder in near if name in ("hdf5", "parquet") else ():
        next(globals()[f"read_{name}"](folder, target))
    print(json.dumps(measure(globals()[f"read_{name}"](source, target), time.perf_counter())))
    sys.stdout.flush()
    os._exit(0)  # their threads and shared memory end with it


def _import(name: str) -> None:
    """Importing is not what is measured."""
    packages = {"litdata": "litdata", "mds": "streaming", "webdataset": "webdataset"}
    __import__(packages.get(name, "datasets"))


if __name__ == "__main__":
    main()
