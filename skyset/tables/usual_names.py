"""What tables usually call an object's name and position, and units of angle."""

from __future__ import annotations

import math

#: Usual names, in any case, of the column of objects' names: the first that a catalogue has.
NAMES = ("object_id", "iauname", "id_str", "objid", "source_id", "id", "name", "number")
#: Usual names, in any case, of right ascension and declination in degrees: of catalogues, of VizieR, of SExtractor.
POSITIONS = (
    ("ra", "dec"),
    ("raj2000", "dej2000"),
    ("raj2000", "decj2000"),
    ("_raj2000", "_dej2000"),
    ("ra_icrs", "de_icrs"),
    ("ra_icrs", "dec_icrs"),
    ("ra_j2000", "dec_j2000"),
    ("ra_deg", "dec_deg"),
    ("radeg", "decdeg"),
    ("radeg", "dedeg"),
    ("alphawin_j2000", "deltawin_j2000"),
    ("alpha_j2000", "delta_j2000"),
    ("alphawin_sky", "deltawin_sky"),
    ("alpha_sky", "delta_sky"),
    ("alphawin_world", "deltawin_world"),
    ("alpha_world", "delta_world"),
    ("right_ascension", "declination"),
)
#: Degrees of a unit of angle, by its names.
DEGREES = {
    **dict.fromkeys(("", "deg", "degree", "degrees"), 1.0),
    **dict.fromkeys(("h", "hr", "hour", "hours", "hourangle"), 15.0),
    **dict.fromkeys(("rad", "radian", "radians"), math.degrees(1)),
}
