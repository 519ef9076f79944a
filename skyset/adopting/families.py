"""Arrays of a row or object that run along one of them, and so are padded together; by names and shapes, pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from skyset.adopting.fields import Field

#: What the array is that others run along: wavelengths, times, a mask, one array of which they are parts, masks of the
#: records of a table, types of neighbours in a catalogue.
WAVE, TIME, MASKED, PARTS, RECORDS, NEIGHBOURS = "wave", "time", "mask", "parts", "records", "neighbours"
#: What the datasets of labels of light curves are called.
LABELS = ("bands", "band", "filters", "filter")
RUNS = {WAVE: ("lambda", "wave", "wavelength", "loglam"), TIME: ("time", "mjd", "jd", "bjd", "hjd")}
_KEY = re.compile(r"((?:.*[_/])?)([A-Za-z]+)")


@dataclass(frozen=True)
class Family:
    """Arrays of the same shape that run along one of them.

    Attributes:
        by: the field of wavelengths, times or masks, or the one array of which they are parts.
        role: what that is: ``wave``, ``time``, ``mask``, ``parts``, ``records`` or ``neighbours``.
        members: all fields of the family, with ``by``.
        beside: of a mask, its inverse variance and flux; of types of neighbours, what else there is of them.
    """

    by: str
    role: str
    members: tuple[str, ...]
    beside: tuple[str, ...] = ()


def families(fields: Mapping[str, Field]) -> list[Family]:
    """The families among the fields of a row or object, in the order of the fields that they run along."""
    found = list(_tables(fields))
    tables = {member for family in found for member in family.members}
    for name, field in fields.items():
        prefix, key = _split(name)
        if name in tables:
            continue
        if is_parts(field):
            found.append(Family(name, PARTS, (name,)))
            continue
        role = next((role for role, keys in RUNS.items() if key in keys), "")
        if role and _is_array(field) and not any(each.by.startswith(prefix) and each.role == role for each in found):
            found.append(Family(name, role, _alike(fields, name, prefix)))
    along = {member for family in found for member in family.members}
    for name, field in fields.items():
        prefix, key = _split(name)
        beside = tuple(prefix + each for each in ("ivar", "flux"))
        if key == "mask" and name not in along and all(each in fields for each in beside) and len(field.dims) == 1:
            members = _alike(fields, name, prefix)
            if set(beside) <= set(members):
                found.append(Family(name, MASKED, members, beside))
    return found


def _tables(fields: Mapping[str, Field]) -> Iterator[Family]:
    """Tables of a row that are filled up to one number of records: spectra of the points of a galaxy, and neighbours."""
    for name, field in fields.items():
        prefix, key = _split(name)
        beside = tuple(prefix + each for each in ("ivar", "flux"))
        if (
            key == "mask"
            and field.member
            and len(field.dims) == 2
            and all(_is_beside(fields, each, field) for each in beside)
        ):
            members = (each for each, other in fields.items() if other.member and each.rpartition("/")[0] + "/" == prefix)
            yield Family(name, RECORDS, tuple(members), beside)
        elif prefix == "catalog_" and key == "type" and field.is_integer and len(field.dims) == 1:
            alike = _alike(fields, name, prefix)
            yield Family(name, NEIGHBOURS, alike, tuple(each for each in alike if each != name))


def _is_beside(fields: Mapping[str, Field], name: str, field: Field) -> bool:
    return name in fields and fields[name].member and fields[name].dims == field.dims


def is_parts(field: Field) -> bool:
    """Whether an array is a light curve of (bands, 3 of time, flux and its error, any number)."""
    return _split(field.name)[1] == "lightcurve" and len(field.dims) == 3 and field.dims[1] == 3


@lru_cache(1 << 16)
def _split(name: str) -> tuple[str, str]:
    match = _KEY.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")


def _is_array(field: Field) -> bool:
    if field.is_text or (field.any_length and field.dims):
        return False
    return field.any_length or len(field.dims) in (1, 2)


def _alike(fields: Mapping[str, Field], name: str, prefix: str) -> tuple[str, ...]:
    """The fields of the same prefix and shape, those of bytes of text left out."""
    like = fields[name]
    return tuple(
        each
        for each, field in fields.items()
        if each.startswith(prefix)
        and "/" not in each[len(prefix) :]
        and (field.dims, field.any_length) == (like.dims, like.any_length)
        and not field.is_text
    )
