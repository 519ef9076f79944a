"""Campaigns of questions: their columns, and which of them a table is of."""

import pytest

from skyset.questions import Campaign, Measure, Question, answers_of, campaign_of

COUNT, SHARE = Measure("", "int32", "count", "voters"), Measure("_fraction", "float32", "", "share")
TOTAL = Measure("_total-votes", "int32", "count", "all", ("_total",))
EARLY = (Question("bar", "A bar?", ("yes", "no")), Question("arms", "Arms?", ("1", "2")))
LATE = (Question("bar", "A bar?", ("strong", "weak", "no")), Question("arms", "Arms?", ("1", "2")))
FIRST = Campaign("first", EARLY, (COUNT, SHARE), (TOTAL,), tag="-early", known_by=("",), voters="_total-votes")
SECOND = Campaign("second", LATE, (COUNT, SHARE), (TOTAL,), known_by=("",), voters="_total-votes")
NETWORK = Campaign("network", LATE, (SHARE,), tag="-auto")
ALL = (FIRST, SECOND, NETWORK)


def test_names_of_the_columns_of_a_campaign():
    assert FIRST.names["bar-early_yes_fraction"] == ("bar_yes_fraction",)
    assert FIRST.names["arms-early_total-votes"] == ("arms_total-votes", "arms_total")
    assert [*FIRST.names] == [column.name for column in FIRST.columns]


@pytest.mark.parametrize(
    ("names", "campaign"),
    [
        (["bar_yes", "bar_no", "arms_1", "arms_2", "bar_yes_fraction"], FIRST),
        (["bar_strong", "bar_weak", "bar_no", "arms_1"], SECOND),
        (["bar_no_fraction", "arms_1_fraction", "bar_total-votes"], NETWORK),
        (["bar_strong", "bar_weak_fraction", "bar_no_fraction", "arms_1_fraction"], SECOND),
        (["bar_total-votes", "redshift"], None),
        ([], None),
    ],
)
def test_the_campaign_of_a_table(names, campaign):
    assert campaign_of(names, ALL) is campaign
    assert campaign_of(names, ALL[::-1]) is campaign


def test_what_is_shown_of_a_row():
    early = {"bar-early_yes_fraction": 0.75, "bar-early_no_fraction": 0.25, "bar-early_total-votes": 8}
    late = {"bar_strong_fraction": 1.0, "bar_weak_fraction": 0.0, "bar_no_fraction": 0.0, "bar_total-votes": 9}
    predicted = {"bar-auto_strong_fraction": 0.5, "bar-auto_weak_fraction": 0.5, "bar-auto_no_fraction": 0.0}
    (first,), by = answers_of(early | late | predicted, ALL)
    assert (first.shares, first.voters, by) == ((1.0, 0.0, 0.0), 9, "volunteers")
    (first,), by = answers_of(early | late | {"bar_total-votes": 0} | predicted, ALL)
    assert (first.shares, first.voters, by) == ((0.75, 0.25), 8, "volunteers")
    (first,), by = answers_of(predicted, ALL)
    assert (first.shares, first.voters, by) == ((0.5, 0.5, 0.0), None, "network")
    assert answers_of({}, ALL) == ([], "network")


def test_campaigns_that_count_their_volunteers_together_show_what_there_is():
    ring = Campaign("rings", (Question("ring", "A ring?", ("fraction",)),), (), share="", voters="total")
    votes = Campaign("votes", (Question("bar", "A bar?", ("yes", "no")),), (), share="", voters="total")
    for row, name in (({"bar_yes": 0.5, "bar_no": 0.5}, "bar"), ({"ring_fraction": 0.25}, "ring")):
        (first, *_), by = answers_of(row | {"total": 20}, (ring, votes))
        assert (first.question.name, first.voters, by) == (name, 20, "volunteers")


def test_voters_are_counted_by_question_by_answer_or_in_a_column():
    by_answer = Campaign("a", EARLY, (SHARE,), voters="_count")
    assert by_answer.voters_of({"bar_yes_count": 3, "bar_no_count": -1}, EARLY[0]) == 3
    assert Campaign("a", EARLY, (SHARE,), voters="seen_by").voters_of({"seen_by": 40}, EARLY[0]) == 40
    assert FIRST.voters_of({"bar_total-votes": 7}, EARLY[0]) == 7 and FIRST.voters_of({}, EARLY[0]) == 0
