"""Train a network that draws as volunteers do: spiral arms, bar, centre and foreground stars, pixel by pixel.

For every pixel and class it says which share of the volunteers of Galaxy Zoo: 3D would put the pixel there. A small
UPerNet on a ConvNeXt from a random start, on any machine:

    python training/segment_gz3d.py --data_dir data/gz3d --output_dir out/masks --image_size 96 --max_steps 300 \\
        --per_device_train_batch_size 8

Trained weights, on GPUs (openmmlab/upernet-convnext-tiny, nvidia/segformer-b0-finetuned-ade-512-512, ...):

    torchrun --nproc_per_node 4 training/segment_gz3d.py --data_dir data/gz3d --output_dir out/masks \\
        --model_name_or_path openmmlab/upernet-convnext-tiny --image_size 256 --num_train_epochs 30 --bf16 --torch_compile

A run that was stopped goes on by the same command, to the losses of an unbroken one; ``--from_scratch`` begins again.
Galaxy Zoo: 3D: Masters et al. 2021, MNRAS 507, 3923.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets
from torch.utils.data import Subset
from transformers import EvalPrediction, set_seed

from skyset.errors import UserError
from skyset.loaders.gz3d import CLASSES, SURVEY
from skyset.splits import SHARES
from skyset.training.common.arguments import ImageArguments, ModelArguments, begin_script, parse, run_script
from skyset.training.common.blocks import freeze_all_but
from skyset.training.common.card import Card, Measured, metrics_table
from skyset.training.common.classify import some_rows
from skyset.training.common.data import source_of
from skyset.training.common.mask_baselines import score_baselines
from skyset.training.common.mask_figures import masks_figure, shares_figure
from skyset.training.common.mask_metrics import NAMES, bootstrap_errors, classes_table, metrics_of
from skyset.training.common.mask_trainer import MaskTrainer, loss_of_galaxies
from skyset.training.common.masks import (
    LICENCE,
    are_simulated,
    check_asked,
    drawn_galaxies,
    galaxies_text,
    load_drawn,
    shares_of,
    volunteers_of,
)
from skyset.training.common.models import image_size, remember
from skyset.training.common.runs import Run, settings_of
from skyset.training.common.seeds import over_seeds
from skyset.training.common.segmentation import (
    begin_at_mean,
    channels_of,
    equal_weights,
    load_segmenter,
    mean_shares,
    segment,
)
from skyset.training.common.story import Story
from skyset.training.common.tasks import mark
from skyset.training.common.training_arguments import TaskArguments
from skyset.training.common.views import Views

logger = logging.getLogger("segment_gz3d")

#: Galaxies to train, and to measure, the simpler models on.
MOST_FOR_BASELINES = 500
#: Galaxies in the card's picture.
DRAWN = 4


@dataclass
class DataArguments(ImageArguments):
    """Which galaxies, which classes, and which empty masks count."""

    data_dir: str = field(kw_only=True, metadata={"help": "Folder of the survey gz3d."})
    classes: list[str] = field(
        default_factory=lambda: list(CLASSES), metadata={"help": "What to learn: some of center star spiral bar."}
    )
    split_shares: list[float] = field(
        default_factory=lambda: list(SHARES),
        metadata={"help": "Shares of training, validation and test; a galaxy's side follows from its MaNGA id."},
    )
    absent_below: float = field(
        default=0.0,
        metadata={
            "help": "An empty mask of arms or bar is no answer, as most were never asked for. Above 0: it counts as drawn "
            "by nobody where fewer than this share of Galaxy Zoo's votes saw one (at least ten votes), such as 0.05."
        },
    )
    equal_classes: bool = field(
        default=True,
        metadata={
            "help": "Weigh the losses of the classes so that predicting a class's mean share costs 1; else classes that "
            "cover few pixels, such as the centre, hardly count."
        },
    )
    eval_zoom: float = field(default=1.0, metadata={"help": "Share of the side shown in evaluation: all of it."})

    def __post_init__(self):
        super().__post_init__()
        unknown = [name for name in self.classes if name not in CLASSES]
        if unknown or not self.classes or len(set(self.classes)) < len(self.classes):
            raise UserError(f"--classes takes some of {' '.join(CLASSES)}, each once, not {' '.join(self.classes)!r}")
        if len(self.split_shares) != 3 or min(self.split_shares) <= 0 or abs(sum(self.split_shares) - 1) > 1e-6:
            raise UserError("--split_shares takes three shares above 0 that sum to 1, such as 0.8 0.1 0.1")
        if not 0 <= self.absent_below < 1:
            raise UserError(f"--absent_below is a share from 0 to 1, not {self.absent_below}")


@dataclass
class MaskTrainingArguments(TaskArguments):
    """Defaults that suit this task."""

    per_device_train_batch_size: int = field(default=16, metadata={"help": "Galaxies a step and process."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Galaxies a batch in evaluation."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the metrics of the test split."""
    model_args, data_args, args = parse((ModelArguments, DataArguments, MaskTrainingArguments), arguments)
    begin_script(model_args, args)
    if args.seeds > 1:
        return over_seeds(main, arguments, args)
    set_seed(args.seed)
    model_args.or_small("upernet", "{}")

    # Everything that may be wrong with the command is found before anything is trained.
    splits = load_drawn(data_args.data_dir, data_args.split_shares)
    source = source_of(data_args.data_dir)
    classes = data_args.classes
    volunteers = {name: volunteers_of(rows, classes, data_args.absent_below) for name, rows in splits.items()}
    check_asked(volunteers, classes)
    model, normalisation = load_segmenter(
        model_args.model_name_or_path, model_args.model_type, model_args.overrides, classes, *model_args.hub
    )
    if args.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(f"--gradient_checkpointing: {type(model).__name__} cannot do that")
    normalisation = model_args.normalisation(normalisation)
    if model_args.freeze or model_args.n_blocks is not None:
        freeze_all_but(model, model_args.n_blocks or 0)

    size, channels = image_size(model, data_args.image_size), channels_of(model)
    remember(model, size, normalisation)
    model.config.eval_zoom = data_args.eval_zoom
    load_size = data_args.load_size or round(size / data_args.zoom_min)
    zoom = (data_args.zoom_min, data_args.zoom_max)
    drawn = {name: drawn_galaxies(rows, volunteers[name], load_size, channels, classes) for name, rows in splits.items()}
    train_set = drawn["train"]
    if args.train_on == "all":
        whole = concatenate_datasets(list(splits.values()))
        train_set = drawn_galaxies(whole, np.concatenate(list(volunteers.values())), load_size, channels, classes)
    shares = mean_shares(train_set)
    begin_at_mean(model, shares)
    mark(model, "masks")

    story = MaskStory(
        model_args=model_args,
        args=args,
        model=model,
        rows=len(train_set),
        data=source.revision,
        citation=SURVEY.citation,
        licence=LICENCE,
        data_args=data_args,
        simulated=are_simulated(splits["test"]),
    )
    run = Run(
        Path(args.output_dir),
        settings_of(args)
        | source.settings()
        | {
            "script": "segment_gz3d",
            "classes": classes,
            "split_shares": data_args.split_shares,
            "absent_below": data_args.absent_below,
            "equal_classes": data_args.equal_classes,
            "first weights": model_args.first_weights(),
            "model_type": model.config.model_type,
            "config_overrides": model_args.overrides,
            "image_size": size,
            "load_size": load_size,
            "zoom": [*zoom, data_args.eval_zoom],
            "image_mean, image_std": [normalisation.mean, normalisation.std],
            "n_blocks": 0 if model_args.freeze else model_args.n_blocks,
        },
        about=story.about(),
        source=source.about(),
        keep_best=args.load_best_model_at_end,
        card_folder=Path(args.card_dir) if args.card_dir else None,
    )
    start = run.begin(args) if args.do_train else None
    if start is None:
        run.refuse_a_training(args.overwrite_output_dir)
    elif not start.finished:
        logger.info("train on %d galaxies, %d masks", len(train_set), int((train_set.known["labels"] > 0).sum()))

    trainer = MaskTrainer(
        model=model,
        args=args,
        views=Views(size, normalisation.mean, normalisation.std, zoom, data_args.eval_zoom),
        loss=partial(
            loss_of_galaxies, weights=equal_weights(shares) if data_args.equal_classes else torch.ones(len(classes))
        ),
        run=run,
        train_dataset=train_set,
        eval_dataset=drawn["validation"],
        compute_metrics=lambda found: mask_metrics(found, classes),
    )
    if start is not None:
        known = trainer.train_or_take_over(start)
        if known is not None and not args.do_predict:
            return known
        story.kept = trainer.kept()

    if args.do_train and args.train_on == "all":
        if args.should_save:
            trainer.save_card(unmeasured_card(story, volunteers))
        return {}
    sums = trainer.predict(drawn["test"]).predictions
    metrics = finite(metrics_of(sums, classes))
    trainer.save_metrics("test", {f"test_{key}": value for key, value in metrics.items()})
    logger.info("test: %s", ", ".join(f"{NAMES[key]} {metrics[key]:.3f}" for key in NAMES if key in metrics))
    if args.should_save:
        trainer.save_card(measured_card(story, splits, drawn, volunteers, sums))
    return metrics


def mask_metrics(found: EvalPrediction, classes: list[str]) -> dict[str, float]:
    """Metrics of the validation split, for `Trainer`."""
    return finite(metrics_of(found.predictions, classes))


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Those of which something can be said."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


@dataclass(kw_only=True)
class MaskStory(Story):
    """What is known of a model that draws masks when its card is written.

    Args:
        data_args: of the command.
        simulated: the galaxies are.
        others: of `Story`.
    """

    data_args: DataArguments
    simulated: bool

    @property
    def name(self) -> str:
        return f"masks-gz3d-{self.model.config.model_type}" + ("-simulated" if self.simulated else "")

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        names = ", ".join(self.data_args.classes)
        whose = "simulated galaxies in the form of Galaxy Zoo: 3D" if self.simulated else "Galaxy Zoo: 3D"
        return (
            f"For every pixel of a colour image, the share of volunteers who would put it into a class ({names}), learned "
            f"from {whose}: cross-entropy of binomial counts, of 15 volunteers a mask, summed over the masks of a galaxy "
            f"that count{', each class weighing the same' * self.data_args.equal_classes}. {self.size()} {self.made()}"
        )

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        return "For one galaxy:", USAGE.format(model=self.folder, data_dir=self.data_args.data_dir)


USAGE = """
from skyset.training.common.masks import load_drawn
from skyset.training.common.models import load_trained
from skyset.training.common.segmentation import begin_at_mean, channels_of, load_segmenter, segment

model, _ = load_trained("{model}", "masks")
galaxy = load_drawn("{data_dir}")["test"][0]
shares = segment(model, galaxy["image"])  # float32 (classes, 525, 525)
for name, share in zip(model.config.id2label.values(), shares):
    print(galaxy["object_id"], name, "at most", f"{{share.max():.0%}}", "of the volunteers")
"""


def unmeasured_card(story: MaskStory, volunteers: dict[str, np.ndarray]) -> Card:
    """The card of a model trained on everything."""
    text = (
        story.text() + "\nTrained on all galaxies: no number can be given. See the card of the model trained on `train`.\n"
    )
    about = galaxies_text(volunteers, story.data_args.classes, story.data_args.absent_below, story.simulated)
    return Card(f"{story.name}-all", text, None, galaxies=about, task="image-segmentation", **story.known())


def measured_card(story: MaskStory, splits, drawn, volunteers: dict[str, np.ndarray], sums: np.ndarray) -> Card:
    """The card of a model measured on the test split, with simpler models measured on the same galaxies beside it."""
    data_args, size = story.data_args, story.model.config.image_size
    classes = data_args.classes
    chosen = some_rows(len(splits["test"]), MOST_FOR_BASELINES)
    learned = some_rows(len(splits["train"]), MOST_FOR_BASELINES)
    some = Subset(drawn["train"], learned.tolist()), Subset(drawn["test"], chosen.tolist())
    scores = {"this model": sums[chosen], **score_baselines(*some, Views(size, eval_zoom=data_args.eval_zoom))}
    metrics = {name: finite(metrics_of(one, classes)) for name, one in scores.items()}
    errors = {name: finite(bootstrap_errors(one, classes)) for name, one in scores.items()}
    beside = (
        f"The simpler models learned from {len(learned)} galaxies, and see {size} x {size} pixels as this one does; all are "
        f"measured on the same {len(chosen)}.\n\n{metrics_table(metrics, errors, NAMES)}"
    )
    revision = f"{story.data}{' (simulated)' if story.simulated else ''}"
    whole = {name: value for name, value in finite(metrics_of(sums, classes)).items() if name in NAMES}
    measured = Measured(
        "gz3d", "default", "test", revision, whole, len(sums), finite(bootstrap_errors(sums, classes)),
        remark=story.remark(), task="image-segmentation", names=NAMES,
    )  # fmt: skip
    pictures = most_drawn(volunteers["test"])
    galaxies = [splits["test"][int(row)] for row in pictures]
    picture = masks_figure(
        [galaxy["image"] for galaxy in galaxies],
        [shares_of(galaxy, volunteers["test"][row], classes) for galaxy, row in zip(galaxies, pictures, strict=True)],
        [segment(story.model, galaxy["image"], story.args.eval_views) for galaxy in galaxies],
        classes,
        [str(galaxy["object_id"]) for galaxy in galaxies],
        float(galaxies[0]["scale"]) * 3600,
    )
    best = min((name for name in scores if name != "this model"), key=lambda name: metrics[name]["binomial_loss"])
    return Card(
        story.name,
        story.text(),
        measured,
        tables={"By class": classes_table(sums, classes), "Beside simpler models": beside},
        figures={
            "masks.png": (picture, "Galaxies of the test split, those with most masks that count. Row 0 is north."),
            "shares.png": (
                shares_figure({"this model": scores["this model"], best: scores[best]}, classes),
                "Drawn over predicted share, pixels in ten bins of the latter; errors: other samples of the galaxies. "
                "Beside this model the simpler one with the lowest loss.",
            ),
        },
        galaxies=galaxies_text(volunteers, classes, data_args.absent_below, story.simulated),
        **story.known(),
    )


def most_drawn(volunteers: np.ndarray) -> np.ndarray:
    """Numbers of the galaxies with the most masks that count, at most ``DRAWN``, in their order."""
    return np.sort(np.argsort(-(volunteers > 0).sum(axis=1), kind="stable")[:DRAWN])


if __name__ == "__main__":
    run_script("segment_gz3d", main)
