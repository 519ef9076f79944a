"""Train and measure p(z) from a table of magnitudes: what ``train_photoz.py --table`` does, in the order of things.

    python training/train_photoz.py --table train.hdf5 --eval_table test.hdf5 --model mdn --output_dir out/photoz

`photometry` reads the tables, `photoz_table` is the model, `photoz_table_card` writes the card.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import set_seed

from skyset.errors import UserError
from skyset.training.common.arguments import ModelArguments, begin_script, parse
from skyset.training.common.mixtures import Mixture
from skyset.training.common.models import load_trained
from skyset.training.common.photometry import Photometry, TableArguments, read_photometry, scaling_of
from skyset.training.common.photoz_table import PhotozTable, PhotozTableConfig, member_loss
from skyset.training.common.photoz_table_card import Measurement, TableStory, measured_card, unmeasured_card
from skyset.training.common.runs import Run, settings_of
from skyset.training.common.seeds import over_seeds
from skyset.training.common.tasks import mark
from skyset.training.common.trainer import ImageTrainer
from skyset.training.common.training_arguments import TaskArguments

logger = logging.getLogger("train_photoz")

#: Of the network, for --config_overrides.
SETTINGS = ("width", "depth", "components", "members", "folds", "noise")
#: Nodes of the grid that distributions are measured on.
NODES = 601
#: Of the rows without an --eval_table, measured on and not trained on.
TEST_SHARE = 0.1


@dataclass
class TableTrainingArguments(TaskArguments):
    """Defaults that suit a table; chosen on the training file of RAIL's sample, see the model card."""

    learning_rate: float = field(default=3e-3, metadata={"help": "AdamW's, at its highest."})
    weight_decay: float = field(default=0.2, metadata={"help": "AdamW's."})
    adam_beta2: float = field(default=0.99, metadata={"help": "AdamW's."})
    num_train_epochs: float = field(default=80, metadata={"help": "Unless max_steps says less."})
    per_device_train_batch_size: int = field(default=256, metadata={"help": "Galaxies a step and process."})
    per_device_eval_batch_size: int = field(default=2048, metadata={"help": "Galaxies a batch in evaluation."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps, or a share of all where below 1."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to measure on rows that members leave out."})
    eval_steps: float | None = field(default=0.1, metadata={"help": "Steps, or a share of all where below 1."})
    save_strategy: str = field(default="steps", metadata={"help": "When to write a checkpoint."})
    save_steps: float = field(default=0.1, metadata={"help": "Steps, or a share of all where below 1."})
    load_best_model_at_end: bool = field(default=False, metadata={"help": "Keep the best checkpoint, not the last."})
    logging_steps: float = field(default=0.02, metadata={"help": "Steps between reports of the loss, or a share."})
    baselines: bool = field(default=True, metadata={"help": "Train simpler models beside it, for the card: a minute."})


def main(arguments: list[str]) -> dict[str, float]:
    """Train on a table, measure, write model and card; returns the metrics of the rows measured on."""
    kinds = (TableArguments, ModelArguments, TableTrainingArguments)
    table_args, model_args, args = parse(kinds, arguments)
    begin_script(model_args, args)
    if args.seeds > 1:
        return over_seeds(main, arguments, args)
    set_seed(args.seed)

    # Everything that may be wrong with the command is found before anything is trained.
    if model_args.model_type or model_args.image_mean or model_args.freeze or model_args.n_blocks is not None:
        raise UserError("--model_type, --image_mean, --freeze and --n_blocks are not for tables: see --config_overrides")
    name = model_args.model_name_or_path
    known = load_trained(name, "photoz_table", *model_args.hub)[0] if name else None
    rows, test = read_tables(table_args, args, known.config if known else None)
    model = known or new_model(rows, model_args.overrides)
    model.config.point = table_args.point or model.config.point
    mark(model, "photoz_table")
    folds = model.config.folds
    train_set = TableRows(rows, folds_of(len(rows), folds, args.seed))
    if folds < 2:
        args.eval_strategy = "no"

    story = TableStory(
        model_args=model_args, args=args, model=model, rows=len(rows), data=rows.digest, table_args=table_args, train=rows
    )
    run = Run(
        Path(args.output_dir),
        settings_of(args)
        | {
            "script": "train_photoz --table",
            "data": rows.digest,
            "columns": model.config.columns,
            "first weights": model_args.first_weights(),
            "model": {name: getattr(model.config, name) for name in (*SETTINGS, "point")},
        },
        about=story.about(),
        source={"manifest": str(table_args.table), "sha256": rows.digest},
        keep_best=args.load_best_model_at_end,
        card_folder=Path(args.card_dir) if args.card_dir else None,
    )
    start = run.begin(args) if args.do_train else None
    if start is None:
        run.refuse_a_training(args.overwrite_output_dir)
    trainer = TableTrainer(model=model, args=args, run=run, train_dataset=train_set, eval_dataset=train_set)
    if start is not None:
        figures = trainer.train_or_take_over(start)
        if figures is not None and not args.do_predict:
            return figures
        story.kept = trainer.kept()

    grid = grid_for(rows if args.do_train else test)
    held_out = None
    if args.do_train and folds > 1:
        held_out = Measurement.of(trainer.cdf(train_set, grid), grid, rows.redshifts, model.config.point)
        trainer.save_metrics("eval", {f"eval_{key}": value for key, value in held_out.metrics.items()})
    if test is None:
        if args.should_save:
            trainer.save_card(unmeasured_card(story, held_out))
        return {}
    measured = Measurement.of(trainer.cdf(TableRows(test), grid), grid, test.redshifts, model.config.point)
    trainer.save_metrics("test", {f"test_{key}": value for key, value in measured.metrics.items()})
    logger.info("test: %s", ", ".join(f"{key} {value:.4f}" for key, value in measured.metrics.items()))
    if args.should_save:
        trainer.save_card(measured_card(story, test, measured, held_out, args.baselines and args.do_train))
    return measured.metrics


def read_tables(
    asked: TableArguments, args: TableTrainingArguments, known: PhotozTableConfig | None
) -> tuple[Photometry, Photometry | None]:
    """Rows to train on, and rows to measure on (None with --train_on all).

    Raises:
        UserError: a table cannot be used, or one of its rows is to be both.
    """
    if not asked.table and args.do_train:
        raise UserError("--table names the rows to train on")
    rows = with_redshift(read_photometry(asked.table or asked.eval_table, asked), asked.table or asked.eval_table)
    if known is not None:
        check_bands(rows.columns.bands, known)
    if args.train_on == "all" and args.do_train:
        return rows, None
    if asked.eval_table:
        test = with_redshift(read_photometry(asked.eval_table, asked, rows.columns), asked.eval_table)
        if test.digest == rows.digest and args.do_train:
            raise UserError(
                f"{asked.eval_table} holds the rows of {asked.table}: a model is not measured on what it learned"
            )
        return rows, test
    order = np.random.default_rng((args.seed, 1)).permutation(len(rows))
    test_rows, train_rows = np.split(order, [max(1, round(TEST_SHARE * len(rows)))])
    return rows.rows(np.sort(train_rows)), rows.rows(np.sort(test_rows))


def with_redshift(rows: Photometry, where: str) -> Photometry:
    """The rows that have a redshift and a magnitude; how many have not is said.

    Raises:
        UserError: none has, or all have the same.
    """
    known, seen = np.isfinite(rows.redshifts), ~np.isnan(rows.magnitudes).all(axis=1)
    for what, use in (("redshift", known), ("magnitude", seen)):
        if not use.any():
            raise UserError(f"{where}: no row has a {what}")
        if not use.all():
            logger.warning("%s: %d of %d rows have no %s and are left out", where, (~use).sum(), len(rows), what)
    rows = rows.rows(known & seen) if not (known & seen).all() else rows
    if not len(rows) or np.ptp(rows.redshifts) == 0:
        raise UserError(f"{where}: all redshifts are the same: there is nothing to learn")
    return rows


def check_bands(bands: tuple[str, ...], known: PhotozTableConfig) -> None:
    if list(bands) != list(known.bands):
        raise UserError(
            f"the table's bands are {', '.join(bands)}, but the model takes {', '.join(known.bands)}: see --bands"
        )


def new_model(rows: Photometry, overrides: dict) -> PhotozTable:
    """A random start, for these rows."""
    logs = np.log1p(rows.redshifts)
    columns = {
        "magnitudes": list(rows.columns.magnitudes),
        "errors": list(rows.columns.errors),
        "redshift": rows.columns.redshift,
    }
    given = {
        "bands": list(rows.columns.bands),
        "scaling": scaling_of(rows),
        "centre": float(logs.mean()),
        "spread": float(logs.std()),
    }
    if unknown := sorted(set(overrides) - set(SETTINGS)):
        raise UserError(f"--config_overrides: no setting {unknown[0]} (there are: {', '.join(SETTINGS)})")
    try:
        return PhotozTable(PhotozTableConfig(**given, columns=columns, **overrides))
    except (TypeError, RuntimeError) as error:
        raise UserError(f"--config_overrides make no network: {str(error).splitlines()[0]}") from error


def folds_of(count: int, folds: int, seed: int) -> np.ndarray:
    """Which fold each row is in, int64 (rows,); -1 everywhere where there are none."""
    if folds < 2:
        return np.full(count, -1)
    if count < folds:
        raise UserError(f"{count} rows cannot be shared by {folds} folds: give --config_overrides '{{\"folds\": 0}}'")
    return np.random.default_rng((seed, 2)).permutation(count) % folds


def grid_for(rows: Photometry) -> np.ndarray:
    """Redshifts, dense where dz / (1 + z) is small, to a quarter beyond the largest 1 + z: float64 (nodes,)."""
    return np.expm1(np.linspace(0, np.log1p(rows.redshifts.max()) + np.log(1.25), NODES))


class TableRows(Dataset):
    """Rows for a loader, whole batches at a time.

    Args:
        photometry: of them.
        folds: of each, -1 for rows that no member learned from.
    """

    def __init__(self, photometry: Photometry, folds: np.ndarray | None = None):
        folds = np.full(len(photometry), -1) if folds is None else folds
        labels = np.column_stack([photometry.redshifts, folds]).astype(np.float32)
        arrays = {"magnitudes": photometry.magnitudes, "errors": photometry.errors, "labels": labels}
        self.tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def __len__(self) -> int:
        return len(self.tensors["labels"])

    def __getitems__(self, numbers: list[int]) -> dict[str, Tensor]:
        return {name: values[numbers] for name, values in self.tensors.items()}

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.__getitems__([number])


class TableTrainer(ImageTrainer):
    """`ImageTrainer` for rows of a table: labels are redshift and fold; see `PhotozTable.learns_from`."""

    def __init__(self, **others):
        super().__init__(views=None, loss=self._of_members, **others)
        self.data_collator = _as_it_is

    def prepared(self, inputs: dict[str, Tensor], view: int | None = None) -> dict[str, Tensor]:
        """The batch: noise is drawn by the model, for each member."""
        return inputs

    def _of_members(self, outputs: SimpleNamespace, labels: Tensor) -> Tensor:
        """In training over the members that learn from a row, else over those that do not."""
        use = self._use(labels)
        return member_loss(outputs.logits, labels[:, 0], use)

    def _use(self, labels: Tensor) -> Tensor:
        plain = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        folds = labels[:, 1].long()
        learns = plain.learns_from(folds)
        return learns if self.model.training else ~learns | (folds < 0)[:, None]

    def cdf(self, rows: TableRows, grid: np.ndarray) -> np.ndarray:
        """Cumulative functions, float32 (rows, nodes), by the members that have not learned from a row."""
        found = self.predict(rows)
        components, labels = torch.from_numpy(found.predictions), torch.from_numpy(found.label_ids)
        self.model.eval()
        use = self._use(labels.to(self.args.device)).cpu()
        return Mixture(components).cdf(grid, use)


def _as_it_is(batch):
    return batch
