"""Train a network that says the redshift of a galaxy, from images, photometry or both, on GalaxiesML.

A small network from a random start, on any machine; p(z) as a mixture of normal distributions:

    python training/train_photoz.py --data_dir data/galaxiesml --output_dir out/photoz --max_steps 200

The paper's (Do et al. 2024, arXiv:2410.00271) hybrid network on GPUs, the training split on each as float16, no loader:

    torchrun --nproc_per_node 4 training/train_photoz.py --data_dir data/galaxiesml --config_name 127 --model hybrid \\
        --resident --bf16 --torch_compile --output_dir out/hybrid

Photometry alone, with a Bayesian last layer, three times:

    python training/train_photoz.py --data_dir data/galaxiesml --config_name tabular --model bnn --seeds 3 \\
        --output_dir out/bnn

A table of magnitudes instead, such as RAIL's; ``--table TABLE --help`` says what can be set:

    python training/train_photoz.py --table train.hdf5 --eval_table test.hdf5 --model mdn --output_dir out/table

A run that was stopped goes on by the same command, to the losses of an unbroken one; ``--from_scratch`` begins again.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from transformers import set_seed

from skyset.errors import UserError
from skyset.files import write_atomically
from skyset.loaders.galaxiesml import BANDS, CITATION
from skyset.training.common import photoz_from_table, photoz_metrics
from skyset.training.common.arguments import ModelArguments, begin_script, parse, run_script
from skyset.training.common.blocks import freeze_all_but
from skyset.training.common.card import Card, Measured, metrics_table
from skyset.training.common.data import source_of
from skyset.training.common.models import load_trained
from skyset.training.common.photoz_card import MOST, figures, paper_table, simpler_models, table_over_redshift
from skyset.training.common.photoz_config import PDFS, PhotozConfig
from skyset.training.common.photoz_data import STORED, Galaxies, joined, load_galaxies, softening_of, statistics
from skyset.training.common.photoz_heads import POINT_LOSSES
from skyset.training.common.photoz_models import PhotozModel
from skyset.training.common.photoz_points import POINTS
from skyset.training.common.photoz_story import LICENCE, TASK, UNMEASURED, PhotozStory
from skyset.training.common.photoz_trainer import PhotozTrainer, metrics_of, predict_together, redshifts_of, views_of
from skyset.training.common.runs import Run, settings_of
from skyset.training.common.seeds import over_seeds
from skyset.training.common.stretches import STRETCHES, TURNS, Stretch
from skyset.training.common.tasks import mark
from skyset.training.common.training_arguments import TaskArguments

logger = logging.getLogger("train_photoz")

#: What ``--model`` means: the network, and what it says where ``--pdf`` asks for nothing else.
MODELS = {
    "nn": ("nn", "point"),
    "cnn": ("cnn", "point"),
    "hybrid": ("hybrid", "point"),
    "mdn": ("mlp", "mixture"),
    "bnn": ("mlp", "bayes"),
    "convnext": ("convnext", "mixture"),
}
#: How the paper trains: Adam, its rates and batches, as long. Words before the command's own, which count more.
_PAPER = ["--weight_decay", "0", "--lr_scheduler_type", "constant", "--warmup_steps", "0"]
RECIPES = {
    "nn": [
        *_PAPER,
        "--learning_rate",
        "5e-4",
        "--per_device_train_batch_size",
        "100",
        "--num_train_epochs",
        "1000",
        "--early_stopping_patience",
        "10",
    ],
    "cnn": [*_PAPER, "--learning_rate", "1e-4", "--per_device_train_batch_size", "256", "--num_train_epochs", "200"],
    "hybrid": [*_PAPER, "--learning_rate", "1e-4", "--per_device_train_batch_size", "256", "--num_train_epochs", "200"],
}


@dataclass
class PhotozModelArguments(ModelArguments):
    """Which network, and what it says."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "nn, cnn, hybrid: the paper's; mdn: photometry with errors, a mixture; bnn: with a Bayesian last layer; "
            "convnext: ConvNeXt V2 and photometry as tokens. Default convnext, without images mdn.",
            "choices": list(MODELS),
        },
    )
    pdf: str | None = field(
        default=None,
        metadata={
            "help": "What it says: a point, or p(z) as mixture, bins or bayes. Default the model's.",
            "choices": list(PDFS),
        },
    )
    loss: str = field(
        default="hsc",
        metadata={
            "help": "Of points, 1 - 1/(1 + (dz/0.15)^2): hsc, dz over 1 + z_spec; paper, over 1 + z_phot, as printed; "
            "example, undivided, as in the paper's public code. Of p(z) it is the negative log likelihood.",
            "choices": list(POINT_LOSSES),
        },
    )
    point: str | None = field(
        default=None,
        metadata={"help": "The redshift that p(z) becomes: default median, or the model's.", "choices": list(POINTS)},
    )
    stretch: str = field(default="asinh", metadata={"help": "Of the flux.", "choices": list(STRETCHES)})

    def settings(self, config_name: str) -> dict:
        """What the network is asked to be.

        Raises:
            UserError: settings that belong to other kinds of models.
        """
        if self.model_type or self.image_mean is not None:
            raise UserError("--model_type and --image_mean are not for redshifts: give --model, and --stretch")
        trunk, pdf = MODELS[self.model or ("mdn" if config_name == "tabular" else "convnext")]
        settings = {"trunk": trunk, "pdf": self.pdf or pdf, "point_loss": self.loss, "stretch": self.stretch}
        return settings | {"point": self.point or "median", **self.overrides}


@dataclass
class DataArguments:
    """Which galaxies, and where they lie while it trains."""

    data_dir: str = field(kw_only=True, metadata={"help": "Folder or URL of the survey galaxiesml."})
    config_name: str = field(
        default="64", metadata={"help": "Pixels of the images, or tabular: none.", "choices": ["64", "127", "tabular"]}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Pixels a side that the network sees, the middle of the image; default all."}
    )
    resident: bool = field(
        default=False, metadata={"help": "All splits lie on the device as a whole: no loader, no copy in a cache."}
    )
    resident_as: str = field(
        default="fp16", metadata={"help": "How images lie there; uint8 rounds them by 3 %%.", "choices": list(STORED)}
    )
    turns: str = field(
        default="quarter",
        metadata={"help": "Of images in training: by quarters and mirrored, by any angle, none.", "choices": list(TURNS)},
    )


@dataclass
class PhotozTrainingArguments(TaskArguments):
    """Defaults that suit this task; everything can be given."""

    learning_rate: float = field(default=1e-3, metadata={"help": "Of nn 5e-4, of cnn and hybrid 1e-4, as in the paper."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Galaxies a step and process; hybrid 256, nn 100."}
    )
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Galaxies a batch in evaluation."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "All parameters are used."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the metrics of the test split."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {word.partition("=")[0] for word in words} & {"--table", "--eval_table"}:
        return photoz_from_table.main(words)
    kinds = (PhotozModelArguments, DataArguments, PhotozTrainingArguments)
    model_args, data_args, args = parse(kinds, with_recipe(words))
    begin_script(model_args, args)
    if args.seeds > 1:
        figures_of_seeds = over_seeds(main, arguments, args)
        if args.should_save and args.train_on == "train":
            measure_together(args, data_args)
        return figures_of_seeds
    set_seed(args.seed)

    # Everything that may be wrong with the command is found before anything is trained.
    model = (
        load_trained(model_args.model_name_or_path, "photoz", *model_args.hub)[0] if model_args.model_name_or_path else None
    )
    config = model.config if model else PhotozConfig(**model_args.settings(data_args.config_name))
    config.check_names()
    sees, size = (config.sees_images, config.sees_photometry), model.config.image_size if model else data_args.image_size
    splits = load_galaxies(data_args.data_dir, data_args.config_name, *sees, stream=data_args.resident, size=size)
    train = joined(list(splits.values())) if args.train_on == "all" else splits["train"]
    if model is None:
        if not model_args.model:
            logger.warning("no model is named: a small %s from a random start (--model, --model_name_or_path)", config.trunk)
        model = new_model(config, train, model_args.overrides)
    check_fits(model, model_args, data_args.image_size)
    model.config.point = model_args.point or model.config.point
    mark(model, "photoz")
    if model_args.freeze or model_args.n_blocks is not None:
        freeze_all_but(model, model_args.n_blocks or 0)

    source = source_of(data_args.data_dir, data_args.config_name)
    story = PhotozStory(
        model_args=model_args,
        args=args,
        model=model,
        rows=len(train),
        data=source.revision,
        citation=CITATION,
        licence=LICENCE,
        config=data_args.config_name,
        data_dir=data_args.data_dir,
        turns=data_args.turns,
    )
    run = Run(
        Path(args.output_dir),
        settings_of(args)
        | source.settings()
        | {
            "script": "train_photoz",
            "first weights": model_args.first_weights(),
            "network": model.config.settings(),
            "images": [data_args.resident_as if data_args.resident else "float32", data_args.turns],
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
        logger.info("train %s with %s on %d galaxies", model.config.trunk, model.config.pdf, len(train))

    def dataset(galaxies: Galaxies) -> Dataset:
        if not model.config.sees_images:
            return galaxies.on(args.device)
        stretch = Stretch(model.config.stretch, tuple(model.config.softening))
        return galaxies.on(args.device, data_args.resident_as, stretch) if data_args.resident else galaxies.lazily()

    trainer = PhotozTrainer(
        model=model,
        args=args,
        views=views_of(model, data_args.turns),
        run=run,
        train_dataset=dataset(train) if start is not None and not start.finished else None,
        eval_dataset=dataset(splits["validation"]),
    )
    if start is not None:
        known = trainer.train_or_take_over(start)
        if known is not None and not args.do_predict:
            return known
        story.kept = trainer.kept()

    if args.do_train and args.train_on == "all":
        if args.should_save:
            trainer.save_card(Card(f"{story.name}-all", story.text() + UNMEASURED, None, task=TASK, **story.known()))
        return {}
    z_phot, pdf = redshifts_of(model, trainer.predict(dataset(splits["test"])).predictions)
    metrics = metrics_of(z_phot, splits["test"].z.numpy(), pdf)
    trainer.save_metrics("test", {f"test_{key}": value for key, value in metrics.items()})
    logger.info("test: %s", ", ".join(f"{key} {value:.4f}" for key, value in metrics.items()))
    if args.should_save:
        trainer.save_card(measured_card(story, splits, z_phot, pdf, metrics))
    return metrics


def measure_together(args: PhotozTrainingArguments, data_args: DataArguments) -> None:
    """Measure the models of all seeds as one, their distributions averaged: into ``OUT/ensemble.json``."""
    folders = [Path(args.output_dir) / f"seed_{number}" for number in range(args.seed, args.seed + args.seeds)]
    models = [load_trained(str(folder), "photoz")[0].to(args.device) for folder in folders]
    sees = models[0].config.sees_images, models[0].config.sees_photometry
    test = load_galaxies(data_args.data_dir, data_args.config_name, *sees)["test"]
    z_phot, pdf = predict_together(models, test)
    metrics = metrics_of(z_phot, test.z.numpy(), pdf)
    write_atomically(Path(args.output_dir) / "ensemble.json", json.dumps(metrics, indent=1))
    logger.info("the %d together: %s", len(models), ", ".join(f"{key} {value:.4f}" for key, value in metrics.items()))


def with_recipe(arguments: list[str]) -> list[str]:
    """A command's words, before them those of the paper's recipe where it trains one of the paper's networks."""
    named = [word for before, word in zip(["", *arguments], arguments, strict=False) if before == "--model"]
    named += [word.partition("=")[2] for word in arguments if word.startswith("--model=")]
    return [*RECIPES.get(named[-1] if named else "", []), *arguments]


def new_model(config: PhotozConfig, train: Galaxies, overrides: dict) -> PhotozModel:
    """A network from a random start, which knows what the training set is like."""
    settings = config.settings() | statistics(train) | {"bands": list(BANDS)}
    if config.sees_images:
        settings |= {"image_size": train.image_shape[1], "softening": list(softening_of(train))}
    else:
        settings["image_size"] = 0
    try:
        return PhotozModel(PhotozConfig(**(settings | overrides)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"--config_overrides make no network: {str(error).splitlines()[0]}") from error


def check_fits(model: PhotozModel, model_args: PhotozModelArguments, asked_size: int | None) -> None:
    """Raise UserError where a network is not the one that is asked for, or takes other inputs than the data have."""
    config, name = model.config, model_args.model_name_or_path
    if list(config.bands) != list(BANDS):
        raise UserError(f"the model takes the bands {', '.join(config.bands)}, the data have {', '.join(BANDS)}")
    if name and model_args.model and MODELS[model_args.model][0] != config.trunk:
        raise UserError(f"{name} is a {config.trunk}, not --model {model_args.model}")
    if name and model_args.pdf and model_args.pdf != config.pdf:
        raise UserError(f"{name} says {config.pdf}, not --pdf {model_args.pdf}")
    if model_args.point and config.pdf == "point":
        raise UserError(f"--point is of p(z), and a {config.trunk} that says one redshift has none: see --pdf")
    if asked_size and config.sees_images and asked_size != config.image_size:
        raise UserError(f"the model takes {config.image_size} pixels, not --image_size {asked_size}")


def measured_card(
    story: PhotozStory,
    splits: dict[str, Galaxies],
    z_phot: np.ndarray,
    pdf: tuple[np.ndarray, np.ndarray] | None,
    metrics: dict[str, float],
) -> Card:
    """The card of a model measured on the test split, with simpler models measured on the same galaxies beside it."""
    test = splits["test"]
    z_spec = test.z.numpy().astype(np.float64)
    beside = simpler_models(splits["train"], test, story.model)
    few = min(MOST, len(splits["train"]))
    learned = f"They learned from {few} galaxies of the training split; all are measured on the same.\n\n"
    measured = Measured(
        "galaxiesml",
        story.config,
        "test",
        story.data,
        metrics,
        len(test),
        photoz_metrics.metrics_errors(z_phot, z_spec, pdf, samples=500),
        remark=story.remark(),
        task=TASK,
        names=photoz_metrics.NAMES,
        digits=4,
    )
    return Card(
        story.name,
        story.text(),
        measured,
        tables={
            "Beside simpler models": learned
            + metrics_table({"this model": metrics, **beside}, None, photoz_metrics.NAMES, 4),
            "Over redshift": table_over_redshift(z_phot, z_spec),
            "What the paper measured": paper_table(),
        },
        figures=figures(z_phot, z_spec, pdf),
        task=TASK,
        **story.known(),
    )


if __name__ == "__main__":
    run_script("train_photoz", main)
