"""Files that hold something else where columns should be: types, shapes, and what stands beside them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from tests.hostile.good import IMAGE, RECORDS, ROWS, SIDE
from tests.hostile.structured import STRUCTURED, beside_image, dataset, instead_of_image


def declare_types() -> None:
    """Something else where pixels should be."""
    rows = range(ROWS)
    text = h5py.string_dtype()
    pair = np.dtype([("a", "u1"), ("b", h5py.string_dtype())])
    for name, make in {
        "references": lambda f: f.create_dataset("image", data=[f.ref] * ROWS, dtype=h5py.ref_dtype),
        "regions": lambda f: f.create_dataset("image", data=[f["flux"].regionref[:]] * ROWS, dtype=h5py.regionref_dtype),
        "vlen text": dataset(["x" * k for k in rows], dtype=text),
        "vlen numbers": lambda f: f.create_dataset("image", (ROWS,), h5py.vlen_dtype("u1")).__setitem__(0, IMAGE[0].ravel()),
        "compound": dataset(np.zeros(IMAGE.shape, pair.descr[0:1])),
        "compound of text": dataset(np.array([(1, "x")] * ROWS, pair)),
        "array": dataset(shape=(ROWS,), dtype=np.dtype(("u1", (SIDE, SIDE)))),
        "opaque": dataset(np.zeros(IMAGE.shape, "V1")),
        "complex": dataset(np.zeros(IMAGE.shape, "c8")),
        "null": dataset(h5py.Empty("u1")),
        "scalar": dataset(np.uint8(1)),
        "flat": dataset(IMAGE.reshape(ROWS, -1)),
        "32 axes": dataset(shape=(1,) * 32, dtype="u1"),
        "no rows": dataset(IMAGE[:0]),
        "no rows, chunks": dataset(IMAGE[:0], chunks=(1, SIDE, SIDE), maxshape=(None, SIDE, SIDE)),
        "named type": lambda f: f.__setitem__("image", np.dtype("u1")),
        "group": lambda f: f.create_group("image"),
        "root": lambda f: f.__setitem__("image", f["/"]),
    }.items():
        instead_of_image(f"type:{name}", "refused", make)
    enum = h5py.enum_dtype({"no": 0, "yes": 1}, basetype="u1")
    instead_of_image("type:enum", "rows", dataset(IMAGE, dtype=enum))
    for width, expected in ((7, "any"), (9, "refused"), (1 << 20, "refused")):
        STRUCTURED[f"text:{width}"] = expected, lambda path, width=width: wide_text(path, f"S{width}")
    STRUCTURED["text:vlen"] = "refused", lambda path: wide_text(path, text)
    STRUCTURED["text:bomb"] = "refused", lambda path: wide_text(path, f"S{64 << 20}", compression="gzip")


def wide_text(path: Path, dtype: object, **options) -> None:
    with h5py.File(path, "r+") as file:
        del file["id"]
        data = file.create_dataset("id", (ROWS,), dtype, chunks=(1,) if options else None, **options)
        for k in range(ROWS):
            data[k] = RECORDS[k]["id"].ljust(20, b"_")


def declare_company() -> None:
    """Odd things beside the columns, which are good."""

    def deep(file: h5py.File) -> None:
        group = file
        for _ in range(300):
            group = group.create_group("g")
        group["up"] = file["/"]
        group["image"] = file["image"]

    def many(file: h5py.File) -> None:
        for k in range(500):
            file.create_group(f"group-{k}")

    beside_image("beside:deep groups and a cycle", deep)
    beside_image("beside:many groups", many)
    beside_image(
        "beside:odd names", lambda f: [f.create_group(n) for n in ("é☃\U0001f30c", "..", "a" * 30000, "\n\r\t", "%s%n")]
    )
    beside_image("beside:comment", lambda f: f["image"].attrs.update({"é": "☃", "x" * 5000: [1, 2]}))
    beside_image("beside:second name", lambda f: f.__setitem__("again", f["image"]))
    beside_image("beside:scales", scales)
    beside_image("beside:attribute of 60 kB", lambda f: f["image"].attrs.create("big", np.zeros(60000, "u1")))
    beside_image("beside:attribute that points", lambda f: f.attrs.update({"DIMENSION_LIST": f["image"].ref}))


def scales(file: h5py.File) -> None:
    file["flux"].make_scale("flux")
    for axis in range(3):
        file["image"].dims[axis].attach_scale(file["flux"])


declare_types()
declare_company()
