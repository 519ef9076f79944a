"""Train a network that tells spiral from elliptical galaxies in colour images of SDSS.

A small ConvNeXt V2 from a random start, on any machine:

    python training/classify_sdss.py --data_dir data/sdss --output_dir out/morphology --max_steps 300 --learning_rate 1e-3

Any image classifier or encoder by name, on GPUs:

    torchrun --nproc_per_node 4 training/classify_sdss.py --data_dir data/sdss --output_dir out/morphology \\
        --model_name_or_path mwalmsley/zoobot-encoder-convnext_nano --layer_decay 0.75 --bf16 --torch_compile

Beside it, on the same galaxies: logistic regression on principal components of the pixels, and a random forest on SDSS's
photometry. A run that was stopped goes on by the same command, to the losses of an unbroken one; ``--from_scratch`` begins
again. Labels: Galaxy Zoo 1, Lintott et al. 2011, MNRAS 410, 166.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from transformers import EvalPrediction, PreTrainedModel, set_seed

from skyset.errors import UserError
from skyset.loaders.sdss_galaxy_zoo import SURVEY
from skyset.splits import SHARES
from skyset.training.common import flow
from skyset.training.common.arguments import SMALL, ImageArguments, ModelArguments, begin_script, parse, run_script
from skyset.training.common.blocks import freeze_all_but
from skyset.training.common.card import CALIBRATION, Card, Measured, metrics_table, reliability_figure, roc_figure
from skyset.training.common.classify import balanced_weights, image_processor, some_rows
from skyset.training.common.data import source_of
from skyset.training.common.images import LabelledImages
from skyset.training.common.metrics import binary_metrics, bootstrap_errors, softmax
from skyset.training.common.models import Normalisation, image_size, load_classifier, load_trained, remember
from skyset.training.common.morphology import (
    CLASSES,
    LICENCE,
    TASK,
    galaxies_text,
    load_morphology,
    redshift_figure,
    redshift_table,
    score_simpler,
)
from skyset.training.common.seeds import over_seeds
from skyset.training.common.story import Story
from skyset.training.common.tasks import mark
from skyset.training.common.trainer import ImageTrainer
from skyset.training.common.training_arguments import TaskArguments
from skyset.training.common.views import Views

logger = logging.getLogger("classify_sdss")

#: Galaxies to train, and to measure, the simpler models on.
MOST_FOR_BASELINES = 3000


@dataclass
class DataArguments(ImageArguments):
    """Which galaxies, and how they count."""

    data_dir: str = field(kw_only=True, metadata={"help": "Folder of the survey sdss_galaxy_zoo."})
    split_shares: list[float] = field(
        default_factory=lambda: list(SHARES),
        metadata={"help": "Shares of training, validation and test; a galaxy's side follows from its object_id."},
    )
    class_weights: bool = field(default=False, metadata={"help": "Weigh the loss so that both classes count the same."})
    threshold: float = field(
        default=0.5, metadata={"help": "Probability from which a galaxy is called elliptical, for accuracy and F1."}
    )

    def __post_init__(self):
        super().__post_init__()
        if len(self.split_shares) != 3 or min(self.split_shares) <= 0 or abs(sum(self.split_shares) - 1) > 1e-6:
            raise UserError("--split_shares takes three shares above 0 that sum to 1, such as 0.8 0.1 0.1")
        if not 0 < self.threshold < 1:
            raise UserError("need 0 < threshold < 1")


@dataclass
class MorphologyTrainingArguments(TaskArguments):
    """Defaults that suit this task."""

    metric_for_best_model: str = field(default="auc", metadata={"help": "On the validation split."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the metrics of the test split."""
    model_args, data_args, args = parse((ModelArguments, DataArguments, MorphologyTrainingArguments), arguments)
    begin_script(model_args, args)
    if args.seeds > 1:
        return over_seeds(main, arguments, args)
    set_seed(args.seed)
    model_args.or_small("convnextv2", SMALL)

    # Everything that may be wrong with the command is found before anything is trained.
    splits = load_morphology(data_args.data_dir, data_args.split_shares)
    source = source_of(data_args.data_dir)
    model, normalisation = load_model(model_args, args)
    if model_args.freeze or model_args.n_blocks is not None:
        freeze_all_but(model, model_args.n_blocks or 0)

    size = image_size(model, data_args.image_size)
    remember(model, size, normalisation, data_args.eval_zoom)
    mark(model, TASK)
    load_size = data_args.load_size or round(size / data_args.zoom_min)
    views = Views(size, normalisation.mean, normalisation.std, (data_args.zoom_min, data_args.zoom_max), data_args.eval_zoom)
    labelled = {name: LabelledImages(rows, load_size, model.config.num_channels) for name, rows in splits.items()}
    everything = concatenate_datasets(list(splits.values()))
    train_set = labelled["train"]
    if args.train_on == "all":
        train_set = LabelledImages(everything, load_size, model.config.num_channels)

    story = MorphologyStory(
        model_args=model_args,
        args=args,
        model=model,
        rows=len(train_set),
        data=source.revision,
        citation=SURVEY.citation,
        licence=LICENCE,
        data_args=data_args,
        simulated=source.simulated,
    )
    settings = source.settings() | flow.settings_of_images(model_args, data_args, normalisation, size, load_size)
    settings |= {
        "model_type": model.config.model_type,
        "split_shares": data_args.split_shares,
        "class_weights": data_args.class_weights,
    }
    run = flow.run_of("classify_sdss", args, story, source.about(), settings)
    start = flow.begin(run, args, f"{len(train_set)} galaxies")
    trainer = ImageTrainer(
        model=model,
        args=args,
        views=views,
        run=run,
        class_weights=balanced_weights(train_set.labels) if data_args.class_weights else None,
        train_dataset=train_set,
        eval_dataset=labelled["validation"],
        processing_class=image_processor(model, size, normalisation, data_args.eval_zoom),
        compute_metrics=lambda predictions: metrics_of(predictions, data_args.threshold),
    )
    return flow.train_and_measure(
        trainer,
        story,
        start,
        labelled["test"],
        lambda logits: metrics_of(EvalPrediction(logits, labelled["test"].labels), data_args.threshold),
        lambda logits, metrics: measured_card(story, splits, softmax(logits)[:, 1], metrics),
        lambda: unmeasured_card(story),
    )


def load_model(model_args: ModelArguments, args: TaskArguments) -> tuple[PreTrainedModel, Normalisation]:
    """A classifier to train, or the trained one that is measured."""
    if args.do_train:
        model, normalisation = load_classifier(
            model_args.model_name_or_path, model_args.model_type, model_args.overrides, CLASSES, *model_args.hub
        )
    else:
        model, normalisation = load_trained(model_args.model_name_or_path, TASK, *model_args.hub)
    return model, model_args.normalisation(normalisation)


def metrics_of(predictions: EvalPrediction, threshold: float) -> dict[str, float]:
    """Of a split, by name; class 1 is elliptical."""
    return binary_metrics(predictions.label_ids, softmax(predictions.predictions)[:, 1], threshold)


@dataclass(kw_only=True)
class MorphologyStory(Story):
    """What is known of a model that tells spirals from ellipticals when its card is written.

    Args:
        data_args: of the command.
        simulated: whether the galaxies are.
        others: of `Story`.
    """

    data_args: DataArguments
    simulated: bool

    @property
    def name(self) -> str:
        return f"morphology-sdss-{self.model.config.model_type}"

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        what = "simulated images" if self.simulated else "colour images"
        return (
            f"Tells spiral from elliptical galaxies in {what} of SDSS; precision and recall are of ellipticals.\n\n"
            f"{self.size()} {self.made()}"
        )

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        data = self.data_args
        return "For one galaxy:", USAGE.format(model=self.folder, data_dir=data.data_dir)


USAGE = """
from skyset.training.common.images import to_tensor
from skyset.training.common.models import load_trained
from skyset.training.common.morphology import load_morphology
from skyset.training.common.views import Views

model, normalisation = load_trained("{model}", "morphology")
size, zoom = model.config.image_size, model.config.eval_zoom
views = Views(size, normalisation.mean, normalisation.std, eval_zoom=zoom).eval()
galaxy = load_morphology("{data_dir}")["test"][0]
pixels = to_tensor(galaxy["image"], round(size / zoom), model.config.num_channels)
print(galaxy["object_id"], model.config.id2label, model.eval()(views(pixels[None])).logits.softmax(1).tolist())
"""


def unmeasured_card(story: MorphologyStory) -> Card:
    """The card of a model trained on everything."""
    text = story.text()
    text += "\nTrained on all labelled galaxies: no number can be given. See the card of the model trained on `train`.\n"
    return Card(story.name + "-all", text, None, **story.known())


def measured_card(story: MorphologyStory, splits: DatasetDict, probabilities: np.ndarray, metrics: dict[str, float]) -> Card:
    """The card of a model measured on the test split, beside simpler models on the same galaxies, and by redshift."""
    threshold, test = story.data_args.threshold, splits["test"]
    labels = np.asarray(test["label"])
    chosen, learned = (some_rows(len(splits[name]), MOST_FOR_BASELINES) for name in ("test", "train"))
    scores = {
        "this model": probabilities[chosen],
        **score_simpler(splits["train"].select(learned), test.select(chosen), story.args.seed),
    }
    redshift = np.asarray(test.with_format("numpy")["redshift"], np.float64)[chosen]
    beside = metrics_table(
        {name: binary_metrics(labels[chosen], values, threshold) for name, values in scores.items()},
        {name: bootstrap_errors(labels[chosen], values, threshold) for name, values in scores.items()},
    )
    counts = f"The simpler models learned from {len(learned)} galaxies; all are measured on the same {len(chosen)}.\n\n"
    measured = Measured(
        "sdss_galaxy_zoo",
        "default",
        "test",
        story.data,
        metrics,
        len(labels),
        bootstrap_errors(labels, probabilities, threshold),
        remark=story.remark(),
    )
    figures = {
        "roc.png": (roc_figure(labels[chosen], scores, "ellipticals"), "ROC curves on the test split."),
        "redshift.png": (
            redshift_figure(redshift, labels[chosen], scores, threshold),
            "Accuracy over redshift on the test split, with 68 % binomial errors; below, the share of ellipticals.",
        ),
        "calibration.png": (reliability_figure({"this model": (labels, probabilities)}, what="ellipticals"), CALIBRATION),
    }
    tables = {
        "Beside simpler models": counts + beside,
        "By redshift": redshift_table(redshift, labels[chosen], scores, threshold),
    }
    galaxies = galaxies_text(splits, story.simulated)
    return Card(story.name, story.text(), measured, tables, figures, galaxies=galaxies, **story.known())


if __name__ == "__main__":
    run_script("classify_sdss", main)
