"""Model cards written from measured numbers: metadata that the Hub reads, tables, and plots beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from matplotlib.figure import Figure

from skyset.training.common.metrics import auc, binomial_interval, calibration, interval, precision_recall_curve, roc_curve

NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
#: What lies between 0 and 1.
SHARES = {*NAMES, "agreement", "macro_f1", "usable_auc", "coverage_97", "aurc", "ccd_accuracy"}


@dataclass
class Measured:
    """What was measured, and on what.

    Args:
        dataset, config, split, revision: the rows; ``revision`` says which build of the dataset.
        metrics: by name.
        rows: how many.
        errors: standard errors of the metrics, for their intervals.
        title: of the part of the card.
        remark: what is to be known about the rows, such as that the model was trained on them.
        task: as the Hub calls it.
        names: how the metrics are called, in their order.
        digits: after the point, in tables.
        things: what the rows are.
    """

    dataset: str
    config: str
    split: str
    revision: str
    metrics: Mapping[str, float]
    rows: int
    errors: Mapping[str, float]
    title: str = "Measured"
    remark: str = ""
    task: str = "image-classification"
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    digits: int = 3
    things: str = "galaxies"

    def results(self) -> list[EvalResult]:
        """For the card's metadata."""
        return [
            EvalResult(
                task_type=self.task,
                dataset_type=self.dataset,
                dataset_name=self.dataset,
                dataset_config=self.config,
                dataset_split=self.split,
                dataset_revision=self.revision,
                metric_type=name,
                metric_name=self.names.get(name, name),
                metric_value=round(float(value), 6),
            )
            for name, value in self.metrics.items()
        ]


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
        library: that loads the model.
        licence: name as the Hub spells it, and a sentence that says of what.
        usage: Python that runs where the card was written, and a sentence before it.
        galaxies: what galaxies the figures are of, and what follows for others.
        versions: of libraries, by name.
        task: as the Hub calls it; of ``measured`` where there is one.
        things: what ``galaxies`` is about.
    """

    name: str
    text: str
    measured: Measured | None
    tables: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, tuple[Figure, str]] = field(default_factory=dict)
    base_model: str | None = None
    tags: Sequence[str] = ("astronomy", "galaxies")
    citation: str = ""
    library: str = "transformers"
    licence: tuple[str, str] = ("", "")
    usage: tuple[str, str] = ("", "")
    galaxies: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    task: str = "image-classification"
    things: str = "galaxies"

    @property
    def files(self) -> list[str]:
        """Names of what ``save`` writes."""
        return ["README.md", *self.figures]

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
        if self.usage[1]:
            parts.append(f"## Use\n\n{self.usage[0]}\n\n```python\n{self.usage[1].strip()}\n```\n")
        if self.measured is not None:
            found = self.measured
            rows = (
                f"{found.rows} {found.things} of `{found.dataset}`, config `{found.config}`, "
                f"split `{found.split}`, revision `{found.revision}`."
            )
            parts.append(f"## {found.title}\n\n{rows}{' ' * bool(found.remark)}{found.remark}\n")
            one, errors = {"this model": self.measured.metrics}, {"this model": self.measured.errors}
            table = metrics_table(one, errors, self.measured.names, self.measured.digits)
            parts.append(f"{table}\n{INTERVALS.replace('galaxies', self.things) if self.measured.errors else ''}\n")
        if self.galaxies:
            parts.append(f"## Which {self.things}\n\n{self.galaxies.strip()}\n")
        parts += [f"## {title}\n\n{table}" for title, table in self.tables.items()]
        parts += [f"![{name}]({name})\n\n{sentence}\n" for name, (_, sentence) in self.figures.items()]
        if self.versions:
            parts.append(f"## Versions\n\n{', '.join(f'{name} {version}' for name, version in self.versions.items())}\n")
        if self.licence[1]:
            parts.append(f"## Licence\n\n{self.licence[1]}\n")
        if self.citation:
            parts.append(f"## Citation\n\n```bibtex\n{self.citation.strip()}\n```\n")
        return "\n".join(parts)

    def _metadata(self) -> ModelCardData:
        known = {"base_model": self.base_model} if self.base_model else {}
        if self.measured is not None:
            known |= {"eval_results": self.measured.results(), "datasets": [self.measured.dataset]}
        if self.licence[0]:
            known["license"] = self.licence[0]
        return ModelCardData(
            model_name=self.name,
            library_name=self.library,
            pipeline_tag=self.task if self.measured is None else self.measured.task,
            tags=list(self.tags),
            **known,
        )


#: Below a calibration figure.
CALIBRATION = "Calibration, with 68 % binomial errors and the number of galaxies of each point."
#: Of what the intervals in ``metrics_table`` are.
INTERVALS = (
    "Intervals: 95 %, the value and 1.96 standard deviations of it over 500 samples of the measured galaxies, drawn with\n"
    "replacement, the model fixed: what another set of such galaxies would give, not another training."
)


def metrics_table(
    models: Mapping[str, Mapping[str, float]],
    errors: Mapping[str, Mapping[str, float]] | None = None,
    names: Mapping[str, str] = NAMES,
    digits: int = 3,
) -> str:
    """Markdown: a row a model, a column a metric; empty where a model has none of it. Below it 95 % intervals, if asked for.

    Args:
        models: metrics by name, by model.
        errors: standard errors of the metrics, by model.
        names: how the metrics are called, in their order; others are left out.
        digits: after the point.
    """
    columns = [name for name in names if any(name in metrics for metrics in models.values())]
    lines = ["| | " + " | ".join(names[name] for name in columns) + " |", "|---|" + "---|" * len(columns)]
    for model, metrics in models.items():
        cells = (f"{metrics[name]:.{digits}f}" if name in metrics else "" for name in columns)
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
        if errors and model in errors:
            known = errors[model]
            bounds = {
                name: _bounds(name, metrics[name], known[name]) for name in columns if name in metrics and name in known
            }
            cells = (" to ".join(f"{end:.{digits}f}" for end in bounds[name]) if name in bounds else "" for name in columns)
            lines.append("| 95 % interval | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _bounds(name: str, value: float, error: float) -> tuple[float, float]:
    """Its interval: shares lie between 0 and 1."""
    return interval(value, error) if name in SHARES else interval(value, error, -np.inf, np.inf)


def roc_figure(labels: np.ndarray, scores: Mapping[str, np.ndarray], what: str = "rings") -> Figure:
    """ROC curves of several models over the same rows; the legend stands below them. ``what`` names the ones."""
    figure = Figure(figsize=(5, 5.3 + 0.22 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for name, values in scores.items():
        false_rate, true_rate, _ = roc_curve(labels, values)
        axes.plot(false_rate, true_rate, label=f"{name}: AUC {auc(labels, values):.3f}")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, label="chance")
    axes.set(xlabel=f"false-positive rate (others called {what})", ylabel=f"true-positive rate ({what} found)")
    axes.set(xlim=(0, 1), ylim=(0, 1), title="ROC curve")
    axes.set_box_aspect(1)
    figure.legend(loc="outside lower center", fontsize="small")
    return figure


def calibration_figure(labels: np.ndarray, probabilities: Mapping[str, np.ndarray], bins: int = 10) -> Figure:
    """How often it is a ring where models over the same rows say so with some probability."""
    return reliability_figure({name: (labels, values) for name, values in probabilities.items()}, bins)


def reliability_figure(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]], bins: int = 10, what: str = "rings", rows: str = "galaxies"
) -> Figure:
    """Share of ones over predicted probability, with 68 % binomial errors; below, how many rows.

    Args:
        groups: labels (rows,) and probabilities (rows,) by name.
        bins: of the probability.
        what, rows: names of the ones and of the rows.
    """
    figure = Figure(figsize=(5, 6.6), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    for name, (labels, values) in groups.items():
        mean, share, count = calibration(labels, values, bins)
        low, high = binomial_interval(share * count, count)
        errors = np.clip([share - low, high - share], 0, None)
        (line, *_) = axes.errorbar(mean, share, errors, marker="o", markersize=4, linewidth=1, capsize=2, label=name)
        if len(groups) == 1:
            for place in zip(mean, share, count, strict=True):
                axes.annotate(f"{place[2]:,}", place[:2], (5, -9), textcoords="offset points", fontsize="x-small")
        below.hist(values, np.linspace(0, 1, bins + 1), histtype="step", color=line.get_color(), log=len(values) > 5000)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, label="perfect")
    axes.set(ylabel=f"share of {what}", title="Calibration", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", fontsize="small")
    below.set(xlabel="predicted probability", ylabel=rows)
    return figure


def precision_recall_figure(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Precision over recall of several models over the same rows; the legend stands below them."""
    figure = Figure(figsize=(5, 5.3 + 0.22 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for name, values in scores.items():
        precision, recall, _ = precision_recall_curve(labels, values)
        axes.step(recall, precision, where="post", label=name)
    axes.axhline(np.mean(labels), color="0.7", linewidth=0.8, label="chance")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
    figure.legend(loc="outside lower center", fontsize="small")
    return figure
