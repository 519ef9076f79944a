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

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel, set_seed

from skyset.errors import UserError
from skyset.loaders.gz_decals import CITATION, CLASSES, NO_RING_BELOW, RING_ABOVE
from skyset.training.common.arguments import ImageArguments, ModelArguments, parse
from skyset.training.common.baselines import score_baselines
from skyset.training.common.card import CALIBRATION, Card, Measured, calibration_figure, metrics_table, roc_figure
from skyset.training.common.images import LabelledImages
from skyset.training.common.metrics import binary_metrics, bootstrap_errors, softmax
from skyset.training.common.models import Normalisation, fingerprint, freeze_all_but, image_size, load_classifier, remember
from skyset.training.common.rings import LICENCE, galaxies_text, load_rings, revision_of
from skyset.training.common.runs import Run, read_record, settings_of, versions
from skyset.training.common.trainer import ImageTrainer, ImageTrainingArguments
from skyset.training.common.views import Views

logger = logging.getLogger("finetune_rings")

#: Galaxies to train, and to measure, the simpler models on: a kernel and 10 ms per galaxy bound it.
MOST_FOR_BASELINES = 3000


#: The network where none is asked for: to try things out on any machine.
SMALL = '{"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128], "image_size": 64}'


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
    train_on: str = field(
        default="train",
        metadata={
            "help": "train, or all: train on all labelled galaxies; then nothing is left to measure on.",
            "choices": ["train", "all"],
        },
    )
    threshold: float = field(default=0.5, metadata={"help": "Probability above which a galaxy is called a ring, for F1."})
    card_dir: str | None = field(default=None, metadata={"help": "Where the model card goes; default the output folder."})

    def __post_init__(self):
        super().__post_init__()
        if self.repeat_rings is not None and self.repeat_rings < 1:
            raise UserError(f"--repeat_rings must be 1 or more, not {self.repeat_rings}")
        if not 0 < self.no_ring_below <= self.ring_above < 1 or not 0 < self.threshold < 1:
            raise UserError("need 0 < no_ring_below <= ring_above < 1 and 0 < threshold < 1")


@dataclass
class RingTrainingArguments(ImageTrainingArguments):
    """Defaults that suit this task; everything can be given."""

    learning_rate: float = field(default=1e-4, metadata={"help": "Of the head; see layer_decay."})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's."})
    num_train_epochs: float = field(default=30, metadata={"help": "Unless max_steps says less."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Galaxies a step and process."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Galaxies a batch in evaluation."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Course of the learning rate."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps, or a share of all where below 1."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to measure on the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to write a checkpoint."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept; the best one always is."})
    metric_for_best_model: str = field(default="auc", metadata={"help": "On the validation split."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between reports of the loss."})
    report_to: str = field(default="none", metadata={"help": "wandb, tensorboard, ..."})
    do_train: bool = field(default=True, metadata={"help": "Off: only measure the model named, and write its card."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the metrics of the test split."""
    kinds = (ModelArguments, DataArguments, RingTrainingArguments)
    model_args, data_args, args = parse(kinds, _resume_flag(arguments))
    if not args.do_train and not model_args.model_name_or_path:
        raise UserError("--do_train False measures a model that is there: name it with --model_name_or_path")
    if args.do_train and data_args.train_on == "all":
        _train_to_the_end(args)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO if args.should_log else logging.WARNING)
    set_seed(args.seed)

    if not model_args.model_name_or_path and not model_args.model_type:
        model_args.model_type, model_args.config_overrides = "convnextv2", model_args.config_overrides or SMALL
        logger.warning("no model is named: a small ConvNeXt V2 from a random start (--model_name_or_path: trained ones)")

    # Everything that may be wrong with the command is found before anything is trained.
    splits = load_rings(data_args.data_dir, data_args.catalog, data_args.ring_above, data_args.no_ring_below)
    hub = (model_args.model_revision, model_args.cache_dir, model_args.token)
    model, normalisation = load_classifier(
        model_args.model_name_or_path, model_args.model_type, model_args.overrides, CLASSES, *hub
    )
    if model_args.image_mean is not None:
        normalisation = Normalisation(tuple(model_args.image_mean), tuple(model_args.image_std))
    if model_args.freeze or model_args.n_blocks is not None:
        freeze_all_but(model, model_args.n_blocks or 0)

    size = image_size(model, data_args.image_size)
    remember(model, size, normalisation)
    load_size = data_args.load_size or round(size / data_args.zoom_min)
    views = Views(size, normalisation.mean, normalisation.std, (data_args.zoom_min, data_args.zoom_max), data_args.eval_zoom)
    labelled = {name: LabelledImages(rows, load_size, model.config.num_channels) for name, rows in splits.items()}
    train_rows = concatenate_datasets(list(splits.values())) if data_args.train_on == "all" else splits["train"]
    repeats = balancing_repeats(train_rows) if data_args.repeat_rings is None else (1.0, data_args.repeat_rings)
    train_set = LabelledImages(train_rows, load_size, model.config.num_channels, repeats, args.seed)

    story = Story(model_args, data_args, args, model, len(train_rows), repeats)
    run = Run(
        Path(args.output_dir),
        settings_of(args)
        | {
            "script": "finetune_rings",
            "data": story.data,
            "catalog": data_args.catalog,
            "train_on": data_args.train_on,
            "votes": [data_args.ring_above, data_args.no_ring_below] if data_args.catalog == "advanced" else None,
            "first weights": fingerprint(model_args.model_name_or_path, *hub) if model_args.model_name_or_path else "random",
            "model_type": model.config.model_type,
            "config_overrides": model_args.overrides,
            "image_size": size,
            "load_size": load_size,
            "zoom": [data_args.zoom_min, data_args.zoom_max, data_args.eval_zoom],
            "image_mean, image_std": [normalisation.mean, normalisation.std],
            "repeats of other galaxies, rings": repeats,
            "n_blocks": 0 if model_args.freeze else model_args.n_blocks,
            "class_weights": data_args.class_weights,
        },
        about=story.about(),
        keep_best=args.load_best_model_at_end,
        card_folder=Path(data_args.card_dir) if data_args.card_dir else None,
    )
    start = run.begin(args) if args.do_train else None
    if start is None:
        run.refuse_a_training(args.overwrite_output_dir)
    elif not start.finished:
        logger.info("train on %d galaxies, rings %.3g times: %d rows", len(train_rows), repeats[1], len(train_set))

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
        callbacks=[EarlyStoppingCallback(args.early_stopping_patience)] if args.early_stopping_patience else None,
    )
    if start is not None:
        known = trainer.train_or_take_over(start)
        if known is not None and not args.do_predict:
            return known
        story.kept = trainer.kept()

    if args.do_train and data_args.train_on == "all":
        if args.should_save:
            save_card(unmeasured_card(story), run)
        return {}
    predictions = trainer.predict(labelled["test"])
    probabilities = softmax(predictions.predictions)[:, 1]
    metrics = binary_metrics(labelled["test"].labels, probabilities, data_args.threshold)
    trainer.save_metrics("test", {f"test_{key}": value for key, value in metrics.items()})
    logger.info("test: %s", ", ".join(f"{key} {value:.3f}" for key, value in metrics.items()))
    if args.should_save:
        save_card(measured_card(story, splits, probabilities, metrics), run)
    return metrics


def save_card(card: Card, run: Run) -> None:
    logger.info("card: %s", card.save(run.card_folder))
    run.card_written(card.files)


def _resume_flag(arguments: list[str] | None) -> list[str]:
    """``--resume_from_checkpoint`` alone means the last checkpoint; the parser of `transformers` wants a value."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flag = "--resume_from_checkpoint"
    if flag in arguments:
        after = arguments.index(flag) + 1
        if after == len(arguments) or arguments[after].startswith("--"):
            arguments.insert(after, "last")
    return arguments


def _train_to_the_end(args: RingTrainingArguments) -> None:
    """With every galaxy in training no split can say when to stop, or which checkpoint is best."""
    if args.early_stopping_patience:
        raise UserError("--train_on all leaves no galaxies for --early_stopping_patience: give --num_train_epochs")
    args.load_best_model_at_end = False
    args.eval_strategy = "no"


def balancing_repeats(rows: Dataset) -> tuple[float, float]:
    """How often other galaxies and rings must stand in the training set to be as many as each other; once or more."""
    rings = int(np.sum(rows["label"]))
    others = len(rows) - rings
    return max(1.0, rings / max(1, others)), max(1.0, others / max(1, rings))


def balanced_weights(labels: np.ndarray) -> torch.Tensor:
    """A weight a class, so that both have the same sum over the rows and the mean weight of a row is 1."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    return torch.tensor(len(labels) / (len(CLASSES) * counts), dtype=torch.float32)


def ring_metrics(predictions: EvalPrediction, threshold: float) -> dict[str, float]:
    """Metrics of the validation split, for `Trainer`."""
    return binary_metrics(predictions.label_ids, softmax(predictions.predictions)[:, 1], threshold)


def image_processor(model, size: int, normalisation: Normalisation, zoom: float):
    """What the evaluation shows the model, for ``pipeline("image-classification", model=...)``: the middle, resized.

    None for images of other than three bands, which the processors of `transformers` cannot take.
    """
    if model.config.num_channels != 3:
        return None
    from transformers import CLIPImageProcessor  # a warning comes with it where torchvision is not installed

    return CLIPImageProcessor(
        size={"shortest_edge": round(size / zoom)},
        crop_size={"height": size, "width": size},
        do_convert_rgb=True,
        image_mean=list(normalisation.mean) * (3 // len(normalisation.mean)),
        image_std=list(normalisation.std) * (3 // len(normalisation.std)),
    )


@dataclass
class Story:
    """What is known of a model when its card is written.

    Args:
        model_args, data_args, args: of the command.
        model: the one trained or measured.
        rows: galaxies that it is trained on.
        repeats: how often other galaxies and rings stand among them.
        kept: which weights were kept.
    """

    model_args: ModelArguments
    data_args: DataArguments
    args: RingTrainingArguments
    model: PreTrainedModel
    rows: int
    repeats: tuple[float, float]
    kept: str = ""

    def __post_init__(self):
        self.data = revision_of(self.data_args.data_dir, f"rings_{self.data_args.catalog}")
        name = self.model_args.model_name_or_path
        #: What the run says that made the weights that this one began with, or that are measured.
        self.before = ((read_record(Path(name)) or {}).get("about") if name else None) or {}

    @property
    def name(self) -> str:
        return f"rings-{self.data_args.catalog}-{self.model.config.model_type}"

    def about(self) -> dict:
        """For whoever measures, or goes on training, the model later."""
        return {"trained_on": self.data_args.train_on, "data": self.data, "how": self.training(), "before": self.before}

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        label = "somebody tagged it as a ring"
        if self.data_args.catalog == "advanced":
            above, below = self.data_args.ring_above, self.data_args.no_ring_below
            label = f"more than {above:.0%} of the volunteers saw a ring; those below {below:.0%} are the others"
        million = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        return (
            f"Finds ringed galaxies in colour images of Galaxy Zoo DECaLS. A galaxy counts as ringed if {label}.\n\n"
            f"`{self.model.config.model_type}`, {million:.2f} million parameters. "
            + (f"{self.training()} {self.kept}\n" if self.args.do_train else self.not_trained())
        )

    def training(self) -> str:
        """How this command trains."""
        names, data, args = self.model_args, self.data_args, self.args
        start = f"the weights of `{names.model_name_or_path}`" if names.model_name_or_path else "a random start"
        parts = (
            "all of it"
            if names.n_blocks is None and not names.freeze
            else f"its last {names.n_blocks or 0} blocks and the head"
        )
        length = f"{args.max_steps} steps" if args.max_steps > 0 else f"up to {args.num_train_epochs:g} epochs"
        which = "all labelled galaxies (validation and test splits too):" if data.train_on == "all" else "the"
        batch = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
        return (
            f"From {start}, {parts} was trained on {which} {self.rows} galaxies (rings standing there {self.repeats[1]:.3g} "
            f"times on average, others {self.repeats[0]:.3g} times) for {length} in batches of {batch}, seed {args.seed}, "
            f"learning rate {args.learning_rate:g}, layer decay {args.layer_decay:g}. Views are turned by any angle, "
            f"mirrored, zoomed and shifted."
        )

    def not_trained(self) -> str:
        """What a card of a measurement says."""
        how = self.before.get("how") or "How it was made is not recorded in its folder."
        return f"Nothing was trained here: measured is the model `{self.model_args.model_name_or_path}` as it was. {how}\n"

    def seen(self) -> str:
        """What makes the figures of the test split better than those of new galaxies, or empty."""
        chain, before = [], self.before
        while before:
            chain.append(before)
            before = before.get("before")
        whole = [one for one in chain if one.get("trained_on") == "all"]
        if any(one.get("data") == self.data for one in whole):
            return (
                "**The model was trained on these very galaxies** (`--train_on all`): the figures say how well it remembers "
                "them, not how well it finds rings in others."
            )
        if whole:
            return (
                "**The model was trained on all labelled galaxies of another build of the data** (`--train_on all`): these "
                "galaxies may have been among them, and the figures may be too good."
            )
        if self.model_args.model_name_or_path and not chain:
            return "Which galaxies the named weights had been trained on is not recorded: some of these may be among them."
        return ""

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        folder = self.args.output_dir if self.args.do_train else self.model_args.model_name_or_path
        code = PIPELINE if self.model.config.num_channels == 3 else BY_HAND
        return "For one galaxy:", code.format(model=folder, data_dir=self.data_args.data_dir, zoom=self.data_args.eval_zoom)

    def known(self) -> dict:
        """What every card has."""
        return {
            "base_model": _on_the_hub(self.model_args),
            "citation": CITATION,
            "licence": LICENCE,
            "usage": self.usage(),
            "versions": versions(),
        }


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


def unmeasured_card(story: Story) -> Card:
    """The card of a model trained on everything."""
    text = story.text()
    text += "\nTrained on all labelled galaxies: no number can be given. See the card of the model trained on `train`.\n"
    return Card(story.name + "-all", text, None, **story.known())


def measured_card(story: Story, splits: DatasetDict, probabilities: np.ndarray, metrics: dict[str, float]) -> Card:
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
        remark=story.seen(),
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


def some_rows(count: int, most: int) -> np.ndarray:
    """Numbers of at most ``most`` of ``count`` rows, drawn with a fixed seed, in their order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _on_the_hub(model_args: ModelArguments) -> str | None:
    name = model_args.model_name_or_path
    return name if name and not Path(name).exists() else None


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"finetune_rings: {error}", file=sys.stderr)
        sys.exit(2)
