"""Train a network to expect what volunteers say of a galaxy: all questions of Galaxy Zoo at once.

A small network from a random start, on any machine:

    python training/train_votes.py --data_dir data/gz_decals --output_dir out/votes --max_steps 300

As Zoobot's encoders are trained, on GPUs; then, with every galaxy, the weights to start other trainings from:

    torchrun --nproc_per_node 4 training/train_votes.py --data_dir data/gz_decals --model_type convnextv2 \\
        --image_size 224 --num_train_epochs 100 --early_stopping_patience 8 --bf16 --torch_compile --output_dir out/votes
    torchrun --nproc_per_node 4 training/train_votes.py --data_dir data/gz_decals --train_on all ... --output_dir out/all
    python training/finetune_rings.py --model_name_or_path out/all ...

For each answer the network gives a Dirichlet concentration; the loss is that of the votes under a Dirichlet-multinomial
distribution, summed over the questions that a galaxy was asked. The data are gz_decals, gz2, or any survey with columns of
votes in their form; several campaigns in one table are learned together. A run that was stopped goes on by the same
command. Votes after Walmsley et al. 2022, MNRAS 509, 3966.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import EvalPrediction, set_seed

from skyset.errors import UserError
from skyset.loading import registry
from skyset.questions import Tree
from skyset.splits import SPLITS
from skyset.training.common.arguments import SMALL, ImageArguments, ModelArguments, begin_script, parse, run_script
from skyset.training.common.blocks import freeze_all_but
from skyset.training.common.card import Card
from skyset.training.common.data import load_splits, source_of
from skyset.training.common.encoders import build
from skyset.training.common.flow import begin, run_of, settings_of_images, train_and_measure
from skyset.training.common.images import Rows, to_tensor
from skyset.training.common.models import Normalisation, image_size, load_trained, remember
from skyset.training.common.seeds import over_seeds
from skyset.training.common.trainer import ImageTrainer
from skyset.training.common.training_arguments import TaskArguments
from skyset.training.common.views import Views
from skyset.training.common.vote_card import VoteStory, licence_of, measured_card, unmeasured_card
from skyset.training.common.vote_data import Votes, answered, campaigns_in, read_votes, votes_of_table
from skyset.training.common.vote_metrics import REACHED, constants_of, measure, overall
from skyset.training.common.votes import VoteModel, as_dicts, concentrations, row_loss

logger = logging.getLogger("train_votes")


@dataclass
class DataArguments(ImageArguments):
    """Which galaxies, and whose votes."""

    data_dir: str = field(kw_only=True, metadata={"help": "Folder of a survey with votes: gz_decals, gz2, or one of yours."})
    config_name: str = field(default="default", metadata={"help": "Which of the survey's datasets."})
    campaign: str | None = field(
        default=None,
        metadata={"help": "Part of the name of a campaign ('GZD-5', 'automatic'); default: all that counted volunteers."},
    )
    assumed_voters: float = field(
        default=40, metadata={"help": "Volunteers who looked at a galaxy, where the data have shares and no counts."}
    )
    image_column: str = field(default="image", metadata={"help": "The column with the image."})
    reached: float = field(
        default=REACHED,
        metadata={"help": "A question counts, in figures, for galaxies that this share of the volunteers was led to."},
    )
    votes_table: str | None = field(
        default=None,
        metadata={
            "help": "A catalogue of counted votes, without images: for the card, what the mean and the floor are there."
        },
    )
    dropout: float = field(
        default=0.2, metadata={"help": "Share of the encoder's numbers hidden from the head in training."}
    )
    pool: str = field(
        default="mean", metadata={"help": "mean over the image, or the model's cls token.", "choices": ["mean", "cls"]}
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.reached <= 1 or not 0 <= self.dropout < 1 or not self.assumed_voters >= 1:
            raise UserError("need 0 < reached <= 1, 0 <= dropout < 1 and assumed_voters of 1 or more")


@dataclass
class VoteTrainingArguments(TaskArguments):
    """Defaults that suit this task."""

    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's."})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, measure on the test split, write model and card; returns the figures of the test split."""
    model_args, data_args, args = parse((ModelArguments, DataArguments, VoteTrainingArguments), arguments)
    begin_script(model_args, args)
    if args.seeds > 1:
        return over_seeds(main, arguments, args)
    set_seed(args.seed)
    model_args.or_small("convnextv2", SMALL)

    # Everything that may be wrong with the command is found before anything is trained.
    beside = votes_of_table(data_args.votes_table) if data_args.votes_table else None
    source = source_of(data_args.data_dir, data_args.config_name)
    splits, votes, campaign = load_votes(data_args)
    fitted = joined(votes.values()) if args.train_on == "all" else votes["train"]
    model, normalisation = load_model(model_args, data_args, args, fitted, campaign)
    votes = {name: part.asking(model.config.questions) for name, part in votes.items()}
    fitted = joined(votes.values()) if args.train_on == "all" else votes["train"]
    constants = constants_of(fitted)
    if args.do_train:  # at 1 itself, sigmoids are flat and nothing is learned
        model.start_at(torch.from_numpy(constants_of(fitted, 1.1)).float())
    if model_args.freeze or model_args.n_blocks is not None:
        freeze_all_but(model, model_args.n_blocks or 0)

    size = model.config.image_size
    load_size = data_args.load_size or round(size / data_args.zoom_min)
    views = Views(size, normalisation.mean, normalisation.std, (data_args.zoom_min, data_args.zoom_max), data_args.eval_zoom)
    rows = {name: galaxies(part, votes[name], data_args, load_size, model) for name, part in splits.items()}
    everything = concatenate_datasets(list(splits.values()))
    train_rows = galaxies(everything, fitted, data_args, load_size, model) if args.train_on == "all" else rows["train"]

    story = VoteStory(
        model_args=model_args,
        args=args,
        model=model,
        rows=len(train_rows),
        data=source.revision,
        citation=registry.loader(source.survey).CITATION,
        licence=licence_of(source),
        source=source,
        data_dir=data_args.data_dir,
        config_name=data_args.config_name,
        image_column=data_args.image_column,
        reached=data_args.reached,
        campaign=campaign,
        assumed=None if fitted.counted else data_args.assumed_voters,
    )
    settings = source.settings() | settings_of_images(model_args, data_args, normalisation, size, load_size)
    settings |= {
        "campaign": campaign,
        "questions": [question.name for question in model.config.questions],
        "assumed_voters": None if fitted.counted else data_args.assumed_voters,
        "image_column": data_args.image_column,
        "encoder": model.config.encoder.model_type,
        "dropout, pool": [model.config.dropout, model.config.pool],
    }
    run = run_of("train_votes", args, story, source.about(), settings)
    start = begin(run, args, f"{len(train_rows)} galaxies, {len(model.config.tree)} questions of {campaign}")

    trainer = ImageTrainer(
        model=model,
        args=args,
        views=views,
        loss=row_loss(model.config.questions),
        run=run,
        train_dataset=train_rows,
        eval_dataset=rows["validation"],
        compute_metrics=functools.partial(deviation_of, tree=model.config.questions, constants=constants),
    )

    def figures_of(logits: np.ndarray) -> dict[str, float]:
        return overall(measure(votes["test"], strengths_of(logits), constants, data_args.reached), len(logits))

    def measured(logits: np.ndarray, figures: dict[str, float]) -> Card:
        return measured_card(story, splits, votes, strengths_of(logits), constants, figures, beside)

    return train_and_measure(
        trainer, story, start, rows["test"], figures_of, measured, functools.partial(unmeasured_card, story)
    )


def strengths_of(logits: np.ndarray) -> np.ndarray:
    """Dirichlet concentrations (rows, answers) of what the head says."""
    return concentrations(torch.from_numpy(logits)).numpy()


def load_votes(data_args: DataArguments) -> tuple[DatasetDict, dict[str, Votes], str]:
    """The galaxies with votes, those votes, and whose they are.

    Raises:
        UserError: no such data, no votes, no images, or an empty split.
    """
    splits = load_splits(data_args.data_dir, data_args.config_name)
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"{data_args.data_dir} has no {missing[0]} split")
    found = campaigns_in(splits["train"].column_names, data_args.campaign)
    votes, kept = {}, {}
    for name in SPLITS:
        part = read_votes(splits[name], found, data_args.assumed_voters)
        some = np.flatnonzero(part.counts.any(axis=1))
        if len(some) < len(part.counts):
            logger.warning("%s: %d galaxies without votes are left out", name, len(part.counts) - len(some))
        votes[name], kept[name] = part.taking(some), splits[name].select(some)
    return DatasetDict(kept), votes, " and ".join(each.name for each in found)


def joined(parts) -> Votes:
    """The votes of all of them."""
    parts = list(parts)
    counts, reached = (np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "reached"))
    return Votes(parts[0].tree, counts, reached, parts[0].counted)


def load_model(
    model_args: ModelArguments, data_args: DataArguments, args: VoteTrainingArguments, votes: Votes, campaign: str
) -> tuple[VoteModel, Normalisation]:
    """A model with a new head, or the trained one that is measured."""
    if args.do_train:
        tree = answered(votes)
        model, normalisation = build(
            VoteModel,
            "votes",
            model_args.model_name_or_path,
            model_args.model_type,
            model_args.overrides,
            model_args.hub,
            data_args.image_size,
            tree=as_dicts(tree),
            campaign=campaign,
            dropout=data_args.dropout,
            pool=data_args.pool,
        )
    else:
        model, normalisation = load_trained(model_args.model_name_or_path, "votes", *model_args.hub)
        image_size(model, data_args.image_size)
    normalisation = model_args.normalisation(normalisation)
    remember(model, data_args.image_size or model.config.image_size, normalisation, data_args.eval_zoom)
    return model, normalisation


def galaxies(rows: Dataset, votes: Votes, data_args: DataArguments, size: int, model: VoteModel) -> Rows:
    """Images and votes as tensors: ``pixel_values`` uint8, ``labels`` float32 (answers,)."""
    pixels = functools.partial(to_tensor, size=size, channels=model.config.num_channels)
    return Rows(rows, {"pixel_values": (data_args.image_column, pixels)}, {"labels": torch.from_numpy(votes.counts)})


def deviation_of(predictions: EvalPrediction, tree: Tree, constants: np.ndarray) -> dict[str, float]:
    """Of the validation split, for `Trainer`: the figures that take no time."""
    votes = Votes.of(tree, predictions.label_ids, counted=False)
    strengths = strengths_of(predictions.predictions)
    found = overall(measure(votes, strengths, constants), len(strengths))
    return {name: value for name, value in found.items() if name in ("deviation", "accuracy")}


if __name__ == "__main__":
    run_script("train_votes", main)
