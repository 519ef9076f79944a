"""Files whose rows of bytes do not fit."""

from __future__ import annotations

import h5py
import numpy as np

from tests.hostile.good import ENDS, NOTE, ROWS
from tests.hostile.structured import instead_of_notes, other, reserve, virtual


def declare_bytes() -> None:
    """Rows of bytes whose ends do not fit, or whose bytes are not where they should be."""
    last = 2**63 - 1
    for name, ends in {
        "fall": [8, 4, 24],
        "fall below zero": [-4, 4, 24],
        "all below zero": [-9, -5, -1],
        "beyond the end": [4, 12, 25],
        "far beyond": [4, 12, 2**62],
        "from beyond": [2**40, 2**40, 2**40],
        "wrap round": [-last - 1, last, 24],
        "largest number": [last] * ROWS,
    }.items():
        instead_of_notes(f"ends {name}", "refused", other("note_end", np.array(ends)))
    for name, ends in {"stop early": [0, 4, 8], "are one": [24] * ROWS}.items():
        instead_of_notes(f"ends {name}", "any", other("note_end", np.array(ends)))
    for name, data in {
        "floats": ENDS.astype("f8"),
        "narrow": ENDS.astype("i4"),
        "unsigned": ENDS.astype("u8"),
        "big-endian": ENDS.astype(">i8"),
        "text": ENDS.astype("S8"),
        "pairs": np.stack([ENDS] * 2, axis=1),
        "fewer": ENDS[:-1],
        "more": np.append(ENDS, 24),
        "none": ENDS[:0],
        "one": np.int64(24),
    }.items():
        instead_of_notes(f"ends are {name}", "refused", other("note_end", data))
    instead_of_notes("no ends", "refused", lambda file: file.__delitem__("note_end"))
    instead_of_notes("ends in chunks", "rows", other("note_end", ENDS, chunks=(2,), compression="gzip"))
    instead_of_notes("ends never written", "refused", other("note_end", shape=(10**12,), dtype="i8"))
    for name, options in {
        "chunks": {"chunks": (8,)},
        "one chunk": {"chunks": NOTE.shape},
        "gzip": {"compression": "gzip"},
        "resizable": {"maxshape": (None,)},
    }.items():
        instead_of_notes(f"in {name}", "refused", other("note", NOTE, **options))
    for name, data in {
        "signed": NOTE.view("i1"),
        "wide": NOTE.astype("u2"),
        "text": NOTE.view("S1"),
        "opaque": NOTE.view("V1"),
        "two axes": NOTE.reshape(2, -1),
        "none": NOTE[:0],
        "cut": NOTE[:-1],
        "vlen": None,
    }.items():
        options = {"shape": (ROWS,), "dtype": h5py.vlen_dtype("u1")} if data is None else {}
        instead_of_notes(f"are {name}", "refused", other("note", data, **options))
    instead_of_notes("more than the rows have", "rows", other("note", np.append(NOTE, NOTE)))
    instead_of_notes("never written", "refused", other("note", shape=(10**12,), dtype="u1"))
    instead_of_notes("in another file", "refused", other("note", shape=NOTE.shape, dtype="u1", external="outside.bin"))
    instead_of_notes("virtual", "refused", lambda f: (f.__delitem__("note"), virtual(f, "outside.hdf5", "note", NOTE.shape)))
    instead_of_notes("soft link", "refused", lambda f: (f.move("note", "far"), f.__setitem__("note", h5py.SoftLink("/far"))))
    instead_of_notes(
        "ends elsewhere",
        "refused",
        lambda f: (f.__delitem__("note_end"), f.__setitem__("note_end", h5py.ExternalLink("outside.hdf5", "/image"))),
    )
    for name, ends, expected in (("one row", [0, 0, 1 << 30], "refused"), ("a hole", [0, 0, 16 << 20], "any")):
        instead_of_notes(
            f"1 GB, {name}",
            expected,
            lambda f, ends=ends: (
                f.__delitem__("note"),
                reserve(f, "note", "u1", (1 << 30,)),
                other("note_end", np.array(ends))(f),
            ),
        )


declare_bytes()
