"""A row as one figure: its images, spectra and light curves, and its numbers and names beside or below them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from skyset.explore.row_pictures.fields import Fields, flat, scale_of, shown, texts
from skyset.explore.row_pictures.found import Found, Other, Stack, pictures_of
from skyset.explore.row_pictures.images import draw_others, draw_stack, size_of
from skyset.explore.row_pictures.light_curves import draw_light_curve
from skyset.explore.row_pictures.spectra import draw_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

#: Inches: how wide a figure with pictures is at least where its values do not fit beside them, and at most.
_NARROW, _WIDE = 10.0, 13.0
#: Inches: heights of images and of curves, widths of curves.
_IMAGE, _CURVE, _LONG = 4.2, 3.6, 7.4
#: Of a column of texts: how many different ones are named.
_NAMES = 16
#: Of values below pictures: lines in a column at least.
_SHORT = 8
#: Of values: lines in a column, characters in a line; their height and width, inches.
_LINES, _CHARACTERS, _LINE, _CHARACTER = 60, 64, 0.138, 0.068


@dataclass(frozen=True)
class Block:
    """A part of a figure: its size in inches, what draws it, and whether it may be wider."""

    width: float
    height: float
    draw: Callable[[FigureBase], None]
    stretches: bool = False


def figure_of(row: Mapping, title: str, units: Mapping[str, str] | None = None, most: int = 6) -> Figure:
    """Draw a row.

    Args:
        row: one row with numpy formatting.
        title: over all.
        units: of its values, by ``name`` or ``group.key``.
        most: how many images that are no bands.

    Returns:
        matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    units = units or {}
    words = [line for name, value in flat(row).items() for line in _value_lines(name, value, units.get(name, ""))]
    lines = _arranged(_blocks(pictures_of(row, units), row, most), words)
    heights = [max(block.height for block in line) for line in lines]
    figure = Figure(figsize=(max(map(_width, lines)), sum(heights) + 0.4), layout="constrained")
    figure.suptitle(shown(title))
    strips = figure.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
    for strip, line in zip(strips, lines, strict=True):
        parts = strip.subfigures(1, len(line), width_ratios=[block.width for block in line], squeeze=False)[0]
        for part, block in zip(parts, line, strict=True):
            block.draw(part)
    return figure


def _blocks(found: Found, row: Mapping, most: int) -> list[Block]:
    """The pictures of a row."""
    blocks = [Block(*size_of(stack, _IMAGE), partial(_draw_stack, stack)) for stack in found.stacks]
    if others := found.others[:most]:
        scale = None if blocks else scale_of(Fields("", {}), row)
        lines = 2 if blocks and len(others) > 1 else 1
        columns = math.ceil(len(others) / lines)
        side = _IMAGE / lines if blocks else max(_IMAGE / 2, min(_IMAGE, _WIDE / columns))
        blocks.append(Block(columns * side, lines * side + 0.2, partial(_draw_others, others, scale, (lines, columns))))
    blocks += [Block(_LONG, _CURVE, partial(_draw, draw_spectrum, spectrum), True) for spectrum in found.spectra]
    blocks += [Block(_LONG, _CURVE, partial(_draw, draw_light_curve, curve), True) for curve in found.curves]
    return blocks


def _draw(draw: Callable, picture, part: FigureBase) -> None:
    draw(part.subplots(), picture)


def _draw_stack(stack: Stack, part: FigureBase) -> None:
    draw_stack(part, stack)


def _draw_others(images: Sequence[Other], scale: float | None, grid: tuple[int, int], part: FigureBase) -> None:
    boxes = part.add_gridspec(*grid)
    draw_others([part.add_subplot(boxes[divmod(place, grid[1])]) for place in range(len(images))], images, scale)


def _arranged(blocks: Sequence[Block], texts: Sequence[str]) -> list[list[Block]]:
    """Lines of blocks: pictures from the left, the values beside those of a line where they fit, else below all."""
    lines: list[list[Block]] = []
    for block in blocks:
        if not lines or _width(lines[-1]) + block.width > _WIDE:
            lines.append([])
        lines[-1].append(block)
    if not lines:
        return [_columns(texts, max(1, math.ceil(len(texts) / _LINES)))]
    for count in (1, 2, 3):
        beside = _columns(texts, count)
        high = [line for line in lines if max(block.height for block in line) >= beside[0].height]
        if fitting := [line for line in high if _width(line) + _width(beside) <= _WIDE]:
            line = min(fitting, key=_width)
            line += beside
            return _filled(lines)
    width = max(_NARROW, *map(_width, lines))
    lines.append(_columns(texts, max(1, min(int(width / _columns(texts, 1)[0].width), math.ceil(len(texts) / _SHORT)))))
    return _filled(lines, _NARROW)


def _width(line: Sequence[Block]) -> float:
    return sum(block.width for block in line)


def _filled(lines: list[list[Block]], least: float = 0.0) -> list[list[Block]]:
    """Lines of one width: what may be of any is made wider, or else the end is left free."""
    widest = max(least, *map(_width, lines))
    filled = []
    for line in lines:
        free = widest - _width(line)
        last = max((place for place, block in enumerate(line) if block.stretches), default=None)
        if last is not None:
            line = [*line[:last], replace(line[last], width=line[last].width + free), *line[last + 1 :]]
        elif free > 0.2:
            line = [*line, Block(free, 0, _leave)]
        filled.append(line)
    return filled


def _leave(part: FigureBase) -> None:
    """Draw nothing."""


def _columns(texts: Sequence[str], count: int) -> list[Block]:
    """Values in so many columns."""
    lines = math.ceil(len(texts) / count)
    parts = [texts[start : start + lines] for start in range(0, max(len(texts), 1), lines or 1)]
    height = max(1.0, _LINE * lines + 0.2)
    return [
        Block(max(3.0, _CHARACTER * max(map(len, part), default=0) + 0.3), height, partial(_draw_text, part))
        for part in parts
    ]


def _draw_text(lines: Sequence[str], part: FigureBase) -> None:
    axes = part.subplots()
    axes.axis("off")
    text = axes.text(0, 1, "\n".join(lines), family="monospace", fontsize=8, va="top", transform=axes.transAxes)
    text.set_parse_math(False)


def _value_lines(name: str, value, unit: str) -> list[str]:
    """A value in as many lines as it takes; integers and texts digit by digit."""
    if isinstance(value, float | np.floating):
        text = _written(float(value))
    elif isinstance(value, list | np.ndarray):
        text = _array_text(value)
    else:
        text = str(value)
    return textwrap.wrap(f"{name}: {text} {unit}".rstrip(), _CHARACTERS, subsequent_indent="    ") or [name]


def _array_text(value) -> str:
    try:
        array = np.asarray(value)
    except ValueError:
        return f"{len(value)} of different lengths"
    if array.dtype.kind in "US" and array.size:
        names = list(dict.fromkeys(texts(array)))
        return (
            (f"{array.size}: " if len(names) < array.size else "")
            + ", ".join(names[:_NAMES])
            + ", ..." * (len(names) > _NAMES)
        )
    if array.size <= 4 and array.ndim:
        return _written(array.tolist())
    shape = " x ".join(map(str, array.shape))
    return f"{array.dtype}, {shape}" if array.ndim else str(value)


def _written(value) -> str:
    """Lists of numbers, none longer than it says something."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
