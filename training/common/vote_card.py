"""The model card of a network that expects votes: what was measured, beside simpler models on the same galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import DatasetDict

from skyset.loading import registry
from skyset.training.common.card import Card, Measured, metrics_table
from skyset.training.common.classify import some_rows
from skyset.training.common.data import Source
from skyset.training.common.story import Story
from skyset.training.common.vote_baselines import linear_strengths
from skyset.training.common.vote_data import Votes, answered
from skyset.training.common.vote_figures import CALIBRATION, calibration_figure, galaxies_figure
from skyset.training.common.vote_metrics import (
    CONFIDENT,
    NAMES,
    REACHED,
    beside_of,
    constants_of,
    errors_of,
    measure,
    overall,
    table_of,
)

#: Galaxies to train, and to measure, the linear model on: 10 ms each.
MOST_FOR_BASELINES = 3000


def licence_of(source: Source) -> tuple[str, str]:
    """The survey's; the Hub knows names of its own for those that are usual."""
    said = registry.survey(source.survey).license
    return ("cc-by-4.0" if said.startswith("CC BY 4.0") else "other", f"Of the galaxies and votes: {said}.")


@dataclass(kw_only=True)
class VoteStory(Story):
    """What is known of a model that expects votes when its card is written.

    Args:
        source: of the galaxies.
        data_dir, config_name, image_column: as the command names them.
        reached: least share of a galaxy's volunteers that were led to a question that counts.
        campaign: whose votes.
        assumed: volunteers for whom shares stand; None where they were counted.
        others: of `Story`.
    """

    source: Source
    data_dir: str
    config_name: str
    image_column: str
    reached: float
    campaign: str
    assumed: float | None

    @property
    def name(self) -> str:
        return f"votes-{self.source.survey.replace('_', '-')}-{self.model.config.encoder.model_type}"

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        answers = sum(len(question["answers"]) for question in self.model.config.tree)
        counts = ""
        if self.assumed is not None:
            counts = f" The data have shares and no counts: they stand for the votes of {self.assumed:g} volunteers."
        return (
            f"Expects what volunteers say of a galaxy in an image of `{self.source.survey}`: {len(self.model.config.tree)} "
            f"questions with {answers} answers ({self.campaign}). For each answer it gives a Dirichlet concentration from 1 "
            "to 101; those of a question, divided by their sum, are the shares that are expected, and the sum says how sure "
            f"the network is.{counts}\n\n{self.size()} {self.made()}"
        )

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        place = {"data_dir": self.data_dir, "config": self.config_name, "column": self.image_column}
        return "For one galaxy:", USAGE.format(model=self.folder, **place)


USAGE = """
from skyset.training.common.data import load_splits
from skyset.training.common.images import to_tensor
from skyset.training.common.models import load_trained
from skyset.training.common.views import Views

model, normalisation = load_trained("{model}", "votes")
size, zoom = model.config.image_size, model.config.eval_zoom
views = Views(size, normalisation.mean, normalisation.std, eval_zoom=zoom).eval()
galaxy = load_splits("{data_dir}", "{config}")["test"][0]
pixels = to_tensor(galaxy["{column}"], round(size / zoom), model.config.num_channels)
print(galaxy["object_id"])
for answer, share in model.eval().answers(views(pixels[None]))[0].items():
    print(f"{{answer}} {{share:.2f}}")
"""


def unmeasured_card(story: VoteStory) -> Card:
    """The card of a model trained on everything."""
    text = story.text()
    text += "\nTrained on all galaxies: no number can be given. See the card of the model trained on `train`.\n"
    return Card(story.name + "-all", text, None, **story.known())


def measured_card(
    story: VoteStory,
    splits: DatasetDict,
    votes: dict[str, Votes],
    strengths: np.ndarray,
    constants: np.ndarray,
    figures: dict[str, float],
    elsewhere: tuple[Votes, Votes] | None = None,
) -> Card:
    """The card of a model measured on the test split, beside simpler ones on the same galaxies.

    Args:
        story: of the model.
        splits, votes: galaxies, by split.
        strengths: predicted concentrations for the test split, (rows, answers).
        constants: of the training galaxies, see ``constants_of``.
        figures: of ``overall``.
        elsewhere: of a table without images, votes to fit the mean on, and votes to measure it on.
    """
    test = votes["test"]
    found = measure(test, strengths, constants, story.reached)
    measured = Measured(
        story.source.survey,
        story.source.config,
        "test",
        story.data,
        {name: figures[name] for name in NAMES if name in figures},
        len(strengths),
        errors_of(test, strengths, story.reached),
        remark=story.remark(),
        names=NAMES,
    )
    chosen = {name: some_rows(len(part), MOST_FOR_BASELINES) for name, part in splits.items()}
    few = {name: part.taking(chosen[name]) for name, part in votes.items()}
    images = {name: part.select(chosen[name])[story.image_column] for name, part in splits.items()}
    linear = linear_strengths(images, few, constants)
    ours = overall(measure(few["test"], strengths[chosen["test"]], constants, story.reached), len(linear))
    theirs = overall(measure(few["test"], linear, constants, story.reached), len(linear))
    beside = {"this model": ours, "polar features, linear": theirs, **beside_of(ours)}
    meanings = MEANINGS.format(reached=story.reached, confident=CONFIDENT, questions=len(test.tree))
    shown = example_rows(test, 3)
    rows = splits["test"].select(shown)
    return Card(
        story.name,
        story.text(),
        measured,
        tables={
            "Beside simpler models": metrics_table(beside, names=NAMES) + meanings,
            "By question": table_of(found),
            **({"Other galaxies, without images": without_images(*elsewhere)} if elsewhere else {}),
        },
        figures={
            "calibration.png": (calibration_figure(test, strengths, story.reached), CALIBRATION),
            "galaxies.png": (
                galaxies_figure(
                    rows[story.image_column],
                    test.taking(shown),
                    strengths[shown],
                    rows["object_id"],
                    "volunteers" if test.counted else "the data's shares",
                ),
                "Galaxies of the test split, and the answers to the questions that they reached (in brackets, how many "
                "answered): those given and those expected. Lines: the middle 68 % of what is expected of the true share.",
            ),
        },
        **story.known(),
    )


#: Below the table of all.
MEANINGS = """
The mean: always the concentrations that fit the training galaxies best, whatever the image. Floors: what is left for who
knows the true share of each answer, because volunteers are a sample; the true shares are drawn from what the votes leave
open. Deviation: the mean difference of expected and given shares. Deviations and accuracy are over galaxies of which
{reached:.0%} of the volunteers, or more, were led to the question; accuracy over those where {confident:.0%} or more agree.

Loss: the negative logarithm of the votes' probability (Dirichlet-multinomial, with the multinomial's coefficient), summed
over the {questions} questions and averaged over galaxies. Zoobot's is defined alike; the values published for it
(ConvNeXt-Nano 19.23, Base 19.05) are of GZ Evo: other galaxies, more questions, other numbers of volunteers.
"""


def without_images(fitted: Votes, others: Votes) -> str:
    """Markdown: what the mean and the floor are for a table of volunteers' votes; no network was there."""
    tree = answered(fitted)
    fitted, others = fitted.asking(tree), others.asking(tree)
    constants = constants_of(fitted)
    found = measure(others, np.broadcast_to(constants, others.counts.shape), constants)
    rows = metrics_table(beside_of(overall(found, len(others.counts))), names=NAMES)
    voters = ", ".join(f"`{each.question.name}` {each.voters:.0f}" for each in found if each.reached)
    return (
        f"{rows}\nThe mean of {len(fitted.counts)} galaxies, measured on {len(others.counts)} others; volunteers for each: "
        f"{voters}. There is no image of them: this says between which numbers a network's would be.\n"
    )


def example_rows(votes: Votes, count: int) -> np.ndarray:
    """Galaxies that reached the most questions, of those with the most volunteers: always the same ones, chosen by votes."""
    reach = (votes.reached >= REACHED).sum(axis=1)
    order = np.random.default_rng(0).permutation(len(reach))
    return np.sort(order[np.argsort(-reach[order], kind="stable")][:: max(1, len(order) // count)][:count])
