"""The model card of a network that says how good exposures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skyset.loaders.megacam_iqa import CLASSES
from skyset.training.common.card import Card, Measured, metrics_table
from skyset.training.common.quality_data import Known
from skyset.training.common.quality_metrics import (
    NAMES,
    confusion_figure,
    confusion_table,
    errors_of,
    measure,
    risk_figure,
)
from skyset.training.common.story import Story

INPUT_NAMES = {"joint": "representative image and hits", "image": "representative image alone", "hits": "hits alone"}
TAGS = ("astronomy", "image-quality")


@dataclass(kw_only=True)
class QualityStory(Story):
    """What is known of a model of image quality when its card is written.

    Args:
        data_dir: as the command names it.
        split: ``exposure`` or ``leaked``.
        simulated: whether the exposures are.
        spoilt: CCDs that were left out because an input was not finite.
        others: of `Story`.
    """

    data_dir: str
    split: str
    simulated: bool
    spoilt: int
    things: ClassVar[str] = "CCDs"

    @property
    def name(self) -> str:
        return f"megacam-quality-{self.model.config.inputs}" + ("-leaked" if self.split == "leaked" else "")

    def views(self) -> str:
        """How images are changed in training."""
        if self.model.config.inputs == "hits":
            return "Hits are not changed in training."
        return "The cutouts of an image are turned by quarters and mirrored, all alike."

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        config = self.model.config
        scales = f"pixels by median {config.image_median:.4g} and deviation {config.image_mad:.4g} ADU, then asinh"
        return (
            f"Says which class an exposure of {'simulated ' * self.simulated}MegaCam is of ({', '.join(CLASSES)}), from "
            f"each CCD's {INPUT_NAMES[config.inputs]} (survey `megacam_iqa`). Inputs are scaled by medians and median "
            f"absolute deviations of training CCDs, saved in its configuration ({scales}; logarithms of hits by group).\n\n"
            f"{self.size()} {self.made()}"
        )

    def remark(self) -> str:
        """What is to be known about the measured CCDs."""
        leaked = (
            "**The split leaks**: CCDs of the same exposures were trained on; these figures are no measurement."
            if self.split == "leaked"
            else "No exposure of theirs was trained on."
        )
        made_up = "**The exposures are simulated** (`skyset.testing.megacam`)." if self.simulated else ""
        left_out = f"{self.spoilt} CCDs with inputs that are no finite numbers were left out." if self.spoilt else ""
        return " ".join(filter(None, (leaked, made_up, left_out, super().remark())))

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        return "For one CCD:", USAGE.format(model=self.folder, data_dir=self.data_dir)


USAGE = """
import torch
from skyset.training.common.models import load_trained
from skyset.training.common.quality_data import as_floats, load_ccds

model, _ = load_trained("{model}", "quality")
ccd = load_ccds("{data_dir}")[0]["test"][0]
with torch.no_grad():
    logits = model.eval()(as_floats(ccd["image"])[None], as_floats(ccd["hits"])[None]).logits
for number, share in enumerate(logits.softmax(1)[0].tolist()):
    print(ccd["object_id"], model.config.id2label[number], f"{{share:.2f}}")
"""


def unmeasured_card(story: QualityStory) -> Card:
    """The card of a model trained on everything."""
    text = story.text()
    text += "\nTrained on all labelled CCDs: no number can be given. See the card of the model trained on `train`.\n"
    return Card(story.name + "-all", text, None, tags=TAGS, **story.known())


def measured_card(
    story: QualityStory,
    known: Mapping[str, Known],
    probabilities: np.ndarray,
    figures: Mapping[str, float],
    beside: Mapping[str, Mapping[str, float]],
) -> Card:
    """The card of a model measured on the test split.

    Args:
        story: of the model.
        known: of the CCDs, by split.
        probabilities: of the test CCDs, (rows, classes).
        figures: of these.
        beside: figures of other inputs, and of the leaked split.
    """
    test = known["test"]
    errors = errors_of(test, probabilities)
    measured = Measured(
        "megacam_iqa",
        "representative",
        "test",
        story.data,
        {name: figures[name] for name in NAMES if name in figures},
        len(test.labels),
        errors,
        remark=story.remark(),
        names=NAMES,
        things=f"CCDs of {len(set(test.exposures))} exposures",
    )
    most = np.bincount(known["train"].labels, minlength=len(CLASSES)).argmax()
    rows = {f"this model: {INPUT_NAMES[story.model.config.inputs]}": figures}
    rows |= {INPUT_NAMES[name]: values for name, values in beside.items() if name in INPUT_NAMES}
    rows |= {f"always {CLASSES[most]}": measure(test, np.eye(len(CLASSES))[np.full(len(test.labels), most)])}
    if "leaked" in beside:
        rows["this model, split that leaks: no measurement"] = beside["leaked"]
    tables = {
        "Beside others": metrics_table(rows, names=NAMES) + MEANINGS,
        "Confusion, by exposure": confusion_table(test, probabilities),
    }
    pictures = {
        "confusion.png": (confusion_figure(test, probabilities), "Exposures of the test split by label and vote."),
        "risk.png": (
            risk_figure(test, {"this model": probabilities}),
            "Share of exposures that are wrong, over the share that is decided if the least sure ones are left to a human.",
        ),
    }
    about = {"tags": TAGS, "galaxies": exposures_text(known), "things": "exposures", **story.known()}
    return Card(story.name, story.text(), measured, tables, pictures, **about)


#: Below the table.
MEANINGS = """
By exposure: the probabilities of its CCDs are averaged, and the likeliest class is its vote. Macro F1: the mean over the
classes that are there. Usable or not: GOOD against all others, by the probability of GOOD. An exposure may have a second
label. Share decided at 97 % right: the most exposures, the surest first, of which no more than 3 % are wrong. All rows were
trained the same way; inputs alone are measured on the same CCDs, the split that leaks on others.

Teimoorinia et al. 2020 (AJ 159, 170) state 97 % agreement with manual classes for two inputs joined, some 10 % more than one
alone: on their exposures of MegaCam and their labels, which are not these. The number is theirs and was not reproduced here.
"""


def exposures_text(known: Mapping[str, Known]) -> str:
    """How many exposures of each class there are, Markdown."""
    lines = ["| split | CCDs | exposures | " + " | ".join(CLASSES) + " |", "|---|" + "---|" * (len(CLASSES) + 2)]
    for name, part in known.items():
        _, first = np.unique(part.exposures, return_index=True)
        counts = np.bincount(part.labels[first], minlength=len(CLASSES))
        lines.append(f"| {name} | {len(part.labels)} | {len(first)} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)
