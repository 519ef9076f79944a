"""What was noted of some files, as bytes, both ways: compact, since there may be a million objects in as many files."""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from skyset.adopting.fields import Field, Names
from skyset.adopting.look import Finding, Ids, Look
from skyset.adopting.scan import TreeFile
from skyset.partitions.tree.structure import Stored, Unit, dtype_of_text, text_of_dtype

#: What is kept as it is.
_PLAIN = ("kind", "error", "rows", "left_out", "keys", "said", "judged", "wrong", "own", "bands", "sampled", "is_whole")
_LEVEL = 1


class _Interned:
    """Each of some lists once, with its number."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def number(self, values: list) -> int:
        return self.known.setdefault(json.dumps(values), len(self.known))

    def all(self) -> list[list]:
        return [json.loads(text) for text in self.known]


def packed(looks: Sequence[Look]) -> bytes:
    """Files' notes as bytes."""
    forms, blob, told = _Interned(), bytearray(), []
    for look in looks:
        told.append(_told(look, forms, blob))
    head = zlib.compress(json.dumps([forms.all(), told]).encode(), _LEVEL)
    return len(head).to_bytes(8, "little") + head + bytes(blob)


def unpacked(data: bytes) -> list[Look]:
    """The notes that ``packed`` made bytes of; ValueError, LookupError or TypeError where they are none."""
    size = int.from_bytes(data[:8], "little")
    try:
        forms, told = json.loads(zlib.decompress(data[8 : 8 + size]))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    place, known = _Place(memoryview(data)[8 + size :]), _Forms(forms)
    return [_look(values, known, place) for values in told]


class _Place:
    """Where reading has come to in bytes."""

    def __init__(self, data: memoryview):
        self._data, self._at = data, 0

    def take(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        stop = self._at + math.prod(shape) * dtype.itemsize
        if stop > len(self._data):
            raise ValueError("cut short")
        values = np.frombuffer(self._data[self._at : stop], dtype).reshape(shape)
        self._at = stop
        return values


class _Forms:
    """What was interned, made of its lists once."""

    def __init__(self, forms: list[list]):
        self._forms = forms
        self._fields: dict[int, Field] = {}
        self._arrays: dict[int, tuple[str, tuple[int, ...], np.dtype]] = {}
        self._values: dict[int, tuple[str, np.dtype, tuple[int, ...]]] = {}

    def field(self, number: int) -> Field:
        if (known := self._fields.get(number)) is None:
            known = self._fields[number] = Field.from_json(self._forms[number])
        return known

    def array(self, number: int) -> tuple[str, tuple[int, ...], np.dtype]:
        if (known := self._arrays.get(number)) is None:
            name, dtype, dims = self._forms[number]
            known = self._arrays[number] = str(name), tuple(dims), dtype_of_text(dtype)
        return known

    def value(self, number: int) -> tuple[str, np.dtype, tuple[int, ...]]:
        if (known := self._values.get(number)) is None:
            name, dtype, shape = self._forms[number]
            known = self._values[number] = str(name), dtype_of_text(dtype), tuple(shape)
        return known


def _told(look: Look, forms: _Interned, blob: bytearray) -> dict[str, Any]:
    values: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(look, name))}
    values["file"] = [look.file.path, look.file.bytes, look.file.mtime]
    values["names"] = look.names
    values["sky"] = [*look.first, *look.ra, *look.dec]
    ids = look.ids
    values["ids"] = [ids.lowest, ids.highest, ids.width, ids.count_up, ids.integers]
    values["fields"] = [forms.number(field.to_json()) for field in look.fields]
    for name in ("told", "strays", "pads", "flags", "counts", "found"):
        if value := getattr(look, name):
            values[name] = value
    blob += look.digests.astype("<u8").tobytes()
    values["digests"] = len(look.digests)
    values["units"] = [_unit(unit, forms, blob) for unit in look.units]
    return values


def _unit(unit: Unit, forms: _Interned, blob: bytearray) -> list:
    arrays: list[int] = []
    for name, stored in unit.arrays.items():
        arrays += [forms.number([name, text_of_dtype(stored.dtype), list(stored.dims)]), stored.offset]
    values = []
    for name, value in unit.values.items():
        values.append(forms.number([name, value.dtype.str, list(value.shape)]))
        blob += np.ascontiguousarray(value).tobytes()
    return [unit.group, arrays, values]


def _look(values: dict[str, Any], forms: _Forms, place: _Place) -> Look:
    look = Look(TreeFile(*values["file"]), **{name: values[name] for name in _PLAIN if name in values})
    look.names = Names(*values["names"]) if values["names"] else None
    sky = values["sky"]
    look.first, look.ra, look.dec = (sky[0], sky[1]), (sky[2], sky[3]), (sky[4], sky[5])
    look.ids = Ids(*values["ids"])
    look.fields = [forms.field(number) for number in values["fields"]]
    look.told = {name: (unit, text) for name, (unit, text) in values.get("told", {}).items()}
    look.strays = {unit: [Finding(*each) for each in some] for unit, some in values.get("strays", {}).items()}
    look.pads = {by: Counter(counts) for by, counts in values.get("pads", {}).items()}
    look.flags = {name: (true, rows) for name, (true, rows) in values.get("flags", {}).items()}
    look.counts = Counter(values.get("counts", {}))
    look.found = [Finding(*each) for each in values.get("found", [])]
    look.digests = place.take(np.dtype("<u8"), (values["digests"],))
    look.units = [_unit_of(look.file, each, forms, place) for each in values["units"]]
    return look


def _unit_of(file: TreeFile, told: list, forms: _Forms, place: _Place) -> Unit:
    group, arrays, kept = told
    stored: dict[str, Stored] = {}
    for number, offset in zip(arrays[::2], arrays[1::2], strict=True):
        name, dims, dtype = forms.array(number)
        stored[name] = Stored(dims, dtype, offset)
    values: dict[str, np.ndarray] = {}
    for number in kept:
        name, dtype, shape = forms.value(number)
        values[name] = place.take(dtype, shape)
    return Unit(file.path, file.bytes, file.mtime, group, values, stored)
