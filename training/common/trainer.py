"""`Trainer` for galaxies: views made on the device, every row once an epoch on any number of processes, right reloads."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerState

from skyset.errors import UserError
from skyset.training.common.batches import EpochBatches, EpochLoader
from skyset.training.common.blocks import layer_decay_groups
from skyset.training.common.card import Card
from skyset.training.common.images import collate
from skyset.training.common.publish import pushed
from skyset.training.common.runs import RECORD, Run, Start, ended
from skyset.training.common.saving import room_for
from skyset.training.common.views import Views

logger = logging.getLogger("skyset.training")

#: Of each row of a batch, from the model's output and the labels.
RowLoss = Callable[[SimpleNamespace, Tensor], Tensor]


def cross_entropy(outputs: SimpleNamespace, labels: Tensor) -> Tensor:
    """Of classes, (rows,), from ``outputs.logits`` (rows, classes) and labels int64 (rows,)."""
    return functional.cross_entropy(outputs.logits.float(), labels, reduction="none")


class ImageTrainer(Trainer):
    """`Trainer` for batches of images and of what else is known of them.

    A batch is a dict of tensors: ``pixel_values``, ``labels``, and whatever else the model's ``forward`` takes. Another task
    gives another ``loss``, and where views change more than images, another ``prepared``.

    Args:
        views: makes the model's input from a batch of images.
        loss: of each row; cross-entropy of classes by default. ``outputs.logits`` is (rows, ...).
        class_weights: (classes,) factor of the training loss for rows of each class, or None.
        run: whose checkpoints these are; None where none is written.
        args: `ImageTrainingArguments`.
        others: of `Trainer`.
    """

    def __init__(
        self,
        *,
        views: Views,
        loss: RowLoss = cross_entropy,
        class_weights: Tensor | None = None,
        run: Run | None = None,
        **others,
    ):
        self.views, self.row_loss, self.class_weights, self.run = views, loss, class_weights, run
        self._from: Path | None = None
        super().__init__(data_collator=collate, compute_loss_func=self._loss, **others)
        self.label_names = ["labels"]
        self.add_callback(_GoesOn(self))
        if patience := getattr(self.args, "early_stopping_patience", None):
            self.add_callback(EarlyStoppingCallback(patience))

    def prepared(self, inputs: dict[str, Tensor], view: int | None = None) -> dict[str, Tensor]:
        """What the model sees of a batch, labels with it: random views (None), or view number ``view`` of ``eval_views``."""
        pixels = inputs["pixel_values"]
        if view is None:
            return {**inputs, "pixel_values": self.views.train()(pixels)}
        return {**inputs, "pixel_values": self.views.turned(pixels, view, self.args.eval_views)}

    def _loss(self, outputs, labels, num_items_in_batch=None) -> Tensor:
        """Averaged over all rows of a step on all processes: batches may differ by a row."""
        rows = self.row_loss(outputs, labels)
        if self.class_weights is not None:
            rows = rows * self.class_weights.to(rows.device)[labels]
        return rows.sum() / (len(rows) if num_items_in_batch is None else num_items_in_batch)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """Rows of a step on all processes, whatever the labels' shape: `Trainer` counts the labels' numbers."""
        rows = torch.tensor(sum(len(batch["labels"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(rows).sum() if self.args.world_size > 1 else rows

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As in `Trainer`, on a view of the images."""
        seen = self.prepared(inputs, None if model.training else 0)
        return super().compute_loss(model, seen, return_outputs, num_items_in_batch)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, and logits averaged over ``eval_views`` views.

        The loss is this batch's own mean: `Trainer` would divide by the rows of all processes.
        """
        inputs = self._prepare_inputs(inputs)
        views = self.args.eval_views
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = sum(self.logits_of(model, inputs, view) for view in range(views)) / views
        labels = inputs["labels"]
        loss = self.row_loss(SimpleNamespace(logits=logits), labels).mean()
        return (loss, None, None) if prediction_loss_only else (loss, logits, labels)

    def logits_of(self, model, inputs: dict[str, Tensor], view: int) -> Tensor:
        """What the model answers to a view of a batch, float32 (rows, ...), as if the view had not been turned."""
        seen = self.prepared(inputs, view)
        return model(**{name: values for name, values in seen.items() if name != "labels"}).logits.float()

    def train(self, resume_from_checkpoint: str | Path | None = None, **others):
        """As in `Trainer`, from a checkpoint of this run or from step 0.

        Raises:
            UserError: ``--gradient_checkpointing`` of a network that cannot.
        """
        self._from = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint=None if self._from is None else str(self._from), **others)
        except ValueError as error:
            if "gradient checkpointing" not in str(error):
                raise
            kind = getattr(self.model.config, "encoder", self.model.config).model_type
            raise UserError(f"{kind} has no gradient checkpointing in transformers: leave out the option") from error

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
        with room_for(folder, "the model"):
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
            with room_for(checkpoint, "a checkpoint"):
                super()._save_checkpoint(model, trial)
                losses = {"sum": self._tr_loss.item(), "since": self._globalstep_last_logged}
                (checkpoint / f"losses_{self.args.process_index}.json").write_text(json.dumps(losses))
                self.accelerator.wait_for_everyone()
                if self.run is not None and self.args.should_save:
                    self.run.whole(checkpoint, step)
        finally:
            self.args.save_total_limit = limit
        if self.run is not None and self.args.should_save:
            self.run.rotate(step, limit, self.state.best_global_step if self.state.best_model_checkpoint else None)

    def init_hf_repo(self, *args, **options) -> None:
        """As in `Trainer`.

        Raises:
            UserError: the Hub refuses, or cannot be reached.
        """
        try:
            super().init_hf_repo(*args, **options)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"--push_to_hub: {first}") from error

    def push_to_hub(self, *_, **__) -> None:
        """Nothing yet: `Trainer` would push a card of its own, and pickled arguments. See ``publish``."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: a model is published once, with its card."""

    def save_card(self, card: Card) -> None:
        """Write the card, remember it as this run's, and publish it where that is asked for."""
        with room_for(self.run.card_folder, "the card"):
            logger.info("card: %s", card.save(self.run.card_folder))
            self.run.card_written(card.files)
        if published := self.publish():
            logger.info("published: %s", published)

    def publish(self) -> str | None:
        """With ``--push_to_hub``, put model, card and figures there in one commit; its address, or None.

        Raises:
            UserError: the Hub does not take it; all is in the output folder, and the same command tries again.
        """
        if not self.args.push_to_hub or not self.is_world_process_zero():
            return None
        return pushed(self.run, self.hub_model_id, self.args)

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
