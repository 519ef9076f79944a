"""Command-line arguments of a training, beside those of model and data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from skyset.errors import UserError


@dataclass
class ImageTrainingArguments(TrainingArguments):
    """All of `transformers.TrainingArguments`, and these."""

    output_dir: str = field(metadata={"help": "Checkpoints, model and card; a killed run started again goes on here."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Remove the run that the folder holds (no other files), and begin again."}
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Begin at step 0 although the output folder holds checkpoints of this very run."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint of this run to go on from; with no value the last whole one in output_dir, from which the "
            "same command goes on anyway."
        },
    )
    do_predict: bool = field(
        default=False, metadata={"help": "Measure a run that is already finished again, and write its card again."}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Each block learns this factor more slowly than the one above it; 0.75 is usual."}
    )
    eval_views: int = field(
        default=1, metadata={"help": "Average predictions over this many turned and mirrored views of a galaxy."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better metric_for_best_model."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "A resumed run goes on counting towards early stopping where it stood."}
    )
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "Copies to a GPU run beside it; by default where there is one."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Not for datasets of images."})

    def __post_init__(self):
        # Without this, accelerate takes each process that torchrun starts on a machine without GPUs for the only one.
        if "LOCAL_RANK" in os.environ and not torch.accelerator.is_available():
            self.use_cpu = True
        super().__post_init__()
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer_decay must be above 0 and at most 1, not {self.layer_decay}")
        if self.eval_views < 1:
            raise UserError(f"--eval_views must be 1 or more, not {self.eval_views}")


@dataclass
class TaskArguments(ImageTrainingArguments):
    """Defaults that suit all tasks, and what each script does with a training; everything can be given."""

    learning_rate: float | None = field(
        default=None, metadata={"help": "Of the head; see layer_decay. Default 1e-4, or 3e-3 where no model is named."}
    )
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's."})
    num_train_epochs: float = field(default=30, metadata={"help": "Unless max_steps says less."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Galaxies a step and process."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Galaxies a batch in evaluation."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Course of the learning rate."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps, or a share of all where below 1."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to measure on the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to write a checkpoint."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept; the best one always is."})
    metric_for_best_model: str = field(default="loss", metadata={"help": "On the validation split."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best checkpoint, not the last."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between reports of the loss."})
    report_to: str = field(default="none", metadata={"help": "wandb, tensorboard, ..."})
    do_train: bool = field(default=True, metadata={"help": "Off: only measure the model named, and write its card."})
    train_on: str = field(
        default="train",
        metadata={
            "help": "train, or all: train on all galaxies; then nothing is left to measure on.",
            "choices": ["train", "all"],
        },
    )
    seeds: int = field(
        default=1,
        metadata={"help": "Trainings, with seeds from --seed up, into OUT/seed_K; the card has mean and spread."},
    )
    card_dir: str | None = field(default=None, metadata={"help": "Where the model card goes; default the output folder."})
    data_note: str = field(
        default="", metadata={"help": "A sentence about the data for the card, such as: The galaxies are simulated."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.seeds < 1:
            raise UserError(f"--seeds must be 1 or more, not {self.seeds}")
        if self.seeds > 1:
            self._check_seeds()
        if self.do_train and self.train_on == "all":
            self._train_to_the_end()
        elif self.early_stopping_patience and self.eval_strategy == "no":
            raise UserError("--early_stopping_patience counts evaluations: give --eval_strategy epoch, or a patience of 0")

    def _check_seeds(self) -> None:
        if not self.do_train:
            raise UserError("--do_train False measures one model: leave out --seeds")
        if self.push_to_hub:
            raise UserError("--push_to_hub publishes one model: leave out --seeds, or push one of them")
        if self.resume_from_checkpoint and str(self.resume_from_checkpoint).lower() not in ("last", "true"):
            raise UserError("--resume_from_checkpoint PATH is of one seed: leave out --seeds, or the path")

    def _train_to_the_end(self) -> None:
        """With every galaxy in training no split can say when to stop, or which checkpoint is best."""
        if self.early_stopping_patience:
            raise UserError("--train_on all leaves no galaxies for --early_stopping_patience: give --num_train_epochs")
        self.load_best_model_at_end = False
        self.eval_strategy = "no"
