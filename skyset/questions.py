"""What volunteers were asked of a galaxy: a tree of questions, and the columns of votes that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from skyset.survey import Column


@dataclass(frozen=True)
class Question:
    """One question of a decision tree.

    Args:
        name: as in the names of the catalogue's columns.
        text: as the volunteers read it.
        answers: names of the answers, in the order in which they are shown.
        depends_on: answers (``<question>_<answer>``) of which one leads here; empty where everybody is asked.
    """

    name: str
    text: str
    answers: tuple[str, ...]
    depends_on: tuple[str, ...] = ()

    @property
    def stems(self) -> tuple[str, ...]:
        """``<question>_<answer>``, which the columns of an answer begin with."""
        return tuple(f"{self.name}_{answer}" for answer in self.answers)


@dataclass(frozen=True)
class Measure:
    """What a catalogue says of every answer (or of every question): its columns are ``<stem><suffix>``.

    Args:
        suffix: as in the columns' names.
        dtype, unit: of the columns.
        meaning: what a value says, before the question and the answer.
        others: suffixes that some tables have in its place.
    """

    suffix: str
    dtype: str
    unit: str
    meaning: str
    others: tuple[str, ...] = ()


Tree = tuple[Question, ...]


def check(tree: Tree) -> None:
    """Raise ValueError where a question comes twice or depends on an answer that nobody can give."""
    names = [question.name for question in tree]
    if len(set(names)) < len(names):
        raise ValueError(f"a question comes twice: {names}")
    stems = {stem for question in tree for stem in question.stems}
    if unknown := {stem for question in tree for stem in question.depends_on} - stems:
        raise ValueError(f"no such answers: {', '.join(sorted(unknown))}")


def tagged(tree: Tree, tag: str) -> Tree:
    """The tree with a tag behind the questions' names, as in ``bar-dr12_yes``, to distinguish campaigns in one table."""
    names = {stem: f"{q.name}{tag}_{answer}" for q in tree for stem, answer in zip(q.stems, q.answers, strict=True)}
    return tuple(replace(q, name=q.name + tag, depends_on=tuple(names[stem] for stem in q.depends_on)) for q in tree)


def columns(tree: Tree, answers: Sequence[Measure], questions: Sequence[Measure] = ()) -> tuple[Column, ...]:
    """The columns of votes: for each question its own measures, then those of each of its answers."""
    found = []
    for question in tree:
        found += [_column(question.name, measure, question.text) for measure in questions]
        for stem, answer in zip(question.stems, question.answers, strict=True):
            found += [_column(stem, measure, f"{question.text} {answer}") for measure in answers]
    return tuple(found)


def _column(stem: str, measure: Measure, what: str) -> Column:
    return Column(stem + measure.suffix, measure.dtype, (), measure.unit, f"{measure.meaning}: {what}")


@dataclass(frozen=True)
class Reached:
    """What was answered to a question that was asked of a galaxy.

    Args:
        question: which.
        shares: of its answers, in their order; NaN where a catalogue does not give one.
        share: of all who looked at the galaxy, led here by the answers before; 1 where everybody is asked.
        voters: how many answered, None where nobody did: a network's predictions.
    """

    question: Question
    shares: tuple[float, ...]
    share: float
    voters: float | None = None


def along(tree: Tree, row: Mapping, suffix: str, voters: Callable[[Question], float] | None = None, least: float = 0.3):
    """The answers to the questions that a galaxy's volunteers were led to, down the tree.

    Args:
        tree: the questions.
        row: a value for each ``<question>_<answer><suffix>``: a share, or NaN where there is none.
        suffix: of the shares' names.
        voters: how many answered a question; below 1 is nobody.
        least: questions that fewer than this share of all volunteers were led to are left out.

    Returns:
        A list of `Reached`; questions without shares, or without voters, are left out.
    """
    share_of: dict[str, float] = {}
    found = []
    for question in tree:
        shares = [float(row.get(stem + suffix, float("nan"))) for stem in question.stems]
        before = [share_of[stem] for stem in question.depends_on if stem in share_of]
        led = min(1.0, sum(before)) if before else 1.0
        share_of |= {stem: led * share for stem, share in zip(question.stems, shares, strict=True) if share == share}
        number = voters(question) if voters else None
        if led >= least and any(share == share for share in shares) and (number is None or number >= 1):
            found.append(Reached(question, tuple(shares), led, number))
    return found


@dataclass(frozen=True)
class Campaign:
    """A tree of questions, and what the tables of a release say of its answers.

    Args:
        name: what such a table holds: ``"votes of GZD-5"``.
        tree: the questions.
        answers: what is said of each answer.
        questions: what is said of each question.
        tag: behind the questions' names in our columns, where one dataset holds several campaigns.
        known_by: suffixes by which a table is recognised as one of this campaign's; any of ``answers`` by default.
        share: suffix of the answers' shares, which figures show.
        voters: how many volunteers answered a question: suffix of the question's column, or of the answers' counts, or a
            column's name. Empty where nobody did: a network's predictions.
    """

    name: str
    tree: Tree
    answers: tuple[Measure, ...]
    questions: tuple[Measure, ...] = ()
    tag: str = ""
    known_by: tuple[str, ...] = ()
    share: str = "_fraction"
    voters: str = ""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Our columns of its votes."""
        return columns(tagged(self.tree, self.tag), self.answers, self.questions)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """What tables call each of our columns, the most usual name first."""
        found: dict[str, tuple[str, ...]] = {}
        for ours, theirs in zip(tagged(self.tree, self.tag), self.tree, strict=True):
            answers = [(our, their, self.answers) for our, their in zip(ours.stems, theirs.stems, strict=True)]
            for our, their, measures in [(ours.name, theirs.name, self.questions), *answers]:
                found |= {our + each.suffix: tuple(their + s for s in (each.suffix, *each.others)) for each in measures}
        return found

    def signs(self, names: Iterable[str]) -> int:
        """How many of a table's columns are such as it is recognised by."""
        known_by = self.known_by or tuple(measure.suffix for measure in self.answers)
        return len({stem + suffix for question in self.tree for stem in question.stems for suffix in known_by} & set(names))

    def reached(self, row: Mapping) -> list[Reached]:
        """The answers to the questions that a galaxy's volunteers were led to."""
        voters = (lambda question: self.voters_of(row, question)) if self.voters else None
        return along(tagged(self.tree, self.tag), row, self.share, voters)

    def voters_of(self, row: Mapping, question: Question) -> float:
        """How many volunteers answered a question (of the tagged tree); below 1 where nobody did."""
        known = next((name for name in (question.name + self.voters, self.voters) if name in row), None)
        return row[known] if known else sum(max(0, row.get(stem + self.voters, 0)) for stem in question.stems)


def campaign_of(names: Iterable[str], campaigns: Sequence[Campaign]) -> Campaign | None:
    """The campaign whose votes a table with these columns holds; None if it holds none.

    Trees have questions in common: most signs decide, among campaigns that say as much of an answer. One that says less (a
    network, shares alone) is meant only where no other is.
    """
    signs = {campaign: campaign.signs(names) for campaign in campaigns}
    present = [campaign for campaign in campaigns if signs[campaign]]
    return max(present, key=lambda campaign: (len(campaign.answers), signs[campaign]), default=None)


def answers_of(row: Mapping, campaigns: Sequence[Campaign]) -> tuple[list[Reached], str]:
    """What figures show of a row: the answers of the campaign with the most volunteers, or else what a network predicts.

    Returns:
        answers down the tree; ``"volunteers"`` or ``"network"``.
    """
    voters = {each: each.voters_of(row, tagged(each.tree, each.tag)[0]) for each in campaigns if each.voters}
    for campaign in sorted(voters, key=lambda campaign: voters[campaign], reverse=True):
        if voters[campaign] >= 1 and (answers := campaign.reached(row)):  # campaigns may count their volunteers together
            return answers, "volunteers"
    predicted = (campaign.reached(row) for campaign in campaigns if not campaign.voters)
    return next((answers for answers in predicted if answers), []), "network"


def table(tree: Tree) -> list[dict[str, str]]:
    """One row an answer: ``question, answer, depends_on, text``; several answers that lead here are joined by `` | ``."""
    return [
        {"question": q.name, "answer": answer, "depends_on": " | ".join(q.depends_on), "text": q.text}
        for q in tree
        for answer in q.answers
    ]


def markdown(trees: Mapping[str, Tree]) -> str:
    """The trees as a Markdown table, one line per question."""
    lines = ["| schema | question | asked | answers | depends on |", "|---|---|---|---|---|"]
    for schema, tree in trees.items():
        for q in tree:
            answers, parents = (", ".join(f"`{name}`" for name in names) for names in (q.answers, q.depends_on))
            lines.append(f"| {schema} | `{q.name}` | {q.text} | {answers} | {parents or 'everybody is asked'} |")
    return "\n".join(lines) + "\n"
