"""The drawings of a report: SVG whose colours are the page's, so that they follow light and dark.

Each says in words what it shows, for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skyset.explore.report.statistics import Histogram
from skyset.html import Html, element, joined

#: Steps of the colours for rows a cell (``--step0`` to ``--step6`` in the page's style).
STEPS = 7
#: The map's semi-axes, and cells of this nside at the finest.
_HALF_WIDTH, _HALF_HEIGHT, _FINEST = 480.0, 240.0, 16
#: Rows that are drawn as dots.
MOST_DOTS = 4000
_WIDTH, _HEIGHT = 256, 96


def histogram_svg(histograms: Sequence[Histogram], words: str, shares: bool = False) -> Html:
    """Bars, or the first of two as bars and the second as a line over them.

    Args:
        histograms: of the same bins.
        words: what it shows.
        shares: heights are shares of each one's own counts, so that samples of different size compare.
    """
    heights = [each.counts / max(1, each.counts.sum()) if shares else each.counts for each in histograms]
    top = max(float(height.max(initial=0)) for height in heights) or 1.0
    drawn = [_bars(heights[0] / top)]
    if len(heights) > 1:
        drawn.append(element("path", d=_outline(heights[1] / top), class_="line"))
    drawn.append(element("path", d=Html(f"M0 {_HEIGHT}.5h{_WIDTH}"), class_="axis"))
    edges = histograms[0].bins.edges
    return _svg(
        f"0 0 {_WIDTH} {_HEIGHT + 1}",
        words,
        drawn,
        data_edges=f"{float(edges[0])!r} {float(edges[-1])!r}",
        data_counts=" | ".join(" ".join(map(str, each.counts.tolist())) for each in histograms),
    )


def _bars(heights: np.ndarray) -> Html:
    """All bars as one path; those that are not empty are at least a pixel high."""
    wide = _WIDTH / len(heights)
    path = []
    for number, height in enumerate(heights):
        if height > 0:
            high = max(1.0, height * (_HEIGHT - 4))
            path.append(f"M{number * wide + 0.5:.1f} {_HEIGHT}v-{high:.1f}h{wide - 1:.1f}v{high:.1f}z")
    return element("path", d=Html("".join(path)), class_="bars")


def _outline(heights: np.ndarray) -> Html:
    wide = _WIDTH / len(heights)
    tops = _HEIGHT - heights * (_HEIGHT - 4)
    return Html(f"M0 {_HEIGHT}" + "".join(f"V{top:.1f}H{(number + 1) * wide:.1f}" for number, top in enumerate(tops)))


def _svg(box: str, words: str, content: Sequence[Html], **attributes: object) -> Html:
    return element("svg", content, viewBox=box, role="img", aria_label=words, **attributes)


def mollweide(lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where positions come to lie on the map: x from -480 to 480, to the left for larger longitudes, y downwards.

    Args:
        lon, lat: degrees; longitudes beyond 180 lie beyond the map's edge.
    """
    phi = np.radians(np.asarray(lat, float))
    theta = phi.copy()
    for _ in range(40):  # Newton's steps, which are slow near the poles
        slope = 2 + 2 * np.cos(2 * theta)
        step = (2 * theta + np.sin(2 * theta) - np.pi * np.sin(phi)) / np.maximum(slope, 1e-12)
        theta = np.clip(theta - step, -np.pi / 2, np.pi / 2)
    return -_HALF_WIDTH * np.asarray(lon, float) / 180 * np.cos(theta), -_HALF_HEIGHT * np.sin(theta)


def sky_svg(cells: dict[int, int], nside: int, ra: np.ndarray, dec: np.ndarray, words: str) -> Html:
    """The whole sky (ICRS), Mollweide's projection, east to the left, RA 0 h in the middle: cells, and rows as dots.

    Args:
        cells: rows by HEALPix cell, nested; empty where nothing is known of cells.
        nside: of the cells; of finer ones than 16 those of nside 16 that hold them are drawn.
        ra, dec: degrees, of rows that are drawn as dots.
        words: what it shows.
    """
    outline = Html("M-480 0A480 240 0 0 1 480 0A480 240 0 0 1 -480 0z")
    content = [
        element("clipPath", element("path", d=outline), id="sky-edge"),
        element("path", d=outline, class_="sky"),
        element("g", _cells(cells, nside), clip_path="url(#sky-edge)"),
        element("path", d=_grid(), class_="grid"),
    ]
    if len(ra):
        x, y = mollweide(_from_middle(ra[:MOST_DOTS]), dec[:MOST_DOTS])
        dots = Html("".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True)))
        content.append(element("defs", element("path", d=dots, id="sky-rows")))
        content += [element("use", href="#sky-rows", class_=kind) for kind in ("halo", "dots")]
    for place, label in {-120: "8 h", -60: "4 h", 0: "0 h", 60: "20 h", 120: "16 h"}.items():
        content.append(element("text", label, x=f"{_HALF_WIDTH * place / 180:.0f}", y="262", class_="tick"))
    for degrees in (-60, -30, 30, 60):
        x, y = mollweide(np.array([180.0]), np.array([degrees]))
        sign = "+" if degrees > 0 else "\u2212"
        content.append(
            element("text", f"{sign}{abs(degrees)}\u00b0", x=f"{x[0] - 20:.0f}", y=f"{y[0] + 4:.0f}", class_="tick")
        )
    return _svg("-510 -246 1020 516", words, content, class_="map")


def _from_middle(ra: np.ndarray) -> np.ndarray:
    return (np.asarray(ra, float) + 180) % 360 - 180


def coarser(cells: dict[int, int], nside: int) -> tuple[dict[int, int], int]:
    """Cells as they are drawn: of nside 16 at the finest."""
    factor = max(1, nside // _FINEST)
    merged: dict[int, int] = {}
    for cell, rows in cells.items():
        merged[cell // factor**2] = merged.get(cell // factor**2, 0) + rows
    return merged, nside // factor


def steps_of(counts: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The step of colour of each count, and where each step begins: evenly on a logarithmic scale."""
    low, high = int(counts.min()), int(counts.max())
    starts = sorted({min(high, round(each)) for each in np.geomspace(low, high + 1, STEPS + 1)[:-1].tolist()})
    return np.searchsorted(starts, counts, side="right") - 1, starts


def _cells(cells: dict[int, int], nside: int) -> Html:
    if not cells:
        return Html("")
    from astropy_healpix import boundaries_lonlat

    cells, nside = coarser(cells, nside)
    lon, lat = boundaries_lonlat(np.array(list(cells)), 2, nside, order="nested")
    lon, lat = lon.to_value("deg"), lat.to_value("deg")
    step, starts = steps_of(np.array(list(cells.values())))
    paths: list[list[str]] = [[] for _ in starts]
    # Around its first corner, so that each is in one piece; what lies beyond an edge of the map comes in at the other.
    around = lon[:, :1] + _from_middle(lon - lon[:, :1])
    for turn in (0, 360):
        seen = np.flatnonzero((np.round(around / 360) * 360 == turn).any(axis=1))
        x, y = mollweide(around[seen] - turn, lat[seen])
        for number, xs, ys in zip(step[seen].tolist(), x.tolist(), y.tolist(), strict=True):
            paths[number].append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(xs, ys, strict=True)) + "z")
    # Lighter or darker than the page they must be seen: each step at its own place in the scale.
    places = np.linspace(0, STEPS - 1, len(starts)).round().astype(int).tolist() if len(starts) > 1 else [STEPS // 2]
    return joined(element("path", d=Html("".join(p)), class_=f"step{k}") for p, k in zip(paths, places, strict=True))


def legend(cells: dict[int, int], nside: int) -> Html:
    """What the map's colours mean, as a list."""
    cells, _ = coarser(cells, nside)
    counts = np.array(list(cells.values()))
    _, starts = steps_of(counts)
    ends = [*(start - 1 for start in starts[1:]), int(counts.max())]
    places = np.linspace(0, STEPS - 1, len(starts)).round().astype(int).tolist() if len(starts) > 1 else [STEPS // 2]
    names = [f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in zip(starts, ends, strict=True)]
    items = (element("li", element("i", class_=f"step{k}"), name) for name, k in zip(names, places, strict=True))
    return element("ul", items, class_="legend")


def _grid() -> Html:
    path = []
    for meridian in range(-120, 180, 60):
        x, y = mollweide(np.full(37, meridian), np.linspace(-90, 90, 37))
        path.append("M" + "L".join(f"{a:.0f} {b:.0f}" for a, b in zip(x, y, strict=True)))
    for parallel in range(-60, 90, 30):
        x, y = mollweide(np.array([-180.0, 180.0]), np.full(2, parallel))
        path.append(f"M{x[0]:.0f} {y[0]:.0f}H{x[1]:.0f}")
    return Html("".join(path))
