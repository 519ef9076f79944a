"""Train a network that says how good MegaCam's exposures are: GOOD, bad seeing, background problem, bad tracking.

Two inputs of each CCD, joined: convolutions on its representative image, dense layers on the hits of its groups of sources.
Small enough for any machine, from a random start:

    python training/train_iqa.py --data_dir data/megacam --output_dir out/iqa --max_steps 300 --learning_rate 1e-3

Each input alone (``--model image``, ``--model hits``) and a split that leaks, trained the same way, beside it in the card:

    python training/train_iqa.py --data_dir data/megacam --output_dir out/iqa --compare --max_steps 300

All CCDs of an exposure share its label, its seeing and its sky: exposures are never on two sides, unless ``--split leaked``
asks for it, to show how much better that looks. A run that was stopped goes on by the same command. After Teimoorinia et al.
2020, AJ 159, 170.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict, concatenate_datasets
from torch import Tensor
from transformers import EvalPrediction, set_seed

from skyset.errors import UserError
from skyset.loaders.megacam_iqa import CLASSES, SURVEY
from skyset.training.common import flow
from skyset.training.common.arguments import ModelArguments, begin_script, parse, run_script
from skyset.training.common.classify import balanced_weights
from skyset.training.common.data import Source, source_of
from skyset.training.common.metrics import softmax
from skyset.training.common.models import load_trained
from skyset.training.common.quality import INPUTS, TASK, QualityConfig, QualityModel, StampViews
from skyset.training.common.quality_card import QualityStory, measured_card, unmeasured_card
from skyset.training.common.quality_data import Known, ccds, load_ccds, scales_of, shape_of
from skyset.training.common.quality_metrics import confusion, macro_f1, measure
from skyset.training.common.seeds import over_seeds
from skyset.training.common.tasks import mark
from skyset.training.common.trainer import ImageTrainer, cross_entropy
from skyset.training.common.training_arguments import TaskArguments

logger = logging.getLogger("train_iqa")


@dataclass
class IqaModelArguments(ModelArguments):
    """Which inputs the network has."""

    model: str = field(
        default="joint",
        metadata={"help": "Representative image and hits joined, or one of them alone.", "choices": list(INPUTS)},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.model_type or self.image_mean is not None or self.freeze or self.n_blocks is not None:
            raise UserError("--model_type, --image_mean, --freeze and --n_blocks are not for image quality: give --model")


@dataclass
class DataArguments:
    """Which CCDs, and what stands beside."""

    data_dir: str = field(kw_only=True, metadata={"help": "Folder or URL of the survey megacam_iqa."})
    split: str = field(
        default="exposure",
        metadata={
            "help": "exposure: none is on two sides. leaked: by CCD, each exposure on all; figures are then no measurement.",
            "choices": ["exposure", "leaked"],
        },
    )
    compare: bool = field(
        default=False,
        metadata={"help": "Also train each input alone, and on the leaked split, into OUT/beside: rows of the card."},
    )
    class_weights: bool = field(default=True, metadata={"help": "Weigh the loss so that all classes count the same."})


@dataclass
class IqaTrainingArguments(TaskArguments):
    """Defaults that suit this task."""

    learning_rate: float = field(default=1e-3, metadata={"help": "AdamW's."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the figures of the test split."""
    model_args, data_args, args = parse((IqaModelArguments, DataArguments, IqaTrainingArguments), arguments)
    begin_script(model_args, args)
    if args.seeds > 1:
        return over_seeds(main, arguments, args)
    if data_args.compare and (not args.do_train or args.train_on == "all"):
        raise UserError("--compare measures trainings: leave out --do_train False and --train_on all")
    set_seed(args.seed)

    # Everything that may be wrong with the command is found before anything is trained.
    splits, spoilt = load_ccds(data_args.data_dir, data_args.split == "leaked")
    source = source_of(data_args.data_dir, "representative")
    everything = concatenate_datasets(list(splits.values())).with_format("numpy")
    train_rows = everything if args.train_on == "all" else splits["train"]
    model = load_model(model_args, args, train_rows)
    known = {name: Known.of(rows) for name, rows in splits.items()}
    labels = Known.of(train_rows).labels

    story = story_of(model_args, data_args, args, model, source, splits, spoilt)
    settings = source.settings() | {
        "split": data_args.split,
        "class_weights": data_args.class_weights,
        "first weights": model_args.first_weights(),
        "model": {
            name: getattr(model.config, name) for name in ("inputs", "groups", "stamp", "width", "dropout", "channels")
        },
    }
    run = flow.run_of("train_iqa", args, story, source.about(), settings)
    start = flow.begin(run, args, f"{len(train_rows)} CCDs of {len(set(Known.of(train_rows).exposures))} exposures")
    beside = others(arguments, model_args.model, args) if data_args.compare else {}
    trainer = ImageTrainer(
        model=model,
        args=args,
        views=StampViews(model.config.groups, model.config.stamp),
        loss=finite_cross_entropy,
        run=run,
        class_weights=balanced_weights(labels, len(CLASSES)) if data_args.class_weights else None,
        train_dataset=ccds(train_rows),
        eval_dataset=ccds(splits["validation"]),
        compute_metrics=figures_of_ccds,
    )
    return flow.train_and_measure(
        trainer,
        story,
        start,
        ccds(splits["test"]),
        lambda logits: measure(known["test"], softmax(logits)),
        lambda logits, figures: measured_card(story, known, softmax(logits), figures, beside),
        lambda: unmeasured_card(story),
    )


def load_model(model_args: IqaModelArguments, args: TaskArguments, rows) -> QualityModel:
    """A new network whose scales are those of the training rows, or a trained one with its own.

    Raises:
        UserError: a model of another task, other inputs or another map; settings that a network has not.
    """
    groups, stamp = shape_of(rows)
    if model_args.model_name_or_path:
        model, _ = load_trained(model_args.model_name_or_path, TASK, *model_args.hub)
        if (tuple(model.config.groups), model.config.stamp) != (groups, stamp):
            raise UserError(
                f"the model takes {model.config.groups} cutouts of {model.config.stamp} pixels, not {groups} of {stamp}"
            )
        if args.do_train and model.config.inputs != model_args.model:
            raise UserError(f"{model_args.model_name_or_path} is --model {model.config.inputs}, not {model_args.model}")
        return model
    own = {"width", "dropout", "channels"}
    if unknown := set(model_args.overrides) - own:
        raise UserError(f"--config_overrides takes {', '.join(sorted(own))}, not {sorted(unknown)[0]}")
    names = dict(enumerate(CLASSES))
    numbers = {name: number for number, name in names.items()}
    settings = {"groups": groups, "stamp": stamp, "id2label": names, "label2id": numbers, **scales_of(rows)}
    try:
        model = QualityModel(QualityConfig(model_args.model, **settings, **model_args.overrides))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"--config_overrides make no network: {str(error).splitlines()[0]}") from error
    mark(model, TASK)
    return model


def finite_cross_entropy(outputs, labels: Tensor) -> Tensor:
    """``cross_entropy`` of each CCD; UserError where one is no finite number: weights would be lost from there on."""
    rows = cross_entropy(outputs, labels)
    if not torch.isfinite(rows).all():
        count = int((~torch.isfinite(rows)).sum())
        raise UserError(f"the loss of {count} of {len(rows)} CCDs is not a finite number: try a smaller --learning_rate")
    return rows


def figures_of_ccds(predictions: EvalPrediction) -> dict[str, float]:
    """Of a split, for `Trainer`, which does not know exposures: of single CCDs."""
    called = predictions.predictions.argmax(axis=1)
    counts = confusion(predictions.label_ids, called)
    return {"ccd_accuracy": float(np.mean(called == predictions.label_ids)), "ccd_macro_f1": macro_f1(counts)}


def others(arguments: Sequence[str] | None, model: str, args: TaskArguments) -> dict[str, Mapping[str, float]]:
    """Figures of the same training with each input alone, and of this model with the leaked split, by what they are.

    Each is a run in ``OUT/beside``, which goes on where it was killed and is not trained again.
    """
    words, found = list(sys.argv[1:] if arguments is None else arguments), {}
    kinds = {kind: ["--model", kind] for kind in INPUTS if kind != model}
    for name, own in {**kinds, "leaked": ["--split", "leaked"]}.items():
        logger.info("beside: %s", name)
        place = str(Path(args.output_dir) / "beside" / name)
        rest = ["--compare", "False", "--push_to_hub", "False", "--resume_from_checkpoint", ""]
        found[name] = main([*words, *own, *rest, "--output_dir", place, "--card_dir", place])
    return found


def story_of(
    model_args: IqaModelArguments,
    data_args: DataArguments,
    args: TaskArguments,
    model: QualityModel,
    source: Source,
    splits: DatasetDict,
    spoilt: int,
) -> QualityStory:
    """What the card says of the model."""
    return QualityStory(
        model_args=model_args,
        args=args,
        model=model,
        rows=sum(map(len, splits.values())) if args.train_on == "all" else len(splits["train"]),
        data=source.revision,
        citation=SURVEY.citation,
        licence=("other", f"Of the exposures: {SURVEY.license}."),
        data_dir=data_args.data_dir,
        split=data_args.split,
        simulated=source.simulated,
        spoilt=spoilt,
    )


if __name__ == "__main__":
    run_script("train_iqa", main)
