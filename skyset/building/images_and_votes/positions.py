"""Where objects are: as their catalogues say, or as their names spell."""

from __future__ import annotations

import numpy as np

from skyset.building.images_and_votes.release import Names
from skyset.errors import RecordError
from skyset.tables.join import Joined


def with_positions(joined: Joined, names: Names) -> Joined:
    """The rows, each with ra and dec, degrees: the catalogues' where they have them, else those that its name spells; NaN
    where nothing does."""
    values = {name: joined.values.get(name, np.full(len(joined.keys), np.nan)).copy() for name in ("ra", "dec")}
    position_of = names.position_of
    unknown = np.flatnonzero(np.isnan(values["ra"]) | np.isnan(values["dec"])).tolist()
    for row in unknown:
        if position_of is None:
            break
        try:
            values["ra"][row], values["dec"][row] = position_of(joined.keys[row])
        except RecordError:
            continue  # named when the rows are chosen
    return Joined(joined.keys, joined.values | values, joined.rejected)


def placed(keys: list[str], rejected: list[tuple[str, str, str]], known: Joined | None, names: Names) -> Joined:
    """Objects of another table at the positions that are known of them.

    Args:
        keys: their names.
        rejected: (key, file, why) of its rows that are left out.
        known: objects with positions; None where there are none.
        names: how objects are named.
    """
    at = {} if known is None else {key: row for row, key in enumerate(known.keys)}
    rows = [at.get(key, -1) for key in keys]
    values = {}
    if known is not None:
        values = {name: np.append(known.values[name], np.nan)[rows] for name in ("ra", "dec")}
    return with_positions(Joined(keys, values, rejected), names)
