"""Votes of a survey as arrays: whose tree of questions a table answers, counts, and which questions a galaxy reached."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from skyset.errors import UserError
from skyset.loading import registry
from skyset.questions import Campaign, Question, Tree, campaign_of, tagged
from skyset.splits import split_of
from skyset.tables.open import open_catalog

logger = logging.getLogger("skyset.training")

#: Columns that name a galaxy of a table.
KEYS = ("iauname", "object_id", "dr7objid", "subject_id", "id_str")


@dataclass(frozen=True)
class Votes:
    """What was answered of galaxies.

    Args:
        tree: the questions that were answered at all.
        counts: votes for each answer, float32 (rows, answers); 0 where nobody was asked.
        reached: share of a galaxy's volunteers that the answers before led to each question, float32 (rows, questions).
        counted: whether volunteers were counted; else counts are shares of as many as were assumed.
    """

    tree: Tree
    counts: np.ndarray
    reached: np.ndarray
    counted: bool

    @classmethod
    def of(cls, tree: Tree, counts: np.ndarray, counted: bool = True) -> Votes:
        """Of counts alone: the shares of the answers say who was led to each question."""
        shares_of: dict[str, np.ndarray] = {}
        reached = []
        for question, values in zip(tree, cls(tree, counts, np.empty(0), counted).parts(counts), strict=True):
            led, total = _led(question, shares_of, len(counts)), values.sum(axis=1, keepdims=True)
            shares = np.divide(values, total, out=np.zeros(values.shape), where=total > 0)
            shares_of |= {stem: led * shares[:, number] for number, stem in enumerate(question.stems)}
            reached.append(led)
        return cls(tree, counts, np.stack(reached, axis=1).astype(np.float32), counted)

    @property
    def voters(self) -> np.ndarray:
        """How many answered each question, (rows, questions)."""
        return np.stack([part.sum(axis=1) for part in self.parts(self.counts)], axis=1)

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the answers (..., answers), by question."""
        return np.split(values, np.cumsum([len(q.answers) for q in self.tree])[:-1], axis=-1)

    def taking(self, rows: np.ndarray) -> Votes:
        """Those of some rows."""
        return Votes(self.tree, self.counts[rows], self.reached[rows], self.counted)

    def asking(self, tree: Tree) -> Votes:
        """Those of some questions, in the tree's order.

        Raises:
            UserError: a question that is not there.
        """
        places = {question: number for number, question in enumerate(self.tree)}
        if missing := [question.name for question in tree if question not in places]:
            raise UserError(f"nobody was asked {missing[0]} in these data")
        numbers = [places[question] for question in tree]
        counts = self.parts(self.counts)
        chosen = np.concatenate([counts[number] for number in numbers], axis=1)
        return Votes(tree, chosen, self.reached[:, numbers], self.counted)


def campaigns() -> list[Campaign]:
    """Of all surveys that show votes: those whose answers have columns of their own."""
    found: list[Campaign] = []
    for name in registry.surveys():
        with contextlib.suppress(UserError):  # somebody's package that is broken
            shown = getattr(registry.loader(name), "SHOWN", ())
            found += [campaign for campaign in shown if campaign.answers and campaign not in found]
    return found


def campaigns_in(columns: Sequence[str], wanted: str | None = None) -> list[Campaign]:
    """The campaigns whose votes a table holds: all that counted volunteers, or else the one with the most columns.

    Args:
        columns: of the table.
        wanted: part of the name of one, such as ``"GZD-5"``; None for any.

    Raises:
        UserError: none is there.
    """
    there = [each for each in campaigns() if any(stem + each.share in columns for q in asked(each) for stem in q.stems)]
    # Several may call their columns alike: of those without a tag a table is of one.
    plain = campaign_of(columns, [each for each in there if not each.tag])
    there = [each for each in there if each.tag or each is plain]
    chosen = [each for each in there if wanted is None or wanted.lower() in each.name.lower()]
    if not there:
        raise UserError("the data have no votes: no column is an answer to a question that a survey declares")
    if not chosen:
        raise UserError(f"the data have no {wanted!r}; they have {', '.join(each.name for each in there)}")
    return [each for each in chosen if counts_suffix(each) is not None] or chosen[:1]


def asked(campaign: Campaign) -> Tree:
    """The tree with the names of the columns."""
    return tagged(campaign.tree, campaign.tag)


def counts_suffix(campaign: Campaign) -> str | None:
    """Of the columns that count volunteers; None where a campaign gives shares alone."""
    whole = (each.suffix for each in campaign.answers if each.unit == "count" and "int" in each.dtype)
    return next(whole, None)


def read_votes(rows: Dataset, found: Sequence[Campaign], assumed: float = 40) -> Votes:
    """The votes of a dataset's rows.

    Args:
        rows: with the campaigns' columns, or some of them: questions without are left out.
        found: the campaigns, all with counts or one without.
        assumed: volunteers who were asked the first question, where only shares are given.

    Raises:
        UserError: nobody answered anything.
    """
    parts = [_votes_of(rows, campaign, assumed) for campaign in found]
    tree = tuple(question for part in parts for question in part.tree)
    counts = [part.counts for part in parts if part.tree]
    if not any(array.any() for array in counts):
        raise UserError("nobody answered anything: the data have no votes to learn from")
    reached = np.concatenate([part.reached for part in parts if part.tree], axis=1)
    return Votes(tree, np.concatenate(counts, axis=1), reached, all(part.counted for part in parts))


def votes_of_table(path: str, wanted: str | None = None) -> tuple[Votes, Votes]:
    """Votes of a catalogue without images: of four galaxies in five to learn from, and of the others.

    Args:
        path: as `skyset.tables.open.open_catalog` takes it.
        wanted: see ``campaigns_in``.

    Raises:
        UserError: no such file, or no votes that were counted.
    """
    names = open_catalog(path).schema.names
    found = [each for each in campaigns_in(names, wanted) if counts_suffix(each) is not None]
    columns = {stem + counts_suffix(each) for each in found for q in asked(each) for stem in q.stems}
    key = next((name for name in KEYS if name in names), None)
    table = open_catalog(path, [name for name in names if name in columns or name == key]).table()
    keys = table[key].to_pylist() if key else range(len(table))
    rows = Dataset(table.select([name for name in table.column_names if name != key]))
    votes = read_votes(rows, found)
    train = np.array([split_of(str(each), "votes") == "train" for each in keys])
    some = votes.counts.any(axis=1)
    if not (train & some).any() or not (~train & some).any():
        raise UserError(f"{path} has too few galaxies with votes")
    return votes.taking(np.flatnonzero(train & some)), votes.taking(np.flatnonzero(~train & some))


def _votes_of(rows: Dataset, campaign: Campaign, assumed: float) -> Votes:
    suffix, names, size = counts_suffix(campaign), set(rows.column_names), len(rows)
    ending = campaign.share if suffix is None else suffix
    tree = tuple(q for q in asked(campaign) if _is_given(q, ending, names, suffix is not None))
    columns = [stem + ending for q in tree for stem in q.stems if stem + ending in names]
    table = rows.select_columns(columns).with_format("numpy")[:] if columns else {}
    if not tree:
        return Votes((), np.zeros((size, 0), np.float32), np.zeros((size, 0), np.float32), suffix is not None)
    shares_of: dict[str, np.ndarray] = {}
    counts = []
    for question in tree:
        given = [np.asarray(table.get(stem + ending, np.full(size, np.nan)), np.float64) for stem in question.stems]
        values = np.stack(given, axis=1)
        if suffix is None:
            shares, led = _shares(values), _led(question, shares_of, size)
            shares_of |= {stem: led * shares[:, number] for number, stem in enumerate(question.stems)}
            counts.append(shares * assumed * led[:, None])
        else:
            counts.append(_counts(values))
    return Votes.of(tree, np.concatenate(counts, axis=1).astype(np.float32), suffix is not None)


def _is_given(question: Question, ending: str, names: set[str], counted: bool) -> bool:
    missing = sum(stem + ending not in names for stem in question.stems)
    return missing == 0 or (missing == 1 and not counted)  # the shares of all answers add up to 1


def _led(question: Question, shares_of: dict[str, np.ndarray], size: int) -> np.ndarray:
    before = [shares_of[stem] for stem in question.depends_on if stem in shares_of]
    return np.minimum(1, sum(before)) if before else np.ones(size)


def _counts(values: np.ndarray) -> np.ndarray:
    """Of a question, 0 where a count is not given (-1, NaN, or out of all reason)."""
    return np.where(np.isfinite(values) & (values >= 0) & (values < 1e6), values, 0)


def _shares(values: np.ndarray) -> np.ndarray:
    """Of a question; one that is not given is the rest; 0 where more are not, or they do not add up."""
    unknown = ~np.isfinite(values)
    rest = 1 - np.where(unknown, 0, values).sum(axis=1)
    filled = np.where(unknown & (unknown.sum(axis=1) == 1)[:, None], np.maximum(rest, 0)[:, None], values)
    good = np.isfinite(filled).all(axis=1) & (filled >= 0).all(axis=1) & (np.abs(filled.sum(axis=1) - 1) < 0.02)
    return np.where(good[:, None], filled, 0)


def answered(votes: Votes) -> Tree:
    """The questions that somebody answered; the others are named."""
    some = votes.voters.any(axis=0)
    left_out = [q.name for q, any_votes in zip(votes.tree, some, strict=True) if not any_votes]
    if left_out:
        logger.warning("nobody answered %s: left out of the tree", ", ".join(left_out))
    return tuple(q for q, any_votes in zip(votes.tree, some, strict=True) if any_votes)
