"""How well votes are predicted: beside always expecting the same, and beside what nobody can foresee of N volunteers.

Volunteers are a sample: even who knew the true share p of an answer would miss the share among N of them by the mean
deviation of a binomial distribution, and the logarithm of the votes' probability would be the entropy of a multinomial.
The true shares are not known; they are drawn from what the votes leave open: a Dirichlet distribution with the votes of the
galaxy added to what is known of all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from scipy.special import digamma, gammaln

from skyset.questions import Question
from skyset.training.common.vote_data import Votes

#: A question counts for a galaxy that at least this share of its volunteers were led to (Walmsley et al. 2022).
REACHED = 0.5
#: Volunteers are confident of an answer that at least this share of them gave (likewise).
CONFIDENT = 0.8
#: Galaxies, and draws of the true shares of each, that floors are averaged over.
MOST_FOR_FLOORS, DRAWS = 1000, 16
NAMES = {
    "loss": "loss",
    "deviation": "mean deviation of shares",
    "accuracy": "accuracy where volunteers are confident",
}


@dataclass(frozen=True)
class OfQuestion:
    """How well the votes on one question are predicted; NaN where nothing can be said.

    Args:
        question: which.
        galaxies: with votes; ``loss`` is summed over them.
        loss, loss_of_mean, loss_floor: sums over galaxies.
        reached: galaxies that the question counts for.
        voters: on average, of those.
        deviation, deviation_of_mean, deviation_floor: means over those, and over the answers.
        confident: how many of those have volunteers who are confident.
        right, right_of_mean: how many of these are called as the volunteers do.
    """

    question: Question
    galaxies: int
    loss: float
    loss_of_mean: float
    loss_floor: float
    reached: int
    voters: float
    deviation: float
    deviation_of_mean: float
    deviation_floor: float
    confident: int
    right: int
    right_of_mean: int


def negative_log_probability(counts: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Of votes (rows, answers) from Dirichlet-multinomials of these concentrations, (rows,) float64."""
    voters, total = counts.sum(axis=-1), strengths.sum(axis=-1)
    answers = gammaln(1 + counts) + gammaln(strengths) - gammaln(counts + strengths)
    return answers.sum(axis=-1) - (gammaln(1 + voters) + gammaln(total) - gammaln(voters + total))


def always_the_same(counts: np.ndarray, least: float = 1e-3) -> np.ndarray:
    """The concentrations (answers,), ``least`` to 1e4, that make the votes of all rows (rows, answers) most probable."""
    rows = counts[counts.sum(axis=1) > 0].astype(np.float64)
    if len(rows) == 0:
        return np.ones(counts.shape[1])
    voters = rows.sum(axis=1)

    def target(logs: np.ndarray) -> tuple[float, np.ndarray]:
        strengths = np.exp(logs)
        total = strengths.sum()
        slope = len(rows) * digamma(total) - digamma(total + voters).sum()
        slopes = slope + digamma(rows + strengths).sum(axis=0) - len(rows) * digamma(strengths)
        value = negative_log_probability(rows, np.broadcast_to(strengths, rows.shape)).sum()
        return value / len(rows), -slopes * strengths / len(rows)

    bounds = [(np.log(least), np.log(1e4))] * rows.shape[1]
    shares = (rows.sum(axis=0) + 0.5) / (rows.sum() + 0.5 * rows.shape[1])
    start = np.log(np.clip(2 * rows.shape[1] * shares, least, None))
    return np.exp(optimize.minimize(target, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def constants_of(votes: Votes, least: float = 1e-3) -> np.ndarray:
    """``always_the_same`` of every question: (answers,)."""
    return np.concatenate([always_the_same(part, least) for part in votes.parts(votes.counts)])


def expected_deviation(voters: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Of the share among so many volunteers from the true one, E|k/N - p| (De Moivre 1730); whole N, 1 or more."""
    voters, share = np.broadcast_arrays(np.asarray(voters, np.float64), np.asarray(share, np.float64))
    above = np.minimum(np.floor(voters * share) + 1, voters)  # at p = 1 the deviation is 0 all the same
    return 2 * above * (1 - share) * stats.binom.pmf(above, voters, share) / voters


def multinomial_entropy(voters: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean of the negative log-probability of the votes for who knows the true shares, (rows,).

    Args:
        voters: whole numbers, (rows,).
        shares: true ones, (rows, answers).
    """
    voters = np.asarray(voters, np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.where(shares > 0, shares * np.log(shares), 0).sum(axis=1)
    numbers = np.arange(voters.max(initial=0) + 1)
    chances = stats.binom.pmf(numbers, voters[:, None, None], shares[:, :, None])
    return voters * surprise - gammaln(1 + voters) + (chances * gammaln(1 + numbers)).sum(axis=(1, 2))


def floors(counts: np.ndarray, known: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What is left of loss and deviation for who knows the true shares, (rows,) each: means over draws of those.

    Args:
        counts: votes on a question, (rows, answers), 1 or more a row.
        known: concentrations of all galaxies, (answers,).
        seed: of the draws.
    """
    dice, voters = np.random.default_rng(seed), counts.sum(axis=1)
    loss, deviation = np.zeros(len(counts)), np.zeros(len(counts))
    for _ in range(DRAWS):
        weights = np.maximum(dice.standard_gamma(counts + known), 1e-300)
        shares = weights / weights.sum(axis=1, keepdims=True)
        loss += multinomial_entropy(voters, shares) / DRAWS
        deviation += expected_deviation(voters[:, None], shares).mean(axis=1) / DRAWS
    return loss, deviation


def measure(votes: Votes, strengths: np.ndarray, constants: np.ndarray, reached: float = REACHED) -> list[OfQuestion]:
    """How well each question's votes are predicted.

    Args:
        votes: of the rows that are measured.
        strengths: concentrations that are predicted, (rows, answers).
        constants: of the rows that were learned from, see ``constants_of``, (answers,).
        reached: least share of a galaxy's volunteers that were led to a question that counts.
    """
    parts = (votes.parts(each) for each in (votes.counts.astype(np.float64), strengths.astype(np.float64), constants))
    found = zip(votes.tree, *parts, votes.reached.T, strict=True)
    return [_of_question(*each, votes.counted, reached) for each in found]


class _Rows:
    """Of one question: what was answered and expected of each galaxy, and whether it counts."""

    def __init__(self, counts: np.ndarray, strengths: np.ndarray, led: np.ndarray, reached: float):
        self.voters = counts.sum(axis=1)
        self.shares = counts / np.maximum(self.voters, 1e-9)[:, None]
        self.expected = strengths / strengths.sum(axis=1, keepdims=True)
        self.counts_here = (led >= reached) & (self.voters > 0)
        self.sure = self.counts_here & (self.shares.max(axis=1, initial=0) >= CONFIDENT)
        self.called = self.shares.argmax(axis=1)

    def deviation(self, expected: np.ndarray) -> np.ndarray:
        """Mean over the answers of the difference from what was answered, (rows,)."""
        return np.abs(expected - self.shares).mean(axis=1)


def _of_question(question, counts, strengths, constants, led, counted, reached) -> OfQuestion:
    some = counts.sum(axis=1) > 0
    counts, strengths = counts[some], strengths[some]
    rows, mean = _Rows(counts, strengths, led[some], reached), constants / constants.sum()
    floor, deviation_floor = np.full((2, len(counts)), np.nan)
    if counted and len(counts):
        drawn = np.sort(np.random.default_rng(0).permutation(len(counts))[:MOST_FOR_FLOORS])
        floor[drawn], deviation_floor[drawn] = floors(counts[drawn], constants)
    return OfQuestion(
        question=question,
        galaxies=len(counts),
        loss=float(negative_log_probability(counts, strengths).sum()),
        loss_of_mean=float(negative_log_probability(counts, np.broadcast_to(constants, counts.shape)).sum()),
        loss_floor=_mean(floor) * len(counts) if len(counts) else 0.0,
        reached=int(rows.counts_here.sum()),
        voters=_mean(rows.voters[rows.counts_here]),
        deviation=_mean(rows.deviation(rows.expected)[rows.counts_here]),
        deviation_of_mean=_mean(rows.deviation(mean)[rows.counts_here]),
        deviation_floor=_mean(deviation_floor[rows.counts_here]),
        confident=int(rows.sure.sum()),
        right=int((rows.expected.argmax(axis=1) == rows.called)[rows.sure].sum()),
        right_of_mean=int((mean.argmax() == rows.called)[rows.sure].sum()),
    )


def _mean(values: np.ndarray) -> float:
    """Of those that are numbers; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def overall(found: list[OfQuestion], galaxies: int) -> dict[str, float]:
    """Of all questions: the loss of a galaxy, summed over them; deviations, over galaxies and questions reached.

    Those without a value (no floor without counts, no accuracy where nobody is confident) are left out.
    """
    weights = np.array([each.reached for each in found], np.float64)

    def mean(name: str) -> float:
        values = np.array([getattr(each, name) for each in found])
        known = np.isfinite(values) & (weights > 0)
        return float(np.average(values[known], weights=weights[known])) if known.any() else float("nan")

    confident = sum(each.confident for each in found)
    figures = {
        name: sum(getattr(each, name) for each in found) / galaxies for name in ("loss", "loss_of_mean", "loss_floor")
    } | {name: mean(name) for name in ("deviation", "deviation_of_mean", "deviation_floor")}
    if confident:
        figures["accuracy"] = sum(each.right for each in found) / confident
        figures["accuracy_of_mean"] = sum(each.right_of_mean for each in found) / confident
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def beside_of(figures: dict[str, float]) -> dict[str, dict[str, float]]:
    """``overall`` as rows of a table: always the mean, and the floor."""
    rows = {"always the mean of the training galaxies": "_of_mean", "floor, see below": "_floor"}
    found = {row: {name: figures.get(name + ending) for name in NAMES} for row, ending in rows.items()}
    known = {row: {name: value for name, value in each.items() if value is not None} for row, each in found.items()}
    return {row: each for row, each in known.items() if each}


def errors_of(votes: Votes, strengths: np.ndarray, reached: float = REACHED, samples: int = 500) -> dict[str, float]:
    """Standard deviation of loss, deviation and accuracy over samples of the galaxies, drawn with replacement.

    Each is a sum over galaxies, over another one: those are enough.
    """
    loss, deviations, questions, right, confident = np.zeros((5, len(votes.counts)))
    for counts, own, led in zip(
        votes.parts(votes.counts.astype(float)), votes.parts(strengths), votes.reached.T, strict=True
    ):
        rows = _Rows(counts, own.astype(float), led, reached)
        loss += negative_log_probability(counts, own)
        deviations += np.where(rows.counts_here, rows.deviation(rows.expected), 0)
        questions += rows.counts_here
        right += rows.sure & (rows.expected.argmax(axis=1) == rows.called)
        confident += rows.sure
    times = np.random.default_rng(0).multinomial(len(loss), np.full(len(loss), 1 / len(loss)), samples)
    pairs = {"loss": (loss, np.ones(len(loss))), "deviation": (deviations, questions), "accuracy": (right, confident)}
    found = {}
    for name, (above, below) in pairs.items():
        sums, over = times @ above, times @ below
        if (over > 0).any():
            found[name] = float(np.std(sums[over > 0] / over[over > 0]))
    return found


def table_of(found: list[OfQuestion]) -> str:
    """Markdown: a row a question."""
    heads = ("reached", "volunteers", "deviation", "floor", "of the mean", "confident", "accuracy", "commonest answer")
    lines = [
        f"| question | {' | '.join(heads)} | loss | floor | of the mean |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        sums = [_number(value / each.galaxies if each.galaxies else np.nan, 2) for value in (each.loss, each.loss_floor)]
        cells = [
            f"`{each.question.name}`",
            str(each.reached),
            _number(each.voters, 0),
            *(_number(value, 3) for value in (each.deviation, each.deviation_floor, each.deviation_of_mean)),
            str(each.confident),
            *(
                _number(right / max(1, each.confident) if each.confident else np.nan, 2)
                for right in (each.right, each.right_of_mean)
            ),
            *sums,
            _number(each.loss_of_mean / each.galaxies if each.galaxies else np.nan, 2),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""
