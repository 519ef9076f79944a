"""Predicted votes in pictures: their calibration, and galaxies with what volunteers said beside what is expected."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from skyset.figures import NETWORK, VOLUNTEERS, draw_sky
from skyset.training.common.vote_data import Votes
from skyset.training.common.vote_metrics import REACHED

BINS = 10


def calibration_figure(votes: Votes, strengths: np.ndarray, reached: float = REACHED) -> Figure:
    """Left: mean share of volunteers over expected share. Right: where the votes fall in what is expected of them.

    Args:
        votes: of the rows that are measured.
        strengths: predicted concentrations, (rows, answers).
        reached: least share of a galaxy's volunteers that were led to a question that counts.
    """
    expected, seen, ranks = points_of(votes, strengths, reached)
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    place = np.clip((expected * BINS).astype(int), 0, BINS - 1)
    for number in np.unique(place):
        inside = place == number
        error = seen[inside].std() / np.sqrt(inside.sum())
        left.errorbar(expected[inside].mean(), seen[inside].mean(), error, marker="o", color=NETWORK, capsize=2)
        left.annotate(
            f"{inside.sum():,}",
            (expected[inside].mean(), seen[inside].mean()),
            (6, -9),
            textcoords="offset points",
            fontsize="x-small",
        )
    left.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    left.set(xlabel="expected share", ylabel="mean share of the volunteers", xlim=(0, 1), ylim=(0, 1), title="Shares")
    left.set_box_aspect(1)
    right.hist(ranks, np.linspace(0, 1, 2 * BINS + 1), color=NETWORK, density=True)
    right.axhline(1, color="0.7", linewidth=0.8)
    right.set(xlabel="rank of the votes in what was expected", ylabel="density", xlim=(0, 1), title="Spread")
    right.set_box_aspect(1)
    return figure


#: Below the figure.
CALIBRATION = (
    "Calibration, over the answers of all questions that galaxies reached. Left: with standard errors and the number of "
    "points. Right: how many volunteers gave an answer, as a rank between 0 and 1 in the distribution that was expected of "
    "them (ties drawn): flat where the spread is right, a hill where it is too wide, a valley where it is too narrow."
)


def points_of(votes: Votes, strengths: np.ndarray, reached: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected share, share of the volunteers, and rank of the votes, of every answer that counts: (points,) each.

    The number of votes for one answer is beta-binomial where those for all are Dirichlet-multinomial.
    """
    dice = np.random.default_rng(0)
    found = []
    parts = zip(votes.parts(votes.counts.astype(np.float64)), votes.parts(strengths), votes.reached.T, strict=True)
    for counts, own, led in parts:
        rows = (led >= reached) & (counts.sum(axis=1) >= 1)
        counts, own = counts[rows], own[rows].astype(np.float64)
        voters, total = np.round(counts.sum(axis=1, keepdims=True)), own.sum(axis=1, keepdims=True)
        model, given = stats.betabinom(voters, own, total - own), np.round(counts)
        below = np.where(given > 0, model.cdf(given - 1), 0)
        ranks = below + dice.random(counts.shape) * model.pmf(given)
        found.append(np.stack([own / total, counts / counts.sum(axis=1, keepdims=True), ranks]).reshape(3, -1))
    return tuple(np.concatenate(found, axis=1))


def galaxies_figure(
    images: Sequence, votes: Votes, strengths: np.ndarray, titles: Sequence[str], who: str = "volunteers", least: float = 0.3
) -> Figure:
    """A line a galaxy: its image, and the shares of the answers to the questions it reached, seen and expected.

    Args:
        images: as `skyset.figures.draw_sky` takes them.
        votes: of the galaxies.
        strengths: predicted concentrations, (galaxies, answers).
        titles: of the galaxies.
        who: gave the votes.
        least: questions that fewer than this share of the volunteers were led to are left out.
    """
    heights = [_height(votes.taking(np.array([row])), least) for row in range(len(images))]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    panels = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 1.5), height_ratios=heights)
    for row, (image, title) in enumerate(zip(images, titles, strict=True)):
        draw_sky(panels[row, 0], image)
        panels[row, 0].set_title(title, fontsize="medium")
        _draw_votes(panels[row, 1], votes.taking(np.array([row])), strengths[row], least)
    bars = [
        panels[0, 1].barh(-5, 0, color=colour, label=name) for colour, name in ((VOLUNTEERS, who), (NETWORK, "expected"))
    ]
    figure.legend(handles=bars, loc="outside lower right", ncols=2, frameon=False)
    return figure


def _height(votes: Votes, least: float) -> float:
    """Inches."""
    shown = [
        q for q, led, voters in zip(votes.tree, votes.reached[0], votes.voters[0], strict=True) if led >= least <= voters
    ]
    return max(3.6, 0.21 * sum(len(q.answers) + 1.8 for q in shown))


def _draw_votes(axes: Axes, votes: Votes, strengths: np.ndarray, least: float) -> None:
    """Pairs of bars, down the tree; a line on the lower one is the middle 68 % of what is expected of the true share."""
    place, ticks, names = 0.0, [], []
    parts = zip(votes.tree, votes.parts(votes.counts[0]), votes.parts(strengths), votes.reached[0], strict=True)
    for question, counts, own, led in parts:
        if led < least or counts.sum() < least:
            continue
        text = f"{question.text} ({counts.sum():.0f})"
        axes.text(0.01, place, textwrap.shorten(text, 84), fontsize=7.5, va="center", style="italic")
        for answer, seen, strength in zip(question.answers, counts / counts.sum(), own, strict=True):
            place += 1
            axes.barh(place - 0.2, seen, 0.38, color=VOLUNTEERS)
            axes.barh(place + 0.2, strength / own.sum(), 0.38, color=NETWORK)
            axes.plot(
                stats.beta.ppf([0.16, 0.84], strength, own.sum() - strength), [place + 0.2] * 2, color="k", linewidth=0.8
            )
            ticks.append(place)
            names.append(re.sub(r"^a\d+ ", "", re.sub("[-_]", " ", answer)))
        place += 1.6
    axes.set(xlim=(0, 1), ylim=(max(place, 1), -0.8), xlabel="share of those who were asked")
    axes.set_yticks(ticks, names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
