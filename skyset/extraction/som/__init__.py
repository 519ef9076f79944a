"""Groups of sources that resemble each other: a self-organising map, trained in batches over any number of rows.

A map has ``rows x columns`` units, each with a centre among the features. Neighbouring units have similar centres, so that
the groups have an order that can be looked at. As in MegaCam image quality, where 3,000,000 sources of 6 features become 20
groups::

    som = SOM(4, 5, features=("ISOAREA_IMAGE", "ELONGATION", ...), log=("ISOAREA_IMAGE",)).fit(catalogue)
    hits = som.hits(sources_of_one_ccd)             # (4, 5): how many of its sources are in each group
    rows = som.representatives(sources_of_one_ccd)  # (20,): one of its sources for each group, drawn at random

The batch algorithm (Kohonen 2013, Neural Networks 37, 52) gives every row to the unit whose centre w is nearest, then moves
all centres to means that are weighted by the distance d between the units on the map, and repeats that ``epochs`` times::

    w_j = sum_i h_ij S_i / sum_i h_ij N_i        h_ij = exp(-d_ij**2 / (2 sigma**2))

with S_i the sum and N_i the number of unit i's rows; sigma shrinks geometrically from epoch to epoch and stays at its end
for the last quarter of them, so that centres settle. They start on the plane of the first two principal components.

What distances are measured in is part of the map: decimal logarithms of the features named in ``log``, minus the mean,
divided by the standard deviation. All methods take features as they are in the catalogue.

Rows pass through memory in blocks of a fixed number, however the caller has cut them into chunks, and are added up in their
order in float64: the same rows and seed give the same map, bit for bit, on the same kind of processor.
"""

from __future__ import annotations

from skyset.extraction.som.map import SOM
from skyset.extraction.som.quality import Quality

__all__ = ["SOM", "Quality"]
