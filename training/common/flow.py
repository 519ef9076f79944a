"""What scripts do alike once model and data are known: the run, the training, the test split, the card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from skyset.training.common.arguments import ImageArguments, ModelArguments
from skyset.training.common.card import Card
from skyset.training.common.models import Normalisation
from skyset.training.common.runs import Run, Start, settings_of
from skyset.training.common.story import Story
from skyset.training.common.trainer import ImageTrainer
from skyset.training.common.training_arguments import TaskArguments

logger = logging.getLogger("skyset.training")


def settings_of_images(
    model_args: ModelArguments, data_args: ImageArguments, normalisation: Normalisation, size: int, load_size: int
) -> dict:
    """What makes a network of images what it is, for the settings of a `Run`."""
    return {
        "first weights": model_args.first_weights(),
        "config_overrides": model_args.overrides,
        "image_size": size,
        "load_size": load_size,
        "zoom": [data_args.zoom_min, data_args.zoom_max, data_args.eval_zoom],
        "image_mean, image_std": [normalisation.mean, normalisation.std],
        "n_blocks": 0 if model_args.freeze else model_args.n_blocks,
    }


def run_of(script: str, args: TaskArguments, story: Story, source: Mapping, settings: Mapping) -> Run:
    """The run of a command.

    Args:
        script: its name.
        args: of the training.
        story: of the model.
        source: ``Source.about()`` of the data.
        settings: of this task, beside those of the training.
    """
    return Run(
        Path(args.output_dir),
        settings_of(args) | {"script": script, **settings},
        about=story.about(),
        source=dict(source),
        keep_best=args.load_best_model_at_end,
        card_folder=Path(args.card_dir) if args.card_dir else None,
    )


def begin(run: Run, args: TaskArguments, told: str) -> Start | None:
    """Where the training begins, None where only a measurement is asked for; ``told`` where something is to be trained.

    Raises:
        UserError: as ``Run.begin`` and ``Run.refuse_a_training``.
    """
    if not args.do_train:
        run.refuse_a_training(args.overwrite_output_dir)
        return None
    start = run.begin(args)
    if not start.finished:
        logger.info("train on %s", told)
    return start


def train_and_measure(
    trainer: ImageTrainer,
    story: Story,
    start: Start | None,
    test: Dataset,
    figures_of: Callable[[np.ndarray], dict[str, float]],
    measured: Callable[[np.ndarray, dict[str, float]], Card],
    unmeasured: Callable[[], Card],
) -> dict[str, float]:
    """Train from ``start``, measure on the test split, write the card.

    Args:
        trainer: of the task.
        story: of the model.
        start: where to begin; None: nothing is trained.
        test: rows to measure on.
        figures_of: of the predictions.
        measured: the card, of predictions and figures.
        unmeasured: the card where all rows were trained on.

    Returns:
        Figures of the test split by name; nothing where all rows were trained on.
    """
    args = trainer.args
    if start is not None:
        known = trainer.train_or_take_over(start)
        if known is not None and not args.do_predict:
            return known
        story.kept = trainer.kept()
    if args.do_train and args.train_on == "all":
        if args.should_save:
            trainer.save_card(unmeasured())
        return {}
    predictions = trainer.predict(test).predictions
    figures = figures_of(predictions)
    trainer.save_metrics("test", {f"test_{name}": value for name, value in figures.items()})
    logger.info("test: %s", ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    if args.should_save:
        trainer.save_card(measured(predictions, figures))
    return figures
