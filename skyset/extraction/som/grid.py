"""Where the units of a map lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOPOLOGIES = ("rectangular", "hexagonal")


@dataclass(frozen=True)
class Grid:
    """``rows x columns`` units, numbered row by row; on a hexagonal one odd rows are shifted by half a unit."""

    rows: int
    columns: int
    topology: str

    def places(self) -> np.ndarray:
        """(units, 2), where the units lie on the map, x and y; adjacent ones are 1 apart."""
        down, across = np.divmod(np.arange(self.rows * self.columns), self.columns)
        if self.topology == "hexagonal":
            return np.stack([across + 0.5 * (down % 2), down * np.sqrt(0.75)], 1)
        return np.stack([across, down], 1).astype(np.float64)

    def distances(self) -> np.ndarray:
        """(units, units), between the units on the map."""
        places = self.places()
        return np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))

    def beside(self) -> np.ndarray:
        """Bool (units, units), whether they share an edge."""
        return np.abs(self.distances() - 1) < 0.1
