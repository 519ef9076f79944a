"""`Trainer` for images: views made on the device, every row once an epoch on any number of processes, right reloads."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from skyset.errors import UserError
from skyset.training.common.images import collate
from skyset.training.common.models import layer_decay_groups
from skyset.training.common.runs import RECORD, Run, Start, ended
from skyset.training.common.views import Views

logger = logging.getLogger("skyset.training")


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
        super().__post_init__()
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer_decay must be above 0 and at most 1, not {self.layer_decay}")
        if self.eval_views < 1:
            raise UserError(f"--eval_views must be 1 or more, not {self.eval_views}")


class EpochBatches(Sampler[list[int]]):
    """Batches of one process: together the processes see every row exactly once an epoch, in as many steps each.

    Padding the last batch shows some rows twice, dropping it never shows others; here the batches of an epoch are equal to
    within one row instead. The order follows from seed and epoch alone.

    Args:
        rows: of the dataset.
        batch_size: rows per batch and process, at most (exceeded by one where ``rows`` leaves no other way).
        seed: of the shuffling.
        rank, world: this process, and how many there are.

    Raises:
        UserError: fewer rows than processes.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1):
        if rows < world:
            raise UserError(f"{rows} rows cannot be shared by {world} processes")
        self.rows, self.seed, self.rank, self.world, self.epoch = rows, seed, rank, world, 0
        self.steps = min(math.ceil(rows / (batch_size * world)), rows // world)

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        for chunk in np.array_split(order, self.steps * self.world)[self.rank :: self.world]:
            yield chunk.tolist()


class EpochLoader(DataLoader):
    """A DataLoader that tells its batch sampler the epoch, which `Trainer` announces to the loader alone."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class ImageTrainer(Trainer):
    """`Trainer` for batches of uint8 images.

    Args:
        views: makes the model's input from a batch of images.
        class_weights: (classes,) factor of the loss for rows of each class, or None.
        run: whose checkpoints these are; None where none is written.
        args: `ImageTrainingArguments`.
        others: of `Trainer`.
    """

    def __init__(self, *, views: Views, class_weights: torch.Tensor | None = None, run: Run | None = None, **others):
        self.views, self.class_weights, self.run = views, class_weights, run
        self._from: Path | None = None
        super().__init__(data_collator=collate, compute_loss_func=self._loss, **others)
        self.add_callback(_GoesOn(self))

    def _loss(self, outputs, labels, num_items_in_batch=None) -> torch.Tensor:
        """Weighted cross-entropy, averaged over all rows of a step on all processes: batches may differ by a row."""
        rows = functional.cross_entropy(outputs.logits.float(), labels, reduction="none")
        if self.class_weights is not None:
            rows = rows * self.class_weights.to(rows.device)[labels]
        return rows.sum() / (len(rows) if num_items_in_batch is None else num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As in `Trainer`, on a view of the images."""
        pixels = self.views.train(model.training)(inputs["pixel_values"])
        return super().compute_loss(model, {**inputs, "pixel_values": pixels}, return_outputs, num_items_in_batch)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, and logits averaged over ``eval_views`` views.

        The loss is this batch's own mean: `Trainer` would divide by the rows of all processes.
        """
        inputs = self._prepare_inputs(inputs)
        labels, views = inputs["labels"], self.args.eval_views
        with torch.no_grad(), self.compute_loss_context_manager():
            turned = (self.views.turned(inputs["pixel_values"], view, views) for view in range(views))
            logits = sum(model(pixel_values=pixels).logits.float() for pixels in turned) / views
        loss = functional.cross_entropy(logits, labels)
        return (loss, None, None) if prediction_loss_only else (loss, logits, labels)

    def train(self, resume_from_checkpoint: str | Path | None = None, **others):
        """As in `Trainer`, from a checkpoint of this run or from step 0."""
        self._from = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=None if self._from is None else str(self._from), **others)

    def train_or_take_over(self, start: Start) -> dict[str, float] | None:
        """Train from where the run begins, and save the model; or load it where the run is finished.

        Returns:
            The figures of the test split where the run is finished and its card is written, else None.
        """
        folder = Path(self.args.output_dir)
        if start.finished:
            self.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
            self._reload(str(folder), self.model)
            return self.run.figures()
        if start.checkpoint is not None and ended(start.checkpoint):
            logger.warning("%s: training had reached its end, step by step nothing is left", start.checkpoint)
            self.conclude(start.checkpoint)
        else:
            result = self.train(start.checkpoint)
            self.save_metrics("train", result.metrics)
        self.save_model()
        self.save_state()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.run.finish(self.state.global_step)
        return None

    def kept(self) -> str:
        """Which weights the model has, for a card."""
        state, best = self.state, self.state.best_global_step
        if not self.args.load_best_model_at_end or not best:
            return f"The weights kept are those of the last step, {state.global_step}; no validation chose them."
        name = self.args.metric_for_best_model.removeprefix("eval_")
        return (
            f"The weights kept are those of step {best} of {state.global_step}, chosen on the validation split: the best "
            f"{name} there, {state.best_metric:.3f}."
        )

    def conclude(self, checkpoint: Path) -> None:
        """Take over a training that had reached its end with this checkpoint: the best weights, or the last."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        self._find_best(checkpoint)
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._reload(best or str(checkpoint), self.model)

    def _find_best(self, checkpoint: Path) -> None:
        """The best checkpoint lies beside this one, wherever the folder was when it was written."""
        best = checkpoint.parent / f"checkpoint-{self.state.best_global_step}"
        if self.state.best_global_step and best.is_dir():
            self.state.best_model_checkpoint = str(best)

    def _go_on(self) -> None:
        """Called when `Trainer` has set its sums to zero: the losses since the last report count in the next one."""
        if self._from is None:
            return
        self._find_best(self._from)
        try:
            found = json.loads((self._from / f"losses_{self.args.process_index}.json").read_text())
        except FileNotFoundError:  # other processes than before
            return
        self._tr_loss += found["sum"]
        self._globalstep_last_logged = found["since"]
        self._total_loss_scalar -= found["sum"]  # train_loss is of the steps of this call

    def _save_checkpoint(self, model, trial) -> None:
        """As in `Trainer`; then what it forgets (the losses since the last report), and the word that all is written.

        Older checkpoints go only after that: a kill at any moment leaves a whole one.
        """
        step, limit = self.state.global_step, self.args.save_total_limit
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{step}"
        if self.args.should_save:
            (checkpoint / RECORD).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        losses = {"sum": self._tr_loss.item(), "since": self._globalstep_last_logged}
        (checkpoint / f"losses_{self.args.process_index}.json").write_text(json.dumps(losses))
        self.accelerator.wait_for_everyone()
        if self.run is not None and self.args.should_save:
            self.run.whole(checkpoint, step)
            self.run.rotate(step, limit, self.state.best_global_step if self.state.best_model_checkpoint else None)

    def get_train_dataloader(self) -> DataLoader:
        """A loader of this process's own batches: `accelerate` would pad the last one with rows seen before."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        batches = EpochBatches(len(self.train_dataset), self._train_batch_size, seed, args.process_index, args.world_size)
        return EpochLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """With ``layer_decay``, one group a block and kind of parameter; else `Trainer`'s two groups."""
        if self.args.layer_decay == 1 or self.optimizer is not None:
            return super().create_optimizer(model)
        model = self.model if model is None else model
        decayed = set(self.get_decay_parameter_names(model))
        groups = layer_decay_groups(model, self.args.learning_rate, self.args.layer_decay, self.args.weight_decay, decayed)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
        self.optimizer = kind(groups, **options)
        return self.optimizer

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Weights by ``from_pretrained``, which renames those whose names on disk differ from the model's.

        `Trainer` reads them with ``strict=False``: a ViT would go on with weights that are mostly random, and a warning
        (transformers issue 43701).
        """
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._reload(resume_from_checkpoint, self.model if model is None else model)

    def _load_best_model(self) -> None:
        """The same repair for ``load_best_model_at_end``."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._reload(self.state.best_model_checkpoint, self.model)

    def _reload(self, checkpoint: str, model) -> None:
        plain = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        loaded = type(plain).from_pretrained(checkpoint, dtype=plain.dtype, use_safetensors=True)
        plain.load_state_dict(loaded.state_dict())


class _GoesOn(TrainerCallback):
    """Calls ``ImageTrainer._go_on`` when training begins."""

    def __init__(self, trainer: ImageTrainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **others) -> None:
        self._trainer._go_on()
