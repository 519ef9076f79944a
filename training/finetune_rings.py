"""Fine-tune an image classifier to find ringed galaxies in Galaxy Zoo DECaLS.

A small network from a random start, on any machine:

    python training/finetune_rings.py --data_dir data/gz_decals --output_dir out/rings \\
        --model_type convnextv2 --config_overrides '{"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128]}' \\
        --image_size 96 --max_steps 200 --learning_rate 1e-3

Zoobot's encoder, last two stages, on GPUs:

    torchrun --nproc_per_node 4 training/finetune_rings.py --data_dir data/gz_decals --catalog advanced \\
        --model_name_or_path mwalmsley/zoobot-encoder-convnext_nano --n_blocks 2 --layer_decay 0.75 \\
        --output_dir out/rings --num_train_epochs 30 --early_stopping_patience 5 --bf16 --torch_compile

A run that was stopped goes on by the same command, to the losses of an unbroken one; ``--from_scratch`` begins again.
Rings after Walmsley et al. 2022, MNRAS 513, 1581.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import EvalPrediction, set_seed

from skyset.errors import UserError
from skyset.loaders.gz_decals import CITATION, CLASSES, NO_RING_BELOW, RING_ABOVE
from skyset.training.common import flow
from skyset.training.common.arguments import SMALL, ImageArguments, ModelArguments, begin_script, parse, run_script
from skyset.training.common.baselines import score_baselines
from skyset.training.common.blocks import freeze_all_but
from skyset.training.common.card import CALIBRATION, Card, Measured, calibration_figure, metrics_table, roc_figure
from skyset.training.common.classify import balanced_weights, image_processor, some_rows
from skyset.training.common.data import revision_of, source_of
from skyset.training.common.images import LabelledImages
from skyset.training.common.metrics import binary_metrics, bootstrap_errors, softmax
from skyset.training.common.models import image_size, load_classifier, remember
from skyset.training.common.rings import LICENCE, galaxies_text, load_rings
from skyset.training.common.seeds import over_seeds
from skyset.training.common.story import Story
from skyset.training.common.tasks import mark
from skyset.training.common.trainer import ImageTrainer
from skyset.training.common.training_arguments import TaskArguments
from skyset.training.common.views import Views

#: Galaxies to train, and to measure, the simpler models on: a kernel and 10 ms per galaxy bound it.
MOST_FOR_BASELINES = 3000


@dataclass
class DataArguments(ImageArguments):
    """Which galaxies, and what counts as a ring."""

    data_dir: str = field(kw_only=True, metadata={"help": "Folder of the survey gz_decals."})
    catalog: str = field(default="basic", metadata={"help": "Labels: basic or advanced.", "choices": ["basic", "advanced"]})
    ring_above: float = field(default=RING_ABOVE, metadata={"help": "Advanced: a ring above this share of the votes."})
    no_ring_below: float = field(
        default=NO_RING_BELOW, metadata={"help": "Advanced: no ring below this share; left out in between."}
    )
    repeat_rings: float | None = field(
        default=None,
        metadata={"help": "Rings stand this often in the training set, on average; default: as balances the classes."},
    )
    class_weights: bool = field(default=False, metadata={"help": "Weigh the loss so that both classes count the same."})
    threshold: float = field(default=0.5, metadata={"help": "Probability above which a galaxy is called a ring, for F1."})

    def __post_init__(self):
        super().__post_init__()
        if self.repeat_rings is not None and self.repeat_rings < 1:
            raise UserError(f"--repeat_rings must be 1 or more, not {self.repeat_rings}")
        if not 0 < self.no_ring_below <= self.ring_above < 1 or not 0 < self.threshold < 1:
            raise UserError("need 0 < no_ring_below <= ring_above < 1 and 0 < threshold < 1")


@dataclass
class RingTrainingArguments(TaskArguments):
    """Defaults that suit this task."""

    metric_for_best_model: str = field(default="auc", metadata={"help": "On the validation split."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the metrics of the test split."""
    model_args, data_args, args = parse((ModelArguments, DataArguments, RingTrainingArguments), arguments)
    begin_script(model_args, args)
    if args.seeds > 1:
        return over_seeds(main, arguments, args)
    set_seed(args.seed)
    model_args.or_small("convnextv2", SMALL)

    # Everything that may be wrong with the command is found before anything is trained.
    splits = load_rings(data_args.data_dir, data_args.catalog, data_args.ring_above, data_args.no_ring_below)
    model, normalisation = load_classifier(
        model_args.model_name_or_path, model_args.model_type, model_args.overrides, CLASSES, *model_args.hub
    )
    normalisation = model_args.normalisation(normalisation)
    if model_args.freeze or model_args.n_blocks is not None:
        freeze_all_but(model, model_args.n_blocks or 0)

    size = image_size(model, data_args.image_size)
    remember(model, size, normalisation, data_args.eval_zoom)
    mark(model, "rings")
    load_size = data_args.load_size or round(size / data_args.zoom_min)
    views = Views(size, normalisation.mean, normalisation.std, (data_args.zoom_min, data_args.zoom_max), data_args.eval_zoom)
    labelled = {name: LabelledImages(rows, load_size, model.config.num_channels) for name, rows in splits.items()}
    train_rows = concatenate_datasets(list(splits.values())) if args.train_on == "all" else splits["train"]
    repeats = balancing_repeats(train_rows) if data_args.repeat_rings is None else (1.0, data_args.repeat_rings)
    train_set = LabelledImages(train_rows, load_size, model.config.num_channels, repeats, args.seed)

    config = f"rings_{data_args.catalog}"
    story = RingStory(
        model_args=model_args,
        args=args,
        model=model,
        rows=len(train_rows),
        data=revision_of(data_args.data_dir, config),
        citation=CITATION,
        licence=LICENCE,
        data_args=data_args,
        repeats=repeats,
    )
    settings = flow.settings_of_images(model_args, data_args, normalisation, size, load_size)
    settings |= {
        "data": story.data,
        "catalog": data_args.catalog,
        "votes": [data_args.ring_above, data_args.no_ring_below] if data_args.catalog == "advanced" else None,
        "model_type": model.config.model_type,
        "repeats of other galaxies, rings": repeats,
        "class_weights": data_args.class_weights,
    }
    run = flow.run_of("finetune_rings", args, story, source_of(data_args.data_dir, config).about(), settings)
    told = f"{len(train_rows)} galaxies, rings {repeats[1]:.3g} times: {len(train_set)} rows"
    start = flow.begin(run, args, told)
    trainer = ImageTrainer(
        model=model,
        args=args,
        views=views,
        run=run,
        class_weights=balanced_weights(train_set.labels[train_set.order]) if data_args.class_weights else None,
        train_dataset=train_set,
        eval_dataset=labelled["validation"],
        processing_class=image_processor(model, size, normalisation, data_args.eval_zoom),
        compute_metrics=lambda predictions: ring_metrics(predictions, data_args.threshold),
    )
    return flow.train_and_measure(
        trainer,
        story,
        start,
        labelled["test"],
        lambda logits: ring_metrics(EvalPrediction(logits, labelled["test"].labels), data_args.threshold),
        lambda logits, metrics: measured_card(story, splits, softmax(logits)[:, 1], metrics),
        lambda: unmeasured_card(story),
    )


def balancing_repeats(rows: Dataset) -> tuple[float, float]:
    """How often other galaxies and rings must stand in the training set to be as many as each other; once or more."""
    rings = int(np.sum(rows["label"]))
    others = len(rows) - rings
    return max(1.0, rings / max(1, others)), max(1.0, others / max(1, rings))


def ring_metrics(predictions: EvalPrediction, threshold: float) -> dict[str, float]:
    """Metrics of the validation split, for `Trainer`."""
    return binary_metrics(predictions.label_ids, softmax(predictions.predictions)[:, 1], threshold)


@dataclass(kw_only=True)
class RingStory(Story):
    """What is known of a model that finds rings when its card is written.

    Args:
        data_args: of the command.
        repeats: how often other galaxies and rings stand in the training set.
        others: of `Story`.
    """

    data_args: DataArguments
    repeats: tuple[float, float]

    @property
    def name(self) -> str:
        return f"rings-{self.data_args.catalog}-{self.model.config.model_type}"

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        label = "somebody tagged it as a ring"
        if self.data_args.catalog == "advanced":
            above, below = self.data_args.ring_above, self.data_args.no_ring_below
            label = f"more than {above:.0%} of the volunteers saw a ring; those below {below:.0%} are the others"
        return (
            f"Finds ringed galaxies in colour images of Galaxy Zoo DECaLS. A galaxy counts as ringed if {label}.\n\n"
            f"{self.size()} {self.made()}"
        )

    def training(self) -> str:
        """How this command trains."""
        others, rings = self.repeats
        return super().training(f" (rings standing there {rings:.3g} times on average, others {others:.3g} times)")

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        code = PIPELINE if self.model.config.num_channels == 3 else BY_HAND
        data = self.data_args
        return "For one galaxy:", code.format(model=self.folder, data_dir=data.data_dir, zoom=data.eval_zoom)


PIPELINE = """
from PIL import Image
from transformers import pipeline
from skyset.training.common.rings import load_rings

find_rings = pipeline("image-classification", model="{model}")
galaxy = load_rings("{data_dir}")["test"][0]
print(galaxy["object_id"], find_rings(Image.fromarray(galaxy["image"])))
"""

BY_HAND = """
from skyset.training.common.images import to_tensor
from skyset.training.common.models import image_size, load_classifier
from skyset.training.common.rings import load_rings
from skyset.training.common.views import Views

model, normalisation = load_classifier("{model}", labels=("no_ring", "ring"))
size = image_size(model)
views = Views(size, normalisation.mean, normalisation.std, eval_zoom={zoom}).eval()
galaxy = load_rings("{data_dir}")["test"][0]
pixels = to_tensor(galaxy["image"], round(size / {zoom}), model.config.num_channels)
print(galaxy["object_id"], model.eval()(views(pixels[None])).logits.softmax(1).tolist())
"""


def unmeasured_card(story: RingStory) -> Card:
    """The card of a model trained on everything."""
    text = story.text()
    text += "\nTrained on all labelled galaxies: no number can be given. See the card of the model trained on `train`.\n"
    return Card(story.name + "-all", text, None, **story.known())


def measured_card(story: RingStory, splits: DatasetDict, probabilities: np.ndarray, metrics: dict[str, float]) -> Card:
    """The card of a model measured on the test split, with simpler models measured on the same galaxies beside it."""
    data_args, threshold = story.data_args, story.data_args.threshold
    labels = np.asarray(splits["test"]["label"])
    chosen = some_rows(len(labels), MOST_FOR_BASELINES)
    learned_from = splits["train"].select(some_rows(len(splits["train"]), MOST_FOR_BASELINES))
    scores = {"this model": probabilities[chosen], **score_baselines(learned_from, splits["test"].select(chosen))}
    table = metrics_table(
        {key: binary_metrics(labels[chosen], p, threshold) for key, p in scores.items()},
        {key: bootstrap_errors(labels[chosen], p, threshold) for key, p in scores.items()},
    )
    counts = f"The simpler models learned from {len(learned_from)} galaxies; all are measured on the same {len(chosen)}.\n\n"
    measured = Measured(
        "gz_decals",
        f"rings_{data_args.catalog}",
        "test",
        story.data,
        metrics,
        len(labels),
        bootstrap_errors(labels, probabilities, threshold),
        remark=story.remark(),
    )
    return Card(
        story.name,
        story.text(),
        measured,
        tables={"Beside simpler models": counts + table},
        figures={
            "roc.png": (roc_figure(labels[chosen], scores), "ROC curves on the test split."),
            "calibration.png": (calibration_figure(labels, {"this model": probabilities}), CALIBRATION),
        },
        galaxies=galaxies_text(splits["test"], data_args.catalog),
        **story.known(),
    )


if __name__ == "__main__":
    run_script("finetune_rings", main)
