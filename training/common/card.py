"""Model cards written from measured numbers: metadata that the Hub reads, tables, and plots beside them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult
from huggingface_hub import ModelCardData
from matplotlib.figure import Figure

from skyset.training.common.metrics import auc
from skyset.training.common.metrics import calibration
from skyset.training.common.metrics import precision_recall_curve
from skyset.training.common.metrics import roc_curve

NAMES = {
    "auc": "AUC", "average_precision": "average precision", "accuracy": "accuracy", "precision": "precision",
    "recall": "recall", "f1": "F1", "brier": "Brier score", "ece": "expected calibration error",
}  # fmt: skip


@dataclass
class Measured:
    """What was measured, and on what.

    Args:
        dataset, config, split, revision: the rows; ``revision`` says which build of the dataset.
        metrics: by name.
        rows: how many.
    """

    dataset: str
    config: str
    split: str
    revision: str
    metrics: Mapping[str, float]
    rows: int

    def results(self) -> list[EvalResult]:
        """For the card's metadata."""
        return [
            EvalResult(
                task_type="image-classification", dataset_type=self.dataset, dataset_name=self.dataset,
                dataset_config=self.config, dataset_split=self.split, dataset_revision=self.revision,
                metric_type=name, metric_name=NAMES.get(name, name), metric_value=round(float(value), 6),
            )
            for name, value in self.metrics.items()
        ]  # fmt: skip


@dataclass
class Card:
    """A model card.

    Args:
        name: the model's.
        text: what it is and how it was trained, Markdown.
        measured: None where nothing can be measured honestly (trained on all rows).
        tables: title to Markdown table.
        figures: file name (without folder) to figure and the sentence below it.
        base_model: on the Hub, or None.
        tags: for the Hub.
        citation: BibTeX.
    """

    name: str
    text: str
    measured: Measured | None
    tables: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, tuple[Figure, str]] = field(default_factory=dict)
    base_model: str | None = None
    tags: Sequence[str] = ("astronomy", "galaxies")
    citation: str = ""

    def save(self, folder: Path, file_name: str = "README.md") -> Path:
        """Write the card and its figures; returns the card's path."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, (figure, _) in self.figures.items():
            figure.savefig(folder / name, dpi=110)
        path = folder / file_name
        path.write_text(self.markdown())
        return path

    def markdown(self) -> str:
        parts = [f"---\n{self._metadata().to_yaml()}\n---\n", f"# {self.name}\n", self.text.strip() + "\n"]
        if self.measured is not None:
            rows = f"{self.measured.rows} galaxies of `{self.measured.dataset}`, config `{self.measured.config}`, " \
                   f"split `{self.measured.split}`, revision `{self.measured.revision}`."  # fmt: skip
            parts.append(f"## Measured\n\n{rows}\n\n{metrics_table({'this model': self.measured.metrics})}")
        parts += [f"## {title}\n\n{table}" for title, table in self.tables.items()]
        parts += [f"![{name}]({name})\n\n{sentence}\n" for name, (_, sentence) in self.figures.items()]
        if self.citation:
            parts.append(f"## Citation\n\n```bibtex\n{self.citation.strip()}\n```\n")
        return "\n".join(parts)

    def _metadata(self) -> ModelCardData:
        known = {"base_model": self.base_model} if self.base_model else {}
        if self.measured is not None:
            known |= {"eval_results": self.measured.results(), "datasets": [self.measured.dataset]}
        return ModelCardData(
            model_name=self.name, library_name="transformers", pipeline_tag="image-classification", tags=list(self.tags),
            **known,
        )  # fmt: skip


def metrics_table(models: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row a model, a column a metric; empty where a model has none of it."""
    columns = [name for name in NAMES if any(name in metrics for metrics in models.values())]
    lines = ["| | " + " | ".join(NAMES[name] for name in columns) + " |", "|---|" + "---|" * len(columns)]
    for model, metrics in models.items():
        cells = (f"{metrics[name]:.3f}" if name in metrics else "" for name in columns)
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def roc_figure(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """ROC curves of several models over the same rows."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in scores.items():
        false_rate, true_rate, _ = roc_curve(labels, values)
        axes.plot(false_rate, true_rate, label=f"{name}: AUC {auc(labels, values):.3f}")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(xlabel="others called rings", ylabel="rings found", aspect="equal", title="ROC curve")
    axes.legend(loc="lower right", fontsize="small")
    return figure


def calibration_figure(labels: np.ndarray, probabilities: Mapping[str, np.ndarray], bins: int = 10) -> Figure:
    """How often it is a ring where the model says so with some probability; sizes of the dots are numbers of rows."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in probabilities.items():
        mean, share, count = calibration(labels, values, bins)
        (line,) = axes.plot(mean, share, label=name)
        axes.scatter(mean, share, s=10 + 200 * count / count.sum(), color=line.get_color())
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(xlabel="predicted probability", ylabel="share of rings", title="Calibration")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def precision_recall_figure(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Precision over recall of several models over the same rows."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, values in scores.items():
        precision, recall, _ = precision_recall_curve(labels, values)
        axes.step(recall, precision, where="post", label=name)
    axes.axhline(np.mean(labels), color="0.7", linewidth=0.8, label="chance")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
    axes.legend(loc="lower left", fontsize="small")
    return figure
