"""The model card of a photometric redshift from a table: figures measured, cross-validated, and of simpler models beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from skyset.training.common.card import Card, Measured, metrics_table
from skyset.training.common.photometry import Photometry, Scaling, TableArguments
from skyset.training.common.photoz_baselines import HOW, score_baselines
from skyset.training.common.photoz_card import over_redshift_figure, pit_figure, redshift_figure, table_over_redshift
from skyset.training.common.photoz_metrics import NAMES, OUTLIER, all_metrics, metrics_errors, pit, point_metrics
from skyset.training.common.photoz_points import PEAK, POINTS, point
from skyset.training.common.photoz_table import PhotozTableConfig
from skyset.training.common.story import Story

TASK = "tabular-regression"
LICENCE = ("other", "That of the table, and of weights that a training started from.")
#: Of what is measured, in the card's tables.
SHOWN = ("scatter", "outliers", "bias", "rms", "catastrophic", "loss", "crps", "pit_ks", "coverage_68", "coverage_95")
USAGE = """
from skyset.training.common.mixtures import Mixture
from skyset.training.common.models import load_trained
from skyset.training.common.photoz_table import predict

model, _ = load_trained("{model}", "photoz_table")
photometry, components = predict(model, "{table}")
p = Mixture(components[:4])
print(p.cdf([0.5, 1.0, 1.5]), "of", photometry.magnitudes[:4])
"""


@dataclass(frozen=True)
class Measurement:
    """Distributions of some rows, and what was measured of them.

    Args:
        cdf, grid: as in `photoz_metrics`.
        z_spec: (rows,) true.
        point: of `photoz_points.POINTS`.
        z_phot: (rows,) said.
        metrics: by name.
    """

    cdf: np.ndarray
    grid: np.ndarray
    z_spec: np.ndarray
    point: str
    z_phot: np.ndarray
    metrics: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(cdf: np.ndarray, grid: np.ndarray, z_spec: np.ndarray, kind: str) -> Measurement:
        z_phot = point(cdf, grid, kind)
        return Measurement(cdf, grid, z_spec, kind, z_phot, all_metrics(cdf, grid, z_spec, z_phot))

    def by_point(self) -> dict[str, dict[str, float]]:
        """Metrics of each kind of point, by its name."""
        return {kind: point_metrics(point(self.cdf, self.grid, kind), self.z_spec) for kind in POINTS}


@dataclass(kw_only=True)
class TableStory(Story):
    """What is known of a model when its card is written.

    Args:
        table_args: of the command.
        train: rows that it is trained on.
        others: of `Story`.
    """

    table_args: TableArguments
    train: Photometry
    licence: tuple[str, str] = LICENCE

    @property
    def name(self) -> str:
        return f"photoz-mdn-{Path(self.table_args.table or self.table_args.eval_table or '').name.split('.')[0]}"

    def text(self) -> str:
        """What the model is and how it was made, Markdown."""
        config: PhotozTableConfig = self.model.config
        return (
            f"Photometric redshifts from magnitudes in {', '.join(config.bands)}"
            f"{' and their errors' if config.columns.get('errors') else ''}: p(z) as a mixture of normal distributions of "
            f"log(1 + z). Magnitudes that are missing are inputs: 99 is not detected; NaN, nothing or -99 not observed.\n\n"
            f"{self.size()} {self.made()}"
        )

    def size(self) -> str:
        config, count = self.model.config, sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"{config.members} networks with {config.depth} residual layers of {config.width}, {config.components} "
            f"components each, {count / 1e6:.2f} million parameters together; p(z) is the mean of theirs. The point "
            f"given is {POINTS[config.point]}."
        )

    def training(self, how_often: str = "") -> str:
        """How this command trains."""
        args, config = self.args, self.model.config
        length = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
        batch = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
        start = self.model_args.model_name_or_path
        schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        left_out = f" Each leaves out one of {config.folds} parts of the rows." if config.folds > 1 else ""
        return (
            f"From {f'the weights of `{start}`' if start else 'a random start'} by likelihood on {self.rows} galaxies of "
            f"`{Path(self.table_args.table or '').name}` ({self.data}) for {length} in batches of {batch}, learning rate "
            f"{args.learning_rate:g} ({schedule}), weight decay {args.weight_decay:g}, seed {args.seed}. "
            f"In each batch and for each network fluxes are moved by {config.noise:g} of their errors.{left_out}"
        )

    def usage(self) -> tuple[str, str]:
        table = self.table_args.eval_table or self.table_args.table
        return "For four galaxies:", USAGE.format(model=self.folder, table=table)


def unmeasured_card(story: TableStory, held_out: Measurement | None) -> Card:
    """The card of a model trained on all rows: what cross-validation says, if there are folds."""
    tables = (
        {
            "Cross-validated": _held_out_text(story)
            + _table({"held out": held_out.metrics})
            + "\n"
            + _table_of_points(held_out)
        }
        if held_out
        else {}
    )
    text = story.text() + "\nTrained on all galaxies: none is left to measure the whole ensemble on.\n"
    return Card(f"{story.name}-all", text, None, tables=tables, task=TASK, **story.known())


def measured_card(
    story: TableStory, test: Photometry, measured: Measurement, held_out: Measurement | None, baselines: bool
) -> Card:
    """The card of a model measured on rows that it has not seen, with simpler models measured on the same rows beside it."""
    z_phot, z_spec = measured.z_phot, measured.z_spec
    tables = {"Other points of the same p(z)": _points_text(measured)}
    if baselines:
        tables["Beside simpler models"] = _baselines_text(story, test, measured)
    if held_out:
        tables["Cross-validated"] = _held_out_text(story) + _table({"held out": held_out.metrics})
        tables["Cross-validated"] += "\n" + _table_of_points(held_out)
    tables["Over redshift"] = table_over_redshift(z_phot, z_spec)
    where = story.table_args.eval_table or story.table_args.table
    return Card(
        story.name,
        story.text(),
        Measured(
            Path(str(where)).name,
            "default",
            "test",
            test.digest,
            {name: measured.metrics[name] for name in SHOWN},
            len(test),
            metrics_errors(z_phot, z_spec, (measured.cdf, measured.grid), samples=500),
            remark=_missing_text(test) + story.remark(),
            task=TASK,
            names=NAMES,
            digits=4,
        ),
        tables=tables,
        figures={
            "redshifts.png": (
                redshift_figure(z_phot, z_spec),
                f"Redshifts ({measured.point} of p(z)) over true ones; outliers are beyond the dashed lines.",
            ),
            "over_redshift.png": (over_redshift_figure({"this model": (z_phot, z_spec)}), "In bins of the true redshift."),
            "pit.png": (
                pit_figure(pit(measured.cdf, measured.grid, z_spec)),
                "Where true redshifts lie in their p(z): flat if these are right; the 95 % range of right ones is grey.",
            ),
        },
        task=TASK,
        **story.known(),
    )


def features_of(rows: Photometry, config: PhotozTableConfig) -> np.ndarray:
    """What the network is given, without noise: float32 (rows, features)."""
    scaling = Scaling(**{name: torch.tensor(values) for name, values in config.scaling.items()})
    return scaling.features(torch.from_numpy(rows.magnitudes), torch.from_numpy(rows.errors)).numpy()


def _baselines_text(story: TableStory, test: Photometry, measured: Measurement) -> str:
    """Simpler models, trained now: by the same point of their p(z), and by its median."""
    known, asked = (features_of(rows, story.model.config) for rows in (story.train, test))
    grid, kind = measured.grid, measured.point
    others = dict(score_baselines(known, story.train.redshifts, asked, grid))
    cdfs = {"this model": measured.cdf, **others}
    text = (
        "Trained on the same galaxies with the same features (asinh magnitudes, their principal components, colours, what "
        f"is missing) and measured on the same, in one run; the point of each is {POINTS[kind]}.\n\n"
    )
    for each in dict.fromkeys((kind, "median")):
        if each != kind:
            text += "\nThe same, by the medians of p(z):\n\n"
        text += _table({name: Measurement.of(cdf, grid, measured.z_spec, each).metrics for name, cdf in cdfs.items()})
    return text + "\n" + "\n".join(f"- {name}: {HOW[name]}." for name in others) + "\n"


def _points_text(measured: Measurement) -> str:
    text = f"The point given is {POINTS[measured.point]}. "
    if measured.point == "best":
        text += (
            f"Its score is highest at dz = 0 and falls beyond |dz| = {PEAK:g} and again at {OUTLIER:g}, from where a "
            "redshift is an outlier: see `photoz_points.py`. "
        )
    return text + "Other points of the same distributions, measured on the same galaxies:\n\n" + _table_of_points(measured)


def _table_of_points(measured: Measurement) -> str:
    names = ("scatter", "outliers", "bias", "rms", "catastrophic", "loss")
    return metrics_table(measured.by_point(), None, {name: NAMES[name] for name in names}, 4)


def _table(models: Mapping[str, Mapping[str, float]]) -> str:
    return metrics_table(models, None, {name: NAMES[name] for name in SHOWN}, 4)


def _held_out_text(story: TableStory) -> str:
    config = story.model.config
    each = config.members // config.folds
    which = f"the one of {config.members} networks" if each == 1 else f"the {each} of {config.members} networks"
    return (
        f"Every training row by {which} that had not learned from it: settings can be chosen by these figures, not by the "
        "rows measured on.\n\n"
    )


def _missing_text(rows: Photometry) -> str:
    """How many magnitudes are missing, by band."""
    undetected, unseen = np.isposinf(rows.magnitudes).sum(0), np.isnan(rows.magnitudes).sum(0)
    parts = [
        f"{band} {lost + none:,}"
        for band, lost, none in zip(rows.columns.bands, undetected, unseen, strict=True)
        if lost or none
    ]
    return f"Magnitudes that are missing, by band: {', '.join(parts)}. " if parts else ""
